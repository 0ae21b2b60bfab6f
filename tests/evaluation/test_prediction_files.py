"""Prediction files: both layouts, identity of rows and joints, and a table of files that are wrong, each with the words
that name the fault."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from acae_nb.evaluation.benchmarks import HUMAN36M, MUPOTS
from acae_nb.evaluation.prediction_files import (
    disorder,
    evaluate_files,
    odd_sequences,
    oddities,
    read_poses,
    result_text,
    skeleton_of,
    write_poses,
)
from acae_nb.evaluation.protocols import Result, compare, evaluate
from acae_nb.skeletons.joints import load_skeleton, union

H36M = load_skeleton("h36m_17")
N = 120


def motion(skeleton=H36M, n=N, seed=0):
    "People who move smoothly, so that the next frame is much like this one."
    rng = np.random.default_rng(seed)
    phase, rest = rng.uniform(0, 6, (1, len(skeleton), 3)), rng.normal(0, [150, 400, 150], (1, len(skeleton), 3))
    return rest + 250 * np.sin(np.arange(n)[:, None, None] / 5 + phase) + [0, 0, 4000]


def columns(n=N):
    return {
        "sequence": np.repeat(["a", "b", "c"], n // 3),
        "frame": np.tile(np.arange(n // 3), 3),
        "activity": np.repeat(["sit", "walk", "sit"], n // 3),
    }


@pytest.fixture
def files(tmp_path):
    true = motion()
    pred = true + np.random.default_rng(1).normal(0, 20, true.shape)
    return tmp_path, write_poses(tmp_path / "truth.npz", H36M, true, columns()), pred, true


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_the_file_gives_the_numbers_of_the_arrays(files, suffix):
    folder, truth, pred, true = files
    path = write_poses(folder / f"mine.{suffix}", H36M, pred, columns())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate_files(path, truth, "human36m", folder / "out" / "result.json")
    expected = evaluate(pred, true, H36M, HUMAN36M, {"activity": columns()["activity"]})
    assert (
        result.overall == pytest.approx(expected.overall, abs=1e-9)
        and Result.load(folder / "out" / "result.json").overall == result.overall
    )
    content = json.loads((folder / "out" / "result.json").read_text())
    assert content["protocol_hash"] == HUMAN36M.hash and content["protocol_text"][0].startswith("Human3.6M")
    assert "sit" in result_text(result) and HUMAN36M.hash[:12] in result_text(result)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_round_trip(tmp_path, suffix):
    both = union([load_skeleton("coco_17"), H36M], "two")
    pred = motion(both).astype(np.float32)
    pred[3, 5] = np.nan
    path = write_poses(tmp_path / f"x.{suffix}", both, pred, columns(), pred[..., :2])
    poses = read_poses(path)
    assert np.array_equal(poses.joints3d, pred, equal_nan=True) and np.array_equal(
        poses.joints2d, pred[..., :2], equal_nan=True
    )
    assert skeleton_of(poses) == both and {k: v.tolist() for k, v in poses.columns.items()} == {
        k: v.tolist() for k, v in columns().items()
    }


def test_rows_and_joints_are_found_by_name(files):
    folder, truth, pred, _ = files
    rng = np.random.default_rng(2)
    rows, joints = rng.permutation(N), rng.permutation(17)
    np.savez(
        folder / "shuffled.npz",
        joints3d=pred[rows][:, joints],
        joints=np.array(H36M.labels)[joints],
        **{k: v[rows] for k, v in columns().items() if k != "activity"},
    )
    write_poses(folder / "straight.npz", H36M, pred, columns())
    long = pd.DataFrame(
        {
            "sequence": np.repeat(columns()["sequence"], 17),
            "frame": np.repeat(columns()["frame"], 17),
            "joint": np.tile(H36M.labels, N),
            **dict(zip("xyz", pred.reshape(-1, 3).T)),
        }
    )
    long.sample(frac=1, random_state=0).to_parquet(folder / "long.parquet")
    first, *others = [
        evaluate_files(folder / name, truth, "human36m").overall
        for name in ("straight.npz", "shuffled.npz", "long.parquet")
    ]
    for other in others:
        assert other == pytest.approx(first, abs=1e-9)


def test_more_joints_and_formats_than_asked_for_are_no_fault(files):
    folder, truth, pred, _ = files
    both = union([load_skeleton("coco_17"), H36M], "two")
    wide = np.full((N, len(both), 3), 3.0)
    wide[:, list(both.parts["h36m_17"])] = pred
    result = evaluate_files(write_poses(folder / "wide.npz", both, wide, columns()), truth, "human36m")
    assert np.isclose(
        result.overall["MPJPE"],
        evaluate_files(write_poses(folder / "mine.npz", H36M, pred, columns()), truth, "human36m").overall["MPJPE"],
    )


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_what_could_not_be_read_is_not_written(tmp_path, suffix):
    "Text in object arrays is text; None and names that the file has for itself are refused, and what is there stays."
    path, pred = tmp_path / f"x.{suffix}", motion()
    as_objects = columns() | {"sequence": columns()["sequence"].astype(object)}
    write_poses(path, H36M, pred, as_objects)
    assert read_poses(path).columns["sequence"].tolist() == columns()["sequence"].tolist()
    before = path.read_bytes()
    for wrong, words in [
        ({"person": [None] * N}, "person: expected text or numbers, found"),
        ({"joints3d": np.zeros(N)}, "columns: expected other names than .*found 'joints3d'"),
        ({"x": np.zeros(N)}, "columns: expected other names than .*found 'x'"),
    ]:
        with pytest.raises(ValueError, match=words):
            write_poses(path, H36M, pred, columns() | wrong)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("frame", [np.inf, 1e300, 2.0**60])
def test_frames_that_are_no_numbers_of_frames(files, frame):
    folder, truth, pred, _ = files
    frames = columns()["frame"].astype(float)
    frames[7] = frame
    with pytest.raises(ValueError, match="frame: expected whole numbers, found float64"):
        evaluate_files(write(folder, pred, frame=frames), truth, "human36m")


def test_a_truth_without_joints_is_refused(files):
    folder, _, pred, true = files
    truth = write_poses(folder / "unknown.npz", H36M, np.full_like(true, np.nan), columns())
    with pytest.raises(ValueError, match="unknown.npz: joints3d: expected a truth with at least one known joint"):
        evaluate_files(write(folder, pred), truth, "human36m")


def write(folder, pred, joints=H36M.labels, drop=(), **changed):
    entries = {"joints3d": pred, "joints": np.array(joints), **columns()} | changed
    np.savez(folder / "mine.npz", **{k: v for k, v in entries.items() if k not in drop})
    return folder / "mine.npz"


def some(n, *rows):
    return np.isin(np.arange(n), rows)


# ---- files that cannot be measured
@pytest.mark.parametrize(
    "damage, words",
    [
        (
            lambda f, p: write(f, p[:, :14], H36M.labels[:14]),
            r"joints: expected the 17 joints of the truth, found 14 joints, without h36m_17/right_shoulder, "
            r"h36m_17/right_elbow",
        ),
        (lambda f, p: write(f, p[:, :14]), r"joints3d: expected 17 joints, as many as `joints` names, found 14"),
        (lambda f, p: write(f, p, H36M.joints), r"joints: expected names as format/joint.*found 'pelvis'"),
        (
            lambda f, p: write(f, p, ["h36m_17/pelvis"] * 17),
            r"joints: expected every name once, found \['h36m_17/pelvis'\] again",
        ),
        (
            lambda f, p: write(f, p[..., :2]),
            r"joints3d: expected floats \[poses, joints, 3\], found float64 \[120, 17, 2\]",
        ),
        (
            lambda f, p: write(f, p.reshape(N, -1)),
            r"joints3d: expected floats \[poses, joints, 3\], found float64 \[120, 51\]",
        ),
        (lambda f, p: write(f, p.astype(int)), r"joints3d: expected floats .* found int64"),
        (
            lambda f, p: write(f, np.where(some(N, 4)[:, None, None], np.inf, p)),
            "joints3d: expected finite numbers.*found 51 infinite ones",
        ),
        (lambda f, p: write(f, np.where(some(N, 4, 9)[:, None, None], np.nan, p)), r"2 poses with NaN, first \[4, 9\]"),
        (lambda f, p: write(f, p, drop=["frame"]), "frame: expected 120 values, to tell the poses apart, found none"),
        (lambda f, p: write(f, p, frame=columns()["frame"] / 2), "frame: expected whole numbers, found float64"),
        (
            lambda f, p: write(f, p, frame=columns()["frame"][1:]),
            r"frame: expected one value for each of 120 poses, found \[119\]",
        ),
        (lambda f, p: write(f, p, drop=["joints"]), "found no joints among"),
        (
            lambda f, p: write(f, p[:100], **{k: v[:100] for k, v in columns().items()}),
            r"expected all 120 poses of the truth .*found 100; the first of 20 missing ones is "
            r"{'sequence': 'c', 'frame': 20}",
        ),
        (
            lambda f, p: write(f, p, frame=columns()["frame"] * 0),
            r"expected every pose once, found 117 poses again, first {'sequence': 'a', 'frame': 0}; several people",
        ),
        (lambda f, p: write(f, p, frame=columns()["frame"] + 1000), "found none of them"),
        (
            lambda f, p: write(f, p, sequence=np.char.add(columns()["sequence"], ".mp4")),
            "the truth has no sequence 'a.mp4'",
        ),
        (lambda f, p: f / "nothing.npz", "expected a file of poses, found none"),
        (lambda f, p: f / "truth.txt", "expected a file .npz or .parquet, found .txt"),
    ],
)
def test_files_that_cannot_be_measured(files, damage, words):
    folder, truth, pred, _ = files
    (folder / "truth.txt").write_text("x")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        evaluate_files(damage(folder, pred), truth, "human36m")
    if not words.startswith("expected a file"):
        with pytest.raises(ValueError, match="mine.npz|missing = refuse"):
            evaluate_files(damage(folder, pred), truth, "human36m")


def test_frames_that_begin_at_one(tmp_path):
    pred = motion(n=3)
    truth = write_poses(
        tmp_path / "truth.npz", H36M, pred, {"sequence": ["a"] * 3, "frame": [0, 2, 4], "activity": ["x"] * 3}
    )
    mine = write_poses(tmp_path / "mine.npz", H36M, pred, {"sequence": ["a"] * 3, "frame": [1, 3, 5]})
    with pytest.raises(ValueError, match=r"do its frame numbers begin \+1 from the truth's\?"):
        evaluate_files(mine, truth, "human36m")


def test_parquet_that_cannot_be_measured(files):
    folder, truth, pred, _ = files
    rows = pd.read_parquet(write_poses(folder / "mine.parquet", H36M, pred, columns()))
    rows.drop(columns="z").to_parquet(folder / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet: expected the columns .* found no z"):
        evaluate_files(folder / "a.parquet", truth, "human36m")
    pd.concat([rows, rows[5:6]]).to_parquet(folder / "b.parquet")
    with pytest.raises(ValueError, match="b.parquet: expected each joint once a pose.*h36m_17/left_knee.*again"):
        evaluate_files(folder / "b.parquet", truth, "human36m")
    rows.drop(index=range(0, 2)).to_parquet(folder / "c.parquet")
    with pytest.raises(ValueError, match=r"1 poses with NaN, first \[0\]"):
        evaluate_files(folder / "c.parquet", truth, "human36m")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "EOFError"),
        (b"hello", "ValueError"),
        (b"PK\x03\x04 and no more", "BadZipFile"),
        ("half", "BadZipFile"),
        ("npy", r"one array \(.npy\)"),
        ("object", "Object arrays"),
        ("text", "JSONDecodeError"),
    ],
)
def test_what_is_no_npz_is_named(files, content, words):
    "Each once left as a bare exception of a library, without the file's name, or ended the command in a traceback."
    folder, truth, pred, _ = files
    path, bytes_ = folder / "mine.npz", write(folder, pred).read_bytes()
    if content == "npy":
        with open(path, "wb") as file:
            np.save(file, pred)
    elif content == "object":
        np.savez(path, joints3d=np.array([{1: 2}], object), joints=np.array(H36M.labels))
    elif content == "text":
        write(folder, pred, skeleton=np.array("{not JSON"))
    else:
        path.write_bytes(bytes_[: len(bytes_) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=f"mine.npz: expected .*{words}"):
        evaluate_files(path, truth, "human36m")
    from acae_nb.workflow.cli import main

    assert main(["evaluate", str(path), str(truth), "--protocol", "human36m"]) == 2


def test_what_other_writers_write_is_read(files):
    "Text as bytes, the name of a published skeleton, frame numbers that a data frame made floats."
    folder, truth, pred, _ = files
    expected = evaluate_files(write(folder, pred), truth, "human36m").overall
    as_bytes = {k: v.astype("S") for k, v in columns().items() if v.dtype.kind == "U"}
    assert (
        evaluate_files(
            write(
                folder,
                pred,
                np.array(H36M.labels).astype("S"),
                skeleton=np.array("h36m_17"),
                frame=columns()["frame"].astype(float),
                **as_bytes,
            ),
            truth,
            "human36m",
        ).overall
        == expected
    )
    rows = pd.read_parquet(write_poses(folder / "mine.parquet", H36M, pred, columns()))
    rows.assign(frame=rows.frame.astype(float)).to_parquet(folder / "floats.parquet")
    assert evaluate_files(folder / "floats.parquet", truth, "human36m").overall == pytest.approx(expected)
    rows[:0].to_parquet(folder / "none.parquet")
    with pytest.raises(ValueError, match="none.parquet: expected at least one pose"):
        evaluate_files(folder / "none.parquet", truth, "human36m")
    with pytest.raises(ValueError, match="joints3d: expected at least one pose, found none"):
        evaluate_files(write(folder, pred[:0], **{k: v[:0] for k, v in columns().items()}), truth, "human36m")
    with pytest.raises(ValueError, match="expected poses with an extent, found all joints of every pose in one point"):
        evaluate_files(write(folder, pred * 0), truth, "human36m")
    with (
        pytest.raises(ValueError, match=r"found 117; .*do its frame numbers begin \+1 from the truth's\?"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        evaluate_files(write(folder, pred, frame=columns()["frame"] + 1), truth, "human36m")


# ---- files that can be measured but are suspect
@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda p: p / 1000, r"predictions are \d+ times smaller than the truth: are they in metres"),
        (lambda p: p / 10, "are they in centimetres"),
        (lambda p: p * 1000, r"the truth is \d+ times smaller than the predictions: is it in metres"),
        (lambda p: p[:, list(H36M.mirror)], "left and right joints are exchanged"),
        (lambda p: p[::-1], "frames are in reverse order"),
        (lambda p: np.roll(p, 3, 0), r"are poses \(frames\) in another order"),
        (
            lambda p: p[np.random.default_rng(0).permutation(N)],
            r"are poses \(frames\) in another order\?.*lowers the error from",
        ),
        (
            lambda p: p[np.argsort([str(k) for k in range(N)])],
            r"are poses \(frames\) in another order",
        ),  # 0, 1, 10, 100, 101 ...
        (
            lambda p: np.roll(p, 1, 1),
            "are joints in another order.*what is called h36m_17/pelvis lies where h36m_17/right_wrist should",
        ),
        (lambda p: p * [1, -1, 1], "the y axis points the other way"),
        (
            lambda p: p - p[:, :1],
            r"predicted poses lie \d+ mm from the origin, true ones 4\d\d\d: are they relative to their root",
        ),
        (lambda p: p[..., [0, 2, 1]] * [1, 1, -1], "are they in another frame, of the world or another camera"),
        (
            lambda p: np.where(some(N, 7, 9)[:, None, None], 0, p),
            "2 of 120 predicted poses have all joints in one point, first in row 7",
        ),
        (lambda p: np.r_[p[:80], p[80:, list(H36M.mirror)]], "sequence c: left and right joints are exchanged"),
        (lambda p: np.r_[p[:40], p[40:80] / 1000, p[80:]], "sequence b: .* are they in metres"),
    ],
)
def test_files_that_are_suspect(files, damage, words):
    folder, truth, pred, _ = files
    with pytest.warns(UserWarning, match=words):
        evaluate_files(write(folder, damage(pred)), truth, "human36m")


def test_honest_predictions_raise_no_suspicion():
    true = motion()
    rng = np.random.default_rng(0)
    for pred in (
        true,
        true + rng.normal(0, 10, true.shape),
        true + rng.normal(0, 200, true.shape),
        true.mean(0) + rng.normal(0, 50, true.shape),
        np.broadcast_to(true.mean(0), true.shape),
        true.mean((0, 1)) + rng.normal(0, 300, true.shape),
    ):
        assert (
            disorder(pred, true, H36M.labels)
            == oddities(pred, true, columns()["sequence"], True)
            == odd_sequences(pred, true, columns()["sequence"], H36M)
            == []
        )


@pytest.mark.parametrize("factor, unit", [(1000, "metres"), (10, "centimetres")])
def test_both_files_in_another_unit(files, factor, unit):
    "Nothing in a comparison of the two shows it, and PCK becomes 100."
    folder, _, pred, true = files
    truth = write_poses(folder / "small.npz", H36M, true / factor, columns())
    with pytest.warns(UserWarning, match=f"joints of the truth lie .* from the middle of their pose: is it in {unit}"):
        evaluate_files(write(folder, pred / factor), truth, "human36m")


def test_a_missing_pose_is_not_taken_from_another_person(tmp_path):
    smpl = load_skeleton("smpl_24")
    true = motion(smpl)
    true[1::2] += [2000, 0, 0]
    identity = {
        "sequence": np.repeat(["a"], N),
        "frame": np.repeat(np.arange(N // 2), 2),
        "person": np.tile([0, 1], N // 2),
    }
    keep = np.arange(N) != 40
    truth = write_poses(tmp_path / "truth.npz", smpl, true, identity)
    mine = write_poses(tmp_path / "mine.npz", smpl, true[keep], {k: v[keep] for k, v in identity.items()})
    with pytest.warns(UserWarning, match="1 of 120 poses are missing"):
        found = evaluate_files(mine, truth, "3dpw")
    expected = (
        np.linalg.norm((true[38] - true[38, :1]) - (true[40] - true[40, :1]), axis=-1).sum() / N / 24
    )  # the same person, one frame before
    assert np.isclose(found.overall["MPJPE"], expected) and list(found.groups["sequence"].index) == ["a, 0", "a, 1"]


def test_predictions_that_the_truth_does_not_have(files):
    folder, truth, pred, _ = files
    more = write(
        folder,
        np.r_[pred, pred[:7]],
        sequence=np.r_[columns()["sequence"], ["z"] * 7],
        frame=np.r_[columns()["frame"], np.arange(7)],
        drop=["activity"],
    )
    with pytest.warns(
        UserWarning, match="7 predictions are of poses that the truth does not have.*'sequence': 'z', 'frame': 0"
    ):
        evaluate_files(more, truth, "human36m")


def test_groups_that_the_truth_lacks(files):
    folder, _, pred, true = files
    bare = write_poses(folder / "bare.npz", H36M, true, {k: v for k, v in columns().items() if k != "activity"})
    with pytest.raises(ValueError, match="bare.npz: activity: expected one value a pose"):
        evaluate_files(write(folder, pred), bare, "human36m")


def test_missing_frames_take_the_previous_pose_where_the_protocol_says_so(tmp_path):
    smpl = load_skeleton("smpl_24")
    true = motion(smpl)
    pred = true + np.random.default_rng(0).normal(0, 20, true.shape)
    truth, keep = write_poses(tmp_path / "truth.npz", smpl, true, columns()), ~some(N, 5, 6, 50)
    mine = write_poses(tmp_path / "mine.npz", smpl, pred[keep], {k: v[keep] for k, v in columns().items()})
    filled = pred.copy()
    filled[[5, 6]], filled[50] = pred[4], pred[49]
    whole = write_poses(tmp_path / "whole.npz", smpl, filled, columns())
    with pytest.warns(UserWarning, match="3 of 120 poses are missing, first {'sequence': 'a', 'frame': 5}; by 3DPW"):
        found = evaluate_files(mine, truth, "3dpw")
    assert found.overall == pytest.approx(evaluate_files(whole, truth, "3dpw").overall)


def test_several_people_are_matched_in_2d(tmp_path):
    skeleton = load_skeleton("mpi_inf_3dhp_17")
    rng = np.random.default_rng(0)
    true = rng.normal(0, [150, 400, 150], (40, 17, 3)) + np.tile([[-900, 0, 4000], [900, 0, 4000]], (20, 1))[:, None]
    px = 1500 * true[..., :2] / true[..., 2:]
    identity = {"sequence": np.repeat(["TS1", "TS2"], 20), "frame": np.repeat(np.arange(20), 2)}
    truth, order = write_poses(tmp_path / "truth.npz", skeleton, true, identity, px), rng.permutation(40)[:30]
    mine = write_poses(
        tmp_path / "mine.parquet",
        skeleton,
        true[order] + 1,
        {k: v[order] for k, v in identity.items()} | {"person": order},
        px[order],
    )
    found = evaluate_files(mine, truth, "mupots")
    shares = [np.isin(np.arange(20) + 20 * k, order).mean() for k in (0, 1)]
    assert (
        np.isclose(found.overall["recall"], 100 * np.mean(shares))
        and np.isclose(found.overall["PCK@150 (14 joints)"], 100 * np.mean(shares))
        and found.protocol == MUPOTS
    )
    for changed, flat, words in (
        ({"frame": identity["frame"] + 1}, px, "are frames one late"),
        ({}, px / 1920, "predicted people are .* times as large in the picture"),
        (
            {"sequence": np.where(identity["sequence"] == "TS2", "ts2", "TS1")},
            px,
            "sequences that the truth does not have.*ts2",
        ),
    ):
        odd = write_poses(tmp_path / "odd.npz", skeleton, true, identity | changed, flat)
        with pytest.warns(UserWarning, match=words):
            evaluate_files(odd, truth, "mupots")
    nobody = write_poses(
        tmp_path / "nobody.npz", skeleton, true, identity | {"sequence": np.char.lower(identity["sequence"])}, px
    )
    with pytest.raises(ValueError, match="expected pictures of the truth.*found none of them.*no sequence 'ts1'"):
        evaluate_files(nobody, truth, "mupots")
    np.savez(tmp_path / "flat.npz", joints3d=true, joints=np.array(skeleton.labels), **identity)
    with pytest.raises(ValueError, match=r"joints2d: expected \[40, 17, 2\] px, for MuPoTS-3D.*found none"):
        evaluate_files(tmp_path / "flat.npz", truth, "mupots")


def test_unpublished_formats_bring_their_skeleton(tmp_path):
    true = motion()
    np.savez(tmp_path / "own.npz", joints3d=true, joints=np.array([f"mine/{j}" for j in H36M.joints]), **columns())
    with pytest.raises(ValueError, match="joints: expected formats among .* or an entry `skeleton`, found mine"):
        evaluate_files(tmp_path / "own.npz", tmp_path / "own.npz", "embedded")


def test_other_protocols_refuse_one_column(files):
    folder, truth, pred, _ = files
    mine = write(folder, pred)
    results = {name: evaluate_files(mine, truth, name) for name in ("human36m", "human36m-s9-corrected")}
    with pytest.raises(ValueError, match="cannot share a column"):
        compare(results)
