"""COCO keypoints: a tiny data set as cocodataset.org describes it ("Data format": person_keypoints JSON), written here,
read back, and harmed."""

import json

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import coco
from acae_nb.datasets.native_files import NativeError

NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()
SIZE = 64, 48


def person(seed):
    return np.random.default_rng(seed).uniform((5, 5), (SIZE[0] - 6, SIZE[1] - 6), (17, 2)).round(1)


def annotation(number, image, seed, missing=(), **other):
    xy = person(seed)
    triples = [[*xy[j].tolist(), 1 + (j + number) % 2] if j not in missing else [0, 0, 0] for j in range(17)]
    left, top = xy.min(0) - 3
    right, bottom = xy.max(0) + 3
    entry = dict(
        id=number,
        image_id=image,
        category_id=1,
        iscrowd=0,
        area=float((right - left) * (bottom - top)),
        segmentation=[[left, top, right, top, right, bottom]],
        bbox=[round(float(v), 2) for v in (left, top, right - left, bottom - top)],
        keypoints=sum(triples, []),
        num_keypoints=17 - len(missing),
    )
    return entry | other


def write(root):
    (root / "annotations").mkdir(parents=True)
    contents = {
        "train2017": (
            [9, 139],
            [
                annotation(31, 139, 0),
                annotation(12, 9, 1, missing=(3, 4, 16)),
                annotation(11, 9, 2),
                annotation(13, 9, 3, missing=range(17)),
                annotation(900100000139, 139, 4, iscrowd=1, segmentation=dict(counts=[1, 2], size=[48, 64])),
            ],
        ),
        "val2017": ([285], [annotation(77, 285, 5, missing=(0,))]),
    }
    for part, (images, annotations) in contents.items():
        (root / part).mkdir()
        for i in images:
            pixels = np.random.default_rng(i).integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
            cv2.imwrite(str(root / part / f"{i:012d}.jpg"), cv2.resize(pixels, SIZE))
        document = dict(
            info={},
            licenses=[],
            images=[dict(id=i, file_name=f"{i:012d}.jpg", width=SIZE[0], height=SIZE[1], license=1) for i in images],
            annotations=annotations,
            categories=[dict(id=1, name="person", supercategory="person", keypoints=NAMES, skeleton=[[16, 14]])],
        )
        (root / "annotations" / f"person_keypoints_{part}.json").write_text(json.dumps(document), encoding="utf-8")


def read(root):
    return list(coco.read(root)) + list(coco.read(root, "validation"))


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = list(coco.read(tmp_path, "train"))
    assert [e.example_id for e, _ in rows] == [
        "train2017/000000000009/11",
        "train2017/000000000009/12",
        "train2017/000000000139/31",
    ]
    for (example, picture), seed, missing in zip(rows, (2, 1, 0), ((), (3, 4, 16), ())):
        assert (
            example.split == "train"
            and example.dataset == "coco"
            and example.joints3d is None
            and example.image_size == SIZE == picture.size
        )
        expected = person(seed)
        expected[list(missing)] = np.nan
        np.testing.assert_allclose(example.joints2d, expected, atol=0.05)
        left, top = person(seed).min(0) - 3
        right, bottom = person(seed).max(0) + 3
        np.testing.assert_allclose(example.box, [left, top, right - left, bottom - top], atol=0.01)
        assert picture.load().shape == (48, 64, 3) and picture.load().dtype == np.uint8
        assert picture.jpeg() == (tmp_path / "train2017" / f"{example.frame:012d}.jpg").read_bytes()
    [(example, _)] = coco.read(tmp_path, "validation")
    assert example.split == "validation" and np.isnan(example.joints2d).any(1).nonzero()[0].tolist() == [0]


def test_the_release_of_2014(tmp_path):
    "The same form; folders train2014 and val2014, names COCO_train2014_000000000009.jpg."
    write(tmp_path)
    for part in ("train", "val"):
        (tmp_path / f"{part}2017").rename(tmp_path / f"{part}2014")
        document = json.loads((old := tmp_path / f"annotations/person_keypoints_{part}2017.json").read_text("utf-8"))
        for image in document["images"]:
            name = f"COCO_{part}2014_{image['file_name']}"
            (tmp_path / f"{part}2014" / image["file_name"]).rename(tmp_path / f"{part}2014" / name)
            image["file_name"] = name
        old.with_name(f"person_keypoints_{part}2014.json").write_text(json.dumps(document), encoding="utf-8")
        old.unlink()
    rows = list(coco.read(tmp_path, year=2014))
    assert [e.example_id for e, _ in rows] == [
        f"train2014/COCO_train2014_000000000{i}" for i in ("009/11", "009/12", "139/31")
    ]
    assert len(list(coco.read(tmp_path, "validation", 2014))) == 1 and rows[0][1].size == SIZE
    with pytest.raises(NativeError, match="train2017.json"):
        next(coco.read(tmp_path))
    with pytest.raises(ValueError, match="2015"):
        next(coco.read(tmp_path, year=2015))


def test_the_invented_camera_is_far_away_and_upright(tmp_path):
    write(tmp_path)
    camera = next(coco.read(tmp_path))[0].camera
    middle, right = camera.project(np.array([[0, 0, 10000.0], [10000 * np.tan(np.deg2rad(4)), 0, 10000]]))
    np.testing.assert_allclose(middle, [31.5, 23.5])
    np.testing.assert_allclose(right, [63.5, 23.5], atol=1e-6)
    assert camera.project(camera.world_up * 100 + [0, 0, 10000])[1] < 23.5


def change(root, edit):
    path = root / "annotations" / "person_keypoints_train2017.json"
    document = json.loads(path.read_text("utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda d: d["categories"][0]["keypoints"].reverse(), ["keypoints", "nose"]),
        (lambda d: d["annotations"][0].update(image_id=4), ["image_id", "31"]),
        (lambda d: d["annotations"][0]["keypoints"].append(1), ["keypoints", "51"]),
        (lambda d: d["annotations"][0].update(num_keypoints=3), ["num_keypoints", "3", "17"]),
        (lambda d: d["annotations"][0].update(bbox=[1, 2, 0, 4]), ["box"]),
        (lambda d: d["annotations"][0]["keypoints"].__setitem__(2, 7), ["keypoints", "7"]),
        (lambda d: d["images"][0].update(width=65), ["width", "65", "64"]),
        (lambda d: d["images"][0].update(file_name="../annotations/x.jpg"), ["file_name"]),
        (lambda d: d["images"][0].update(file_name="gone.jpg"), ["gone.jpg"]),
        (lambda d: d.pop("annotations"), ["annotations"]),
        (lambda d: d["annotations"].__setitem__(1, 3), ["annotations"]),
        (lambda d: d["annotations"][0].update(iscrowd="no"), ["iscrowd"]),
        (lambda d: d["annotations"][0].update(id=11), ["id", "11"]),
    ],
)
def test_errors_name_file_and_field(tmp_path, edit, words):
    write(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(NativeError) as e:
        list(coco.read(tmp_path))
    assert all(w in str(e.value) for w in [*words, "json" if words != ["gone.jpg"] else "gone"]), e.value


def test_absent_data_and_unknown_splits_are_refused(tmp_path):
    with pytest.raises(NativeError, match="person_keypoints_train2017.json.*COCO"):
        next(coco.read(tmp_path))
    with pytest.raises(ValueError, match="split.*'test'"):
        next(coco.read(tmp_path, "test"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
