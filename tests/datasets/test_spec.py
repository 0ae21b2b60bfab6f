"""SPEC-SYN: a tiny npz with the arrays that the owners' files hold (issue 11 of their repository), a made-up SMPL file,
read back, and harmed."""

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import spec
from acae_nb.datasets.native_files import NativeError
from tests.datasets.test_smpl import slow_joints
from tests.datasets.test_smpl import write as write_model

SIZE = 96, 72
# OpenPose BODY_25 row: SMPL row (neck, shoulders, elbows, wrists, mid hip, hips, knees, ankles)
COMMON = {1: 12, 2: 17, 3: 19, 4: 21, 5: 16, 6: 18, 7: 20, 8: 0, 9: 2, 10: 5, 11: 8, 12: 1, 13: 4, 14: 7}
LSP = [8, 5, 2, 1, 4, 7, 21, 19, 17, 16, 18, 20]
ENTRIES = {
    "train": [("images/b.jpg", 1, 1.0), ("images/a.jpg", 2, 1.0), ("images/b.jpg", 3, 0.8)],
    "test": [("images/c.jpg", 4, 1.0)],
}  # picture, seed, a scale of the body


def entry(model, seed, scale):
    "pose, shape, joints before the camera in m, K, rotation, px"
    rng = np.random.default_rng(seed)
    pose, shape = rng.normal(0, 0.3, 72), rng.normal(0, 0.5, 10)
    pose[:3] = [np.pi * 0.9, 0.2, 0.1]
    K = np.array([[80.0 + seed, 0, 48], [0, 80 + seed, 36], [0, 0, 1]])
    turn = cv2.Rodrigues(np.array([0.3, 0.0, 0.05 * seed]))[0]
    joints = (slow_joints(model, pose, shape, np.zeros(3)) + [0.1 * seed, 0.2, 5]) * scale
    return pose, shape, joints, K, turn, (joints @ K.T)[:, :2] / joints[:, 2:]


def write(root):
    model = write_model(root / "body_models", kind="npz")
    (root / "annotations").mkdir()
    (root / "images").mkdir()
    for split, entries in ENTRIES.items():
        columns = {
            key: []
            for key in (
                "imgname",
                "pose",
                "shape",
                "openpose_gt",
                "cam_int",
                "cam_rotmat",
                "S",
                "cam_trans",
                "cam_pitch",
            )
        }
        for name, seed, scale in entries:
            pose, shape, joints, K, turn, px = entry(model, seed, scale)
            openpose = np.zeros((25, 3))
            openpose[list(COMMON)] = np.c_[px[list(COMMON.values())], np.ones(14)]
            turned = pose.copy()  # the file's pose is turned somehow: the reader has to find the turn itself
            turned[:3] = cv2.Rodrigues(cv2.Rodrigues(np.array([0, 0.7, 0]))[0] @ cv2.Rodrigues(pose[:3])[0])[0].ravel()
            for key, value in dict(
                imgname=name,
                pose=turned,
                shape=shape,
                openpose_gt=openpose,
                cam_int=K,
                cam_rotmat=turn,
                S=np.c_[joints[LSP], np.ones(12)],
                cam_trans=np.zeros(3),
                cam_pitch=0.3,
            ).items():
                columns[key].append(value)
            cv2.imwrite(str(root / name), np.full((SIZE[1], SIZE[0], 3), 40 * "abc".index(name[7]) + 30, np.uint8))
        np.savez(root / "annotations" / f"{split}.npz", **{k: np.array(v) for k, v in columns.items()})


def read(root):
    return [*spec.read(root, "train", root / "body_models"), *spec.read(root, "test", root / "body_models")]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    model, rows = write_model(tmp_path / "again"), read(tmp_path)
    assert [e.example_id for e, _ in rows] == [
        "train/images/a/1",
        "train/images/b/0",
        "train/images/b/2",
        "test/images/c/0",
    ]
    for example, picture in rows:
        split, _, letter, number = example.example_id.split("/")
        name, seed, scale = ENTRIES[split][int(number)]
        _, _, joints, K, turn, px = entry(model, seed, scale)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        np.testing.assert_allclose(
            example.joints3d, joints @ turn * 1000, atol=0.1
        )  # found by a fit to px of six digits, hence not 0.01
        np.testing.assert_allclose(example.camera.rotation, turn, atol=1e-9)
        assert (
            name == f"images/{letter}.jpg"
            and example.split == split
            and picture.size == SIZE == example.image_size
            and abs(picture.load().mean() - (40 * "abc".index(letter) + 30)) < 2
        )


def test_an_entry_that_contradicts_itself_is_refused(tmp_path):
    write(tmp_path)
    data = dict(np.load(tmp_path / "annotations/train.npz"))
    data["openpose_gt"][1, :, :2] = np.random.default_rng(0).uniform(0, 70, (25, 2))
    np.savez(tmp_path / "annotations/train.npz", **data)
    with pytest.raises(NativeError, match="train.npz: rows: .*entry 1.*openpose_gt"):
        read(tmp_path)


def test_absent_data_and_an_absent_body_model_are_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="annotations/train.npz.*SPEC"):
        next(spec.read(tmp_path))
    write(tmp_path)
    with pytest.raises(NativeError, match="SMPL_NEUTRAL.*smpl.is.tue.mpg.de"):
        next(spec.read(tmp_path, body_models=tmp_path / "none"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
