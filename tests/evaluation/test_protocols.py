"""Protocols as data, results that refuse to be mixed, conformance of the published ones, the embedded and the
real-recording protocol."""

import json
from dataclasses import replace

import numpy as np
import pytest

from acae_nb.evaluation.benchmarks import HUMAN36M, MPI_INF_3DHP, MPI_INF_3DHP_UNIVERSAL
from acae_nb.evaluation.metrics import PAPER_MEASURES, Measure, acceleration_error
from acae_nb.evaluation.protocols import (
    LIMBS,
    FormatRule,
    Matching,
    Protocol,
    Result,
    acceleration_errors,
    compare,
    embedded_protocol,
    evaluate,
    evaluate_views,
    mean_pose,
    predict_mean_pose,
    previous_poses,
    recording_protocol,
)
from acae_nb.geometry.cameras import Camera, look_at_rotation
from acae_nb.skeletons.joints import load_skeleton, union


@pytest.fixture(scope="module")
def three():
    return union([load_skeleton(n) for n in ("h36m_17", "coco_17", "smpl_24")], "three")


def people(skeleton, n=40, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.normal([0, 0, 4000], [200, 400, 200], (n, len(skeleton), 3))
    return true + rng.normal(0, 40, true.shape), true


# ---- the published protocols against the original's numbers
def test_human36m(conformance):
    arrays, facts = conformance("h36m_rootlast0_pa0")
    result = evaluate(
        arrays["pred"], arrays["true"], load_skeleton("h36m_17"), HUMAN36M, {"activity": arrays["activity"]}
    )
    names = facts["flags"]["metric_names"][:-1]
    np.testing.assert_allclose(result.groups["activity"].loc[names, "MPJPE"], arrays["metrics"][:-1], atol=1e-3)
    np.testing.assert_allclose([result.overall[m.name] for m in PAPER_MEASURES], arrays["metrics_wacv"], atol=1e-3)


def test_mpi_inf_3dhp(conformance):
    arrays, _ = conformance("tdhp_pa0")
    own = load_skeleton("mpi_inf_3dhp_17")
    theirs = list(MPI_INF_3DHP.formats[0].joints)  # PosePile's order: pelvis, spine, head last, root 14
    to_own = [theirs.index(j) for j in own.joints]  # joints travel by (format, joint), so any order will do
    result = evaluate(
        arrays["pred"][:, to_own],
        arrays["true"][:, to_own],
        own,
        MPI_INF_3DHP,
        {"activity": arrays["activity"], "scene": arrays["scene"]},
    )
    scenes = result.groups["scene"].loc[["green-screen", "no-green-screen", "outdoor"], "PCK@150 (14 joints)"]
    found = [
        *scenes,
        result.overall["PCK@150 (14 joints)"],
        result.overall["AUC (14 joints, 31 steps)"],
        result.overall["MPJPE"],
    ]
    np.testing.assert_allclose(found, arrays["metrics"][7:], atol=1e-3)
    np.testing.assert_allclose(result.groups["scene"].loc["outdoor", "PA-MPJPE"], arrays["metrics_wacv"][4], atol=1e-3)


def test_a_union_is_measured_by_its_part():
    both = union([load_skeleton("coco_17"), load_skeleton("h36m_17")])
    pred, true = people(both)
    part = list(both.parts["h36m_17"])
    groups = {"activity": ["walk"] * 40}
    assert (
        evaluate(pred, true, both, HUMAN36M, groups).overall
        == evaluate(pred[:, part], true[:, part], load_skeleton("h36m_17"), HUMAN36M, groups).overall
    )


# ---- protocols are data
@pytest.mark.parametrize(
    "change",
    [
        dict(split="val"),
        dict(missing="miss"),
        dict(measures=PAPER_MEASURES[:3]),
        dict(near_radius_mm=10.0),
        dict(notes="x"),
        dict(frames="every 5th"),
        dict(matching=Matching(40, ("neck",))),
        dict(bones=(("spine", "pelvis"),)),
        dict(groups=("activity", "sequence"), motion=("acceleration error",)),
        dict(formats=(FormatRule("h36m_17", load_skeleton("h36m_17").joints, "neck"),)),
    ],
)
def test_every_field_changes_the_hash(change):
    changed = replace(HUMAN36M, **change)
    assert changed.hash != HUMAN36M.hash and changed.text != HUMAN36M.text
    assert Protocol.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_the_hash_is_stable():
    "A hash that changes between processes or versions of Python would make old results incomparable."
    protocol = Protocol("a", "b", "c", (FormatRule("f", ("x", "y"), None),), (Measure("MPJPE"),))
    assert protocol.hash == "6998fc41cf6601ff66f010a9c65e1fe4fb0f509ff55c1a2f2e38d3c304112a61"
    assert len({p.hash for p in (HUMAN36M, MPI_INF_3DHP, MPI_INF_3DHP_UNIVERSAL)}) == 3


def test_results_of_different_protocols_refuse_one_column(three):
    pred, true = people(three)
    groups = {"collection": ["a"] * 40}
    first, second = (evaluate(pred, true, three, embedded_protocol(three, s), groups) for s in ("test", "val"))
    assert list(compare({"x": first, "y": first}, ["MPJPE"]).columns) == ["MPJPE"]
    with pytest.raises(
        ValueError,
        match=f"x: embedded people .{first.protocol.hash[:12]}.*y: embedded people .{second.protocol.hash[:12]}",
    ):
        compare({"x": first, "y": second})


def test_result_file_round_trip_and_tampering(three, tmp_path):
    pred, true = people(three)
    true[:, 3] = np.nan
    result = evaluate(pred, true, three, embedded_protocol(three), {"collection": ["a"] * 20 + ["b"] * 20})
    path = result.save(tmp_path / "deep" / "result.json")
    again = Result.load(path)
    assert (
        again.overall == result.overall
        and again.protocol == result.protocol
        and np.allclose(again.joints, result.joints, equal_nan=True)
    )
    assert np.isnan(again.joints.loc["h36m_17/right_ankle", "MPJPE"])
    content = json.loads(path.read_text())
    assert content["protocol_text"][0].startswith("embedded people")
    content["protocol"]["split"] = "train"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="result.json: protocol_hash"):
        Result.load(path)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda p, t, g: (p[:, 1:], t, g), "predictions: expected .*58 joints of three.*(40, 57, 3)"),
        (lambda p, t, g: (p[1:], t, g), "expected 40 poses.*found 39"),
        (lambda p, t, g: (p, t[..., :2], g), "truth: expected"),
        (
            lambda p, t, g: (np.where(np.arange(40)[:, None, None] == 7, np.nan, p), t, g),
            r"1 poses with NaN, first \[7\]",
        ),
        (lambda p, t, g: (p, t, {}), "groups: expected .'collection'."),
        (lambda p, t, g: (p, t, {"collection": ["a"]}), "with 40 labels each"),
        (lambda p, t, g: (p[:0], t[:0], {"collection": []}), "at least one pose"),
    ],
)
def test_malformed_predictions(three, damage, message):
    pred, true, groups = damage(*people(three), {"collection": ["a"] * 40})
    with pytest.raises(ValueError, match=message):
        evaluate(pred, true, three, embedded_protocol(three), groups)


def test_bad_protocols():
    with pytest.raises(ValueError, match="root: expected one of .*found 'tail'"):
        FormatRule("f", ("x",), "tail")
    with pytest.raises(ValueError, match="missing: expected .*found 'skip'"):
        replace(HUMAN36M, missing="skip")
    with pytest.raises(ValueError, match="expected the protocol's format 'h36m_17', found .'coco_17'."):
        evaluate(*people(load_skeleton("coco_17")), load_skeleton("coco_17"), HUMAN36M, {"activity": ["a"] * 40})


def test_missing_predictions_count_as_misses_where_the_protocol_says_so():
    pred, true = people(load_skeleton("h36m_17"))
    groups = {"activity": ["a"] * 40}
    whole = evaluate(pred, true, load_skeleton("h36m_17"), HUMAN36M, groups)
    pred[:10] = np.nan
    lenient = evaluate(pred, true, load_skeleton("h36m_17"), replace(HUMAN36M, missing="miss"), groups)
    assert (
        lenient.overall["PCK@150"] <= 75 < whole.overall["PCK@150"]
        and abs(lenient.overall["MPJPE"] - whole.overall["MPJPE"]) < 10
    )


# ---- the embedded protocol and its baseline
def test_formats_count_equally_and_inconsistency_is_seen(three):
    pred, true = people(three)
    true[:, list(three.parts["smpl_24"])[:3]] = true[:, list(three.parts["h36m_17"])[:3]] + 5
    groups = {"collection": ["a"] * 40}
    result = evaluate(pred, true, three, embedded_protocol(three), groups)
    assert np.isclose(result.overall["MPJPE"], result.formats.drop("all")["MPJPE"].mean())
    moved = pred.copy()
    moved[:, list(three.parts["coco_17"])] *= 1.05  # further away along the rays, to the same pixels
    worse = evaluate(moved, true, three, embedded_protocol(three), groups)
    assert worse.overall["inconsistency along"] > result.overall["inconsistency along"] + 100
    assert abs(worse.overall["inconsistency across"] - result.overall["inconsistency across"]) < 20
    assert len(result.tables["pair disagreement"]) == 3 and {"joint_a", "joint_b", "excess_mm"} <= {
        *result.tables["pair disagreement"]
    }


def test_mean_pose_against_an_oracle(three):
    _, true = people(three, 30)
    protocol = embedded_protocol(three)
    labels = true.copy()
    labels[:10, list(three.parts["coco_17"])] = np.nan  # rows of other data sets label other formats
    labels[10:, list(three.parts["h36m_17"])] = np.nan
    mean = mean_pose(labels, three, protocol)
    h36m, coco = (list(three.parts[k]) for k in ("h36m_17", "coco_17"))
    assert np.allclose(mean[h36m], np.mean([true[n, h36m] - true[n, h36m[0]] for n in range(10)], axis=0))
    assert np.allclose(mean[coco], np.mean([true[n, coco] - true[n, coco].mean(0) for n in range(10, 30)], axis=0))
    placed = predict_mean_pose(mean, true, three, protocol)
    assert np.allclose(placed[:, h36m[0]], true[:, h36m[0]]) and np.allclose(
        placed[:, coco].mean(1), true[:, coco].mean(1)
    )
    assert np.allclose(placed[3, h36m] - placed[3, h36m[0]], mean[h36m])
    with pytest.raises(ValueError, match="h36m_17: expected labels for every joint"):
        mean_pose(labels[10:], three, protocol)


# ---- the real recording
def ring_of_cameras(n=4):
    K = np.array([[1100.0, 0, 540], [0, 1100, 960], [0, 0, 1]])
    places = [np.array([4000 * np.cos(a), 4000 * np.sin(a), 1500.0]) for a in 2 * np.pi * np.arange(n) / n]
    return [
        Camera(
            K,
            np.zeros(12),
            look_at_rotation(np.array([0, 0, 1000.0]) - p, np.array([0, 0, 1.0])),
            p,
            np.array([0, 0, 1.0]),
        )
        for p in places
    ]


def test_views_that_agree_and_views_that_do_not(three):
    protocol, cameras = recording_protocol(three), ring_of_cameras()
    rng = np.random.default_rng(0)
    world = rng.normal([0, 0, 1000], [200, 200, 400], (10, len(three), 3))
    perfect = evaluate_views(np.repeat(world[None], 4, 0), three, cameras, protocol)
    assert (
        perfect.overall["views: A-MPJPE"] < 1e-6
        and perfect.overall["triangulated: A-MPJPE"] < 1e-3
        and perfect.overall["reprojection px"] < 1e-3
    )
    deeper = np.stack(
        [c.position + 1.1 * (world - c.position) for c in cameras]
    )  # each view errs only in depth: pixels stay right
    result = evaluate_views(deeper, three, cameras, protocol)
    assert result.overall["reprojection px"] < 1e-3 and 300 < result.overall["triangulated: A-MPJPE"] < 500
    assert np.isclose(result.overall["views: PA-MPJPE"], 0, atol=1e-6)


def test_distance_to_detections_uses_the_listed_pairs(three):
    protocol, cameras, detector = recording_protocol(three), ring_of_cameras(), load_skeleton("mediapipe_33")
    assert len(protocol.pairs) == 3 * 12 and ("coco_17/left_hip", "mediapipe_33/left_hip") in protocol.pairs
    rng = np.random.default_rng(0)
    points = rng.normal([0, 0, 1000], [200, 200, 400], (10, 33, 3))
    world = rng.normal([0, 0, 1000], 300, (10, len(three), 3))
    for a, b in protocol.pairs:
        world[:, three.labels.index(a)] = points[:, detector.labels.index(b)]
    views = np.repeat(world[None], 4, 0)
    points[4, detector.index("left_knee")] = np.nan  # a landmark that could not be triangulated
    table = evaluate_views(views + [0, 0, 70], three, cameras, protocol, points, detector).tables["detections"]
    assert list(table.index) == ["h36m_17", "coco_17", "smpl_24", "all"]
    assert np.allclose(table["MPJPE"], 0, atol=1e-6) and np.allclose(table["A-MPJPE"], 70)
    swapped = views[:, :, list(three.mirror)]
    assert evaluate_views(swapped, three, cameras, protocol, points, detector).overall["detections: MPJPE"] > 100


def test_views_refuse_wrong_shapes(three):
    with pytest.raises(ValueError, match="4 views .*found .3, 10, 58, 3"):
        evaluate_views(np.zeros((3, 10, 58, 3)), three, ring_of_cameras(), recording_protocol(three))


def test_limbs_are_the_twelve():
    assert len(LIMBS) == 12 and LIMBS["lkne"] == "left_knee" and LIMBS["rsho"] == "right_shoulder"


# ---- predictions with a fault that has a name
@pytest.mark.parametrize(
    "fault, words",
    [
        (lambda p, s: p / 1000, "in metres, not in mm"),
        (lambda p, s: p / 10, "centimetres"),
        (lambda p, s: p[:, list(s.mirror)], "left and right joints are exchanged"),
        (lambda p, s: p * 0, "all joints of the predictions are at one point"),
        (lambda p, s: p[::-1], "reverse order"),
        (lambda p, s: np.roll(p, 1, 0), "one late"),
        (lambda p, s: p * [1, -1, 1], "the y axis points the other way"),
    ],
)
def test_suspicions_name_the_fault(three, fault, words):
    pred, true = people(three)
    with pytest.warns(UserWarning, match=words):
        evaluate(fault(pred, three), true, three, embedded_protocol(three), {"collection": ["a"] * 40})


def test_no_suspicion_of_honest_predictions(three):
    import warnings

    pred, true = people(three)
    poor = true.mean(0) + np.random.default_rng(1).normal(0, 100, true.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for p in (pred, poor, true):
            evaluate(p, true, three, embedded_protocol(three), {"collection": ["a"] * 40})


# ---- sequences
def test_previous_poses_against_a_loop():
    rng = np.random.default_rng(0)
    pred = rng.normal(size=(60, 5, 3))
    pred[rng.random(60) < 0.4] = np.nan
    pred[7, 2] = np.nan  # a pose with one joint missing is a prediction
    sequence = rng.integers(0, 3, 60)
    expected, last = pred.copy(), {}
    for n in range(60):
        if np.isnan(pred[n]).all() and sequence[n] in last:
            expected[n] = last[sequence[n]]
        elif not np.isnan(pred[n]).all():
            last[sequence[n]] = pred[n]
    np.testing.assert_array_equal(previous_poses(pred, sequence), expected)


def test_a_protocol_that_fills_with_the_previous_pose():
    h36m = load_skeleton("h36m_17")
    pred, true = people(h36m)
    protocol = replace(HUMAN36M, groups=("sequence",), missing="previous")
    repeated = pred.copy()
    repeated[5] = pred[4]
    holes = pred.copy()
    holes[5] = np.nan
    groups = {"sequence": ["a"] * 20 + ["b"] * 20}
    assert (
        evaluate(holes, true, h36m, protocol, groups).overall
        == evaluate(repeated, true, h36m, protocol, groups).overall
    )
    holes[20] = np.nan  # the first of its sequence has none before it
    with pytest.raises(ValueError, match=r"1 poses with NaN, first \[20\]"):
        evaluate(holes, true, h36m, protocol, groups)


def test_acceleration_is_measured_over_consecutive_frames():
    rng = np.random.default_rng(1)
    pred, true = rng.normal(size=(2, 9, 4, 3))
    sequence, frame = list("aaaaaabbb"), [1, 2, 3, 10, 11, 12, 1, 2, 3]
    found = acceleration_errors(pred, true, 0, sequence, frame)

    def own(rows):
        return acceleration_error(pred[rows] - pred[rows][:, :1], true[rows] - true[rows][:, :1])

    assert np.allclose(found.to_numpy(), [(own(slice(0, 3)) + own(slice(3, 6))) / 2, own(slice(6, 9))])
    assert np.isnan(acceleration_errors(pred, true, 0, sequence, [1, 2, 4, 6, 8, 10, 1, 3, 5])).all()


def test_motion_needs_frames_and_sequences():
    h36m = load_skeleton("h36m_17")
    pred, true = people(h36m)
    moving = replace(HUMAN36M, groups=("sequence",), motion=("acceleration error",))
    with pytest.raises(ValueError, match="frames: expected 40 frame numbers"):
        evaluate(pred, true, h36m, moving, {"sequence": ["a"] * 40})
    assert evaluate(pred, true, h36m, moving, {"sequence": ["a"] * 40}, range(40)).overall["acceleration error"] > 0
    for bad in (dict(motion=("acceleration error",)), dict(averaging="mean of sequences"), dict(missing="previous")):
        with pytest.raises(ValueError, match="expected 'sequence' among them"):
            replace(HUMAN36M, **bad)
    with pytest.raises(ValueError, match="motion: expected some of"):
        replace(HUMAN36M, motion=("speed",))


def test_mean_of_sequences_is_not_the_pooled_mean():
    h36m = load_skeleton("h36m_17")
    pred, true = people(h36m)
    pred[:10] += np.random.default_rng(0).normal(0, 200, pred[:10].shape)
    groups = {"sequence": ["short"] * 10 + ["long"] * 30}
    pooled, means = (
        evaluate(pred, true, h36m, replace(HUMAN36M, groups=("sequence",), averaging=a), groups)
        for a in ("pooled", "mean of sequences")
    )
    assert (
        np.isclose(means.overall["MPJPE"], means.groups["sequence"]["MPJPE"].mean())
        and means.overall["MPJPE"] > pooled.overall["MPJPE"] + 10
    )
    assert np.isclose(pooled.overall["MPJPE"], np.average(pooled.groups["sequence"]["MPJPE"], weights=[10, 30]))
