"""Conversion between formats by the mesh: the body itself is fitted to the joints of one format, and all others are
read off it.

    python benchmarks/conversion_mesh.py [--rig .cache/rig.safetensors] [--out results/conversion_mesh.json]
                                         [--picture results/conversion_mesh.jpg]

Each format's joints are given of held-out people of its own, beside whom the package's converter is measured too; the
other ways are those of results/conversion.json (more people). The fit (benchmarks/body_fit.py) begins at the average
adult in the average pose and knows shapes and gestures only as principal components of training people, not the
phenotypes or the motion that made the truth. Still, the truth is read off this very mesh, with its bones and its
skinning, which no real person has: these errors bound what a fitted mesh can do, and promise nothing.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from body_fit import PosableBody
from conversion import WAYS as OTHER_WAYS
from conversion import (
    between,
    clips_of,
    draw,
    mean_and_median,
    mean_errors,
    nameless,
    pair_numbers,
    posed_people,
)

from acae_nb.autoencoder.conversion import package_converter
from acae_nb.basics.files import write_whole
from acae_nb.people.body import Rig
from acae_nb.people.motion import SPLITS, sample_poses

WAYS = ("package", "mesh")


def by_target(joints, skeleton):
    """Numbers of a source's pairs, of mean and median distance [J] of all joints."""
    return {target: pair_numbers(*(each[list(rows)] for each in joints)) for target, rows in skeleton.parts.items()}


def summary(pairs, way, chosen):
    """Median over chosen pairs of their median and of their mean error, mm."""
    numbers = np.median([pairs[a][b][way][:2] for a, b in chosen], axis=0)
    return [round(float(number), 2) for number in numbers]


def draw_mesh(pairs, others, path):
    """The errors of the fitted mesh, beside those of the other ways."""
    curves = {way: between(mean_errors(others, way)) for way in OTHER_WAYS}
    curves |= {
        "package, people of the mesh": between(mean_errors(pairs, "package")),
        "mesh": between(mean_errors(pairs, "mesh")),
    }
    draw(mean_errors(pairs, "mesh"), "the fitted mesh", curves, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rig", type=Path, default=Path(".cache/rig.safetensors"), help="written by export_rig")
    parser.add_argument("--motions", type=Path, default=Path("data/motions"))
    parser.add_argument("--others", type=Path, default=Path("results/conversion.json"), help="the other ways' errors")
    parser.add_argument("--out", type=Path, help="the table, JSON")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--people", type=int, default=1000, help="training people that shapes and gestures are of")
    parser.add_argument("--held-out", type=int, default=20, help="people for each format, not those of another")
    parser.add_argument(
        "--noise",
        type=float,
        default=1.0,
        help="mm, as if joints were known so well; of 1 and 3 the better on validation people",
    )
    parser.add_argument("--steps", type=int, default=30, help="of a fit")
    parser.add_argument("--seed", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    rig, converter = Rig.load(args.rig), package_converter()
    skeleton = rig.skeleton(rig.formats)
    rng = np.random.default_rng([args.seed, SPLITS.index("train")])
    body = PosableBody.of(rig, sample_poses(clips_of(args.motions, "train", rng), args.people, rng), rng)
    people = posed_people(rig, args.motions, "test", args.held_out * len(skeleton.parts), args.seed)
    everything = np.arange(len(skeleton))
    pairs, residuals = {}, []
    for number, (source, part) in enumerate(skeleton.parts.items()):
        rows, group = np.array(part), people[number * args.held_out : (number + 1) * args.held_out]
        fitted = body.fit(group[:, rows], rows, args.noise, args.steps)
        weights = converter.fitted.weights(rows, everything).astype(np.float32)
        residuals.append(float(np.linalg.norm((fitted - group)[:, rows], axis=2).mean()))
        by_way = {
            "package": by_target(mean_and_median(weights @ group[:, rows], group), skeleton),
            "mesh": by_target(mean_and_median(fitted, group), skeleton),
        }
        pairs[source] = {target: {way: by_way[way][target] for way in WAYS} for target in skeleton.parts}
        mean = np.mean([numbers["mesh"][1] for numbers in pairs[source].values()])
        print(
            f"{time.process_time() - began:.0f} CPU-s: {source}: {residuals[-1]:.1f} mm, others {mean:.1f}", flush=True
        )
    others = json.loads(args.others.read_text("utf-8"))["pairs [median mm, mean mm, share of joints]"]
    chosen = {
        "all pairs": [(a, b) for a in pairs for b in pairs if a != b],
        "pairs without a common name": nameless(others),
    }
    numbers = {
        "command": "python " + " ".join(sys.argv),
        "CPU-s": round(time.process_time() - began),
        "people": {"train": args.people, "test, of each format": args.held_out, "test": len(people)},
        "given joints after the fit, mean mm": round(float(np.mean(residuals)), 2),
        "summary": {
            title: {
                **{
                    f"{way}, people of {args.others.name}": summary(others, way, some)
                    for way in ("linear", "autoencoder")
                },
                **{way: summary(pairs, way, some) for way in WAYS},
                "pairs that the mesh converts better than the package": round(
                    float(np.mean([pairs[a][b]["mesh"][1] < pairs[a][b]["package"][1] for a, b in some])), 3
                ),
            }
            for title, some in chosen.items()
        },
        "pairs [median mm, mean mm, share of joints]": pairs,
    }
    if args.out:
        write_whole(args.out, json.dumps(numbers) + "\n")
    if args.picture:
        draw_mesh(pairs, others, args.picture)
    print(json.dumps(numbers["summary"], indent=1))


if __name__ == "__main__":
    main()
