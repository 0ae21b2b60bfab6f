"""MPII Human Pose: a tiny RELEASE structure as the data set's page describes it, read back, and harmed."""

import cv2
import numpy as np
import pytest
import scipy.io
from mutations import check_mutations

from acae_nb.datasets import mpii
from acae_nb.datasets.native_files import NativeError

SIZE = 64, 48
# id in the file -> index; the page of the data set lists 0 r ankle ... 15 l wrist
IMAGES = {
    "015601864.jpg": (1, [(range(16), 1), ((0, 1, 2, 9, 12), 2)]),
    "005808361.jpg": (1, [((5, 6), 3), (None, 4)]),
    "037454012.jpg": (0, [(None, 5)]),
    "086617615.jpg": (1, []),
}


def person(seed):
    "Places counted from 1, as MATLAB does."
    return np.random.default_rng(seed).uniform((5, 5), (SIZE[0] - 5, SIZE[1] - 5), (16, 2)).round(1)


def struct(entries):
    "A 1 x N struct array whose elements may hold anything."
    out = np.zeros((1, len(entries)), [(name, object) for name in entries[0]])
    for k, entry in enumerate(entries):
        out[0, k] = tuple(entry.values())
    return out


def release(images=IMAGES):
    annolist, single = [], []
    for _number, (name, (_train, people)) in enumerate(images.items()):
        rects = []
        for joints, seed in people:
            rect = dict(
                x1=1.0,
                y1=2.0,
                x2=3.0,
                y2=4.0,
                annopoints=np.zeros((0, 0)),
                scale=1.5,
                objpos=struct([dict(x=30.0, y=20.0)]),
            )
            if joints is not None:
                points = [
                    dict(
                        x=person(seed)[j, 0],
                        y=person(seed)[j, 1],
                        id=float(j),
                        is_visible=np.zeros((0, 0)) if j == 9 else str(j % 2) if seed == 1 else float(j % 2),
                    )
                    for j in joints
                ]
                rect["annopoints"] = struct([dict(point=struct(points))])
            rects.append(rect)
        annolist.append(
            dict(
                image=struct([dict(name=name)]),
                annorect=struct(rects) if rects else np.zeros((0, 0)),
                frame_sec=np.zeros((0, 0)),
                vidx=np.zeros((0, 0)),
            )
        )
        single.append(np.arange(1, len(people) + 1, dtype=float)[:, None])
    cells = np.empty((len(images), 1), object)
    cells[:, 0] = single
    return dict(
        RELEASE=struct(
            [
                dict(
                    annolist=struct(annolist),
                    img_train=np.array([[float(v[0]) for v in images.values()]]),
                    version="12",
                    single_person=cells,
                )
            ]
        )
    )


def write(root, content=release):
    (root / "images").mkdir(parents=True)
    for k, name in enumerate(IMAGES):
        cv2.imwrite(str(root / "images" / name), np.full((SIZE[1], SIZE[0], 3), 40 * k + 20, np.uint8))
    scipy.io.savemat(root / "mpii_human_pose_v1_u12_1.mat", content())


def read(root):
    return list(mpii.read(root))


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = read(tmp_path)
    assert [e.example_id for e, _ in rows] == ["015601864/0", "015601864/1", "005808361/0"]
    for (example, picture), (joints, seed), level in zip(
        rows, ((range(16), 1), ((0, 1, 2, 9, 12), 2), ((5, 6), 3)), (20, 20, 60)
    ):
        expected = np.full((16, 2), np.nan)
        expected[list(joints)] = person(seed)[list(joints)] - 1
        np.testing.assert_allclose(example.joints2d, expected, atol=0.05)
        seen = expected[list(joints)]
        left, top, width, height = example.box
        assert (
            left <= seen[:, 0].min()
            and left + width >= seen[:, 0].max()
            and top <= seen[:, 1].min()
            and top + height >= seen[:, 1].max()
            and width > 0
            and height > 0
        )
        assert (
            example.split == "train"
            and example.joints3d is None
            and example.image_size == SIZE == picture.size
            and abs(picture.load().mean() - level) < 2
        )


def test_people_without_marks_and_test_images_are_left_out(tmp_path):
    write(tmp_path)
    assert {e.example_id.split("/")[0] for e, _ in read(tmp_path)} == {"015601864", "005808361"}
    with pytest.raises(ValueError, match="split.*'test'"):
        next(mpii.read(tmp_path, "test"))


@pytest.mark.parametrize(
    "edit, words",
    [
        (
            lambda r: r["annolist"][0, 0]["annorect"][0, 0]["annopoints"][0, 0]["point"][0, 3].__setitem__("id", 16.0),
            ["id", "16"],
        ),
        (
            lambda r: r["annolist"][0, 0]["annorect"][0, 0]["annopoints"][0, 0]["point"][0, 3].__setitem__("id", 2.0),
            ["id", "2"],
        ),
        (
            lambda r: r["annolist"][0, 0]["annorect"][0, 0]["annopoints"][0, 0]["point"][0, 3].__setitem__("x", np.nan),
            ["finite", "nan"],
        ),
        (lambda r: r["annolist"][0, 0]["image"][0, 0].__setitem__("name", "gone.jpg"), ["gone.jpg"]),
        (lambda r: r["annolist"][0, 0]["image"][0, 0].__setitem__("name", "../x.jpg"), ["name", "../x.jpg"]),
        (lambda r: r.__setitem__("img_train", np.ones((1, 3))), ["img_train", "4", "3"]),
        (lambda r: r["img_train"].__setitem__((0, 0), 2), ["img_train"]),
    ],
)
def test_errors_name_file_and_field(tmp_path, edit, words):
    def content():
        data = release()
        edit(data["RELEASE"][0, 0])
        return data

    write(tmp_path, content)
    with pytest.raises(NativeError) as e:
        read(tmp_path)
    assert all(w in str(e.value) for w in words) and (
        "gone" in words[0] or "mpii_human_pose_v1_u12_1.mat" in str(e.value)
    ), e.value


def test_absent_data_is_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="mpii_human_pose.*MPII"):
        next(mpii.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
