"""Crops per second of the whole estimator beside the bare crop model on the same crops, and memory over a long video.

    python benchmarks/estimator.py [--model artifacts/models/consistency] [--pictures 24] [--people 2] [--rounds 5]
        [--frames 1000]

The estimator gets 1920 x 1080 pictures with boxes and does all it does but detection: distortion-free upright crops,
looks, the model, geometry, results. The bare model gets the crops that the estimator cut, stacked beforehand, in chunks
of the same size. Rounds alternate; the median ratio is printed (target 0.8), by wall time and by CPU time (which a busy
machine disturbs less). Without the model folder an untrained EfficientNet-Lite0 at 160 px is used. The video's frames
are made on the fly; resident memory after 100 frames and after the last is printed (target: less than 5 % more)."""

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from acae_nb.geometry.cameras import Camera
from acae_nb.inference.estimator import CropReader, PoseEstimator
from acae_nb.inference.person_crops import ONE_LOOK, WITH_MIRROR, PeopleCropper, spread_looks
from acae_nb.models.backbones import efficientnet_lite0
from acae_nb.models.pose_model import PoseModel, SeparateJoints
from acae_nb.skeletons.joints import load_skeleton, union


def load(folder, looks):
    if (folder / "model.json").is_file():
        return PoseEstimator.load(folder, looks=looks)
    skeleton = union([load_skeleton(n) for n in ("smpl_24", "h36m_25", "coco_17")])
    return PoseEstimator(
        PoseModel(efficientnet_lite0(last_conv=False), SeparateJoints(len(skeleton))), skeleton, 160, looks=looks
    )


def timed(run):
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def ratios(estimator, pictures, rounds):
    "(crops per second bare, end to end, ratio by wall, ratio by CPU): medians over rounds."
    cropper = PeopleCropper(estimator.looks, estimator.size)
    cropped = [cropper(image, boxes, camera, k) for k, (image, boxes, camera) in enumerate(pictures)]
    crops, intrinsics, mirrored = (
        np.concatenate([getattr(picture, name) for picture in cropped]) for name in ("crops", "intrinsics", "mirrored")
    )
    reader = CropReader(estimator.model, estimator.acae, estimator.skeleton.mirror, precision=estimator.precision)

    def bare():
        reader(crops, intrinsics, mirrored, estimator.chunk)

    def whole():
        for _ in estimator.stream(pictures):
            pass

    bare()
    whole()
    times = [(timed(bare), timed(whole)) for _ in range(rounds)]

    def median(values):
        return statistics.median(list(values))

    return (
        len(crops) / median(b[0] for b, _ in times),
        len(crops) / median(w[0] for _, w in times),
        median(b[0] / w[0] for b, w in times),
        median(b[1] / w[1] for b, w in times),
    )


def resident():
    "Resident memory of this process, MiB."
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize() / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("artifacts/models/consistency"))
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 255, (108, 192, 3), dtype=np.uint8), 10, 0), 10, 1)
    straight = Camera(np.array([[1500.0, 0, 960], [0, 1500, 540], [0, 0, 1]]))
    distorted = Camera(straight.intrinsics, [-0.2, 0.05, 0.001, -0.001, 0.0])
    for name, camera in (("no distortion", straight), ("distortion", distorted)):
        pictures = [
            (
                image,
                np.c_[
                    rng.uniform(100, 1400, (arguments.people, 1)),
                    rng.uniform(50, 400, (arguments.people, 1)),
                    rng.uniform(150, 350, (arguments.people, 1)),
                    rng.uniform(300, 600, (arguments.people, 1)),
                ],
                camera,
            )
            for _ in range(arguments.pictures)
        ]
        for looks, title in ((ONE_LOOK, "one look"), (WITH_MIRROR, "with mirror"), (spread_looks(5), "five looks")):
            bare, whole, by_wall, by_cpu = ratios(load(arguments.model, looks), pictures, arguments.rounds)
            print(
                f"{name:14s} {title:12s} bare {bare:7.1f} crops/s, whole {whole:7.1f} crops/s "
                f"({whole / len(looks) / arguments.people:6.1f} images/s): ratio {by_wall:.2f} by wall time, "
                f"{by_cpu:.2f} by CPU time",
                flush=True,
            )
    if arguments.frames:
        estimator, memory = load(arguments.model, ONE_LOOK), {}
        frames = ((np.roll(image, k, 1), [[400, 200, 250, 500]], straight) for k in range(arguments.frames))
        for k, _ in enumerate(estimator.stream(frames)):
            if k % 100 == 99:
                memory[k + 1] = resident()
        first, last = memory[100], memory[max(memory)]
        print(
            "resident MiB after frames: "
            + ", ".join(f"{k}: {m:.0f}" for k, m in memory.items())
            + f"; growth {100 * (last / first - 1):.1f} %"
        )


if __name__ == "__main__":
    main()
