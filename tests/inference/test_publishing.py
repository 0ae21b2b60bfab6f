"""The model in the package: half as large, the same answers up to the rounding of float16, refused by name."""

import json

import numpy as np
import pytest
import torch

from acae_nb.inference import publishing
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.publishing import model_card, pack_model
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints, load_pose_model, save_pose_model
from acae_nb.skeletons.joints import load_skeleton


@pytest.fixture
def trained(tmp_path):
    """A folder with a small model whose weights are not those of float16."""
    torch.manual_seed(0)
    skeleton = load_skeleton("coco_17")
    model = PoseModel(tiny_backbone(), SeparateJoints(len(skeleton)), box_mm=2200.0)
    save_pose_model(tmp_path / "trained", model, skeleton, {"size": 64})
    (tmp_path / "trained/README.md").write_text("the card", encoding="utf-8")
    return tmp_path / "trained"


def test_a_packed_model_is_half_as_large_and_answers_the_same(trained, tmp_path):
    packed = pack_model(trained, tmp_path / "packed")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (trained, packed)]
    assert sizes[1] < 0.6 * sizes[0] and (packed / "README.md").read_text(encoding="utf-8") == "the card"
    theirs, ours = (load_pose_model(folder)[0].state_dict() for folder in (trained, packed))
    for name, value in theirs.items():
        rounded = value.numpy().astype(np.float16).astype(np.float32) if value.is_floating_point() else value.numpy()
        np.testing.assert_array_equal(ours[name].numpy(), rounded)
        assert ours[name].dtype == value.dtype
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
    poses = [PoseEstimator.load(folder, device="cpu").estimate(image, [10, 10, 60, 70]) for folder in (trained, packed)]
    assert np.abs(poses[0].joints3d - poses[1].joints3d).max() < 1e-2 * np.abs(poses[0].joints3d).max()


def test_the_card_of_a_packed_model_tells_of_its_own_weights(trained, tmp_path):
    model_card(trained, {"made up": {"MPJPE": 1.0}})
    packed = pack_model(trained, tmp_path / "packed")
    card, info = (packed / "README.md").read_text("utf-8"), json.loads((packed / "model.json").read_text("utf-8"))
    assert info["weights_sha256"][:16] in card
    assert f"{(packed / 'model.safetensors').stat().st_size / 1e6:.1f} MB" in card
    assert json.loads((trained / "model.json").read_text("utf-8"))["weights_sha256"][:16] not in card


def test_the_packages_own_card_loads_it_without_a_folder(trained, tmp_path, monkeypatch):
    model_card(trained, {"made up": {"MPJPE": 1.0}})
    monkeypatch.setattr(publishing, "files", lambda package: tmp_path / package)
    publishing.main([str(trained)])
    card = (tmp_path / "acae_nb/data/model/README.md").read_text(encoding="utf-8")
    assert "PoseEstimator.load()" in card and str(trained) not in card


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors"])
def test_half_a_model_is_not_packed(trained, tmp_path, missing):
    (trained / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        pack_model(trained, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_changed_weights_of_a_packed_model_are_refused(trained, tmp_path):
    packed = pack_model(trained, tmp_path / "packed")
    info = json.loads((packed / "model.json").read_text(encoding="utf-8"))
    (packed / "model.json").write_text(json.dumps(info | {"weights_sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(ValueError, match="sha256"):
        PoseEstimator.load(packed)
