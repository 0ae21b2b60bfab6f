"""PoseTrack: two tiny videos as the owners' dataset_structure.md describes them (COCO-like JSON a video), read back,
and harmed."""

import json

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import posetrack
from acae_nb.datasets.native_files import NativeError

NAMES = (
    "nose head_bottom head_top left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
).split()
SIZE = 64, 48
EARS = [3, 4]
VIDEOS = {
    ("train", "000001_bonn"): [(1, 1, ()), (0, 7, ()), (0, 2, (0, 16)), (1, 7, range(17))],
    ("train", "024159_mpii"): [(0, 0, (5,))],
    ("val", "000522_mpii"): [(1, 0, ())],
}


def person(name, frame, track):
    xy = (
        np.random.default_rng([int(name[:6]), frame, track])
        .uniform((5, 5), (SIZE[0] - 6, SIZE[1] - 6), (17, 2))
        .round(2)
    )
    xy[EARS] = np.nan
    return xy


def write(root, labels="posetrack_data/annotations"):
    for (part, name), people in VIDEOS.items():
        video = f"{name}_{part}"
        number = int(name[:6])
        (root / labels / part).mkdir(parents=True, exist_ok=True)
        (root / "images" / part / video).mkdir(parents=True)
        images, annotations = [], []
        for t in range(2):
            file = f"images/{part}/{video}/{t:06d}.jpg"
            cv2.imwrite(str(root / file), np.full((SIZE[1], SIZE[0], 3), 90 * t + 40, np.uint8))
            images.append(
                dict(
                    id=10000000000 + number * 10000 + t,
                    frame_id=10000000000 + number * 10000 + t,
                    file_name=file,
                    vid_id=name[:6],
                    nframes=2,
                    is_labeled=True,
                    has_no_densepose=True,
                )
            )
        for k, (t, track, missing) in enumerate(people):
            xy = person(name, t, track)
            triples = [[*xy[j].tolist(), 1] if j not in missing and j not in EARS else [0, 0, 0] for j in range(17)]
            entry = dict(
                id=k,
                image_id=images[t]["id"],
                track_id=track,
                person_id=track,
                category_id=1,
                scores=[],
                keypoints=sum(triples, []),
                bbox_head=[1, 2, 3, 4],
                bbox=[4.5, 3, 50, 40.25],
            )
            if track == 2:
                del entry["bbox"]  # such people are left out
            annotations.append(entry)
        document = dict(
            images=images,
            annotations=annotations,
            categories=[dict(id=1, name="person", supercategory="person", keypoints=NAMES, skeleton=[[16, 14]])],
        )
        (root / labels / part / f"{video}.json").write_text(json.dumps(document), encoding="utf-8")


def read(root):
    return [*posetrack.read(root, "train"), *posetrack.read(root, "validation")]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = read(tmp_path)
    assert [e.example_id for e, _ in rows] == [
        "000001_bonn_train/000000/7",
        "000001_bonn_train/000001/1",
        "024159_mpii_train/000000/0",
        "000522_mpii_val/000001/0",
    ]
    for example, picture in rows:
        video, frame, track = example.example_id.split("/")
        name = video.rsplit("_", 1)[0]
        expected = person(name, int(frame), int(track))
        expected[
            [
                j
                for (p, n), people in VIDEOS.items()
                if n == name
                for t, i, missing in people
                if (t, i) == (int(frame), int(track))
                for j in missing
            ]
        ] = np.nan
        np.testing.assert_allclose(example.joints2d, expected, atol=0.05)
        np.testing.assert_allclose(example.box, [4.5, 3, 50, 40.25])
        assert (example.frame, example.sequence, example.split) == (
            int(frame),
            video,
            "validation" if video.endswith("val") else "train",
        )
        assert picture.size == SIZE == example.image_size and abs(picture.load().mean() - (90 * int(frame) + 40)) < 2


def test_posetrack21_has_another_folder(tmp_path):
    write(tmp_path, "posetrack_data")
    assert len(list(posetrack.read(tmp_path, labels="posetrack_data"))) == 3
    with pytest.raises(NativeError, match="(?s)posetrack_data/annotations/train.*PoseTrack"):
        next(posetrack.read(tmp_path))


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda d: d["categories"][0]["keypoints"].reverse(), ["keypoints", "nose"]),
        (lambda d: d["annotations"][1]["keypoints"].pop(), ["annotations/1/keypoints", "51"]),
        (lambda d: d["annotations"][1]["keypoints"].__setitem__(2, 0.5), ["annotations/1/keypoints"]),
        (lambda d: d["annotations"][1].update(image_id=5), ["annotations/1/image_id", "5"]),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3]), ["bbox"]),
        (lambda d: d["images"][0].update(file_name="/etc/passwd"), ["file_name", "passwd"]),
        (lambda d: d["images"][0].update(file_name="images/train/x/first.jpg"), ["file_name", "first"]),
        (lambda d: d.pop("images"), ["images"]),
    ],
)
def test_errors_name_file_and_field(tmp_path, edit, words):
    write(tmp_path)
    path = tmp_path / "posetrack_data/annotations/train/000001_bonn_train.json"
    document = json.loads(path.read_text("utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(NativeError) as e:
        list(posetrack.read(tmp_path))
    assert all(w in str(e.value) for w in ["000001_bonn_train.json", *words]), e.value


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
