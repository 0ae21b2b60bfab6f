"""kill -9 of `make repro` while it renders, trains and fine-tunes; then the same command: are the bytes the same?

    python benchmarks/kill_repro.py FOLDER [--profile smoke] [--reference OTHER | --lock] [--json FILE]

FOLDER becomes a clone of this repository's last commit. `make repro` runs in it, is killed with SIGKILL at three
moments (a collection is half rendered, a training has its first checkpoint, a fine-tuning has one), and is started
again each time; after each kill all its processes have to end by themselves within a minute, and `.dvc/tmp/rwlock` is
emptied, as a machine without power may leave it. OTHER is a clone in which the same commit ran undisturbed; without it
one is made beside FOLDER. Every output that dvc.lock names is compared file by file. With `--lock` the reference is the
committed dvc.lock, which holds the hash of every output of an undisturbed run: at the default size half the time, about
an hour on two cores. Then the committed results, which the clone would keep, are removed first, so that every one is
made again. The environment of this clone, .venv and .cache, is used. A FOLDER that is there goes on from where it is,
for `--moments` that are still to come."""

import argparse
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from ruamel.yaml import YAML

from acae_nb.reporting.reports import machine

REPO = Path(__file__).resolve().parent.parent
MOMENTS = {  # name: files below the clone that are there at this moment, and not before
    "rendering": "artifacts/people/.*.chunks-*/*",
    "training": ".checkpoints/train-separate-*/*.safetensors",
    "fine-tuning": ".checkpoints/finetune-consistency-*/*.safetensors",
}
TIME_DEPENDENT = ("results/resources", "results/timing", "results/report", "artifacts/report")  # say how long it took


def make_clone(folder: Path, profile: str | None) -> None:
    "A clone of the last commit that shares this one's environment, with a profile overlaid."
    subprocess.run(["git", "clone", "-q", str(REPO), str(folder)], check=True)
    for name in (".venv", ".cache"):
        (folder / name).symlink_to(REPO / name)
    (REPO / ".venv/.installed").touch()
    if profile:
        subprocess.run(["make", "profile", f"NAME={profile}"], cwd=folder, check=True)


def remove_outputs(folder: Path) -> None:
    "Remove the committed outputs of a clone: what lies there already, DVC need not make."
    for path in all_outputs((folder / "dvc.lock").read_text("utf-8")):
        if (folder / path).is_dir():
            shutil.rmtree(folder / path)
        else:
            (folder / path).unlink(missing_ok=True)


def start(folder: Path) -> subprocess.Popen:
    "`make repro` in the folder, its output appended to FOLDER/repro.log."
    log = open(folder / "repro.log", "ab")
    return subprocess.Popen(["make", "repro"], cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def processes_in(folder: Path) -> list[psutil.Process]:
    "Living processes whose working directory is the folder, or lies below it."
    living = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
        except (psutil.Error, OSError):
            continue  # it ended while we looked, or is somebody else's
    return living


def wait_for(condition, what: str, seconds: float, run: subprocess.Popen | None = None) -> None:
    "Wait until `condition()` holds; SystemExit after `seconds`, or when `run` has ended before."
    deadline = time.monotonic() + seconds
    while not condition():
        if run is not None and run.poll() is not None:
            sys.exit(f"make repro ended with {run.returncode} before {what}: see repro.log")
        if time.monotonic() > deadline:
            sys.exit(f"{what}: waited {seconds:.0f} s in vain")
        time.sleep(0.2)


def kill_at(folder: Path, moment: str) -> None:
    "Start `make repro`, kill it with SIGKILL at the moment, and see that nothing of it goes on."
    run = start(folder)
    wait_for(lambda: any(folder.glob(MOMENTS[moment])), moment, 4 * 3600, run)
    time.sleep(2)  # in the middle of what follows
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    wait_for(lambda: not processes_in(folder), f"the end of all processes after the kill while {moment}", 60)
    (folder / ".dvc/tmp/rwlock").write_text("", "utf-8")
    print(f"killed while {moment}; all processes ended", flush=True)


def finish(folder: Path) -> None:
    "Run `make repro` to its end."
    started = time.monotonic()
    if start(folder).wait() != 0:
        sys.exit(f"make repro failed: see {folder}/repro.log")
    print(f"finished in {time.monotonic() - started:.0f} s", flush=True)


def all_outputs(lock: str) -> dict[str, str]:
    "{path: hash} of all outputs that the text of a dvc.lock names."
    stages = YAML(typ="safe").load(lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}


def hashes_of_outputs(lock: str) -> dict[str, str]:
    "{path: hash} of the outputs that do not say how long something took."
    return {path: mark for path, mark in sorted(all_outputs(lock).items()) if not path.startswith(TIME_DEPENDENT)}


def outputs(folder: Path) -> list[str]:
    "Paths of all outputs that dvc.lock names, but those that say how long something took."
    return [*hashes_of_outputs((folder / "dvc.lock").read_text("utf-8"))]


def committed_lock(folder: Path) -> str:
    "The text of dvc.lock in the clone's last commit."
    return subprocess.run(
        ["git", "show", "HEAD:dvc.lock"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def differences_from_lock(folder: Path) -> list[str]:
    "Outputs whose hash, or whose presence, is not that of the committed dvc.lock."
    made, undisturbed = (
        hashes_of_outputs(lock) for lock in ((folder / "dvc.lock").read_text("utf-8"), committed_lock(folder))
    )
    return sorted(path for path in made.keys() | undisturbed.keys() if made.get(path) != undisturbed.get(path))


def files_of(root: Path) -> set[str]:
    "Files below a folder, as paths relative to it, or the one file."
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} if root.is_dir() else {""}


def differences(one: Path, other: Path) -> list[str]:
    "Files of the outputs that are not the same to the byte, or in one of the clones only."
    different = []
    for path in outputs(other):
        names = files_of(one / path) | files_of(other / path)
        for name in sorted(names):
            pair = (one / path / name if name else one / path, other / path / name if name else other / path)
            if not all(p.is_file() for p in pair) or not filecmp.cmp(*pair, shallow=False):
                different.append(f"{path}/{name}")
    return different


def different_from_undisturbed(folder: Path, reference: Path | None, profile: str | None) -> list[str]:
    "Files that differ from those of the clone `reference`, which is made and run beside `folder` where there is none."
    if reference is None:
        reference = folder.with_name(f"{folder.name}-undisturbed")
        make_clone(reference, profile)
        finish(reference)
    return differences(folder, reference.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", help="a profile to overlay on params.yaml, such as smoke")
    undisturbed = parser.add_mutually_exclusive_group()
    undisturbed.add_argument("--reference", type=Path, help="a clone in which the same commit ran undisturbed")
    undisturbed.add_argument("--lock", action="store_true", help="the reference is the committed dvc.lock")
    parser.add_argument("--moments", nargs="+", choices=[*MOMENTS], default=[*MOMENTS], help="default: all three")
    parser.add_argument("--json", type=Path, help="a file for the result")
    arguments = parser.parse_args()
    if arguments.lock and arguments.profile:
        parser.error("--lock: the committed dvc.lock is of params.yaml as it is, without a profile")
    folder = arguments.folder.resolve()
    if not folder.exists():
        make_clone(folder, arguments.profile)
        if arguments.lock:
            remove_outputs(folder)
    for moment in arguments.moments:
        kill_at(folder, moment)
    finish(folder)
    if arguments.lock:
        different = differences_from_lock(folder)
    else:
        different = different_from_undisturbed(folder, arguments.reference, arguments.profile)
    result = {
        "command": f"python benchmarks/kill_repro.py {' '.join(sys.argv[1:])}",
        "machine": machine(),
        "killed while": arguments.moments,
        "outputs": len(outputs(folder)),
        "different": different,
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
