"""kill -9 of `make repro` while it renders, trains and fine-tunes; then the same command: are the bytes the same?

    python benchmarks/kill_repro.py FOLDER [--profile smoke] [--reference OTHER]

FOLDER becomes a clone of this repository's last commit. `make repro` runs in it, is killed with SIGKILL at three
moments (a collection is half rendered, a training has its first checkpoint, a fine-tuning has one), and is started
again each time; after each kill all its processes have to end by themselves within a minute, and `.dvc/tmp/rwlock` is
emptied, as a machine without power may leave it. OTHER is a clone in which the same commit ran undisturbed; without it
one is made beside FOLDER. Every output that dvc.lock names is compared file by file. At the default size this
takes hours on two cores. The environment of this clone, .venv and .cache, is
used."""

import argparse
import filecmp
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from ruamel.yaml import YAML

REPO = Path(__file__).resolve().parent.parent
MOMENTS = {  # name: files below the clone that are there at this moment, and not before
    "rendering": "artifacts/people/.*.chunks-*/*",
    "training": ".checkpoints/separate-*/*.safetensors",
    "fine-tuning": ".checkpoints/consistency-*/*.safetensors",
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


def outputs(folder: Path) -> list[str]:
    "Paths of all outputs that dvc.lock names, but those that say how long something took."
    stages = YAML(typ="safe").load(folder / "dvc.lock")["stages"].values()
    paths = {out["path"] for stage in stages for out in stage.get("outs", [])}
    return sorted(path for path in paths if not path.startswith(TIME_DEPENDENT))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", help="a profile to overlay on params.yaml, such as smoke")
    parser.add_argument("--reference", type=Path, help="a clone in which the same commit ran undisturbed")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    make_clone(folder, arguments.profile)
    for moment in MOMENTS:
        kill_at(folder, moment)
    finish(folder)
    reference = arguments.reference
    if reference is None:
        reference = folder.with_name(f"{folder.name}-undisturbed")
        make_clone(reference, arguments.profile)
        finish(reference)
    different = differences(folder, reference.resolve())
    print(json.dumps({"outputs": len(outputs(reference)), "different files": different}, indent=1))
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
