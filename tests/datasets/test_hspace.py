"""HSPACE: two tiny sequences as TFRecords of tf.train.Example, written here, read back, and damaged."""

import struct

import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import people, picture, shows

from acae_nb.datasets import hspace
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

SIZE = (80, 60)
# PosePile's order of GHUM's 63 joints and the 35 it keeps
FINGERS = [f"{f}{k}" for f in ("index", "middle", "ring", "pinkie") for k in "123"] + ["thu1", "thu2", "thu"]
NAMES = (
    "pelv spin1 spin2 spin3 neck head head2 lbrow1 lbrow2 rbrow1 rbrow2 lbrow3 rbrow3 lcla lsho lelb lwri".split()
    + ["l" + f for f in FINGERS]
    + "rcla rsho relb rwri".split()
    + ["r" + f for f in FINGERS]
    + "lhip lkne lank lhee lfoo ltoe rhip rkne rank rhee rfoo rtoe".split()
)
KEPT = (
    "pelv spin1 spin2 spin3 neck head head2 lbrow1 rbrow1 lcla lsho lelb lwri lmiddle1 lmiddle3 lthu "
    "rcla rsho relb rwri rmiddle1 rmiddle3 rthu "
    "lhip lkne lank lhee lfoo ltoe "
    "rhip rkne rank rhee rfoo rtoe"
).split()
TABLE = [0] * 256
for n in range(256):
    c = n
    for _ in range(8):
        c = (c >> 1) ^ 0x82F63B78 if c & 1 else c >> 1
    TABLE[n] = c


def masked_crc(data):
    c = 0xFFFFFFFF
    for b in data:
        c = TABLE[(c ^ b) & 255] ^ (c >> 8)
    c ^= 0xFFFFFFFF
    return ((c >> 15 | (c & 0x7FFF) << 17) + 0xA282EAD8) % 2**32


def number(v):
    out = b""
    while v > 127:
        out, v = out + bytes([v % 128 + 128]), v // 128
    return out + bytes([v])


def part(field, data):
    return number(field * 8 + 2) + number(len(data)) + data


def example(features):
    "Features{ map<string, Feature> }: a Feature is bytes_list (1), float_list (2) or int64_list (3), numbers packed."
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            body = part(1, part(1, value))
        elif isinstance(value, int):
            body = part(3, part(1, number(value)))
        else:
            body = part(2, part(1, np.asarray(value, "<f4").tobytes()))
        entries += part(1, part(1, name.encode()) + part(2, body))
    return part(1, entries)


def write(root):
    "2021_01/train/NAME.tfrecord: length, crc, bytes, crc; metres in the camera's frame; pictures stored blue first."
    truth = {}
    for s, name in enumerate(("scene_000", "scene_007")):
        path = root / f"2021_01/train/{name}.tfrecord"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            for index in range(2):
                K = [70.0 + s, 71, 40, 29]
                labels, features = (
                    np.zeros(SIZE[::-1], np.uint8),
                    dict(camera_intrinsics=K, number_of_rigged_characters=3),
                )
                for p in range(3):
                    seen = people(100 * s + 10 * index + p, n_joints=63, up=1) * [1, -1, 1] + [700 * p - 500, 900, 3500]
                    if p == 1 and index:
                        seen[NAMES.index("lwri")] = np.nan
                    features[f"RIGGED_{p}/joints_3d"], features[f"RIGGED_{p}/mask_id"] = seen.ravel() / 1000, 2 * p + 2
                    if p < 2:  # the third is hidden
                        labels[10:50, 10 + 30 * p : 30 + 30 * p] = 2 * p + 2
                        labels[50:55, 10 + 30 * p : 30 + 30 * p] = 2 * p + 1
                        labels[5, 70] = 2 * p + 2  # a speck
                        joints = seen[[NAMES.index(n) for n in KEPT]]
                        px = joints[:, :2] / joints[:, 2:] * K[:2] + K[2:]
                        truth[f"{name}/{index:06d}/{p}"] = (
                            joints,
                            px,
                            [9.5 + 30 * p, 9.5, 20, 45],
                            index + 3 * s,
                            labels,
                        )
                features["image/rgb"] = cv2.imencode(".png", picture(index + 3 * s, SIZE))[
                    1
                ].tobytes()  # red where a PNG has blue
                features["character_masks"] = cv2.imencode(".png", labels)[1].tobytes()
                data = example(features)
                file.write(
                    struct.pack("<Q", len(data))
                    + struct.pack("<I", masked_crc(struct.pack("<Q", len(data))))
                    + data
                    + struct.pack("<I", masked_crc(data))
                )
    return truth


def test_reads_what_was_written(tmp_path):
    truth, rows = write(tmp_path), list(hspace.read(tmp_path))
    assert [e.example_id for e, _ in rows] == list(truth) and len(rows) == 8
    for e, image in rows:
        joints, px, box, number, labels = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, image.size, e.box.tolist()) == (
            "hspace",
            "train",
            SIZE,
            SIZE,
            box,
        ) and shows(image.load(), number)
        assert (decode_mask(e.mask, SIZE) == (labels > 0)).all() and image.jpeg()[:2] == b"\xff\xd8"


def test_numbers_of_several_kinds(tmp_path):
    data = part(
        1,
        b"".join(
            part(1, part(1, k) + part(2, v))
            for k, v in (
                (b"a", part(3, part(1, number(2**64 - 5) + number(300)))),
                (b"b", part(1, part(1, b"xyz"))),
                (b"c", part(2, part(1, struct.pack("<2f", 1, 2)))),
            )
        ),
    )
    features = hspace.read_example(tmp_path / __file__, 100, memoryview(data))
    assert (
        features["a"].tolist() == [-5, 300]
        and features["c"].tolist() == [1, 2]
        and bytes(data[features["b"][0] - 100 : features["b"][1] - 100]) == b"xyz"
    )


@pytest.mark.parametrize(
    "at, words",
    [(3, "byte 0: expected the length of a record"), (9, "byte 0: expected the length of a record"), (30, "tfrecord")],
)
def test_damaged_bytes(tmp_path, at, words):
    write(tmp_path)
    path = tmp_path / "2021_01/train/scene_000.tfrecord"
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)
    with pytest.raises(NativeError, match=words):
        list(hspace.read(tmp_path))


def test_absent(tmp_path):
    with pytest.raises(NativeError, match="HSPACE.*google-research/hspace"):
        next(hspace.read(tmp_path / "none"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: hspace.read(root), tmp_path, n=200 if nightly else 10)
