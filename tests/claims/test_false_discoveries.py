"""Made-up studies with known effects: how many of the verdicts that decide are wrong."""

import numpy as np
import pytest

from acae_nb.claims.findings import FALSE_DISCOVERY_RATE, Claim, Run, adjusted, findings_of, measured
from acae_nb.claims.verdicts import SMALLEST_GAIN, adjusted_verdicts, verdict_of

STUDIES, VARIANTS, SUBJECTS = 150, 12, 40
CLAIMS = [Claim(f"first beats {k}", "first", str(k), "MPJPE") for k in range(VARIANTS)]


def made_up_study(number, gain_of_claim, seeds):
    """Runs of 'first', which all claims share, and of one other variant a claim: hard people and lucky seeds are common
    to all; each variant has seeds and people that suit it."""
    rng = np.random.default_rng([number, seeds])
    poses = tuple(map(int, rng.integers(5, 20, SUBJECTS)))
    hard, lucky = rng.normal(150, 40, SUBJECTS), rng.normal(0, 10, (seeds, 1))
    subjects = tuple(f"s{k}" for k in range(SUBJECTS))

    def runs(variant, level):
        suits_people, suits_seeds = rng.normal(0, 2, SUBJECTS), rng.normal(0, 1, (seeds, 1))
        scores = level + hard + lucky + suits_people + suits_seeds + rng.normal(0, 3, (seeds, SUBJECTS))
        return [Run(variant, s + 1, subjects, poses, {"MPJPE": tuple(scores[s])}, {}) for s in range(seeds)]

    first = runs("first", 0.0)
    return first + [run for k, gain in enumerate(gain_of_claim) for run in runs(str(k), gain)]


def false_share(studies, gain_of_claim):
    "The mean over studies of the wrong ones among the verdicts that decide: no effect, or one of the other sign."
    shares = []
    for findings in studies:
        decided = [(f, g) for f, g in zip(findings, gain_of_claim) if not f.verdict.startswith("undecided")]
        wrong = sum(g == 0 or (f.gain > 0) != (g > 0) for f, g in decided)
        shares.append(wrong / max(1, len(decided)))
    return np.mean(shares)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("effects", [(), (8.0, -8.0, 12.0, 16.0)], ids=["no effects", "four effects"])
def test_false_discovery_rate(seeds, effects):
    "At most the level stated; p values by themselves exceed it where there are no effects."
    gain_of_claim = (*effects, *[0.0] * (len(CLAIMS) - len(effects)))
    alone = [
        [measured(claim, runs) for claim in CLAIMS]
        for runs in (made_up_study(number, gain_of_claim, seeds) for number in range(STUDIES))
    ]
    together = [adjusted(findings) for findings in alone]
    share, share_alone = false_share(together, gain_of_claim), false_share(alone, gain_of_claim)
    seen = np.mean(
        [f.verdict != "undecided at this size" for study in together for f in study[: len(effects)] or study]
    )
    print(f"{seeds} seeds, {len(effects)} effects: false {share:.3f} (not adjusted {share_alone:.3f}), seen {seen:.2f}")
    assert share <= FALSE_DISCOVERY_RATE and share < share_alone
    if effects:
        assert seen > 0.5
    else:
        assert share_alone > FALSE_DISCOVERY_RATE


@pytest.mark.parametrize("seeds", [3, 5])
def test_gains_of_a_percent_are_seldom_ruled_out(seeds):
    "At most the level stated of what is ruled out: every third claim gains just a percent, the others nothing."
    shares, seen = [], []
    for number in range(STUDIES // 2):
        level = np.mean([r.scores["MPJPE"] for r in made_up_study(number, [0.0] * len(CLAIMS), seeds)])
        gains = [SMALLEST_GAIN * level / (1 - SMALLEST_GAIN) if k % 3 == 0 else 0.0 for k in range(len(CLAIMS))]
        runs = made_up_study(number, gains, seeds)
        verdicts = adjusted_verdicts([verdict_of(claim, runs) for claim in CLAIMS])
        ruled_out = np.array([v.p_of_size <= FALSE_DISCOVERY_RATE for v in verdicts])
        real = np.array(gains) > 0
        shares.append((ruled_out & real).sum() / max(1, ruled_out.sum()))
        seen.append(ruled_out[~real].mean())
    print(
        f"{seeds} seeds: {np.mean(shares):.3f} of what is ruled out wrongly, {np.mean(seen):.2f} of no gain ruled out"
    )
    assert np.mean(shares) <= FALSE_DISCOVERY_RATE
    assert np.mean(seen) > 0.02


def test_a_study_adjusts_all_its_claims_together():
    runs = made_up_study(0, (4.0, *[0.0] * (len(CLAIMS) - 1)), 5)
    findings, not_measured = findings_of(CLAIMS, runs)
    by_hand = sorted(f.p for f in findings)
    for f in findings:
        k = by_hand.index(f.p)
        assert f.adjusted_p == pytest.approx(min(len(by_hand) * p / (j + 1) for j, p in enumerate(by_hand) if j >= k))
        assert f.adjusted_p >= f.p
    assert not_measured == []
