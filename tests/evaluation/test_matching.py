"""Matching of people and the numbers that follow, against a literal transcription of MuPoTS-3D's written rules on
random pictures with misses and extras."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.evaluation.benchmarks import HUMAN36M, MUPOTS, MUPOTS_BONES, MUPOTS_MATCHED, MUPOTS_PAPER, mupots_protocol
from acae_nb.evaluation.matching import People, evaluate_people, greedy_matching, match_people
from acae_nb.evaluation.metrics import measure
from acae_nb.skeletons.joints import load_skeleton, union

SKELETON = load_skeleton("mpi_inf_3dhp_17")
K = np.array([[1500.0, 0, 960], [0, 1500, 540], [0, 0, 1]])


def pixels(joints):
    return joints[..., :2] / joints[..., 2:] * [K[0, 0], K[1, 1]] + K[:2, 2]


def scene(seed, pictures=12, crowding=400.0):
    """People who stand close enough to be taken for one another; a third are not found; strangers are; predictions are
    in random order; some joints are not annotated in 2D."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, pictures)
    picture = np.repeat(np.arange(pictures), counts)
    joints = rng.normal(0, [150, 350, 120], (len(picture), 17, 3)) + rng.normal(
        [0, 0, 4000], [crowding, 60, 300], (len(picture), 1, 3)
    )
    found = rng.random(len(picture)) < 0.67
    strangers = rng.integers(0, pictures, pictures)
    pred3d = np.concatenate(
        [
            joints[found] + rng.normal(0, 60, (found.sum(), 17, 3)),
            rng.normal(0, [150, 350, 120], (len(strangers), 17, 3))
            + rng.normal([0, 0, 4000], [crowding, 60, 300], (len(strangers), 1, 3)),
        ]
    )
    order = rng.permutation(len(pred3d))
    true2d = pixels(joints)
    true2d[rng.random(true2d.shape[:2]) < 0.2] = np.nan
    return (
        People(np.r_[picture[found], strangers][order], pred3d[order], pixels(pred3d)[order], SKELETON),
        People(picture, joints, true2d, SKELETON),
    )


# ---- the rules as they are written (method.md 4), one person and one joint at a time
PARENT = {joint: parent for joint, parent in MUPOTS_BONES}
NAMES = list(MUPOTS.formats[0].joints)


def written_matching(pred2d, true2d):
    """Annotated people in order; choose the unmatched prediction with most joints (1 to 13) whose max(|dx|, |dy|) < 40
    px; at least one."""
    taken, answer = set(), []
    for t in true2d:
        best, best_count = -1, 0
        for p in range(len(pred2d)):
            if p in taken:
                continue
            count = 0
            for j in range(1, 14):
                if np.isnan(t[j]).any():
                    continue
                if max(abs(pred2d[p][j][0] - t[j][0]), abs(pred2d[p][j][1] - t[j][1])) < 40:
                    count += 1
            if count > best_count:
                best, best_count = p, count
        if best >= 0:
            taken.add(best)
        answer.append(best)
    return answer


def written_rescaling(pred, true):
    "Predicted bone directions with the truth's bone lengths, in tree order from the pelvis."
    new = {14: pred[14]}
    for name, parent in MUPOTS_BONES:
        j, p = NAMES.index(name), NAMES.index(parent)
        direction = (pred[j] - pred[p]) / np.sqrt(((pred[j] - pred[p]) ** 2).sum())
        new[j] = new[p] + direction * np.sqrt(((true[j] - true[p]) ** 2).sum())
    return np.array([new[j] for j in range(17)])


def written_scores(pred, true, sequence_of, absolute, rescaled, only_matched):
    "PCK@150 and the 31-step AUC over 14 joints within each sequence, then the mean over sequences."
    per_sequence = {}
    for picture in dict.fromkeys(true.picture.tolist()):
        rows, candidates = np.flatnonzero(true.picture == picture), np.flatnonzero(pred.picture == picture)
        for row, match in zip(rows, written_matching(pred.joints2d[candidates], true.joints2d[rows])):
            bucket = per_sequence.setdefault(sequence_of(picture), [])
            if match < 0:
                if not only_matched:
                    bucket += [1e5] * 14
                continue
            p, t = pred.joints3d[candidates[match]], true.joints3d[row]
            if not absolute:
                p, t = p - p[14], t - t[14]
            if rescaled:
                p = written_rescaling(p, t)
            bucket += [float(np.sqrt(((p[j] - t[j]) ** 2).sum())) for j in range(14)]
    pck = [np.mean([100.0 * (d < 150) for d in b]) for b in per_sequence.values() if b]
    auc = [np.mean([100.0 * (d < 5 * k) for d in b for k in range(31)]) for b in per_sequence.values() if b]
    return np.mean(pck), np.mean(auc)


@pytest.mark.parametrize("seed", range(8))
def test_matching_equals_the_written_rule(seed):
    pred, true = scene(seed)
    expected = []
    for picture in dict.fromkeys(true.picture.tolist()):
        candidates = np.flatnonzero(pred.picture == picture)
        expected += [
            candidates[m] if m >= 0 else -1
            for m in written_matching(pred.joints2d[candidates], true.joints2d[true.picture == picture])
        ]
    found = match_people(pred, true, "mpi_inf_3dhp_17", MUPOTS.matching)
    assert found.tolist() == expected
    assert (found == -1).any() and (found >= 0).any() and len(set(found[found >= 0])) == (found >= 0).sum()


@pytest.mark.parametrize("alignment", ["root", "absolute"])
@pytest.mark.parametrize("bones", ["true lengths", "as predicted"])
@pytest.mark.parametrize("people", ["all annotated", "matched"])
def test_pck_and_auc_equal_the_written_rules(alignment, bones, people):
    for seed in range(3):
        pred, true = scene(seed, pictures=20)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = evaluate_people(
                pred,
                true,
                mupots_protocol("metric", alignment, bones, people),
                pred.picture // 5,
                {"sequence": true.picture // 5},
            )
        expected = written_scores(
            pred,
            true,
            lambda picture: picture // 5,
            alignment == "absolute",
            bones == "true lengths",
            people == "matched",
        )
        np.testing.assert_allclose(
            [result.overall["PCK@150 (14 joints)"], result.overall["AUC (14 joints, 31 steps)"]], expected, atol=1e-6
        )


def test_recall_is_real():
    pred, true = scene(1, pictures=40, crowding=2500)
    sequence = true.picture // 10
    matched = match_people(pred, true, "mpi_inf_3dhp_17", MUPOTS.matching)
    everyone, some = (
        evaluate_people(pred, true, p, pred.picture // 10, {"sequence": sequence}) for p in (MUPOTS, MUPOTS_MATCHED)
    )
    shares = [100 * (matched[sequence == s] >= 0).mean() for s in range(4)]
    assert (
        np.isclose(everyone.overall["recall"], np.mean(shares))
        and everyone.overall["recall"] == some.overall["recall"] < 90
    )
    name = "PCK@150 (14 joints)"
    np.testing.assert_allclose(
        everyone.groups["sequence"][name], some.groups["sequence"][name] * np.array(shares) / 100
    )  # the written factor: matched / annotated
    assert everyone.tables["matching"]["annotated"].sum() == len(true.picture)
    assert everyone.tables["matching"]["matched"].sum() + everyone.tables["matching"][
        "unmatched predictions"
    ].sum() == len(pred.picture)


def test_the_papers_vector_pools_matched_people():
    pred, true = scene(2, pictures=30)
    matched = match_people(pred, true, "mpi_inf_3dhp_17", MUPOTS.matching)
    result = evaluate_people(pred, true, MUPOTS_PAPER, pred.picture // 10, {"sequence": true.picture // 10})
    own = measure(pred.joints3d[matched[matched >= 0]], true.joints3d[matched >= 0], MUPOTS_PAPER.measures, 14)
    assert all(np.isclose(result.overall[k], v) for k, v in own.items()) and np.isclose(
        result.overall["recall"], 100 * (matched >= 0).mean()
    )


def test_a_stranger_may_take_a_person():
    "Greedy is greedy: the first true person takes the best free prediction, though the second would have needed it."
    row = np.zeros((3, 2))
    people = np.stack([row, row + 30])
    assert greedy_matching(np.stack([row + 35, row + 5000]), people, 40).tolist() == [0, -1]
    assert greedy_matching(np.stack([row + 40.0]), people[:1], 40).tolist() == [-1]  # strictly nearer than 40 px


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(0, 5))
def test_properties_of_the_matching(seed, p, t):
    rng = np.random.default_rng(seed)
    pred, true = rng.normal(0, 40, (p, 13, 2)), rng.normal(0, 40, (t, 13, 2))
    found = greedy_matching(pred, true, 40)
    assert len(found) == t and len(set(found[found >= 0])) == (found >= 0).sum() <= min(p, t)
    assert np.array_equal(greedy_matching(pred + 100, true + 100, 40), found)  # only differences count
    assert (greedy_matching(pred, true, 1e9) >= 0).sum() == min(p, t)  # everyone is near
    if t:
        assert (greedy_matching(true[rng.permutation(t)], true, 1e-6) >= 0).all()  # the truth finds itself in any order


@pytest.mark.parametrize("pictures", ["no predictions", "no predictions in one picture", "no truth in one picture"])
def test_empty_pictures(pictures):
    pred, true = scene(5)
    if pictures == "no predictions":
        pred = People(pred.picture[:0], pred.joints3d[:0], pred.joints2d[:0], SKELETON)
    elif pictures == "no predictions in one picture":
        pred = People(
            pred.picture[pred.picture != 3],
            pred.joints3d[pred.picture != 3],
            pred.joints2d[pred.picture != 3],
            SKELETON,
        )
    else:
        true = People(
            true.picture[true.picture != 3],
            true.joints3d[true.picture != 3],
            true.joints2d[true.picture != 3],
            SKELETON,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = evaluate_people(pred, true, MUPOTS, pred.picture * 0, {"sequence": true.picture * 0})
    assert result.overall["recall"] == (
        0 if pictures == "no predictions" else result.groups["sequence"]["recall"].iloc[0]
    )
    if pictures == "no predictions":
        assert result.overall["PCK@150 (14 joints)"] == 0


def test_joints_travel_by_name():
    pred, true = scene(3)
    both = union([load_skeleton("coco_17"), SKELETON])
    part = list(both.parts["mpi_inf_3dhp_17"])
    wide3d, wide2d = np.full((len(pred.picture), len(both), 3), 7.0), np.full((len(pred.picture), len(both), 2), 7.0)
    wide3d[:, part], wide2d[:, part] = pred.joints3d, pred.joints2d
    wide = People(pred.picture, wide3d, wide2d, both)
    groups = {"sequence": true.picture * 0}
    assert (
        evaluate_people(wide, true, MUPOTS, pred.picture * 0, groups).overall
        == evaluate_people(pred, true, MUPOTS, pred.picture * 0, groups).overall
    )


@pytest.mark.parametrize(
    "people, words", [("matched", "are left out, which flatters"), ("all annotated", "count as misses")]
)
def test_joints_left_blank_are_told(people, words):
    "A joint without a 3D prediction (but with a 2D one) would leave the mean of a matched protocol without a word."
    pred, true = scene(0)
    matched = match_people(pred, true, "mpi_inf_3dhp_17", MUPOTS.matching)
    blank = pred.joints3d.copy()
    blank[matched[matched >= 0][:2], 4] = np.nan
    with pytest.warns(
        UserWarning,
        match=f"2 of {(matched >= 0).sum()} matched people lack joints "
        f".*first in row {np.flatnonzero(matched >= 0)[0]} .*{words}",
    ):
        evaluate_people(
            replace(pred, joints3d=blank),
            true,
            mupots_protocol(people=people),
            pred.picture * 0,
            {"sequence": true.picture * 0},
        )


def test_refusals():
    pred, true = scene(0)
    with pytest.raises(ValueError, match="matching: expected a rule"):
        evaluate_people(pred, true, replace(HUMAN36M, groups=("sequence",)), pred.picture, {"sequence": true.picture})
    with pytest.raises(ValueError, match=r"joints2d: expected .*17, 2.* found .*16, 2"):
        People(pred.picture, pred.joints3d, pred.joints2d[:, 1:], SKELETON)
