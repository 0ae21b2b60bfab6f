"""Backbones: published names and shapes, ImageNet weights, where cells look, frozen parts, folded norms."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from acae_nb.models.backbone_names import backbone_from
from acae_nb.models.backbones import (
    PaddedConv2d,
    blazepose,
    conv_norm,
    efficientnet_lite0,
    efficientnet_lite0_joined,
    efficientnet_v2_l,
    efficientnet_v2_m,
    efficientnet_v2_s,
    lite0_names,
    load_blazepose_weights,
    load_lite0_weights,
    resnet50,
    tiny_backbone,
)
from acae_nb.models.pose_model import PoseModel, SeparateJoints

ALL = [
    tiny_backbone,
    efficientnet_lite0,
    efficientnet_lite0_joined,
    blazepose,
    efficientnet_v2_s,
    efficientnet_v2_m,
    efficientnet_v2_l,
    resnet50,
]
WEIGHTS = sorted((Path(__file__).resolve().parents[2] / "data").rglob("efficientnet-lite0-*.pth"))
needs_weights = pytest.mark.skipif(not WEIGHTS, reason="data/ is not fetched: no weights of EfficientNet-Lite0")

LANDMARKS = Path(__file__).resolve().parents[2] / "data" / "blazepose" / "pose_landmark_full.tflite"
needs_landmarks = pytest.mark.skipif(not LANDMARKS.exists(), reason="data/ is not fetched: no weights of BlazePose")


def linearised(backbone):
    """The same striding with nothing that is not linear and positive: then the gradient shows where a cell looks."""
    for module in backbone.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.MaxPool2d):
                setattr(module, name, torch.nn.AvgPool2d(3, 2, padding=1))
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    return backbone.eval()


@pytest.mark.parametrize(
    "make, stride",
    [
        (tiny_backbone, 32),
        (efficientnet_lite0, 32),
        (lambda: efficientnet_lite0(stride=16), 16),
        (lambda: efficientnet_lite0(stride=16, last_conv=False), 16),
        (lambda: blazepose(blocks=0), 32),
        (efficientnet_v2_s, 32),
        (resnet50, 32),
    ],
)
def test_cell_k_looks_at_the_middle_of_its_own_pixels(make, stride):
    backbone, size = linearised(make()), stride * 15
    x = torch.full((1, 3, size, size), 0.01, requires_grad=True)
    k = 7  # the middle one, so that the borders cut alike
    features = backbone(x)
    assert (
        backbone.stride == stride
        and features.shape[2:] == (size // stride,) * 2
        and features.shape[1] == backbone.out_channels
    )
    features[0, :, k, k].sum().backward()
    weight = x.grad.sum((0, 1)).double()
    at = torch.arange(size, dtype=torch.float64)
    center = (weight.sum(0) * at).sum() / weight.sum(), (weight.sum(1) * at).sum() / weight.sum()
    assert all(abs(c - (k * stride + stride / 2)) < 1.5 for c in center), center


def test_conformance_names_and_shapes_of_a_published_model():
    import json

    from conftest import CONFORMANCE

    path = CONFORMANCE / "state_dict_eff2s_J122.json"
    published = {name: tuple(shape) for name, (shape, _) in json.loads(path.read_text()).items()}
    ours = {
        name.replace("backbone.features.", "backbone.1."): tuple(v.shape)
        for name, v in PoseModel(efficientnet_v2_s(), SeparateJoints(122)).state_dict().items()
    }
    assert ours == published


@needs_weights
def test_lite0_weights_fill_every_tensor_and_still_know_imagenet():
    skimage = pytest.importorskip("skimage")
    state = torch.load(WEIGHTS[0], weights_only=True)
    backbone = efficientnet_lite0(WEIGHTS[0]).eval()
    ours = backbone.state_dict()
    assert all(torch.equal(ours[a], state[b]) for a, b in lite0_names(backbone).items()) and set(
        lite0_names(backbone)
    ) == set(ours)
    assert set(state) - set(lite0_names(backbone).values()) == {"_fc.weight", "_fc.bias"}
    for picture, classes in (
        (skimage.data.chelsea()[:, 75:375], {281, 282, 285}),
        (skimage.data.coffee()[:, 100:500], {967, 968}),
    ):
        x = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] / 255
        x = F.interpolate(x, (160, 160), mode="bilinear", antialias=True)
        with torch.no_grad():
            scores = backbone(backbone.normalise(x)).mean((2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]
        assert scores[0].argmax().item() in classes


@needs_weights
def test_lite0_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load_lite0_weights(efficientnet_lite0(), tmp_path / "nowhere.pth")
    state = torch.load(WEIGHTS[0], weights_only=True)
    for change, word in (
        (lambda s: s.pop("_bn1.bias"), "_bn1.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "extra"),
    ):
        changed = dict(state)
        change(changed)
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(ValueError, match=word):
            efficientnet_lite0(tmp_path / "changed.pth")


class Evil:
    def __reduce__(self):
        return (print, ("a pickle was run",))


def test_a_weight_file_is_never_run_as_code(tmp_path, capsys):
    torch.save({"_conv_stem.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(Exception, match="[Ww]eights"):
        efficientnet_lite0(tmp_path / "evil.pth")
    assert "a pickle was run" not in capsys.readouterr().out


@needs_landmarks
@pytest.mark.parametrize("side", [256, 192])
def test_blazepose_features_are_those_of_the_interpreter(side):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    backbone = blazepose(LANDMARKS).eval()
    for conv in backbone.modules():
        if getattr(conv, "centered", False):
            conv.centered, conv.padding = False, (2, 2)  # as the file's
    net = interpreter.Interpreter(
        str(LANDMARKS),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    net.allocate_tensors()
    x = np.random.default_rng(side).random((256, 256, 3), np.float32)
    x[side:], x[:, side:] = 0, 0
    net.set_tensor(net.get_input_details()[0]["index"], x[None])
    net.invoke()
    with torch.no_grad():
        ours = backbone.features(torch.from_numpy(x).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    theirs = [net.get_tensor(t["index"])[0] for t in net.get_tensor_details() if tuple(t["shape"]) == (1, 8, 8, 288)]
    assert ours.max() > 1 and min(abs(ours - maps).max() for maps in theirs) < 1e-3


@needs_landmarks
def test_blazepose_weights_that_do_not_fit_are_refused(tmp_path):
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(FileNotFoundError, match="nowhere.tflite"):
        blazepose(tmp_path / "nowhere.tflite")
    content = LANDMARKS.read_bytes()
    for name, damaged in (
        ("text", b"no network"),
        ("half", content[: len(content) // 2]),
        ("zeros", content[:8] + bytes(1000)),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=name):
            blazepose(tmp_path / name)
    with pytest.raises(ValueError, match="pose_detection.tflite"):
        blazepose(LANDMARKS.with_name("pose_detection.tflite"))
    other = blazepose()
    other.features[0][0] = PaddedConv2d(3, 24, 5, 2)
    with pytest.raises(ValueError, match=r"convolution 0: expected a kernel \(24, 3, 5, 5\)"):
        load_blazepose_weights(other, LANDMARKS)


def test_norms_without_statistics_stay_in_inference_mode():
    backbone = blazepose(momentum=0.5).train().freeze_until(16)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.rand(2, 3, 64, 64)).square().sum().backward()
    changed = {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(k.startswith("after.") for k in changed)  # running statistics of its own blocks only
    trained = {
        k.split(".")[1] for k, p in backbone.named_parameters() if k.startswith("features.") and p.grad is not None
    }
    assert trained == {"7", "8", "9"} and all(p.grad is not None for p in backbone.after.parameters())


@pytest.mark.parametrize("make", [tiny_backbone, efficientnet_lite0, resnet50])
def test_normalise_takes_bytes_and_floats_alike(make):
    backbone = make()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.allclose(backbone.normalise(images), backbone.normalise(images / 255), atol=1e-5)


def test_lite0_scales_as_its_weights_expect():
    images = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert torch.allclose(efficientnet_lite0().normalise(images)[0, 0, 0], torch.tensor([-127 / 128, 0, 1.0]))


@pytest.mark.parametrize("make", [make for make in ALL if make not in (efficientnet_v2_m, efficientnet_v2_l)])
def test_description_builds_it_again(make):
    with torch.device("meta"):
        one = make()
        two = backbone_from(one.description)
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in two.state_dict().items()}
    assert (one.stride, one.out_channels, one.strides) == (two.stride, two.out_channels, two.strides)


@pytest.mark.parametrize(
    "description, word",
    [
        ({"name": "vgg", "options": {}}, "vgg"),
        ("tiny_backbone", "expected a name"),
        ({"name": "resnet50", "options": {"depth": 3}}, "depth"),
        ({"name": "efficientnet_lite0", "options": {"stride": 8}}, "16 or 32"),
    ],
)
def test_bad_descriptions_are_refused(description, word):
    with pytest.raises(ValueError, match=word):
        backbone_from(description)


@pytest.mark.parametrize("until, n", [(0, 0), (2, 2), (4, 3), (8, 4), (16, 6), (32, 9)])
def test_frozen_parts_do_not_change(until, n):
    backbone = efficientnet_lite0(momentum=0.5).train().freeze_until(until)
    assert backbone.n_frozen == n
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    x = torch.randn(2, 3, 64, 64)
    y = backbone(x)
    if until < 32:
        y.square().sum().backward()
    trained = [p for p in backbone.parameters() if p.grad is not None]
    if trained:
        torch.optim.SGD(trained, lr=0.1).step()
    changed = {int(k.split(".")[1]) for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == set(range(n, 9))
    assert not backbone.eval().training and backbone.train().freeze_until(0).features[0].training


def test_frozen_and_thawed_networks_agree():
    torch.manual_seed(0)
    backbone = efficientnet_lite0().eval()
    x = torch.randn(6, 3, 64, 64)
    plain = backbone(x)
    backbone.freeze_until(8)
    assert torch.allclose(backbone(x), plain, atol=1e-4)


@pytest.mark.parametrize(
    "kernel, stride, groups, centered", [(3, 2, 1, True), (5, 2, 8, True), (5, 1, 8, False), (1, 2, 1, True)]
)
def test_folded_norm_is_the_norm(kernel, stride, groups, centered):
    torch.manual_seed(0)
    unit = conv_norm(8, 8, kernel, stride, groups, torch.nn.SiLU, centered).double().eval()
    (
        torch.nn.init.uniform_(unit[1].running_mean, -2, 2),
        torch.nn.init.uniform_(unit[1].running_var, 0.1, 3),
        torch.nn.init.normal_(unit[1].bias),
    )
    x = torch.randn(2, 8, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        folded = unit(x)
    assert torch.allclose(folded, unit(x), atol=1e-10)


def test_joined_cells_see_both_resolutions():
    torch.manual_seed(0)
    backbone = efficientnet_lite0_joined(channels=64).eval()
    x = torch.randn(3, 3, 96, 96)
    fine = x
    for part in backbone.features[:6]:
        fine = part(fine)
    coarse = fine
    for part in backbone.features[6:]:
        coarse = part(coarse)
    assert fine.shape[1:] == (112, 6, 6) and coarse.shape[1:] == (320, 3, 3)
    unfolded = backbone.from_coarse(coarse).reshape(3, 64, 2, 2, 3, 3).permute(0, 1, 4, 2, 5, 3).reshape(3, 64, 6, 6)
    assert torch.allclose(backbone(x), backbone.after(backbone.from_fine(fine) + unfolded), atol=1e-5)
    backbone.train().freeze_until(8)(x).sum().backward()
    assert backbone.from_coarse.weight.grad is not None and backbone.features[3][0].block[0][0].weight.grad is None


def test_depthwise_filters_stay_in_float32_under_autocast_on_cpu():
    torch.manual_seed(0)
    unit = conv_norm(16, 16, 5, groups=16, activation=torch.nn.ReLU6)
    x = torch.randn(4, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = unit[0](x.bfloat16())
    assert low.dtype == torch.float32 and torch.equal(low, unit[0](x.bfloat16().float()))
    backbone = efficientnet_lite0_joined().train()
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(torch.randn(2, 3, 64, 64))
    features.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())


def test_centred_padding_shifts_an_even_convolution_by_one_pixel():
    x = torch.randn(1, 2, 17, 17)
    for kernel in (3, 5):
        even, centered = PaddedConv2d(2, 4, kernel, 2), PaddedConv2d(2, 4, kernel, 2, centered=True)
        centered.load_state_dict(even.state_dict())
        shifted = torch.roll(F.pad(x, (8, 8, 8, 8)), (-1, -1), (2, 3))[..., 8:-8, 8:-8]
        assert torch.allclose(centered(x)[..., 2:-2, 2:-2], even(shifted)[..., 2:-2, 2:-2], atol=1e-5)


def test_dropped_paths_keep_the_mean():
    torch.manual_seed(0)
    block = efficientnet_v2_s(drop_path=0.5).features[6][5]
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    x = torch.randn(1, 256, 2, 2).expand(400, -1, -1, -1)
    block.training = False
    whole = block(x[:1]) - x[:1]
    block.training = True
    dropped = (block(x) - x).detach()
    assert 0.3 < (dropped.flatten(1).abs().amax(1) == 0).float().mean() < 0.55  # 0.5 x 33 / 40 of the examples
    assert torch.allclose(dropped.mean(0, keepdim=True), whole, atol=0.2 * whole.abs().max().item())
