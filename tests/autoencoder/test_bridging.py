"""Bridging: completion against an oracle, honest forecasts, refusal by name, tables that say what the matrices say."""

import numpy as np
import pandas as pd
import pytest
import torch

from acae_nb.autoencoder.acae import ACAE, affine_rows
from acae_nb.autoencoder.bridging import (
    Bridge,
    ExpectedError,
    UndeterminedJoints,
    calibration,
    disagreement,
    format_to_format,
    joint_table,
    latent_curve,
    latent_table,
    same_points,
)
from acae_nb.autoencoder.fitting import fit_acae
from acae_nb.autoencoder.stick_people import stick_people


@pytest.fixture(scope="module")
def people():
    torch.set_num_threads(1)
    poses, joints, mirror, formats = stick_people(1500)
    acae, _ = fit_acae(poses, mirror, 18, 4, joints=joints, rounds=60, polish_steps=0)
    return poses, stick_people(200, seed=1)[0], joints, formats, acae, Bridge.of(acae, poses)


def given(poses, at):
    part = np.full_like(poses, np.nan)
    part[:, at] = poses[:, at]
    return part


def test_completes_as_a_least_squares_oracle_does():
    g = torch.Generator().manual_seed(0)
    L, J = 3, 8
    acae = ACAE(
        affine_rows(torch.randn(L, J, generator=g).double()), affine_rows(torch.randn(J, L, generator=g).double() * 0.3)
    )
    latents = torch.randn(100, L, 3, generator=g).double() * 300 + torch.tensor([0, 0, 4000.0])
    poses = (acae.decode(latents) + torch.randn(100, J, 3, generator=g).double()).numpy()
    bridge = Bridge(acae, torch.eye(L).double() * 1e4, torch.full((J,), 1e-3).double())  # so wide a prior does nothing
    completed, _ = bridge.complete(given(poses, [0, 1, 2, 3, 4]))
    A = acae.decoder.numpy()[:5]
    shift = poses[:, :5].mean(1, keepdims=True)
    oracle = (
        np.linalg.lstsq(A, (poses[:, :5] - shift).transpose(1, 0, 2).reshape(5, -1), rcond=None)[0]
        .reshape(L, 100, 3)
        .transpose(1, 0, 2)
    )
    assert np.abs(completed[:, 5:] - (acae.decoder.numpy()[5:] @ oracle + shift)).max() < 1


def test_a_format_is_completed_about_as_well_as_forecast(people):
    _, held_out, joints, formats, _, bridge = people
    at = list(formats["format A"])
    completed, table = bridge.complete(given(held_out, at))
    found = np.linalg.norm(completed - held_out, axis=2).mean(0)
    rest = [j for j in range(len(joints)) if j not in at]
    assert np.array_equal(completed[:, at], held_out[:, at])
    assert 0.6 < found[rest].mean() / table["expected mm"].iloc[rest].mean() < 1.6
    assert table["determined"].iloc[rest].min() > 0.9


def test_completion_commutes_with_rotation_translation_and_scale(people):
    _, held_out, _, formats, _, bridge = people
    part = given(held_out, list(formats["format B"])).astype(float)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    moved = bridge.complete(part @ turn.T * 1.5 + [10, 20, 30])[0]
    assert np.allclose(moved, bridge.complete(part)[0] @ turn.T * 1.5 + [10, 20, 30], atol=1e-2)


def test_refuses_by_name_what_is_not_determined(people):
    _, held_out, joints, _, _, bridge = people
    legs = [j for j, name in enumerate(joints) if name[1:].split()[0] in ("hip", "knee", "ankle")]
    with pytest.raises(UndeterminedJoints, match=r"'lwrist A' \(expected error \d+ mm\)"):
        bridge.complete(given(held_out, legs), ["lwrist A"])
    completed, table = bridge.complete(given(held_out, legs), ["lknee B"])
    assert np.isfinite(completed).all() and table.loc["lwrist A", "determined"] < table.loc["pelvis A", "determined"]


def test_says_what_is_wrong(people):
    _, held_out, _, _, _, bridge = people
    ragged = held_out.copy()
    ragged[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 joints that come and go"):
        bridge.complete(ragged)
    with pytest.raises(ValueError, match="no joint is given"):
        bridge.complete(np.full_like(held_out, np.nan))
    with pytest.raises(ValueError, match="unknown joint 'tail'"):
        bridge.expected(["tail"])
    with pytest.raises(ValueError, match="at least 10 joints with a known error, found 2"):
        calibration(np.ones((1, 2)), np.ones((1, 2)))


def test_more_seen_joints_never_raise_the_expected_error(people):
    bridge = people[5]
    few, more = bridge.expected(range(0, 10)), bridge.expected(range(0, 20))
    assert (more["expected mm"] <= few["expected mm"] + 1e-6).all()


def test_tables_say_what_the_matrices_say(people):
    acae = people[4]
    table = joint_table(acae, least=0.1)
    for row, weights in zip(table.itertuples(), acae.decoder):
        assert (
            row.count == int((weights.abs() >= 0.1).sum())
            and abs(row.rest - float(1 - weights[weights.abs() >= 0.1].sum())) < 1e-5
        )
    assert list(latent_table(acae).latent) == list(acae.latents)


def test_same_points_match_by_place(people):
    pairs = same_points(people[0][:300], people[2], people[3])
    assert (pairs.joint.str.split().str[0] == pairs.nearest.str.split().str[0]).mean() > 0.95


def test_disagreement_finds_a_joint_that_was_moved(people):
    _, held_out, _, _, acae, _ = people
    wrong = held_out.copy()
    rng = np.random.default_rng(0)
    at = rng.integers(0, 60, len(wrong))
    wrong[np.arange(len(wrong)), at, 0] += 150
    table, rank = calibration(
        disagreement(acae, wrong), np.linalg.norm(wrong - held_out, axis=2) + rng.random(wrong.shape[:2])
    )
    assert table["error mm"].iloc[-1] > 5 * table["error mm"].iloc[0] and -1 <= rank <= 1


def test_formats_to_formats_and_curve(people):
    poses, held_out, joints, formats, _, bridge = people
    matrix = format_to_format(bridge, held_out, formats)
    assert isinstance(matrix, pd.DataFrame) and (np.diag(matrix) == 0).all() and matrix.to_numpy().max() < 60
    curve = latent_curve(poses[:500], None, [(0, 4), (0, 12)], held_out, rounds=20)
    assert curve["residual mm"].is_monotonic_decreasing and list(curve.latents) == [4, 12]


def test_left_out_is_what_leaving_one_out_gives(people):
    _, held_out, joints, _, _, bridge = people
    at = 27
    others = held_out.astype(float)
    others[:, at] = np.nan
    predicted = bridge.complete(others, most_mm=np.inf)[0][:, at]
    wanted = np.linalg.norm(held_out[:, at] - predicted, axis=1)
    assert np.allclose(bridge.left_out(held_out)[:, at], wanted, rtol=1e-2, atol=0.2)


def test_expected_errors_are_learned_in_millimetres():
    rng = np.random.default_rng(0)
    distance, level = rng.gamma(2, 10, (400, 8)), np.arange(8) * 10
    error = level + 0.5 * distance + 1.5 * distance.mean(1, keepdims=True) + rng.normal(size=distance.shape)
    expected = ExpectedError.of(distance[:50], error[:50])
    assert (
        np.allclose([expected.own, expected.whole], [0.5, 1.5], atol=0.1)
        and np.abs(expected(distance[50:]) - error[50:]).mean() < 1.5
    )
    assert (ExpectedError(level * 0.0 - 5, 0.0, 0.0)(distance) == 0).all()
    with pytest.raises(ValueError, match=r"one shape, found \[50, 8\] and \[49, 8\]"):
        ExpectedError.of(distance[:50], error[:49])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_disagreement_leaves_the_callers_module_as_it_was(dtype):
    acae = ACAE(affine_rows(torch.randn(4, 6)), affine_rows(torch.randn(6, 4)))
    poses = np.random.default_rng(0).normal(size=(5, 6, 3)).astype(dtype) * 300
    before = acae.encoder.clone()
    distances = disagreement(acae, poses)
    assert acae.encoder.dtype == torch.float32 and torch.equal(acae.encoder, before)
    slow = [
        [np.linalg.norm(p[j] - (acae.decoder @ acae.encoder).double().numpy()[j] @ p) for j in range(6)] for p in poses
    ]
    np.testing.assert_allclose(distances, slow, rtol=1e-4)
