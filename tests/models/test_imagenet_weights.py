"""ImageNet weights of torchvision and timm: names and shapes of their own networks, features equal to what those made
(imagenet_reference.py), scales, and files that are none."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from acae_nb.models.backbone_names import BACKBONES
from acae_nb.models.backbones import PaddedConv2d, efficientnet_v2_s, resnet50, tiny_backbone
from acae_nb.models.imagenet_weights import (
    IMAGENET,
    SYMMETRIC,
    Scale,
    load_imagenet_weights,
    our_names,
    rescaled,
    scale_of_files,
)

sys.path.append(str(Path(__file__).parent))
reference = importlib.import_module("imagenet_reference")
STORED = np.load(reference.REFERENCE)
NAMINGS = [(name, naming) for name in reference.NETWORKS for naming in ("torchvision", "timm")]


def shapes_of(name: str, naming: str) -> dict[str, list[int]]:
    return json.loads(str(STORED[f"{name}, {naming}, shapes"]))


def padded_as(backbone: nn.Module, published: bool) -> nn.Module:
    """All convolutions evenly padded, as torchvision's; or, of stride 2, on the right and below as TensorFlow's."""
    for module in backbone.modules():
        if isinstance(module, PaddedConv2d) and module.stride == (2, 2):
            kernel = module.kernel_size[0]
            module.centered, module.padding = published, (0, 0) if published else (kernel // 2,) * 2
    return backbone


def without_rescaling(backbone: nn.Module, scale: Scale) -> nn.Module:
    """A backbone in the scale of a file, whose weights then are kept as they are."""
    for part, values in zip((backbone.mean, backbone.std), scale):
        part.copy_(torch.tensor(values).reshape(3, 1, 1))
    return backbone


def features(backbone: nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return backbone.eval()(reference.picture())[0, ::4].numpy()


def assert_equal_features(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("name, naming", NAMINGS)
def test_every_tensor_of_the_packages_has_its_place(name, naming):
    with torch.device("meta"):
        backbone = BACKBONES[name]()
        found = our_names({key: torch.empty(shape) for key, shape in shapes_of(name, naming).items()})
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in backbone.state_dict().items()
    }


@pytest.mark.parametrize(
    "name, naming", [case for case in NAMINGS if case[1] == "torchvision"] + [("efficientnet_v2_s", "timm")]
)
def test_features_are_those_of_the_packages(name, naming):
    backbone = padded_as(BACKBONES[name](), published=False)
    backbone.load_state_dict(our_names(reference.drawn_state(shapes_of(name, naming))))
    assert_equal_features(features(backbone), STORED[f"{name}, {naming}"])


def test_features_are_timms_published_ones_where_convolutions_pad_as_tensorflow_does():
    backbone = padded_as(efficientnet_v2_s(), published=True)
    backbone.load_state_dict(our_names(reference.drawn_state(shapes_of("efficientnet_v2_s", "timm"))))
    assert_equal_features(features(backbone), STORED["efficientnet_v2_s, timm as published"])


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("name, naming", [("efficientnet_v2_s", "timm"), ("resnet50", "torchvision")])
def test_features_of_a_users_file(tmp_path, name, naming, ending):
    state, path = reference.drawn_state(shapes_of(name, naming)), tmp_path / f"weights{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    scale = scale_of_files(name, by_timm=naming == "timm")
    backbone = without_rescaling(padded_as(BACKBONES[name](), published=False), scale)
    load_imagenet_weights(backbone, path)
    assert_equal_features(features(backbone), STORED[f"{name}, {naming}"])


def test_half_precision_and_absent_counts_are_read(tmp_path):
    state = {key: value.half() for key, value in tiny_backbone().state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "half.safetensors")
    backbone = tiny_backbone()
    load_imagenet_weights(backbone, tmp_path / "half.safetensors")
    assert all(value.dtype in (torch.float32, torch.int64) for value in backbone.state_dict().values())
    assert all(torch.equal(backbone.state_dict()[key], value.float()) for key, value in state.items())


# --- scales ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, by_timm, scale",
    [  # torchvision: mean and std of EfficientNet_V2_*_Weights and ResNet50_Weights; timm: pretrained_cfg
        ("efficientnet_v2_s", False, IMAGENET),
        ("efficientnet_v2_m", False, IMAGENET),
        ("efficientnet_v2_l", False, SYMMETRIC),
        ("efficientnet_v2_s", True, SYMMETRIC),
        ("efficientnet_v2_m", True, SYMMETRIC),
        ("efficientnet_v2_l", True, SYMMETRIC),
        ("resnet50", False, IMAGENET),
        ("resnet50", True, IMAGENET),
    ],
)
def test_scales_are_those_that_the_packages_publish(name, by_timm, scale):
    assert scale_of_files(name, by_timm) == scale


def stem_by_hand(state: dict, pictures: torch.Tensor, scale: Scale) -> torch.Tensor:
    """The first layer of a file's network, in plain torch."""
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in scale)
    x = nn.functional.conv2d((pictures - mean) / std, state["features.0.0.weight"], None, 2, 1)
    norm = [state[f"features.0.1.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
    return nn.functional.silu(nn.functional.batch_norm(x, *norm, eps=1e-3))


def test_pictures_are_taken_in_the_scale_of_the_file(tmp_path):
    state = reference.drawn_state(shapes_of("efficientnet_v2_s", "torchvision"))
    torch.save(state, tmp_path / "weights.pth")
    backbone = efficientnet_v2_s().eval()
    load_imagenet_weights(backbone, tmp_path / "weights.pth")
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = backbone.run_parts(backbone.normalise(pictures), 0, 1)
    expected = stem_by_hand(state, pictures, IMAGENET)
    torch.testing.assert_close(found[..., 1:, 1:], expected[..., 1:, 1:], atol=1e-5, rtol=1e-5)
    unscaled = stem_by_hand(state, pictures, SYMMETRIC)
    assert (unscaled - expected).abs().mean() > 1000 * (found - expected)[..., 1:, 1:].abs().mean()
    assert backbone.mean.unique().item() == 0.5  # a saved model is built again with the scale of its name


def test_a_file_in_our_scale_is_kept_to_the_bit():
    state = our_names(reference.drawn_state(shapes_of("resnet50", "timm")))
    assert rescaled(state, IMAGENET, IMAGENET) is state
    ours = Scale(
        *(tuple(round(float(value), 6) for value in part.flatten()) for part in (resnet50().mean, resnet50().std))
    )
    assert ours == IMAGENET


# --- files that are none ---------------------------------------------------------------------------------------------
def changed(**tensors):
    return {**tiny_backbone().state_dict(), **tensors}


def without(name):
    return {key: value for key, value in tiny_backbone().state_dict().items() if key != name}


BAD = {  # what is saved -> what is said
    "a tensor too few": (
        without("features.3.0.weight"),
        r"features.3.0.weight: expected one of shape \[32, 16, 3, 3\]",
    ),
    "a tensor too many": (changed(**{"head.weight": torch.ones(2)}), "head.weight: expected no such tensor, found one"),
    "another width": (
        changed(**{"features.0.0.weight": torch.ones(4, 3, 3, 3)}),
        r"features.0.0.weight: expected shape \[8, 3, 3, 3\], found \[4, 3, 3, 3\]",
    ),
    "not finite": (
        changed(**{"features.0.1.bias": torch.full((8,), torch.nan)}),
        "features.0.1.bias: expected finite numbers",
    ),
    "whole numbers": (
        changed(**{"features.0.1.bias": torch.ones(8, dtype=torch.int32)}),
        r"features.0.1.bias: expected finite numbers, found others \(torch.int32\)",
    ),
    "sparse": (
        changed(**{"features.0.1.bias": torch.ones(8).to_sparse()}),
        "field 'features.0.1.bias': expected tensors by name",
    ),
    "a training's checkpoint": (
        {"state_dict": changed(), "epoch": 3},
        "field 'state_dict': expected tensors by name, found",
    ),
    "a list": ([torch.ones(2)], "expected a state dict, found list"),
    "a whole network": (tiny_backbone(), "expected a state dict of tensors and nothing else"),
}


@pytest.mark.parametrize("case", BAD)
def test_files_that_are_none_are_named(tmp_path, case):
    content, message = BAD[case]
    torch.save(content, tmp_path / "weights.pth")
    backbone = tiny_backbone()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=rf"weights.pth: .*{message}"):
        load_imagenet_weights(backbone, tmp_path / "weights.pth")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    "name, content",
    [
        ("weights.pth", b""),
        ("weights.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        ("weights.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    message = f"{name}: expected a state dict of tensors" + (".*git lfs pull" if content else "")
    with pytest.raises(ValueError, match=message):
        load_imagenet_weights(tiny_backbone(), tmp_path / name)


def test_no_file():
    with pytest.raises(FileNotFoundError, match="nowhere.pth: expected ImageNet weights, found no such file"):
        load_imagenet_weights(tiny_backbone(), "nowhere.pth")


def test_a_weight_file_is_never_run_as_code(tmp_path, capsys):
    class Malicious:
        def __reduce__(self):
            return print, ("was run",)

    torch.save({"features.0.0.weight": Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights.pth: expected a state dict of tensors and nothing else"):
        load_imagenet_weights(tiny_backbone(), tmp_path / "weights.pth")
    assert "was run" not in capsys.readouterr().out


def test_a_file_of_another_network_is_told_from_ours(tmp_path):
    shapes = shapes_of("efficientnet_v2_m", "timm")
    few = {key: shape for key, shape in shapes.items() if not key.startswith("blocks.6")}
    save_file(reference.drawn_state(few), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="expected tensors of efficientnet_v2_s .* and [0-9]+ more"):
        load_imagenet_weights(efficientnet_v2_s(), tmp_path / "weights.safetensors")
