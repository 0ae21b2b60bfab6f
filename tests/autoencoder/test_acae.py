"""ACAE: affine by construction, equivariant, right against the original's combination and an autograd oracle, clear
about bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.autoencoder.acae import ACAE, affine_rows, lambda_of_sums, load_acae, objective, save_acae
from acae_nb.autoencoder.affine_factors import (
    LatentSearch,
    Moments,
    Sides,
    alternate,
    choose_latents,
    exchange_latents,
    fold,
    least_squares_decoder,
    surrogate,
    unfold,
)
from acae_nb.autoencoder.affine_polish import fill_missing, projected, spatial
from acae_nb.autoencoder.fitting import fit_acae, mirror_table

MIRROR = np.array([1, 0, 3, 2, 5, 4, 7, 6, 8, 9])
QUICK = dict(n_latent_sided=4, n_latent_center=2, rounds=20, polish_steps=20)


def small_poses(n=300, seed=0):
    return (np.random.default_rng(seed).normal(size=(n, 10, 3)) * 300 + [0, 0, 4000]).astype(np.float32)


def random_acae(seed, J=7, L=3):
    g = torch.Generator().manual_seed(seed)
    return ACAE(
        affine_rows(torch.randn(L, J, generator=g).double()), affine_rows(torch.randn(J, L, generator=g).double())
    )


def test_combines_points_as_the_original(conformance):
    arrays, _ = conformance("linear_combine")
    weights = torch.from_numpy(arrays["weights"]).T.contiguous()
    acae = ACAE(weights, affine_rows(torch.zeros(weights.T.shape)))
    assert np.allclose(acae.encode(torch.from_numpy(arrays["points"])), arrays["out"], rtol=1e-4, atol=1e-3)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_commutes_with_similarities(seed, scale, other):
    acae, g = random_acae(seed), torch.Generator().manual_seed(other)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=g).double())[0]  # reflections too
    points, shift = torch.randn(2, 7, 3, generator=g).double() * 300, torch.randn(3, generator=g).double() * 5000
    assert torch.allclose(
        acae(scale * points @ rotation.T + shift), scale * acae(points) @ rotation.T + shift, rtol=1e-9, atol=1e-6
    )


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_affine_rows_sum_to_one_and_stay_finite(free):
    rows = affine_rows(torch.tensor(free, dtype=torch.float64))
    assert torch.isfinite(rows).all() and torch.allclose(rows.sum(1), torch.ones(len(free)).double(), atol=1e-6)


def test_gradients_in_float64():
    acae = random_acae(0)
    points = torch.randn(2, 7, 3).double().requires_grad_()
    free = torch.randn(3, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(acae, points) and torch.autograd.gradcheck(affine_rows, free)


def test_scripts_and_exports():
    acae, points = random_acae(1), torch.randn(4, 7, 3).double()
    assert torch.allclose(torch.jit.script(acae)(points), acae(points))
    assert torch.allclose(torch.export.export(acae, (points,)).module()(points), acae(points))


def test_mirror_of_a_pose_gives_the_mirror_of_its_latents():
    acae, _ = fit_acae(small_poses(), MIRROR, **QUICK)
    points = torch.from_numpy(small_poses(5, 1))
    flip, twin = torch.tensor([-1.0, 1, 1]), [2, 3, 0, 1, 4, 5]
    assert torch.allclose(acae.encode(points[:, MIRROR] * flip), acae.encode(points)[:, twin] * flip, atol=1e-2)
    assert torch.equal(acae.encoder, acae.encoder[twin][:, MIRROR]) and torch.equal(
        acae.decoder, acae.decoder[MIRROR][:, twin]
    )


def test_fit_is_deterministic_and_seeds_agree(tmp_path):
    poses = small_poses(600)
    (acae, report), (again, _), (other, another) = (fit_acae(poses, MIRROR, seed=s, **QUICK) for s in (0, 0, 1))
    assert torch.equal(acae.encoder, again.encoder) and torch.equal(acae.decoder, again.decoder)
    assert (
        abs(report.total - another.total) < 1e-4 * 30
    )  # random points are as hard as it gets, and this fit is very short
    for w in (acae.encoder, acae.decoder):
        assert (w.sum(1) - 1).abs().max() < 1e-6
    save_acae(acae, tmp_path / "a.safetensors")
    back = load_acae(tmp_path / "a.safetensors")
    assert torch.equal(back.encoder, acae.encoder) and back.latents == acae.latents and back.joints == acae.joints
    assert report.total == pytest.approx(objective(acae, poses), rel=1e-6)


def oracle(poses, encoder, decoder, lam):
    x, y = poses.astype(float), np.einsum("jl,lk,nkc->njc", decoder, encoder, poses)
    scale = x[..., 2].mean(1)[:, None, None] / 1000
    return np.abs((x[..., :2] / x[..., 2:] - y[..., :2] / y[..., 2:]) * scale).mean() + lam * (
        np.abs(encoder).mean() + np.abs(decoder).mean()
    )


def test_objective_is_the_published_one():
    acae, poses = random_acae(2, 10, 4), small_poses(30)
    assert objective(acae, poses, 0.3) == pytest.approx(
        oracle(poses, acae.encoder.numpy(), acae.decoder.numpy(), 0.3), rel=1e-6
    )


def test_sums_are_means_with_another_lambda():
    acae, poses = random_acae(3, 10, 4), small_poses(30)
    x = torch.from_numpy(poses).double()
    sums = ((x - acae(x)).abs() / 1000).sum((1, 2)).mean() + 0.1 * (acae.encoder.abs().sum() + acae.decoder.abs().sum())
    means = objective(acae, poses, lambda_of_sums(0.1, 4, spatial), spatial)
    assert float(sums) == pytest.approx(means * 30, rel=1e-6)


def test_permuting_joints_permutes_weights():
    poses = explained_poses()
    order = np.random.default_rng(3).permutation(12)
    acae, report = fit_acae(poses, n_latent_sided=0, n_latent_center=4, polish_steps=0, rounds=100)
    other, also = fit_acae(poses[:, order], n_latent_sided=0, n_latent_center=4, polish_steps=0, rounds=100)
    product = (acae.decoder @ acae.encoder)[order][:, order]
    assert report.total == pytest.approx(also.total, rel=1e-3)
    assert (product - other.decoder @ other.encoder).abs().max() < 0.05


def explained_poses(n=800, seed=5):
    """12 joints that are convex combinations of 4 of them, with a little noise."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(n, 4, 3)) * 300 + [0, 0, 4000]
    mix = np.concatenate([np.eye(4), rng.dirichlet(np.ones(4), 8)])
    return (mix @ base + rng.normal(size=(n, 12, 3)) * [[[0.5]] * 4 + [[2.0]] * 8]).astype(np.float32)


def test_finds_the_points_that_explain_the_rest():
    acae, report = fit_acae(explained_poses(), n_latent_sided=0, n_latent_center=4)
    assert set(acae.encoder.argmax(1).tolist()) == {0, 1, 2, 3} and report.residual.max() < 2.5 and not report.unused


@pytest.mark.parametrize("loss", [projected, spatial], ids=lambda loss: loss.name)
@pytest.mark.parametrize("spoil", ["constant", "duplicated", "collinear", "rare", "near the camera", "one point"])
def test_weights_stay_finite_on_adversarial_poses(spoil, loss):
    poses = small_poses(400)
    if spoil == "constant":
        poses[:, 4] = [0, 0, 4000]
    if spoil == "duplicated":
        poses[:, 8] = poses[:, 9]
    if spoil == "collinear":
        poses[:] = poses[:, :1] + np.arange(10)[:, None] * np.float32([10, 20, 5])
    if spoil == "rare":
        poses[4:, 6] = np.nan
    if spoil == "near the camera":
        poses[::7, 3, 2] = 1e-3
    if spoil == "one point":
        poses[:] = [100, 200, 4000]
    acae, report = fit_acae(poses, MIRROR, loss=loss, **QUICK)
    for w in (acae.encoder, acae.decoder):
        assert torch.isfinite(w).all() and (w.sum(1) - 1).abs().max() < 1e-5
    assert np.isfinite(report.total)


def test_missing_joints_barely_change_the_fit():
    poses = explained_poses()
    holed = poses.copy()
    holed[np.random.default_rng(0).random(holed.shape[:2]) < 0.2] = np.nan
    acae, _ = fit_acae(holed, n_latent_sided=0, n_latent_center=4, joints=[f"j{i}" for i in range(12)])
    whole, _ = fit_acae(poses, n_latent_sided=0, n_latent_center=4)
    assert objective(acae, poses) < objective(whole, poses) + 5e-4


def test_important_joints_are_kept():
    poses = small_poses(500)
    weights = np.ones(10)
    weights[[8]] = 50
    acae, report = fit_acae(poses, MIRROR, weights=weights, **QUICK)
    assert report.residual.iloc[8] < 0.2 * report.residual.mean()


def test_reads_memory_maps_and_torch_alike(tmp_path):
    poses = small_poses(200)
    np.save(tmp_path / "p.npy", poses)
    fits = [
        fit_acae(p, MIRROR, **QUICK)[0]
        for p in (poses, torch.from_numpy(poses), np.load(tmp_path / "p.npy", mmap_mode="r"))
    ]
    assert all(torch.equal(f.encoder, fits[0].encoder) and torch.equal(f.decoder, fits[0].decoder) for f in fits)


def hole(p):
    p = p.copy()
    p[:, 3] = np.nan
    return p


def half_hole(p):
    p = p.copy()
    p[7, 3, 1] = np.nan
    return p


def strangers(p):
    p = p.copy()
    p[::2, 8] = np.nan
    p[1::2, [j for j in range(10) if j != 8]] = np.nan
    return p


NAMES = ["lhip", "rhip", "lknee", "rknee", "lank", "rank", "lwri", "rwri", "head", "pelvis"]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda p: p[:, :, :2], r"expected shape \[N, 10, 3\], found \[300, 10, 2\]"),
        (lambda p: p[0], r"found \[10, 3\]"),
        (lambda p: p[:2], "at least 5 for 10 joints, found 2"),
        (hole, "'rknee' is missing .NaN. in every pose"),
        (half_hole, "'rknee' in pose 7 has only some"),
        (lambda p: p - np.float32([0, 0, 8000]), "'lhip' in pose 0 has z <= 0"),
        (lambda p: np.where(np.arange(10)[:, None] == 9, np.inf, p), "'pelvis' in pose 0 is infinite"),
        (lambda p: np.where(np.arange(300)[:, None, None] == 5, np.nan, p), "pose 5 shows no joint at all"),
        (strangers, "'lhip' shares no pose|'head' shares no pose"),
    ],
)
def test_says_what_is_wrong_with_poses(spoil, message):
    with pytest.raises(ValueError, match=message):
        fit_acae(spoil(small_poses()), MIRROR, joints=NAMES, **QUICK)


def test_says_what_is_wrong_with_the_rest(tmp_path):
    with pytest.raises(ValueError, match="'nose' mirrors to 'lear', but 'lear' mirrors to 'rear'"):
        mirror_table([1, 2, 0], 3, ["nose", "lear", "rear"])
    with pytest.raises(ValueError, match="n_latent_sided: expected an even number up to 8"):
        fit_acae(small_poses(), MIRROR, n_latent_sided=40)
    with pytest.raises(ValueError, match="weights: expected 10 numbers.*found shape .3."):
        fit_acae(small_poses(), MIRROR, weights=[1, 2, 3], **QUICK)
    with pytest.raises(ValueError, match="positive number for joint 'rhip', found -2"):
        fit_acae(small_poses(), MIRROR, joints=NAMES, weights=[1, -2] + [1] * 8, **QUICK)
    with pytest.raises(ValueError, match="decoder.*sum to one"):
        ACAE(torch.ones(2, 3) / 3, torch.ones(3, 2))
    with pytest.raises(ValueError, match="expected 2 latents and 3 joints"):
        ACAE(torch.ones(2, 3) / 3, torch.ones(3, 2) / 2, joints=["a"])
    from safetensors.torch import save_file

    save_file({"encoder": torch.ones(2, 3) / 3}, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match="bad.safetensors: expected the field 'joints'"):
        load_acae(tmp_path / "bad.safetensors")


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_folding_is_orthonormal(seed):
    sides, latents = Sides.of_mirror(MIRROR), Sides.of_mirror([1, 0, 2])
    w = torch.randn(10, 3, generator=torch.Generator().manual_seed(seed)).double()
    w = (w + w[sides.mirror][:, latents.mirror]) / 2
    even, odd = fold(w, sides, latents)
    assert torch.allclose(unfold(even, odd, sides, latents), w) and torch.allclose(
        (even**2).sum() + (odd**2).sum(), (w**2).sum()
    )


def test_fill_missing_leaves_seen_joints_and_recovers_decodable_ones():
    g = torch.Generator().manual_seed(0)
    decoder = torch.softmax(torch.randn(9, 3, generator=g), 1)
    whole = torch.randn(20, 3, 3, generator=g) * 300 @ decoder.T + torch.tensor([0, 0, 4000.0])[:, None]
    holed = whole.clone()
    holed[:, :, 4:6] = float("nan")
    full = fill_missing(holed, decoder, torch.eye(3) * 0.09, torch.full((9,), 1e-3))
    assert torch.equal(full[:, :, :4], whole[:, :, :4]) and (full - whole).abs().max() < 5


def some_moments(seed=0):
    """Moments of ten joints near lines between five hidden points."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(10, 5, generator=g).double().mul(2).softmax(1)
    return Moments.of(mix @ mix.T * 0.1 + 1e-4 * torch.eye(10).double(), Sides.of_mirror(MIRROR), 4)


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_exchanges_cost_what_they_say(seed):
    search, g = LatentSearch(some_moments(seed)), torch.Generator().manual_seed(seed)
    rows = torch.rand(4, 6, generator=g).double(), torch.rand(2, 4, generator=g).double()
    for total, _exchange, better in search.exchanges(rows, leaving=4, each=2):
        assert total == pytest.approx(search.total(better), rel=0.02, abs=1e-6) and [len(r) for r in better] == [4, 2]


def test_exchanging_latents_escapes_a_bad_start_and_never_loses():
    for seed in range(3):
        moments = some_moments(seed)
        eye = torch.eye(6).double()
        bad = alternate(moments, least_squares_decoder(moments, eye[[0, 1, 4, 5]], torch.eye(4).double()[[0, 1]]), 40)
        better, good = exchange_latents(moments, bad, trials=12), alternate(moments, choose_latents(moments, 2, 2), 40)
        assert surrogate(moments, better) <= surrogate(moments, bad)
        assert surrogate(moments, better) <= surrogate(moments, good) * 1.02
        assert torch.equal(exchange_latents(moments, bad, trials=0).encoder[0], bad.encoder[0])


@given(st.integers(0, 10**6), st.sampled_from(["random", "few", "flat", "repeated", "far", "holes"]))
@settings(max_examples=12, deadline=None)
def test_fitted_rows_sum_to_one_on_any_poses(seed, kind):
    rng = np.random.default_rng(seed)
    poses = rng.normal(size=(60, 6, 3)) * 200 + [0, 0, 3000]
    if kind == "few":
        poses = poses[:4]
    if kind == "flat":
        poses[..., rng.integers(0, 2)] = 0
    if kind == "repeated":
        poses[:, rng.integers(0, 6)] = poses[:, rng.integers(0, 6)]
    if kind == "far":
        poses[..., 2] *= 10 ** rng.uniform(-2, 4)
    if kind == "holes":
        poses[rng.random((60, 6)) < 0.4] = np.nan
        poses = poses[~np.isnan(poses).all((1, 2))]
    acae, report = fit_acae(poses, [1, 0, 2, 3, 4, 5], 2, 2, loss=spatial, rounds=6, exchanges=2, polish_steps=3)
    for w in (acae.encoder, acae.decoder):
        assert torch.isfinite(w).all() and (w.double().sum(1) - 1).abs().max() < 1e-6
    assert np.isfinite(report.total)
