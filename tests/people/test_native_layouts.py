"""Collections in native layouts: what the readers give back is what was rendered."""

from dataclasses import replace

import numpy as np
import pytest
from layout_tables import FLAT, SETS, table

from acae_nb.datasets.selection import detected, moving, novel, read_detections
from acae_nb.datasets.sources import open_source
from acae_nb.datasets.stored import in_skeleton
from acae_nb.examples.images import encode_jpeg
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter
from acae_nb.geometry.cameras import Camera
from acae_nb.people.layout_files import focal_and_centre, turned, write_mjpeg
from acae_nb.people.native_layouts import LAYOUTS, store_native
from acae_nb.skeletons.joints import load_skeleton

VIDEOS = ("mpi_inf_3dhp", "imar", "aspset", "mads")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back(layout, tmp_path):
    before = table(tmp_path / "set", layout)
    store_native(tmp_path / "set", layout)
    assert not (tmp_path / "set" / "table.arrow").exists() and [p.name for p in tmp_path.iterdir()] == ["set"]
    own, rows = open_source(layout, tmp_path / "set", **SETS[layout][1])
    skeleton = load_skeleton(SETS[layout][0])
    if layout not in FLAT:
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
        if layout in FLAT:
            np.testing.assert_allclose(example.joints2d, old.joints2d, atol=0.01)
        else:
            np.testing.assert_allclose(
                example.camera.to_camera(example.joints3d), old.camera.to_camera(old.joints3d), atol=0.01
            )
            np.testing.assert_allclose(
                example.camera.project(example.joints3d), old.camera.project(old.joints3d), atol=0.1
            )
            up = (0, -1, 0) if layout == "gpa" else old.camera.rotation @ old.camera.world_up
            np.testing.assert_allclose(example.camera.rotation @ example.camera.world_up, up, atol=1e-9)
        assert abs(picture.load().astype(int) - before.image(k)).mean() < 2.5
        if layout == "human4d":
            assert (picture.load() == before.image(k)).all()
        elif layout not in VIDEOS:
            assert picture.jpeg() == before.image_bytes(k)
        if layout == "behave":
            assert example.mask == old.mask
        if layout == "imar":
            assert example.subject == old.subject and example.sequence.startswith(old.sequence)


def test_videos_hold_the_jpegs_themselves(tmp_path):
    import av

    jpegs = [encode_jpeg(np.full((48, 64, 3), 40 * k, np.uint8)) for k in range(4)]
    for name in ("a.avi", "a.mp4", "a.mkv"):
        write_mjpeg(tmp_path / name, jpegs, (64, 48))
        with av.open(str(tmp_path / name)) as file:
            packets = [bytes(p) for p in file.demux(video=0) if p.size]
        assert packets == jpegs


def one_row(folder, format, lens=None, joints=None, subject="x-s001", **labels):
    """A table of one example."""
    skeleton = load_skeleton(format)
    camera = Camera([[150, 0, 60], [0, 150, 62], [0, 0, 1]], lens, np.eye(3), [0, 0, -3000])
    whole = np.random.default_rng(0).normal(0, 300, (len(skeleton), 3)) if joints is None else joints
    labels = labels or dict(joints3d=whole)
    box = np.array([20.0, 25, 80, 60])
    with ExampleWriter(folder, skeleton, folder.name) as writer:
        example = Example(
            f"{folder.name}/0", folder.name, "train", subject, "walk", 0, camera, box, (128, 128), **labels
        )
        writer.add(example, encode_jpeg(np.zeros((128, 128, 3), np.uint8)))


@pytest.mark.parametrize(
    "layout, lens",
    [
        ("cmu_panoptic", [*[0] * 5, 0.1, 0, 0]),
        ("mads", [*[0] * 5, 0.1, 0, 0]),
        ("behave", [*[0] * 8, 0.1, 0, 0, 0]),
        *((layout, [0.1, 0, 0, 0]) for layout in ("gpa", "humbi", "human4d", "mpi_inf_3dhp", "imar", "aspset")),
    ],
)
def test_a_lens_that_a_layout_cannot_hold_is_refused(layout, lens, tmp_path):
    one_row(tmp_path / layout, SETS[layout][0], lens)
    with pytest.raises(ValueError, match=f"{layout}/0: distortion"):
        store_native(tmp_path / layout, layout)
    assert (tmp_path / layout / "table.arrow").exists()


def test_what_else_a_layout_cannot_hold_is_refused(tmp_path):
    missing = np.random.default_rng(0).normal(0, 300, (34, 3))
    missing[[3, 7]] = np.nan
    one_row(tmp_path / "gpa", "gpa_34", joints=missing)
    one_row(tmp_path / "human4d", "human4d_32", subject="x-s009")
    one_row(tmp_path / "behave", "openpose_body_25")
    one_row(tmp_path / "flat", "mpii_16", joints2d=np.full((16, 2), 50.0))
    one_row(tmp_path / "deep", "mpii_16")
    for name, layout, words in (
        ("gpa", "gpa", r"gpa/0: joints3d: expected every joint, found none at \[3, 7\]"),
        ("human4d", "human4d", "human4d/0: subject: expected one of nine, found number 10"),
        ("behave", "behave", "behave/0: mask"),
        ("flat", "coco", "flat: skeleton: expected coco_17 for coco, found mpii_16"),
        ("deep", "mpii", "deep: label: expected 2d for mpii"),
        ("flat", "h36m", "layout: expected one of"),
    ):
        with pytest.raises(ValueError, match=words):
            store_native(tmp_path / name, layout)
        assert (tmp_path / name / "table.arrow").exists()


def test_skewed_pixels_are_refused(tmp_path):
    for layout in ("gpa", "behave"):
        one_row(tmp_path / layout, SETS[layout][0])
        [example] = ExampleTable.open(tmp_path / layout)
        skewed = Camera([[150, 3, 60], [0, 150, 62], [0, 0, 1]], None, np.eye(3), [0, 0, -3000])
        with pytest.raises(ValueError, match=f"{layout}/0: intrinsics"):
            focal_and_centre(replace(example, camera=skewed))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_depend_on_the_table_alone(layout, tmp_path, monkeypatch):
    """Not on the hour, nor on a random number."""
    found = []
    for hour in (3, 5):
        monkeypatch.setattr("time.asctime", lambda *_, hour=hour: f"{hour} o'clock")
        folder = tmp_path / str(hour) / "set"
        folder.parent.mkdir()
        table(folder, layout, 2)
        store_native(folder, layout)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert found[0] == found[1]


def test_turned_cameras_see_the_same():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    camera = Camera([[150, 0, 60], [0, 150, 62], [0, 0, 1]], [0.01, 0, 0, 0], np.eye(3), [0, 100, -3000], [0, 0, 1])
    points = rng.normal(0, 300, (9, 3))
    np.testing.assert_allclose(turned(camera, turn).project(points @ turn.T), camera.project(points), atol=1e-9)
