"""SURREAL: two tiny clips in the layout of the owners' README (info.mat, segm.mat, mp4), read back, and harmed."""

import cv2
import numpy as np
import pytest
import scipy.io
from mutations import check_mutations

from acae_nb.datasets import surreal
from acae_nb.datasets.native_files import NativeError

W, H = 320, 240
# What misc/3Dto2D of the owners does: Blender's camera matrix, turned to computer vision; it has determinant -1, so
# pictures are mirrored.
EXTRINSIC = np.array([[0, 0, -1.0], [0, 1, 0], [-1, 0, 0]])
LEFT_RIGHT = [(1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23)]
CLIPS = {("train", "run0", "01_01", 1): 3, ("train", "run2", "ung_02_03", 2): 2, ("test", "run1", "86_14", 1): 1}


def joints(clip, frames):
    "World metres, y down; the camera is 7 m along x and looks along -x."
    rng = np.random.default_rng([len(clip[2]), clip[3]])
    return rng.normal(0, 0.25, (24, 3)) + [-0.8, -1.1, -1.0] + 0.1 * np.arange(frames)[:, None, None], np.array(
        [6.7456, -0.9839, -1.2]
    )


def project(points, place):
    "As the owners: pixels from the corner of the picture, before they are rounded."
    x, y, z = EXTRINSIC @ (points - place).T
    return np.stack([600 * x / z + 160, 600 * y / z + 120], 1)


def extent(px):
    "Left, top, right, bottom of the person's mask: around its joints."
    return *np.floor(px.min(0) - 4).astype(int).clip(0), *np.minimum(np.ceil(px.max(0) + 6).astype(int), [W, H])


def write(root):
    for clip, frames in CLIPS.items():
        split, run, name, number = clip
        folder = root / "cmu" / split / run / name
        folder.mkdir(parents=True)
        xyz, place = joints(clip, frames)
        px = np.array([project(p, place) for p in xyz])
        info = dict(
            joints3D=xyz.transpose(2, 1, 0).astype(np.float32),
            joints2D=px.round().transpose(2, 1, 0).astype(np.float32),
            camLoc=place[:, None].astype(np.float32),
            camDist=np.float32(7),
            clipNo=float(number),
            gender=np.zeros((frames, 1), np.uint8),
            pose=np.zeros((72, frames), np.float32),
            shape=np.zeros((10, frames), np.float32),
            sequence=f"{name}_c{number:04d}",
            source="cmu",
            zrot=np.zeros((frames, 1), np.float32),
            stride=np.uint8(30),
        )
        if frames == 1:
            info["joints3D"], info["joints2D"] = (
                info["joints3D"][..., 0],
                info["joints2D"][..., 0],
            )  # Matlab drops a last dimension of one
        stem = folder / f"{name}_c{number:04d}"
        scipy.io.savemat(f"{stem}_info.mat", info, do_compression=True)  # as main_part1.py of the owners
        masks = {}
        for t in range(frames):
            m = np.zeros((H, W), np.uint8)
            left, top, right, bottom = extent(px[t])
            if not (name == "01_01" and t == 1):
                m[top:bottom, left:right] = 3  # in frame 1 the person is out of the picture
            masks[f"segm_{t + 1}"] = m
        scipy.io.savemat(f"{stem}_segm.mat", masks, do_compression=True)
        video = cv2.VideoWriter(f"{stem}.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 30, (W, H))
        for t in range(frames):
            video.write(np.full((H, W, 3), 60 + 60 * t, np.uint8))
        video.release()


def read(root):
    return [*surreal.read(root, "train"), *surreal.read(root, "test")]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = read(tmp_path)
    assert [e.example_id for e, _ in rows] == [
        "run0/01_01/c0001/000",
        "run0/01_01/c0001/002",
        "run2/ung_02_03/c0002/000",
        "run2/ung_02_03/c0002/001",
        "run1/86_14/c0001/000",
    ]
    for example, picture in rows:
        run, name, number, frame = example.example_id.split("/")
        clip, frame = next((c, f) for (c, f) in ((c, int(frame)) for c in CLIPS) if c[2] == name), int(frame)
        clip = clip[0]
        xyz, place = joints(clip, CLIPS[clip])
        swapped = list(range(24))
        for left, right in LEFT_RIGHT:
            swapped[left], swapped[right] = right, left
        np.testing.assert_allclose(
            example.camera.project(example.joints3d), (project(xyz[frame], place) - 0.5)[swapped], atol=0.1
        )

        def bones(p):
            return np.linalg.norm(p[:, None] - p[None], axis=-1)

        np.testing.assert_allclose(bones(example.joints3d), bones(xyz[frame][swapped] * 1000), atol=0.01)
        np.testing.assert_allclose(
            example.camera.to_camera(example.joints3d), (xyz[frame][swapped] - place) @ EXTRINSIC.T * 1000, atol=0.01
        )
        left, top, right, bottom = extent(project(xyz[frame], place))
        np.testing.assert_allclose(example.box, [left, top, right - left, bottom - top])
        assert (
            example.image_size == (W, H) == picture.size
            and example.split == clip[0]
            and example.sequence == f"{run}/{name}/{number}"
        )
        assert abs(picture.load().mean() - (60 + 60 * frame)) < 4
        from acae_nb.examples.images import decode_mask

        assert decode_mask(example.mask, (W, H)).sum() == (right - left) * (bottom - top)
        above = example.joints3d[:1] + 300 * example.camera.world_up
        assert example.camera.project(above)[0, 1] < example.camera.project(example.joints3d[:1])[0, 1]


def test_wrong_cameras_are_caught(tmp_path):
    write(tmp_path)
    path = tmp_path / "cmu/train/run0/01_01/01_01_c0001_info.mat"
    data = {k: v for k, v in scipy.io.loadmat(path).items() if k[0] != "_"}
    data["camLoc"] = data["camLoc"] + 0.3
    scipy.io.savemat(path, data)
    with pytest.raises(NativeError, match="01_01_c0001_info.mat"):
        list(surreal.read(tmp_path))


def test_absent_data_is_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="cmu/train.*SURREAL"):
        next(surreal.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
