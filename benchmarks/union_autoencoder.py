"""The autoencoder on the 555 joints of the paper's union, with its 48 latent points, and what its weights say.

    python benchmarks/union_autoencoder.py [--rig .cache/rig.safetensors] [--out results/union_autoencoder.json]
                                           [--picture results/union_autoencoder.jpg]

Bodies of all ages and builds are posed before a camera and read in the 19 name spaces of the union: exact joints, no
picture, no prediction (the paper fits to what a network predicts). The fit is `fit_acae` as it comes: 40 latents on the
sides and 8 in the middle, projected loss, weight of sparsity 0.6; beside it one without sparsity. Other bodies in test
clips and kinds of poses say how far reconstructed joints are off, and how far apart joints are that the decoder makes
of the same latents (rows within --same of each other in the sum of absolute differences).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from conversion import posed_people
from matplotlib.colors import SymLogNorm
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import vstack
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from acae_nb.autoencoder.fitting import fit_acae
from acae_nb.basics.files import write_whole
from acae_nb.people.body import Rig
from acae_nb.people.format_table import union_joints
from acae_nb.skeletons.joints import load_skeleton

SIDES = ("left", "center", "right")
NEAR_ZERO = 0.01
REGIONS = {  # of the body, and how its bones' names begin
    "head": ("head", "neck", "eye"),
    "trunk": ("root", "pelvis", "spine", "clavicle"),
    "arm": ("shoulder", "upperarm", "lowerarm"),
    "hand": ("wrist", "metacarpal", "finger"),
    "leg": ("upperleg", "lowerleg"),
    "foot": ("foot", "toe"),
}


def before_a_camera(people, rng):
    """People [N, J, 3] (mm, z up) turned and put 2.5 to 8 m before a level camera: x right, y down, z forward."""
    n = len(people)
    turn = Rotation.from_euler("zx", np.stack([rng.uniform(0, 360, n), rng.uniform(-105, -75, n)], 1), degrees=True)
    depth = rng.uniform(2500, 8000, n)
    place = np.stack([*(rng.uniform(-0.25, 0.25, (2, n)) * depth), depth], 1)
    middle = people.mean(1, keepdims=True)
    turned = np.einsum("nij,npj->npi", turn.as_matrix(), people - middle)
    return (turned + place[:, None]).astype(np.float32)


def joint_points(rig, pairs):
    """Sparse weights [J, V] of the body's vertices for each (format, joint)."""
    index = {format: rig.skeleton(format).joints.index for format, _ in pairs}
    return vstack([rig.joint_regressors[format].tocsr()[[index[format](joint)]] for format, joint in pairs]).tocsr()


def regions_of(rig, points):
    """Region of the body and order along it of joints [J, V]: by the bone that moves each most."""
    bones = np.abs(points @ rig.skinning.tocsr()).toarray().argmax(1)
    starts = [(region, start) for region, names in REGIONS.items() for start in names]
    order = [next(k for k, (_, start) in enumerate(starts) if rig.bones[bone].startswith(start)) for bone in bones]
    return [starts[k][0] for k in order], np.array(order) * len(rig.bones) + bones


def mirrored_latents(names):
    """Index of every latent's mirror image, from names such as `left 3 (lknee)`."""
    index = {" ".join(name.split()[:2]): k for k, name in enumerate(names)}
    other = {"left": "right", "right": "left", "center": "center"}
    return np.array([index[f"{other[name.split()[0]]} {name.split()[1]}"] for name in names])


def sides_of_latents(encoder, mirror, joint_sides):
    """'left', 'right' or 'center' of every latent: the side of most of its weight (the fit tells the two of a pair
    apart, but not which of them is the person's left)."""
    left, right = (np.abs(encoder[:, joint_sides == side]).sum(1) for side in ("left", "right"))
    return np.where(mirror == np.arange(len(mirror)), "center", np.where(left > right, "left", "right"))


def weight_numbers(weights):
    """How sparse rows that sum to one are."""
    size = np.abs(weights)
    return {
        f"share below {NEAR_ZERO}": round(float((size < NEAR_ZERO).mean()), 4),
        "share exactly zero": round(float((weights == 0).mean()), 4),
        f"weights of {NEAR_ZERO} or more in a row, median": float(np.median((size >= NEAR_ZERO).sum(1))),
        "sum of absolute weights of a row, mean (1: none negative)": round(float(size.sum(1).mean()), 3),
    }


def side_shares(weights, row_sides, column_sides):
    """Share of the absolute weight of rows of each side that lies on columns of each side."""
    size = np.abs(weights)
    return {
        row: {
            column: round(float(size[np.ix_(row_sides == row, column_sides == column)].sum() / total), 4)
            for column in SIDES
        }
        for row in SIDES
        for total in [size[row_sides == row].sum()]
    }


def own_sides(encoder, latent_sides, joint_sides):
    """Of all sided latents, least and median share of the sided joints' weight that lies on the latent's own side."""
    left, right = (np.abs(encoder[:, joint_sides == side]).sum(1) for side in ("left", "right"))
    shares = (np.maximum(left, right) / (left + right))[latent_sides != "center"]
    return {"least": round(float(shares.min()), 3), "median": round(float(np.median(shares)), 3)}


def mirrored_apart(acae, joints, latents):
    """Largest difference of a weight from that of the mirrored joint and latent."""
    decoder, encoder = acae.decoder.numpy(), acae.encoder.numpy()
    there = np.abs(decoder - decoder[joints][:, latents]).max()
    return float(max(there, np.abs(encoder - encoder[latents][:, joints]).max()))


def mean_distances(people):
    """Mean distance [J, J] in mm of every two joints."""
    total = 0.0
    for pose in torch.as_tensor(people):
        total = total + torch.cdist(pose, pose)
    return (total / len(people)).numpy()


def groups_of_one(decoder, same):
    """Number of the group of every joint; the decoder's rows in a group are all within `same` of each other."""
    return fcluster(linkage(pdist(decoder, "cityblock"), "complete"), same, "distance")


def group_table(group, joints, spaces, apart):
    """Groups that hold joints of several name spaces, largest first: the joints, and how far apart they are."""
    table = []
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        if len({spaces[row] for row in rows}) > 1:
            between = apart[np.ix_(rows, rows)][np.triu_indices(len(rows), 1)]
            distances = {"mean apart mm": round(float(between.mean()), 1), "most mm": round(float(between.max()), 1)}
            table.append({"joints": [joints[row] for row in rows], **distances})
    return sorted(table, key=lambda entry: -len(entry["joints"]))


def name_numbers(group, names, spaces, apart):
    """What a shared name is worth: pairs of joints of two name spaces, of the same name or not, in a group or not."""
    first, second = np.triu_indices(len(names), 1)
    across = spaces[first] != spaces[second]
    first, second = first[across], second[across]
    named, grouped, distance = names[first] == names[second], group[first] == group[second], apart[first, second]
    numbers = {}
    for title, chosen in {
        "same name, one group": named & grouped,
        "same name, different groups": named & ~grouped,
        "other names, one group": ~named & grouped,
    }.items():
        quartiles = np.percentile(distance[chosen], (5, 50, 95)) if chosen.any() else ()
        numbers[title] = {"pairs": int(chosen.sum()), "apart mm, 5 50 95 %": [round(float(q), 1) for q in quartiles]}
    worst = sorted(np.flatnonzero(named), key=lambda pair: -distance[pair])[:12]
    numbers["same name, furthest apart"] = [
        [f"{names[first[p]]} of {spaces[first[p]]}", f"of {spaces[second[p]]}", round(float(distance[p]), 1)]
        for p in worst
    ]
    return numbers


def along_the_body(place, sides):
    """Order of points by side (left, middle, right), from head to foot in each; and where a new side begins."""
    order = sorted(range(len(place)), key=lambda k: (SIDES.index(sides[k]), place[k]))
    counts = np.cumsum([int((sides == side).sum()) for side in SIDES])
    return np.array(order), counts[:-1]


def draw_weights(axis, weights, lines, title, ticks):
    image = axis.imshow(
        weights, aspect="auto", cmap="RdBu_r", norm=SymLogNorm(0.02, vmin=-1, vmax=1), interpolation="nearest"
    )
    for at in lines[0]:
        axis.axhline(at - 0.5, color="k", linewidth=0.8)
    for at in lines[1]:
        axis.axvline(at - 0.5, color="k", linewidth=0.8)
    axis.set_xticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=8, rotation=45, ha="right")
    axis.set_yticks([])
    axis.set_ylabel("latents: right, middle, left", fontsize=9)
    axis.set_title(title)
    return image


def region_ticks(regions, order, borders):
    """Where the name of a region stands: in the middle of its joints on each side."""
    ticks = []
    for side, columns in zip(SIDES, np.split(np.arange(len(order)), borders)):
        for region in REGIONS:
            at = [column for column in columns if regions[order[column]] == region]
            if len(at) > 5:
                ticks.append((np.mean(at), region if side == "center" else f"{side} {region}"))
    return ticks


def draw_body(axis, joints, latents, joint_sides, latent_sides):
    """The body at rest from the front: joints [J, 3] as dots, latents [L, 3] as circles."""
    colours = {"left": "tab:blue", "center": "k", "right": "tab:red"}
    axis.scatter(joints[:, 0], joints[:, 2], s=5, c=[colours[side] for side in joint_sides], alpha=0.5)
    axis.scatter(
        latents[:, 0], latents[:, 2], s=90, facecolors="none", edgecolors=[colours[side] for side in latent_sides]
    )
    axis.set_aspect("equal")
    axis.set_axis_off()
    axis.set_title("joints (dots) and latents (circles) from the front")


def draw(path, acae, joint_place, regions, latent_place, joint_sides, latent_sides, errors, rest):
    """Weights as pictures, their histogram, error by name space, and where the latents lie on the body at rest."""
    joint_order, joint_borders = along_the_body(joint_place, joint_sides)
    latent_order, latent_borders = along_the_body(latent_place, latent_sides)
    encoder, decoder = acae.encoder.numpy(), acae.decoder.numpy()
    figure = plt.figure(figsize=(17, 15), dpi=80, layout="constrained")
    parts = figure.add_gridspec(3, 3, height_ratios=(1, 1, 1))
    ticks = region_ticks(regions, joint_order, joint_borders)
    lines = (latent_borders, joint_borders)
    for row, (weights, title) in enumerate(
        ((encoder, "encoder: what a latent is made of"), (decoder.T, "decoder: what a joint is made of (columns)"))
    ):
        axis = figure.add_subplot(parts[row, :])
        image = draw_weights(axis, weights[latent_order][:, joint_order], lines, title, ticks)
        figure.colorbar(image, ax=axis, ticks=[-1, -0.1, 0, 0.1, 1], pad=0.01)
    axis = figure.add_subplot(parts[2, 0])
    bins = np.linspace(-0.6, 1.1, 86)
    for name, weights in (("encoder", encoder), ("decoder", decoder)):
        axis.hist(weights.ravel().clip(-0.6, 1.1), bins, histtype="step", label=name)
    axis.set_yscale("log")
    axis.set_xlabel("weight")
    axis.set_ylabel("number of weights")
    axis.legend()
    axis = figure.add_subplot(parts[2, 1])
    axis.barh([*errors], [*errors.values()])
    axis.invert_yaxis()
    axis.set_xlabel("mean error of reconstructed joints of held-out people, mm")
    axis = figure.add_subplot(parts[2, 2])
    draw_body(axis, rest, encoder @ rest, joint_sides, latent_sides)
    figure.savefig(path, pil_kwargs={"quality": 85})
    plt.close(figure)


def distances(acae, people):
    """Distance [N, J] in mm of reconstructed from true joints."""
    points = torch.as_tensor(people).double()
    return (acae(points) - points).norm(dim=-1).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rig", type=Path, default=Path(".cache/rig.safetensors"), help="written by export_rig")
    parser.add_argument("--motions", type=Path, default=Path("data/motions"))
    parser.add_argument("--out", type=Path, help="the numbers, JSON")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--people", type=int, default=4000, help="that the fit is made of")
    parser.add_argument("--held-out", type=int, default=600)
    parser.add_argument("--latents", type=int, nargs=2, default=(40, 8), help="sided and central")
    parser.add_argument("--same", type=float, default=0.1, help="how near two rows of the decoder are called one")
    parser.add_argument("--seed", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()

    rig, skeleton, pairs = Rig.load(args.rig), load_skeleton("posepile_huge8_merged"), union_joints()
    everything = rig.skeleton(rig.formats)
    columns = [everything.index(joint, format) for format, joint in pairs.values()]
    rng = np.random.default_rng(args.seed)
    known, held_out = (
        before_a_camera(posed_people(rig, args.motions, split, count, args.seed)[:, columns], rng)
        for split, count in (("train", args.people), ("test", args.held_out))
    )
    print(f"{time.process_time() - began:.0f} CPU-s: {len(known)} people of {len(skeleton)} joints", flush=True)

    acae, report = fit_acae(known, skeleton, *args.latents, joints=skeleton.joints, seed=args.seed)
    dense, dense_report = fit_acae(
        known, skeleton, *args.latents, lambda_sparse=0, joints=skeleton.joints, seed=args.seed
    )
    print(f"{report.phases}\n{dense_report.phases}", flush=True)

    names, spaces = np.array([(*name.split("_"), "smpl")[:2] for name in skeleton.joints]).T
    joint_sides = np.array([{"l": "left", "r": "right", "c": "center"}[side] for side in skeleton.sides])
    encoder, decoder = acae.encoder.numpy(), acae.decoder.numpy()
    mirror = mirrored_latents(acae.latents)
    latent_sides = sides_of_latents(encoder, mirror, joint_sides)
    off = distances(acae, held_out).mean(0)
    by_space = {space: round(float(off[spaces == space].mean()), 2) for space in dict.fromkeys(spaces)}
    apart = mean_distances(held_out[:: max(1, len(held_out) // 200)])
    group = groups_of_one(decoder, args.same)
    table = group_table(group, skeleton.joints, spaces, apart)
    numbers = {
        "command": "python " + " ".join(sys.argv),
        "fit": {
            "people": len(known),
            "held-out people": len(held_out),
            "joints": len(skeleton),
            "latents": dict(zip(("sided", "central"), args.latents)),
            "CPU-s": round(report.seconds, 1),
            "total": round(report.total, 6),
            "unused latents": report.unused,
        },
        "error mm": {
            "people of the fit": round(float(distances(acae, known[:500]).mean()), 2),
            "held-out people": round(float(off.mean()), 2),
            "held-out people, without sparsity": round(float(distances(dense, held_out).mean()), 2),
            "by name space": by_space,
            "worst joints": {skeleton.joints[j]: round(float(off[j]), 1) for j in np.argsort(-off)[:10]},
        },
        "sparse": {
            "encoder": weight_numbers(encoder),
            "decoder": weight_numbers(decoder),
            "encoder without sparsity": weight_numbers(dense.encoder.numpy()),
            "decoder without sparsity": weight_numbers(dense.decoder.numpy()),
        },
        "sided": {
            "latents' weight by joints' side": side_shares(encoder, latent_sides, joint_sides),
            "joints' weight by latents' side": side_shares(decoder, joint_sides, latent_sides),
            "sided latents, share of the weight of left and right joints that is on their own side": own_sides(
                encoder, latent_sides, joint_sides
            ),
            "largest difference of mirrored weights": mirrored_apart(acae, np.array(skeleton.mirror), mirror),
        },
        "one point": {
            "rows within": args.same,
            "groups of several name spaces": len(table),
            "joints in them": sum(len(entry["joints"]) for entry in table),
            "names": name_numbers(group, names, spaces, apart),
            "groups": table,
        },
        "latents": {name: str(side) for name, side in zip(acae.latents, latent_sides)},
    }
    numbers["CPU-s"] = round(time.process_time() - began)
    if args.out:
        write_whole(args.out, json.dumps(numbers, indent=1) + "\n")
    if args.picture:
        points = joint_points(rig, list(pairs.values()))
        regions, place = regions_of(rig, points)
        strongest = place[np.abs(encoder).argmax(1)]
        errors = dict(sorted(by_space.items(), key=lambda item: -item[1]))
        rest = points @ rig.template
        draw(args.picture, acae, place, regions, strongest, joint_sides, latent_sides, errors, rest)
    shown = {key: value for key, value in numbers.items() if key not in ("latents", "one point")}
    print(json.dumps({**shown, "one point": {**numbers["one point"], "groups": table[:10]}}, indent=1))


if __name__ == "__main__":
    main()
