"""How well a model of rendered people carries over to photographs: where it puts shoulders, elbows, wrists, hips, knees
and ankles in the sample videos and in the rendered tests.

    python benchmarks/photographs.py [--models artifacts/models/separate artifacts/models/consistency] [--every 12]
        [--pictures 150] [--sheet FILE.jpg [--moments 10 40 70]]

In the videos (one athlete; several people; four cameras each) the reference are BlazePose's landmarks, a model trained
on photographs, where it calls them visible and the whole person is in the picture: it flatters a model whose backbone
begins with BlazePose's encoder (the default's begins with MoveNet's). In the rendered tests the reference is the truth.
Videos are seen with the detector's boxes, tests with those of the silhouettes, plain and mirrored. Distances are % of
the box's longer side: their mean, and how many are below 5 and 10 % (PCK). --sheet: a picture of what the last model
makes, from detection to poses, of those moments in all views, whether it is right or not."""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from acae_nb.datasets.pose2sim import read_video
from acae_nb.examples.tables import ExampleTable
from acae_nb.inference.detection import BlazePoseDetector
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.person_crops import WITH_MIRROR
from acae_nb.people.blazepose import landmark_skeleton
from acae_nb.reporting.plots import overlay_grid

KINDS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
LIMBS = [f"{side}_{kind}" for kind in KINDS for side in ("left", "right")]
FORMAT = "cmu_panoptic_19"


def photographs(data, every):
    "(source, image, camera, box, limbs [12, 2] px, NaN where hidden) of people in the sample videos."
    detector, rows = BlazePoseDetector(data / "blazepose"), [landmark_skeleton().index(j) for j in LIMBS]
    for video in sorted((data / "pose2sim").glob("*/cam*.mp4")):
        for image in read_video(video, range(0, 100, every)):
            for _, body in detector.bodies(image):
                if not ((body.joints2d >= 0) & (body.joints2d < image.shape[1::-1])).all():
                    continue  # partly outside the picture
                yield (
                    f"videos, {video.parent.name}",
                    image,
                    None,
                    body.box,
                    np.where(body.visibility[rows, None] > 0.5, body.joints2d[rows], np.nan),
                )


def rendered(folder, count):
    "The same of `count` pictures spread over the test collections."
    for path in sorted(folder.glob("test_*")):
        table = ExampleTable.open(path)
        rows = [table.skeleton.index(j, FORMAT) for j in LIMBS]
        for row in np.linspace(0, len(table) - 1, count // 2).astype(int).tolist():
            camera, joints = table.camera(row), table.world_joints3d([row])[0][rows]
            yield "rendered tests", table.image(row), camera, table[row].box, camera.project(joints)


def compare(model, people):
    "Table of mean distance and PCK, a row a source."
    estimator = PoseEstimator.load(model, looks=WITH_MIRROR)
    limbs = [estimator.joints_of(FORMAT)[1].index(j) for j in LIMBS]
    poses = list(estimator.stream(((image, box[None], camera) for _, image, camera, box, _ in people), FORMAT))
    found = np.stack([p.px[0] for p in poses])
    distance = np.stack(
        [100 * np.linalg.norm(px[limbs] - truth, axis=-1) / max(box[2:]) for px, (*_, box, truth) in zip(found, people)]
    )
    sources, lines = np.array([source for source, *_ in people]), {}
    for source in dict.fromkeys(sources):
        own = distance[sources == source]
        seen = own[np.isfinite(own)]
        joints = {kind: np.nanmean(own[:, 2 * k : 2 * k + 2]) for k, kind in enumerate(KINDS)}
        lines[source] = {
            "people": len(own),
            "mean": seen.mean(),
            "PCK@5": 100 * (seen < 5).mean(),
            "PCK@10": 100 * (seen < 10).mean(),
        } | joints
    return pd.DataFrame(lines).T


def sheet(model, data, moments):
    "Figure with a row for each moment of each recording: the four views with everyone who is detected there."
    estimator = PoseEstimator.load(model, detector=BlazePoseDetector(data / "blazepose"), looks=WITH_MIRROR)

    def views(kind, moment):
        videos = sorted((data / "pose2sim" / kind).glob("cam*.mp4"))
        return (next(read_video(video, [moment])) for video in videos)

    rows = {
        f"{kind}, frame {moment}": list(
            estimator.stream(((image, None, None) for image in views(kind, moment)), FORMAT)
        )
        for kind in ("single", "multi")
        for moment in moments
    }
    cells = [[(poses.image, [(poses.skeleton, px) for px in poses.px]) for poses in row] for row in rows.values()]
    return overlay_grid(cells, [f"camera {k + 1}" for k in range(len(cells[0]))], list(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        type=Path,
        nargs="+",
        default=[Path("artifacts/models/separate"), Path("artifacts/models/consistency")],
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--tests", type=Path, default=Path("artifacts/people"))
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--pictures", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--moments", type=int, nargs="+", default=[10, 40, 70])
    parser.add_argument("--dpi", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    people = [*photographs(arguments.data, arguments.every), *rendered(arguments.tests, arguments.pictures)]
    for model in arguments.models:
        print(f"{model}, % of the box\n{compare(model, people).round(1).to_string()}", flush=True)
    if arguments.sheet:
        sheet(arguments.models[-1], arguments.data, arguments.moments).savefig(arguments.sheet, dpi=arguments.dpi)


if __name__ == "__main__":
    main()
