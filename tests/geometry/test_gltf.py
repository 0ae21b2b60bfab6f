"""glTF files of people over time, by three readers: one written here from the specification, trimesh, and Khronos's
validator where Node has it."""

import io
import json
import os
import shutil
import struct
import subprocess

import numpy as np
import pytest
from conftest import REPO
from scipy.spatial.transform import Rotation, Slerp

from acae_nb.geometry.gltf import OCTAHEDRON, THICKNESS, motion_glb, octahedron, steady_quaternions

PARENTS = np.array([2, 0, -1, 2, 3, 3])  # the root is not the first joint, and a child comes before its parent
NAMES = ["chest", "head", "pelvis", "hip", "knee", "tail"]
SECONDS = np.array([5.0, 5.1, 5.3, 5.35])
TIMES = SECONDS - SECONDS[0]


def motion(seed: int, noise: float = 0.0) -> np.ndarray:
    "Rigid bones that turn, m, chained by matrices alone."
    rng = np.random.default_rng(seed)
    offsets, joints = rng.normal(0, 0.3, (6, 3)), np.zeros((len(SECONDS), 6, 3))
    for t in range(len(SECONDS)):
        world = {2: np.eye(4)}
        world[2][:3, 3] = [seed + 0.1 * t, 1, -4]
        for joint in (2, 0, 1, 3, 4, 5):
            if joint != 2:
                step = np.eye(4)
                step[:3, 3] = offsets[joint]
                world[joint] = world[PARENTS[joint]] @ step
            turn = np.eye(4)
            turn[:3, :3] = Rotation.from_rotvec([0.4 * t + joint, 0.9 * t, -0.3 * joint]).as_matrix()
            joints[t, joint] = world[joint][:3, 3]
            world[joint] = world[joint] @ turn
    return joints + rng.normal(0, noise, joints.shape)


class Reader:
    "A .glb by the words of glTF 2.0's specification."

    def __init__(self, content: bytes):
        magic, version, length = struct.unpack("<4sII", content[:12])
        assert (magic, version, length) == (b"glTF", 2, len(content))
        size, kind = struct.unpack("<I4s", content[12:20])
        assert kind == b"JSON" and size % 4 == 0
        self.document, rest = json.loads(content[20 : 20 + size]), content[20 + size :]
        size, kind = struct.unpack("<I4s", rest[:8])
        assert kind == b"BIN\0" and len(rest) == 8 + size and self.document["buffers"] == [{"byteLength": size}]
        self.buffer, self.nodes = rest[8:], self.document["nodes"]
        self.parents = {child: n for n, node in enumerate(self.nodes) for child in node.get("children", ())}

    def numbers(self, accessor: int) -> np.ndarray:
        facts = self.document["accessors"][accessor]
        view = self.document["bufferViews"][facts["bufferView"]]
        kind = np.dtype({5126: "<f4", 5123: "<u2", 5125: "<u4"}[facts["componentType"]])
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[facts["type"]]
        assert view["byteOffset"] % 4 == 0 and view["byteLength"] == facts["count"] * width * kind.itemsize
        return np.frombuffer(self.buffer, kind, facts["count"] * width, view["byteOffset"]).reshape(-1, width)

    def local(self, second: float) -> list[np.ndarray]:
        "Matrix of each node at a time of the animation: places linear between keys, turns by the shortest way."
        matrices = [np.eye(4) for _ in self.nodes]
        for matrix, node in zip(matrices, self.nodes):
            matrix[:3, 3] = node.get("translation", [0, 0, 0])
        animation = self.document["animations"][0]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            times, values = self.numbers(sampler["input"])[:, 0], self.numbers(sampler["output"])
            matrix, path = matrices[channel["target"]["node"]], channel["target"]["path"]
            if path == "translation":
                matrix[:3, 3] = [np.interp(second, times, axis) for axis in values.T]
            elif len(times) == 1:
                matrix[:3, :3] = Rotation.from_quat(values[0]).as_matrix()
            else:
                matrix[:3, :3] = Slerp(times, Rotation.from_quat(values))(np.clip(second, *times[[0, -1]])).as_matrix()
        return matrices

    def world(self, second: float) -> list[np.ndarray]:
        local = self.local(second)

        def of(node):
            return of(self.parents[node]) @ local[node] if node in self.parents else local[node]

        return [of(node) for node in range(len(self.nodes))]


def places(reader: Reader, names: list[str], second: float) -> np.ndarray:
    world = reader.world(second)
    by_name = {node["name"]: matrix[:3, 3] for node, matrix in zip(reader.nodes, world)}
    return np.array([by_name[name] for name in names])


def test_rigid_people_come_back_at_each_picture_and_between():
    people = [motion(1), motion(2)]
    reader = Reader(motion_glb(people, NAMES, PARENTS, SECONDS))
    for prefix, joints in zip(("", "2_"), people):
        for t, second in enumerate(TIMES):
            np.testing.assert_allclose(places(reader, [prefix + n for n in NAMES], second), joints[t], atol=1e-5)
    roots = reader.document["scenes"][0]["nodes"]
    assert sorted(set(range(len(reader.nodes))) - set(reader.parents)) == sorted(roots)
    halfway = places(reader, NAMES, 0.05)[2]
    np.testing.assert_allclose(halfway, (people[0][0, 2] + people[0][1, 2]) / 2, atol=1e-5)


def test_bones_that_vary_leave_joints_off_by_what_they_vary():
    joints = motion(3, noise=0.01)
    reader = Reader(motion_glb([joints], NAMES, PARENTS, SECONDS))
    for t, second in enumerate(TIMES):
        off = np.linalg.norm(places(reader, NAMES, second) - joints[t], axis=-1)
        assert off[2] < 1e-5 and off.max() < 0.1


def test_bones_are_moved_by_the_joint_where_they_start():
    "The specification's sum: a corner is where its joints take it, each from its place at rest."
    joints = motion(4)
    reader = Reader(motion_glb([joints], NAMES, PARENTS, SECONDS))
    (primitive,) = reader.document["meshes"][0]["primitives"]
    corners = reader.numbers(primitive["attributes"]["POSITION"])
    movers, weights = (reader.numbers(primitive["attributes"][name]) for name in ("JOINTS_0", "WEIGHTS_0"))
    skin = reader.document["skins"][0]
    to_joint = reader.numbers(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    ends = [j for j in range(6) if PARENTS[j] >= 0]
    for t, second in enumerate(TIMES):
        world = np.array(reader.world(second))[skin["joints"]]
        matrices = np.einsum("vk,vkij->vij", weights, (world @ to_joint)[movers])
        moved = (matrices @ np.append(corners, np.ones((len(corners), 1)), 1)[..., None])[:, :3, 0]
        bones = moved.reshape(5, 6, 3)
        np.testing.assert_allclose(bones[:, 0], joints[t, PARENTS[ends]], atol=1e-5)
        np.testing.assert_allclose(bones[:, 1], joints[t, ends], atol=1e-5)
    indices = reader.numbers(primitive["indices"])
    assert len(indices) == 5 * OCTAHEDRON.size and indices.max() == len(corners) - 1


@pytest.mark.parametrize("end", [[0, 0, 2], [1, -1, 0.5], [-3, 0, 0]])
def test_a_bone_is_closed_and_its_faces_look_outward(end):
    corners = octahedron(np.zeros(3), np.array(end, float))
    sides = [tuple(face[[k, (k + 1) % 3]].tolist()) for face in OCTAHEDRON for k in range(3)]
    assert len(set(sides)) == len(sides) and all((b, a) in sides for a, b in sides)  # closed
    for a, b, c in corners[OCTAHEDRON]:
        assert np.cross(b - a, c - a) @ ((a + b + c) / 3 - corners.mean(0)) > 0
    assert np.isclose(np.linalg.norm(corners[2] - corners[4]), THICKNESS * np.linalg.norm(end))


def test_turns_do_not_jump_to_the_other_quaternion():
    angles = np.linspace(0, 4 * np.pi, 50)
    quaternions = steady_quaternions(Rotation.from_euler("y", angles[:, None]).as_matrix())
    assert ((quaternions[1:] * quaternions[:-1]).sum(-1) > 0.9).all()
    np.testing.assert_allclose(Rotation.from_quat(quaternions).as_matrix()[20, 0, 0], np.cos(angles[20]), atol=1e-9)


def test_one_picture_and_a_bone_without_length_are_valid_numbers():
    joints = motion(5)[:1]
    joints[:, 1] = joints[:, 0]
    reader = Reader(motion_glb([joints], NAMES, PARENTS, SECONDS[:1]))
    np.testing.assert_allclose(places(reader, NAMES, 0), joints[0], atol=1e-5)


def test_two_trees_are_refused():
    with pytest.raises(ValueError, match="one tree with one root, found 2 roots"):
        motion_glb([motion(1)], NAMES, np.array([-1, 0, -1, 2, 3, 3]), SECONDS)


def test_trimesh_reads_the_first_picture():
    trimesh = pytest.importorskip("trimesh", reason="the extra `people` is not installed")
    joints = motion(6)[:1]  # of one picture: trimesh knows no animations, and rest is that picture
    scene = trimesh.load_scene(io.BytesIO(motion_glb([joints], NAMES, PARENTS, SECONDS[:1])), file_type="glb")
    for name, place in zip(NAMES, joints[0]):
        np.testing.assert_allclose(scene.graph[name][0][:3, 3], place, atol=1e-5)
    (mesh,) = scene.geometry.values()
    assert len(mesh.faces) == 40 and mesh.volume > 0 and mesh.is_watertight
    np.testing.assert_allclose(scene.bounds, [joints[0].min(0), joints[0].max(0)], atol=0.1)


VALIDATE = """
const validator = require('gltf-validator');
validator.validateBytes(new Uint8Array(require('fs').readFileSync(0))).then(r => console.log(JSON.stringify(r)));
"""


def test_khronos_finds_nothing_wrong():
    node, packages = shutil.which("node"), REPO / ".cache/node/node_modules"
    if node is None or not (packages / "gltf-validator").is_dir():
        pytest.skip("Khronos's validator is not installed (npm install --prefix .cache/node gltf-validator)")
    content = motion_glb([motion(1, 0.01), motion(2)], NAMES, PARENTS, SECONDS)
    environment = os.environ | {"NODE_PATH": str(packages)}
    run = subprocess.run([node, "-e", VALIDATE], input=content, env=environment, capture_output=True, check=True)
    report = json.loads(run.stdout)
    problems = [m for m in report["issues"]["messages"] if m["severity"] < 2]  # errors and warnings
    assert not problems and report["info"]["animationCount"] == 1 and report["info"]["hasSkins"], problems
