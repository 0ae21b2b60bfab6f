"""Expected errors: known relations found again, slow oracles, joints without truth, and files that are damaged."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from acae_nb.evaluation.expected_error import (
    CUES,
    LEAST_PEOPLE,
    ErrorsByLooks,
    common_slopes,
    fit_expected_error,
    from_hips,
    hip_relative_errors,
    increasing_curve,
    joint_cues,
    load_expected_errors,
    reliability,
    save_expected_errors,
)
from acae_nb.skeletons.joints import Skeleton, load_skeleton, union

BOTH = union([load_skeleton("coco_17"), load_skeleton("h36m_17")])
FACTORS = np.array([4.0, 9, 15, 6, 22, 12, 7])


def cues_of_people(people, joints=7, seed=0):
    "Made-up people, some of whose joints are outside the picture."
    rng = np.random.default_rng(seed)
    person = rng.normal(0, 0.7, (people, 1, 2))
    disagreement, spread = np.exp(person + rng.normal(2.5, 0.6, (people, joints, 2))).transpose(2, 0, 1)
    px = rng.uniform(-20, 84, (people, joints, 2))
    return joint_cues(disagreement, spread, px, np.tile([5.0, 5, 40, 50], (people, 1)), (64, 64))


def log_linear(cues):
    return FACTORS * np.exp(cues @ [0.3, 0.2, 0.1, 0.25, 0.8])


def saturating(cues):
    return 20 + 150 / (1 + np.exp(3 - cues[..., 0] - 0.5 * cues[..., 3])) + FACTORS


def noisy(expected, seed=0, unknown=0.0):
    "Errors whose mean is the expected one; a share is NaN."
    rng = np.random.default_rng(seed)
    errors = expected * rng.gamma(3, 1 / 3, expected.shape)
    errors[rng.random(errors.shape) < unknown] = np.nan
    return errors


# --- the error -------------------------------------------------------------------------------------------------------
def test_errors_are_distances_from_the_middle_of_the_hips():
    rng = np.random.default_rng(0)
    predicted, true = rng.normal(0, 400, (2, 5, 34, 3))
    true[1, BOTH.index("left_hip", "coco_17")] = np.nan
    true[2, 3] = np.nan
    found = hip_relative_errors(predicted, true, BOTH)
    for n in range(5):
        hips = [j for j in range(34) if BOTH.short_names[j] in ("lhip", "rhip") and not np.isnan(true[n, j]).any()]
        assert len(hips) == (3 if n == 1 else 4)
        middle_p, middle_t = sum(predicted[n, j] for j in hips) / len(hips), sum(true[n, j] for j in hips) / len(hips)
        for j in range(34):
            expected = np.sqrt(sum(((predicted[n, j] - middle_p) - (true[n, j] - middle_t)) ** 2))
            np.testing.assert_allclose(found[n, j], expected)


def test_where_the_person_stands_does_not_matter_and_how_they_are_turned_does():
    true = np.random.default_rng(0).normal(0, 400, (1, 34, 3))
    assert np.allclose(hip_relative_errors(true + [100, -50, 7000], true, BOTH), 0)
    assert hip_relative_errors(true * [-1, 1, 1], true, BOTH).max() > 100


def test_a_person_without_known_hips_has_no_errors():
    true = np.random.default_rng(0).normal(0, 400, (2, 34, 3))
    true[0, [j for j, name in enumerate(BOTH.short_names) if name in ("lhip", "rhip")]] = np.nan
    found = hip_relative_errors(true, true, BOTH)
    assert np.isnan(found[0]).all() and not found[1].any()


def test_a_skeleton_without_hips_is_refused():
    with pytest.raises(ValueError, match="short names lhip and rhip, found none"):
        from_hips(np.zeros((3, 3)), Skeleton("finger", ("root", "middle", "tip"), ((0, 1), (1, 2)), (0, 1, 2)))


# --- the cues --------------------------------------------------------------------------------------------------------
def test_cues_against_a_slow_reading():
    rng = np.random.default_rng(0)
    disagreement, spread = rng.gamma(2, 20, (2, 3, 4))
    px, boxes = rng.uniform(-60, 160, (3, 4, 2)), np.array([[0, 0, 30.0, 80], [5, 5, 90, 20], [0, 0, 10, 10]])
    px[2, 1] = np.nan
    found = joint_cues(disagreement, spread, px, boxes, (100, 60))
    assert found.shape == (3, 4, len(CUES))
    for n in range(3):
        for j in range(4):
            u, v = px[n, j]
            beyond = max(-0.5 - u, u - 99.5, -0.5 - v, v - 59.5, 0)
            outside = 1 if np.isnan(u) else min(beyond / max(boxes[n, 2:]), 1)
            means = [np.mean([np.log(1 + x) for x in cue[n]]) for cue in (disagreement, spread)]
            expected = [np.log(1 + disagreement[n, j]), np.log(1 + spread[n, j]), *means, outside]
            np.testing.assert_allclose(found[n, j], expected)


# --- the calibration -------------------------------------------------------------------------------------------------
def test_slopes_are_those_of_least_squares_with_an_intercept_for_each_joint():
    cues = cues_of_people(40, 3)
    values = np.random.default_rng(1).normal(size=(40, 3)) + cues @ [1, 2, 3, 4, 5]
    values[5, 1] = values[:7, 2] = np.nan
    known = np.isfinite(values)
    which = np.broadcast_to(np.arange(3), (40, 3))[known]
    design = np.concatenate([cues[known], np.eye(3)[which]], 1)
    expected = np.linalg.lstsq(design, values[known], rcond=None)[0][:5]
    np.testing.assert_allclose(common_slopes(cues, values), expected, rtol=1e-6)


def test_a_cue_that_never_differs_has_no_slope():
    cues = cues_of_people(200)
    cues[..., [1, 3]] = 0  # one look has no spread
    error = fit_expected_error(cues, noisy(log_linear(cues)))
    assert (np.abs(error.slopes[[1, 3]]) < 1e-9).all() and np.isfinite(error(cues)).all()


def test_no_cue_is_a_reason_for_trust():
    cues = cues_of_people(600)
    error = fit_expected_error(cues, noisy(FACTORS * np.exp(cues @ [0.3, 0, 0, 0, -3])))
    assert (error.slopes >= 0).all() and error.slopes[-1] == 0 and error.slopes[0] > 0.2


def test_a_known_relation_is_found_again():
    cues = cues_of_people(3000)
    error = fit_expected_error(cues, noisy(log_linear(cues)))
    np.testing.assert_allclose(error.slopes, [0.3, 0.2, 0.1, 0.25, 0.8], atol=0.05)
    np.testing.assert_allclose(error.factors / error.factors[0], FACTORS / FACTORS[0], rtol=0.1)
    inner = (log_linear(cues) > error.observed[0]) & (log_linear(cues) < error.observed[-1])
    np.testing.assert_allclose(error(cues)[inner], log_linear(cues)[inner], rtol=0.15)


@pytest.mark.parametrize("unknown", [0, 0.4])
@pytest.mark.parametrize("relation", [log_linear, saturating])
@pytest.mark.parametrize("seed", range(3))
def test_stated_errors_come_true_within_15_percent_on_held_out_people(relation, seed, unknown):
    cues, others = cues_of_people(600, seed=seed), cues_of_people(500, seed=seed + 100)
    error = fit_expected_error(cues, noisy(relation(cues), seed, unknown))
    table = reliability(error(others), noisy(relation(others), seed + 100, unknown))
    assert len(table) == 10 and (np.abs(table["ratio"] - 1) < 0.15).all()
    assert table["stated"].iloc[-1] > 1.5 * table["stated"].iloc[0], "it tells good joints from bad ones"


def test_errors_of_another_kind_do_not_come_true():
    cues, others = cues_of_people(600), cues_of_people(500, seed=1)
    error = fit_expected_error(cues, noisy(log_linear(cues)))
    table = reliability(error(others), noisy(1.5 * log_linear(others), 1))
    np.testing.assert_allclose(table["ratio"], 1.5, rtol=0.1)


def test_joints_without_truth_have_no_expected_error_and_touch_no_other():
    cues = cues_of_people(400)
    errors = noisy(log_linear(cues))
    errors[:, 2] = np.nan
    errors[LEAST_PEOPLE - 1 :, 4] = np.nan
    error = fit_expected_error(cues, errors)
    kept = [0, 1, 3, 5, 6]
    alone = fit_expected_error(cues[:, kept], errors[:, kept])
    assert np.isnan(error(cues)[:, [2, 4]]).all()
    np.testing.assert_allclose(error(cues)[:, kept], alone(cues[:, kept]))
    unknown = cues.copy()
    unknown[0, 1] = np.nan
    assert np.isnan(error(unknown)[0, 1]) and np.isfinite(error(unknown)[1:, kept]).all()


def test_too_few_people_are_refused():
    cues = cues_of_people(LEAST_PEOPLE - 1)
    with pytest.raises(ValueError, match=f"truth of at least {LEAST_PEOPLE} people, found {LEAST_PEOPLE - 1}"):
        fit_expected_error(cues, noisy(log_linear(cues)))


def pooled(values):
    "Pool adjacent violators, one value at a time."
    blocks = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    return np.concatenate([[np.mean(block)] * len(block) for block in blocks])


def test_the_curve_against_pooling_neighbours():
    rng = np.random.default_rng(0)
    stated = rng.gamma(2, 30, 200)
    observed = stated * rng.gamma(2, 1 / 2, 200)
    order = np.argsort(stated)
    x, y = increasing_curve(stated, observed, 40)
    np.testing.assert_allclose(x, [stated[order[k : k + 5]].mean() for k in range(0, 200, 5)])
    np.testing.assert_allclose(y, pooled([observed[order[k : k + 5]].mean() for k in range(0, 200, 5)]))
    assert np.isclose(y.mean(), observed.mean())


def test_reliability_against_sorting_by_hand():
    rng = np.random.default_rng(0)
    stated, observed = rng.gamma(2, 30, (2, 30, 7))
    stated[3], observed[:, 2] = np.nan, np.nan
    pairs = sorted((s, o) for s, o in zip(stated.ravel(), observed.ravel()) if s == s and o == o)
    table = reliability(stated, observed, 6)
    assert table["joints"].sum() == len(pairs) == 29 * 6 and set(table["joints"]) == {29}
    for k, (_, row) in enumerate(table.iterrows()):
        group = pairs[29 * k : 29 * (k + 1)]
        s, o = np.mean([pair[0] for pair in group]), np.mean([pair[1] for pair in group])
        np.testing.assert_allclose([row["stated"], row["observed"], row["ratio"]], [s, o, o / s])


def test_too_few_joints_for_the_bins_are_refused():
    with pytest.raises(ValueError, match="at least 10 joints with stated and true errors, found 9"):
        reliability(np.ones(12), np.r_[np.ones(9), [np.nan] * 3])


# --- the file --------------------------------------------------------------------------------------------------------
ONE, TWO = np.array([[1.0, 0, 1, 0]]), np.array([[1.0, 0, 1, 0], [1, 0, 1, 1]])


@pytest.fixture
def errors():
    cues = cues_of_people(100)
    return ErrorsByLooks((ONE, TWO), tuple(fit_expected_error(cues, noisy(log_linear(cues), seed)) for seed in (0, 1)))


def test_a_file_gives_back_each_way_to_look(tmp_path, errors):
    save_expected_errors(tmp_path / "e.safetensors", errors, "abc")
    again, cues = load_expected_errors(tmp_path / "e.safetensors", len(FACTORS), "abc"), cues_of_people(50, seed=5)
    for looks, error in zip((ONE, TWO), errors.errors):
        np.testing.assert_allclose(again.of(looks)(cues), error(cues), rtol=1e-4)
    assert again.of(np.tile(ONE, (3, 1))) is None and again.of(ONE * [0.8, 1, 1, 1]) is None
    assert [path.name for path in tmp_path.iterdir()] == ["e.safetensors"]


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def no_file_of_tensors(path):
    path.write_bytes(b"no")


def changed(name, change):
    "The file with one of its tensors put through `change`; None takes it out."

    def apply(path):
        with safe_open(path, "numpy") as file:
            notes, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
        value = change(tensors.pop(name))
        save_file(tensors | ({} if value is None else {name: value}), path, notes)

    return apply


def with_note(name, value):
    def apply(path):
        with safe_open(path, "numpy") as file:
            notes = json.loads(file.metadata()["expected_error"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        save_file(tensors, path, {"expected_error": json.dumps({**notes, name: value})})

    return apply


def without_notes(path):
    with safe_open(path, "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    save_file(tensors, path)


DAMAGE = {
    "cut short": (truncated, "expected a file as save_expected_errors writes it"),
    "something else": (no_file_of_tensors, "expected a file as save_expected_errors writes it"),
    "of another model": (with_note("weights_sha256", "def"), "weights_sha256: expected abc, found def"),
    "of a later version": (with_note("format", "2"), "format: expected 1, found 2"),
    "of other cues": (with_note("cues", "guesses"), "cues: expected .* found guesses"),
    "without notes": (without_notes, "format: expected 1, found None"),
    "no slopes": (changed("1/slopes", lambda t: None), "1/slopes: .* found no such tensor"),
    "joints of another model": (changed("0/factors", lambda t: t[:5].copy()), r"0/factors: .* found shape \(5,\)"),
    "flat looks": (changed("0/looks", np.ravel), r"0/looks: .* found shape \(4,\)"),
    "a curve that falls": (changed("1/observed", lambda t: t[::-1].copy()), "1/observed: expected finite mm that incr"),
    "a curve with holes": (changed("0/stated", lambda t: t * np.float32(np.nan)), "0/stated: expected finite mm"),
    "a shorter curve": (changed("0/observed", lambda t: t[:9].copy()), "0/observed: .* one for each of stated"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_file_is_refused_by_file_and_field(tmp_path, errors, case):
    damage, words = DAMAGE[case]
    path = tmp_path / "e.safetensors"
    save_expected_errors(path, errors, "abc")
    load_expected_errors(path, len(FACTORS), "abc")
    damage(path)
    with pytest.raises(ValueError, match=words) as refused:
        load_expected_errors(path, len(FACTORS), "abc")
    assert str(refused.value).startswith(str(path))
