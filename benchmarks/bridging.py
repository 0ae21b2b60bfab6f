"""How well formats are bridged, and whether disagreement ranks true errors, on the embedded test collections.

    python benchmarks/bridging.py [--artifacts artifacts] [--out results/bridging.json]

Reads what `make repro` leaves: the autoencoder, the pseudo-labels it was fitted on, the models' predictions on the test
collections, and the truth of every joint there (other people, other clips). Three questions:

1. Completion: given the true joints of one format, how far off are those of each other format? Through the pipeline's
   autoencoder (fitted on pseudo-labels), through one fitted on the true joints of the `unlabelled` collection, and by
   copying the nearest joint.
2. Forecast and refusal: is the error about as large as was said beforehand, and are the joints that are refused really
   the bad ones?
3. Confidence: does the distance between a predicted joint and what the other joints say about it rank the true errors?
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from acae_nb.autoencoder.acae import load_acae
from acae_nb.autoencoder.bridging import Bridge, ExpectedError, calibration, disagreement, format_to_format
from acae_nb.autoencoder.fitting import fit_acae
from acae_nb.examples.tables import ExampleTable
from acae_nb.skeletons.joints import Skeleton


def truth(artifacts, collections, skeleton):
    """True joints [N, J, 3] of each of some collections that are labelled in all formats, mm, camera frame."""
    return [
        ExampleTable.open(artifacts / "people" / name).camera_joints3d(skeleton).astype(np.float32)
        for name in collections
    ]


def nearest_copy(known, poses, formats):
    """Mean error when every joint of a format (columns) is replaced by the joint of another (rows) that was nearest on
    `known` poses."""
    table = {}
    for given, mine in formats.items():
        near = {
            j: mine[int(np.argmin([np.linalg.norm(known[:, j] - known[:, k], axis=1).mean() for k in mine]))]
            for js in formats.values()
            for j in js
        }
        table[given] = {
            name: np.mean([np.linalg.norm(poses[:, j] - poses[:, near[j]], axis=1).mean() for j in theirs])
            for name, theirs in formats.items()
        }
    return pd.DataFrame(table).T.rename_axis(index="given", columns="completed")


def off_diagonal(table):
    return float(table.to_numpy()[~np.eye(len(table), dtype=bool)].mean())


def forecasts(bridge, poses, formats, most_mm=60.0):
    """For every given format: forecast and found error of the other joints, and of those that would be refused."""
    rows = []
    for given, mine in formats.items():
        part = np.full_like(poses, np.nan)
        part[:, mine] = poses[:, mine]
        completed, table = bridge.complete(part, most_mm=np.inf)
        rest = [j for j in range(poses.shape[1]) if j not in set(mine)]
        found, said = np.linalg.norm(completed - poses, axis=2).mean(0)[rest], table["expected mm"].to_numpy()[rest]
        refused = said > most_mm
        worst = [table.index[rest[i]] for i in np.argsort(-said)[:3]]
        rows.append(
            {
                "given": given,
                "forecast mm": said.mean(),
                "found mm": found.mean(),
                "rank correlation": np.corrcoef(rankdata(said), rankdata(found))[0, 1],
                "refused": int(refused.sum()),
                "of": len(rest),
                "found mm, kept": found[~refused].mean() if (~refused).any() else np.nan,
                "found mm, refused": found[refused].mean() if refused.any() else np.nan,
                "least determined": ", ".join(worst),
            }
        )
    return pd.DataFrame(rows).set_index("given")


def within(distance, error, axis):
    """Mean rank correlation along one axis: 0 compares pictures for each joint, 1 joints for each picture."""
    d, e = (rankdata(x, axis=axis) for x in (distance, error))
    d, e = (x - x.mean(axis, keepdims=True) for x in (d, e))
    return float(((d * e).sum(axis) / np.sqrt((d**2).sum(axis) * (e**2).sum(axis)).clip(1e-9)).mean())


def confidence(distance, error):
    """How well a distance [N, J] ranks the errors [N, J]: all together, pictures for each joint, joints for each
    picture; error of the surest half and of the least sure tenth."""
    bins, rank = calibration(distance, error)
    by_bin = bins["error mm"].to_numpy()
    return {
        "rank correlation": rank,
        "for each joint": within(distance, error, 0),
        "for each picture": within(distance, error, 1),
        "error mm": float(error.mean()),
        "surest half": float(by_bin[:5].mean()),
        "least sure tenth": float(by_bin[-1]),
    }, bins


def expected_elsewhere(distance, error, group):
    """Expected error [N, J] of every pose, learned on the poses of the other groups."""
    out = np.empty_like(error)
    for name in np.unique(group):
        out[group == name] = ExpectedError.of(distance[group != name], error[group != name])(distance[group == name])
    return out


def machine():
    """Name of the processor and number of cores."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def centred(poses):
    return poses - poses.mean(1, keepdims=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tests", nargs="+", default=["test_indoor", "test_outdoor"])
    parser.add_argument("--models", nargs="+", default=["separate", "consistency", "hybrid"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    skeleton = Skeleton.from_dict(json.loads((args.artifacts / "acae" / "skeleton.json").read_text()))
    formats = {name: list(part) for name, part in skeleton.parts.items()}
    labels = np.concatenate(
        [np.load(path, allow_pickle=False) for path in sorted((args.artifacts / "pseudo_labels").rglob("poses.npy"))]
    )
    tests, (other,) = truth(args.artifacts, args.tests, skeleton), truth(args.artifacts, ["unlabelled"], skeleton)
    people, sizes = np.concatenate(tests), [len(t) for t in tests]
    acae = load_acae(args.artifacts / "acae" / "acae.safetensors")
    clean, report = fit_acae(
        other,
        skeleton,
        len([n for n in acae.latents if not n.startswith("center")]),
        len([n for n in acae.latents if n.startswith("center")]),
    )
    bridges = {"pseudo-labels": Bridge.of(acae, labels), "true joints": Bridge.of(clean, other)}
    print(
        f"{len(people)} test people with {len(skeleton)} joints in {len(formats)} formats; autoencoders of "
        f"{len(labels)} pseudo-labels and of {len(other)} true poses\n"
    )

    matrices = {name: format_to_format(bridge, people, formats) for name, bridge in bridges.items()}
    matrices["nearest joint copied"] = nearest_copy(other, people, formats)
    for name, table in matrices.items():
        print(f"completion, {name}: mean {off_diagonal(table):.1f} mm\n{table.round(0).astype(int).to_string()}\n")
    said = {name: forecasts(bridge, people, formats) for name, bridge in bridges.items()}
    for name, table in said.items():
        print(f"forecast, {name}\n{table.round(2).to_string()}\n")

    sure, curves = {}, {}
    for model in args.models:
        with np.load(args.artifacts / "predictions" / model / "synthetic.npz", allow_pickle=False) as file:
            predicted = file["predicted"]
        error = np.linalg.norm(centred(predicted) - centred(people), axis=2)
        apart, group = bridges["pseudo-labels"].left_out(predicted), np.repeat(args.tests, sizes)
        for kind, distance in (
            ("reconstructed", disagreement(acae, predicted)),
            ("left out", apart),
            ("expected error", expected_elsewhere(apart, error, group)),
            ("mean error of the joint", expected_elsewhere(np.zeros_like(apart), error, group)),
        ):
            sure[f"{model}, {kind}"], bins = confidence(distance, error)
            curves[f"{model}, {kind}"] = bins.round(2).to_dict("list")
    print("confidence: errors relative to the middle of the pose\n" + pd.DataFrame(sure).T.round(3).to_string())

    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        numbers = {
            "command": "python " + " ".join(sys.argv),
            "machine": f"{machine()}, 1 thread, {time.process_time() - began:.0f} CPU-s",
            "people": len(people),
            "joints": len(skeleton),
            "pseudo-labels": len(labels),
            "true poses": len(other),
            "residual of the fit to true poses mm": round(float(report.residual.mean()), 2),
            "completion mm": {name: table.round(1).to_dict("index") for name, table in matrices.items()},
            "forecast": {name: table.round(3).to_dict("index") for name, table in said.items()},
            "confidence": {name: {k: round(v, 3) for k, v in row.items()} for name, row in sure.items()},
            "calibration": curves,
        }
        args.out.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
