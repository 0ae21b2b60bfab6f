"""A pose model of ours beside MediaPipe's landmark networks, full and heavy, each behind its own detector, on the same
pictures in one run; and the detectors beside each other on the people of hand-checked boxes.

    python benchmarks/landmark_graphs.py          (once: fetches heavy)
    python benchmarks/peers.py [--model artifacts/published/consistency] [--pictures 75] [--frames 12] [--json FILE]
        [--landmarks full=data/blazepose/pose_landmark_full.tflite heavy=.cache/human-models/blazepose-heavy.json]
        [--only detectors|poses|kept] [--without-ours]

Poses: the rendered tests (reference: the truth; results/peers.json is of those of the profile `further`, whose people
have natural statures: acae_nb.workflow.natural_statures) and the recording (reference: triangulated from MediaPipe's
own landmarks, which favours MediaPipe). 12 limb joints, the hips' middle at the origin. Ours answers in the skeleton
that the reference is in (`ours`: cmu_panoptic_19 in the rendered tests, mediapipe_33 in what is triangulated from
MediaPipe, coco_17 from MoveNet), and, where that is another, in cmu_panoptic_19 too (`ours, cmu_panoptic_19`): hips
and shoulders of two skeletons are not the same points. MediaPipe has one skeleton. Axes of the view: the camera
turned by the shortest way to look at the reference's hips, for MediaPipe's network does not know where in the picture
its crop lies. Ours is given the camera. mm: MPJPE; scaled (best scale); PA-MPJPE; bones (mean error of the length of
upper arms, forearms, thighs and shins); each over the pictures in which all found the person. bone_sum: the sum of
these lengths, % of the true sum. found: pictures in which the detector found the person (IoU of at least 0.3 with the
box of the joints). cpu_ms: of a picture, detection and pose, one thread (full is run by LiteRT, heavy by torch). mean
pose: what a model scores that always answers the mean of these pictures' true poses. Ratios: ours over each other
method, with 95 % intervals from pictures drawn anew by subject (by moment, where there is one subject, and in the
kept recording). jitter: mean and median length of the limbs' second difference in the single athlete's videos, mm a
frame squared, of the best-scored person, each frame seen anew (no tracking); what moves well has some too, and one
exchange of left and right outweighs a mean.

Kept: the recording of two people, on which no model is chosen; each packaged model was measured on it once, when it was
finished (--only kept). Its references are triangulated from MediaPipe full's landmarks (`kept, mediapipe`), which
favours MediaPipe, and from MoveNet's keypoints (`kept, movenet`), which favours what stands on MoveNet: see
benchmarks/kept_recording.py. Errors are over the joints that the reference knows, of people of whom it knows the hips
and at least 9 limbs.

Detectors: found people of benchmarks/people_boxes.json, other boxes, CPU-ms a picture with one thread."""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from kept_recording import BOXES, LIMBS, REFERENCES, cameras_of, images_of, kept_pictures, stored_reference
from landmark_graphs import FOLDER, LandmarkGraph, read_checked
from scipy.optimize import linear_sum_assignment

from acae_nb.datasets.pose2sim import read_video
from acae_nb.evaluation.metrics import aligned_distances, joint_distances, procrustes
from acae_nb.examples.tables import ExampleTable
from acae_nb.inference.detection import BlazePoseDetector, MoveNetDetector
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.person_crops import ONE_LOOK, WITH_MIRROR
from acae_nb.models.multipose import MultiPose
from acae_nb.people.blazepose import BlazePose, Network, box_around, landmark_skeleton, overlap

HIPS = [LIMBS.index("left_hip"), LIMBS.index("right_hip")]
BONES = np.array([(k, k + 2) for k in (0, 1, 2, 3, 6, 7, 8, 9)])  # shoulder-elbow-wrist and hip-knee-ankle, both sides
FORMAT = "cmu_panoptic_19"
IN_FORMAT = f"ours, {FORMAT}"  # of a method
MEASURES = ("MPJPE", "scaled", "PA", "bones")  # errors, mm, of which ratios are taken
MEAN_POSE = "mean pose"
LEAST_IOU = 0.3
LEAST_KNOWN = 9  # of the 12 limb joints, of a person in the kept recording
LANDMARKS = {"full": "data/blazepose/pose_landmark_full.tflite", "heavy": f"{FOLDER}/blazepose-heavy.json"}


class Scene(NamedTuple):
    "A picture with one person of whom the 3D joints are known."

    image: np.ndarray
    camera: object
    limbs: np.ndarray  # [12, 3] mm, camera's frame; NaN: not known
    box: np.ndarray  # left, top, width, height px
    group: str  # what is drawn together when intervals are made
    form: str = FORMAT  # the skeleton that the limbs are of


class Answer(NamedTuple):
    "What a method says of one picture."

    limbs: np.ndarray | None  # [12, 3] mm, axes of the view, hips' middle at the origin; None: person not found
    cpu_ms: float


def hips_centred(limbs):
    return limbs - limbs[..., HIPS, :].mean(-2, keepdims=True)


def view_rotation(direction):
    "[3, 3]: turns `direction` by the shortest way to the z axis (which it must not be opposite to)."
    x, y, z = direction / np.linalg.norm(direction)
    return np.array(
        [[1 - x * x / (1 + z), -x * y / (1 + z), -x], [-x * y / (1 + z), 1 - y * y / (1 + z), -y], [x, y, z]]
    )


def in_view(limbs, direction):
    "Limbs (camera's frame) about the hips' middle, in the axes of the view in `direction`."
    return hips_centred(limbs) @ view_rotation(direction).T


class Remembering:
    "A network that keeps its last outputs (by shape)."

    def __init__(self, network):
        self.network = network

    def __call__(self, image):
        self.last = self.network(image)
        return self.last


class MediaPipe:
    """MediaPipe's detector and a landmark network: the person's crop is refined once by the network's own two points.
    landmarks: a tflite file, or the .json of a graph model."""

    def __init__(self, folder, landmarks):
        self.networks = BlazePose(folder)
        is_graph = Path(landmarks).suffix == ".json"
        network = LandmarkGraph(read_checked(landmarks)) if is_graph else Network(landmarks)
        self.networks.landmarker = Remembering(network)
        self.rows = [landmark_skeleton().index(joint) for joint in LIMBS]

    def people(self, image):
        "(box, limbs [12, 3] mm in the axes of the view), best first."
        for face in self.networks.detect(image):
            first = self.networks.landmarks(image, face.points)
            second = self.networks.landmarks(image, first.points)
            yield second.box, hips_centred(self.world_limbs(first.points))

    def world_limbs(self, points):
        "World landmarks (mm) of the crop that was read last, x and y turned back by its roll about `points`."
        world = self.networks.landmarker.last[117,].reshape(39, 3)[self.rows]
        return turned_back(1000.0 * world, points)

    def __call__(self, scene):
        return nearest(self.people(scene.image), scene.box)


def turned_back(world, points):
    "World landmarks of a crop whose upward direction in the picture is from points[0] to points[1]."
    up = (points[1] - points[0]) / np.linalg.norm(points[1] - points[0])
    right, down = np.array([-up[1], up[0]]), -up
    return np.c_[world[:, :2] @ np.stack([right, down]), world[:, 2]]


class Ours:
    "A pose model of ours behind MoveNet multipose, in the skeleton `form`; None: in that of each scene's reference."

    def __init__(self, folder, looks, form=None):
        self.estimator = PoseEstimator.load(folder, looks=looks, device="cpu")
        self.detector, self.form = MultiPose(), form

    def people(self, image, camera, form=FORMAT):
        "(box, limbs [12, 3] mm, camera's frame), best first."
        boxes = self.detector(image).boxes
        if len(boxes):
            poses = self.estimator.estimate(image, boxes, camera, form)
            rows = [poses.skeleton.index(joint) for joint in LIMBS]
            yield from zip(boxes, poses.joints3d[:, rows])

    def __call__(self, scene):
        limbs = nearest(self.people(scene.image, scene.camera, self.form or scene.form), scene.box)
        return None if limbs is None else in_view(limbs, scene.limbs[HIPS].mean(0))


def nearest(people, box):
    "Limbs of the person whose box overlaps `box` most; None where none does by LEAST_IOU."
    ranked = sorted(((overlap(found, box), k, limbs) for k, (found, limbs) in enumerate(people)), reverse=True)
    return ranked[0][2] if ranked and ranked[0][0] >= LEAST_IOU else None


def scenes(folder, count):
    "`count` pictures, evenly spread, of the rows of an example table that have all limbs."
    table = ExampleTable.open(folder)
    names = [label.split("/", 1)[0] for label in table.skeleton.labels]
    form = FORMAT if FORMAT in names else names[0]
    columns = [table.skeleton.index(joint, form) for joint in LIMBS]
    world = table.world_joints3d()[:, columns]
    rows = np.flatnonzero(np.isfinite(world).all((1, 2)))
    subjects = table.column("subject")
    groups = subjects if len(set(subjects[rows])) > 1 else table.column("frame").astype(str)
    for k in np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)):
        row, camera = int(rows[k]), table.camera(int(rows[k]))
        limbs = (world[row] - camera.position) @ camera.rotation.T
        yield Scene(table.image(row), camera, limbs, box_around(camera.project(world[row])), str(groups[row]), form)


def kept_scenes(data, reference):
    "The kept recording's pictures of both people, where the reference knows the hips and LEAST_KNOWN limbs or more."
    form = {"mediapipe": "mediapipe_33", "movenet": "coco_17"}[reference]
    joints, frames = stored_reference(reference)
    known = np.isfinite(joints).all(-1)
    enough = known[..., HIPS].all(-1) & (known.sum(-1) >= LEAST_KNOWN)
    for name, camera in cameras_of(data).items():
        for k, image in enumerate(images_of(data, name, frames)):
            boxes = kept_pictures()[name, frames[k]]["main"]
            for person in np.flatnonzero(enough[:, k]):
                limbs = camera.to_camera(joints[person, k])
                yield Scene(image, camera, limbs, np.array(boxes[person], float), str(frames[k]), form)


def timed(call, *arguments):
    "(result, CPU-ms)."
    began = time.process_time()
    result = call(*arguments)
    return result, 1000 * (time.process_time() - began)


def errors(found, true):
    """Mean errors (mm) of each picture over the joints that are known (`true` is NaN elsewhere), columns by name.
    found, true: [n, 12, 3], hips' middle at the origin."""
    found = np.where(np.isnan(true), np.nan, found)
    lengths = [joint_distances(x[:, BONES[:, 0]], x[:, BONES[:, 1]]) for x in (found, true)]
    with_origin = [np.concatenate([x, np.zeros((len(x), 1, 3))], 1) for x in (found, true)]
    return pd.DataFrame(
        {
            "MPJPE": np.nanmean(joint_distances(found, true), -1),
            "scaled": np.nanmean(aligned_distances(*with_origin, "scale", len(LIMBS))[:, :-1], -1),
            "PA": np.nanmean(joint_distances(procrustes(found, true), true), -1),
            "bones": np.nanmean(np.abs(lengths[0] - lengths[1]), -1),
            "bone_sum": 100 * np.nansum(lengths[0], -1) / np.nansum(lengths[1], -1),
        }
    )


def ratio_interval(ours, theirs, groups, draws=1000, seed=0):
    "Ratio of the means and its 95 % interval, groups drawn anew."
    names, number = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(number, weights=values, minlength=len(names)) for values in (ours, theirs)])
    chosen = np.random.default_rng(seed).integers(0, len(names), (draws, len(names)))
    drawn = sums[:, chosen].sum(-1)
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5])
    return {"ratio": float(np.mean(ours) / np.mean(theirs)), "low": float(low), "high": float(high)}


def compare(methods, pictures):
    "(table of errors, a row a method; ratios of ours, else of the first, to the others) on scenes, read one by one."
    answers, true, groups = {name: [] for name in methods}, [], []
    for scene in pictures:
        true.append(in_view(scene.limbs, scene.limbs[HIPS].mean(0)))
        groups.append(scene.group)
        for name, method in methods.items():
            answers[name].append(Answer(*timed(method, scene)))
    common = [k for k in range(len(true)) if all(said[k].limbs is not None for said in answers.values())]
    if not common:
        raise ValueError(f"pictures: expected one of {len(true)} in which all of {list(methods)} found the person")
    reference, groups = np.stack([true[k] for k in common]), np.array(groups)[common]
    by_method = {name: errors(np.stack([said[k].limbs for k in common]), reference) for name, said in answers.items()}
    table = pd.DataFrame({name: table.mean() for name, table in by_method.items()}).T
    table["found"] = [sum(answer.limbs is not None for answer in said) for said in answers.values()]
    table["pictures"], table["in_common"] = len(true), len(common)
    table["cpu_ms"] = [np.median([answer.cpu_ms for answer in said]) for said in answers.values()]
    table.loc[MEAN_POSE] = errors(np.broadcast_to(np.nanmean(reference, 0), reference.shape), reference).mean()
    ahead = [name for name in methods if name.startswith("ours")] or list(methods)[:1]
    ratios = {
        f"{one} / {other}": {
            measure: ratio_interval(by_method[one][measure], by_method[other][measure], groups) for measure in MEASURES
        }
        for one in ahead
        for other in methods
        if other not in ahead
    }
    return table, ratios


def jitter(methods, data, frames):
    "Length of the limbs' second difference (mm a frame squared) over consecutive frames, all cameras together."
    lengths = {name: [] for name in methods}
    for video in sorted((data / "pose2sim" / "single").glob("cam*.mp4")):
        images = list(read_video(video, range(40, 40 + frames)))
        for name, method in methods.items():
            people = (method.people(im, None) if isinstance(method, Ours) else method.people(im) for im in images)
            best = [next(iter(someone), (None, np.full((len(LIMBS), 3), np.nan)))[1] for someone in people]
            second = np.diff(hips_centred(np.stack(best)), n=2, axis=0)
            lengths[name].append(np.linalg.norm(second, axis=-1).mean(-1))
    together = {name: np.concatenate(values) for name, values in lengths.items()}
    return {name: {"mean": np.nanmean(values), "median": np.nanmedian(values)} for name, values in together.items()}


def count_found(boxes, main, bystanders, least_iou=LEAST_IOU):
    """(main people found, bystanders found, other boxes). Each box finds at most one person, and each person is found
    by at most one box: the assignment with the largest sum of IoUs of at least `least_iou`."""
    people = [*main, *bystanders]
    overlaps = np.array([[overlap(np.asarray(b), np.asarray(p)) for p in people] for b in boxes])
    overlaps = overlaps.reshape(len(boxes), len(people))
    overlaps = np.where(overlaps >= least_iou, overlaps, 0)
    rows, columns = linear_sum_assignment(-overlaps)
    found = [c for r, c in zip(rows, columns) if overlaps[r, c] > 0]
    in_front = sum(c < len(main) for c in found)
    return in_front, len(found) - in_front, len(boxes) - len(found)


def compare_detectors(detectors, data):
    "Table of found people, a row a detector. detectors: name -> function of a picture that gives something with boxes."
    pictures = json.loads(BOXES.read_text())["pictures"]
    counts, milliseconds = {name: [] for name in detectors}, {name: [] for name in detectors}
    for picture in pictures:
        image = next(read_video(data / "pose2sim" / picture["video"], [picture["frame"]]))
        for name, detector in detectors.items():
            people, cpu_ms = timed(detector, image)
            counts[name].append(count_found(people.boxes, picture["main"], picture["bystanders"]))
            milliseconds[name].append(cpu_ms)
    table = pd.DataFrame({name: np.sum(c, 0) for name, c in counts.items()}, ["main", "bystanders", "other"]).T
    table["of_main"] = sum(len(picture["main"]) for picture in pictures)
    table["of_bystanders"] = sum(len(picture["bystanders"]) for picture in pictures)
    table["cpu_ms"] = [np.median(values) for values in milliseconds.values()]
    return table


def usual_detectors(data):
    seen = {f"multipose {longest} px": MultiPose(longest=longest) for longest in (256, 320, 512)}
    return {"movenet (default)": MoveNetDetector(), "blazepose": BlazePoseDetector(data / "blazepose")} | seen


def machine():
    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {"cpu": cpu[0] if cpu else platform.processor(), "cores": len(cpu), "python": platform.python_version()}


def print_ratios(ratios):
    for pair, measures in ratios.items():
        texts = (f"{m} {r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for m, r in measures.items())
        print(f"  {pair}: {', '.join(texts)}", flush=True)


def methods_of(arguments):
    "Name -> method, in the order of the tables."
    looks = {"one": ONE_LOOK, "mirror": WITH_MIRROR}[arguments.looks]
    methods = {}
    if not arguments.without_ours:
        methods = {"ours": Ours(arguments.model, looks), IN_FORMAT: Ours(arguments.model, looks, FORMAT)}
    for entry in arguments.landmarks:
        name, path = entry.split("=", 1)
        methods[f"mediapipe {name}"] = MediaPipe(arguments.data / "blazepose", path)
    return methods


def compare_parts(methods, parts):
    "What `compare` says of each part (name -> its scenes), as it goes into the JSON file."
    sources = {}
    for part, pictures in parts.items():
        table, ratios = compare(methods, pictures)
        rows = {name: row.dropna().to_dict() for name, row in table.iterrows()}
        sources[part] = {"errors": rows, "ratios": ratios}
        print(f"{part}\n{table.round(1).to_string(na_rep='')}", flush=True)
        print_ratios(ratios)
    return sources


def compare_poses(arguments):
    "Rendered tests and the recording, and the jitter."
    methods = methods_of(arguments)
    of_format = {name: method for name, method in methods.items() if name != IN_FORMAT}  # where "ours" says the same
    rendered = {
        part: scenes(arguments.artifacts / part, arguments.pictures)
        for part in ("people/test_indoor", "people/test_outdoor")
    }
    recording = {"recording": scenes(arguments.artifacts / "recording", arguments.pictures)}
    sources = compare_parts(of_format, rendered) | compare_parts(methods, recording)
    shaking = jitter(of_format, arguments.data, arguments.frames)
    print(f"jitter, mm a frame squared\n{pd.DataFrame(shaking).T.round(1).to_string()}")
    return {"poses": sources, "jitter": shaking}


def compare_kept(arguments):
    "The kept recording, with each of its references."
    parts = {f"kept, {name}": kept_scenes(arguments.data, name) for name in REFERENCES}
    return {"kept": compare_parts(methods_of(arguments), parts)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("artifacts/published/consistency"))
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--landmarks", nargs="+", default=[f"{name}={path}" for name, path in LANDMARKS.items()])
    parser.add_argument("--pictures", type=int, default=75, help="of each source")
    parser.add_argument("--frames", type=int, default=12, help="of each video, for the jitter")
    parser.add_argument("--looks", choices=("one", "mirror"), default="mirror")
    parser.add_argument("--only", choices=("detectors", "poses", "kept"), help="default: detectors and poses")
    parser.add_argument("--without-ours", action="store_true", help="the peers alone")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {"command": " ".join(["python", *sys.argv]), "machine": machine()}
    if arguments.only in (None, "detectors"):
        table = compare_detectors(usual_detectors(arguments.data), arguments.data)
        results["detectors"] = table.to_dict("index")
        print(f"people of {BOXES.name}\n{table.round(1).to_string()}", flush=True)
    if arguments.only in (None, "poses"):
        results |= compare_poses(arguments)
    if arguments.only == "kept":
        results |= compare_kept(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
