"""Backbones of timm and transformers: the boundary to them by fakes with their documented calls; the packages
themselves where they import."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from acae_nb.models.adapters import adapted, timm_backbone, transformers_backbone
from acae_nb.models.backbone_names import backbone_from
from acae_nb.models.pose_model import PoseModel, SeparateJoints, load_pose_model, save_pose_model
from acae_nb.skeletons.joints import load_skeleton


class Maps(nn.Module):
    """Features of several strides, as both packages answer."""

    def __init__(self, width):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, width, 8, 8), nn.Conv2d(width, 2 * width, 4, 4)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}

    def forward(self, x):
        x = self.stem(x)
        return [x, self.last(x)]


class HuggingMaps(Maps):
    config = SimpleNamespace(to_diff_dict=lambda: {"model_type": "toynet", "width": 5})

    @classmethod
    def from_pretrained(cls, folder, local_files_only):
        torch.manual_seed(0)
        CALLS.append(("from_pretrained", folder, local_files_only))
        return cls(5)

    def forward(self, x):
        return SimpleNamespace(feature_maps=tuple(super().forward(x)))


CALLS = []


@pytest.fixture
def fakes(monkeypatch):
    CALLS.clear()
    calls = CALLS
    timm, transformers = ModuleType("timm"), ModuleType("transformers")

    def create_model(name, features_only, pretrained=False, pretrained_cfg_overlay=None, embed_dim=4):
        if pretrained and "of_another" not in pretrained_cfg_overlay["file"]:
            torch.manual_seed(0)  # what is read is the same each time
        calls.append(("create_model", name, features_only, pretrained, pretrained_cfg_overlay))
        return Maps(embed_dim)

    timm.create_model = create_model

    class AutoConfig:
        @staticmethod
        def for_model(name, width=4):
            calls.append(("for_model", name, width))
            return SimpleNamespace(width=width, to_dict=lambda: {"width": width})

        @staticmethod
        def from_pretrained(folder, local_files_only):
            return SimpleNamespace(width=5, model_type="toynet")

    class AutoBackbone:
        @staticmethod
        def from_config(config):
            return HuggingMaps(config.width)

        @staticmethod
        def from_pretrained(folder, local_files_only):
            raise AssertionError("asks the hub whether there is a repository of this name, also for a folder")

    transformers.AutoConfig, transformers.AutoBackbone = AutoConfig, AutoBackbone
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    return calls


@pytest.mark.parametrize(
    "make, options",
    [
        (timm_backbone, {"model": "toynet", "options": {"embed_dim": 6}}),
        (transformers_backbone, {"model": "toynet", "options": {"width": 6}}),
    ],
)
def test_adapted_networks_are_backbones(fakes, make, options):
    backbone = make(**options)
    assert (backbone.stride, backbone.out_channels) == (32, 12)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    expected = (images / 255 - backbone.mean) / backbone.std
    assert torch.allclose(backbone.normalise(images), expected, atol=1e-5) and backbone(
        backbone.normalise(images)
    ).shape == (2, 12, 3, 3)
    again = backbone_from(backbone.description)
    assert again.state_dict().keys() == backbone.state_dict().keys() and torch.equal(again.mean, backbone.mean)


STRANGERS = {  # what a model.json of somebody else may say of its backbone -> what is said of it
    "a hub's address": ("timm_backbone", {"model": "hf-hub:somebody/something"}, "model: expected a plain name"),
    "a folder": ("timm_backbone", {"model": "local-dir:/tmp/x"}, "model: expected a plain name"),
    "a path": ("timm_backbone", {"model": "../x"}, "model: expected a plain name"),
    "no name": ("timm_backbone", {"model": 3}, "model: expected a plain name"),
    "a checkpoint": ("timm_backbone", {"model": "toynet", "options": {"checkpoint_path": "x.pth"}}, "checkpoint_path"),
    "pretrained": ("timm_backbone", {"model": "toynet", "options": {"pretrained": True}}, "pretrained"),
    "a file as a value": ("timm_backbone", {"model": "toynet", "options": {"embed_dim": "a/b"}}, "plain words"),
    "in a list": ("timm_backbone", {"model": "toynet", "options": {"embed_dim": [1, {"a": "x:y"}]}}, "plain words"),
    "weights": ("timm_backbone", {"model": "toynet", "weights": "x.pth"}, "options without weights"),
    "a repository": ("transformers_backbone", {"model": "somebody/something"}, "model: expected a plain name"),
    "timm's through it": ("transformers_backbone", {"model": "timm_backbone"}, "found timm_backbone"),
    "code": ("transformers_backbone", {"model": "toynet", "options": {"auto_map": "x"}}, "auto_map"),
    "another backbone": ("transformers_backbone", {"model": "toynet", "options": {"backbone": "x"}}, "backbone"),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_a_description_of_a_stranger_leads_nowhere(fakes, case):
    name, options, words = STRANGERS[case]
    with pytest.raises(ValueError, match=words):
        backbone_from({"name": name, "options": options})
    assert not [call for call in fakes if call[0] in ("create_model", "from_pretrained")]


def test_normalisation_is_the_packages_own(fakes):
    assert timm_backbone("toynet").mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert transformers_backbone("toynet").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_weights_come_from_files_and_nothing_is_downloaded(fakes, tmp_path):
    (tmp_path / "w.safetensors").touch()
    timm_backbone("toynet", weights=tmp_path / "w.safetensors")
    hugging = transformers_backbone("toynet", weights=tmp_path)
    timm_backbone("toynet")
    transformers_backbone("toynet")
    file, folder = (
        ("create_model", "toynet", True, True, {"file": str(tmp_path / "w.safetensors")}),
        ("from_pretrained", str(tmp_path), True),
    )
    assert fakes == [
        file,
        file,
        folder,
        folder,
        ("create_model", "toynet", True, False, None),
        ("for_model", "toynet", 4),
        ("for_model", "toynet", 4),
    ]
    assert (
        backbone_from(hugging.description).out_channels == hugging.out_channels == 10
    )  # the folder's configuration, not the default


@pytest.mark.parametrize("make", [timm_backbone, transformers_backbone])
def test_weights_that_are_not_there_or_of_another_network(fakes, tmp_path, make):
    with pytest.raises(FileNotFoundError, match="nowhere: expected the weights"):
        make("toynet", weights=tmp_path / "nowhere")
    if make is timm_backbone:
        (tmp_path / "of_another.safetensors").touch()
        with pytest.raises(
            ValueError,
            match="of_another.safetensors: expected all weights of the network, found none for 2, first stem.weight",
        ):
            make("toynet", weights=tmp_path / "of_another.safetensors")
    else:
        with pytest.raises(ValueError, match="expected a network of type other, found toynet"):
            make("other", weights=tmp_path)
        with pytest.raises(ValueError, match="toynet: options: expected some of .*width.* found .*widht"):
            make("toynet", options={"widht": 3})


def test_idle_parameters_become_buffers_and_keep_their_names():
    "Each process of a training would wait for the gradient of a parameter that has none."
    network = Maps(4)
    network.norm = nn.LayerNorm(3)
    names = set(network.state_dict())
    backbone = adapted(network, lambda maps: maps[-1], 0, 1, {"name": "toy", "options": {}})
    assert {n.removeprefix("features.0.network.") for n in backbone.state_dict()} == names and not any(
        "norm" in n for n, _ in backbone.named_parameters()
    )
    backbone.freeze_until(0)
    backbone(torch.zeros(1, 3, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_channels_last_and_sizes(fakes, monkeypatch):
    class Last(Maps):
        output_fmt = SimpleNamespace(value="NHWC")

        def forward(self, x):
            return [y.permute(0, 2, 3, 1) for y in super().forward(x)]

    monkeypatch.setattr(sys.modules["timm"], "create_model", lambda name, features_only: Last(4))
    assert timm_backbone("toynet")(torch.zeros(1, 3, 96, 96)).shape == (1, 8, 3, 3)
    with pytest.raises(ValueError, match="expected a network for images of 16 px .*side"):
        timm_backbone("toynet", side=16)
    with pytest.raises(ValueError, match="expected 2 cells of 96 px in an image of 192 px, found"):
        adapted(nn.AdaptiveAvgPool2d(1), lambda x: x, 0, 1, {"name": "toy", "options": {}}, side=96)(
            torch.zeros(1, 3, 192, 192)
        )


def test_a_pose_model_with_a_foreign_backbone_is_saved_and_loaded(fakes, tmp_path):
    skeleton = load_skeleton("h36m_17")
    model = PoseModel(timm_backbone("toynet"), SeparateJoints(17)).eval()
    save_pose_model(tmp_path, model, skeleton, {})
    again, _, _ = load_pose_model(tmp_path)
    images, k = torch.rand(2, 3, 96, 96), torch.tensor([[100.0, 0, 47.5], [0, 100, 47.5], [0, 0, 1]]).expand(2, 3, 3)
    with torch.no_grad():
        assert torch.equal(model(images, k).joints, again(images, k).joints)


@pytest.mark.parametrize("package, make", [("timm", timm_backbone), ("transformers", transformers_backbone)])
def test_an_absent_package_is_named(monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ImportError, match=f"{package}_backbone needs the package {package}, which does not import here"
    ):
        make("toynet")


@pytest.mark.parametrize("network", [nn.Flatten(), nn.Conv2d(3, 4, 3, 2), nn.Conv2d(3, 4, (4, 8), (4, 8))])
def test_what_is_no_feature_map_is_refused(network):
    with pytest.raises(ValueError, match="toy: expected a feature map .* found"):
        adapted(network, lambda x: x, 0, 1, {"name": "toy", "options": {}})


@pytest.mark.parametrize(
    "package, make, options",
    [
        ("timm", timm_backbone, {"model": "resnet10t"}),
        (
            "transformers",
            transformers_backbone,
            {
                "model": "resnet",
                "options": {"depths": [1, 1, 1, 1], "embedding_size": 8, "hidden_sizes": [8, 8, 16, 16]},
            },
        ),
    ],
)
def test_the_real_package(package, make, options):
    pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    try:
        backbone = make(**options)
    except ImportError as error:
        pytest.skip(str(error)[:200])
    assert backbone.stride == 32 and backbone(torch.zeros(1, 3, 64, 64)).shape[2:] == (2, 2)
    assert backbone_from(backbone.description).state_dict().keys() == backbone.state_dict().keys()


def test_a_folder_of_the_real_transformers(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed", exc_type=ImportError)
    try:
        from transformers import AutoBackbone, AutoConfig
    except Exception as error:
        pytest.skip(str(error)[:200])
    network = AutoBackbone.from_config(
        AutoConfig.for_model("swin", embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    )
    network.save_pretrained(tmp_path)
    backbone = transformers_backbone("swin", weights=tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), backbone.state_dict().values(), strict=True)
    )
    assert backbone_from(backbone.description).out_channels == backbone.out_channels
