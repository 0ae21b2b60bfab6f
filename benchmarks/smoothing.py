"""What smoothing and bones of one length do to the poses of the sample videos: tremor, bone lengths, and the error
where a reference is known.

    python benchmarks/sample_videos.py artifacts/sample_videos.npz
    python benchmarks/smoothing.py artifacts/sample_videos.npz [--data data] [--cutoff 6]
        [--recording artifacts/recording] [--json FILE]

Measured are the two main people of each video (benchmarks/identities.py) or, in `single`, the one who is seen longest:
12 limb joints (cmu_panoptic_19), in pictures in which they were seen. jitter: mean and median length of a joint's
second difference, mm a frame squared; relative: the mean of that of the joints from the hips' middle. bones: standard
deviation of the lengths of upper arms, forearms, thighs and shins through the video, % of their mean. moved: mean
distance from the poses as they were. MPJPE: mm from the reference of the single recording (an example table, four
cameras triangulated; stage `recording`), hips' middle at the origin, axes of the camera, over the pictures that the
table has. acceleration: mean difference of the joints' accelerations from the reference's, m/s^2, over three of its
pictures (1/15 s apart)."""

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from identities import main_numbers
from sample_videos import FORMAT, commands_of, load_poses

from acae_nb.datasets.pose2sim import LATE
from acae_nb.examples.tables import ExampleTable
from acae_nb.inference.smoothing import constant_bones, smooth
from acae_nb.inference.tracks import follow, world_by_track
from acae_nb.skeletons.joints import load_skeleton

KINDS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMBS = [f"{side}_{kind}" for kind in KINDS for side in ("left", "right")]
HIPS = [LIMBS.index("left_hip"), LIMBS.index("right_hip")]
BONES = np.array([(k, k + 2) for k in (0, 1, 2, 3, 6, 7, 8, 9)])  # shoulder-elbow-wrist and hip-knee-ankle, both sides


def people_of(videos):
    "'part/camera' -> (poses [t, j, 3] mm in the camera's frame of those who are measured, seconds [t])."
    people = {}
    for video, results in videos.items():
        results = list(follow(results))
        world, camera = world_by_track(results), results[0].camera
        persons = [camera.to_camera(world[number]) for number in main_numbers(video, results)]
        people[video] = persons, np.array([poses.time_s for poses in results])
        seen = [int(np.isfinite(person[:, 0, 0]).sum()) for person in persons]
        print(f"{video}: seen in {seen} of {len(results)} pictures")
    return people


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


def errors(changed, times, name, known):
    """Of the limbs that the reference has, in the pictures that it has: mean distance (mm), and mean difference of the
    accelerations (m/s^2) over three of these pictures in equal steps."""
    pictures = np.array(sorted(t for camera, t in known if camera == name and t < len(changed)))
    off = hips_centred(limbs_of(changed))[pictures] - np.stack([known[name, t] for t in pictures])
    steps = np.diff(times[pictures])
    even = np.isclose(steps[1:], steps[:-1], rtol=0.1) & np.isclose(steps[1:], np.median(steps), rtol=0.1)
    accelerations = np.diff(off, n=2, axis=0)[even] / np.median(steps) ** 2
    return {
        "MPJPE": np.nanmean(np.linalg.norm(off, axis=-1)),
        "acceleration": np.nanmean(np.linalg.norm(accelerations, axis=-1)) / 1000,
    }


def compare(people, cutoff, known):
    "One row a method and recording: the mean over its people and videos."
    rows = []
    for video, (persons, times) in people.items():
        part, name = video.split("/")
        for poses, (method, change) in itertools.product(persons, methods(cutoff).items()):
            changed = change(poses, times)
            off = errors(changed, times, name, known) if part == "single" and known else {}
            rows.append({"videos": part, "method": method, **measures(changed, poses), **off})
    return pd.DataFrame(rows).groupby(["videos", "method"], sort=False).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poses", type=Path, metavar="FILE.npz", help="of benchmarks/sample_videos.py")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--cutoff", type=float, default=6.0, help="Hz")
    parser.add_argument("--recording", type=Path, default=Path("artifacts/recording"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    videos = load_poses(arguments.poses, arguments.data)
    known = reference(arguments.recording) if arguments.recording.is_dir() else {}
    table = compare(people_of(videos), arguments.cutoff, known)
    print(table.round(2).to_string())
    if arguments.json:
        result = {
            "commands": [*commands_of(videos), f"python benchmarks/smoothing.py {' '.join(sys.argv[1:])}"],
            "pictures": {video: len(results) for video, results in videos.items()},
            "table": json.loads(table.round(3).reset_index().to_json(orient="records")),
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
