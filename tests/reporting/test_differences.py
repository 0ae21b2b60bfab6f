"""Differences between models of one run: against the protocol's own numbers, and intervals that cover what they say."""

import numpy as np
import pandas as pd
import pytest

from acae_nb.evaluation.metrics import format_inconsistency
from acae_nb.evaluation.protocols import embedded_protocol, evaluate
from acae_nb.reporting.differences import bootstrapped_mean, difference, differences, picture_errors
from acae_nb.skeletons.joints import load_skeleton, union

BOTH = union([load_skeleton("h36m_17"), load_skeleton("smpl_24"), load_skeleton("coco_17")], "three")


def poses(n, seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal([0, 0, 3000], 300, (n, len(BOTH), 3))
    return truth + rng.normal(size=truth.shape) * 40 + rng.normal(size=(n, 1, 3)) * 30, truth


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_over_pictures_is_the_protocols_number(seed):
    predicted, truth = poses(30, seed)
    protocol = embedded_protocol(BOTH)
    errors = picture_errors(predicted, truth, BOTH, protocol)
    whole = evaluate(predicted, truth, BOTH, protocol, groups={g: ["a"] * 30 for g in protocol.groups})
    assert errors["MPJPE"].mean() == pytest.approx(whole.overall["MPJPE"], rel=1e-9)
    pairs = format_inconsistency(predicted, truth, BOTH.parts)
    assert errors["inconsistency"].mean() == pytest.approx(pairs["mm"].mean(), rel=1e-9)


def test_intervals_cover_the_true_difference_about_as_often_as_they_say():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        person = rng.normal(size=40) * 6
        values = 2.0 + person.repeat(5) + rng.normal(size=200)
        low, high = bootstrapped_mean(values, np.arange(40).repeat(5), draws=400, seed=trial)
        covered += low <= 2.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_one_run_gives_no_verdict():  # A8: 122.1 against 122.8 mm of one training was called "holds"
    rng = np.random.default_rng(0)
    errors = {"merged": {"MPJPE": rng.normal(122.8, 20, 600)}, "separate": {"MPJPE": rng.normal(122.1, 20, 600)}}
    (found,) = differences(errors, np.arange(600) // 12)
    assert str(found).startswith("one run: MPJPE of separate against merged") and "holds" not in str(found)
    assert found.low < found.difference < found.high and found.low < 0 < found.high


def test_absent_models_are_left_out():
    alone = {"separate": {"MPJPE": np.ones(4), "inconsistency": np.ones(4)}}
    assert differences(alone, list("aabb")) == []


def test_a_difference_that_all_share_has_no_width():
    errors = {"a": {"MPJPE": np.full(6, 3.0)}, "b": {"MPJPE": np.full(6, 5.0)}}
    found = difference(errors, list("aabbcc"), "a", "b", "MPJPE")
    assert (found.low, found.high, found.difference) == (-2.0, -2.0, -2.0)
    assert pd.Series(vars(found))["model"] == "a"
