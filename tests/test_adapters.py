"""Backbones of timm and transformers: the boundary to them by fakes with their documented calls; the packages themselves where they import."""
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from acae_nb.adapters import adapted, timm_backbone, transformers_backbone
from acae_nb.backbones import backbone_from
from acae_nb.pose_model import PoseModel, SeparateJoints, load_pose_model, save_pose_model
from acae_nb.skeletons import load_skeleton


class Maps(nn.Module):
    """Features of several strides, as both packages answer."""
    def __init__(self, width):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, width, 8, 8), nn.Conv2d(width, 2 * width, 4, 4)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    def forward(self, x):
        x = self.stem(x); return [x, self.last(x)]


class HuggingMaps(Maps):
    config = SimpleNamespace(to_diff_dict=lambda: {"model_type": "toynet", "width": 5})
    def forward(self, x): return SimpleNamespace(feature_maps=tuple(super().forward(x)))


@pytest.fixture
def fakes(monkeypatch):
    calls = []
    timm, transformers = ModuleType("timm"), ModuleType("transformers")
    def create_model(name, features_only, pretrained=False, pretrained_cfg_overlay=None, width=4):
        calls.append(("create_model", name, features_only, pretrained, pretrained_cfg_overlay)); return Maps(width)
    timm.create_model = create_model
    class AutoConfig:
        @staticmethod
        def for_model(name, width=4): calls.append(("for_model", name, width)); return SimpleNamespace(width=width)
    class AutoBackbone:
        @staticmethod
        def from_config(config): return HuggingMaps(config.width)
        @staticmethod
        def from_pretrained(folder, local_files_only): calls.append(("from_pretrained", folder, local_files_only)); return HuggingMaps(5)
    transformers.AutoConfig, transformers.AutoBackbone = AutoConfig, AutoBackbone
    monkeypatch.setitem(sys.modules, "timm", timm); monkeypatch.setitem(sys.modules, "transformers", transformers)
    return calls


@pytest.mark.parametrize("make, options", [(timm_backbone, {"model": "toynet", "options": {"width": 6}}), (transformers_backbone, {"model": "toynet", "options": {"width": 6}})])
def test_adapted_networks_are_backbones(fakes, make, options):
    backbone = make(**options)
    assert (backbone.stride, backbone.out_channels) == (32, 12)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    expected = (images / 255 - backbone.mean) / backbone.std
    assert torch.allclose(backbone.normalise(images), expected, atol=1e-5) and backbone(backbone.normalise(images)).shape == (2, 12, 3, 3)
    again = backbone_from(backbone.description)
    assert again.state_dict().keys() == backbone.state_dict().keys() and torch.equal(again.mean, backbone.mean)


def test_normalisation_is_the_packages_own(fakes):
    assert timm_backbone("toynet").mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert transformers_backbone("toynet").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_weights_come_from_files_and_nothing_is_downloaded(fakes, tmp_path):
    timm_backbone("toynet", weights=tmp_path / "w.safetensors"); hugging = transformers_backbone("toynet", weights=tmp_path)
    timm_backbone("toynet"); transformers_backbone("toynet")
    assert fakes == [("create_model", "toynet", True, True, {"file": str(tmp_path / "w.safetensors")}), ("from_pretrained", str(tmp_path), True),
                     ("create_model", "toynet", True, False, None), ("for_model", "toynet", 4)]
    assert backbone_from(hugging.description).out_channels == hugging.out_channels == 10           # the folder's configuration, not the default


def test_a_pose_model_with_a_foreign_backbone_is_saved_and_loaded(fakes, tmp_path):
    skeleton = load_skeleton("h36m_17")
    model = PoseModel(timm_backbone("toynet"), SeparateJoints(17)).eval()
    save_pose_model(tmp_path, model, skeleton, {})
    again, _, _ = load_pose_model(tmp_path)
    images, k = torch.rand(2, 3, 96, 96), torch.tensor([[100., 0, 47.5], [0, 100, 47.5], [0, 0, 1]]).expand(2, 3, 3)
    with torch.no_grad(): assert torch.equal(model(images, k).joints, again(images, k).joints)


@pytest.mark.parametrize("package, make", [("timm", timm_backbone), ("transformers", transformers_backbone)])
def test_an_absent_package_is_named(monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"{package}_backbone needs the package {package}, which does not import here"): make("toynet")


@pytest.mark.parametrize("network", [nn.Flatten(), nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, (4, 8), (4, 8))])
def test_what_is_no_feature_map_is_refused(network):
    with pytest.raises(ValueError, match="toy: expected a feature map .* found"): adapted(network, lambda x: x, 0, 1, {"name": "toy", "options": {}})


@pytest.mark.parametrize("package, make, options", [("timm", timm_backbone, {"model": "resnet10t"}), ("transformers", transformers_backbone, {"model": "resnet", "options": {"depths": [1, 1, 1, 1], "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16]}})])
def test_the_real_package(package, make, options):
    pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    try: backbone = make(**options)
    except ImportError as error: pytest.skip(str(error)[:200])
    assert backbone.stride == 32 and backbone(torch.zeros(1, 3, 64, 64)).shape[2:] == (2, 2)
