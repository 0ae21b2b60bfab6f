"""Calibration files, written by OpenCV or word by word: where known points appear, and what is said of wrong files."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from acae_nb.datasets.pose2sim import read_calibration as read_sample_calibration
from acae_nb.geometry.calibration import (
    CalibratedView,
    exif_field_of_view,
    read_calibration,
    read_colmap,
    read_opencv,
    read_pose2sim,
    view_of,
)
from acae_nb.geometry.cameras import Camera

REPO = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
POINTS = RNG.normal(0, 400, (20, 3)) + [100, -200, 0]  # world mm, about what both cameras look at
INTRINSICS = np.array([[1100.0, 0, 655], [0, 1090, 362], [0, 0, 1]])
LENS = np.array([-0.11, 0.03, 0.001, -0.002])
POSES = {  # rotation vector, and translation in mm: world to camera
    "cam_a": (np.array([0.2, -0.4, 0.1]), np.array([120.0, -60, 4200])),
    "cam_b": (np.array([-0.1, 0.7, 0.05]), np.array([-300.0, 40, 5100])),
}


def expected_px(name: str, intrinsics=INTRINSICS, lens=LENS) -> np.ndarray:
    "By OpenCV's own projection."
    return cv2.projectPoints(POINTS, *POSES[name], intrinsics, lens)[0][:, 0]


def write_toml(path, **changes):
    text = "[metadata]\nadjusted = false\nerror = 0.0\n"
    for name, (turn, place) in POSES.items():
        fields = {
            "name": f'"{name}"',
            "size": [1280.0, 720.0],
            "matrix": INTRINSICS.tolist(),
            "distortions": LENS.tolist(),
            "rotation": turn.tolist(),
            "translation": (place / 1000).tolist(),
            "fisheye": "false",
        }
        fields |= changes
        text += f"\n[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in fields.items() if v is not None)
    path.write_text(text)
    return path


def write_storage(path, **fields):
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in fields.items():
        storage.write(name, value)
    storage.release()
    return path


def opencv_fields(name):
    turn, place = POSES[name]
    return {
        "image_width": 1280,
        "image_height": 720,
        "camera_matrix": INTRINSICS,
        "distortion_coefficients": np.r_[LENS, 0.0][None],
        "R": cv2.Rodrigues(turn)[0],
        "T": place[:, None],
    }


COLMAP_LENSES = {  # by COLMAP's page on camera models; its corner of the first pixel is 0, so its middle is 0.5
    "PINHOLE": ("1100 1090 655.5 362.5", np.zeros(4), INTRINSICS),
    "SIMPLE_RADIAL": ("1100 655.5 362.5 -0.11", np.array([-0.11, 0, 0, 0]), np.diag([1100.0, 1100, 1])),
    "RADIAL": ("1100 655.5 362.5 -0.11 0.03", np.array([-0.11, 0.03, 0, 0]), np.diag([1100.0, 1100, 1])),
    "OPENCV": ("1100 1090 655.5 362.5 -0.11 0.03 0.001 -0.002", LENS, INTRINSICS),
    "FULL_OPENCV": (
        "1100 1090 655.5 362.5 -0.11 0.03 0.001 -0.002 0.01 0.02 0.003 0.001",
        np.r_[LENS, 0.01, 0.02, 0.003, 0.001],
        INTRINSICS,
    ),
}


def write_colmap(folder, model="OPENCV", parameters=COLMAP_LENSES["OPENCV"][0], points="12.5 3.25 -1 7 8 4"):
    folder.mkdir(exist_ok=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n7 {model} 1280 720 {parameters}\n")
    lines = ["# Image list with two lines of data per image:"]
    for k, (name, (turn, place)) in enumerate(POSES.items()):
        x, y, z, w = Rotation.from_rotvec(turn).as_quat()
        lines += [f"{k + 3} {w} {x} {y} {z} {' '.join(map(str, place / 1000))} 7 {name}.jpg", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_pose2sim(tmp_path):
    views = read_calibration(write_toml(tmp_path / "Calib.toml"))
    assert set(views) == set(POSES)
    for name, view in views.items():
        np.testing.assert_allclose(view.camera.project(POINTS), expected_px(name), atol=1e-6)
        assert view.size == (1280, 720) and view.camera.world_up.tolist() == [0, 0, 1]
    in_mm = read_calibration(tmp_path / "Calib.toml", unit_mm=1.0)["cam_a"].camera
    np.testing.assert_allclose(in_mm.position * 1000, views["cam_a"].camera.position)


@pytest.mark.parametrize("ending", ["yml", "yaml", "json", "xml"])
def test_opencv(tmp_path, ending):
    for name in POSES:
        write_storage(tmp_path / f"{name}.{ending}", **opencv_fields(name))
    views = read_calibration(tmp_path)
    assert set(views) == set(POSES)
    for name, view in views.items():
        np.testing.assert_allclose(view.camera.project(POINTS), expected_px(name), atol=1e-6)
        np.testing.assert_allclose(
            view.camera.project(POINTS), read_opencv(tmp_path / f"{name}.{ending}").camera.project(POINTS)
        )
        assert view.size == (1280, 720)
    ups = [-Rotation.from_rotvec(turn).as_matrix()[1] for turn, _ in POSES.values()]
    up = np.mean(ups, 0) / np.linalg.norm(np.mean(ups, 0))
    np.testing.assert_allclose(views["cam_a"].camera.world_up, up)


def test_opencv_with_other_names_and_no_place(tmp_path):
    path = write_storage(tmp_path / "a.yml", cameraMatrix=INTRINSICS, distCoeffs=np.r_[LENS, np.zeros(10)])
    view = read_calibration(path)["a"]
    assert view.size is None and not view.camera.position.any() and (view.camera.rotation == np.eye(3)).all()
    np.testing.assert_array_equal(view.camera.distortion[:4], LENS)
    (tmp_path / "plain.json").write_text(
        f'{{"K": {INTRINSICS.tolist()}, "D": {LENS.tolist()}, '
        '"rvec": [0.2, -0.4, 0.1], "tvec": [[120], [-60], [4200]]}'
    )
    plain = read_calibration(tmp_path / "plain.json")["plain"].camera
    np.testing.assert_allclose(plain.project(POINTS), expected_px("cam_a"), atol=1e-6)


@pytest.mark.parametrize("model", COLMAP_LENSES)
@pytest.mark.parametrize("points", ["12.5 3.25 -1 7 8 4", ""])
def test_colmap(tmp_path, model, points):
    parameters, lens, intrinsics = COLMAP_LENSES[model]
    intrinsics = intrinsics.copy()
    intrinsics[:2, 2] = 655, 362
    folder = write_colmap(tmp_path / "model", model, parameters, points)
    views = read_calibration(folder)
    assert set(views) == {"cam_a.jpg", "cam_b.jpg"}
    for name in POSES:
        np.testing.assert_allclose(
            view_of(views, name).camera.project(POINTS), expected_px(name, intrinsics, lens), atol=1e-6
        )
    assert read_calibration(folder / "images.txt").keys() == views.keys()


QUALISYS = """<?xml version="1.0"?><calibration><cameras><camera serial="11">
<fov_video left="10" top="20" right="1289" bottom="739"/>
<transform x="100" y="-200" z="4000" r11="1" r12="0" r13="0" r21="0" r22="1" r23="0" r31="0" r32="0" r33="1"/>
<intrinsic focalLengthU="64000" focalLengthV="63360" skew="0" centerPointU="{cu}" centerPointV="{cv}"
 radialDistortion1="0" radialDistortion2="0" radialDistortion3="0" tangentalDistortion1="0" tangentalDistortion2="0"/>
</camera></cameras></calibration>"""


def test_qualisys_word_by_word(tmp_path):
    "A camera 4 m above the floor that looks straight down: its y is up in the picture, and it looks along -z."
    (tmp_path / "a.xml").write_text(QUALISYS.format(cu=(640 + 10) * 64, cv=(360 + 20) * 64))
    view = read_calibration(tmp_path / "a.xml")["11"]
    assert view.size == (1280, 720)
    np.testing.assert_allclose(view.camera.project(np.array([100.0, -200, 0])), [640, 360])
    np.testing.assert_allclose(view.camera.project(np.array([500.0, -200, 0])), [740, 360])  # 400 mm / 4 m * 1000 px
    np.testing.assert_allclose(view.camera.project(np.array([100.0, 200, 0])), [640, 261])  # y goes up the picture


def test_qualisys_of_the_recording():
    path = REPO / "data/pose2sim/Calib.qca.txt"
    if not path.is_file():
        pytest.skip("the sample data are not here")
    views, sample = read_calibration(path), read_sample_calibration(path)
    assert views.keys() == sample.keys() and len(views) == 4
    for name, (camera, size) in sample.items():
        assert views[name].size == size
        for field in ("intrinsics", "distortion", "rotation", "position", "world_up"):
            np.testing.assert_allclose(getattr(views[name].camera, field), getattr(camera, field), atol=1e-9)


def broken(tmp_path, kind, **changes):
    if kind == "toml":
        return write_toml(tmp_path / "c.toml", **changes)
    if kind == "opencv":
        fields = {k: v for k, v in (opencv_fields("cam_a") | changes).items() if v is not None}
        return write_storage(tmp_path / "c.yml", **fields)
    return write_colmap(tmp_path / "c", **changes)


WRONG = {  # kind, what is changed -> what is said
    "a matrix of two rows": (
        "toml",
        {"matrix": [[1, 0, 0], [0, 1, 0]]},
        r"c.toml: camera 'cam_a': field matrix: expected 3 x 3 finite",
    ),
    "no rotation": ("toml", {"rotation": None}, r"camera 'cam_a': field rotation: expected"),
    "words for numbers": ("toml", {"translation": '["x", "y", "z"]'}, r"field translation: expected 3 finite numbers"),
    "a fisheye": ("toml", {"fisheye": "true"}, r"field fisheye: expected a lens of OpenCV's usual model"),
    "three of a lens": (
        "toml",
        {"distortions": [0.1, 0.2, 0.3]},
        r"field distortions: expected 4, 5, 8 or 12 .* found 3",
    ),
    "negative focal length": (
        "toml",
        {"matrix": (-INTRINSICS).tolist()},
        r"c.toml: camera 'cam_a': camera: intrinsics",
    ),
    "not finite": ("toml", {"size": "[nan, 720.0]"}, r"field size: expected 2 finite numbers"),
    "no width": ("toml", {"size": [0, 720]}, r"c.toml: camera 'cam_a': field size: expected a width and a height"),
    "lists of two lengths": (
        "toml",
        {"matrix": "[[1, 0], [0]]"},
        r"c.toml: camera 'cam_a': field matrix: expected 3 x 3",
    ),
    "a ragged place": ("toml", {"translation": "[[1.0], [2.0, 3.0, 4.0]]"}, r"field translation: expected 3 finite"),
    "a huge number": ("toml", {"size": [10**400, 720]}, r"c.toml: camera 'cam_a': field size: expected 2 finite"),
    "one name twice": ("toml", {"name": '"left"'}, r"c.toml: camera 'cam_b': field name: .* its own, found 'left'"),
    "a name that is a number": ("toml", {"name": 5}, r"c.toml: camera 'cam_a': field name: .* its own, found 5"),
    "a size that is a matrix": ("opencv", {"image_width": np.eye(2)}, r"c.yml: fields image_width, image_height"),
    "a negative size": ("opencv", {"image_height": -720}, r"c.yml: fields image_width, image_height: expected a width"),
    "no matrix": (
        "opencv",
        {"camera_matrix": None},
        r"c.yml: field camera_matrix: expected 3 x 3 finite numbers, found nothing",
    ),
    "no lens": ("opencv", {"distortion_coefficients": None}, r"c.yml: field distortion_coefficients: .* found nothing"),
    "R alone": ("opencv", {"T": None}, r"c.yml: expected both R and T"),
    "R that is no rotation": ("opencv", {"R": np.ones((3, 3))}, r"c.yml: camera: rotation: expected an orthonormal"),
    "a tilted sensor": ("opencv", {"distortion_coefficients": np.full(14, 0.1)}, r"expected 4, 5, 8 or 12 .* found 14"),
    "another model": (
        "colmap",
        {"model": "OPENCV_FISHEYE"},
        r"cameras.txt: line 2: field MODEL: .*found OPENCV_FISHEYE",
    ),
    "too few parameters": ("colmap", {"parameters": "1 2 3"}, r"cameras.txt: line 2: fields WIDTH, HEIGHT, PARAMS"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_named(tmp_path, case):
    kind, changes, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        read_calibration(broken(tmp_path, kind, **changes))


TEXTS = {
    "c.toml": ("[[", r"c.toml: expected TOML"),
    "e.toml": ("[metadata]\nerror = 1.0", r"e.toml: expected a table for each camera"),
    "c.yml": ("not: [yaml", r"c.yml: expected YAML, JSON or XML as OpenCV writes it"),
    "c.json": ("", r"c.json: expected YAML, JSON or XML as OpenCV writes it|c.json: field camera_matrix"),
    "c.qca.txt": ("<a>", r"c.qca.txt: expected XML of a Qualisys"),
    "e.xml": ("<calibration/>", r"e.xml: field cameras/camera: expected at least one camera"),
    "n.xml": ('<?xml version="1.0" encoding="none"?><a/>', r"n.xml: expected XML of a Qualisys"),
    "c.pickle": ("x", r"c.pickle: expected a calibration of Pose2Sim .* found none of these"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_none(tmp_path, name):
    text, message = TEXTS[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_calibration(tmp_path / name)


def test_text_is_utf8_with_or_without_a_mark(tmp_path):
    path = write_toml(tmp_path / "c.toml")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b'"cam_a"', '"Kamera_Süd"'.encode()))
    assert set(read_calibration(path)) == {"Kamera_Süd", "cam_b"}
    for file in (path, write_colmap(tmp_path / "m") / "images.txt"):
        file.write_bytes(file.read_bytes() + b"# S\xfcd\n")
        with pytest.raises(ValueError, match=f"{file.name}: expected text in UTF-8"):
            read_calibration(file)


def test_one_camera_twice_is_refused(tmp_path):
    cameras = QUALISYS.format(cu=0, cv=0)
    camera = cameras[cameras.index("<camera serial") : cameras.index("</cameras>")]
    (tmp_path / "a.xml").write_text(cameras.replace("</cameras>", camera + "</cameras>"))
    with pytest.raises(ValueError, match=r"a.xml: camera '11': field serial: .* its own, found '11'"):
        read_calibration(tmp_path / "a.xml")
    images = write_colmap(tmp_path / "m") / "images.txt"
    images.write_text(images.read_text().replace("cam_b.jpg", "cam_a.jpg"))
    with pytest.raises(ValueError, match=r"images.txt: line 4: field NAME: .* its own, found 'cam_a.jpg'"):
        read_calibration(images)


def test_two_files_or_lines_of_one_camera_are_refused(tmp_path):
    for ending in ("yml", "json"):
        write_storage(tmp_path / f"a.{ending}", **opencv_fields("cam_a"))
    with pytest.raises(ValueError, match=r"a.yml: name of the file: .* its own, found 'a'"):
        read_calibration(tmp_path)
    cameras = write_colmap(tmp_path / "m") / "cameras.txt"
    cameras.write_text(cameras.read_text() + cameras.read_text().splitlines()[1] + "\n")
    with pytest.raises(ValueError, match=r"cameras.txt: line 3: field CAMERA_ID: .* once, found 7 again"):
        read_calibration(tmp_path / "m")


def test_pictures_without_their_line_of_points_are_not_taken_for_points(tmp_path):
    images = write_colmap(tmp_path / "m") / "images.txt"
    lines = images.read_text().splitlines()
    images.write_text("\n".join([lines[0], lines[1], lines[3]]) + "\n")
    with pytest.raises(ValueError, match=r"images.txt: line 3: expected the points of the picture above"):
        read_calibration(images)


@pytest.mark.parametrize("size", [(-3, -3), (2.5, 3.6), (0, 9)])
def test_a_matrix_of_an_impossible_size_is_named(tmp_path, size):
    path = write_storage(tmp_path / "a.yml", **opencv_fields("cam_a"))
    text = path.read_text()
    assert "rows: 3\n   cols: 3" in text
    path.write_text(text.replace("rows: 3\n   cols: 3", f"rows: {size[0]}\n   cols: {size[1]}", 1))
    with pytest.raises(ValueError, match=r"a.yml: field camera_matrix: expected 3 x 3 .* with 9 values"):
        read_calibration(path)


def test_cameras_of_opposite_ways_up_have_no_up_together(tmp_path):
    for name, turn in (("a", np.eye(3)), ("b", np.diag([1.0, -1, -1]))):
        write_storage(tmp_path / f"{name}.yml", **opencv_fields("cam_a") | {"R": turn})
    with pytest.raises(ValueError, match=f"{tmp_path.name}: expected cameras of which most are upright"):
        read_calibration(tmp_path)


def test_files_that_are_not_there(tmp_path):
    for read in (read_calibration, read_pose2sim, read_opencv, read_colmap):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="found none of these"):
        read_calibration(tmp_path)


def test_a_camera_of_images_that_is_not_among_the_cameras(tmp_path):
    folder = write_colmap(tmp_path / "m")
    images = folder / "images.txt"
    images.write_text(images.read_text().replace(" 7 cam_b.jpg", " 8 cam_b.jpg"))
    with pytest.raises(ValueError, match=r"images.txt: line 4: field CAMERA_ID: .* found 8"):
        read_calibration(folder)


def test_views_by_name(tmp_path):
    views = read_calibration(write_toml(tmp_path / "c.toml"))
    assert view_of(views, "CAM_A.mp4") is views["cam_a"]
    with pytest.raises(KeyError, match="no camera 'cam_c'.*cam_a, cam_b"):
        view_of(views, "cam_c")
    assert view_of({"left": views["cam_a"]}, "street.jpg") is views["cam_a"]
    one, two = views["cam_a"], views["cam_b"]
    numbered = {"cam.1": one, "cam.2": two}
    assert view_of(numbered, "cam.1.mp4") is one and view_of(numbered, "CAM.2") is two
    for several, name in [
        ({"a/0001.jpg": one, "b/0001.jpg": two}, "0001.jpg"),
        (numbered, "cam.mp4"),
        ({"Cam": one, "cam": two}, "CAM.mp4"),
    ]:
        with pytest.raises(KeyError, match=f"expected one camera '{name}', found {', '.join(several)}: name it in ful"):
            view_of(several, name)


def test_pictures_of_another_size():
    "A point's place in the picture grows with the picture, by the middles of pixels."
    view = CalibratedView(Camera(INTRINSICS, LENS), (1280, 720))
    points = POINTS + [0, 0, 4000]
    px = view.camera.project(points)
    np.testing.assert_allclose(view.for_pictures((1920, 1080)).project(points), (px + 0.5) * 1.5 - 0.5)
    np.testing.assert_allclose(view.for_pictures((1280, 722)).project(points), px + [0, 1])
    with pytest.raises(ValueError, match="expected pictures of 1280 x 720 px or of the same shape, found 720 x 1280"):
        view.for_pictures((720, 1280))
    anywhere = CalibratedView(view.camera)  # whose file does not tell the size
    assert anywhere.for_pictures((1280, 720)) is view.camera
    for size in ((640, 360), (2880, 1620), (10, 10), (3840, 720)):
        with pytest.raises(ValueError, match=rf"\(655, 362\) px.* near their middle, found {size[0]} x {size[1]} px"):
            anywhere.for_pictures(size)


def test_a_world_in_which_cameras_lie_is_asked_about(tmp_path):
    "z up is what Pose2Sim writes; in Anipose's world, often a camera's own, z is the viewing direction."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_calibration(write_toml(tmp_path / "standing.toml", rotation=[1.57, 0.1, 0.0]))
    with pytest.warns(UserWarning, match="lying.toml: z is taken for up, but its cameras do not stand upright"):
        read_calibration(write_toml(tmp_path / "lying.toml", rotation=[0.0, 0.1, 0.0]))


PHOTOGRAPHS = {  # tags, size -> field of view of the longer side, degrees (None: nothing to conclude)
    "50 mm, landscape film": ({0xA405: 50}, (3600, 2400), np.degrees(2 * np.arctan(36 / 2 / 50))),
    "50 mm, upright": ({0xA405: 50}, (2400, 3600), np.degrees(2 * np.arctan(36 / 2 / 50))),
    "26 mm, 4:3": ({0xA405: 26}, (400, 300), np.degrees(2 * np.arctan(np.hypot(36, 24) * 0.8 / 2 / 26))),
    "resized": ({0xA405: 50, 0xA002: 6000, 0xA003: 4000}, (600, 400), np.degrees(2 * np.arctan(36 / 2 / 50))),
    "cut out": ({0xA405: 50, 0xA002: 6000, 0xA003: 4000}, (400, 400), None),
    "unknown": ({0xA405: 0}, (600, 400), None),
    "no tags": ({}, (600, 400), None),
}


ODD_TAGS = ["x", b"\xff", (3, 4, 5), -28, 0.0, 2**31]


@pytest.mark.parametrize("value", ODD_TAGS, ids=repr)
@pytest.mark.parametrize("tag", [0xA405, 0xA002])
def test_odd_tags_tell_nothing(tmp_path, tag, value):
    picture = Image.new("RGB", (600, 400))
    tags = picture.getexif()
    tags[0x8769] = {0xA405: 50, 0xA003: 4000} | {tag: value}
    picture.save(tmp_path / "p.png", exif=tags)
    angle = exif_field_of_view(tmp_path / "p.png")
    assert angle is None or 0 < angle < 180


@pytest.mark.parametrize("case", PHOTOGRAPHS)
def test_photographs_tell_their_field_of_view(tmp_path, case):
    values, size, expected = PHOTOGRAPHS[case]
    picture = Image.new("RGB", size)
    tags = picture.getexif()
    tags[0x8769] = values
    picture.save(tmp_path / "p.jpg", exif=tags)
    assert exif_field_of_view(tmp_path / "p.jpg") == (expected and pytest.approx(expected))


def test_what_is_no_photograph_tells_nothing(tmp_path):
    (tmp_path / "p.jpg").write_text("no picture")
    assert exif_field_of_view(tmp_path / "p.jpg") is None
