"""Is each of the two main people of the sample videos one number of `tracks.follow`, in every picture?

    python benchmarks/sample_videos.py artifacts/sample_videos.npz
    python benchmarks/identities.py artifacts/sample_videos.npz [--data data] [--json FILE]

The truth is the hand-checked boxes of benchmarks/people_boxes.json: ten moments a camera, straight between them, the
first and the last held on to the ends. In each picture the two people get the two poses whose boxes overlap theirs most
(together, IoU of at least 0.3). identity: pictures in which a person has the number that they have most often; unseen:
pictures without a pose of theirs; switches: how often the number is another than in the picture of them before;
numbers: how many they have in all; strangers: pictures in which somebody else has their number.

A check that knows neither boxes nor tracker: the middles of hips and shoulders of one person in the four views,
triangulated. px: median distance of a view from what the other views say, of poses with the person's number; exchanged:
of the same with the two people exchanged in that view; agree: pictures and views in which the former is smaller."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from kept_recording import kept_pictures
from sample_videos import FORMAT, commands_of, load_poses
from scipy.optimize import linear_sum_assignment

from acae_nb.geometry.cameras import triangulate
from acae_nb.inference.tracks import follow, presence
from acae_nb.people.blazepose import overlap
from acae_nb.skeletons.joints import load_skeleton

LEAST_OVERLAP = 0.3
TRUNK = [load_skeleton(FORMAT).index(f"{side}_{joint}") for joint in ("hip", "shoulder") for side in ("left", "right")]


def true_boxes(camera, count):
    "Boxes [t, 2 people, 4] px of the main people of a camera's video."
    checked = {frame: picture["main"] for (name, frame), picture in kept_pictures().items() if name == camera}
    frames = sorted(checked)
    boxes = np.array([checked[frame] for frame in frames], float).reshape(len(frames), -1)
    return np.stack([np.interp(np.arange(count), frames, column) for column in boxes.T], 1).reshape(count, -1, 4)


def chosen_poses(boxes, true):
    "For each true box the index of the pose that is theirs, -1 where none is."
    overlaps = np.array([[overlap(box, found) for found in boxes] for box in true]).reshape(len(true), len(boxes))
    chosen = np.full(len(true), -1)
    for person, pose in zip(*linear_sum_assignment(-overlaps)):
        if overlaps[person, pose] >= LEAST_OVERLAP:
            chosen[person] = pose
    return chosen


def usual_number(numbers):
    values, counts = np.unique(numbers[numbers >= 0], return_counts=True)
    return int(values[counts.argmax()]) if len(values) else -1


def counts_of(numbers, tracks):
    "Of one person: numbers [t] of their poses (-1: unseen), and the numbers of everybody in each picture."
    seen = numbers[numbers >= 0]
    usual = usual_number(numbers)
    return {
        "pictures": len(numbers),
        "identity": int((seen == usual).sum()),
        "unseen": int((numbers < 0).sum()),
        "switches": int((np.diff(seen) != 0).sum()),
        "numbers": len(np.unique(seen)),
        "strangers": int(sum(usual in there and number != usual for number, there in zip(numbers, tracks))),
    }


def numbers_of_people(results, true):
    "Numbers [2, t] of the two people's poses, -1 where they have none."
    numbers = np.full((true.shape[1], len(results)), -1)
    for t, poses in enumerate(results):
        for person, pose in enumerate(chosen_poses(poses.boxes, true[t])):
            if pose >= 0:
                numbers[person, t] = poses.tracks[pose]
    return numbers


def main_numbers(video, results):
    "The numbers of those who are measured in 'part/camera': the two main people, or the one who is seen longest."
    part, camera = video.split("/")
    if part == "single":
        return [int(presence(results)["pictures"].idxmax())]
    return [usual_number(numbers) for numbers in numbers_of_people(results, true_boxes(camera, len(results)))]


def trunks_of(results, number):
    "Middle of hips and shoulders [t, 2] px of the person with a number, NaN where they are not seen."
    px = np.full((len(results), 2), np.nan)
    for t, poses in enumerate(results):
        for pose in np.flatnonzero(poses.tracks == number):
            px[t] = poses.px[pose, TRUNK].mean(0)
    return px


def across_views(px, cameras):
    "From px [view, person, t, 2] distances px of each view from what the others say of the person, and of the other."
    own, exchanged = np.full(px.shape[:3], np.nan), np.full(px.shape[:3], np.nan)
    for view, camera in enumerate(cameras):
        others = [k for k in range(len(cameras)) if k != view]
        points = px[others]
        places = triangulate(
            np.nan_to_num(points), np.isfinite(points).all(-1).astype(float), [cameras[k] for k in others]
        )
        expected = camera.project(places)
        own[view] = np.linalg.norm(expected - px[view], axis=-1)
        exchanged[view] = np.linalg.norm(expected - px[view][::-1], axis=-1)
    return own, exchanged


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poses", type=Path, metavar="FILE.npz", help="of benchmarks/sample_videos.py")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    videos = load_poses(arguments.poses, arguments.data)
    followed = {video: list(follow(poses)) for video, poses in videos.items() if video.startswith("multi/")}
    rows, trunks = {}, []
    for video, results in followed.items():
        numbers = numbers_of_people(results, true_boxes(Path(video).name, len(results)))
        tracks = [poses.tracks.tolist() for poses in results]
        for name, those in zip(("athlete", "woman in front"), numbers):
            rows[f"{Path(video).name}, {name}"] = counts_of(those, tracks)
        trunks.append([trunks_of(results, usual_number(those)) for those in numbers])
    table = pd.DataFrame.from_dict(rows, orient="index")
    own, exchanged = across_views(np.array(trunks), [results[0].camera for results in followed.values()])
    known = np.isfinite(own) & np.isfinite(exchanged)
    views = {
        "px": round(float(np.median(own[known])), 1),
        "exchanged": round(float(np.median(exchanged[known])), 1),
        "agree": int((own < exchanged)[known].sum()),
        "of": int(known.sum()),
    }
    print(table.to_string(), f"\nviews: {views}")
    if arguments.json:
        commands = [*commands_of(followed), f"python benchmarks/identities.py {' '.join(sys.argv[1:])}"]
        result = {"commands": commands, "people": table.to_dict("index"), "views": views}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
