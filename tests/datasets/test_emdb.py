"""EMDB: two tiny sequences with the fields of the owners' dataset.md and made-up SMPL files, read back, and harmed."""

import pickle
import shutil

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import emdb
from acae_nb.datasets.native_files import NativeError
from tests.datasets.test_smpl import slow_joints
from tests.datasets.test_smpl import write as write_model

SIZE = 48, 64
K = np.array([[60.0, 0, 24], [0, 61, 32], [0, 0, 1]])
SEQUENCES = {
    ("P0", "09_outdoor_walk"): ("male", True, 3),
    ("P8", "69_outdoor_cartwheel"): ("female", True, 2),
    ("P1", "14_outdoor_climb"): ("male", False, 2),
}  # gender, EMDB 1, frames


def motion(subject, frames):
    rng = np.random.default_rng(int(subject[1]))
    pose, shape = rng.normal(0, 0.3, (frames, 72)), rng.normal(0, 0.5, 10)
    shift = np.array([0.1, 0.9, 0]) + rng.normal(0, 0.05, (frames, 3))
    cameras = []
    for t in range(frames):
        turn = cv2.Rodrigues(np.array([0, 0.1 * t, 0.03]))[0] @ np.diag([1.0, -1, -1])
        cameras.append(np.block([[turn, (-turn @ [0.1 * t, 1.1, 6])[:, None]], [np.zeros((1, 3)), 1]]))
    return pose, shape, shift, np.array(cameras)


def truth(model, subject, frames):
    pose, shape, shift, cameras = motion(subject, frames)
    joints = np.array([slow_joints(model, pose[t], shape, shift[t]) for t in range(frames)])
    eye = np.einsum("tij,tnj->tni", cameras[:, :3, :3], joints) + cameras[:, None, :3, 3]
    return joints, (eye @ K.T)[..., :2] / eye[..., 2:]


def write(root):
    models = {
        gender: write_model(root / "body_models", gender.upper(), seed, "npz")
        for seed, gender in enumerate(("male", "female"))
    }
    for (subject, name), (gender, first, frames) in SEQUENCES.items():
        folder = root / subject / name
        (folder / "images").mkdir(parents=True)
        pose, shape, shift, cameras = motion(subject, frames)
        joints, px = truth(models[gender], subject, frames)
        good = np.ones(frames, bool)
        invalid = np.zeros(0, int)
        if name.startswith("09"):
            good[1] = False
            invalid = np.array([1])
        data = dict(
            gender=gender,
            name=f"{subject}_{name}",
            emdb1=first,
            emdb2=not first,
            n_frames=frames,
            good_frames_mask=good,
            kp2d=px,
            camera=dict(intrinsics=K, extrinsics=cameras, width=SIZE[0], height=SIZE[1]),
            smpl=dict(poses_root=pose[:, :3], poses_body=pose[:, 3:], trans=shift, betas=shape),
            bboxes=dict(bboxes=np.concatenate([px.min(1) - 2, px.max(1) + 3], 1), invalid_idxs=invalid),
        )
        (folder / f"{subject}_{name}_data.pkl").write_bytes(pickle.dumps(data))
        for t in range(frames):
            cv2.imwrite(str(folder / "images" / f"{t:05d}.jpg"), np.full((SIZE[1], SIZE[0], 3), 40 * t + 30, np.uint8))


def read(root):
    return [
        *emdb.read(root, body_models=root / "body_models"),
        *emdb.read(root, part="emdb2", body_models=root / "body_models"),
    ]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    models = {
        gender: write_model(tmp_path / "again", gender.upper(), seed) for seed, gender in enumerate(("male", "female"))
    }
    rows = read(tmp_path)
    assert [e.example_id for e, _ in rows] == [
        "P0/09_outdoor_walk/00000",
        "P0/09_outdoor_walk/00002",
        "P8/69_outdoor_cartwheel/00000",
        "P8/69_outdoor_cartwheel/00001",
        "P1/14_outdoor_climb/00000",
        "P1/14_outdoor_climb/00001",
    ]
    for example, picture in rows:
        subject, name, frame = example.example_id.split("/")
        gender, _, frames = SEQUENCES[subject, name]
        joints, px = truth(models[gender], subject, frames)
        np.testing.assert_allclose(example.joints3d, joints[int(frame)] * 1000, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px[int(frame)], atol=0.1)
        low, high = px[int(frame)].min(0) - 2, px[int(frame)].max(0) + 3
        np.testing.assert_allclose(example.box, [*low, *(high - low)], atol=1e-6)
        assert (example.subject, example.sequence, example.frame, example.split) == (subject, name, int(frame), "test")
        assert picture.size == SIZE == example.image_size and abs(picture.load().mean() - (40 * int(frame) + 30)) < 2


def test_another_body_is_noticed(tmp_path):
    write(tmp_path)
    shutil.copy(tmp_path / "body_models/SMPL_FEMALE.npz", tmp_path / "body_models/SMPL_MALE.npz")
    with pytest.raises(NativeError, match="P0_09_outdoor_walk_data.pkl: rows: .*frame 0, joint"):
        read(tmp_path)


def test_absent_data_and_an_absent_body_model_are_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="_data.pkl.*EMDB"):
        next(emdb.read(tmp_path))
    write(tmp_path)
    with pytest.raises(NativeError, match="SMPL_MALE.*smpl.is.tue.mpg.de"):
        next(emdb.read(tmp_path, body_models=tmp_path / "none"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
