"""JTA: two tiny sequences in the layout of the owners' README (rows of ten numbers, one video a sequence), read back,
and harmed."""

import json

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import jta
from acae_nb.datasets.native_files import NativeError

K = np.array([[1158.0, 0, 960], [0, 1158, 540], [0, 0, 1]])  # the owners' README: of the 2D joints
SEEN = np.diag([1167 / 1158, 1167 / 1158, 1]) @ K + [
    [0, 0, 960 - 960 * 1167 / 1158],
    [0, 0, 540 - 540 * 1167 / 1158],
    [0, 0, 0],
]  # of the pictures (issue 13)
NECK, RIGHT_WRIST, ANKLES = 2, 6, (18, 21)
SEQUENCES = {
    ("train", "seq_7"): (2, {3: (1, 2), 40: (1, 2)}),
    ("train", "seq_42"): (1, {5: (1,)}),
    ("val", "seq_300"): (1, {0: (1,)}),
}  # frames, person: frames it is in


def joints(sequence, person, frame):
    "Camera frame, metres, whole millimetres."
    rng = np.random.default_rng([int(sequence[4:]), person])
    body = rng.normal(0, 0.3, (22, 3))
    body[NECK] = [0, -0.6, 0]
    body[list(ANKLES)] = [[-0.1, 0.8, 0.05], [0.1, 0.8, -0.05]]
    return (body + [person / 20 - 1, 0.1, 8 + 0.2 * frame]).round(3)


def hidden(person, frame):
    return np.array([(j + person + frame) % 4 == 0 for j in range(22)])


def write(root):
    for (split, name), (frames, people) in SEQUENCES.items():
        for folder in ("annotations", "videos"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        rows = []
        for person, when in people.items():
            for t in when:
                xyz, occluded = joints(name, person, t), hidden(person, t)
                px = (xyz / xyz[:, 2:]) @ K.T
                rows += [
                    [t, person, j, round(px[j, 0], 2), round(px[j, 1], 2), *xyz[j].tolist(), int(occluded[j]), 0]
                    for j in range(22)
                    if not (person == 40 and t == 2 and j == RIGHT_WRIST)
                ]  # a joint without a row
        if name == "seq_7":  # one behind the camera, one wholly hidden: nobody sees them
            rows += [[1, 50, j, 0.0, 0.0, 0.1, 0.2, -3.0, 0, 0] for j in range(22)] + [
                [1, 51, j, 960.0, 540.0, 0.0, 0.0, 5.0, 1, 0] for j in range(22)
            ]
        np.random.default_rng(1).shuffle(rows)
        (root / "annotations" / split / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        video = cv2.VideoWriter(
            str(root / "videos" / split / f"{name}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (1920, 1080)
        )
        for t in range(frames):
            video.write(np.full((1080, 1920, 3), 50 + 80 * t, np.uint8))
        video.release()


def read(root):
    return [*jta.read(root, "train"), *jta.read(root, "validation")]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = read(tmp_path)
    assert [e.example_id for e, _ in rows] == [
        "seq_42/001/5",
        "seq_7/001/3",
        "seq_7/001/40",
        "seq_7/002/3",
        "seq_7/002/40",
        "seq_300/001/0",
    ]
    for example, picture in rows:
        name, frame, person = example.example_id.split("/")
        frame, person = int(frame), int(person)
        xyz = joints(name, person, frame)
        if (person, frame) == (40, 2):
            xyz[RIGHT_WRIST] = np.nan
        np.testing.assert_allclose(example.joints3d, xyz * 1000, atol=0.01)
        px = ((xyz / xyz[:, 2:]) @ SEEN.T)[:, :2]
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        seen = px[~hidden(person, frame) & np.isfinite(px).all(1)]
        left, top, width, height = example.box
        assert (
            (left <= seen[:, 0]).all()
            and (seen[:, 0] <= left + width).all()
            and (top <= seen[:, 1]).all()
            and (seen[:, 1] <= top + height).all()
            and width < 2 * np.ptp(seen[:, 0])
        )
        assert (
            example.split == ("validation" if name == "seq_300" else "train")
            and example.frame == frame
            and picture.size == (1920, 1080) == example.image_size
        )
        assert abs(picture.load().mean() - (50 + 80 * (frame - 1))) < 4
        up = xyz[NECK] - xyz[list(ANKLES)].mean(0)
        np.testing.assert_allclose(example.camera.world_up, up / np.linalg.norm(up), atol=0.02)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda rows: rows.append(rows[0]), ["two for"]),
        (lambda rows: rows[3].__setitem__(2, 22), ["row 3", "22"]),
        (lambda rows: rows[3].__setitem__(0, 0), ["row 3", "frame"]),
        (lambda rows: rows[3].append(1), ["rows"]),
        (lambda rows: rows[3].__setitem__(7, "near"), ["rows"]),
        (lambda rows: [r.__setitem__(0, 9) for r in rows if r[0] == 2], ["seq_7.mp4", "frames"]),
        (lambda rows: [r.__setitem__(3, r[3] + 20) for r in rows], ["px"]),
        (lambda rows: rows.clear(), ["rows"]),
    ],
)
def test_errors_name_file_and_row(tmp_path, edit, words):
    write(tmp_path)
    path = tmp_path / "annotations/train/seq_7.json"
    rows = json.loads(path.read_text("utf-8"))
    edit(rows)
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(NativeError) as e:
        list(jta.read(tmp_path))
    assert all(w in str(e.value) for w in ["seq_7", *words]), e.value


def test_absent_data_is_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="annotations/train.*JTA"):
        next(jta.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
