"""What smoothing and bones of one length do to the poses of the sample videos: tremor, bone lengths, and the error
where a reference is known.

    python benchmarks/smoothing.py [--model artifacts/published/consistency] [--data data] [--videos multi single]
        [--cameras cam01 cam02 cam03 cam04] [--frames 100] [--cutoff 6] [--recording artifacts/recording]
        [--poses FILE.npz] [--json FILE]

People are found by MoveNet multipose at 512 px, looked at with the mirror image, given the calibrated camera, and
followed by the videos' time stamps. Measured are the two people who are longest in each video (one in `single`), 12
limb joints (cmu_panoptic_19), in pictures in which they were seen. jitter: mean and median length of a joint's second
difference, mm a frame squared; relative: the mean of that of the joints from the hips' middle. bones: standard
deviation of the lengths of upper arms, forearms, thighs and shins through the video, % of their mean. moved: mean
distance from the poses as they were. MPJPE: mm from the reference of the single recording (an example table, four
cameras triangulated), hips' middle at the origin, axes of the camera, over the pictures that the table has.

--poses: the poses as they were are read from here, or written where the file is not there yet."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from acae_nb.datasets.pose2sim import LATE, fit_to_video, read_calibration
from acae_nb.examples.tables import ExampleTable
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.person_crops import WITH_MIRROR
from acae_nb.inference.pictures import VideoPictures
from acae_nb.inference.smoothing import constant_bones, smooth
from acae_nb.inference.tracks import follow, people_over_time
from acae_nb.models.multipose import MultiPose
from acae_nb.skeletons.joints import load_skeleton

KINDS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMBS = [f"{side}_{kind}" for kind in KINDS for side in ("left", "right")]
HIPS = [LIMBS.index("left_hip"), LIMBS.index("right_hip")]
BONES = np.array([(k, k + 2) for k in (0, 1, 2, 3, 6, 7, 8, 9)])  # shoulder-elbow-wrist and hip-knee-ankle, both sides
FORMAT = "cmu_panoptic_19"
PEOPLE = {"multi": 2, "single": 1}


def poses_of_video(estimator, detector, path, calibration, frames):
    "(people [t, j, 3] mm in the camera's frame, longest seen first; seconds [t]) of the first pictures of a video."
    video, camera = VideoPictures(path), None
    triples = []
    for _, picture in zip(range(frames), video):
        camera = camera or fit_to_video(*calibration[path.stem], picture.shape[1::-1])
        triples.append((picture, detector(picture).boxes, camera))
    results = list(estimator.stream(triples, FORMAT))
    times = np.array(video.times)[: len(results)]
    return people_over_time(follow(results, rate=1 / np.median(np.diff(times)))), times


def poses_of_videos(model, data, parts, cameras, frames):
    "'part/camera/person' -> [t, j, 3] mm, and 'part/camera/times' -> [t] s."
    estimator, detector = PoseEstimator.load(model, looks=WITH_MIRROR, device="cpu"), MultiPose(longest=512)
    calibration, arrays = read_calibration(data / "pose2sim/Calib.qca.txt"), {}
    for part in parts:
        for name in cameras:
            path = data / "pose2sim" / part / f"{name}.mp4"
            people, arrays[f"{part}/{name}/times"] = poses_of_video(estimator, detector, path, calibration, frames)
            for k, person in enumerate(people[: PEOPLE[part]]):
                arrays[f"{part}/{name}/{k}"] = person
            seen = [int(np.isfinite(person[:, 0, 0]).sum()) for person in people]
            print(f"{part}/{name}: people seen in {seen} of {len(people[0])} pictures", flush=True)
    return arrays


def methods(cutoff):
    "name -> function of (poses, seconds)."
    skeleton = load_skeleton(FORMAT)
    return {
        "as they were": lambda poses, times: poses,
        "constant bones": lambda poses, times: constant_bones(poses, skeleton),
        f"smooth {cutoff / 2:g} Hz": lambda poses, times: smooth(poses, times, cutoff / 2).points,
        f"smooth {cutoff:g} Hz": lambda poses, times: smooth(poses, times, cutoff).points,
        f"smooth {cutoff:g} Hz, bones": lambda poses, times: constant_bones(
            smooth(poses, times, cutoff).points, skeleton
        ),
    }


def limbs_of(poses):
    return poses[:, [load_skeleton(FORMAT).index(joint) for joint in LIMBS]]


def hips_centred(limbs):
    return limbs - limbs[:, HIPS].mean(1, keepdims=True)


def second_differences(limbs):
    return np.linalg.norm(np.diff(limbs, n=2, axis=0), axis=-1)


def measures(changed, before):
    "Of one person, over the pictures in which they were seen."
    limbs = np.where(np.isfinite(limbs_of(before)), limbs_of(changed), np.nan)
    tremor, relative = second_differences(limbs), second_differences(hips_centred(limbs))
    lengths = np.linalg.norm(limbs[:, BONES[:, 1]] - limbs[:, BONES[:, 0]], axis=-1)
    return {
        "jitter": np.nanmean(tremor),
        "median": np.nanmedian(tremor),
        "relative": np.nanmean(relative),
        "bones_%": 100 * np.nanmean(np.nanstd(lengths, 0) / np.nanmean(lengths, 0)),
        "moved": np.nanmean(np.linalg.norm(limbs - limbs_of(before), axis=-1)),
    }


def reference(folder):
    "(camera, picture of its video) -> limbs [12, 3] mm, camera's axes, hips' middle at the origin."
    table = ExampleTable.open(folder)
    columns = [table.skeleton.index(joint) for joint in LIMBS]
    rows = np.arange(len(table))
    limbs = table.world_joints3d()[:, columns]
    return {
        (table[row].camera_name, int(table[row].frame) + LATE.get(table[row].camera_name, 0)): hips_centred(
            limbs[row : row + 1] @ table.camera(row).rotation.T
        )[0]
        for row in rows.tolist()
    }


def mpjpe(changed, name, known):
    "Mean distance (mm) of the limbs that the reference has, in the pictures that it has."
    limbs = hips_centred(limbs_of(changed))
    return np.nanmean(
        [np.linalg.norm(limbs[t] - known[name, t], axis=-1) for t in range(len(limbs)) if (name, t) in known]
    )


def compare(arrays, cutoff, known):
    "One row a method and recording: the mean over its people and videos."
    rows = []
    for key in (key for key in arrays if not key.endswith("times")):
        part, name, _ = key.split("/")
        poses, times = arrays[key], arrays[f"{part}/{name}/times"]
        for method, change in methods(cutoff).items():
            changed = change(poses, times)
            error = {"MPJPE": mpjpe(changed, name, known)} if part == "single" and known else {}
            rows.append({"videos": part, "method": method, **measures(changed, poses), **error})
    return pd.DataFrame(rows).groupby(["videos", "method"], sort=False).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("artifacts/published/consistency"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--videos", nargs="+", choices=PEOPLE, default=list(PEOPLE))
    parser.add_argument("--cameras", nargs="+", default=["cam01", "cam02", "cam03", "cam04"])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--cutoff", type=float, default=6.0, help="Hz")
    parser.add_argument("--recording", type=Path, default=Path("artifacts/recording"))
    parser.add_argument("--poses", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.poses and arguments.poses.is_file():
        arrays = dict(np.load(arguments.poses))
    else:
        arrays = poses_of_videos(arguments.model, arguments.data, arguments.videos, arguments.cameras, arguments.frames)
        if arguments.poses:
            np.savez(arguments.poses, **arrays)
    known = reference(arguments.recording) if arguments.recording.is_dir() else {}
    table = compare(arrays, arguments.cutoff, known)
    print(table.round(1).to_string())
    if arguments.json:
        arguments.json.write_text(json.dumps(table.reset_index().to_dict("records"), indent=1) + "\n")


if __name__ == "__main__":
    main()
