"""Conversion between formats: weights against slow oracles, errors against measured ones, refusals, and the package's
own converter on people that it was not made of."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from acae_nb.autoencoder.acae import ACAE
from acae_nb.autoencoder.bridging import Bridge, UndeterminedJoints
from acae_nb.autoencoder.conversion import (
    Converter,
    JointMoments,
    affine_weights,
    conversion_floors,
    convert,
    load_converter,
    package_converter,
    sample_people,
    save_converter,
    second_moment,
)
from acae_nb.autoencoder.fitting import fit_acae
from acae_nb.autoencoder.stick_people import stick_people

REPO = Path(__file__).resolve().parents[2]
sys.path.append(str(REPO / "benchmarks"))  # scripts, beside each other
benchmark = importlib.import_module("conversion")


@pytest.fixture(scope="module")
def sticks():
    "A converter of stick people, and other people in two formats."
    poses, joints, _, formats = stick_people(800, n_formats=2)
    names = {name.split()[1]: tuple(joints[j] for j in rows) for name, rows in formats.items()}
    held_out, others = (stick_people(400, n_formats=2, seed=seed)[0].astype(float) for seed in (1, 2))
    converter = Converter(names, JointMoments.of(poses, 40), JointMoments.of(held_out, 40), others[:3])
    return converter, others[:, :20], others[:, 20:]


def distance(a, b):
    return np.linalg.norm(a - b, axis=-1)


def test_weights_are_the_least_squares_fit_with_rows_that_sum_to_one():
    rng = np.random.default_rng(0)
    given = rng.normal(size=(4, 60)) * 100 + [[50], [0], [-20], [10]]
    wanted = rng.normal(size=(2, 4)) @ given + rng.normal(size=(2, 60))
    weights = affine_weights(given @ given.T, wanted @ given.T)
    for row, goal in zip(weights, wanted):
        slow = minimize(
            lambda w, goal=goal: ((w @ given - goal) ** 2).mean(),
            np.full(4, 0.25),
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-12},
        )
        assert slow.success
        np.testing.assert_allclose(row, slow.x, atol=1e-3)


def test_moments_are_those_of_a_slow_loop():
    poses = stick_people(7, n_formats=1)[0].astype(float)
    slow = np.zeros((20, 20))
    for pose in poses:
        for axis in range(3):
            offset = pose[:, axis] - pose[:, axis].mean()
            slow += np.outer(offset, offset)
    np.testing.assert_allclose(second_moment(poses, chunk=3), slow / 21, atol=1e-6 * slow.max())
    moments = JointMoments.of(poses, size=20)
    np.testing.assert_allclose(moments.loadings @ moments.loadings.T, slow / 21, atol=1e-6 * slow.max())
    few = JointMoments.of(poses, size=3)
    np.testing.assert_allclose((few.loadings**2).sum(1) + few.std**2, np.diag(slow / 21), rtol=1e-6)


def test_expected_errors_are_those_measured_on_the_same_people():
    poses = stick_people(300, n_formats=2)[0].astype(float)
    other = stick_people(300, n_formats=2, seed=1)[0].astype(float)
    given, wanted = np.arange(20), np.arange(20, 40)
    weights = JointMoments.of(poses, 40).weights(given, wanted)
    measured = np.sqrt((distance(weights @ other[:, given], other[:, wanted]) ** 2).mean(0))
    np.testing.assert_allclose(JointMoments.of(other, 40).errors(weights, given, wanted), measured, rtol=1e-6)


def test_an_autoencoders_moments_convert_as_its_bridge_completes():
    poses, joints, mirror, formats = stick_people(600, n_formats=2)
    acae, _ = fit_acae(poses, mirror, 18, 4, joints=joints, rounds=30, polish_steps=0)
    moments = benchmark.latent_moments(acae, poses)
    given, wanted = np.arange(20), np.arange(20, 40)
    part = poses[:50].astype(float)
    part[:, wanted] = np.nan
    completed, _ = Bridge.of(ACAE(acae.encoder, acae.decoder, joints), poses).complete(part, most_mm=np.inf)
    weights = moments.weights(given, wanted, noise=0.1)
    assert distance(weights @ part[:, given], completed[:, wanted]).max() < 1


def test_conversion_moves_turns_and_grows_with_the_person(sticks):
    converter, a, _ = sticks
    turn = Rotation.from_rotvec([0.3, 1, -2]).as_matrix() * [1, 1, -1]  # and a mirror
    moved = converter.convert(a @ turn.T * 1.3 + [1e6, 20, -3e5], "A", "B").poses
    np.testing.assert_allclose(moved, converter.convert(a, "A", "B").poses @ turn.T * 1.3 + [1e6, 20, -3e5], atol=1e-5)


def test_errors_on_others_are_as_expected(sticks):
    converter, a, b = sticks
    poses, expected = converter.convert(a, "A", "B")
    rms = np.sqrt((distance(poses, b) ** 2).mean(0))
    np.testing.assert_allclose(rms, expected[0], rtol=0.25)
    assert (expected == expected[0]).all()


def test_a_missing_joint_changes_weights_and_errors_of_its_pose_alone(sticks):
    converter, a, b = sticks
    knee = converter.formats["A"].index("lknee A")
    some = a.copy()
    some[::2, knee] = np.nan
    poses, expected = converter.convert(some, "A", "B", limit_mm=np.inf)
    whole, expected_whole = converter.convert(a, "A", "B")
    assert np.array_equal(poses[1::2], whole[1::2]) and np.array_equal(expected[1::2], expected_whole[1::2])
    given = np.arange(20) != knee
    by_hand = converter.fitted.weights(np.arange(20)[given], np.arange(20, 40)) @ a[::2][:, given]
    np.testing.assert_allclose(poses[::2], by_hand, atol=1e-6)
    assert expected[0, knee] > expected[1, knee] + 20
    rms = np.sqrt((distance(poses[::2], b[::2]) ** 2).mean(0))
    np.testing.assert_allclose(rms, expected[0], rtol=0.35)


def test_a_format_to_itself_keeps_what_is_given_and_completes_the_rest(sticks):
    converter, a, _ = sticks
    part = a.copy()
    part[:, 5] = np.nan
    poses, expected = converter.convert(part, "A", "A", limit_mm=np.inf)
    rest = np.arange(20) != 5
    assert np.array_equal(poses[:, rest], a[:, rest]) and (expected[:, rest] == 0).all() and (expected[:, 5] > 0).all()
    assert np.sqrt((distance(poses[:, 5], a[:, 5]) ** 2).mean()) == pytest.approx(expected[0, 5], rel=0.3)


def test_what_is_not_determined_is_refused_by_name_or_left_out(sticks):
    converter, a, _ = sticks
    legs = a.copy()
    legs[:3, [not name[1:].startswith(("hip", "knee", "ankle")) for name in converter.formats["A"]]] = np.nan
    with pytest.raises(
        UndeterminedJoints, match=r"A to B: .*'[lr]hand B' \(\d+ mm\).*limit of 60 mm; missing .*'pelvis A'"
    ):
        converter.convert(legs, "A", "B")
    poses, expected = converter.convert(legs, "A", "B", beyond="nan")
    assert np.array_equal(np.isnan(poses).any(-1), expected > 60) and np.isfinite(poses[3:]).all()
    assert np.isnan(poses[0]).any() and np.isfinite(poses[0]).any()


def test_a_pose_without_joints_is_refused_or_nan(sticks):
    converter, a, _ = sticks
    nothing = a[:4].copy()
    nothing[2] = np.nan
    with pytest.raises(UndeterminedJoints, match=r"\(inf mm\)"):
        converter.convert(nothing, "A", "B")
    poses, expected = converter.convert(nothing, "A", "B", beyond="nan")
    assert np.isnan(poses[2]).all() and np.isinf(expected[2]).all() and np.isfinite(poses[[0, 1, 3]]).all()


def test_shapes_of_one_pose_and_of_many(sticks):
    converter, a, _ = sticks
    one, many = converter.convert(a[0], "A", "B"), converter.convert(a[:6].reshape(2, 3, 20, 3), "A", "B")
    assert one.poses.shape == (20, 3) and one.expected_mm.shape == (20,)
    assert many.poses.shape == (2, 3, 20, 3) and np.allclose(many.poses[0, 0], one.poses)
    assert converter.convert(a[:0], "A", "B").poses.shape == (0, 20, 3)


def with_coordinate(poses, value):
    poses = poses.copy()
    poses[1, 2, 0] = value
    return poses


BAD = {
    "another number of joints": (
        lambda a: a[:, :19],
        r"poses: expected shape \[..., 20, 3\] of A, found \[400, 19, 3\]",
    ),
    "half a joint": (lambda a: with_coordinate(a, np.nan), "joint 'neck A' of pose 1 has only some of its coordinates"),
    "infinite": (lambda a: with_coordinate(a, np.inf), "joint 'neck A' of pose 1 has an infinite coordinate"),
    "metres": (lambda a: a / 1000, r"expected people in mm, found poses that are 1\.\d+ large \(metres\?\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_poses_that_are_none(sticks, case):
    converter, a, _ = sticks
    spoil, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        converter.convert(spoil(a), "A", "B")


def test_unknown_names(sticks):
    converter, a, _ = sticks
    with pytest.raises(KeyError, match="no conversion from or to 'C'.*there are A, B"):
        converter.convert(a, "A", "C")
    with pytest.raises(ValueError, match="beyond: expected 'refuse' or 'nan', found 'drop'"):
        converter.convert(a, "A", "B", beyond="drop")
    with pytest.raises(KeyError, match="did you mean 'h36m_17'"):
        convert(sample_people("h36m_17"), "h36m17", "coco_17")


def test_a_file_says_the_same_and_broken_ones_are_named(sticks, tmp_path):
    converter, a, _ = sticks
    path = tmp_path / "c.safetensors"
    save_converter(converter, path)
    again = load_converter(path)
    assert again.formats == converter.formats
    assert distance(again.convert(a, "A", "B").poses, converter.convert(a, "A", "B").poses).max() < 1.5
    middles = converter.sample.mean(1, keepdims=True)
    np.testing.assert_allclose(again.sample, converter.sample - middles, atol=1 / 32 + 1e-3)
    arrays = load_file(path)
    save_file(arrays, path)
    with pytest.raises(ValueError, match="c.safetensors: field `kind`: expected 'acae_nb conversion 1', found None"):
        load_converter(path)


DAMAGED_CONVERTERS = {  # what is changed of the arrays or the header -> what is said
    "names that are no lists": (None, {"formats": '{"A": 5}'}, "field `formats`: expected names of joints by format"),
    "names that are no JSON": (None, {"formats": "{"}, "field `formats`: expected JSON"),
    "no names": (None, {"formats": None}, "field `formats`: expected JSON"),
    "a flat table": ("fitted/loadings", lambda a: a[:, 0], r"field `fitted/loadings`: expected numbers of shape \["),
    "a joint too few": ("held_out/std", lambda a: a[1:], "field `held_out/std`: expected numbers of shape"),
    "poses of four axes": ("sample", lambda a: np.concatenate([a, a], 2), "field `sample`: expected numbers of shape"),
    "not finite": ("fitted/std", lambda a: a * np.float16("nan"), "field `fitted/std`: expected finite numbers, found"),
    "of letters": ("fitted/std", lambda a: a.astype(bool), "field `fitted/std`: expected numbers of shape"),
    "absent": ("sample", lambda a: None, "field `sample`: .* found nothing"),
}


@pytest.mark.parametrize("case", DAMAGED_CONVERTERS)
def test_damaged_converters_are_named(sticks, tmp_path, case):
    field, change, words = DAMAGED_CONVERTERS[case]
    path = tmp_path / "c.safetensors"
    save_converter(sticks[0], path)
    with safe_open(path, "np") as file:
        header = file.metadata()
    arrays = load_file(path)
    if field is None:
        header = {name: text for name, text in (header | change).items() if text is not None}
    elif (changed := change(arrays.pop(field))) is not None:
        arrays[field] = np.ascontiguousarray(changed)
    save_file(arrays, path, header)
    with pytest.raises(ValueError, match=f"c.safetensors: {words}"):
        load_converter(path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_cut_converters_are_named(sticks, tmp_path, share):
    path = tmp_path / "c.safetensors"
    save_converter(sticks[0], path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="c.safetensors: expected a converter as save_converter writes it"):
        load_converter(path)


# --- the package's own -----------------------------------------------------------------------------------------------
TABLES = ("conversion", "conversion_mesh")
PAIRS = [(a, b) for a in package_converter().formats for b in package_converter().formats if a != b][::5]


def test_the_package_converts_between_all_formats_of_the_body():
    from acae_nb.people.formats import rig_formats, rig_skeleton

    formats = package_converter().formats
    assert set(formats) == set(rig_formats())
    assert {name: joints for name, joints in formats.items() if joints != rig_skeleton(name).joints} == {}


def test_formats_lie_where_they_lay_when_the_table_was_made():
    "A recipe was changed? benchmarks/conversion.py, conversion_mesh.py and conversion_floors.py make all again."
    from acae_nb.people.formats import rig_formats

    made_of = json.loads((REPO / "results/conversion.json").read_text("utf-8"))["recipes"]
    assert made_of == {name: benchmark.recipe_digest(name) for name in rig_formats()}


def test_floors_are_those_of_the_measured_tables():
    from acae_nb.people.formats import rig_skeleton

    field = "pairs [median mm, mean mm, share of joints]"
    table, mesh = (json.loads((REPO / f"results/{name}.json").read_text("utf-8")) for name in TABLES)
    skeletons = {name: rig_skeleton(name) for name in table[field]}
    for a, row in table[field].items():
        for b, ways in row.items():
            floors = conversion_floors(a, b)
            assert {way: floors[way].mean_mm for way in ("linear", "autoencoder")} == {
                way: ways[way][1] for way in ("linear", "autoencoder")
            }
            assert floors["linear"].people == 1500 and floors["linear"].joints == len(skeletons[b])
            assert floors["mesh"] == (mesh[field][a][b]["mesh"][1], len(skeletons[b]), 10)
            shared = [name for name in skeletons[b].short_names if name in skeletons[a].short_names]
            assert ("name" in floors) == bool(shared) == (ways["name"][2] > 0)
            if shared:
                assert floors["name"] == (ways["name"][1], len(shared), 1500)
                assert len(shared) / len(skeletons[b]) == pytest.approx(ways["name"][2], abs=0.0051)
    assert conversion_floors("h36m_17", "posepile_huge8_merged") == {}


def test_floors_by_name_are_those_of_a_slow_loop():
    from acae_nb.people.formats import rig_skeleton

    for a, b in (("h36m_17", "coco_17"), ("smpl_24", "mpi_inf_3dhp_28")):
        mine, theirs = rig_skeleton(a).short_names, rig_skeleton(b).short_names
        pairs = [(mine.index(name), joint) for joint, name in enumerate(theirs) if name in mine]
        off = [distance(sample_people(a)[:, i], sample_people(b)[:, j]).mean() for i, j in pairs]
        assert conversion_floors(a, b)["name"].mean_mm == pytest.approx(np.mean(off), rel=0.2)


def test_errors_on_people_it_was_not_made_of_are_as_stated():
    """Mean distance of each joint within the stated root mean square and a standard error of so few people, for nine
    joints of ten; and not far below it either."""
    within, ratios = [], []
    for a, b in PAIRS:
        poses, expected = package_converter().convert(sample_people(a), a, b, limit_mm=np.inf)
        off = distance(poses, sample_people(b))
        within.append(off.mean(0) <= expected[0] + off.std(0) / np.sqrt(len(off)))
        ratios.append(np.sqrt((off**2).mean(0)) / expected[0])
    assert np.concatenate(within).mean() >= 0.9
    assert 0.85 < np.median(np.concatenate(ratios)) < 1.15


def test_there_and_back_within_the_stated_error():
    """A to B to A: each joint's mean error within that of the second conversion and what its weights make of the first
    one's, for nine joints of ten."""
    converter, within = package_converter(), []
    for a, b in PAIRS:
        there, expected_there = converter.convert(sample_people(a), a, b, limit_mm=np.inf)
        back, expected_back = converter.convert(there, b, a, limit_mm=np.inf)
        carried = np.abs(converter.map(b, a).weights) @ expected_there[0]
        stated = np.hypot(expected_back[0], carried)
        within.append(distance(back, sample_people(a)).mean(0) <= stated)
    assert np.concatenate(within).mean() >= 0.9


def test_weights_beat_the_joint_of_the_same_name():
    from acae_nb.people.formats import rig_skeleton

    copied, converted = [], []
    for a, b in PAIRS:
        names, wanted = rig_skeleton(a).short_names, rig_skeleton(b).short_names
        shared = [j for j, name in enumerate(wanted) if name in names]
        if shared:
            truth = sample_people(b)[:, shared]
            copied.append(distance(sample_people(a)[:, [names.index(wanted[j]) for j in shared]], truth).mean())
            poses = package_converter().convert(sample_people(a), a, b, limit_mm=np.inf).poses
            converted.append(distance(poses[:, shared], truth).mean())
    assert np.median(converted) < 0.6 * np.median(copied)
    assert np.mean(np.array(converted) <= np.array(copied)) > 0.9


def test_the_command_makes_the_same_kind_of_file(tmp_path, monkeypatch):
    rig = REPO / ".cache/rig.safetensors"
    if not rig.exists() or not (REPO / "data/motions").exists():
        pytest.skip("no body rig (.cache/rig.safetensors) or no motions (data/motions)")
    path = tmp_path / "maps.safetensors"
    sizes = ["--people", "150", "--held-out", "100", "--sample", "2"]
    monkeypatch.setattr(
        "sys.argv",
        ["conversion", "--rig", str(rig), "--motions", str(REPO / "data/motions"), *sizes, "--maps", str(path)],
    )
    benchmark.main()
    small, shipped = load_converter(path), package_converter()
    assert small.formats.keys() <= shipped.formats.keys() and small.sample.shape[0] == 2
    assert small.fitted.loadings.shape[1] == shipped.fitted.loadings.shape[1]
    a, b = "h36m_17", "coco_17"
    poses, expected = shipped.convert(sample_people(a), a, b)
    apart = distance(small.convert(sample_people(a), a, b).poses, poses).mean(0)
    assert np.median(apart) < np.median(expected[0])
