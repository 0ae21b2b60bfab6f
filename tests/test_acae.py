"""ACAE: affine by construction, equivariant, right against the original's combination, clear about bad input."""
import numpy as np
import pytest
import torch

from acae_nb.acae import ACAE, affine_rows, fit_acae, load_acae, mirror_table, objective, save_acae


def test_combines_points_as_the_original(conformance):
    arrays, _ = conformance("linear_combine")
    weights = torch.from_numpy(arrays["weights"]).T.contiguous()
    acae = ACAE(weights, affine_rows(torch.zeros(weights.T.shape)))
    assert np.allclose(acae.encode(torch.from_numpy(arrays["points"])), arrays["out"], rtol=1e-4, atol=1e-3)


def small_poses(n=600, seed=0):
    rng = np.random.default_rng(seed)
    mirror = np.array([1, 0, 3, 2, 5, 4, 7, 6, 8, 9])
    base = rng.normal(size=(n, 10, 3)) * 300 + [0, 0, 4000]
    return base.astype(np.float32), mirror


def test_fit_is_deterministic_chiral_and_affine(tmp_path):
    poses, mirror = small_poses()
    acae, report = fit_acae(poses, mirror, n_latent_sided=4, n_latent_center=2, steps=200)
    again, _ = fit_acae(poses, mirror, n_latent_sided=4, n_latent_center=2, steps=200)
    assert torch.equal(acae.encoder, again.encoder) and torch.equal(acae.decoder, again.decoder)
    assert (acae.encoder.sum(1) - 1).abs().max() < 1e-6 and (acae.decoder.sum(1) - 1).abs().max() < 1e-6
    twin = [2, 3, 0, 1, 4, 5]
    assert torch.equal(acae.encoder, acae.encoder[twin][:, mirror]) and torch.equal(acae.decoder, acae.decoder[mirror][:, twin])
    save_acae(acae, tmp_path / "a.safetensors")
    assert torch.equal(load_acae(tmp_path / "a.safetensors").encoder, acae.encoder)
    assert report.total == pytest.approx(objective(acae, poses), rel=1e-9)


@pytest.mark.parametrize("spoil, message", [
    (lambda p: p[:, :, :2], "expected .N, 10, 3."),
    (lambda p: p[:2], "at least 4"),
    (lambda p: np.where(np.arange(10)[:, None] == 3, np.nan, p), "joint 3"),
    (lambda p: p - [0, 0, 8000], "z <= 0"),
])
def test_says_what_is_wrong_with_poses(spoil, message):
    poses, mirror = small_poses()
    with pytest.raises(ValueError, match=message): fit_acae(spoil(poses), mirror, n_latent_sided=4, n_latent_center=2)


def test_refuses_a_mirror_that_does_not_mirror_back():
    with pytest.raises(ValueError, match="joint 0"): mirror_table([1, 2, 0], 3)
