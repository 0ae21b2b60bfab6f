"""The calibration reader on a tiny made-up file, its errors, and triangulation that survives wrong detections."""

import cv2
import numpy as np
import pytest
from conftest import REPO

from acae_nb.datasets import pose2sim as P
from acae_nb.geometry.cameras import Camera, look_at_rotation

CAMERA = """<camera serial="{name}"><fov_video left="0" right="99" top="0" bottom="199"/>
<transform r11="{r[0]}" r12="{r[1]}" r13="{r[2]}" r21="{r[3]}" r22="{r[4]}" r23="{r[5]}" r31="{r[6]}" r32="{r[7]}"
 r33="{r[8]}" x="{p[0]}" y="{p[1]}" z="{p[2]}"/>
<intrinsic focalLengthU="9600" focalLengthV="9664" centerPointU="3200" centerPointV="6400" skew="0"
 radialDistortion1="-0.05" radialDistortion2="0.1" radialDistortion3="0.02" tangentalDistortion1="0.001"
 tangentalDistortion2="0.002"/></camera>"""


def made_up_file(folder, change=lambda text: text):
    """Two cameras that look at the origin from two sides, written as Qualisys does: rotation to a camera with y up, z
    backward."""
    text = ""
    for name, p in (("a", [3000, 0, 1000]), ("b", [0, 3000, 1000])):
        R = np.diag([1, -1, -1]) @ look_at_rotation(-np.array(p, float), np.array(P.WORLD_UP))
        text += CAMERA.format(name=name, r=R.reshape(-1).tolist(), p=p)
    (folder / "calib.qca.txt").write_text(
        change(f"<calibration><cameras>{text}</cameras></calibration>"), encoding="utf-8"
    )
    return folder / "calib.qca.txt"


def test_calibration_is_read_into_our_conventions(tmp_path):
    cameras = P.read_calibration(made_up_file(tmp_path))
    assert list(cameras) == ["a", "b"]
    camera, size = cameras["a"]
    assert size == (100, 200) and camera.world_up.tolist() == [0, 0, 1] and camera.position.tolist() == [3000, 0, 1000]
    np.testing.assert_allclose(camera.intrinsics, [[150, 0, 50], [0, 151, 100], [0, 0, 1]])
    np.testing.assert_allclose(camera.distortion[:5], [-0.05, 0.1, 0.001, 0.002, 0.02])
    np.testing.assert_allclose(camera.project(np.zeros(3)), [50, 100], atol=1e-9)  # looks at the origin ...
    assert camera.project(np.array([0, 0, 300.0]))[1] < 100  # ... with up at the top
    assert camera.project(np.array([0, 300.0, 0]))[0] > 50  # seen from +x, +y is on the right


@pytest.mark.parametrize(
    "old, new, words",
    [
        (' focalLengthU="9600"', "", ["camera 'a'", "intrinsic/focalLengthU", "expected a number", "found nothing"]),
        ('focalLengthV="9664"', 'focalLengthV="wide"', ["intrinsic/focalLengthV", "found 'wide'"]),
        ('z="1000"', 'z="nan"', ["camera 'a'", "position", "finite"]),
        ('x="3000"', "", ["transform/x"]),
        ("r11=", "r44=", ["transform/r11"]),
        ('focalLengthU="9600"', 'focalLengthU="-1"', ["intrinsics", "positive focal"]),
        ("</calibration>", "", ["expected XML", "calib.qca.txt"]),
        ('right="99"', "", ["fov_video/right"]),
    ],
)
def test_bad_calibrations_name_file_camera_and_field(tmp_path, old, new, words):
    path = made_up_file(tmp_path, lambda text: text.replace(old, new, 1))
    with pytest.raises(ValueError) as e:
        P.read_calibration(path)
    assert all(w in str(e.value) for w in [*words, str(path)]), e.value


def test_missing_and_empty_calibrations(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.qca.txt"):
        P.read_calibration(tmp_path / "no.qca.txt")
    (tmp_path / "e.txt").write_text("<calibration/>", encoding="utf-8")
    with pytest.raises(ValueError, match="cameras/camera: expected at least one"):
        P.read_calibration(tmp_path / "e.txt")
    (tmp_path / "f.txt").write_text("frames 100", encoding="utf-8")
    with pytest.raises(ValueError, match="f.txt: expected XML"):
        P.read_calibration(tmp_path / "f.txt")


def test_letterboxed_video():
    c = Camera(np.array([[1000, 0, 540], [0, 1000, 960], [0, 0, 1.0]]))
    X = np.array([[100, -200, 1000.0], [-300, 700, 1500]])
    s, full, found = 1080 / 1088, c.project(X), P.fit_to_video(c, (1088, 1920), (1080, 1920)).project(X)
    np.testing.assert_allclose(
        found, (full + 0.5) * s - 0.5 + [0, (1920 - 1920 * s) / 2]
    )  # outer corners scaled, picture centred
    with pytest.raises(ValueError, match="1088x1920.*found 1920x1080"):
        P.fit_to_video(c, (1088, 1920), (1920, 1080))


def test_missing_and_broken_videos_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="cam01.mp4"):
        list(P.read_video(tmp_path / "cam01.mp4", [0]))
    (tmp_path / "cam01.mp4").write_bytes(b"not a video")
    with pytest.raises(ValueError, match="cam01.mp4: frame 0: expected a picture"):
        list(P.read_video(tmp_path / "cam01.mp4", [0]))


def test_video_frames_are_the_asked_ones(tmp_path):
    path = str(tmp_path / "v.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for k in range(8):
        writer.write(np.full((64, 64, 3), 30 * k, np.uint8))
    writer.release()
    assert [round(i.mean() / 30) for i in P.read_video(path, [0, 3, 7])] == [0, 3, 7]
    with pytest.raises(ValueError, match="v.avi: frame 9"):
        list(P.read_video(path, [2, 9]))


@pytest.fixture
def walk():
    """A made-up person (left and right different) walking between four cameras: world joints, cameras, sightings with 2
    px noise."""
    rng = np.random.default_rng(0)
    mirror = [0, 1, 3, 2, 5, 4, 7, 6]
    person = np.array(
        [
            [0, 0, 1600],
            [0, 0, 1000],
            [100, 200, 1400],
            [100, -200, 1400],
            [250, 350, 1100],
            [-50, -400, 1000],
            [200, 120, 500],
            [-150, -100, 480],
        ],
        float,
    )
    joints = person + np.linspace([0, 0, 0], [600, 200, 0], 12)[:, None] + rng.normal(size=(12, 8, 3)) * 15
    cameras = [
        Camera(
            np.array([[1500, 0, 540], [0, 1500, 960], [0, 0, 1.0]]),
            None,
            look_at_rotation(np.array([300, 100, 1000]) - p, np.array([0, 0, 1.0])),
            p,
        )
        for p in np.array([[3500, 300, 1800], [100, 3600, 1500], [-3300, -400, 2000], [400, -3500, 1700.0]])
    ]
    px = np.stack([c.project(joints) for c in cameras])
    return joints, cameras, px + rng.normal(size=px.shape) * 2, mirror, rng


def test_sides_are_put_right(walk):
    joints, cameras, px, mirror, rng = walk
    swapped = np.zeros((4, 12), bool)
    swapped[1, 3:9] = True
    swapped[2, 5] = swapped[0, 6] = True  # also two views at once
    seen = np.where(swapped[..., None, None], px[:, :, mirror], px)
    assert np.array_equal(P.agree_on_sides(seen, np.ones(seen.shape[:-1]), cameras, mirror, 15), swapped)


def test_gross_errors_do_not_reach_the_answer(walk):
    joints, cameras, px, mirror, rng = walk
    wrong = rng.random(px.shape[:-1]) < 0.1
    wrong &= wrong.cumsum(0) == 1  # at most one view of a joint
    seen = np.where(wrong[..., None], px + rng.normal(size=px.shape) * 400, px)
    weights = np.ones(wrong.shape)
    weights[3, 0] = 0
    found, off = P.triangulate_robustly(seen, weights, cameras, 15)
    error = np.linalg.norm(found - joints, axis=-1)
    assert np.median(error) < 7 and np.percentile(error, 99) < 40 and np.isinf(off[3, 0]).all()


def test_a_joint_nobody_saw_is_nan(walk):
    joints, cameras, px, mirror, rng = walk
    weights = np.ones(px.shape[:-1])
    weights[1:, :, 2] = 0
    found, off = P.triangulate_robustly(px, weights, cameras, 15)
    assert np.isnan(found[:, 2]).all() and np.isfinite(found[:, [0, 1, 3, 4, 5, 6, 7]]).all()


@pytest.fixture(scope="module")
def rows():
    data = REPO / "data"
    if not (data / "pose2sim").exists():
        pytest.skip("data/ is not fetched: python -m acae_nb.people.sample_data data")
    pytest.importorskip("ai_edge_litert", reason="BlazePose needs the `detect` extra")
    return list(P.read(data, every=24))


def test_recording_as_examples(rows, tmp_path):
    from acae_nb.examples.tables import ExampleTable, ExampleWriter

    with ExampleWriter(tmp_path / "t", P.landmark_skeleton(), "pose2sim") as w:
        for e, jpeg in rows:
            w.add(e, jpeg)
    table = ExampleTable.open(tmp_path / "t")
    assert len(table) == len(rows) == 20 and sorted({e.camera_name for e, _ in rows}) == [
        "cam01",
        "cam02",
        "cam03",
        "cam04",
    ]
    for e, _ in rows:
        assert (
            e.image_size in ((540, 960), (544, 960))
            and 400 < np.nanmax(e.joints3d[:, 2]) - np.nanmin(e.joints3d[:, 2]) < 2200
        )
        px = e.camera.project(e.joints3d)
        px = px[~np.isnan(px).any(1)]
        assert (
            (px > e.box[:2]).all()
            and (px < e.box[:2] + e.box[2:]).all()
            and ((px > 0) & (px < e.image_size)).mean() > 0.9
        )


def test_left_is_left_and_feet_are_down(rows):
    s = P.landmark_skeleton()
    i = s.index
    agree = []
    for e, _ in rows:
        j = e.joints3d
        up, forward = (
            j[i("left_shoulder")] - j[i("left_hip")],
            j[i("nose")] - (j[i("left_ear")] + j[i("right_ear")]) / 2,
        )
        agree.append((j[i("left_shoulder")] - j[i("right_shoulder")]) @ np.cross(up, forward))
        assert not (j[[i("left_ankle"), i("right_ankle")], 2] > j[i("left_shoulder"), 2]).any()
    agree = np.array(agree)
    assert (agree[~np.isnan(agree)] > 0).mean() > 0.8


def test_blazepose_files_are_named(tmp_path):
    from acae_nb.people.blazepose import BlazePose

    pytest.importorskip("ai_edge_litert", reason="BlazePose needs the `detect` extra")
    with pytest.raises(FileNotFoundError, match="pose_detection.tflite"):
        BlazePose(tmp_path)
    (tmp_path / "pose_detection.tflite").write_bytes(b"not a network")
    with pytest.raises(ValueError, match="pose_detection.tflite: expected a tflite network"):
        BlazePose(tmp_path)


def test_blazepose_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    import sys

    from acae_nb.people.blazepose import BlazePose

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=r"acae_nb\[detect\]"):
        BlazePose(tmp_path)
