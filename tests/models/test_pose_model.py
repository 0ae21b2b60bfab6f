"""Pose model: the original's numbers, slow oracles, finite differences, degenerate inputs, batch invariance, and files
on disk."""

import hashlib
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from acae_nb.geometry.cameras import project
from acae_nb.models.backbones import efficientnet_lite0, tiny_backbone
from acae_nb.models.pose_model import (
    DecodedPoints,
    HeatmapHead,
    HybridPoints,
    PoseModel,
    SeparateJoints,
    combine_points,
    heatmap_coordinates,
    heatmap_to_image,
    heatmap_to_metric,
    is_within_view,
    load_pose_model,
    reconstruct_absolute,
    reference_full_perspective,
    rms_over_batch,
    rms_per_example,
    save_pose_model,
    soft_argmax,
    start_from,
)
from acae_nb.skeletons.joints import Skeleton

MM = 0.05  # tolerance of poses in the conformance cases


def tensors(arrays):
    return {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}


def affine(rows, columns, seed=0):
    m = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.3
    return m + (1 - m.sum(1, keepdim=True)) / columns


def small_skeleton(n):
    return Skeleton(f"small_{n}", tuple(f"j{i}" for i in range(n)), edges=((0, 1),), mirror=tuple(range(n)))


def crops(n=4, size=128, seed=0):
    g = torch.Generator().manual_seed(seed)
    k = torch.tensor([[size * 1.2, 0, size / 2], [0, size * 1.2, size / 2], [0, 0, 1]]).expand(n, 3, 3)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=g), k


# --- conformance
# ----------------------------------------------------------------------------------------------------


def test_conformance_soft_argmax(conformance):
    a = tensors(conformance("soft_argmax")[0])
    assert (soft_argmax(a["logits2d"][:, None])[..., :2] - a["coords2d"]).abs().max() < 1e-5
    assert (soft_argmax(a["logits3d"]) - a["coords3d"]).abs().max() < 1e-5


def test_conformance_heatmap_to(conformance):
    arrays, facts = conformance("heatmap_to")
    a = tensors(arrays)
    for name, f in facts["flags"].items():
        stride = f["stride_train"] if f["training"] else f["stride_test"]
        shared = (f["proc_side"], stride)
        flags = {"centered": f["centered_stride"], "legacy_shift": f["legacy_centered_stride_bug"]}
        image = heatmap_to_image(a["coords"], *shared, **flags)
        metric = heatmap_to_metric(a["coords"], *shared, f["box_size_mm"], **flags)
        assert (image - a[f"image_{name}"]).abs().max() < 1e-3 and (metric - a[f"metric_{name}"]).abs().max() < MM, name
        assert (torch.cat([image, metric[..., 2:]], -1) - a[f"d25_{name}"]).abs().max() < MM, name


def test_conformance_reconstruct(conformance):
    a = tensors(conformance("reconstruct_exact")[0])
    given_ = a["coords2d"], a["coords3d_rel"], a["intrinsics"]
    inside = is_within_view(a["coords2d"], 256, 32)
    assert torch.equal(inside, a["is_within_fov"])
    for mix in (None, 0.0, 0.5, 1.0):
        for kind in ("weak", "full"):
            found = reconstruct_absolute(*given_, inside, mix or 0.0, kind == "weak", rms_over_batch)
            assert (found - a[f"{kind}_mix{mix}"]).abs().max() < MM, (kind, mix)
    assert (reconstruct_absolute(*given_, inside, 0.5) - a["full_mix0.5_batch_of_one"]).abs().max() < MM
    assert (
        reconstruct_absolute(*given_, inside, 0.5) - a["full_mix0.5"]
    ).abs().max() > 0.1  # the batch does matter in the original


def test_conformance_linear_combine(conformance):
    a = tensors(conformance("linear_combine")[0])
    assert (combine_points(a["weights"].T, a["points"]) - a["out"]).abs().max() < MM


def test_conformance_head(conformance):
    """The case's weights are large and its features nearly equal, so sums of several hundred cancel: float32 in another
    order of summation moves points by up to 0.3 mm (exact arithmetic is 0.16 mm from the case). In the order of the
    reference (two threads, AVX-512) they agree."""
    a = tensors(conformance("head_eff2s_J24")[0])
    head = HeatmapHead(1280, 24)
    head.conv_final.load_state_dict({"weight": a["weight"], "bias": a["bias"]})
    torch.set_num_threads(2)
    with torch.no_grad():
        image, metric = heatmap_coordinates(head(a["features"]))
    torch.set_num_threads(1)
    px, relative = heatmap_to_image(image, 256, 32), heatmap_to_metric(metric, 256, 32)
    absolute = reconstruct_absolute(px, relative, a["intrinsics"], is_within_view(px, 256, 32), rms=rms_over_batch)
    same_order = torch.backends.cpu.get_cpu_capability() == "AVX512" and (os.cpu_count() or 1) > 1
    tolerance = MM if same_order else 0.35
    assert (px - a["coords2d"]).abs().max() < tolerance / 8 and (relative - a["coords3d"]).abs().max() < tolerance
    assert (absolute - a["abs"]).abs().max() < tolerance
    inside = is_within_view(a["coords2d"], 256, 32)
    from_theirs = reconstruct_absolute(a["coords2d"], a["coords3d"], a["intrinsics"], inside, rms=rms_over_batch)
    assert not inside.all() and (from_theirs - a["abs"]).abs().max() < MM


def test_conformance_mirror(conformance):
    a = tensors(conformance("mirror_tta")[0])
    swapped = torch.where(a["should_flip"][:, None, None, None], a["poses"][:, :, a["mirror_mapping"]], a["poses"])
    assert (swapped - a["out"]).abs().max() < MM


# --- oracles
# ----------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.floats(0.1, 40), st.integers(0, 999)
)
def test_soft_argmax_is_the_mean_of_the_softmax(d, j, h, w, spread, seed):
    logits = torch.randn(2, d, j, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread
    p = logits.movedim(2, 1).reshape(2, j, -1).softmax(-1).reshape(2, j, d, h, w)

    def at(n):
        return torch.linspace(0, 1, n, dtype=torch.float64) if n > 1 else torch.zeros(1, dtype=torch.float64)

    slow = torch.stack(
        [(p.sum((2, 3)) * at(w)).sum(-1), (p.sum((2, 4)) * at(h)).sum(-1), (p.sum((3, 4)) * at(d)).sum(-1)], -1
    )
    assert torch.allclose(soft_argmax(logits), slow, atol=1e-12)


def test_soft_argmax_is_float32_under_autocast():
    logits = torch.randn(2, 8, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        low = soft_argmax(logits)
    assert low.dtype == torch.float32 and torch.equal(low, soft_argmax(logits.float()))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(0, 9999), st.floats(0, 0.9))
def test_full_perspective_is_weighted_least_squares(n, seed, outside):
    g = torch.Generator().manual_seed(seed)
    relative = torch.randn(1, n, 3, generator=g, dtype=torch.float64) * 300
    rays = torch.randn(1, n, 2, generator=g, dtype=torch.float64) * 0.3 + 0.4
    weights = torch.where(torch.rand(1, n, generator=g) < outside, 1e-4, 1.0).double()
    a = torch.cat(
        [torch.eye(2, dtype=torch.float64).repeat(n, 1), -(rays / rms_per_example(rays)[:, None]).reshape(-1, 1)], 1
    )
    b = rays * relative[..., 2:] - relative[..., :2]
    scale = rms_per_example(b)[0]
    w = weights[0].repeat_interleave(2)[:, None]
    stacked = torch.cat([a * w, 0.1 * torch.eye(3, dtype=torch.float64)])  # the regulariser as three more rows
    rhs = torch.cat([(b / scale).reshape(-1, 1) * w, torch.zeros(3, 1, dtype=torch.float64)])
    r = torch.linalg.lstsq(stacked, rhs).solution[:, 0]
    expected = torch.cat([r[:2], r[2:] / rms_per_example(rays)[0]]) * scale
    assert torch.allclose(reference_full_perspective(rays, relative, weights)[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("seen", [1, 2, 5, 24])
def test_points_out_of_view_weigh_as_in_metrabs(seen):
    """A mask plus 1e-4 weighs the equations: with few points in view the regulariser is strong, and 1 instead of 1.0001
    moves the pose by tenths of a millimetre."""
    rng, k = np.random.default_rng(seen), np.array([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]])
    body, px = rng.normal(0, 300, (24, 3)), np.full((24, 2), -200.0)
    px[:seen] = 128 + rng.normal(0, 40, (seen, 2))
    n2 = (px - 128) / 300
    s2, b = np.sqrt((n2**2).mean()), n2 * body[:, 2:] - body[:, :2]
    sb, w = np.sqrt((b**2).mean()), np.repeat((np.arange(24) < seen) + 1e-4, 2)[:, None]
    a = np.concatenate([np.tile(np.eye(2), (24, 1)), -(n2 / s2).reshape(-1, 1)], 1) * w
    r = np.linalg.solve(a.T @ a + 1e-2 * np.eye(3), a.T @ ((b / sb).reshape(-1, 1) * w))[:, 0]
    shifted = body + r * sb / [1, 1, s2]
    found = reconstruct_absolute(
        *(torch.from_numpy(x[None]) for x in (px, body, k)), torch.arange(24)[None] < seen, 1.0
    )
    assert np.abs(found[0].numpy() - shifted).max() < 1e-3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.floats(800, 9000))
def test_exact_inputs_are_found_again(seed, depth):
    g = torch.Generator().manual_seed(seed)
    body = torch.randn(1, 20, 3, generator=g) * torch.tensor([150.0, 250, 100])
    k = torch.tensor([[[depth * 0.1, 0, 128], [0, depth * 0.1, 128], [0, 0, 1]]])
    truth = body + torch.tensor([0, 0, depth])
    px = project(truth, k)
    found = reconstruct_absolute(px, body - body.mean(), k, is_within_view(px, 256, 32))
    assert (found - truth).norm(dim=-1).max() < 0.02 * depth
    assert (project(found, k) - px).abs().max() < 2


def test_gradients_by_finite_differences():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_argmax, logits)
    px = (torch.rand(2, 6, 2, generator=g, dtype=torch.float64) * 300 - 20).requires_grad_()
    relative = (torch.randn(2, 6, 3, generator=g, dtype=torch.float64) * 300).requires_grad_()
    k = torch.tensor([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    inside = is_within_view(px, 256, 32).detach()
    assert inside.any() and not inside.all()
    for weak in (False, True):

        def run(p, r):
            return reconstruct_absolute(p, r, k, inside, torch.tensor([0.2, 0.9], dtype=torch.float64), weak)

        assert torch.autograd.gradcheck(run, (px, relative), eps=1e-5, atol=1e-4, rtol=1e-4), weak


# --- degenerate inputs
# ----------------------------------------------------------------------------------------------------


def degenerate():
    body = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(1)) * 200
    px = torch.rand(1, 8, 2, generator=torch.Generator().manual_seed(2)) * 150 + 50
    none, one = torch.zeros(1, 8, dtype=torch.bool), torch.arange(8)[None] == 3
    return {
        "no joint in view": (px - 1000, body, none),
        "one joint in view": (px, body, one),
        "all pixels equal": (px * 0 + 90, body, ~none),
        "all at the optical axis": (px * 0 + 128, body, ~none),
        "no extent in 3D": (px, body * 0, ~none),
        "everything zero": (px * 0 + 128, body * 0, ~none),
        "mirrored, so behind the camera": (
            256 - px,
            project(body + torch.tensor([0.0, 0, 3000]), torch.eye(3)[None]).repeat_interleave(2, -1)[..., :3] * 9e5,
            ~none,
        ),
    }


@pytest.mark.parametrize("name", list(degenerate()))
@pytest.mark.parametrize("weak", [False, True])
def test_degenerate_inputs_are_finite_with_finite_gradients(name, weak):
    px, relative, inside = (t.clone() for t in degenerate()[name])
    px.requires_grad_(), relative.requires_grad_()
    k = torch.tensor([[[300.0, 0, 128], [0, 300, 128], [0, 0, 1]]])
    out = reconstruct_absolute(px, relative, k, inside, 0.5, weak)
    grads = torch.autograd.grad(out.sum(), (px, relative))
    assert out.isfinite().all() and all(g.isfinite().all() for g in grads)


def test_a_body_wholly_outside_the_view_is_not_pulled_into_the_camera():
    body = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(3)) * 200
    truth = body + torch.tensor([4000.0, 0, 4000])
    k = torch.tensor([[[300.0, 0, 128], [0, 300, 128], [0, 0, 1]]])
    px = project(truth, k)
    inside = is_within_view(px, 256, 32)
    found = reconstruct_absolute(px, body, k, inside)
    assert (
        not inside.any() and (found - truth).norm(dim=-1).max() < 0.15 * truth.norm(dim=-1).max()
    )  # the regulariser's pull


# --- the module
# ----------------------------------------------------------------------------------------------------

LAYOUTS = {
    "separate": lambda: SeparateJoints(12),
    "decoded": lambda: DecodedPoints(affine(12, 5)),
    "hybrid": lambda: HybridPoints(affine(5, 12), affine(12, 5)),
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_batch_mates_move_a_pose_by_less_than_a_hundredth_mm(name):
    torch.manual_seed(0)
    model = PoseModel(efficientnet_lite0(stride=16, last_conv=False), LAYOUTS[name]()).eval()
    with torch.no_grad():  # spread the heatmaps out as training does
        model.heatmap_heads.conv_final.weight *= 20
        images, k = crops(4)
        together = model(images, k).joints
        others, _ = crops(4, seed=9)
        mixed = model(torch.cat([images[:1], others]), k[:1].expand(5, 3, 3)).joints[:1]
        alone = torch.cat([model(images[i : i + 1], k[:1]).joints for i in range(4)])
    assert (together - alone).abs().max() < 0.01 and (mixed - together[:1]).abs().max() < 0.01


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_every_weight_gets_a_gradient_and_the_matrices_none(name):
    model = PoseModel(tiny_backbone(), LAYOUTS[name](), depth=4)
    images, k = crops()
    output = model(images, k, mix=torch.rand(4), weak_perspective=True)
    total = output.joints.sum() + (output.direct_joints.sum() if output.direct_joints is not None else 0)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert {n for n, _ in model.layout.named_parameters()} == set()
    expected = {"separate": set(), "decoded": {"layout.decoder"}, "hybrid": {"layout.decoder", "layout.encoder"}}[name]
    assert {n for n in model.state_dict() if n.startswith("layout.")} == expected


def test_crop_size_is_read_off_the_images():
    model = PoseModel(tiny_backbone(), SeparateJoints(6)).eval()
    for size in (64, 128, 256):
        images, k = crops(2, size)
        with torch.no_grad():
            px, relative = model.points(model.heatmaps(images), images.shape[-1])
        assert px.min() >= 16 and px.max() <= size - 16 and relative.max() <= 2200
        same = model.points(model.heatmaps(images / 255), images.shape[-1])[0]
        assert (same - px).abs().max() < 1e-2


def test_hybrid_heads_are_independent():
    """The latents' reconstruction must not see the joints' and the other way round."""
    layout = HybridPoints(affine(5, 12), affine(12, 5))
    seen = []
    layout(
        torch.arange(17.0)[None, :, None].expand(1, 17, 2),
        torch.zeros(1, 17, 3),
        lambda px, rel: seen.append(px[0, :, 0].tolist()) or rel,
    )
    assert seen == [list(map(float, range(5))), list(map(float, range(5, 17)))]


def test_start_from_keeps_the_joints_and_combines_the_latents():
    torch.manual_seed(0)
    trained = PoseModel(tiny_backbone(), SeparateJoints(12)).eval()
    encoder = affine(5, 12)
    hybrid = start_from(PoseModel(tiny_backbone(), HybridPoints(encoder, affine(12, 5))), trained, encoder).eval()
    images, k = crops()
    with torch.no_grad():
        for mine, theirs in zip(*(m.points(m.heatmaps(images), images.shape[-1]) for m in (hybrid, trained))):
            assert (mine[:, 5:] - theirs).abs().max() < 0.01
        features = torch.randn(1, 32, 4, 4)
        logits = trained.heatmap_heads.conv_final(features).reshape(9, 12, 16)
        mine = hybrid.heatmap_heads.conv_final(features).reshape(9, 17, 16)[:, :5]
    assert torch.allclose(mine, torch.einsum("lj,djc->dlc", encoder, logits), atol=1e-4)
    with pytest.raises(ValueError, match="SeparateJoints"):
        start_from(trained, hybrid)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DecodedPoints(affine(12, 5) * 1.1),
        lambda: DecodedPoints(torch.full((3, 2), float("nan"))),
        lambda: DecodedPoints(torch.ones(4)),
        lambda: HybridPoints(affine(5, 12), affine(11, 5)),
    ],
)
def test_bad_matrices_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


# --- files
# ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_saved_and_loaded_model_answers_the_same(name, tmp_path):
    model = PoseModel(tiny_backbone(), LAYOUTS[name](), depth=6, box_mm=2000.0).eval()
    save_pose_model(tmp_path / "m", model, small_skeleton(12), {"lr": 1e-4})
    again, skeleton, info = load_pose_model(tmp_path / "m")
    images, k = crops()
    with torch.no_grad():
        assert torch.equal(again(images, k).joints, model(images, k).joints)
    assert (
        skeleton == small_skeleton(12)
        and info["params"] == {"lr": 1e-4}
        and info["code_version"]
        and not again.training
    )
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]


def saved(folder):
    return save_pose_model(folder, PoseModel(tiny_backbone(), DecodedPoints(affine(12, 5))), small_skeleton(12), {})


def edit(folder, change):
    """Changes the tensors and keeps the sum in model.json true, as somebody who edits a model would."""
    path, sidecar = folder / "model.safetensors", folder / "model.json"
    state = load_file(path)
    change(state)
    save_file(state, path)
    info = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(info | {"weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))


def change_info(folder, **changes):
    sidecar = folder / "model.json"
    sidecar.write_text(
        json.dumps({k: v for k, v in (json.loads(sidecar.read_text()) | changes).items() if v is not None})
    )


BAD = {
    "weights absent": (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "model.safetensors"),
    "sidecar absent": (lambda f: (f / "model.json").unlink(), FileNotFoundError, "model.json"),
    "weights cut short": (lambda f: os.truncate(f / "model.safetensors", 5000), ValueError, "5000 bytes"),
    "not JSON": (lambda f: (f / "model.json").write_text("{"), ValueError, "not JSON"),
    "JSON of another kind": (lambda f: (f / "model.json").write_text("[]"), ValueError, "expected the keys"),
    "unknown key": (lambda f: change_info(f, weigths=1), ValueError, "weigths"),
    "key absent": (lambda f: change_info(f, skeleton=None), ValueError, "skeleton"),
    "later format": (lambda f: change_info(f, format=2), ValueError, "format: expected 1, found 2"),
    "unknown backbone": (lambda f: change_info(f, backbone={"name": "vgg", "options": {}}), ValueError, "vgg"),
    "unknown layout": (
        lambda f: change_info(f, layout={"kind": "Cube", "n_joints": 1, "n_points": 1}),
        ValueError,
        "Cube",
    ),
    "other sizes": (
        lambda f: change_info(f, layout={"kind": "DecodedPoints", "n_joints": 12, "n_points": 6}),
        ValueError,
        "heatmap_heads.conv_final.weight: expected shape",
    ),
    "another skeleton": (
        lambda f: change_info(f, skeleton=small_skeleton(11).to_dict()),
        ValueError,
        "model.json: .*expected 12 joints as the layout has, found 11",
    ),
    "no skeleton": (lambda f: change_info(f, skeleton=[1]), ValueError, "model.json: expected a model as"),
    "a backbone in a list": (lambda f: change_info(f, backbone=["vgg"]), ValueError, "model.json: .*backbone"),
    "a layout without numbers": (lambda f: change_info(f, layout={"kind": "Cube"}), ValueError, "model.json: .*layout"),
    "geometry of text": (lambda f: change_info(f, geometry={"depth": "8"}), ValueError, "model.json: .*geometry"),
    "unknown tensor": (lambda f: edit(f, lambda s: s.update(extra=torch.ones(1))), ValueError, "extra: unknown"),
    "tensor absent": (lambda f: edit(f, lambda s: s.pop("layout.decoder")), ValueError, "layout.decoder: missing"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_model_folders_are_refused_by_name(name, tmp_path):
    spoil, error, words = BAD[name]
    folder = saved(tmp_path / "m")
    spoil(folder)
    with pytest.raises(error, match=words):
        load_pose_model(folder)


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    folder = saved(tmp_path / "m")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        saved(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_skeleton_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected 12 joints"):
        save_pose_model(tmp_path, PoseModel(tiny_backbone(), SeparateJoints(12)), small_skeleton(11), {})
    assert list(tmp_path.iterdir()) == []
