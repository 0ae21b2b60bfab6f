"""Motion clips: readers against hand-computed positions and broken files, variations against what defines them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.people.everyday import EVERYDAY, everyday_poses, two_bones
from acae_nb.people.motion import (
    FLESH,
    MIRROR,
    ROW,
    is_upright,
    jitter_poses,
    make_motion,
    mirror_poses,
    mix_poses,
    read_deepmimic,
    read_holosoma,
    read_motions,
    sample_poses,
    split_clips,
    turn_poses,
)

DATA = Path(__file__).resolve().parents[2] / "data/motions"
BONES = [
    ("chest", "neck"),
    ("neck", "head"),
    ("lhip", "lknee"),
    ("rknee", "rankle"),
    ("lshoulder", "lelbow"),
    ("relbow", "rwrist"),
    ("lankle", "ltoe"),
]


def lengths(p):
    return np.stack([np.linalg.norm(p[:, ROW[a]] - p[:, ROW[b]], axis=1) for a, b in BONES], 1)


seeds = st.integers(0, 2**31)


def frame(**change):
    """One DeepMimic frame standing straight: unit quaternions, pelvis 0.9 m up."""
    values = (
        [1 / 30, 0, 0.9, 0]
        + [1, 0, 0, 0] * 4
        + [0]
        + [1, 0, 0, 0] * 2
        + [0]
        + [1, 0, 0, 0]
        + [0]
        + [1, 0, 0, 0] * 2
        + [0]
    )
    for i, v in change.items():
        values[int(i[1:])] = v
    return values


def write(tmp_path, content):
    path = tmp_path / "humanoid3d_toy.txt"
    path.write_text(content if isinstance(content, str) else json.dumps({"Frames": content}))
    return path


def test_standing_humanoid_is_where_its_bone_lengths_say(tmp_path):
    clip = read_deepmimic(write(tmp_path, [frame(), frame(), frame()]))
    p = clip.positions[0] - clip.positions[0, 0]
    assert clip.name == "toy" and clip.fps == pytest.approx(30) and clip.contact.all()
    assert p[ROW["chest"]] == pytest.approx([0, 0, 236.151], abs=1e-3)
    assert p[ROW["lhip"]] == pytest.approx([0, 84.887, 0], abs=1e-3) and p[ROW["rhip"]] == pytest.approx(
        [0, -84.887, 0], abs=1e-3
    )  # forward is x, so left is +y
    assert p[ROW["lankle"]] == pytest.approx([0, 84.887, -831.416], abs=1e-3) and p[ROW["face"], 0] == pytest.approx(
        200, abs=1e-3
    )
    assert (clip.positions[..., 2] - FLESH).min() == pytest.approx(0, abs=1e-3)


def test_bent_knee_and_root_turn(tmp_path):
    quarter = np.sqrt(0.5)  # root turned 90 degrees about y (up), left knee bent by -90 degrees
    p = read_deepmimic(write(tmp_path, [frame(_4=quarter, _6=quarter, _34=-np.pi / 2)] * 2)).positions[0]
    shin = p[ROW["lankle"]] - p[ROW["lknee"]]
    forward = p[ROW["face"]] - p[ROW["head"]]
    assert forward == pytest.approx([0, 200, 0], abs=1e-3) and shin == pytest.approx(
        [0, -409.87, 0], abs=1e-3
    )  # bent knees carry the shin back


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"Frames": [[0.03, 1, 2', ["broken text"]),
        ("[]", ["Frames"]),
        ('{"Loop": "wrap"}', ["Frames"]),
        ([], ["Frames", "list of frames"]),
        ([frame(), frame()[:-1]], ["Frames[1]", "44 numbers", "43"]),
        ([frame(), frame(_7=float("nan"))], ["Frames[1][7]", "finite"]),
        ([frame(_5=None)], ["Frames[0][5]", "finite"]),
        ([frame(_5="x")], ["Frames", "numbers"]),
        ([frame(_4=0)], ["Frames[0][4:8]", "quaternion"]),
        ([frame(_0=0)], ["Frames[0][0]", "positive duration"]),
    ],
)
def test_broken_deepmimic_files_are_refused_by_field(tmp_path, content, words):
    path = write(tmp_path, content)
    with pytest.raises(ValueError) as e:
        read_deepmimic(path)
    for word in [str(path), *words]:
        assert word in str(e.value)


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((5, 52, 3)), ["(frames, 53, 3)", "(5, 52, 3)"]),
        (np.zeros((0, 53, 3)), ["(0, 53, 3)"]),
        (np.where(np.arange(795).reshape(5, 53, 3) == 300, np.nan, 1), ["frame 1, joint 47", "nan"]),
    ],
)
def test_broken_holosoma_arrays_are_refused_by_field(tmp_path, array, words):
    path = tmp_path / "mocap_climb_seq_9_joint_positions_f0-5.npy"
    np.save(path, array)
    with pytest.raises(ValueError) as e:
        read_holosoma(path)
    for word in [str(path), *words]:
        assert word in str(e.value)


def test_truncated_and_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "a_joint_positions_b.npy"
    np.save(path, np.zeros((50, 53, 3)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=str(path)):
        read_holosoma(path)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=str(path)):
        read_holosoma(path)


def test_contact_needs_nearness_or_stillness():
    stand = everyday_poses(1, np.random.default_rng(0)).positions[0]
    heights = np.concatenate(
        [np.zeros(60), 4000 * np.arange(15) / 60, np.full(60, 1000.0)]
    )  # on the floor, flung up at 4 m/s, standing a metre higher
    clip = make_motion("hop", 60, stand + heights[:, None, None] * [0, 0, 1])
    assert clip.contact[:60].all() and clip.contact[85:].all() and not clip.contact[63:72].any()


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_mirror_turn_and_jitter_keep_bones(seed):
    rng = np.random.default_rng(seed)
    p = everyday_poses(16, rng).positions.astype(float)
    assert np.array_equal(mirror_poses(mirror_poses(p)), p) and (MIRROR[MIRROR] == np.arange(len(MIRROR))).all()
    assert lengths(turn_poses(p, rng.uniform(0, 360, 16))) == pytest.approx(lengths(p))
    assert lengths(jitter_poses(p, rng, 15)) == pytest.approx(lengths(p), rel=1e-6)
    assert np.linalg.norm(mirror_poses(p)[:, ROW["lknee"]] - mirror_poses(p)[:, ROW["lhip"]], axis=1) == pytest.approx(
        np.linalg.norm(p[:, ROW["rknee"]] - p[:, ROW["rhip"]], axis=1)
    )


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(50, 700))
def test_two_bones_reach_or_stretch(seed, reach):
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(8, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    middle, end = two_bones(np.zeros((8, 3)), reach * direction, 300, 250, rng.normal(size=(8, 3)))
    assert np.linalg.norm(middle, axis=1) == pytest.approx(300, rel=1e-5) and np.linalg.norm(
        end - middle, axis=1
    ) == pytest.approx(250, rel=1e-5)
    if 65 < reach < 549:
        assert end == pytest.approx(reach * direction, abs=1e-6)


@pytest.mark.parametrize("family", EVERYDAY)
def test_everyday_poses_are_upright_people_on_the_floor(family):
    m = everyday_poses(2000, np.random.default_rng(1), EVERYDAY[family])
    p = m.positions
    assert np.isfinite(p).all() and is_upright(p).mean() > 0.7 and (p[..., 2].min() > -50)
    assert (p[:, ROW["lhip"], 1] > p[:, ROW["rhip"], 1]).mean() > 0.99 and (
        p[:, ROW["head"], 2] > p[:, ROW["pelvis"], 2]
    ).all()


def test_mixing_keeps_legs_of_one_and_arms_of_the_other():
    rng = np.random.default_rng(3)
    a, b = (everyday_poses(32, rng).positions.astype(float) for _ in range(2))
    m = mix_poses(a, turn_poses(b, rng.uniform(0, 360, 32)))
    legs = [ROW[s + j] for s in "lr" for j in ("hip", "knee", "ankle", "toe")]
    assert np.array_equal(m[:, legs], a[:, legs])

    def angle(p, x, y):
        return (np.cross(p[:, ROW[x]] - p[:, ROW["chest"]], p[:, ROW[y]] - p[:, ROW["chest"]]) ** 2).sum(1)

    assert angle(m, "lwrist", "head") == pytest.approx(angle(b, "lwrist", "head"), rel=1e-6)
    assert m[:, ROW["head"], 2] - m[:, 0, 2] == pytest.approx(b[:, ROW["head"], 2] - b[:, 0, 2])  # a lean stays a lean


def test_sampling_is_a_function_of_its_seed_and_refuses_wrong_weights():
    clips = [everyday_poses(50, np.random.default_rng(0)), everyday_poses(50, np.random.default_rng(1))]
    a, b = (sample_poses(clips, 40, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(a.positions, b.positions) and len(a) == 40
    assert np.abs(a.positions[:, 0, :2]).max() < 1e-3  # pelvis over the origin
    for wrong in ([1], [1, -1], [0, 0], [1, float("nan")]):
        with pytest.raises(ValueError, match="weights"):
            sample_poses(clips, 4, np.random.default_rng(0), weights=wrong)
    only = sample_poses(clips, 30, np.random.default_rng(0), weights=[0, 1], mix=0, jitter=0)
    heights = {tuple(np.round(np.sort(p[:, 2]), 1)) for p in clips[1].positions}
    assert all(tuple(np.round(np.sort(p[:, 2]), 1)) in heights for p in only.positions)


def test_real_clips_split_without_overlap():
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not at hand: `python -m acae_nb.people.sample_data data` fetches it")
    clips = read_motions(DATA)
    splits = split_clips(clips)
    frames = {s: {p.tobytes() for m in ms for p in m.positions} for s, ms in splits.items()}
    assert all(len(m) for ms in splits.values() for m in ms) and sum(len(m) for m in splits["train"]) > 8000
    assert (
        not frames["train"] & frames["test"]
        and not frames["train"] & frames["validation"]
        and not frames["validation"] & frames["test"]
    )
    names = {s: {m.name for m in ms} for s, ms in splits.items()}
    assert names["test"] >= {"climb_seq_4", "dance_b", "0walk_forward"} and {"walk", "run"} <= names["train"]
    assert sum(map(len, names.values())) == len(clips)  # A3: no clip in two splits
    assert (
        lengths(np.concatenate([m.positions for m in clips if not m.name.startswith("climb")])).std(0).max() < 1
    )  # one humanoid, fixed bones


def test_no_clips_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read_motions(tmp_path)
