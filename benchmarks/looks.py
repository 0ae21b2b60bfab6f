"""What looking several times at a person is worth: the error of a trained model on test pictures for one look, with the
mirror image, and with three, five or nine looks.

    python benchmarks/looks.py [--model artifacts/models/consistency] [--test artifacts/people/test_indoor]
        [--pictures 150] [--json]

All see the same pictures and boxes through PoseEstimator. `MPJPE` and `PA-MPJPE` (mm) are the mean over formats, as the
embedded protocol says; `than one look` is the mean difference of a picture's mean-centred error to that of one look,
with its standard error over the pictures. `authors' spread` are five looks as wide as the authors' models get."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from acae_nb.evaluation.metrics import joint_distances
from acae_nb.evaluation.protocols import embedded_protocol, evaluate
from acae_nb.examples.tables import ExampleTable
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.person_crops import spread_looks, trained_looks

COUNTS = {"one look": 1, "with mirror": 2, "three looks": 3, "five looks": 5, "nine looks": 9}
WIDE = "authors' spread"


def centred_errors(predicted, truth, skeleton):
    "Mean over formats of each picture's distances about the format's mean joint [n], mm."
    parts = [
        joint_distances(*(p[:, list(rows)] - p[:, list(rows)].mean(1, keepdims=True) for p in (predicted, truth))).mean(
            1
        )
        for rows in skeleton.parts.values()
    ]
    return np.nanmean(parts, 0)


def compare_looks(model, test, pictures=150, names=(*COUNTS, WIDE)):
    """Table of errors, a row a way of looking, the first the one to compare with; `pictures` rows spread over the test
    table."""
    table = ExampleTable.open(test)
    rows = np.unique(np.linspace(0, len(table) - 1, min(pictures, len(table))).round().astype(int))
    params = json.loads((Path(model) / "model.json").read_text())["params"]
    ways = {name: spread_looks(5) if name == WIDE else trained_looks(params, COUNTS[name]) for name in names}
    found, one = {}, None
    for name, looks in ways.items():
        estimator = PoseEstimator.load(model, looks=looks)
        truth = table.camera_joints3d(estimator.skeleton)[rows]
        people = estimator.stream((table.image(int(row)), table[int(row)].box, table.camera(int(row))) for row in rows)
        predicted = np.concatenate([poses.joints3d for poses in people])
        result, errors = (
            evaluate(
                predicted,
                truth,
                estimator.skeleton,
                embedded_protocol(estimator.skeleton),
                groups={"collection": [table.dataset] * len(rows)},
            ),
            centred_errors(predicted, truth, estimator.skeleton),
        )
        one = errors if one is None else one
        gain = errors - one
        found[name] = {
            "MPJPE": result.overall["MPJPE"],
            "PA-MPJPE": result.overall["PA-MPJPE"],
            "mean-centred": errors.mean(),
            "than one look": gain.mean(),
            "+-": gain.std(ddof=1) / len(gain) ** 0.5,
        }
    return pd.DataFrame(found).T


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("artifacts/models/consistency"))
    parser.add_argument("--test", type=Path, default=Path("artifacts/people/test_indoor"))
    parser.add_argument("--pictures", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = compare_looks(arguments.model, arguments.test, arguments.pictures)
    print(
        json.dumps({name: row.round(3).to_dict() for name, row in table.iterrows()})
        if arguments.json
        else f"{arguments.model}, {arguments.pictures} pictures of {arguments.test}, mm\n{table.round(2)}"
    )


if __name__ == "__main__":
    main()
