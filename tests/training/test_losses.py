"""Losses: the original's values and gradients, float64 finite differences, and what NaN and empty masks must not do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.geometry.cameras import project
from acae_nb.models.pose_model import PoseOutput, combine_points
from acae_nb.training.losses import (
    LossTerms,
    consistency_loss,
    hybrid_loss,
    labelled,
    latent_loss,
    pose_loss_2d,
    pose_loss_3d,
    relative_to_mean,
    reproduce,
    separate_loss,
    weighted_mean,
)

K = torch.tensor([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]], dtype=torch.float64)
NAN = float("nan")


def name_pooling(names, wanted):
    rows = [[float(name.startswith(w)) for name in names] for w in wanted]
    return torch.tensor([[v / sum(row) for v in row] for row in rows])


def as_batch(arrays, facts, dtype=torch.float32):
    """The case's 3D and 2D part as one batch of ours, NaN where its masks say no, and its predictions as one leaf."""
    t = {
        k.split("/", 1)[-1] + ("" if not k.startswith("grad/") else "@grad"): torch.from_numpy(np.array(v))
        for k, v in arrays.items()
    }
    n3, n2 = len(t["coords3d_true"]), len(t["coords2d_true_2d"])
    joints3d = torch.full((n3 + n2, *t["coords3d_true"].shape[1:]), NAN)
    joints3d[:n3] = torch.where(t["joint_validity_mask"][..., None], t["coords3d_true"], NAN)
    joints2d = torch.full((n3 + n2, *t["coords2d_true_2d"].shape[1:]), NAN)
    joints2d[n3:] = torch.where(t["joint_validity_mask_2d"][..., None], t["coords2d_true_2d"], NAN)
    size = facts["flags"]["proc_side"]
    batch = SimpleNamespace(
        size=size,
        joints3d=joints3d.to(dtype),
        joints2d=joints2d.to(dtype),
        intrinsics=torch.cat([t["intrinsics"], t["intrinsics_2d"]]).to(dtype),
        is_2d=torch.arange(n3 + n2) >= n3,
        weight=torch.ones(n3 + n2),
    )
    joints = torch.cat([t["coords3d_pred_abs"], t["coords3d_pred_abs2d"]]).to(dtype).requires_grad_()
    grad = torch.cat([t["coords3d_pred_abs@grad"], t["coords3d_pred_abs2d@grad"]])
    pooling = name_pooling(facts["flags"]["joint_names"], facts["flags"]["joint_names_2d"])
    return batch, PoseOutput(joints, project(joints, batch.intrinsics)), pooling, grad


def close(found, expected, rtol=1e-4):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=rtol * scale)


def test_conformance_3d_loss(conformance):
    a, facts = conformance("loss3d")
    pred, true, k, mask = (torch.from_numpy(a[n]) for n in ("pred", "true", "K", "mask"))
    size, stride = facts["flags"]["proc_side"], facts["flags"]["stride_train"]
    close(pose_loss_3d(pred, true, k, size, stride).total, a["loss3d_nomask"])
    close(pose_loss_3d(pred, torch.where(mask[..., None], true, NAN), k, size, stride).total, a["loss3d_mask"])
    names = [
        f"{n}_{s}"
        for s in "ab"
        for n in "pelv lhip rhip lkne rkne lank rank spin neck head lsho rsho lelb relb lwri rwri".split()
    ]
    wanted = "lank rank lkne rkne lhip rhip lwri rwri lelb relb lsho rsho neck".split()
    close(combine_points(name_pooling(names, wanted), pred[..., :2]), a["twod_like"])


def test_conformance_separate(conformance):
    a, facts = conformance("losses_plain_late")
    batch, output, pooling, grad = as_batch(a, facts)
    terms = separate_loss(output, batch, pooling, 32)
    close(terms.total.detach(), a["loss/loss"])
    close(terms.values["2d/projected"].detach(), a["loss/loss_2dbatch"])
    close(torch.autograd.grad(terms.total, output.joints)[0], grad)


def test_conformance_consistency(conformance):
    a, facts = conformance("losses_regularize_to_manifold")
    w1, w2 = torch.from_numpy(a["w1"]).T, torch.from_numpy(a["w2"]).T
    batch, output, pooling, grad = as_batch({k: v for k, v in a.items() if k not in ("w1", "w2")}, facts)
    terms = consistency_loss(output, batch, pooling, 32, w1, w2)
    close(terms.values["consistency"].detach(), a["loss/loss_pred_vs_reconstr"])
    close(terms.values["2d/consistency"].detach(), a["loss/loss_pred_vs_reconstr_2dbatch"])
    close(terms.total.detach(), a["loss/loss"])
    close(torch.autograd.grad(terms.total, output.joints)[0], grad)


def scene(rows=5, joints=12, n_latents=4, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=dtype)

    truth = normal(rows, joints, 3) * 200 + torch.tensor([0.0, 0, 3000], dtype=dtype)
    pooling = torch.softmax(normal(3, joints), 1)
    k = K.to(dtype).expand(rows, 3, 3)
    batch = SimpleNamespace(
        size=256,
        intrinsics=k,
        is_2d=torch.arange(rows) >= rows - 2,
        weight=torch.ones(rows),
        joints3d=truth.clone(),
        joints2d=combine_points(pooling, project(truth, k)) + normal(rows, 3, 2) * 5,
    )
    batch.joints3d[rows - 2 :], batch.joints2d[: rows - 2], batch.joints3d[0, 3:5] = NAN, NAN, NAN
    e, d = torch.softmax(normal(n_latents, joints), 1), torch.softmax(normal(joints, n_latents), 1)
    direct = (truth + normal(rows, joints, 3) * 40).requires_grad_()
    latents = (combine_points(e, truth) + normal(rows, n_latents, 3) * 40).requires_grad_()
    return batch, pooling, e, d, direct, latents


def output_of(batch, decoder, direct, latents, joints):
    decoded = combine_points(decoder, latents)
    chosen = direct if joints == "direct" else decoded
    return PoseOutput(chosen, project(chosen, batch.intrinsics), latents, direct, decoded)


def test_gradients_by_finite_differences():
    batch, pooling, e, d, direct, latents = scene()
    losses = {
        "separate": lambda p, q: separate_loss(output_of(batch, d, p, q, "direct"), batch, pooling, 32).total,
        "consistency": lambda p, q: (
            consistency_loss(output_of(batch, d, p, q, "direct"), batch, pooling, 32, e, d).total
        ),
        "latent": lambda p, q: latent_loss(output_of(batch, d, p, q, "decoded"), batch, pooling, 32).total,
        "hybrid": lambda p, q: (
            hybrid_loss(output_of(batch, d, p, q, "decoded"), batch, pooling, 32, e, d, teacher_weight=0.0).total
        ),
    }
    for name, loss in losses.items():
        assert torch.autograd.gradcheck(loss, (direct, latents), eps=1e-4, atol=1e-7, rtol=1e-4), name


def test_teacher_gets_no_gradient_from_its_student():
    batch, pooling, e, d, direct, latents = scene()
    output = output_of(batch, d, direct, latents, "decoded")
    with_teacher, without = (hybrid_loss(output, batch, pooling, 32, e, d, teacher_weight=w).total for w in (1.0, 0.0))
    for leaf, same in ((direct, True), (latents, False)):
        a, b = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (with_teacher, without))
        assert torch.allclose(a, b) == same


def test_hybrid_is_the_sum_the_method_states():
    batch, pooling, e, d, p, q = scene()
    terms = hybrid_loss(output_of(batch, d, p, q, "decoded"), batch, pooling, 32, e, d, teacher_weight=0.7)
    three, two = batch.joints3d[:3], batch.joints2d[3:]
    k3, k2 = batch.intrinsics[:3], batch.intrinsics[3:]

    def l3(x):
        return pose_loss_3d(x, three, k3, 256, 32).total

    def l2(x):
        return pose_loss_2d(x, two, k2, pooling, 256, 32).total

    def t(rows, k):
        return pose_loss_3d(q[rows], combine_points(e, p[rows]).detach(), k, 256, 32).total

    a, dq = reproduce(p, e, d), combine_points(d, q)
    first, last = slice(0, 3), slice(3, 5)
    expected = (
        l3(p[first])
        + l3(dq[first])
        + l3(a[first])
        + (p - a)[first].abs().mean() / 1000
        + 0.7 * t(first, k3)
        + 0.2
        * (l2(p[last]) + l2(dq[last]) + l2(a[last]) + 0.5 * (p - a)[last].abs().mean() / 1000 + 0.5 * 0.7 * t(last, k2))
    )
    assert torch.allclose(terms.total, expected)


@pytest.mark.parametrize("emptied", ["joints3d", "joints2d", "both"])
def test_no_labels_contribute_zero_and_no_gradient(emptied):
    batch, pooling, e, d, direct, latents = scene()
    for name in ("joints3d", "joints2d") if emptied == "both" else (emptied,):
        getattr(batch, name)[:] = NAN
    terms = separate_loss(output_of(batch, d, direct, latents, "direct"), batch, pooling, 32)
    (gradient,) = torch.autograd.grad(terms.total, direct)
    assert terms.total.isfinite() and gradient.isfinite().all()
    if emptied == "both":
        assert terms.total == 0 and (gradient == 0).all()


def test_only_one_kind_of_rows():
    batch, pooling, e, d, direct, latents = scene()
    for rows in (False, True):
        batch.is_2d[:] = rows
        for loss, joints in ((consistency_loss, "direct"), (hybrid_loss, "decoded")):
            total = loss(output_of(batch, d, direct, latents, joints), batch, pooling, 32, e, d).total
            assert total.isfinite() and torch.autograd.grad(total, direct)[0].isfinite().all()


def test_hard_cases_stay_finite():
    """Behind the camera, at its centre, far outside the view, labels closer than 300 mm."""
    truth = torch.tensor([[[0.0, 0, 3000], [0, 0, 200], [1e6, 0, 1000], [0, 0, -500]]], dtype=torch.float64)
    guess = torch.tensor(
        [[[0.0, 0, -3000], [0, 0, 0], [-1e7, 0, 1], [1e3, 0, 1e7]]], dtype=torch.float64, requires_grad=True
    )
    terms = pose_loss_3d(guess, truth, K[None], 256, 32)
    (gradient,) = torch.autograd.grad(terms.total, guess)
    assert terms.total.isfinite() and gradient.isfinite().all()
    assert terms.values["projected"] == 0  # none of the guesses is in view and in front


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_mean_with_a_mask_is_that_of_the_selected(seed, share):
    g = torch.Generator().manual_seed(seed)
    x, mask = torch.randn(4, 5, 3, generator=g), torch.rand(4, 5, generator=g) < share
    expected = np.mean(x.numpy()[mask.numpy()]) if mask.any() else 0
    assert np.isclose(weighted_mean(x, mask).value, expected, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_weighted_mean_is_that_of_numpy(seed):
    g = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(4, 5, 3, generator=g), torch.rand(4, 5, generator=g) * 1e-3
    mean, expected = weighted_mean(x, weight), np.average(x.numpy(), weights=weight[..., None].expand_as(x).numpy())
    assert np.isclose(mean.value, expected, atol=1e-5) and np.isclose(mean.weight, 3 * weight.sum())


# --- weights of examples --------------------------------------------------------------------------------------------
USES = {
    "separate": (separate_loss, "direct", False),
    "consistency": (consistency_loss, "direct", True),
    "latent": (latent_loss, "decoded", False),
    "hybrid": (hybrid_loss, "decoded", True),
}


def total_and_gradients(use, batch, pooling, e, d, direct, latents):
    loss, joints, bridged = USES[use]
    matrices = (e, d) if bridged else ()
    total = loss(output_of(batch, d, direct, latents, joints), batch, pooling, 32, *matrices).total
    return total, torch.autograd.grad(total, (direct, latents), allow_unused=True)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("row", [1, 4])  # with 3D labels, with 2D labels
def test_an_example_of_weight_0_might_as_well_be_absent(use, row):
    batch, pooling, e, d, direct, latents = scene()
    batch.weight[row] = 0
    total, gradients = total_and_gradients(use, batch, pooling, e, d, direct, latents)
    assert all((g[row] == 0).all() for g in gradients if g is not None)
    others = [r for r in range(5) if r != row]
    fields = {name: value if name == "size" else value[others] for name, value in vars(batch).items()}
    expected, _ = total_and_gradients(use, SimpleNamespace(**fields), pooling, e, d, direct[others], latents[others])
    assert torch.allclose(total, expected)


@pytest.mark.parametrize("use", USES)
def test_an_example_of_weight_2_counts_as_two(use):
    batch, pooling, e, d, direct, latents = scene()
    twice = [0, 0, 1, 2, 3, 4, 4]
    fields = {name: value if name == "size" else value[twice] for name, value in vars(batch).items()}
    expected, _ = total_and_gradients(use, SimpleNamespace(**fields), pooling, e, d, direct[twice], latents[twice])
    batch.weight[[0, 4]] = 2
    assert torch.allclose(total_and_gradients(use, batch, pooling, e, d, direct, latents)[0], expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_relative_term_ignores_where_the_body_is(seed):
    g = torch.Generator().manual_seed(seed)
    truth, guess = (torch.randn(2, 6, 3, generator=g, dtype=torch.float64) * 200 + 3000 for _ in range(2))
    truth[0, :2] = NAN
    moved = guess + torch.randn(2, 1, 3, generator=g, dtype=torch.float64) * 500
    a, b = (pose_loss_3d(x, truth, K.expand(2, 3, 3), 256, 32).values["relative"] for x in (guess, moved))
    assert torch.allclose(a, b)
    assert relative_to_mean(guess, labelled(truth, 0.0)[1])[0, 2:].mean(0).abs().max() < 1e-9


def test_terms_named_twice_are_refused():
    one = LossTerms({"a": torch.tensor(1.0)}, {"a": 1.0})
    with pytest.raises(ValueError, match="a"):
        one + one
