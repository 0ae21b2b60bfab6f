"""How far off a pose is after conversion from one skeleton format to another, for every pair of formats; and the
package's own converter, made of the same people.

    python benchmarks/conversion.py [--rig .cache/rig.safetensors] [--out results/conversion.json]
                                    [--picture results/conversion.jpg] [--maps acae_nb/data/conversion.safetensors]

Bodies of all ages and builds are posed and read in every format of the rig: no picture, no prediction, only the formats
differ. Weights are made on the training clips and kinds of everyday poses; all errors are of other bodies in the test
clips and kinds. Ways from the joints of format A to a joint of format B:

- name: A's joint of the same short name; none where there is none
- nearest: A's joint of the same short name, else the one that is nearest on the training people
- linear: weights of A's joints that sum to one, of least error on the training people (a ridge of 1 mm)
- autoencoder: latent points of one affine-combining autoencoder of all formats, estimated from A's joints
- package: as linear, of the moments in the package (acae_nb.autoencoder.conversion)

Fitting the body itself to A's joints is in benchmarks/conversion_mesh.py.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import BoundaryNorm
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.sparse import vstack
from scipy.spatial.distance import squareform

from acae_nb.autoencoder.affine_polish import spatial
from acae_nb.autoencoder.bridging import Bridge
from acae_nb.autoencoder.conversion import (
    Converter,
    JointMoments,
    affine_weights,
    save_converter,
    second_moment,
)
from acae_nb.autoencoder.fitting import fit_acae
from acae_nb.basics.files import write_whole
from acae_nb.people.body import Rig, random_phenotypes
from acae_nb.people.cmu_clips import cmu_clips
from acae_nb.people.everyday import EVERYDAY, everyday_poses
from acae_nb.people.formats import joint_recipes
from acae_nb.people.motion import SPLITS, read_motions, sample_poses, split_clips
from acae_nb.people.retarget import pose_people

RIDGE = 1.0  # mm; of 0.3 to 12 the least error on the validation people was near it
WAYS = ("name", "nearest", "linear", "autoencoder", "package")


def clips_of(motions, split, rng):
    """Motions of a split, and everyday poses of its kinds."""
    return [*split_clips([*read_motions(motions), *cmu_clips()])[split], everyday_poses(2000, rng, EVERYDAY[split])]


def posed_people(rig, motions, split, count, seed):
    """Joints [count, J, 3] in mm of all the rig's formats side by side: a body of its own for each pose."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    clips = clips_of(motions, split, rng)
    regressor = vstack([rig.joint_regressors[name] for name in rig.formats]).tocsr()
    people = []
    for start in range(0, count, 100):
        n = min(100, count - start)
        vertices, _ = pose_people(rig, rig.bodies(random_phenotypes(n, rng)), sample_poses(clips, n, rng), rng)
        people.append(np.stack([regressor @ v for v in vertices]).astype(np.float32))
    return np.concatenate(people)


def recipe_digest(name):
    """What says whether the joints of a format still lie where they lay when the numbers were made."""
    return hashlib.sha256(json.dumps(joint_recipes(name)).encode()).hexdigest()[:12]


class Ways:
    """Weights [J, A] of one format's joints for all joints of all formats, by each way."""

    def __init__(self, skeleton, known, autoencoder: JointMoments, converter: Converter):
        self.skeleton, self.autoencoder, self.converter = skeleton, autoencoder, converter
        self.moment = second_moment(known)

    def weights(self, source):
        """By way, of the format `source`; NaN where a way has no answer."""
        rows = np.array(self.skeleton.parts[source])
        everything = np.arange(len(self.skeleton))
        name = self.by_name(rows)
        square = np.diag(self.moment)
        apart = square[:, None] + square[None, rows] - 2 * self.moment[:, rows]
        nearest = np.eye(len(rows))[apart.argmin(1)]
        return {
            "name": name,
            "nearest": np.where(np.isnan(name), nearest, name),
            "linear": affine_weights(
                self.moment[np.ix_(rows, rows)] + RIDGE**2 * np.eye(len(rows)), self.moment[:, rows]
            ),
            "autoencoder": self.autoencoder.weights(rows, everything, noise=0.1),
            "package": np.concatenate([self.converter.map(source, target).weights for target in self.skeleton.parts]),
        }

    def by_name(self, rows):
        names = [self.skeleton.short_names[row] for row in rows]
        out = np.full((len(self.skeleton), len(rows)), np.nan)
        for joint, name in enumerate(self.skeleton.short_names):
            if name in names:
                out[joint] = np.eye(len(rows))[names.index(name)]
        return out


def latent_moments(acae, people):
    """What an autoencoder says of how joints move together: its decoder, and the latents' moment on people."""
    bridge = Bridge.of(acae, people)
    root = torch.linalg.cholesky(bridge.latent_moment + 1e-12 * torch.eye(len(acae.latents), dtype=torch.float64))
    return JointMoments((acae.decoder.double() @ root).numpy() * 1000, bridge.std.numpy() * 1000)


def fitted_autoencoder(people, skeleton, sided, central, rounds):
    """One autoencoder of all formats, of poses that no camera looks at."""
    return fit_acae(people, skeleton, sided, central, loss=spatial, rounds=rounds, polish_steps=0)


def distances(weights, people, rows):
    """Mean and median distance [J] in mm of converted from true joints, over people near the origin (float32)."""
    return mean_and_median(np.matmul(weights.astype(np.float32), people[:, rows]), people)


def mean_and_median(converted, people):
    """Mean and median distance [J] in mm between joints [N, J, 3] and where they are."""
    off = converted - people
    distance = np.sqrt(np.einsum("njc,njc->nj", off, off))
    return distance.mean(0), np.median(distance, axis=0)


def tables(ways, skeleton, people):
    """Of every format and way: mean and median distance of every joint of all formats, each [J] in mm."""
    table = {}
    for source, rows in skeleton.parts.items():
        table[source] = {way: distances(weights, people, list(rows)) for way, weights in ways.weights(source).items()}
    return table


def pair_table(table, skeleton):
    """Of every pair of formats and way: median and mean distance in mm over the target's joints that have an answer,
    and the share of those."""
    return {
        source: {
            target: {way: pair_numbers(*(joints[list(rows)] for joints in numbers)) for way, numbers in by_way.items()}
            for target, rows in skeleton.parts.items()
        }
        for source, by_way in table.items()
    }


def pair_numbers(mean, median):
    """[median over joints of the joints' median distance, mean over joints of their mean distance, share of joints]."""
    answered = np.isfinite(mean)
    if not answered.any():
        return [None, None, 0.0]
    numbers = np.median(median[answered]), mean[answered].mean(), answered.mean()
    return [round(float(number), 2) for number in numbers]


def nameless(pairs):
    """The pairs (source, target) of formats that share no short name."""
    return [(a, b) for a, row in pairs.items() for b, ways in row.items() if ways["name"][2] == 0]


def summary(pairs, chosen):
    """By way: median over the chosen pairs of their median and of their mean error, mm; None where it answers none."""
    out = {}
    for way in WAYS:
        numbers = [pairs[a][b][way][:2] for a, b in chosen if pairs[a][b][way][2] > 0]
        out[way] = [round(float(value), 2) for value in np.median(numbers, axis=0)] if numbers else None
    return out


def in_order(errors):
    """Formats so that those lie side by side that are converted well into each other."""
    near = np.log1p((errors + errors.T) / 2)
    np.fill_diagonal(near, 0)
    return leaves_list(linkage(squareform(near, checks=False), "average", optimal_ordering=True))


def draw(errors, by, curves, path):
    """A heat map of `errors` [F][F], mean mm of every pair of formats `by` one way, and beside it `curves`: all pairs
    by each way, mean mm (None where there is no answer), the last of them thick."""
    names = list(errors)
    table = np.array([[errors[a][b] for b in names] for a in names])
    order = in_order(table)
    names, table = [names[k] for k in order], table[np.ix_(order, order)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(17, 12), dpi=80, width_ratios=(3.4, 1), layout="constrained")
    bounds = [0, 2, 5, 10, 15, 20, 30, 40, 60]
    image = left.imshow(table, cmap="viridis_r", norm=BoundaryNorm(bounds, 256, extend="max"))
    left.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
    left.set_yticks(range(len(names)), names, fontsize=9)
    for (i, j), error in np.ndenumerate(table):
        left.text(j, i, f"{error:.0f}", ha="center", va="center", fontsize=6, color="w" if error > 20 else "k")
    left.set_ylabel("from")
    left.set_title(f"Mean error of held-out people's joints, mm, by {by}: from (rows) to (columns)")
    figure.colorbar(image, ax=left, shrink=0.6, label="mm")
    for number, (way, means) in enumerate(curves.items(), 1):
        known = np.sort([mean for mean in means if mean is not None])
        right.plot(known, np.linspace(0, 1, len(known)), label=way, linewidth=2.5 if number == len(curves) else 1.2)
    right.set_xscale("log")
    right.set_xlim(0.5, 200)
    right.set_xlabel("mean error of a pair, mm")
    right.set_ylabel("share of pairs")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), fontsize=9)
    right.grid(alpha=0.3)
    figure.savefig(path, pil_kwargs={"quality": 85})
    plt.close(figure)


def mean_errors(pairs, way):
    """Of every pair of formats, the mean error [F][F] in mm by a way; None where it has no answer."""
    return {a: {b: ways[way][1] for b, ways in row.items()} for a, row in pairs.items()}


def between(errors):
    """The errors of pairs of two different formats."""
    return [error for a, row in errors.items() for b, error in row.items() if a != b]


def draw_package(pairs, path):
    """The errors of the package's converter, beside those of the other ways."""
    curves = {way: between(mean_errors(pairs, way)) for way in WAYS}
    draw(mean_errors(pairs, "package"), "the package's converter", curves, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rig", type=Path, default=Path(".cache/rig.safetensors"), help="written by export_rig")
    parser.add_argument("--motions", type=Path, default=Path("data/motions"))
    parser.add_argument("--out", type=Path, help="the table, JSON")
    parser.add_argument("--picture", type=Path, help="the heat map")
    parser.add_argument("--maps", type=Path, help="the package's converter, safetensors")
    parser.add_argument("--people", type=int, default=6000, help="that weights are made of")
    parser.add_argument("--held-out", type=int, default=1500, help="that errors are measured on")
    parser.add_argument("--sample", type=int, default=30, help="that come with the converter")
    parser.add_argument("--directions", type=int, default=128, help="of joints' moments that the converter keeps")
    parser.add_argument("--latents", type=int, nargs=2, default=(64, 16), help="sided and central, of the autoencoder")
    parser.add_argument("--rounds", type=int, default=60, help="of fitting the autoencoder")
    parser.add_argument("--seed", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()

    def progress(what):
        print(f"{time.process_time() - began:6.0f} CPU-s: {what}", flush=True)

    rig = Rig.load(args.rig)
    skeleton = rig.skeleton(rig.formats)
    known = posed_people(rig, args.motions, "train", args.people, args.seed)
    held_out = posed_people(rig, args.motions, "test", args.held_out, args.seed)
    sample = posed_people(rig, args.motions, "test", args.sample, args.seed + 1)
    progress(f"{len(known)} people to make weights of, {len(held_out)} others; {skeleton!r}")
    converter = Converter(
        {name: tuple(skeleton.joints[row] for row in rows) for name, rows in skeleton.parts.items()},
        JointMoments.of(known, args.directions),
        JointMoments.of(held_out, args.directions),
        sample,
    )
    if args.maps:
        save_converter(converter, args.maps)
        progress(f"{args.maps}: {args.maps.stat().st_size / 1e6:.2f} MB")
    if not args.out:
        return
    acae, report = fitted_autoencoder(known[:: max(1, len(known) // 3000)], skeleton, *args.latents, args.rounds)
    progress(f"autoencoder of {len(acae.latents)} latents, residual {report.residual.mean():.2f} mm")
    ways = Ways(skeleton, known, latent_moments(acae, known), converter)
    table = tables(ways, skeleton, held_out)
    pairs = pair_table(table, skeleton)
    different = [(a, b) for a in pairs for b in pairs if a != b]
    summaries = {"all pairs": summary(pairs, different), "pairs without a common name": summary(pairs, nameless(pairs))}
    for title, numbers in summaries.items():
        print(f"{title}, median and mean error in mm: {numbers}")
    numbers = {
        "command": "python " + " ".join(sys.argv),
        "CPU-s": round(time.process_time() - began),
        "people": {"train": len(known), "test": len(held_out)},
        "recipes": {name: recipe_digest(name) for name in skeleton.parts},
        "autoencoder": {"latents": list(args.latents), "residual mm": round(float(report.residual.mean()), 2)},
        "pairs without a common name": len(nameless(pairs)),
        "summary": summaries,
        "pairs [median mm, mean mm, share of joints]": pairs,
        "joints, mean mm, package": {
            source: {
                target: [round(float(mm), 1) for mm in by_way["package"][0][list(rows)]]
                for target, rows in skeleton.parts.items()
            }
            for source, by_way in table.items()
        },
    }
    write_whole(args.out, json.dumps(numbers) + "\n")
    if args.picture:
        draw_package(pairs, args.picture)
    progress("done")


if __name__ == "__main__":
    main()
