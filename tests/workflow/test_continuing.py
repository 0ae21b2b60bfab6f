"""A finished model learns on: from its own weights, with the autoencoder beside it, resumable by the command itself."""

import numpy as np
import pytest
import torch
import yaml
from made_up_sets import write_set

from acae_nb.autoencoder.acae import ACAE, save_acae
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints, load_pose_model, save_pose_model
from acae_nb.training.recipes import open_training_sets
from acae_nb.workflow import continuing

QUOTAS = {"a": 2, "b": 2}
VALUES = {"size": 64, "workers": 0, "threads": 1, "log_every": 1, "steps": 2, "learning_rate": 1e-4}


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name, form in (("a", "h36m_17"), ("b", "cmu_panoptic_19")):
        write_set(tmp_path / "artifacts/prepared" / name, form, flat=False)
    skeleton = open_training_sets(tmp_path / "artifacts/prepared", QUOTAS).skeleton
    torch.manual_seed(0)
    model = PoseModel(tiny_backbone(), SeparateJoints(len(skeleton)))
    save_pose_model(tmp_path / "start", model, skeleton, {})
    encoder, decoder = torch.randn(5, len(skeleton)).softmax(1), torch.randn(len(skeleton), 5).softmax(1)
    save_acae(ACAE(encoder, decoder, joints=skeleton.labels), tmp_path / "start/acae.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def distance(one, other):
    pairs = zip(load_pose_model(one)[0].parameters(), load_pose_model(other)[0].parameters())
    return float(np.sqrt(sum(((a - b) ** 2).sum().item() for a, b in pairs)))


def test_it_goes_on_from_the_weights_of_its_start(project):
    common = {"data": "artifacts/prepared", "start": "start", "quotas": QUOTAS, **VALUES}
    continuing.continued_training(out="short", log="short.csv", **common)
    continuing.continued_training(out="far", log="far.csv", **common | {"learning_rate": 1e-2})
    assert 0 < distance("start", "short") < 0.2 * distance("start", "far")
    assert "consistency" in (project / "short.csv").read_text().splitlines()[0]


def test_the_command_takes_its_values_from_the_blocks_of_fine_tuning(project):
    rest = {key: value for key, value in VALUES.items() if key not in ("threads", "steps", "learning_rate")}
    params = {
        "base": {"seed": 1, "threads": 1},
        "batches": {"quotas": QUOTAS, "cpu_processes": 1, **rest},
        "finetune": {"models": {"consistency": "outputs regularised"}, "steps": 3, "learning_rate": 1e-4},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    continuing.main(["start", "on"])
    assert load_pose_model("on")[2]["params"]["steps"] == 3
    assert len((project / "results/continued.csv").read_text().splitlines()) == 4


def test_a_start_without_its_autoencoder_is_named(project):
    (project / "start/acae.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="start/acae.safetensors"):
        continuing.continued_training("artifacts/prepared", "start", "out", "log.csv", quotas=QUOTAS, **VALUES)
