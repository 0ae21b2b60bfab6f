"""Files of motion (TRC, C3D, BVH) are read by others: whoever is in the pictures, however many, and whoever is not."""

import json
import struct
import warnings
from dataclasses import dataclass, replace

import c3d
import ezc3d
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from acae_nb.geometry.cameras import Camera
from acae_nb.inference.outputs import evenly_spaced, usual_rate, write_bvh, write_c3d, write_glb, write_trc
from acae_nb.inference.pose_results import Poses
from acae_nb.inference.tracks import people_over_time
from acae_nb.skeletons.joints import Skeleton, load_skeleton, skeleton_names, union

CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), position=np.array([0, 0, 500.0]))


def chain(joints: int) -> Skeleton:
    "Joints one after the other."
    bones = tuple((k, k + 1) for k in range(joints - 1))
    return Skeleton("chain", tuple(f"joint_{k}" for k in range(joints)), bones, tuple(range(joints)))


def poses_of(skeleton, frame, people: dict[int, np.ndarray]) -> Poses:
    "A picture of numbered people."
    n, j = len(people), len(skeleton)
    joints3d = np.array(list(people.values()), float).reshape(n, j, 3)
    poses = Poses(
        skeleton, joints3d, np.tile([1.0, 2, 30, 40], (n, 1)), np.ones(n), np.ones((n, j)), CAMERA, None, frame
    )
    return replace(poses, tracks=np.array(list(people), int))


def seen_in(presence: list[list[bool]], joints: int) -> list[Poses]:
    "A picture a row, in which the people are whose column says so; they stand 1.5 m apart and sway."
    body = np.arange(joints)[:, None] * np.array([10.0, 20, 5])
    return [
        poses_of(chain(joints), t, {k: body + [1500 * k + 9 * t, 4 * t, 4000] for k, here in enumerate(row) if here})
        for t, row in enumerate(presence)
    ]


crowds = st.integers(1, 5).flatmap(
    lambda people: st.lists(st.lists(st.booleans(), min_size=people, max_size=people), max_size=8)
)
several = settings(max_examples=15, deadline=None, derandomize=True)


def opensim_trc(text: str) -> np.ndarray:
    """OpenSim's two rules. A row has Frame, Time and three fields a marker, each followed by a tab, also where it is
    empty. The fourth line names as many markers as the third counts. (And the rows begin after an empty line.)"""
    lines = text.split("\n")
    count = int(lines[2].split("\t")[3])
    assert len([name for name in lines[3].split("\t")[2:] if name]) == count and lines[5] == ""
    rows = []
    for line in lines[6:-1]:
        assert line.endswith("\t")
        fields = line[:-1].split("\t")
        assert len(fields) == 2 + 3 * count
        rows.append([float(x) if x else np.nan for x in fields])
    assert len(rows) == int(lines[2].split("\t")[2])
    return np.array(rows)[:, 2:].reshape(len(rows), count, 3)


@several
@given(crowds, st.sampled_from([1, 2, 17, 86]))
@example([[True], [False], [True]], 17)  # absent in between: B8
@example([[True, True], [True, False]], 206)  # the last one absent, many joints: B7, B8
@example([[True]], 1)
@example([[True] * 12] * 2, 300)
@example([], 3)
@example([[False, False]], 3)
def test_trc_and_c3d_are_read_by_others(tmp_path_factory, presence, joints):
    results, folder = seen_in(presence, joints), tmp_path_factory.mktemp("motion")
    if not np.any(presence):
        for write, name in ((write_trc, "p.trc"), (write_c3d, "p.c3d"), (write_bvh, "p.bvh")):
            with pytest.raises(ValueError, match="expected at least one person"):
                write(results, folder / name)
        assert not list(folder.iterdir())
        return
    expected = np.concatenate(people_over_time(results), 1)
    trc = opensim_trc(write_trc(results, folder / "p.trc").read_text())
    np.testing.assert_allclose(trc, expected * [1, -1, -1], atol=1e-3)
    path = write_c3d(results, folder / "p.c3d")
    np.testing.assert_allclose(ezc3d.c3d(str(path))["data"]["points"][:3].T, expected, atol=0.01)
    with path.open("rb") as file:
        frames = np.stack([points for _, points, _ in c3d.Reader(file).read_frames()])
    seen = np.isfinite(expected[..., 0])
    np.testing.assert_allclose(frames[..., :3][seen], expected[seen], atol=0.01)
    assert (frames[..., 3][~seen] < 0).all() and (frames[..., 3][seen] >= 0).all()


# --- BVH, by a reader of its own --------------------------------------------------------------------------------------
def turn(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rows = {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    return np.array(rows[axis])


def read_bvh(text: str) -> tuple[dict[str, np.ndarray], dict[str, str | None], float]:
    "Where each joint is in each picture (a matrix a joint, as the file's words say), its parent, and the time step."
    head, motion = text.split("MOTION\n")
    words = iter(head.split()[1:])
    nodes, stack = [], [None]  # name, parent, offset, channels
    for word in words:
        if word in ("ROOT", "JOINT", "End"):
            nodes.append([next(words), stack[-1], None, []])
        elif word == "{":
            stack.append(len(nodes) - 1)
        elif word == "}":
            stack.pop()
        elif word == "OFFSET":
            nodes[-1][2] = np.array([float(next(words)) for _ in range(3)])
        elif word == "CHANNELS":
            nodes[-1][3] = [next(words) for _ in range(int(next(words)))]
        else:
            raise AssertionError(f"unknown word {word}")
    lines = motion.strip().split("\n")
    step, rows = float(lines[1].removeprefix("Frame Time: ")), lines[2:]
    assert int(lines[0].removeprefix("Frames: ")) == len(rows) and stack == [None]
    places = {name: [] for name, _, _, channels in nodes if channels}
    for row in rows:
        values, world = iter(map(float, row.split())), []
        for name, parent, offset, channels in nodes:
            local = np.eye(4)
            local[:3, 3] = offset
            for channel in channels:
                step_of_channel = np.eye(4)
                if channel.endswith("position"):
                    step_of_channel["XYZ".index(channel[0]), 3] = next(values)
                else:
                    step_of_channel[:3, :3] = turn(channel[0], next(values))
                local = local @ step_of_channel
            world.append(local if parent is None else world[parent] @ local)
            if channels:
                places[name].append(world[-1][:3, 3])
        assert next(values, None) is None
    parents = {name: None if parent is None else nodes[parent][0] for name, parent, _, channels in nodes if channels}
    return {name: np.array(points) for name, points in places.items()}, parents, step


TURNED = {"camera": [[1, 0, 0], [0, -1, 0], [0, 0, -1]], "world": [[1, 0, 0], [0, 0, 1], [0, -1, 0]]}
TREES = [name for name in skeleton_names() if (load_skeleton(name).parents < 0).sum() == 1]


def motion_of(skeleton, rng, pictures=5, noise=0.0):
    "Joints of rigid bones that turn, mm, around (200, 100, 4000); with noise on each joint."
    parents, joints = skeleton.parents, np.zeros((pictures, len(skeleton), 3))
    offsets, turns = rng.normal(0, 150, (len(skeleton), 3)), {}
    waiting = [int(np.flatnonzero(parents < 0)[0])]
    joints[:, waiting[0]] = rng.normal(0, 100, (pictures, 3)) + [200, 100, 4000]
    while waiting:
        joint = waiting.pop()
        start, speed = rng.normal(size=(2, 3)) * [[40], [5]]  # degrees, and degrees a picture
        angles = start + np.arange(pictures)[:, None] * speed
        own = [turn("X", x) @ turn("Y", y) @ turn("Z", z) for x, y, z in angles]
        before = turns.get(int(parents[joint]), [np.eye(3)] * pictures)
        turns[joint] = [a @ b for a, b in zip(before, own)]
        for child in np.flatnonzero(parents == joint):
            joints[:, child] = joints[:, joint] + [m @ offsets[child] for m in turns[joint]]
            waiting.append(int(child))
    return joints + rng.normal(0, noise, joints.shape)


# --- BVH, by the rules of Blender's importer (io_anim_bvh), which reads line by line ----------------------------------
BLENDER_NAME = 63  # bytes of a bone's name; more are cut off
BLENDER_BONE = 0.001  # a bone that is not longer is replaced by another


@dataclass
class BlenderBone:
    name: str
    parent: int | None
    head: np.ndarray  # from the parent's head
    channels: list[str]
    tail: np.ndarray | None = None  # from its own head; only of bones without children


def blender_bones(text: str) -> tuple[list[BlenderBone], np.ndarray, float]:
    """Bones, a row of numbers a picture, and the time step. OFFSET is looked for in the second line after a ROOT, JOINT
    or End Site, CHANNELS in the third; a brace that closes and MOTION stand alone; Frames: is followed by one word and
    Frame Time: by one."""
    lines = [line.split() for line in text.splitlines() if line.split()]
    assert lines[0] == ["HIERARCHY"]
    bones, inside, k = [], [None], 0
    while lines[k] != ["MOTION"]:
        if lines[k][0] in ("ROOT", "JOINT"):
            (_, name), (offset, *head), (word, count, *channels) = lines[k], lines[k + 2], lines[k + 3]
            assert (offset, word, int(count)) == ("OFFSET", "CHANNELS", len(channels))
            bones.append(BlenderBone(name, inside[-1], np.array(head, float), channels))
            inside.append(len(bones) - 1)
        elif lines[k] == ["End", "Site"]:
            assert lines[k + 2][0] == "OFFSET"
            bones[inside[-1]].tail = np.array(lines[k + 2][1:], float)
            inside.append(None)
        elif lines[k] == ["}"]:
            inside.pop()
        k += 1
    (frames, count), (frame, time, step), rows = lines[k + 1], lines[k + 2], np.array(lines[k + 3 :], float)
    assert (frames, frame, time) == ("Frames:", "Frame", "Time:") and inside == [None]
    assert rows.shape == (int(count), sum(len(bone.channels) for bone in bones))
    return bones, rows, float(step)


def blender_places(bones: list[BlenderBone], row: np.ndarray) -> dict[str, np.ndarray]:
    "Heads of the bones in Blender's world, with forward -Z and up Y as the importer offers them."
    heads, turns, values = [], [], iter(row)
    for bone in bones:
        own = {channel: next(values) for channel in bone.channels}
        order = [channel[0] for channel in bone.channels if channel.endswith("rotation")]
        turn = Rotation.from_euler("".join(order), [own[f"{axis}rotation"] for axis in order], degrees=True)
        if bone.parent is None:
            heads.append(np.array([own[f"{axis}position"] for axis in "XYZ"]))
            turns.append(turn)
        else:
            heads.append(heads[bone.parent] + turns[bone.parent].apply(bone.head))
            turns.append(turns[bone.parent] * turn)
    return {bone.name: np.array([x, -z, y]) for bone, (x, y, z) in zip(bones, heads)}


@pytest.mark.parametrize("name", TREES)
def test_bvh_is_as_blender_reads_it(tmp_path, name):
    "Blender has z up: x is right, y away from the camera, as its front view sees a person who faces the camera."
    skeleton = load_skeleton(name)
    joints = motion_of(skeleton, np.random.default_rng(len(name)), 3)
    results = [poses_of(skeleton, t, {0: pose}) for t, pose in enumerate(joints)]
    bones, rows, step = blender_bones(write_bvh(results, tmp_path / "p.bvh", 25).read_text())
    names = [bone.name for bone in bones]
    assert len(set(names)) == len(skeleton) and all(len(n.encode()) <= BLENDER_NAME for n in names)
    assert [bone.parent for bone in bones].count(None) == 1 and step == pytest.approx(0.04)
    for bone in bones:
        assert sorted(c for c in bone.channels if c.endswith("rotation")) == ["Xrotation", "Yrotation", "Zrotation"]
        assert (len(bone.channels) == 6) == (bone.parent is None)
        if bone.tail is not None and np.linalg.norm(bone.head) > 4 * BLENDER_BONE:
            assert np.linalg.norm(bone.tail) > BLENDER_BONE
    for row, pose in zip(rows, joints):
        places = blender_places(bones, row)
        read_back = np.array([places[joint.replace(" ", "_")] for joint in skeleton.joints])
        np.testing.assert_allclose(read_back, pose[:, [0, 2, 1]] * [1, 1, -1] / 1000, atol=1e-4)


# --- glTF, read as tests/geometry/test_gltf.py does -------------------------------------------------------------------
def gltf_keys(path) -> tuple[dict, list[float], list[float]]:
    "The document, the keys' times, and where the first person's root is at the first key."
    content = path.read_bytes()
    length = struct.unpack("<I", content[12:16])[0]
    document, numbers = json.loads(content[20 : 20 + length]), content[28 + length :]

    def values(accessor):
        facts = document["accessors"][accessor]
        view, width = document["bufferViews"][facts["bufferView"]], {"SCALAR": 1, "VEC3": 3}[facts["type"]]
        return np.frombuffer(numbers, "<f4", facts["count"] * width, view["byteOffset"]).reshape(-1, width)

    animation = document["animations"][0]
    channel = next(c for c in animation["channels"] if c["target"]["path"] == "translation")
    sampler = animation["samplers"][channel["sampler"]]
    return document, values(sampler["input"])[:, 0], values(sampler["output"])[0]


@pytest.mark.parametrize("frame", TURNED)
def test_glb_has_all_people_y_up_in_metres_at_their_own_times(tmp_path, frame):
    skeleton = load_skeleton("h36m_17")
    one, other = (motion_of(skeleton, np.random.default_rng(seed), 4) for seed in (1, 2))
    results = [poses_of(skeleton, t, {0: a, 1: b}) for t, (a, b) in enumerate(zip(one, other))]
    times = [0.5, 0.6, 0.65, 1.5]
    document, keys, root = gltf_keys(write_glb(results, tmp_path / "p.glb", frame=frame, times=times))
    np.testing.assert_allclose(keys, np.subtract(times, 0.5), atol=1e-6)
    names = [node["name"] for node in document["nodes"]]
    assert names == [*skeleton.joints, "person 1", *(f"2_{joint}" for joint in skeleton.joints), "person 2"]
    first = people_over_time(results, 30, frame)[0][0]
    place = first[np.flatnonzero(skeleton.parents < 0)[0]] @ np.array(TURNED[frame]).T / 1000
    np.testing.assert_allclose(root, place, atol=1e-5)


def test_glb_says_what_it_bridges_and_refuses_what_is_no_tree(tmp_path):
    results = seen_in([[True], [True], [False], [True]], 3)
    with pytest.warns(UserWarning, match=r"p.glb: person 1: joints missing in 1 of 4 pictures are bridged"):
        assert len(gltf_keys(write_glb(results, tmp_path / "p.glb"))[1]) == 4
    both = union([load_skeleton("h36m_17"), load_skeleton("coco_17")])
    with pytest.raises(ValueError, match="bones connect all of its joints"):
        write_glb([poses_of(both, 0, {0: np.ones((len(both), 3)) * 4000})], tmp_path / "q.glb")
    with pytest.raises(ValueError, match="expected at least one person"):
        write_glb(seen_in([[False]], 3), tmp_path / "q.glb")
    assert not (tmp_path / "q.glb").exists()


@pytest.mark.parametrize("name", TREES)
def test_bvh_gives_rigid_motion_back_in_every_format_with_a_tree(tmp_path, name):
    skeleton = load_skeleton(name)
    joints = motion_of(skeleton, np.random.default_rng(len(name)))
    results = [poses_of(skeleton, t, {0: pose}) for t, pose in enumerate(joints)]
    places, parents, step = read_bvh(write_bvh(results, tmp_path / "p.bvh", 50).read_text())
    assert step == pytest.approx(1 / 50) and list(tmp_path.iterdir()) == [tmp_path / "p.bvh"]
    names = [joint.replace(" ", "_") for joint in skeleton.joints]
    assert parents == {n: names[p] if p >= 0 else None for n, p in zip(names, skeleton.parents)}
    read_back = np.stack([places[n] for n in names], 1) * 1000
    np.testing.assert_allclose(read_back, joints * [1, -1, -1], atol=0.1)  # mm: Y up, Z towards the camera


def test_bvh_is_off_by_what_bones_vary(tmp_path):
    "Each bone of a chain keeps its direction, so a joint is off by at most the sum of what its bones vary."
    rng, skeleton = np.random.default_rng(0), chain(6)
    joints = motion_of(skeleton, rng, 30, noise=8)
    results = [poses_of(skeleton, t, {0: pose}) for t, pose in enumerate(joints)]
    places, _, _ = read_bvh(write_bvh(results, tmp_path / "p.bvh", frame="camera").read_text())
    off = np.linalg.norm(np.stack(list(places.values()), 1) * 1000 - joints * [1, -1, -1], axis=-1)
    lengths = np.linalg.norm(np.diff(joints, axis=1), axis=-1)
    variation = np.abs(lengths - np.median(lengths, 0)).cumsum(1)
    assert (off[:, 0] < 0.01).all() and (off[:, 1:] <= variation + 0.05).all() and off[:, 1:].mean() > 1


@pytest.mark.parametrize("frame", TURNED)
def test_bvh_has_y_up_in_metres(tmp_path, frame):
    skeleton = load_skeleton("h36m_17")
    results = [poses_of(skeleton, t, {0: p}) for t, p in enumerate(motion_of(skeleton, np.random.default_rng(1), 4))]
    places, _, _ = read_bvh(write_bvh(results, tmp_path / "p.bvh", frame=frame).read_text())
    expected = (
        np.stack([(r.joints3d if frame == "camera" else r.world)[0] for r in results]) @ np.array(TURNED[frame]).T
    )
    np.testing.assert_allclose(np.stack([places[n] for n in skeleton.joints], 1), expected / 1000, atol=1e-4)


@several
@given(crowds)
def test_bvh_has_a_file_a_person_all_as_long_as_the_recording(tmp_path_factory, presence):
    results, folder = seen_in(presence, 3), tmp_path_factory.mktemp("bvh")
    if not np.any(presence):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_bvh(results, folder / "p.bvh")
    people = people_over_time(results)
    assert {p.name for p in folder.iterdir()} == {f"p_{k + 1}.bvh" if k else "p.bvh" for k in range(len(people))}
    for k, joints in enumerate(people):
        places, _, _ = read_bvh((folder / (f"p_{k + 1}.bvh" if k else "p.bvh")).read_text())
        root, seen = places["joint_0"] * 1000, np.isfinite(joints[:, 0, 0])
        assert len(root) == len(presence)
        np.testing.assert_allclose(root[seen], joints[seen, 0] * [1, -1, -1], atol=0.01)


def test_bvh_says_what_it_bridges_and_what_it_resamples(tmp_path):
    results = seen_in([[True], [True], [True], [False], [True], [True]], 3)
    with pytest.warns(UserWarning, match=r"person 1: joints missing in 1 of 6 pictures are bridged"):
        places, _, _ = read_bvh(write_bvh(results, tmp_path / "p.bvh").read_text())
    np.testing.assert_allclose(places["joint_0"][3], (places["joint_0"][2] + places["joint_0"][4]) / 2, atol=1e-5)
    with pytest.warns(UserWarning, match="unevenly spaced in time: resampled to 10 a second"):
        places, _, step = read_bvh(
            write_bvh(results[:3] + results[4:], tmp_path / "q.bvh", times=[0, 0.1, 0.2, 0.4, 0.5]).read_text()
        )
    assert step == pytest.approx(0.1) and len(places["joint_0"]) == 6
    np.testing.assert_allclose(places["joint_0"][3], (places["joint_0"][2] + places["joint_0"][4]) / 2, atol=1e-5)


def test_bvh_says_which_files_of_other_people_it_replaces_or_leaves(tmp_path):
    for name in ("[p]_2.bvh", "[p]_3.bvh", "[p]_04.bvh", "[p]_two.bvh"):
        (tmp_path / name).write_text("another recording")
    with pytest.warns(UserWarning) as said:
        write_bvh(seen_in([[True, True]] * 4, 3), tmp_path / "[p].bvh")
    messages = {str(warning.message).partition("].bvh: ")[2] for warning in said}
    assert messages == {"replaced too: [p]_2.bvh", "of an earlier run, left as they are: [p]_3.bvh"}


@pytest.mark.parametrize("rate", [24, 25, 30, 50, 59.94, 60, 120, 240])
@pytest.mark.parametrize("count", [2, 40, 2000])
def test_whole_milliseconds_tell_the_rate_and_no_uneven_spacing(rate, count):
    "Times as .mkv and .webm have them."
    seconds = np.round(np.arange(count) / rate, 3)
    found = usual_rate(seconds, 30.0)
    assert found == pytest.approx(rate, rel=1e-3 * rate / (count - 1)) and evenly_spaced(seconds, found)


@pytest.mark.parametrize("write, ending", [(write_bvh, "bvh"), (write_glb, "glb")])
def test_a_joint_in_no_picture_lies_on_the_next_one_and_is_named(tmp_path, write, ending):
    skeleton = load_skeleton("smpl_24")
    lost = [skeleton.joints.index(name) for name in ("right_knee", "left_hand")]
    rng = np.random.default_rng(0)
    poses = [rng.normal(0, 300, (24, 3)) + [10 * t, 0, 4000] for t in range(4)]
    for pose in poses:
        pose[lost] = np.nan
    results = [poses_of(skeleton, t, {0: pose}) for t, pose in enumerate(poses)]
    with pytest.warns(
        UserWarning, match=r"person 1: in no picture, put on the next joint .*: right_knee, left_hand"
    ) as told:
        file = write(results, tmp_path / f"p.{ending}")
    assert len(told) == 1 and file.stat().st_size > 1000
    if ending == "bvh":
        places, _, _ = read_bvh(file.read_text())
        np.testing.assert_allclose(places["right_knee"], places["right_hip"], atol=1e-5)
        np.testing.assert_allclose(places["left_hand"], places["left_wrist"], atol=1e-5)
        assert all(np.isfinite(place).all() for place in places.values())


def test_bvh_refuses_formats_that_are_no_tree(tmp_path):
    both = union([load_skeleton("h36m_17"), load_skeleton("coco_17")])
    for skeleton in (both, load_skeleton("smplx_42")):
        pose = np.ones((len(skeleton), 3)) * 4000
        with pytest.raises(ValueError, match=rf"bones connect all of its joints .*{skeleton.name}.* roots"):
            write_bvh([poses_of(skeleton, 0, {0: pose})], tmp_path / "p.bvh")
    assert not list(tmp_path.iterdir())
