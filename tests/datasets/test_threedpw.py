"""3DPW: two tiny sequences as the data set's readme describes them (sequenceFiles/*.pkl of Python 2, imageFiles), read
back, and harmed."""

import os
import pickle

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import threedpw
from acae_nb.datasets.native_files import NativeError

SIZE = 48, 64  # upright pictures, as most of 3DPW
K = np.array([[60.0, 0, 24], [0, 61, 32], [0, 0, 1]])
SEQUENCES = {
    "downtown_walk_00": ("train", 1, 2),
    "courtyard_hug_00": ("test", 2, 3),
    "courtyard_box_00": ("test", 1, 2),
}  # split, people, frames


def motion(name, person, frames):
    "World metres, y up: joints [frames, 24, 3]; world-to-camera motions [frames, 4, 4]."
    rng = np.random.default_rng([len(name), person])
    joints = rng.normal(0, 0.3, (1, 24, 3)) + [0.4 * person, 1, 0] + rng.normal(0, 0.03, (frames, 1, 3))
    poses = []
    for t in range(frames):
        turn = cv2.Rodrigues(np.array([0, 0.1 * t, 0.05]))[0] @ np.diag([1.0, -1, -1])  # from y up, z towards us
        poses.append(np.block([[turn, (turn @ -np.array([0.1 * t, 1.2, 4]))[:, None]], [np.zeros((1, 3)), 1]]))
    return joints, np.array(poses)


def write(root):
    for name, (split, people, frames) in SEQUENCES.items():
        (root / "sequenceFiles" / split).mkdir(parents=True, exist_ok=True)
        (root / "imageFiles" / name).mkdir(parents=True)
        joints = [motion(name, p, frames)[0].reshape(frames, 72) for p in range(people)]
        poses2d = [np.full((frames, 3, 18), 5.0) for _ in range(people)]
        poses2d[0][1] = 0  # frame 1: person 0 not found
        valid = [np.ones(frames) for _ in range(people)]
        if name == "courtyard_hug_00":
            valid[1][2] = 0  # frame 2: person 1's camera not aligned
        data = dict(
            sequence=name,
            jointPositions=joints,
            poses2d=poses2d,
            campose_valid=valid,
            cam_poses=motion(name, 0, frames)[1],
            cam_intrinsics=K,
            genders=["m"] * people,
            img_frame_ids=np.arange(frames) * 2,
            betas=[np.zeros(10)] * people,
            trans=[np.zeros((frames, 3))] * people,
            poses=[np.zeros((frames, 72))] * people,
        )
        with open(root / "sequenceFiles" / split / f"{name}.pkl", "wb") as file:
            pickle.dump(data, file, protocol=2)
        for t in range(frames):
            cv2.imwrite(
                str(root / "imageFiles" / name / f"image_{t:05d}.jpg"),
                np.full((SIZE[1], SIZE[0], 3), 40 * t + 30, np.uint8),
            )


def read(root):
    return [*threedpw.read(root, "train"), *threedpw.read(root, "test")]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = list(threedpw.read(tmp_path, "test"))
    assert [e.example_id for e, _ in rows] == [
        "courtyard_box_00/0/00000",
        "courtyard_hug_00/0/00000",
        "courtyard_hug_00/1/00000",
        "courtyard_hug_00/1/00001",
        "courtyard_hug_00/0/00002",
    ]
    assert [e.example_id for e, _ in threedpw.read(tmp_path, "train")] == ["downtown_walk_00/0/00000"]
    for example, picture in rows:
        name, person, frame = example.example_id.split("/")
        person, frame = int(person), int(frame)
        joints, poses = motion(name, person, SEQUENCES[name][2])
        np.testing.assert_allclose(example.joints3d, joints[frame] * 1000, atol=0.01)
        eye = (poses[frame] @ np.c_[joints[frame], np.ones(24)].T)[:3]
        px = (K @ (eye / eye[2]))[:2].T
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        left, top, width, height = example.box
        assert (
            left <= px[:, 0].min().clip(0)
            and top <= px[:, 1].min().clip(0)
            and left + width >= px[:, 0].max().clip(max=SIZE[0] - 1)
            and top + height >= px[:, 1].max().clip(max=SIZE[1] - 1)
        )
        assert (
            (example.split, example.sequence, example.frame, example.image_size)
            == ("test", name, frame, SIZE)
            == (*(example.split, name, frame), picture.size)
        )
        assert abs(int(picture.load().mean()) - (40 * frame + 30)) <= 1
        assert (
            example.camera.project(example.joints3d[:1] + 100 * example.camera.world_up)[0, 1] < px[0, 1]
        )  # up is up in the picture


def test_a_camera_pose_that_is_not_rigid_is_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "sequenceFiles/test/courtyard_hug_00.pkl"
    data = pickle.loads(path.read_bytes())
    data["cam_poses"][1] *= 2
    path.write_bytes(pickle.dumps(data, 2))
    with pytest.raises(NativeError, match="courtyard_hug_00.pkl.*(?:cam_poses|rotation)"):
        list(threedpw.read(tmp_path, "test"))


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path):
    write(tmp_path)

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    (tmp_path / "sequenceFiles/train/downtown_walk_00.pkl").write_bytes(
        pickle.dumps(dict(sequence="x", jointPositions=Evil()), 2)
    )
    with pytest.raises(NativeError, match="downtown_walk_00.pkl.*system"):
        list(threedpw.read(tmp_path, "train"))
    assert not (tmp_path / "owned").exists()


def test_absent_data_is_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="sequenceFiles/test.*3DPW"):
        next(threedpw.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
