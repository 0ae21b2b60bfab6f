"""Children, and short adults: how the packaged model sees them, by groups of rendered people.

    python benchmarks/children.py FOLDER [--rig artifacts/rig/rig.safetensors] [--data data]
        [--model acae_nb/data/model] [--groups NAME ...] [--pictures 150] [--json FILE] [--figure FILE.png]
        [--card README.md]

Renders a table of pictures a group into FOLDER (or takes those that are there) and looks at each person, with the
mirror image, the known camera and the known box. The groups are made by the same seed: the same 40 people, but for the
age or the height of their bodies, in the same poses, places and clothes' styles wherever a body of that size fits the
scene; nobody else and nothing in front. Statures are natural ones (acae_nb.people.statures).
Their motions and places are those of tests, their seeds nobody else's.

Joints of smpl_24, mm. MPJPE: pelvis at the origin, axes of the camera; PA: after the best similarity. place: distance
of the pelvis from where it is; depth: how much too far away it is, % of its distance; size: sum of the predicted bones
over that of the true ones. known size: place, when the pose is brought nearer or farther until its bones are as long as
the true ones. +-: 95 % of the mean, from the scatter between people. --card: writes the section of the model's card,
and its figure beside it."""

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from acae_nb.basics.files import write_whole
from acae_nb.evaluation.metrics import aligned_distances, joint_distances
from acae_nb.examples.tables import ExampleTable
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.person_crops import WITH_MIRROR
from acae_nb.people.body import Rig, random_phenotypes
from acae_nb.people.cmu_clips import cmu_clips
from acae_nb.people.collections import CHUNK, Cast, read_collection, render_chunk, write_table
from acae_nb.people.everyday import EVERYDAY, everyday_poses
from acae_nb.people.motion import read_motions, split_clips
from acae_nb.people.statures import NaturalStatures, number_of, rescale_people, statures
from acae_nb.skeletons.joints import load_skeleton
from acae_nb.workflow.calibration import png_of, with_section

SEED, SUBJECTS, FORMAT = 1901, 40, "smpl_24"
GROUPS = {  # from and to of phenotypes; age 0: a baby, 1/3: a child, 2/3: 25 years
    "small children": {"age": (0.15, 0.3)},  # no body of the training is as young
    "children": {"age": (0.3, 0.45)},
    "teenagers": {"age": (0.45, 0.58)},
    "short adults": {"age": (0.6, 0.9), "height": (0.08, 0.2)},
    "adults": {"age": (0.6, 0.9)},
}
PLACES = {"street": 1, "park": 1, "room": 1, "gym": 1, "studio": 1, "beach": 1}
TITLE, FIGURE = "## Children and short people", "children.png"


def bodies_of(group, rig):
    "Phenotypes [SUBJECTS, 11]: the same random people for every group, but for what makes the group."
    phenotypes = random_phenotypes(SUBJECTS, np.random.default_rng([SEED, 1]))
    for k, (name, span) in enumerate(GROUPS[group].items()):
        phenotypes[:, rig.phenotypes.index(name)] = np.random.default_rng([SEED, 2, k]).uniform(*span, SUBJECTS)
    return phenotypes


def subjects_of(group, natural):
    "Table [SUBJECTS] of the bodies: how many times as large as the rig's they are, and their statures then, mm."
    phenotypes = bodies_of(group, natural.rig)
    scales = natural.scales(phenotypes)
    return pd.DataFrame({"scale": scales, "stature": scales * statures(phenotypes, natural.rig)})


def test_clips(data):
    "Clips of the tests, and everyday poses of their kinds that no table has."
    clips = split_clips([*read_motions(data / "motions"), *cmu_clips()])["test"]
    poses = everyday_poses(
        600, np.random.default_rng([SEED, 3]), EVERYDAY["test"], source=f"everyday/test/seed {SEED}-3"
    )
    return [*clips, poses]


def render(group, folder, rig, clips, pictures):
    "The example table of a group."
    plan = read_collection(
        {
            "skeleton": FORMAT,
            "images": pictures,
            "seed": SEED,
            "split": "test",
            "subjects": SUBJECTS,
            "places": PLACES,
            "crowd": 0,
            "occluders": 0,
        },
        rig.formats,
    )
    cast = Cast(plan, rig)
    cast.phenotypes = bodies_of(group, rig)
    with tempfile.TemporaryDirectory() as chunks:
        paths = [Path(chunks) / f"{k}.npz" for k in range(-(-pictures // CHUNK))]
        for k, path in enumerate(tqdm(paths, group)):
            np.savez(path, **render_chunk(plan, cast, clips, {}, k))
        write_table(plan, rig, paths, folder)


def predicted(estimator, table):
    "Joints [n, j, 3] in the camera's frame, mm."
    people = ((table.image(row), table.column("box")[row], table.camera(row)) for row in range(len(table)))
    bar = tqdm(people, f"looks at {table.folder.name}", len(table))
    return np.concatenate([poses.joints3d for poses in estimator.stream(bar, FORMAT)])


def bone_sums(joints):
    edges = np.array(load_skeleton(FORMAT).edges)
    return joint_distances(joints[:, edges[:, 0]], joints[:, edges[:, 1]]).sum(-1)


def measures(pred, true):
    "One row a picture, of joints [n, j, 3] in the camera's frame, mm."
    root = load_skeleton(FORMAT).index("pelvis")
    size = bone_sums(pred) / bone_sums(true)
    place, nearer = pred[:, root], pred[:, root] / size[:, None]
    return pd.DataFrame(
        {
            "MPJPE": aligned_distances(pred, true, "root", root).mean(-1),
            "PA-MPJPE": aligned_distances(pred, true, "similarity", root).mean(-1),
            "place": joint_distances(place, true[:, root]),
            "depth %": 100 * (place[:, 2] / true[:, root, 2] - 1),
            "depth off %": 100 * np.abs(place[:, 2] / true[:, root, 2] - 1),
            "size": size,
            "known size": joint_distances(nearer, true[:, root]),
        }
    )


def half_width(values, subjects):
    "Of the 95 % interval of the mean, from the means of the people."
    means = values.groupby(subjects).mean()
    return 1.96 * means.std() / np.sqrt(len(means))


def by_group(rows):
    "One row a group: pictures, mean stature (m), the means of the measures, and their +-."
    names = [name for name in rows if name not in ("group", "subject", "stature")]
    table = {}
    for group, part in rows.groupby("group", sort=False):
        table[group] = {"pictures": len(part), "stature m": part["stature"].mean() / 1000}
        for name in names:
            table[group] |= {name: part[name].mean(), f"{name} +-": half_width(part[name], part["subject"])}
    return pd.DataFrame.from_dict(table, orient="index")


def card_section(table, correlation, command):
    "The section of the model's card."
    child, adult = table.loc["children"], table.loc["adults"]
    helped = ", ".join(table.index[table["known size"] < table["place"]])
    lines = [
        TITLE,
        "",
        f"{int(table['pictures'].min())} rendered pictures a group, made by one seed: the same people but for the age "
        "or the height of their bodies, posed and seen alike wherever a body of that size fits; known camera and box, "
        f"joints of {FORMAT}, mm. place: error of the pelvis; depth: how much too far away it is put; size: sum of the "
        "bones, predicted over true; known size: place when the pose is brought to where its bones are as long as the "
        "true ones. "
        f"`{command}`",
        "",
        "| group | stature, m | MPJPE | PA-MPJPE | place | depth, % | size | known size |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for group, row in table.iterrows():
        lines.append(
            f"| {group} | {row['stature m']:.2f} | {row['MPJPE']:.0f} ± {row['MPJPE +-']:.0f} | "
            f"{row['PA-MPJPE']:.0f} ± {row['PA-MPJPE +-']:.0f} | {row['place']:.0f} ± {row['place +-']:.0f} | "
            f"{row['depth %']:+.1f} ± {row['depth % +-']:.1f} | {row['size']:.2f} | {row['known size']:.0f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "One picture does not tell a child from an adult farther away. Children come out "
            f"{child['size']:.2f} times as large as they are (adults {adult['size']:.2f} times) and "
            f"{child['depth %']:+.0f} % too far away (adults {adult['depth %']:+.0f} %): an error of place of "
            f"{child['place'] / 1000:.2f} m. Errors of size and of depth go together (correlation {correlation:.2f}). "
            "Where a person's size is known, the pose, place and all, can be divided by predicted over true size: then "
            f"children are {child['known size']:.0f} mm off, adults {adult['known size']:.0f}. It brings nearer: "
            f"{helped}. Seen by several cameras, size and place come from "
            "triangulation and not from this guess.",
            "",
            f"![Size and depth by stature]({FIGURE})",
        ]
    )


def close_up(table, row, px, side=220):
    "The picture with the predicted bones."
    image = np.ascontiguousarray(table.image(row))
    for edge in load_skeleton(FORMAT).edges:
        cv2.line(image, *np.rint(px[list(edge)]).astype(int).tolist(), (255, 220, 0), 2, cv2.LINE_AA)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def figure_of(rows, examples):
    "One picture a group above; size and depth over stature, a point a person, below."
    figure = Figure((9, 5.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.7))
    for axes, (group, image) in zip(above.subplots(1, len(examples)), examples.items()):
        axes.imshow(image)
        axes.set_title(group, fontsize=9)
        axes.axis("off")
    people = rows.groupby(["group", "subject"], sort=False)[["stature", "size", "depth %"]].mean().reset_index()
    left, right = below.subplots(1, 2)
    for group, part in people.groupby("group", sort=False):
        left.plot(part["stature"] / 1000, part["size"], "o", markersize=3, label=group)
        right.plot(part["stature"] / 1000, part["depth %"], "o", markersize=3)
    left.axhline(1, color="0.6", linewidth=0.8)
    right.axhline(0, color="0.6", linewidth=0.8)
    left.set(xlabel="stature, m", ylabel="size, predicted / true")
    right.set(xlabel="stature, m", ylabel="too far away, % of the distance")
    left.legend(frameon=False, fontsize=8)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rig", type=Path, default=Path("artifacts/rig/rig.safetensors"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path, default=Path("acae_nb/data/model"))
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--pictures", type=int, default=150, help="a group")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--card", type=Path)
    arguments = parser.parse_args()
    command = f"python benchmarks/children.py {' '.join(sys.argv[1:])}"
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    natural, clips = NaturalStatures(Rig.load(arguments.rig)), test_clips(arguments.data)
    estimator = PoseEstimator.load(arguments.model, looks=WITH_MIRROR, device="cpu")
    parts, examples = [], {}
    for group in arguments.groups:
        folder = arguments.folder / group.replace(" ", "_")
        if not folder.is_dir():
            render(group, folder, natural.rig, clips, arguments.pictures)
        people = subjects_of(group, natural)
        names = set(ExampleTable.open(folder).column("subject"))
        rescale_people(folder, {name: people["scale"][number_of(name)] for name in names})
        table = ExampleTable.open(folder)
        pred, true = predicted(estimator, table), table.camera_joints3d(load_skeleton(FORMAT)).astype(float)
        subjects = np.array([number_of(name) for name in table.column("subject")])
        part = measures(pred, true).assign(subject=subjects, stature=people["stature"].to_numpy()[subjects])
        part.insert(0, "group", group)
        parts.append(part)
        examples[group] = close_up(table, 0, table.camera(0).project(table.camera(0).to_world(pred[0])))
        print(by_group(part).round(2).T.to_string(), flush=True)
    rows = pd.concat(parts, ignore_index=True)
    table = by_group(rows)
    correlation = float(np.corrcoef(np.log(rows["size"]), np.log1p(rows["depth %"] / 100))[0, 1])
    print(table.round(2).T.to_string(), f"\nsize and depth: correlation {correlation:.2f}")
    if arguments.json:
        result = {
            "command": command,
            "machine": f"{platform.machine()}, 1 thread",
            "correlation of size and depth": round(correlation, 3),
            "groups": table.round(3).to_dict("index"),
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    figure = png_of(figure_of(rows, examples))
    if arguments.figure:
        write_whole(arguments.figure, figure)
    if arguments.card:
        section = card_section(table, correlation, command)
        card = arguments.card.read_text(encoding="utf-8")
        write_whole(arguments.card, with_section(card, section, TITLE))
        write_whole(arguments.card.parent / FIGURE, figure)


if __name__ == "__main__":
    main()
