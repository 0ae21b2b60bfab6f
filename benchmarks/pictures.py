"""How much more rendered pictures are worth on real ones: the same training on an eighth, a quarter, half and all
pictures of every collection (of the profile `published`: 5, 10, 20 and 40 thousand), each measured on the recording and
on the rendered tests.

    make profile NAME=dozens && make profile NAME=published
    python -m dvc repro people prepare recording
    python benchmarks/pictures.py [--steps 4000] [--seeds 1 2] [--figure results/pictures.png]

MoveNet Thunder's encoder stays as it is, and all behind it learns, as in the default pipeline (`train` of params.yaml
says how). The head predicts the 48 latent points of the packaged model's autoencoder, which decodes them (paper,
section 3.3: direct latent prediction): so few in place of 649 outputs make a step cheaper. Every training has as many
steps, so those with fewer pictures meet each of them more often. Two seeds can run side by side (`taskset -c 0 ...
--seeds 1`, `taskset -c 1 ... --seeds 2`, then both at once for the figure). Errors are those of benchmarks/peers.py (12
limbs, known camera, one look): MPJPE and PA-MPJPE, mm. Beside them, likewise measured: the packaged model, whose
encoder's end learned too and which saw 92,660 pictures, and MediaPipe full."""

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator, ScalarFormatter
from peers import LANDMARKS, MEASURES, MediaPipe, Ours, compare, machine, scenes

from acae_nb.autoencoder.acae import load_acae
from acae_nb.examples.mixing import BatchPlan, loader
from acae_nb.examples.picture_folders import augmentation_from
from acae_nb.inference.person_crops import ONE_LOOK
from acae_nb.models.pose_model import DecodedPoints, PoseModel, load_pose_model, save_pose_model
from acae_nb.training.callbacks import FreezeBatchNorm, Progress
from acae_nb.training.features import LearningModel, MixedLooks, TrainingLooks, keep_looks
from acae_nb.training.loop import first_training_groups, pose_prediction, train
from acae_nb.training.losses import latent_loss
from acae_nb.training.parameters import FirstTraining, parameters_from, values_of_blocks
from acae_nb.training.recipes import (
    Run,
    initialise,
    make_backbone,
    mixed_crops,
    on_device,
    open_training_sets,
)
from acae_nb.training.schedules import from_step
from acae_nb.workflow.parameters import block_of, read_yaml

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
PACKAGED = Path("acae_nb/data/model")
PACKAGED_PICTURES = 92_660  # 69,300 when results/pictures.json was made
ENCODER_STRIDE = 32  # px a cell of its end
PARTS = {
    "real recording": "recording",
    "rendered, indoors": "people/test_indoor",
    "rendered, outdoors": "people/test_outdoor",
}


@dataclass(frozen=True)
class DrawnRows(BatchPlan):
    "A plan over some of the rows of each table."

    rows: list  # of each table, an array of those that may be drawn

    @cached_property
    def of_drawn(self):
        return BatchPlan([len(rows) for rows in self.rows], self.quotas, self.seed)

    def draw(self, step):
        datasets, places = self.of_drawn.draw(step)
        return datasets, np.array([self.rows[dataset][place] for dataset, place in zip(datasets, places)])


def all_looks(sets, p):
    "The look of every row of every table behind the whole encoder."
    looks = TrainingLooks(p.size, augmentation_from(p.augmentation), p.features.seed)
    return keep_looks(make_backbone(**p.backbone), sets.tables, looks, p.features.looks, p.features)


def latent_terms(sets, stride, p):
    "`loss(output, batch, step)` of decoded joints."
    weight, pooling = from_step(p.absolute_from, 0.1), on_device(sets.pooling)
    return lambda output, batch, step: latent_loss(
        output, batch, pooling, stride, absolute_weight=weight(step), box_mm=p.box_mm
    )


def trained(run, kept, share):
    "Train on a share of the rows of each table; the model goes to the run's checkpoints. Gives the number of pictures."
    sets, p, folder = run.sets, run.parameters, run.checkpoints
    initialise(p)
    layout = DecodedPoints(load_acae(PACKAGED / "acae.safetensors").decoder)
    model = PoseModel(make_backbone(**p.backbone), layout, p.depth_bins, p.box_mm)
    generator = np.random.default_rng(p.seed)
    rows = [np.sort(generator.permutation(len(t))[: max(1, round(share * len(t)))]) for t in sets.tables]
    mixed = mixed_crops(sets, p.size, augmentation_from(p.augmentation), p.seed)
    mixed.plan = DrawnRows(mixed.plan.lengths, mixed.plan.quotas, p.seed, rows)
    looks = MixedLooks(mixed, kept)
    train(
        LearningModel(model, p.size),
        latent_terms(sets, model.backbone.stride, p),
        lambda start, stop: loader(looks, start, stop),
        first_training_groups(model, p.steps, p.learning_rate, p.warm_up),
        run.optimisation,
        folder / "checkpoint",
        pose_prediction(p.seed, p.weak_perspective_steps),
        [Progress(run.name), FreezeBatchNorm(p.inference_steps)],
    )
    save_pose_model(folder, model, sets.skeleton, {"size": p.size})
    return sum(map(len, rows))


def checked_sets(folder, quotas):
    "The training sets; ValueError where their joints are not those of the packaged model's autoencoder."
    sets, (_, joints, _) = open_training_sets(folder, quotas), load_pose_model(PACKAGED)
    if sets.skeleton.labels != joints.labels:
        raise ValueError(f"{folder}: expected the joints of {PACKAGED} (profile published), found others")
    return sets


def parameters(steps, seed):
    "Those of the profile, with the encoder frozen as a whole, as by default."
    params = read_yaml(Path("params.yaml").read_text(encoding="utf-8"), "params.yaml")
    values = values_of_blocks(*(block_of(params, name, "params.yaml") for name in ("base", "batches", "train")))
    values |= {"steps": steps, "seed": seed, "trunk": None, "workers": 0}
    values["backbone"] = values["backbone"] | {"frozen": ENCODER_STRIDE}
    return parameters_from(FirstTraining, values)


def run_of(sets, p, share):
    "The training on a share; its name in .checkpoints/ tells all that decides it, so that a stopped run goes on."
    inputs = [*(table.folder for table in sets.tables), p.backbone["weights"], PACKAGED / "acae.safetensors"]
    return Run("acae_nb.training.fine_tuning", f"pictures-{share:g}", "latent", p, sets, inputs, None, None)


def measured(methods, artifacts, count):
    "{part: {method: {measure: mm}}} over the pictures in which all methods found the person."
    tables = {part: compare(methods, scenes(artifacts / place, count))[0] for part, place in PARTS.items()}
    return {part: table.loc[[*methods], [*MEASURES]].T.to_dict() for part, table in tables.items()}


def draw(rows, beside, file):
    "Errors over the number of pictures, a line a part, dots for seeds; a star: the packaged model; dashes: MediaPipe."
    table = pd.DataFrame(
        [{"pictures": r["pictures"], "part": part} | e["ours"] for r in rows for part, e in r["errors"].items()]
    )
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, measure, name in zip(axes, ("MPJPE", "PA"), ("MPJPE", "PA-MPJPE")):
        for (part, found), colour in zip(table.groupby("part", sort=False), ("C3", "C0", "C2")):
            means = found.groupby("pictures")[measure].mean()
            axis.plot(means.index, means, color=colour, label=part)
            axis.plot(found["pictures"], found[measure], ".", color=colour)
            axis.plot(PACKAGED_PICTURES, beside[part]["packaged"][measure], "*", color=colour, markersize=9)
            axis.axhline(beside[part]["mediapipe full"][measure], color=colour, linestyle="--", linewidth=1)
        axis.set(xscale="log", xlabel="rendered pictures", ylabel=f"{name}, mm", xticks=sorted(set(table["pictures"])))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
    axes[0].plot([], [], "k*", label="packaged model")
    axes[0].plot([], [], "k--", linewidth=1, label="MediaPipe full")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(file, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pictures", type=int, default=75, help="of each test")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--figure", type=Path, help="a PNG; the numbers go beside it, as JSON")
    arguments = parser.parse_args()
    sets, kept, rows = None, None, []
    for seed in arguments.seeds:
        p = parameters(arguments.steps, seed)
        sets = sets or checked_sets(arguments.artifacts / "prepared", p.quotas)
        for share in SHARES:
            run = run_of(sets, p, share)
            done = run.checkpoints / "measured.json"
            if not done.exists():
                kept = kept or all_looks(sets, p)
                count = trained(run, kept, share)
                methods = {"ours": Ours(run.checkpoints, ONE_LOOK)}
                errors = measured(methods, arguments.artifacts, arguments.pictures)
                done.write_text(json.dumps({"seed": seed, "pictures": count, "errors": errors}))
            rows.append(json.loads(done.read_text()))
            print(rows[-1], flush=True)
    if not arguments.figure:
        return
    packaged, full = Ours(PACKAGED, ONE_LOOK), MediaPipe(arguments.data / "blazepose", LANDMARKS["full"])
    beside = measured({"packaged": packaged, "mediapipe full": full}, arguments.artifacts, arguments.pictures)
    facts = {"steps": arguments.steps, "machine": machine(), "trainings": rows, "beside": beside}
    arguments.figure.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    draw(rows, beside, arguments.figure)


if __name__ == "__main__":
    main()
