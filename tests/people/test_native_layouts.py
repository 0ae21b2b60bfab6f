"""Collections in native layouts: what the readers give back is what was rendered."""

import cv2
import numpy as np
import pytest

from acae_nb.datasets.selection import detected, moving, novel, read_detections
from acae_nb.datasets.sources import open_source
from acae_nb.datasets.stored import in_skeleton
from acae_nb.examples.images import encode_jpeg
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter
from acae_nb.geometry.cameras import Camera
from acae_nb.people.native_layouts import LAYOUTS, store_native, turned, write_mjpeg
from acae_nb.skeletons.joints import load_skeleton

SETS = {
    "coco": ("coco_17", {}),
    "cmu_panoptic": ("cmu_panoptic_19", {}),
    "mpi_inf_3dhp": ("mpi_inf_3dhp_28", {}),
    "imar": ("h36m_25", dict(dataset="humansc3d")),
}


def table(folder, layout, count=5, missing=True):
    name = SETS[layout][0]
    rng, skeleton = np.random.default_rng(3), load_skeleton(name)
    with ExampleWriter(folder, skeleton, folder.name) as writer:
        for k in range(count):
            turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            turn *= np.sign(np.linalg.det(turn))
            joints = rng.normal(0, 250, (len(skeleton), 3)) + rng.normal(0, 800, 3)
            lens = [-0.06 + 0.01 * k, -0.001, 0, 0] if layout == "cmu_panoptic" else None
            camera = Camera(
                [[150 + 5 * k, 0, 60.25], [0, 150 + 5 * k, 62.5], [0, 0, 1]],
                lens,
                turn,
                joints.mean(0) - turn.T @ [100, -80, 3100],
                [0, 0, 1],
            )
            if missing and k == 2 and layout in ("coco", "cmu_panoptic"):
                joints[3:6] = np.nan
            labels = (
                dict(joints2d=camera.project(joints).astype(np.float32))
                if layout == "coco"
                else dict(joints3d=joints.astype(np.float32))
            )
            picture = cv2.resize(
                rng.integers(40, 215, (6, 6, 3), dtype=np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC
            )
            writer.add(
                Example(
                    f"{folder.name}/{k:06d}",
                    folder.name,
                    "train",
                    f"{folder.name}-s{k % 3:03d}",
                    ["walk", "dance_b"][k % 2],
                    7 * k,
                    camera,
                    np.array([20.5, 25, 80, 60 + k]),
                    (128, 128),
                    camera_name=f"camera{k % 2}" if k else "",
                    **labels,
                ),
                encode_jpeg(picture, 90),
            )
    return ExampleTable.open(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(layout, tmp_path):
    before = table(tmp_path / "set", layout)
    store_native(tmp_path / "set", layout)
    assert not (tmp_path / "set" / "table.arrow").exists() and [p.name for p in tmp_path.iterdir()] == ["set"]
    own, rows = open_source(layout, tmp_path / "set", **SETS[layout][1])
    skeleton = load_skeleton(SETS[layout][0])
    if layout != "coco":
        rows = novel(moving(rows))
    rows = list(
        detected(
            in_skeleton(rows, own, skeleton),
            read_detections(tmp_path / "set" / "detections.csv"),
            tmp_path / "set",
            0.1,
        )
    )
    assert len(rows) == len(before) and len({e.example_id for e, _ in rows}) == len(before)
    by_box = {before[k].box[3]: before[k] for k in range(len(before))}
    for example, picture in rows:
        old = by_box[example.box[3]]
        k = int(old.example_id[-6:])
        assert (example.box == old.box).all() and example.image_size == old.image_size and example.split == "train"
        if layout == "coco":
            np.testing.assert_allclose(example.joints2d, old.joints2d, atol=0.01)
        else:
            np.testing.assert_allclose(
                example.camera.to_camera(example.joints3d), old.camera.to_camera(old.joints3d), atol=0.01
            )
            np.testing.assert_allclose(
                example.camera.project(example.joints3d), old.camera.project(old.joints3d), atol=0.1
            )
            np.testing.assert_allclose(
                example.camera.rotation @ example.camera.world_up, old.camera.rotation @ old.camera.world_up, atol=1e-9
            )
        assert abs(picture.load().astype(int) - before.image(k)).mean() < 2.5
        if layout in ("coco", "cmu_panoptic"):
            assert picture.jpeg() == before.image_bytes(k)
        if layout == "imar":
            assert example.subject == old.subject and example.sequence.startswith(old.sequence)


def test_videos_hold_the_jpegs_themselves(tmp_path):
    import av

    jpegs = [encode_jpeg(np.full((48, 64, 3), 40 * k, np.uint8)) for k in range(4)]
    for name in ("a.avi", "a.mp4"):
        write_mjpeg(tmp_path / name, jpegs, (64, 48))
        with av.open(str(tmp_path / name)) as file:
            packets = [bytes(p) for p in file.demux(video=0) if p.size]
        assert packets == jpegs


def test_what_a_layout_cannot_hold_is_refused(tmp_path):
    camera = Camera([[150, 0, 60], [0, 150, 62], [0, 0, 1]], [0.1, 0, 0, 0, 0, 0.1, 0, 0], np.eye(3), [0, 0, -3000])
    for layout in ("cmu_panoptic", "mpi_inf_3dhp", "imar"):
        skeleton = load_skeleton(SETS[layout][0])
        with ExampleWriter(tmp_path / layout, skeleton, layout) as writer:
            writer.add(
                Example(
                    f"{layout}/0",
                    layout,
                    "train",
                    "x-s001",
                    "walk",
                    0,
                    camera,
                    np.array([20.0, 25, 80, 60]),
                    (128, 128),
                    np.random.default_rng(0).normal(0, 300, (len(skeleton), 3)),
                ),
                encode_jpeg(np.zeros((128, 128, 3), np.uint8)),
            )
        with pytest.raises(ValueError, match=f"{layout}/0: distortion"):
            store_native(tmp_path / layout, layout)
        assert (tmp_path / layout / "table.arrow").exists()
    with pytest.raises(ValueError, match="layout: expected one of"):
        store_native(tmp_path / "imar", "h36m")


def test_turned_cameras_see_the_same():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    camera = Camera([[150, 0, 60], [0, 150, 62], [0, 0, 1]], [0.01, 0, 0, 0], np.eye(3), [0, 100, -3000], [0, 0, 1])
    points = rng.normal(0, 300, (9, 3))
    np.testing.assert_allclose(turned(camera, turn).project(points @ turn.T), camera.project(points), atol=1e-9)
