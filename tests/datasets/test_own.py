"""One's own data: both layouts written here from their description, read back, and every fault listed at once."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import REPO

from acae_nb.datasets import own_coco, own_table
from acae_nb.datasets.native_files import NativeError
from acae_nb.datasets.own import validate_folder
from acae_nb.datasets.own_coco import category_skeleton, mirrored
from acae_nb.datasets.own_files import row_problems, skeleton_from
from acae_nb.datasets.sources import native_formats, open_source
from acae_nb.examples.images import decode_mask, encode_jpeg
from acae_nb.examples.rows import Example, InvalidExamples
from acae_nb.geometry.cameras import Camera

JOINTS = ["nose", "tail", "left_paw", "right_paw", "left_ear", "right_ear"]
EDGES = [["nose", "tail"], ["tail", "left_paw"], ["tail", "right_paw"]]
TURN = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
CAMERAS = {
    "a": dict(
        intrinsics=[[160, 0, 80], [0, 160, 60], [0, 0, 1]],
        rotation=TURN,
        position=[0, 300, 2600],
        world_up=[0, 1, 0],
        distortion=[-0.05, 0.01, 0, 0, 0],
    ),
    "b": dict(
        intrinsics=[[150, 0, 80], [0, 150, 60], [0, 0, 1]], rotation=TURN, position=[100, 300, 2900], world_up=[0, 1, 0]
    ),
}
SIZE = 160, 120


def poses(n=4):
    joints = np.random.default_rng(0).normal(0, 300, (n, 6, 3)) + [0, 300, 0]
    joints[1, 4] = np.nan
    return joints


def project(joints, name):
    "By hand: rotation, division, radial lens, focal length."
    c = CAMERAS[name]
    x, y, z = np.array(c["rotation"]) @ (joints - c["position"]).T
    x, y = x / z, y / z
    r2 = x * x + y * y
    k1, k2 = c.get("distortion", [0, 0])[:2]
    gain = 1 + k1 * r2 + k2 * r2 * r2
    return np.c_[
        c["intrinsics"][0][0] * x * gain + c["intrinsics"][0][2],
        c["intrinsics"][1][1] * y * gain + c["intrinsics"][1][2],
    ]


def pictures(root, n=4):
    (root / "images" / "day").mkdir(parents=True)
    for k in range(n):
        (root / "images" / "day" / f"{k}.jpg").write_bytes(
            encode_jpeg(np.full((SIZE[1], SIZE[0], 3), 40 * k, np.uint8))
        )


def write_table(root, flat=False, parquet=False, **change):
    pictures(root)
    (root / "skeleton.json").write_text(
        json.dumps(
            dict(
                name="dog_6", joints=JOINTS, edges=EDGES, mirror=[["left_paw", "right_paw"], ["left_ear", "right_ear"]]
            )
        ),
        encoding="utf-8",
    )
    (root / "cameras.json").write_text(json.dumps(CAMERAS), encoding="utf-8")
    lines = []
    for k, pose in enumerate(poses()):
        line = dict(
            image=f"day/{k}.jpg",
            camera="" if flat else "ab"[k % 2],
            subject=f"dog{k // 2}",
            sequence="run",
            frame=k,
            split="test" if k == 3 else "train",
        )
        values = project(pose, "ab"[k % 2]) if flat else pose
        line |= {
            f"{j}.{a}": None if np.isnan(v) else v for j, point in zip(JOINTS, values) for a, v in zip("xyz", point)
        }
        lines.append(line | ({"left": 10, "top": 20, "width": 100, "height": 90.5} if k == 2 else {}))
    table = pd.DataFrame(lines)
    for column, value in change.items():
        table[column] = value
    table.to_parquet(root / "examples.parquet") if parquet else table.to_csv(root / "examples.csv", index=False)
    return table


@pytest.mark.parametrize("parquet", [False, True])
def test_a_table_in_3d(parquet, tmp_path):
    write_table(tmp_path / "dogs", parquet=parquet)
    assert validate_folder(tmp_path / "dogs") == []
    skeleton, rows = open_source("own_table", tmp_path / "dogs")
    rows = list(rows)
    assert (
        skeleton.name == "dog_6"
        and skeleton.mirror == (0, 1, 3, 2, 5, 4)
        and skeleton.sides.tolist() == list("cclrlr")
        and [e.frame for e, _ in rows] == [0, 1, 2]
    )
    for (example, picture), pose, name in zip(rows, poses(), "aba"):
        np.testing.assert_allclose(example.joints3d, pose, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), project(pose, name), atol=0.1)
        assert (
            example.camera_name == name
            and example.image_size == SIZE == picture.size
            and example.dataset == "dogs"
            and example.subject == f"dog{example.frame // 2}"
        )
    assert rows[2][0].box.tolist() == [10, 20, 100, 90.5] and len(list(own_table.read(tmp_path / "dogs", "test"))) == 1
    px = project(poses()[0], "a")
    left, top, width, height = rows[0][0].box
    inside = px[((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)]
    assert (inside >= [left, top]).all() and (inside <= [left + width, top + height]).all()


def test_a_table_in_2d_needs_no_camera(tmp_path):
    write_table(tmp_path / "dogs", flat=True)
    (tmp_path / "dogs" / "cameras.json").unlink()
    rows = list(own_table.read(tmp_path / "dogs"))
    assert validate_folder(tmp_path / "dogs") == []
    for (example, _), pose, name in zip(rows, poses(), "aba"):
        np.testing.assert_allclose(example.joints2d, project(pose, name), atol=1e-3)
        assert example.joints3d is None and np.isnan(example.joints2d).any(1).sum() == (example.frame == 1)


def test_masks(tmp_path):
    import cv2

    write_table(tmp_path / "dogs", mask=["day/m.png", "", "", ""])
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[20:50, 30:90] = 255
    cv2.imwrite(str(tmp_path / "dogs" / "images" / "day" / "m.png"), mask)
    first = next(own_table.read(tmp_path / "dogs"))[0]
    assert (decode_mask(first.mask, SIZE) == (mask > 0)).all()
    cv2.imwrite(str(tmp_path / "dogs" / "images" / "day" / "m.png"), mask[:50])
    assert [p.field for p in validate_folder(tmp_path / "dogs")] == ["mask"]


def set_cell(row, column, value):
    def change(root):
        table = pd.read_csv(root / "examples.csv", dtype=str)
        table[column] = table.get(column, "")
        table.loc[row, column] = value
        table.to_csv(root / "examples.csv", index=False)

    return change


def rewrite(name, value):
    return lambda root: (root / name).write_text(
        value if isinstance(value, str) else json.dumps(value), encoding="utf-8"
    )


def drop(column):
    return lambda root: (
        pd.read_csv(root / "examples.csv", dtype=str).drop(columns=column).to_csv(root / "examples.csv", index=False)
    )


FAULTS = [
    (set_cell(1, "nose.x", "12,5"), (1, "nose.x")),
    (set_cell(2, "camera", "c"), (2, "camera")),
    (set_cell(2, "camera", ""), (2, "camera")),
    (set_cell(0, "image", "../day/0.jpg"), (0, "image")),
    (set_cell(0, "image", "day/9.jpg"), (0, "image")),
    (set_cell(0, "tail.y", ""), (0, "joints3d")),
    (set_cell(2, "width", "-4"), (2, "box")),
    (set_cell(1, "frame", "1.5"), (1, "frame")),
    (set_cell(0, "nose.x", "inf"), (0, "joints3d")),
    (set_cell(3, "weight", "-1"), (3, "weight")),
    (drop("nose.z"), (None, "nose.z")),
    (drop("image"), (None, "image")),
    (drop("camera"), (None, "camera")),
    (set_cell(0, "noze.x", "1"), (None, "noze.x")),
    (rewrite("cameras.json", "{"), (None, "file")),
    (rewrite("cameras.json", CAMERAS | {"b": {"intrinsics": [1, 2]}}), (None, "cameras/b")),
    (rewrite("skeleton.json", dict(name="dog", joints=JOINTS, edges=[["nose", "tale"]])), (None, "skeleton")),
    (rewrite("skeleton.json", "[]"), (None, "file")),
    (lambda root: (root / "skeleton.json").unlink(), (None, "file")),
    (rewrite("examples.csv", ""), (None, "file")),
    (lambda root: (root / "images/day/2.jpg").write_bytes(b"\xff\xd8"), (2, "image")),
    (lambda root: (root / "examples.csv").unlink(), (None, "file")),
    (lambda root: (root / "images/day/2.jpg").write_bytes((root / "images/day/2.jpg").read_bytes()[:-9]), (2, "image")),
]


@pytest.mark.parametrize("change, where", FAULTS)
def test_each_fault_is_found_with_row_and_field(change, where, tmp_path):
    write_table(tmp_path / "dogs")
    change(tmp_path / "dogs")
    problems = validate_folder(tmp_path / "dogs")
    assert where in [(p.row, p.field) for p in problems], [str(p) for p in problems]
    with pytest.raises((InvalidExamples, NativeError)):
        [*own_table.read(tmp_path / "dogs"), *own_table.read(tmp_path / "dogs", "test")]


def test_many_faults_at_once(tmp_path):
    write_table(tmp_path / "dogs")
    for change in (
        set_cell(0, "nose.x", "x"),
        set_cell(0, "tail.y", "y"),
        set_cell(1, "camera", "c"),
        set_cell(2, "image", "none.jpg"),
        set_cell(3, "extra", "1"),
    ):
        change(tmp_path / "dogs")
    assert [(p.row, p.field) for p in validate_folder(tmp_path / "dogs")] == [
        (None, "extra"),
        (0, "nose.x"),
        (0, "tail.y"),
        (1, "camera"),
        (2, "image"),
    ]


def test_metres_are_noticed(tmp_path):
    table = write_table(tmp_path / "dogs")
    axes = [c for c in table if c[-2:] in (".x", ".y", ".z")]
    table[axes] = table[axes].astype(float) / 1000
    table.to_csv(tmp_path / "dogs" / "examples.csv", index=False)
    problems = validate_folder(tmp_path / "dogs")
    assert [p.row for p in problems] == [0, 1, 2, 3] and all("metres" in p.found for p in problems)


def write_coco(root):
    pictures(root)
    (root / "annotations").mkdir()
    category = dict(
        id=7, name="dog_6", keypoints=JOINTS, skeleton=[[JOINTS.index(a) + 1, JOINTS.index(b) + 1] for a, b in EDGES]
    )
    for split, numbers in (("train", (0, 1, 2)), ("test", (3,))):
        images = [
            dict(
                id=10 + k,
                file_name=f"day/{k}.jpg",
                width=SIZE[0],
                height=SIZE[1],
                camera="ab"[k % 2],
                subject=f"dog{k // 2}",
                sequence="run",
                frame=k,
            )
            for k in numbers
        ]
        people = [
            dict(
                id=20 + k,
                image_id=10 + k,
                category_id=7,
                keypoints3d=[None if np.isnan(v) else v for v in poses()[k].ravel()],
                bbox=[10, 20, 100, 90],
            )
            for k in numbers
        ]
        people += [
            dict(id=90, image_id=10 + numbers[0], category_id=3),
            dict(id=91, image_id=10 + numbers[0], category_id=7, iscrowd=1),
        ]
        px = project(poses()[numbers[0]], "ab"[numbers[0] % 2])
        people.append(
            dict(
                id=92,
                image_id=10 + numbers[0],
                category_id=7,
                keypoints=np.c_[np.where(np.isnan(px), 0, px), [2, 1, 0, 2, 2, 2]].ravel().tolist(),
            )
        )
        (root / "annotations" / f"{split}.json").write_text(
            json.dumps(
                dict(images=images, annotations=people, categories=[dict(id=3, name="ball"), category], cameras=CAMERAS)
            ),
            encoding="utf-8",
        )


def test_coco_style(tmp_path):
    write_coco(tmp_path / "dogs")
    assert validate_folder(tmp_path / "dogs") == []
    skeleton, rows = open_source("own_coco", tmp_path / "dogs")
    rows = list(rows)
    assert (
        skeleton.joints == tuple(JOINTS)
        and skeleton.mirror == (0, 1, 3, 2, 5, 4)
        and [e.example_id for e, _ in rows]
        == ["train/day/0.jpg/20", "train/day/1.jpg/21", "train/day/2.jpg/22", "train/day/0.jpg/92"]
    )
    for (example, _picture), pose, name in zip(rows, poses(), "aba"):
        np.testing.assert_allclose(example.joints3d, pose, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), project(pose, name), atol=0.1)
        assert example.box.tolist() == [10, 20, 100, 90] and example.frame == int(example.example_id.split("/")[2][0])
    flat = rows[3][0]
    assert flat.joints3d is None and np.isnan(flat.joints2d[2]).all()
    np.testing.assert_allclose(flat.joints2d[[0, 1, 3]], project(poses()[0], "a")[[0, 1, 3]], atol=1e-3)


def edit(change):
    def do(root):
        path = root / "annotations" / "train.json"
        document = json.loads(path.read_text("utf-8"))
        change(document)
        path.write_text(json.dumps(document), encoding="utf-8")

    return do


COCO_FAULTS = [
    (edit(lambda d: d["annotations"][1].update(image_id=4)), (1, "annotations/1/image_id")),
    (edit(lambda d: d["annotations"][1].update(id=20)), (1, "annotations/1/id")),
    (edit(lambda d: d["annotations"][0].update(keypoints3d=[1, 2])), (0, "annotations/0/keypoints3d")),
    (edit(lambda d: d["annotations"][5].pop("keypoints")), (5, "annotations/5/keypoints")),
    (edit(lambda d: d["annotations"].__setitem__(3, 5)), (3, "annotations/3/id")),
    (edit(lambda d: d["annotations"][1].update(category_id="1")), (1, "annotations/1/category_id")),
    (edit(lambda d: d["annotations"][1].pop("category_id")), (1, "annotations/1/category_id")),
    (edit(lambda d: d["annotations"][1].update(iscrowd="0")), (1, "annotations/1/iscrowd")),
    (edit(lambda d: d["images"][1].pop("camera")), (1, "images/1/camera")),
    (edit(lambda d: d["images"][1].update(camera="c")), (1, "images/1/camera")),
    (edit(lambda d: d["images"][1].update(file_name="/etc/a.jpg")), (1, "images/1/file_name")),
    (edit(lambda d: d["images"][1].update(width=100)), (1, "images/1/width, height")),
    (edit(lambda d: d["images"][1].update(id=10)), (None, "images/1/id")),
    (edit(lambda d: d["categories"][1].update(keypoints=[])), (None, "categories")),
    (edit(lambda d: d["categories"][1].update(skeleton=[[0, 1]])), (None, "categories/1")),
    (edit(lambda d: d.pop("annotations")), (None, "annotations")),
    (edit(lambda d: d["cameras"]["a"].pop("intrinsics")), (None, "cameras/a")),
    (rewrite("annotations/train.json", "{]"), (None, "file")),
    (edit(lambda d: d["annotations"][2].update(bbox=[1, 2, 3])), (2, "annotations/2/bbox")),
    (lambda root: (root / "images/day/1.jpg").unlink(), (1, "image")),
]


@pytest.mark.parametrize("change, where", COCO_FAULTS)
def test_each_fault_of_a_coco_file_is_found(change, where, tmp_path):
    write_coco(tmp_path / "dogs")
    change(tmp_path / "dogs")
    problems = validate_folder(tmp_path / "dogs")
    assert where in [(p.row, p.field) for p in problems], [str(p) for p in problems]
    with pytest.raises((InvalidExamples, NativeError)):
        list(own_coco.read(tmp_path / "dogs"))


def test_folders_that_are_none(tmp_path):
    assert "no such folder" in str(validate_folder(tmp_path / "nowhere")[0]) and "none of them" in str(
        validate_folder(tmp_path)[0]
    )
    assert {"own_table", "own_coco"} <= set(native_formats()) and "own" not in native_formats()


def test_skeletons_of_ones_own():
    assert skeleton_from(dict(name="coco_17")).name == "coco_17" and category_skeleton(
        dict(name="x", keypoints=["hand_l", "hand_r", "mid"], skeleton=[])
    ).mirror == (1, 0, 2)
    assert [mirrored(n) for n in ("left_knee", "LeftFoot", "lknee", "hand.L", "nose", "right_knee")] == [
        "right_knee",
        "RightFoot",
        "rknee",
        "hand.R",
        None,
        None,
    ]
    for bad in (
        dict(name="x", joints=["a", "b"], mirror=[["a"]]),
        dict(name="x", joints=["a", "b"], edge=[]),
        dict(joints=["a"]),
        dict(name="x", joints=[1]),
    ):
        with pytest.raises(ValueError):
            skeleton_from(bad)


@pytest.mark.parametrize(
    "left, right",
    [
        ("heel_l", "heel_r"),
        ("small_toe_l", "small_toe_r"),
        ("ball.L", "ball.R"),
        ("l_heel", "r_heel"),
        ("L_Knee", "R_Knee"),
        ("upper_l_arm", "upper_r_arm"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("heel_left", "heel_right"),
    ],
)
def test_an_l_in_a_word_is_no_side(left, right):
    assert mirrored(left) == right and mirrored(right) is None
    assert category_skeleton(dict(name="x", keypoints=[left, "nose", right])).mirror == (2, 1, 0)


# ---- photographs that are stored turned (B1)
PATTERN = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
PATTERN[:60, :80], PATTERN[60:, 80:] = (220, 40, 40), (40, 220, 40)


def stored_turned(path, orientation):
    "A JPEG that Pillow shows as PATTERN, stored turned with this EXIF orientation."
    from PIL import Image

    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that the orientation undoes
    picture = Image.fromarray(PATTERN)
    if orientation != 1:
        picture = picture.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(path, quality=95, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_held_upright(tmp_path, orientation):
    import cv2
    from PIL import Image, ImageOps

    write_table(tmp_path / "table", flat=True, mask="day/m.png")
    write_coco(tmp_path / "coco")
    mask = PATTERN[..., 0] > 100
    cv2.imwrite(str(tmp_path / "table/images/day/m.png"), mask.astype(np.uint8) * 255)
    for name, reader in (("table", own_table), ("coco", own_coco)):
        photograph = tmp_path / name / "images/day/0.jpg"
        stored_turned(photograph, orientation)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(photograph)))
        assert abs(upright.astype(int) - PATTERN).mean() < 3
        assert validate_folder(tmp_path / name) == []
        example, picture = next(reader.read(tmp_path / name))
        assert example.image_size == picture.size == SIZE
        assert abs(picture.load().astype(int) - upright).max() <= 2  # two decoders of JPEG
        for data in (picture.jpeg(), encode_jpeg(picture.load())):
            assert abs(cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1].astype(int) - PATTERN).mean() < 4
        np.testing.assert_allclose(picture.load()[30, 40], PATTERN[30, 40], atol=8)
    first = next(own_table.read(tmp_path / "table"))[0]
    assert (decode_mask(first.mask, SIZE) == mask).all()


def test_sizes_of_a_coco_file_are_those_of_the_upright_picture(tmp_path):
    write_coco(tmp_path / "coco")
    stored_turned(tmp_path / "coco/images/day/0.jpg", 6)
    edit(lambda d: d["images"][0].update(width=SIZE[1], height=SIZE[0]))(tmp_path / "coco")
    [problem] = {(p.field, p.expected, p.found) for p in validate_folder(tmp_path / "coco")}
    assert problem == ("images/0/width, height", f"those of the upright picture, {SIZE}", f"{SIZE[::-1]}")


# ---- names that other systems write differently (B20)
@pytest.mark.parametrize(
    "change, where, hint",
    [
        (set_cell(0, "image", "day\\0.jpg"), (0, "image"), "did you mean 'day/0.jpg'?"),
        (set_cell(0, "image", "Day/0.JPG"), (0, "image"), "did you mean 'day/0.jpg'?"),
        (
            set_cell(0, "image", "day/u\u0308ber.jpg"),
            (0, "image"),
            "'day/\u00fcber.jpg', the same letters in other code points",
        ),
        (set_cell(0, "mask", "DAY\\0.jpg"), (0, "mask"), "did you mean 'day/0.jpg'?"),
        (set_cell(2, "camera", "A"), (2, "camera"), "did you mean 'a'?"),
        (set_cell(0, "Nose.X", "1"), (None, "Nose.X"), "did you mean 'nose.x'?"),
        (set_cell(0, "image", "night/0.jpg"), (0, "image"), ""),
    ],
)
def test_names_of_other_systems_get_a_hint(tmp_path, change, where, hint):
    write_table(tmp_path / "dogs")
    (tmp_path / "dogs/images/day/\u00fcber.jpg").write_bytes(encode_jpeg(PATTERN))
    change(tmp_path / "dogs")
    messages = [str(p) for p in validate_folder(tmp_path / "dogs") if (p.row, p.field) == where]
    assert len(messages) == 1 and hint in messages[0] and (hint or "did you mean" not in messages[0])


@pytest.mark.parametrize("separator, name", [(";", "semicolons"), ("\t", "tabs")])
def test_tables_with_other_separators_are_named(tmp_path, separator, name):
    table = write_table(tmp_path / "dogs")
    table.to_csv(tmp_path / "dogs/examples.csv", index=False, sep=separator, decimal=",")
    [problem] = validate_folder(tmp_path / "dogs")
    assert problem.field == "file" and "commas" in problem.expected and problem.found.startswith(name)


@pytest.mark.parametrize(
    "place, found",
    [
        ((0, 0, 3000), None),
        ((4500, 0, 3000), "beyond what its lens shows"),  # B5: the polynomial turns, 4500 comes back to 1246 px
        ((0, 0, -3000), "behind the camera"),
        ((0, 2500, 3000), "them at"),
    ],
)
def test_people_whom_the_camera_does_not_see(place, found):
    camera = Camera([[900, 0, 640], [0, 900, 360], [0, 0, 1]], [-0.35, 0, 0, 0])
    joints = np.random.default_rng(0).normal(0, 100, (17, 3)) + place
    box = np.array([600.0, 300, 100, 200])
    example = Example("a", "d", "train", "", "", 0, camera, box, (1280, 720), joints)
    problems = list(row_problems("examples.csv", 0, example, 17))
    assert [found in p.found and p.field == "joints3d" for p in problems] == ([True] if found else [])


def test_the_example_of_the_guide_is_right(tmp_path):
    guide = (REPO / "docs/guides/own_data.md").read_text("utf-8")
    blocks = re.findall(r"```(?:text|json)\n(.+?)```", guide, re.S)
    for name, text in zip(("examples.csv", "skeleton.json", "cameras.json"), blocks, strict=True):
        (tmp_path / name).write_text(text)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(encode_jpeg(np.zeros((1080, 1920, 3), np.uint8)))
    assert validate_folder(tmp_path) == []
    [(example, _)] = own_table.read(tmp_path)
    px = example.camera.project(example.joints3d)
    assert px[0, 0] < px[1, 0] and np.isnan(px[2]).all()  # who looks at the camera has the left hip on the right
