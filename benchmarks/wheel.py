"""What someone gets who has the wheel and nothing else: the time to the first pose, and crops a second from ONNX.

    python benchmarks/wheel.py [--model FOLDER] [--scratch FOLDER] [--json FILE]

Wheel: it is built from this repository and installed by pip, with its required dependencies (constraints.txt), into an
empty environment. `acae-nb predict photo.jpg -o poses.csv` then runs there, in a folder of its own, without network
(`unshare --net`), twice. Seconds from start to end, imports included, by the clock and of CPU, which a busy machine
disturbs less. The photograph is frame 10 of the first camera of data/pose2sim/single.

ONNX: what `acae-nb export` writes of the same model, run by onnxruntime with one thread on crops of that photograph.

--model: another model than the one in the package, packed as the package has it. --scratch: where the environment is
made and stays (default: a folder that is deleted); one that is there already is used as it is."""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from acae_nb.datasets.pose2sim import read_video
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.export import export_onnx
from acae_nb.inference.publishing import pack_model

REPO = Path(__file__).resolve().parents[1]
SOURCES = ("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CITATION.cff")
WANTED = {"predict, seconds": 20, "crops a second": 8}  # at most, at least


def run(command, **options):
    "Standard output. RuntimeError with the end of what the command said where it fails."
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def clean_environment():
    "Variables without any that lead Python or pip's environments elsewhere."
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def build_wheel(model, scratch):
    "The wheel of this repository, with `model` in the place of the packaged one where it is given."
    source = scratch / "source"
    shutil.copytree(REPO / "acae_nb", source / "acae_nb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*SOURCES, "CHANGELOG.md"):
        shutil.copy(REPO / name, source)
    if model is not None:
        pack_model(model, source / "acae_nb/data/model")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", scratch, source])
    return next(scratch.glob("*.whl"))


def make_environment(wheel, folder):
    run([sys.executable, "-m", "venv", folder])
    install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "-c", REPO / "constraints.txt", wheel]
    run(install, env=clean_environment())


def timed_run(command, **options):
    "(seconds, CPU-seconds) of a command and its children."
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run(command, **options)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_pose(environment, photo, folder):
    "(seconds, CPU-seconds) of `acae-nb predict` in an empty folder without network; ValueError where it finds nobody."
    folder.mkdir()
    shutil.copy(photo, folder / "photo.jpg")
    program = [environment / "bin/acae-nb", "predict", "photo.jpg", "-o", "poses.csv"]
    spent = timed_run(["unshare", "--map-root-user", "--net", *program], cwd=folder, env=clean_environment())
    if len((folder / "poses.csv").read_text().splitlines()) < 2:
        raise ValueError("poses.csv: expected a person, found none")
    return spent


def crops_a_second(model, photo, batch, rounds):
    "Crops of `batch` at once, per second and per CPU-second, medians of rounds, one thread."
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    size = json.loads(session.get_modelmeta().custom_metadata_map["acae_nb"])["size"]
    crop = cv2.resize(photo, (size, size), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    intrinsics = np.array([[1.5 * size, 0, size / 2], [0, 1.5 * size, size / 2], [0, 0, 1]], np.float32)
    feed = {"images": np.repeat(crop[None], batch, 0), "intrinsics": np.repeat(intrinsics[None], batch, 0)}
    session.run(["joints"], feed)
    rates = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        session.run(["joints"], feed)
        rates.append((batch / (time.perf_counter() - wall), batch / (time.process_time() - cpu)))
    return [statistics.median(values) for values in zip(*rates)]


def measure(model, scratch, rounds):
    "Lines of what was measured: name -> seconds or rate by the clock and by the CPU."
    environment, photo = scratch / "environment", next(read_video(REPO / "data/pose2sim/single/cam01.mp4", [10]))
    if not environment.is_dir():
        make_environment(build_wheel(model, scratch), environment)
    cv2.imwrite(str(scratch / "photo.jpg"), photo[..., ::-1])
    [packaged] = environment.glob("lib/python3*/site-packages/acae_nb/data/model")
    lines = {}
    for name in ("first run", "second run"):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            lines[f"predict, seconds, {name}"] = first_pose(environment, scratch / "photo.jpg", Path(folder) / "work")
    exported = scratch / "crop.onnx"
    export_onnx(PoseEstimator.load(packaged, device="cpu"), exported)
    for batch in (1, 8):
        lines[f"crops a second, {batch} at once"] = crops_a_second(exported, photo, batch, rounds)
    return {name: {"clock": values[0], "cpu": values[1]} for name, values in lines.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.scratch or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        lines = measure(arguments.model, scratch.resolve(), arguments.rounds)
    for name, values in lines.items():
        print(f"{name:36s} {values['clock']:7.1f} by the clock {values['cpu']:7.1f} by the CPU", flush=True)
    print(f"wanted: {', '.join(f'{name} {value}' for name, value in WANTED.items())}; load {os.getloadavg()[0]:.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
