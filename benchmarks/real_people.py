"""Forty real people, one by one, to be looked at: is the pose right as a whole, and left on the left?

    python benchmarks/real_people.py FOLDER [--model FOLDER] [--data data]

Writes FOLDER/1.png to 5.png, eight numbered people each: the picture with the model's joints (left in red, right in
green), and under it the pose from the person's left side of the picture (camera on the left) and from above (camera
below). Five moments of both recordings in four views: the athlete alone, and in turn one of the two main people of
benchmarks/people_boxes.json. The model is used as `acae-nb predict` uses it, detector included; of whom it finds the
one is drawn who fills the box best (alone: the tallest). Who is not found is written so."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from kept_recording import BOXES

from acae_nb.datasets.pose2sim import read_video
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.people.blazepose import overlap

FORMAT = "cmu_panoptic_19"
ALONE = (10, 28, 46, 64, 82)  # frames of the single athlete's videos
TOGETHER = (5, 25, 45, 65, 85)  # hand-checked frames of the other videos
COLOURS = {"left": (230, 30, 30), "right": (0, 190, 0), "": (240, 200, 0)}
CELL, VIEW = 320, 130  # px: side of the picture of a person, height of the views under it
COLUMNS, ROWS = 4, 2


class Subject(NamedTuple):
    name: str
    image: np.ndarray
    box: np.ndarray | None  # None: the tallest person


def subjects(data):
    "The forty, in order."
    for video in sorted((data / "pose2sim/single").glob("cam*.mp4")):
        for frame, image in zip(ALONE, read_video(video, ALONE)):
            yield Subject(f"single {video.stem} {frame}", image, None)
    pictures = {(p["video"], p["frame"]): p["main"] for p in json.loads(BOXES.read_text())["pictures"]}
    for k, video in enumerate(sorted((data / "pose2sim/multi").glob("cam*.mp4"))):
        for m, (frame, image) in enumerate(zip(TOGETHER, read_video(video, TOGETHER))):
            box = pictures[f"multi/{video.name}", frame][(k + m) % 2]
            yield Subject(f"multi {video.stem} {frame}", image, np.array(box, float))


def chosen(poses, box):
    "Number of the person who is meant, None where nobody is."
    fits = poses.boxes[:, 3] if box is None else np.array([overlap(found, box) for found in poses.boxes])
    return int(fits.argmax()) if len(fits) and fits.max() >= 0.3 else None


def colour(skeleton, edge):
    sides = {skeleton.joints[joint].partition("_")[0] for joint in edge} & {"left", "right"}
    return COLOURS[sides.pop() if len(sides) == 1 else ""]


def lines(canvas, px, skeleton, thickness):
    "Draws the skeleton's edges at px [j, 2] of the canvas."
    for edge in skeleton.edges:
        ends = np.rint(px[list(edge)]).astype(int).tolist()
        cv2.line(canvas, *ends, colour(skeleton, edge), thickness, cv2.LINE_AA)


def close_up(image, box, px, skeleton):
    "The square around the box, CELL px, with the joints."
    middle, side = box[:2] + box[2:] / 2, 1.25 * box[2:].max()
    matrix = np.array([[CELL / side, 0, CELL / 2], [0, CELL / side, CELL / 2]])
    matrix[:, 2] -= CELL / side * middle
    shrunk = cv2.resize(image, None, fx=CELL / side, fy=CELL / side, interpolation=cv2.INTER_AREA)
    shift = np.float64([[1, 0, matrix[0, 2]], [0, 1, matrix[1, 2]]])
    canvas = cv2.warpAffine(shrunk, shift, (CELL, CELL), borderValue=(60, 60, 60))
    lines(canvas, px @ matrix[:, :2].T + matrix[:, 2], skeleton, 2)
    return canvas


def from_elsewhere(joints, axes, skeleton):
    "Joints (mm) along two axes (number, sign) on white, 2.4 m in a view's height."
    canvas = np.full((VIEW, CELL // 2, 3), 255, np.uint8)
    centred = joints - (joints.max(0) + joints.min(0)) / 2
    px = np.stack([sign * centred[:, axis] for axis, sign in axes], 1) * VIEW / 2400
    lines(canvas, px + [CELL / 4, VIEW / 2], skeleton, 1)
    return canvas


def cell(number, subject, poses):
    "A person: close-up, side, from above."
    who = chosen(poses, subject.box)
    canvas = np.full((CELL + VIEW, CELL, 3), 255, np.uint8)
    if who is not None:
        skeleton, joints, box = poses.skeleton, poses.joints3d[who], poses.boxes[who]
        canvas[:CELL] = close_up(subject.image, box, poses.px[who], skeleton)
        canvas[CELL:, : CELL // 2] = from_elsewhere(joints, ((2, 1), (1, 1)), skeleton)
        canvas[CELL:, CELL // 2 :] = from_elsewhere(joints, ((0, 1), (2, -1)), skeleton)
    text = f"{number}  {subject.name}" + ("" if who is not None else ": not found")
    canvas[CELL - 22 : CELL] = 255
    cv2.putText(canvas, text, (6, CELL - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    canvas[:, -2:] = canvas[-2:] = 0
    return canvas


def sheets(cells):
    "Pictures of COLUMNS x ROWS cells."
    for start in range(0, len(cells), COLUMNS * ROWS):
        rows = [cells[k : k + COLUMNS] for k in range(start, start + COLUMNS * ROWS, COLUMNS)]
        yield np.vstack([np.hstack(row) for row in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="default: the package's")
    parser.add_argument("--data", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    estimator, people = PoseEstimator.load(arguments.model), list(subjects(arguments.data))
    poses = estimator.stream(((subject.image, None, None) for subject in people), FORMAT)
    cells = [cell(k, subject, found) for k, (subject, found) in enumerate(zip(people, poses), 1)]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(sheets(cells), 1):
        cv2.imwrite(str(arguments.folder / f"{k}.png"), picture[..., ::-1])
        print(arguments.folder / f"{k}.png", flush=True)


if __name__ == "__main__":
    main()
