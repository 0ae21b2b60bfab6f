"""A study of seconds, whole: from example tables of noise to verdicts, each thing computed once."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPO
from made_up_sets import write_sets

from acae_nb.claims import runs as claim_runs
from acae_nb.claims.findings import read_runs
from acae_nb.claims.plan import plan
from acae_nb.claims.runs import Places, code_fingerprint, make_runs, read_study
from acae_nb.claims.study_report import report
from acae_nb.claims.verdicts import read_verdicts
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter, encode_jpeg
from acae_nb.geometry.cameras import Camera
from acae_nb.skeletons.joints import load_skeleton, union

PARAMS = """
base: {seed: 1, threads: 1}
batches: {size: 64, quotas: {a: 2, b: 2, c: 1}, cpu_processes: 1, box_mm: 2200.0, inference_steps: 1, log_every: 1,
  features: {looks: 1, seed: 0, gigabytes: 1.0, folder: features, jobs: 1}, checkpoint_every: 100}
train: {steps: 3, learning_rate: 1.0e-3, models: {},
  backbone: {name: movenet_thunder, weights: WEIGHTS, channels: 16, blocks: 1, frozen: 32}}
pseudo_label: {tables: {}, batch_size: 8, least_share: 0.0}
fit_acae: {n_latent_sided: 8, n_latent_center: 4, lambda_sparse: 0.6, held_out: 0.1}
finetune: {steps: 2, learning_rate: 1.0e-4, frozen: 32, teacher_from: 0, consistency_weight: 1.0, models: {}}
evaluate: {batch_size: 8, flip_average: true}
"""
STUDY = """
seeds: [1, 2]
tests: [test]
validation: [validation]
variants:
  latents 8: {use: consistency, acae: {n_latent_sided: 6, n_latent_center: 2}}
  consistency: {use: consistency}
  rare consistency: {use: consistency, start: rare}
  separate: {}
  rare: {pictures: {b: 3}}
  rare alone: {quotas: {b: 5}, pictures: {b: 3}}
"""
FIRST, TUNING = "acae_nb.training.recipes:first_training", "acae_nb.training.fine_tuning:fine_tuning"


def write_people(folder, rows):
    "A table labelled in the formats of the made-up sets that have 3D labels, of two people."
    rng = np.random.default_rng(len(folder.name))
    skeleton = union([load_skeleton("h36m_17"), load_skeleton("cmu_panoptic_19")], "all formats")
    camera = Camera(
        np.array([[80.0, 0, 31.5], [0, 80, 31.5], [0, 0, 1]]),
        np.zeros(12),
        np.eye(3),
        np.zeros(3),
        np.array([0, -1.0, 0]),
    )
    with ExampleWriter(folder, skeleton, folder.name) as writer:
        for i in range(rows):
            joints = (rng.normal(0, 300, (len(skeleton), 3)) + [0, 0, 4000]).astype(np.float32)
            subject, box = f"s{i % 2}", np.array([8.0, 4, 40, 50])
            example = Example(
                f"{folder.name}/{i}", folder.name, "test", subject, "a", i, camera, box, (64, 64), joints3d=joints
            )
            writer.add(example, encode_jpeg(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)))


def before_the_camera(predict_once):
    "As `predict_once`, its poses replaced by those of a model that has learned something."

    def predict(*arguments):
        poses = predict_once(*arguments)
        return np.random.default_rng(0).normal([0, 0, 4000], 300, poses.shape).astype(np.float32)

    return predict


@pytest.fixture
def study(tmp_path):
    weights = REPO / "acae_nb/data/movenet_thunder.safetensors"
    (tmp_path / "params.yaml").write_text(PARAMS.replace("WEIGHTS", str(weights)))
    (tmp_path / "claims.yaml").write_text(STUDY)
    write_sets(tmp_path / "artifacts/prepared", 5)
    for name, rows in (("unlabelled", 16), ("validation", 4), ("test", 4)):
        write_people(tmp_path / "artifacts/people" / name, rows)
    return read_study(tmp_path / "params.yaml", tmp_path / "claims.yaml")


def test_a_small_study_from_tables_to_verdicts(study, tmp_path, monkeypatch):
    launched, launch = Counter(), claim_runs.launch
    monkeypatch.setattr(claim_runs, "launch", lambda target, *rest: (launched.update([target]), launch(target, *rest)))
    monkeypatch.setattr(claim_runs, "predict_once", before_the_camera(claim_runs.predict_once))
    places, out = Places(tmp_path, tmp_path / "work"), tmp_path / "results/study"
    make_runs(study, places, out)
    assert launched == {FIRST: 6, TUNING: 6}  # separate and rare once a seed, though others start from them
    kept = {tuple(folder.name.split("-")[:2]) for folder in places.work.iterdir() if (folder / "model").exists()}
    assert kept == {(name, seed) for name in ("separate", "rare") for seed in "12"}

    # features: of three sets and three collections, and of what each seed draws for the rare one, in one place
    assert len([*(tmp_path / "features").iterdir()]) == 6 + 2
    drawn = [ExampleTable.open(folder / "b") for folder in places.work.glob("prepared-*")]
    assert [len(table) for table in drawn] == [3] * 4 and len({tuple(t.column("example_id")) for t in drawn}) == 2

    tests, validation = (read_runs(out / kind) for kind in ("tests", "validation"))
    assert {run.variant for run in validation} == {*study.variants}
    assert {run.variant for run in tests} == {*study.variants} - {"latents 8"}
    assert {run.facts["code"] for run in tests} == {code_fingerprint()}
    assert tests[0].facts["test"] == "embedded people: test" and tests[0].subjects == ("test/s0", "test/s1")
    assert all("cmu_panoptic_19 MPJPE" in run.scores for run in tests)
    assert all("h36m_17 MPJPE" not in run.scores for run in tests if run.variant == "rare alone")
    assert json.loads((out / "tests/rare_consistency-1.json").read_text())["facts"]["autoencoder"]["latents"] == 12

    findings = report(tmp_path / "results", tmp_path / "report")
    assert findings and all(f.subjects == 2 and f.seeds == 2 for f in findings)
    facts, _ = read_verdicts(tmp_path / "report/claims.json")
    assert facts["folders"] == {"study/tests": 10, "study/validation": 12} and facts["runs"] == 12
    assert {"claims.txt", "claims.jpg", "formats.csv"} <= {path.name for path in (tmp_path / "report").iterdir()}

    # nothing is made twice; what another parameter decides is
    assert set(plan(study, tmp_path, out)["state"]) == {"made"}
    launched.clear()
    make_runs(study, places, out)
    assert not launched
    blocks = study.blocks | {"finetune": study.blocks["finetune"] | {"steps": 1}}
    make_runs(replace(study, blocks=blocks, seeds=[1]), places, out)
    assert launched == {TUNING: 3}
