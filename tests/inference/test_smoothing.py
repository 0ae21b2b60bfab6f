"""Smoothing against the textbook's two passes and a dense solution; gaps, outliers, sides, units; constant bones."""

import json
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import block_diag, sqrtm
from scipy.optimize import minimize

from acae_nb.geometry.cameras import Camera
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.plausibility import bone_lengths
from acae_nb.inference.pose_results import Poses
from acae_nb.inference.predictions import poses_of, smoothing_of, source_of, write_predictions
from acae_nb.inference.smoothing import (
    CUTOFF_HZ,
    change_people,
    constant_bones,
    kalman_smoothed,
    motion_cost,
    people_with_constant_bones,
    smooth,
    smoothed_people,
    stiffness,
    stretches,
)
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints
from acae_nb.skeletons.joints import Skeleton, load_skeleton

SMPL = load_skeleton("smpl_24")
MIRROR = list(SMPL.mirror)
FLIP = np.array([-1, 1, 1])


def uneven_times(count, seed=0, rate=60.0):
    return np.cumsum(np.random.default_rng(seed).uniform(0.3, 2.0, count)) / rate


def noise_of(h):
    "Covariance of place and velocity after a step of h under white acceleration of density 1."
    return np.array([[h**3 / 3, h**2 / 2], [h**2 / 2, h]])


def two_passes(values, variances, times, density):
    "Kalman's filter and the backward pass of Rauch, Tung and Striebel of one coordinate; infinite variance: not seen."
    mean, covariance = np.zeros(2), np.eye(2) * 1e10
    predicted, filtered = [], []
    for k, (value, variance) in enumerate(zip(values, variances)):
        h = times[k] - times[k - 1] if k else 0.0
        step = np.array([[1, h], [0, 1]])
        if k:
            mean, covariance = step @ mean, step @ covariance @ step.T + density * noise_of(h)
        predicted.append((mean, covariance, step))
        if np.isfinite(variance):
            gain = covariance[:, 0] / (covariance[0, 0] + variance)
            mean = mean + gain * (value - mean[0])
            keep = np.eye(2) - np.outer(gain, [1, 0])
            covariance = keep @ covariance @ keep.T + variance * np.outer(gain, gain)
        filtered.append((mean, covariance))
    smooth_means = [filtered[-1][0]]
    for k in range(len(values) - 2, -1, -1):
        ahead_mean, ahead_covariance, step = predicted[k + 1]
        mean, covariance = filtered[k]
        gain = covariance @ step.T @ np.linalg.inv(ahead_covariance)
        smooth_means.insert(0, mean + gain @ (smooth_means[0] - ahead_mean))
    return np.array(smooth_means)[:, 0]


def dense_solution(values, weights, times, ratio):
    "The same model as one tall system of linear equations, unknowns x0, v0, x1, v1, ..."
    n = len(values)
    seen = np.zeros((n, 2 * n))
    seen[np.arange(n), 2 * np.arange(n)] = np.sqrt(weights)
    motion, roots = np.zeros((2 * n - 2, 2 * n)), []
    for k, h in enumerate(np.diff(times)):
        motion[2 * k : 2 * k + 2, 2 * k : 2 * k + 4] = [[-1, -h, 1, 0], [0, -1, 0, 1]]
        roots.append(np.real(sqrtm(np.linalg.inv(noise_of(h)))))
    system = np.concatenate([seen, np.sqrt(ratio) * block_diag(*roots) @ motion])
    right = np.r_[np.sqrt(weights) * np.where(weights > 0, values, 0), np.zeros(2 * n - 2)]
    return np.linalg.lstsq(system, right, rcond=None)[0][::2]


@pytest.mark.parametrize("ratio", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("count", [2, 3, 40])
def test_one_banded_solution_is_the_smoother(ratio, count):
    rng = np.random.default_rng(count)
    times, values = uneven_times(count, count, rate=1.0), rng.normal(0, 100, (count, 3))
    weights = rng.uniform(0.2, 3, count)
    weights[2:-1:4] = 0
    values[weights == 0] = np.nan
    banded = kalman_smoothed(values, weights, ratio * motion_cost(times))
    for axis in range(3):
        dense = dense_solution(values[:, axis], weights, times, ratio)
        variances = np.divide(1, weights, out=np.full(count, np.inf), where=weights > 0)
        passes = two_passes(values[:, axis], variances, times, 1 / ratio)
        np.testing.assert_allclose(banded[:, axis], dense, atol=1e-6)
        np.testing.assert_allclose(banded[:, axis], passes, atol=1e-3)  # its start is uncertain, not unknown


@pytest.mark.parametrize("rate", [24.0, 60.0, 240.0])
@pytest.mark.parametrize("hertz", [1.0, 3.0, 6.0, 9.0])
def test_a_vibration_at_the_cutoff_is_halved_at_every_rate(rate, hertz):
    times = np.arange(int(6 * rate)) / rate
    wave = np.sin(2 * np.pi * hertz * times)[:, None]
    calm = kalman_smoothed(wave, np.ones(len(times)), stiffness(6.0, rate) * motion_cost(times * rate))
    inner = slice(int(2 * rate), int(4 * rate))
    size = (calm[inner] * wave[inner]).sum() / (wave[inner] ** 2).sum()
    assert abs(size - 1 / (1 + (hertz / 6) ** 4)) < (0.03 if rate < 60 else 0.01)


def moving(times, seed=1, joints=24):
    start, velocity = np.random.default_rng(seed).normal(0, 800, (2, joints, 3))
    return start + velocity * times[:, None, None]


@pytest.mark.parametrize("cutoff_hz", [0.5, 6.0, 50.0])
def test_constant_velocity_is_reproduced_and_bridged(cutoff_hz):
    times = uneven_times(50)
    true = moving(times)
    shown = true.copy()
    shown[[7, 20, 21, 22, 40]] = np.nan
    calm = smooth(shown, times, cutoff_hz)
    np.testing.assert_allclose(calm.points, true, atol=1e-5)
    assert (calm.bridged == np.isnan(shown[..., 0])).all()
    assert np.isnan(shown[7]).all()  # the input is as it was


def test_gaps_stay_beyond_the_limit_and_at_both_ends():
    times = np.arange(40) / 20
    shown = moving(times, joints=2)
    shown[:3, 0] = shown[-2:, 0] = np.nan
    shown[10:13, 0] = np.nan  # 0.2 s from sight to sight
    shown[20:26, 0] = np.nan  # 0.35 s
    points, bridged = smooth(shown, times, longest_gap_s=0.25)
    unknown = [*range(3), *range(20, 26), 38, 39]
    assert np.flatnonzero(np.isnan(points[:, 0, 0])).tolist() == unknown
    assert np.flatnonzero(bridged[:, 0]).tolist() == [10, 11, 12] and not bridged[:, 1].any()
    assert not np.isnan(points[:, 1]).any()
    alone = smooth(shown, times, longest_gap_s=0.0)  # every picture is a stretch by itself
    np.testing.assert_array_equal(alone.points, shown)
    assert smooth(shown, times, longest_gap_s=0.4).bridged[:, 0].sum() == 9


def test_what_lies_beyond_a_gap_has_no_effect():
    times = np.arange(60) / 30
    shown = moving(times, joints=1) + np.random.default_rng(0).normal(0, 20, (60, 1, 3))
    shown[20:40] = np.nan
    other = shown.copy()
    other[40:] += 5000
    np.testing.assert_array_equal(smooth(shown, times).points[:20], smooth(other, times).points[:20])


def test_stretches():
    seen = np.array([1, 0, 0, 1, 1, 0, 1], bool)
    times = np.array([0, 1, 2, 3, 4, 5, 6.5])
    assert stretches(seen, times, 2.0) == [slice(0, 1), slice(3, 5), slice(6, 7)]
    assert stretches(seen, times, 2.5) == [slice(0, 1), slice(3, 7)]
    assert stretches(seen, times, 3.0) == [slice(0, 7)]
    assert stretches(np.zeros(3, bool), times[:3], 1.0) == []


def walk(seed=0, noise=10.0, count=90):
    rng, times = np.random.default_rng(seed), np.arange(count) / 60
    body, way = rng.normal(0, 300, (24, 3)), np.stack([900 * times, 40 * np.sin(9 * times), 4000 + 0 * times], -1)
    true = body + way[:, None]
    return true, true + rng.normal(0, noise, true.shape), times


def test_noise_falls_and_an_exchange_of_sides_is_forgotten():
    true, shown, times = walk()
    plain = smooth(shown, times).points
    assert np.linalg.norm(plain - true, axis=-1).mean() < 0.6 * np.linalg.norm(shown - true, axis=-1).mean()
    shown[45] = shown[45][MIRROR]
    assert np.linalg.norm(shown[45] - true[45], axis=-1).max() > 500
    assert np.linalg.norm(smooth(shown, times).points - true, axis=-1).max() < 40


@pytest.mark.parametrize("function", ["smooth", "constant_bones"])
def test_units_places_turns_and_sides_do_not_matter(function):
    _, shown, times = walk(noise=25.0)
    shown[30:34] = np.nan
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]

    def change(poses):
        return smooth(poses, times).points if function == "smooth" else constant_bones(poses, SMPL)

    plain = change(shown)
    np.testing.assert_allclose(change(shown / 1000) * 1000, plain, atol=1e-3)
    np.testing.assert_allclose(change(shown @ turn + [100, 200, 300]), plain @ turn + [100, 200, 300], atol=1e-3)
    np.testing.assert_allclose(change((shown * FLIP)[:, MIRROR]), (plain * FLIP)[:, MIRROR], atol=1e-3)
    assert np.abs(plain - shown)[np.isfinite(shown)].max() > 1


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_short_videos(count):
    _, shown, times = walk(count=90)
    calm = smooth(shown[:count], times[:count])
    assert calm.points.shape == (count, 24, 3) and not calm.bridged.any() and np.isfinite(calm.points).all()
    if count in (1, 2):
        np.testing.assert_allclose(calm.points, shown[:count], atol=1e-6)
    still = np.zeros((count, 24, 3))
    np.testing.assert_array_equal(smooth(still, times[:count]).points, still)


def test_bones_get_their_median_length():
    _, shown, _ = walk(noise=25.0)
    shown[5], shown[6, 3] = np.nan, np.nan
    steady = constant_bones(shown, SMPL)
    median = np.nanmedian(bone_lengths(shown, SMPL), axis=0)
    lengths = bone_lengths(steady, SMPL)
    known = np.isfinite(bone_lengths(shown, SMPL))
    np.testing.assert_allclose(lengths[known], np.broadcast_to(median, lengths.shape)[known], rtol=1e-5)
    assert (np.isnan(steady) == np.isnan(shown)).all()
    np.testing.assert_allclose(constant_bones(steady, SMPL), steady, atol=0.01)
    both = np.isfinite(shown).all((1, 2))
    np.testing.assert_allclose(steady[both].mean(1), shown[both].mean(1), atol=1e-6)  # nobody moves as a whole


def test_bones_move_the_joints_hardly_farther_than_needed():
    _, shown, _ = walk(noise=20.0, count=12)
    steady = constant_bones(shown, SMPL)
    median = np.median(bone_lengths(shown, SMPL), axis=0)
    for t in (0, 7):
        best = minimize(
            lambda x: ((x.reshape(24, 3) - shown[t]) ** 2).sum() / 1e3,
            steady[t].ravel(),
            method="SLSQP",
            constraints={"type": "eq", "fun": lambda x: bone_lengths(x.reshape(24, 3), SMPL) - median},
        )
        shortest = np.linalg.norm(best.x.reshape(24, 3) - shown[t])
        assert shortest <= np.linalg.norm(steady[t] - shown[t]) * 1.001
        assert np.linalg.norm(steady[t] - shown[t]) < 1.1 * shortest


def test_a_ring_of_bones_gets_lengths_as_nearly_as_they_go_together():
    ring = Skeleton("ring", ("a", "b", "c"), ((0, 1), (1, 2), (2, 0)), (0, 1, 2))
    triangles = np.array([[[0, 0, 0], [a, 0, 0], [0, b, 0.0]] for a, b in ((10, 10), (10, 100), (100, 10))])
    steady = constant_bones(triangles, ring)
    assert np.isfinite(steady).all()


def picture(frame, joints, tracks, time_s=None):
    n = len(tracks)
    camera = Camera(np.array([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]]), position=np.array([50.0 * frame, 0, 0]))
    joints = camera.to_camera(np.reshape(joints, (n, 24, 3)))
    boxes, scores = np.tile([10.0, 20, 100, 200], (n, 1)), np.linspace(0.9, 0.5, n)
    doubt = np.full((n, 24), 10.0)
    return Poses(SMPL, joints, boxes, scores, doubt, camera, None, frame, np.array(tracks, int), time_s)


def two_people():
    "A camera that moves, people in changing order, the second one unseen in pictures 20 to 24 and from 60 on."
    (_, first, times), (_, second, _) = walk(0), walk(1)
    second = second + [0, 1500, 2000]
    video = []
    for t, time_s in enumerate(times):
        there = [(7, first[t]), (4, second[t])][:: 1 if t % 2 else -1]
        if 20 <= t < 25 or t >= 60:
            there = [person for person in there if person[0] == 7]
        video.append(picture(t, [joints for _, joints in there], [track for track, _ in there], time_s))
    return video, first, second, times


def test_people_of_a_video_keep_their_numbers_and_places_in_the_list():
    video, first, second, times = two_people()
    second[20:25] = second[60:] = np.nan
    calm = smoothed_people(video)
    expected = {7: smooth(first, times).points, 4: smooth(second, times).points}
    for t, (before, after) in enumerate(zip(video, calm)):
        bridged = [4] if 20 <= t < 25 else []
        assert after.tracks.tolist() == before.tracks.tolist() + bridged
        assert (after.frame, after.time_s) == (before.frame, before.time_s)
        np.testing.assert_allclose(after.world, [expected[int(n)][t] for n in after.tracks], atol=1e-6)
        n = len(before)
        np.testing.assert_array_equal(after.boxes[:n], before.boxes)
        np.testing.assert_array_equal(after.scores, np.r_[before.scores, np.zeros(len(bridged))])
        np.testing.assert_array_equal(after.disagreement[:n], before.disagreement)
        assert np.isnan(after.disagreement[n:]).all()
        for box, px in zip(after.boxes[n:], after.px[n:]):
            np.testing.assert_allclose(box, [*px.min(0), *np.ptp(px, axis=0)])
    steady = people_with_constant_bones(calm)
    assert [p.tracks.tolist() for p in steady] == [p.tracks.tolist() for p in calm]
    lengths = np.array([bone_lengths(p.world[p.tracks.tolist().index(7)], SMPL) for p in steady])
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], lengths.shape), rtol=1e-5)


def test_what_is_stated_of_a_joint_that_was_left_out_is_not_stated_of_its_bridge():
    "As `--max-error` and `--smooth` together make it: a joint without a place gets one from the pictures around it."
    joints, _, times = walk(count=20)
    video = [picture(t, [joints[t]], [1], times[t]) for t in range(20)]
    stated = np.full((1, 24), 200.0)
    left_out = np.zeros((1, 24), bool)
    left_out[0, 5] = True
    for t in range(20):
        out = left_out if 8 <= t < 12 else np.zeros_like(left_out)
        places = np.where(out[..., None], np.nan, video[t].joints3d)
        video[t] = replace(video[t], joints3d=places, expected_error=stated, spread=stated)
    for t, poses in enumerate(smoothed_people(video)):
        assert np.isfinite(poses.joints3d).all()
        expected = left_out if 8 <= t < 12 else np.zeros_like(left_out)
        for name in ("expected_error", "spread", "disagreement"):
            np.testing.assert_array_equal(np.isnan(getattr(poses, name)), expected)


def test_a_video_without_people():
    empty = [picture(t, np.zeros((0, 24, 3)), [], t / 30) for t in range(4)]
    assert [len(p) for p in people_with_constant_bones(smoothed_people(empty))] == [0] * 4
    assert smoothed_people([]) == people_with_constant_bones([]) == []


# --- in the files of the command line --------------------------------------------------------------------------------
UNEVEN = [0, 1 / 60, 2 / 60, 3 / 60, 0.2, 0.3, 0.4]
BOX = [10, 5, 30, 40]


@pytest.fixture
def video(tmp_path):
    "A video with noise at the times of UNEVEN."
    path, rng = tmp_path / "v.mp4", np.random.default_rng(0)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=60)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 600)
        for time in UNEVEN:
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time * 600), Fraction(1, 600)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return source_of(path, BOX)


@pytest.fixture(scope="module")
def estimator():
    torch.manual_seed(0)
    return PoseEstimator(PoseModel(tiny_backbone(), SeparateJoints(17)), load_skeleton("coco_17"), 64)


@pytest.mark.parametrize("cutoff_hz, bones", [(6.0, False), (None, True), (6.0, True)])
def test_what_is_written_is_smooth_where_asked(tmp_path, estimator, video, cutoff_hz, bones):
    seen = list(poses_of(video, estimator))
    expected = smoothed_people(seen) if cutoff_hz else seen
    expected = people_with_constant_bones(expected) if bones else expected
    change = smoothing_of(video, cutoff_hz, bones)
    outcome = write_predictions(video, estimator, tmp_path / "p.csv", change=change)
    table = pd.read_csv(tmp_path / "p.csv", comment="#")
    mm, before = (np.concatenate([p.joints3d.reshape(-1, 3) for p in results]) for results in (expected, seen))
    np.testing.assert_allclose(table[["x_mm", "y_mm", "z_mm"]], mm, rtol=1e-5, atol=0.01)
    assert outcome.pictures == 7
    assert len(mm) != len(before) or np.abs(mm - before).max() > 0.1
    assert table.track.tolist() == np.concatenate([np.repeat(p.tracks, 17) for p in expected]).tolist()
    np.testing.assert_allclose(table.groupby("frame").time_s.first(), UNEVEN, atol=1 / 500)
    write_predictions(video, estimator, tmp_path / "p.json", change=change)
    images = json.loads((tmp_path / "p.json").read_text())["images"]
    assert [(image["width"], image["height"]) for image in images] == [(64, 48)] * 7  # without their pixels


def test_smoothing_is_for_those_who_are_followed(video):
    assert smoothing_of(replace(video, times=None), None, False) is None
    for source, cutoff_hz, words in (
        (replace(video, times=None), 6.0, "expected a video"),
        (video, 0.0, "expected a frequency from .* to below .* found 0 Hz"),
    ):
        with pytest.raises(ValueError, match=words):
            smoothing_of(source, cutoff_hz, True)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: smooth(np.zeros((3, 1, 3)), np.arange(3), 0.0), "cutoff_hz: expected"),
        (lambda: smooth(np.zeros((3, 1, 3)), np.arange(3), np.nan), "cutoff_hz: expected"),
        (lambda: smooth(np.zeros((3, 1, 3)), np.arange(3), np.inf), "cutoff_hz: expected a finite"),
        (lambda: smooth(np.zeros((3, 1, 3)), np.arange(3) / 30, 0.029), "cutoff_hz: expected 0.03 Hz or more"),
        (lambda: smooth(np.zeros((3, 1, 3)), np.arange(3), CUTOFF_HZ, -1.0), "longest_gap_s: expected"),
        (lambda: smooth(np.zeros((3, 1, 3)), [0, 1, 1]), "times_s: expected 3 finite seconds that increase"),
        (lambda: smooth(np.zeros((3, 1, 3)), [0, 1]), "times_s: expected 3"),
        (lambda: smooth(np.zeros((3, 1, 3)), [0, 1, np.inf]), "times_s: expected 3"),
        (lambda: smoothed_people([picture(0, np.zeros((0, 24, 3)), [])]), "time_s: expected"),
        (lambda: change_people([replace(picture(0, [], []), tracks=None)], lambda x: x), "tracks: expected"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
