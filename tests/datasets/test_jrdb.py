"""JRDB-Pose: two tiny places and two cameras in the layout of the owners' toolkit (labels_2d_pose_coco, lidars.yaml),
read back, and harmed."""

import json

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import jrdb
from acae_nb.datasets.native_files import NativeError

NAMES = [
    "head",
    "right eye",
    "left eye",
    "right shoulder",
    "center shoulder",
    "left shoulder",
    "right elbow",
    "left elbow",
    "center hip",
    "right wrist",
    "right hip",
    "left hip",
    "left wrist",
    "right knee",
    "left knee",
    "right foot",
    "left foot",
]
SIZE = 752, 480
# from the owners' calibration/lidars.yaml
CALIBRATION = """%YAML 1.2
---
lidar:
  upper2ego:
  - [1.0, 0.0, 0.0, 0.0]
sensor_0:
  D: [-0.336591, 0.159742, 0.00012697, -7.22557e-05, -0.0461953]
  distorted_img_K:
  - [476.71, 0.0, 350.738]
  - [0.0, 479.505, 209.532]
  - [0.0, 0.0, 1.0]
  cam2ego:
  - [0.00043833986619291887, -4.87922106083887e-06, 1.0000001139210632, 0.056917692952825796]
  - [-0.9999996855239116, 0.0006545367811421147, 0.0004383460656661037, 1.6953614418399945e-05]
  - [-0.0006545382741045186, -0.9999995715580833, -4.592306702926395e-06, 0.08157999338283495]
  - [0.0, 0.0, 0.0, 1.0]
sensor_6:
  D: [-0.340676, 0.165511, -0.00035978, 0.000181532, -0.0493721]
  distorted_img_K:
  - [480.459, 0.0, 362.503]
  - [0.0, 482.924, 197.949]
  - [0.0, 0.0, 1.0]
  cam2ego:
  - [0.6207355368706513, 0.010426574517997703, -0.7839502458461658, -0.040343761362987805]
  - [0.7839423244300953, 0.005824616624007453, 0.6208061877127423, 0.031513299548996496]
  - [0.011039117684739473, -0.9999283550135921, -0.0045582829482744575, 0.10782985439859077]
  - [0.0, 0.0, 0.0, 1.0]
"""
FILES = {
    ("bytes-cafe-2019-02-07_0", 0): [(0, 4), (1, 9), (1, 4)],
    ("bytes-cafe-2019-02-07_0", 6): [(1, 4)],
    ("huang-lane-2019-02-12_0", 0): [(0, 0)],
}  # (frame, track)


def person(place, camera, frame, track):
    xy = np.random.default_rng([len(place), camera, frame, track]).uniform((300, 100), (420, 330), (17, 2)).round() / 1
    visible = np.array([(j + track + frame) % 3 for j in range(17)])  # 0 not marked, 1 hidden, 2 visible
    return xy + 0.5, visible


def write(root):
    (root / "calibration").mkdir(parents=True)
    (root / "calibration/lidars.yaml").write_text(CALIBRATION, encoding="utf-8")
    (root / "labels/labels_2d_pose_coco").mkdir(parents=True)
    for (place, camera), people in FILES.items():
        (root / "images" / f"image_{camera}" / place).mkdir(parents=True)
        for t in range(4):
            cv2.imwrite(
                str(root / "images" / f"image_{camera}" / place / f"{t:06d}.jpg"),
                np.full((SIZE[1], SIZE[0], 3), 50 * t + 30, np.uint8),
            )
        images = [
            dict(id=t + 1, width=752, height=480, file_name=f"image_{camera}/{place}/{t:06d}.jpg", license=0)
            for t in range(2)
        ]
        annotations = []
        for k, (t, track) in enumerate(people):
            xy, v = person(place, camera, t, track)
            annotations.append(
                dict(
                    id=k,
                    track_id=track,
                    image_id=t + 1,
                    category_id=1,
                    is_crowd=0,
                    num_keypoints=int((v > 0).sum()),
                    keypoints=np.c_[np.where(v[:, None] > 0, xy, 0), v].ravel().tolist(),
                )
            )
        annotations.append(
            dict(id=99, track_id=77, image_id=1, category_id=1, is_crowd=0, num_keypoints=0, keypoints=[0] * 51)
        )
        document = dict(
            images=images,
            annotations=annotations,
            categories=[dict(id=1, name="person", keypoints=NAMES, skeleton=[[1, 2]])],
            info={},
            licenses=[],
        )
        (root / "labels/labels_2d_pose_coco" / f"{place}_image{camera}.json").write_text(
            json.dumps(document), encoding="utf-8"
        )


def read(root):
    return list(jrdb.read(root))


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = read(tmp_path)
    assert [e.example_id for e, _ in rows] == [
        "bytes-cafe-2019-02-07_0/image_0/000000/4",
        "bytes-cafe-2019-02-07_0/image_0/000001/4",
        "bytes-cafe-2019-02-07_0/image_0/000001/9",
        "bytes-cafe-2019-02-07_0/image_6/000001/4",
        "huang-lane-2019-02-12_0/image_0/000000/0",
    ]
    for example, picture in rows:
        place, camera, frame, track = example.example_id.split("/")
        camera, frame, track = int(camera[-1]), int(frame), int(track)
        xy, v = person(place, camera, frame, track)
        np.testing.assert_allclose(example.joints2d, np.where(v[:, None] > 0, xy, np.nan), atol=0.05)
        seen = xy[v > 0]
        assert (
            (seen >= example.box[:2]).all()
            and (seen <= example.box[:2] + example.box[2:]).all()
            and (example.box[2:] < 2 * np.ptp(seen, axis=0)).all()
        )
        assert example.image_size == SIZE == picture.size and (example.camera_name, example.frame, example.split) == (
            f"image_{camera}",
            frame,
            "train",
        )
        assert abs(picture.load().mean() - (50 * (frame + 2) + 30)) < 2  # the picture two frames later


def test_cameras_have_their_lens_and_place(tmp_path):
    write(tmp_path)
    front, back = (next(e.camera for e, _ in read(tmp_path) if e.camera_name == f"image_{n}") for n in (0, 6))
    point = np.array([3000.0, 400, 500])  # ahead of the robot, to its left, above it
    axes = np.array([[0, -1.0, 0], [0, 0, -1], [1, 0, 0]])  # sensor_0 looks ahead, within a milliradian
    rvec = cv2.Rodrigues(axes)[0]
    t = -axes @ [56.9177, 0.017, 81.58]
    lens = np.array([-0.336591, 0.159742, 0.00012697, -7.22557e-05, -0.0461953])
    px = cv2.projectPoints(
        point[None], rvec, t, np.array([[476.71, 0, 350.738], [0, 479.505, 209.532], [0, 0, 1]]), lens
    )[0].ravel()
    np.testing.assert_allclose(front.project(point), px, atol=1.0)
    assert front.project(point)[0] < 350 and front.project(point + [0, 0, 200])[1] < front.project(point)[1]
    assert np.isnan(back.project(point)).all() and np.isfinite(back.project([-3000.0, 2500, 0])).all()


def test_labels_as_they_are(tmp_path):
    write(tmp_path)
    assert abs(next(jrdb.read(tmp_path, shift=0))[1].load().mean() - 30) < 2


def test_a_release_without_the_later_pictures_is_told_before_any_row(tmp_path):
    write(tmp_path)
    with pytest.raises(NativeError, match="picture: expected the one 40 frames after .* labelled in bytes-cafe.*shift"):
        next(jrdb.read(tmp_path, shift=40))
    assert len(list(jrdb.read(tmp_path, shift=1))) == 5


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda d: d["categories"][0]["keypoints"].reverse(), ["keypoints", "head"]),
        (lambda d: d["annotations"][1]["keypoints"].pop(), ["annotations/1/keypoints", "51"]),
        (lambda d: d["annotations"][1]["keypoints"].__setitem__(2, 3), ["annotations/1/keypoints"]),
        (lambda d: d["annotations"][1].update(image_id=50), ["annotations/1/image_id", "50"]),
        (lambda d: d["images"][0].update(file_name="image_0/x/first.jpg"), ["file_name", "first"]),
        (lambda d: d["images"][0].update(file_name="../000000.jpg"), ["file_name", "../000000.jpg"]),
    ],
)
def test_errors_name_file_and_field(tmp_path, edit, words):
    write(tmp_path)
    path = tmp_path / "labels/labels_2d_pose_coco/bytes-cafe-2019-02-07_0_image0.json"
    document = json.loads(path.read_text("utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(NativeError) as e:
        read(tmp_path)
    assert all(w in str(e.value) for w in ["bytes-cafe-2019-02-07_0_image0.json", *words]), e.value


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("sensor_0:", "sensor_1:", ["sensor_0"]),
        ("[476.71, 0.0", "[-476.71, 0.0", ["sensor_0", "focal"]),
        ("-0.0461953]", "-0.0461953, 0]", ["sensor_0/D"]),
        ("1.0000001139210632", ".nan", ["sensor_0"]),
        ("- [476.71", "- {476.71", ["YAML"]),
    ],
)
def test_bad_calibrations_are_refused(tmp_path, old, new, words):
    write(tmp_path)
    path = tmp_path / "calibration/lidars.yaml"
    path.write_text(path.read_text("utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(NativeError) as e:
        read(tmp_path)
    assert all(w in str(e.value) for w in ["lidars.yaml", *words]), e.value


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
