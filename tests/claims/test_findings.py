"""The claims study: its statistics on made-up runs with known answers, and what it may say."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from acae_nb.claims.findings import (
    CLAIMS,
    Claim,
    Run,
    analyse,
    gain_interval,
    level_interval,
    measured,
    pose_scores,
    read_run,
    read_runs,
    run_of,
    sweep,
    write_run,
)
from acae_nb.evaluation.protocols import embedded_protocol, evaluate
from acae_nb.skeletons.joints import load_skeleton, union


# ---- scores of poses
def test_pose_scores_are_the_protocols_numbers():
    three = union([load_skeleton(n) for n in ("h36m_17", "coco_17", "smpl_24")], "three")
    rng = np.random.default_rng(0)
    true = rng.normal([300, 0, 4000], [200, 400, 200], (60, len(three), 3))
    pred = true + rng.normal(0, 70, true.shape) + rng.normal(0, 40, (60, 1, 3))
    pred[:, list(three.parts["coco_17"])] *= 1.03
    scores, result = (
        pose_scores(pred, true, three, embedded_protocol(three)),
        evaluate(pred, true, three, embedded_protocol(three), {"collection": ["x"] * 60}),
    )
    for name in [m.name for m in result.protocol.measures] + [
        "inconsistency",
        "inconsistency along",
        "inconsistency across",
    ]:
        assert np.isclose(scores[name].mean(), result.overall[name]), name
    for name in three.parts:
        assert np.isclose(scores[f"{name} MPJPE"].mean(), result.formats.loc[name, "MPJPE"])


def test_a_run_keeps_means_of_subjects(tmp_path):
    scores = pd.DataFrame({"MPJPE": [1.0, 2, 6, 10]})
    run = run_of("separate", 3, scores, ["b", "a", "a", "b"], {"test": "t"})
    assert run.subjects == ("a", "b") and run.poses == (2, 2) and run.scores["MPJPE"] == (4.0, 5.5)
    write_run(tmp_path / "r.json", run)
    again = read_run(tmp_path / "r.json")
    assert (again.variant, again.seed, again.subjects, again.scores, again.facts) == (
        run.variant,
        run.seed,
        run.subjects,
        run.scores,
        run.facts,
    )


# ---- the interval
def test_interval_of_seeds_alone_is_students():
    "With equal subjects only the seeds vary, and the interval is the textbook's."
    seeds = np.array([3.0, 1, 4, 1, 5])
    mean, low, high = gain_interval(np.repeat(seeds[:, None], 30, 1), np.ones(30), 200_000)
    expected = stats.t.interval(0.95, 4, seeds.mean(), stats.sem(seeds))
    assert np.isclose(mean, seeds.mean()) and np.allclose([low, high], expected, atol=0.05)


def test_interval_of_subjects_alone_is_the_bootstraps():
    "With equal seeds only the subjects vary: the spread of the mean of drawn subjects."
    subjects = np.random.default_rng(0).normal(2, 3, 60)
    mean, low, high = gain_interval(np.repeat(subjects[None], 4, 0), np.ones(60), 20_000)
    assert np.isclose(mean, subjects.mean()) and np.allclose(
        [low, high], subjects.mean() + np.array([-1.96, 1.96]) * subjects.std() / np.sqrt(60), atol=0.06
    )


def test_subjects_count_by_their_poses():
    gains = np.array([[1.0, 5], [1, 5]])
    assert gain_interval(gains, np.array([3, 1]))[0] == 2.0


@pytest.mark.parametrize("seeds, subjects", [(3, 30), (5, 48)])
def test_intervals_cover_the_true_gain(seeds, subjects):
    covered = []
    for k in range(300):
        rng = np.random.default_rng([k, seeds])
        gains = (
            1.5 + rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 4, (1, subjects)) + rng.normal(0, 4, (seeds, subjects))
        )
        _, low, high = gain_interval(gains, rng.integers(5, 20, subjects), 500)
        covered.append(low < 1.5 < high)
    assert 0.90 <= np.mean(covered) <= 0.995


def test_too_little_for_an_interval():
    for shape in ((1, 9), (5, 1)):
        with pytest.raises(ValueError, match="two seeds and two subjects"):
            gain_interval(np.zeros(shape), np.ones(shape[1]))


# ---- claims on made-up runs
def made_up(levels, seeds=5, subjects=30, spread=2.0, measures=("MPJPE",)):
    """Runs of variants {name: level}: hard subjects and lucky seeds are common to all variants, and far larger than the
    differences."""
    hard, lucky = np.random.default_rng(0).normal(0, 40, subjects), np.random.default_rng(1).normal(0, 25, seeds)
    return [
        Run(
            v,
            s + 1,
            tuple(f"s{k}" for k in range(subjects)),
            (10,) * subjects,
            {
                m: tuple(level + hard + lucky[s] + np.random.default_rng([s, i]).normal(0, spread, subjects))
                for m in measures
            },
            {"test": "made up", "seconds": 60.0, "machine": "a desk", "training": "none"},
        )
        for i, (v, level) in enumerate(levels.items())
        for s in range(seeds)
    ]


def test_pairing_finds_what_is_hidden_in_the_spread():
    runs = made_up({"separate": 100.0, "merged": 103.0})
    found = measured(Claim("x", "separate", "merged", "MPJPE"), runs)
    assert (
        found.verdict == "holds" and 2 < found.gain < 4 and found.low > 1 and found.seeds == 5 and found.subjects == 30
    )
    alone = level_interval(runs, "separate", "MPJPE")
    assert alone[2] - alone[1] > 10 * (found.high - found.low)  # each on its own says nothing


@pytest.mark.parametrize(
    "gap, lower, verdict",
    [
        (6, True, "holds"),
        (-6, True, "does not hold"),
        (0, True, "undecided at this size"),
        (6, False, "does not hold"),
        (-6, False, "holds"),
    ],
)
def test_verdicts(gap, lower, verdict):
    assert measured(Claim("x", "a", "b", "MPJPE", lower), made_up({"a": 100.0, "b": 100.0 + gap})).verdict == verdict


def test_only_common_seeds_are_compared():
    runs = made_up({"a": 100.0, "b": 104.0})
    some = [r for r in runs if not (r.variant == "b" and r.seed in (1, 4))] + [
        r for r in made_up({"a": 0.0}, seeds=6) if r.seed == 6
    ]
    assert measured(Claim("x", "a", "b", "MPJPE"), some).seeds == 3
    assert measured(Claim("x", "a", "b", "MPJPE"), [r for r in runs if r.variant == "a" or r.seed == 2]) is None
    assert measured(Claim("x", "a", "b", "CPS"), runs) is None


def test_nothing_is_said_that_was_not_measured(tmp_path):
    for r in made_up({"separate": 100.0, "merged": 103.0}):
        write_run(tmp_path / "runs" / f"{r.variant}-{r.seed}.json", r)
    findings = analyse(tmp_path / "runs", tmp_path / "out")
    assert [f.claim.sentence for f in findings] == ["separate joints beat joints merged by name"]
    text, content = (tmp_path / "out/claims.txt").read_text(), json.loads((tmp_path / "out/claims.json").read_text())
    for claim in CLAIMS[1:]:
        assert claim.sentence not in text and claim.sentence not in json.dumps(content)
    assert (
        content["facts"]["not measured"] == len(CLAIMS) - 1
        and content["facts"]["runs"] == 10
        and "10 runs in 10 minutes by `make claims`, seeds 1, 2, 3, 4, 5, on a desk" in text
    )
    assert (
        content["findings"][0]["verdict"] == "holds"
        and (tmp_path / "out/claims.jpg").stat().st_size > 3000
        and not (tmp_path / "out/latents.jpg").exists()
    )


def test_no_runs_no_claims(tmp_path):
    for r in made_up({"separate": 100.0}):
        write_run(tmp_path / f"{r.variant}-{r.seed}.json", r)
    with pytest.raises(ValueError, match="expected runs of two variants of a claim with two seeds"):
        analyse(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_other_tests_are_refused(tmp_path):
    for r in made_up({"separate": 100.0}) + made_up({"merged": 100.0}, subjects=29):
        write_run(tmp_path / f"{r.variant}-{r.seed}.json", r)
    with pytest.raises(
        ValueError, match="separate, seed 1: expected the test of the other runs .*290 poses.*found made up, 300 poses"
    ):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    "content, words",
    [("{", "expected the JSON of a run"), ("[]", "found list"), ('{"variant": "x"}', "found .'variant'.")],
)
def test_files_that_are_no_runs(tmp_path, content, words):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=f"x.json: .*{words}"):
        read_runs(tmp_path)


def test_a_sweep_shows_what_is_there():
    runs = made_up({"collections 1": 130.0, "collections 2": 120.0, "separate": 110.0})
    figure = sweep(
        runs, {1: "collections 1", 2: "collections 2", 4: "collections 4", 8: "separate"}, ["MPJPE"], "collections"
    )
    assert len(figure.axes) == 1 and [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["1", "2", "8"]
    assert (np.diff(figure.axes[0].lines[0].get_ydata()) < 0).all()
    assert sweep(runs, {4: "collections 4"}, ["MPJPE"], "x") is None
