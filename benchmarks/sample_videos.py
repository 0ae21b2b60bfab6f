"""Poses of the people in the sample videos, kept in one file, for the benchmarks that follow and smooth them.

    python benchmarks/sample_videos.py FILE.npz [--model acae_nb/data/model] [--data data] [--videos multi single]
        [--cameras cam01 cam02 cam03 cam04] [--frames 100]

As `acae-nb predict` looks for people and looks at them (its detector, the mirror image too), with the calibrated
cameras, before anybody is followed. Written after each video: begun again, it goes on behind the last."""

import argparse
from pathlib import Path

import numpy as np
import torch

from acae_nb.datasets.pose2sim import fit_to_video, read_calibration
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.person_crops import WITH_MIRROR
from acae_nb.inference.pictures import VideoPictures
from acae_nb.inference.pose_results import Poses
from acae_nb.skeletons.joints import load_skeleton

FORMAT = "cmu_panoptic_19"
PARTS = ("multi", "single")
CAMERAS = ("cam01", "cam02", "cam03", "cam04")


def calibrated_camera(data, name, size):
    return fit_to_video(*read_calibration(data / "pose2sim/Calib.qca.txt")[name], size)


def poses_of_video(estimator, data, video, frames):
    """Arrays of the first pictures of 'part/camera': joints [n, j, 3] mm in the camera's frame, boxes [n, 4] px, the
    picture of each [n], times [t] s, and the picture's size [2] px."""
    pictures, size = VideoPictures(data / "pose2sim" / f"{video}.mp4"), None

    def triples():
        nonlocal size
        for _, picture in zip(range(frames), pictures):
            size = picture.shape[1::-1]
            yield picture, None, calibrated_camera(data, Path(video).name, size)

    results = list(estimator.stream(triples(), FORMAT))
    return {
        "joints": np.concatenate([poses.joints3d for poses in results]),
        "boxes": np.concatenate([poses.boxes for poses in results]),
        "picture": np.repeat(np.arange(len(results)), [len(poses) for poses in results]),
        "times": np.array(pictures.times[: len(results)]),
        "size": np.array(size),
    }


def commands_of(videos):
    "The commands that make these videos' poses, one a part of the sample data."
    cameras = {}
    for part, camera in (video.split("/") for video in videos):
        cameras.setdefault(part, []).append(camera)
    start = "python benchmarks/sample_videos.py artifacts/sample_videos.npz"
    return [f"{start} --videos {part} --cameras {' '.join(names)}" for part, names in cameras.items()]


def load_poses(file, data):
    "'part/camera' -> poses of each picture, with times and the calibrated camera, nobody followed yet."
    videos, skeleton = {}, load_skeleton(FORMAT)
    with np.load(file) as arrays:
        for video in sorted({key.rpartition("/")[0] for key in arrays}):
            joints, boxes, picture, times, size = (
                arrays[f"{video}/{key}"] for key in ("joints", "boxes", "picture", "times", "size")
            )
            camera = calibrated_camera(data, Path(video).name, tuple(size.tolist()))
            videos[video] = []
            for t, time in enumerate(times.tolist()):
                here = picture == t
                unknown = np.full((here.sum(), len(skeleton)), np.nan)
                scores = np.ones(here.sum())
                poses = Poses(skeleton, joints[here], boxes[here], scores, unknown, camera, frame=t, time_s=time)
                videos[video].append(poses)
    return videos


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", type=Path, default=Path("acae_nb/data/model"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--videos", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=CAMERAS)
    parser.add_argument("--frames", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    estimator = PoseEstimator.load(arguments.model, looks=WITH_MIRROR, device="cpu")
    arrays = dict(np.load(arguments.file)) if arguments.file.is_file() else {}
    for video in (f"{part}/{camera}" for part in arguments.videos for camera in arguments.cameras):
        if f"{video}/times" in arrays:
            continue
        found = poses_of_video(estimator, arguments.data, video, arguments.frames)
        arrays |= {f"{video}/{key}": array for key, array in found.items()}
        np.savez(arguments.file, **arrays)
        print(f"{video}: {len(found['joints'])} poses in {len(found['times'])} pictures", flush=True)


if __name__ == "__main__":
    main()
