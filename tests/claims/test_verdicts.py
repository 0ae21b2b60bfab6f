"""Verdicts by size: what is ruled out on made-up runs of known gains (how often wrongly: test_false_discoveries.py)."""

import json

import numpy as np
import pytest
from scipy import stats

from acae_nb.claims.findings import Claim, Run, findings_dict, measured
from acae_nb.claims.verdicts import (
    SMALLEST_GAIN,
    Verdict,
    adjusted_verdicts,
    read_verdicts,
    verdict_of,
    verdicts_table,
    with_handicap,
)

CLAIM = Claim("a beats b", "a", "b", "MPJPE")
UNDECIDED = "undecided at this size"


def verdict(gain, adjusted_p, p_of_size):
    return Verdict(CLAIM, gain, gain - 1, gain + 1, adjusted_p, adjusted_p, 100.0, 100.0 + gain, 5, 48, p_of_size)


@pytest.mark.parametrize(
    "gain, adjusted_p, p_of_size, words",
    [
        (0.1, 0.5, 0.01, "does not hold"),  # no sign, and no gain of a percent
        (-0.4, 0.06, 0.01, "does not hold"),
        (0.1, 0.5, 0.2, UNDECIDED),
        (0.4, 0.01, 0.01, "holds"),  # it gains, if less than a percent
        (-3.0, 0.01, 0.9, "does not hold"),
    ],
)
def test_what_a_verdict_says(gain, adjusted_p, p_of_size, words):
    assert verdict(gain, adjusted_p, p_of_size).verdict == words


def of_gains(gains, lower=True):
    "Runs of `a` and `b` (100 everywhere) of one person counted twice, so that only seeds vary, with these gains."
    runs = []
    for seed, gain in enumerate(gains):
        for name, value in (("a", 100 - gain if lower else 100 + gain), ("b", 100.0)):
            runs.append(Run(name, seed, ("s", "t"), (1, 1), {"MPJPE": (value, value)}, {}))
    return runs


@pytest.mark.parametrize("lower", [True, False], ids=["errors", "scores"])
@pytest.mark.parametrize("mean", [-2.0, 0.3, 0.9, 1.0, 2.5])
def test_the_p_value_is_students_where_only_seeds_vary(mean, lower):
    "By hand: t of the gains less a percent of the worse variant, one-sided, from scipy."
    gains = mean + np.array([-0.5, -0.2, 0.0, 0.3, 0.4])
    found = verdict_of(Claim("a beats b", "a", "b", "MPJPE", lower), of_gains(gains, lower))
    by_hand = stats.ttest_1samp(gains, SMALLEST_GAIN * 100, alternative="less").pvalue
    assert found.p_of_size == pytest.approx(by_hand, abs=0.012)
    assert found.gain == pytest.approx(mean)


def test_a_handicap_moves_the_gain_and_nothing_else():
    runs = of_gains([2.0, 3.5, 3.0])
    plain, moved = measured(CLAIM, runs), measured(CLAIM, with_handicap(CLAIM, runs, 2.0))
    assert [moved.gain, moved.low, moved.high] == pytest.approx([plain.gain - 2, plain.low - 2, plain.high - 2])
    assert moved.worse == plain.worse and moved.better == pytest.approx(plain.better + 2)
    assert with_handicap(CLAIM, runs, 2.0)[-1] is runs[-1], "the other variant is as it was"


def test_both_kinds_of_p_are_adjusted_each_among_its_kind():
    alone = [verdict_of(CLAIM, of_gains(mean + np.array([-0.5, 0.1, 0.4]))) for mean in (-1.0, 0.0, 0.5, 2.0)]
    together = adjusted_verdicts(alone)
    assert [v.p_of_size for v in together] == pytest.approx(stats.false_discovery_control([v.p_of_size for v in alone]))
    assert [v.adjusted_p for v in together] == pytest.approx(stats.false_discovery_control([v.p for v in alone]))


def test_a_claim_without_runs_has_no_verdict():
    assert verdict_of(Claim("c beats b", "c", "b", "MPJPE"), of_gains([1.0, 2.0])) is None
    assert verdict_of(CLAIM, of_gains([1.0])) is None


def test_files_and_tables(tmp_path):
    verdicts = [verdict(0.1, 0.5, 0.01234), verdict(3.0, 0.001, 1.0)]
    file = tmp_path / "claims.json"
    file.write_text(json.dumps(findings_dict(verdicts, {"runs": 4})))
    assert read_verdicts(file) == ({"runs": 4}, verdicts)
    table = verdicts_table(verdicts)
    assert list(table["p of 1 %"]) == [0.0123, 1.0] and list(table["verdict"]) == ["does not hold", "holds"]
    assert "adjusted 0.5000; 5 seeds, 48 subjects; p of 1% or more 0.0123)" in str(verdicts[0])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"facts": {}}', '{"facts": {}, "findings": [{"claim": {}}]}', '{"facts": {}, "findings": [1]}']
)
def test_a_file_that_is_none_is_named(tmp_path, text):
    file = tmp_path / "claims.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"claims\.json: expected facts and verdicts of a study's report, found"):
        read_verdicts(file)
