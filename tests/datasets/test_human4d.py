"""HUMAN4D: a tiny data set in the owners' layout, written here, read back, and damaged."""

import json

import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, opencv_project, people, picture, ring, shows, write_image

from acae_nb.datasets import human4d
from acae_nb.datasets.native_files import NativeError

SIZE, NAMES = (96, 80), ("M72e", "M72h")  # the real ones are 1280 x 720 px, four cameras
RECORDINGS = {
    ("S1", "19-07-12-07-49-24"): (1, 5),
    ("S34", "19-07-12-13-58-54"): (2, 40),
}  # people, images before the first pose


def write(root):
    """SUBJECT/RECORDING/Dump/color/NUMBER_CAMERA_color_ID.png, Dump/gposes3d/NUMBER.npy [person, 33, 3] mm, z up; point
    15 is a double SUBJECT/device_repository.json: [{"Device", "Color Intrinsics": [{"1280x720": 9 numbers}], "Depth
    Intrinsics": ..., "Color Depth Rotation": 9 numbers, "Color Depth Translation": 3, m}]: x_depth = R x_colour + t
    SUBJECT/pose/CAMERA.extrinsics: 3 lines of the rotation depth sensor -> world, 1 of its place; SUBJECT/offsets.txt:
    name, offset, another

    """
    truth = {}
    for q, ((subject, recording), (persons, first)) in enumerate(RECORDINGS.items()):
        dump = root / subject / recording / "Dump"
        for folder in (dump / "gposes3d", root / subject / "pose"):
            folder.mkdir(parents=True)
        places, rotations = ring(2, turn=0.3 + q)
        inner = [np.array([[95.0 + c, 0, 48.5], [0, 96, 39.5], [0, 0, 1]]) for c in range(2)]
        turns, shifts = (
            [cv2.Rodrigues(np.array([0.003, -0.005, 0.002 * c]))[0] for c in range(3)],
            np.array([[0.015, 0.0002, 0.001 * c] for c in range(3)]),
        )
        devices = [
            {
                "Device": n,
                "Color Intrinsics": [{"1280x720": K.ravel().tolist()}],
                "Depth Intrinsics": [{"1280x720": (K + 3).ravel().tolist()}],
                "Color Depth Rotation": turns[c].ravel().tolist(),
                "Color Depth Translation": shifts[c].tolist(),
            }
            for c, (n, K) in enumerate(zip((*NAMES, "M72z"), [*inner, inner[0]]))
        ]
        (root / subject / "device_repository.json").write_text(json.dumps(devices), encoding="utf-8")
        (root / subject / "offsets.txt").write_text(
            f"19-01-01-00-00-00\t7\t3\n{recording}\t{first}\t{first + 2}\n", encoding="utf-8"
        )
        world = people(q, 3, persons, n_joints=33)
        world[1, 0, 20] = np.nan
        for t in range(3):
            np.save(dump / "gposes3d" / f"{t}.npy", world[t])
        for c, name in enumerate(NAMES):
            depth = turns[c] @ rotations[c]  # x_depth = turn (R (x - place)) + shift = depth (x - its place)
            np.savetxt(
                root / subject / "pose" / f"{name}.extrinsics",
                np.vstack([depth.T, places[c] - depth.T @ shifts[c] * 1000]),
            )
            for t in range(-1, 4):  # an image before the first pose, and one after the last
                write_image(dump / "color" / f"{first + t}_{name}_color_{1000 + t}.png", picture(5 * c + t + 1, SIZE))
            for t in range(3):
                for p in range(persons):
                    joints = np.delete(world[t, p], 15, 0)
                    truth[subject, recording, name, first + t, p] = (
                        joints,
                        opencv_project(joints, inner[c], np.zeros(4), rotations[c], places[c]),
                        5 * c + t + 1,
                    )
    return truth


def test_reads_what_was_written(tmp_path):
    truth = write(tmp_path / "human4d")
    rows = list(human4d.read(tmp_path / "human4d"))
    assert len(rows) == len(truth) == 2 * 3 * 3 and len({e.example_id for e, _ in rows}) == len(rows)
    for (example, image), ((subject, recording, camera, frame, person), (joints, px, number)) in zip(
        rows, truth.items()
    ):
        assert (example.sequence, example.camera_name, example.frame) == (recording, camera, frame)
        assert example.subject == (subject if subject == "S1" else f"{subject} {person}")
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert (
            example.image_size == SIZE and shows(image.load(), number) and tuple(example.camera.world_up) == (0, 0, 1)
        )
        assert holds(example.box, px, SIZE)
    assert np.isnan(rows[1][0].joints3d[19]).all()  # 20, less the double


def test_lag(tmp_path):
    truth = write(tmp_path / "human4d")
    rows = {
        (e.sequence, e.camera_name, e.frame, e.example_id[-1]): e for e, _ in human4d.read(tmp_path / "human4d", lag=1)
    }
    for (_subject, recording, camera, frame, person), (joints, *_) in truth.items():
        np.testing.assert_allclose(rows[recording, camera, frame - 1, str(person)].joints3d, joints, atol=0.01)


def test_refuses(tmp_path):
    root = tmp_path / "human4d"
    with pytest.raises(NativeError, match="human4d_dataset"):
        list(human4d.read(root))
    write(root)
    with pytest.raises(NativeError, match="split"):
        list(human4d.read(root, "test"))
    np.save(root / "S1/19-07-12-07-49-24/Dump/gposes3d/1.npy", np.ones((1, 32, 3)))
    with pytest.raises(NativeError, match="gposes3d/1.npy.*33"):
        list(human4d.read(root))
    (root / "S1/offsets.txt").write_text("19-01-01-00-00-00\t7\t3\n", encoding="utf-8")
    with pytest.raises(NativeError, match="S1/offsets.txt: 19-07-12-07-49-24"):
        list(human4d.read(root))


def test_damaged_files(tmp_path):
    check_mutations(write, human4d.read, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, human4d.read, tmp_path, n=200)
