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


def nearest_joint(known, joint, candidates):
    "Which of some joints lies nearest to a joint, on average over `known` poses."
    distances = [np.linalg.norm(known[:, joint] - known[:, other], axis=1).mean() for other in candidates]
    return candidates[int(np.argmin(distances))]


def nearest_copy(known, poses, formats):
    """Mean error when every joint of a format (columns) is replaced by the joint of another (rows) that was nearest on
    `known` poses."""
    table = {}
    for given, given_joints in formats.items():
        copied_from = {
            joint: nearest_joint(known, joint, given_joints) for joints in formats.values() for joint in joints
        }
        table[given] = {
            name: np.mean([np.linalg.norm(poses[:, j] - poses[:, copied_from[j]], axis=1).mean() for j in joints])
            for name, joints in formats.items()
        }
    return pd.DataFrame(table).T.rename_axis(index="given", columns="completed")


def off_diagonal(table):
    return float(table.to_numpy()[~np.eye(len(table), dtype=bool)].mean())


def forecast(bridge, poses, given_joints, most_mm):
    "Of one given format: forecast and true error of the other joints, and of those that would be refused."
    part = np.full_like(poses, np.nan)
    part[:, given_joints] = poses[:, given_joints]
    completed, table = bridge.complete(part, most_mm=np.inf)
    others = [j for j in range(poses.shape[1]) if j not in set(given_joints)]
    true_mm = np.linalg.norm(completed - poses, axis=2).mean(0)[others]
    forecast_mm = table["expected mm"].to_numpy()[others]
    refused = forecast_mm > most_mm
    worst = [table.index[others[i]] for i in np.argsort(-forecast_mm)[:3]]
    return {
        "forecast mm": forecast_mm.mean(),
        "found mm": true_mm.mean(),
        "rank correlation": np.corrcoef(rankdata(forecast_mm), rankdata(true_mm))[0, 1],
        "refused": int(refused.sum()),
        "of": len(others),
        "found mm, kept": true_mm[~refused].mean() if (~refused).any() else np.nan,
        "found mm, refused": true_mm[refused].mean() if refused.any() else np.nan,
        "least determined": ", ".join(worst),
    }


def forecasts(bridge, poses, formats, most_mm=60.0):
    "`forecast` of every format, one row each."
    rows = {given: forecast(bridge, poses, joints, most_mm) for given, joints in formats.items()}
    return pd.DataFrame([{"given": given} | row for given, row in rows.items()]).set_index("given")


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


def confidences(artifacts, model, tests, people, acae, bridge):
    """(numbers, curves) of a model's predictions by four measures of doubt: {measure: row of `confidence`},
    {measure: its calibration}. `tests`: {name: number of people}."""
    with np.load(artifacts / "predictions" / model / "synthetic.npz", allow_pickle=False) as file:
        predicted = file["predicted"]
    error = np.linalg.norm(centred(predicted) - centred(people), axis=2)
    group = np.repeat(list(tests), list(tests.values()))
    left_out = bridge.left_out(predicted)
    doubts = {
        "reconstructed": disagreement(acae, predicted),
        "left out": left_out,
        "expected error": expected_elsewhere(left_out, error, group),
        "mean error of the joint": expected_elsewhere(np.zeros_like(left_out), error, group),
    }
    numbers, curves = {}, {}
    for name, doubt in doubts.items():
        numbers[f"{model}, {name}"], bins = confidence(doubt, error)
        curves[f"{model}, {name}"] = bins.round(2).to_dict("list")
    return numbers, curves


def fitted_like(acae, poses, skeleton):
    "(autoencoder, report of its fit) on other poses, with as many latent points of each kind."
    center = sum(name.startswith("center") for name in acae.latents)
    return fit_acae(poses, skeleton, len(acae.latents) - center, center)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tests", nargs="+", default=["test_indoor", "test_outdoor"])
    parser.add_argument("--models", nargs="+", default=["separate", "consistency", "hybrid"])
    return parser.parse_args()


def main():
    args = arguments()
    torch.set_num_threads(1)
    began = time.process_time()
    skeleton = Skeleton.from_dict(json.loads((args.artifacts / "acae" / "skeleton.json").read_text("utf-8")))
    formats = {name: list(part) for name, part in skeleton.parts.items()}
    label_files = sorted((args.artifacts / "pseudo_labels").rglob("poses.npy"))
    labels = np.concatenate([np.load(path, allow_pickle=False) for path in label_files])
    test_poses = dict(zip(args.tests, truth(args.artifacts, args.tests, skeleton)))
    (unlabelled,) = truth(args.artifacts, ["unlabelled"], skeleton)
    people = np.concatenate([*test_poses.values()])
    acae = load_acae(args.artifacts / "acae" / "acae.safetensors")
    acae_of_truth, report = fitted_like(acae, unlabelled, skeleton)
    bridges = {"pseudo-labels": Bridge.of(acae, labels), "true joints": Bridge.of(acae_of_truth, unlabelled)}
    print(
        f"{len(people)} test people with {len(skeleton)} joints in {len(formats)} formats; autoencoders of "
        f"{len(labels)} pseudo-labels and of {len(unlabelled)} true poses\n"
    )

    completions = {name: format_to_format(bridge, people, formats) for name, bridge in bridges.items()}
    completions["nearest joint copied"] = nearest_copy(unlabelled, people, formats)
    for name, table in completions.items():
        print(f"completion, {name}: mean {off_diagonal(table):.1f} mm\n{table.round(0).astype(int).to_string()}\n")

    forecast_tables = {name: forecasts(bridge, people, formats) for name, bridge in bridges.items()}
    for name, table in forecast_tables.items():
        print(f"forecast, {name}\n{table.round(2).to_string()}\n")

    confidence_rows, curves = {}, {}
    tests = {name: len(poses) for name, poses in test_poses.items()}
    for model in args.models:
        rows, bins = confidences(args.artifacts, model, tests, people, acae, bridges["pseudo-labels"])
        confidence_rows |= rows
        curves |= bins
    table = pd.DataFrame(confidence_rows).T.round(3)
    print(f"confidence: errors relative to the middle of the pose\n{table.to_string()}")

    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        numbers = {
            "command": "python " + " ".join(sys.argv),
            "machine": f"{machine()}, 1 thread, {time.process_time() - began:.0f} CPU-s",
            "people": len(people),
            "joints": len(skeleton),
            "pseudo-labels": len(labels),
            "true poses": len(unlabelled),
            "residual of the fit to true poses mm": round(float(report.residual.mean()), 2),
            "completion mm": {name: table.round(1).to_dict("index") for name, table in completions.items()},
            "forecast": {name: table.round(3).to_dict("index") for name, table in forecast_tables.items()},
            "confidence": {
                name: {key: None if np.isnan(value) else round(value, 3) for key, value in row.items()}
                for name, row in confidence_rows.items()
            },
            "calibration": curves,
        }
        args.out.write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
