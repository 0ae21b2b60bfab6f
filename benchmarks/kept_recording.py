"""The reference of the kept recording (data/pose2sim/multi), on which no model is chosen, and benchmarks/peers.py
measures the finished one: the two main people of benchmarks/people_boxes.json at ten moments, four calibrated
cameras.

    python benchmarks/kept_recording.py [--data data] [--sheets FOLDER]

Two references, each of 12 limb joints, world mm, in benchmarks/kept_reference.json:
mediapipe: triangulated from the landmarks of MediaPipe's full network, which favours MediaPipe;
movenet: triangulated from the keypoints of MoveNet multipose, which favours what stands on MoveNet.

No network chooses the people: boxes checked by hand do. MediaPipe's network is begun at the box, upright and rolled to
both sides, refines its crop twice, and the answer that fills the box best is taken; of MoveNet's people, at three sizes
of the picture, the one that does. Where left and right are exchanged between views, they are exchanged back. A joint is
kept where three views or more agree within 30 px (of 1088 x 1920); NaN otherwise. --sheets: overlays of both, to be
looked at, left in red, right in green."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from acae_nb.datasets.pose2sim import agree_on_sides, fit_to_video, read_calibration, read_video, triangulate_robustly
from acae_nb.models.multipose import MultiPose
from acae_nb.people.blazepose import BlazePose, landmark_skeleton, overlap
from acae_nb.skeletons.joints import load_skeleton

REFERENCES = ("mediapipe", "movenet")
BOXES, REFERENCE = (Path(__file__).parent / name for name in ("people_boxes.json", "kept_reference.json"))
KINDS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMBS = [f"{side}_{kind}" for kind in KINDS for side in ("left", "right")]
MIRROR = [k ^ 1 for k in range(len(LIMBS))]
TOLERANCE = 30  # px
VIEWS = 3  # that have to agree
ROLLS_DEG = (-40, 0, 40)
LONGEST = (256, 384, 512)  # px of the picture that MoveNet sees
TRUSTED = 0.2  # sightings of MoveNet that score less, and of MediaPipe that are less visible, are left out


class Sighting(NamedTuple):
    "A person in a picture."

    px: np.ndarray  # [12, 2]
    weights: np.ndarray  # [12], 0 where not trusted
    filled: float  # IoU of the joints' extent with the hand-checked box, 0..1


def extent(joints2d):
    low, high = joints2d.min(0), joints2d.max(0)
    return np.r_[low, high - low]


class MediaPipeSightings:
    def __init__(self, folder):
        self.networks = BlazePose(folder)
        self.rows = [landmark_skeleton().index(joint) for joint in LIMBS]

    def __call__(self, image, boxes):
        "The person in each box [4]."
        return [max(self.answers(image, np.asarray(box, float)), key=lambda s: s.filled) for box in boxes]

    def answers(self, image, box):
        middle, radius = box[:2] + box[2:] / 2, box[2:].max() / 2
        for roll in np.deg2rad(ROLLS_DEG):
            points = np.array([middle, middle + radius * np.array([np.sin(roll), -np.cos(roll)])])
            for _ in range(3):
                landmarks = self.networks.landmarks(image, points)
                points = landmarks.points
                filled = landmarks.presence * overlap(extent(landmarks.joints2d), box)
                yield self.sighting(landmarks, filled)

    def sighting(self, landmarks, filled):
        visible = landmarks.visibility[self.rows]
        return Sighting(landmarks.joints2d[self.rows], np.where(visible > TRUSTED, visible, 0), filled)


class MoveNetSightings:
    def __init__(self):
        self.networks = [MultiPose(longest=longest) for longest in LONGEST]
        self.rows = [load_skeleton("coco_17").index(joint) for joint in LIMBS]

    def __call__(self, image, boxes):
        "The person in each box [4]; nobody (weights 0) where no person's keypoints overlap it."
        nobody = Sighting(np.full((len(LIMBS), 2), np.nan), np.zeros(len(LIMBS)), 0.0)
        people = [s for network in self.networks for s in self.people(network(image))]
        return [max([nobody, *(self.in_box(s, box) for s in people)], key=lambda s: s.filled) for box in boxes]

    def people(self, found):
        for keypoints, scores in zip(found.keypoints[:, self.rows], found.keypoint_scores[:, self.rows]):
            if (scores > TRUSTED).sum() > 2:
                yield Sighting(keypoints.astype(float), np.where(scores > TRUSTED, scores, 0).astype(float), 0.0)

    def in_box(self, sighting, box):
        seen = sighting.px[sighting.weights > 0]
        return sighting._replace(filled=overlap(extent(seen), np.asarray(box, float)))


def kept_pictures():
    "Hand-checked pictures of the recording by (camera's name, frame)."
    pictures = json.loads(BOXES.read_text())["pictures"]
    return {(Path(picture["video"]).stem, picture["frame"]): picture for picture in pictures}


def cameras_of(data):
    "The recording's cameras by name, for its videos of 1088 x 1920 px."
    calibration = read_calibration(data / "pose2sim/Calib.qca.txt")
    return {name: fit_to_video(camera, size, (1088, 1920)) for name, (camera, size) in calibration.items()}


def images_of(data, camera, frames):
    return read_video(data / "pose2sim/multi" / f"{camera}.mp4", frames)


def reference(px, weights, cameras):
    """World mm [T, 12, 3] of one person, NaN where fewer than VIEWS views agree, and residuals px [V, T, 12].
    px: [V, T, 12, 2], weights: [V, T, 12]."""
    swap = agree_on_sides(px, weights, cameras, MIRROR, TOLERANCE / 2)
    px = np.where(swap[..., None, None], px[:, :, MIRROR], px)
    weights = np.where(swap[..., None], weights[:, :, MIRROR], weights)
    joints, off = triangulate_robustly(px, weights, cameras, TOLERANCE / 2)
    return np.where(((off < TOLERANCE).sum(0) >= VIEWS)[..., None], joints, np.nan), off


def sightings(data, source):
    "(frames [T], px [V, T, 2 people, 12, 2], weights, boxes filled [V, T, 2]) of all pictures, by cameras."
    pictures = kept_pictures()
    frames = sorted({frame for _, frame in pictures})
    seen = []
    for camera in cameras_of(data):
        shots = zip(frames, images_of(data, camera, frames))
        seen.append([source(image, pictures[camera, frame]["main"]) for frame, image in shots])
    fields = Sighting._fields
    return frames, *(np.array([[[getattr(s, f) for s in two] for two in view] for view in seen]) for f in fields)


def make_reference(data, source):
    "World mm [2 people, T, 12, 3], and the frames [T]."
    frames, px, weights, filled = sightings(data, source)
    cameras = list(cameras_of(data).values())
    people = [reference(px[:, :, k], weights[:, :, k], cameras) for k in range(px.shape[2])]
    joints, off = (np.stack(values) for values in zip(*people))
    agree = off[off < TOLERANCE]
    known = np.isfinite(joints).all(-1)
    print(
        f"boxes filled {filled.mean():.2f}, worst {filled.min():.2f}; joints known {known.mean():.0%}; "
        f"whole people at {known.all(-1).sum(1).tolist()} of {len(frames)} moments; "
        f"views that agree do within {np.median(agree):.1f} px (median)",
        flush=True,
    )
    return joints, frames


def stored_reference(name):
    "(world mm [2 people, T, 12, 3], frames [T]) of kept_reference.json."
    content = json.loads(REFERENCE.read_text())
    return np.array(content[name], float), content["frames"]


def sheet(data, joints, frames):
    "A picture: a row a camera, a column a moment, with both people's joints drawn in it."
    rows = []
    for name, camera in cameras_of(data).items():
        cells = [drawn(image, camera.project(joints[:, k])) for k, image in enumerate(images_of(data, name, frames))]
        rows.append(np.hstack(cells))
    return np.vstack(rows)


def drawn(image, people, width=300):
    "The picture, smaller, with limbs px [n, 12, 2], left in red and right in green."
    scale = width / image.shape[1]
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    for limbs in people:
        for side, colour in enumerate(((255, 0, 0), (0, 220, 0))):
            for chain in (limbs[side:6:2], limbs[6 + side :: 2], limbs[[side, 6 + side]]):
                for a, b in zip(chain, chain[1:]):
                    if np.isfinite([a, b]).all():
                        ends = (np.rint(scale * end).astype(int).tolist() for end in (a, b))
                        cv2.line(small, *ends, colour, 2, cv2.LINE_AA)
    return small


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--sheets", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stored = {"how": "python benchmarks/kept_recording.py", "unit": "mm, world of the calibration", "joints": LIMBS}
    for name, source in zip(REFERENCES, (MediaPipeSightings(arguments.data / "blazepose"), MoveNetSightings())):
        print(name, end=": ")
        joints, stored["frames"] = make_reference(arguments.data, source)
        stored[name] = np.where(np.isnan(joints), None, np.round(joints, 1)).tolist()
        if arguments.sheets:
            for part in (slice(0, 5), slice(5, 10)):
                picture = sheet(arguments.data, joints[:, part], stored["frames"][part])
                cv2.imwrite(str(arguments.sheets / f"{name}_{part.start}.png"), picture[..., ::-1])
    REFERENCE.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
