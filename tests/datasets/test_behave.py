"""BEHAVE: a tiny set of sequences in the owners' layout, written here, read back, and damaged."""

import json

import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_image

from acae_nb.datasets import behave
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

SIZE = (80, 60)
LENS = [0.4, -2.2, 0.0005, -0.0002, 1.3, 0.3, -2.0, 1.2]  # k1 k2 p1 p2 k3 k4 k5 k6
SEQUENCES = {"Date01_Sub01_boxlarge_hand": "train", "Date02_Sub02_yogaball": "train", "Date03_Sub03_stool_move": "test"}


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def write(root):
    """kinect_transform.py and frame_data.py of the owners: rotation and translation carry the camera's frame to the
    world, metres; 25 x (x y z score)."""
    truth = {}
    save(
        root / "split.json",
        {s: [n for n, of in SEQUENCES.items() if of == s] + ["Date09_Sub09_notfetched"] for s in ("train", "test")},
    )
    for i, (name, split) in enumerate(SEQUENCES.items()):
        folder, date = root / "sequences" / name, name.split("_")[0]
        kinects = [0, 2]
        save(
            folder / "info.json",
            dict(
                config=f"../../calibs/{date}/config",
                intrinsic="../../calibs/intrinsics",
                cat="x",
                gender="female",
                empty=None,
                kinects=kinects,
                beta=None,
            ),
        )
        places, turns = ring(2, 2500.0, 0.0, target=(0, 0, 0), up=(0, -1, 0), turn=i)
        cameras = {}
        for k, place, turn in zip(kinects, places + [0, 0, 2500], turns):
            opencv = [0, 0, 0, 0, *LENS]  # kinect_calib.py reads the lens from the fifth on, the rest by name
            K = np.array([[78.0, 0, 40], [0, 77.0 + k, 29.5], [0, 0, 1]])
            save(
                root / f"calibs/{date}/config/{k}/config.json",
                dict(rotation=turn.T.ravel().tolist(), translation=(place / 1000).tolist()),
            )
            save(
                root / f"calibs/intrinsics/{k}/calibration.json",
                dict(
                    color=dict(width=SIZE[0], height=SIZE[1], fx=78.0, fy=77.0 + k, cx=40, cy=29.5, opencv=opencv),
                    depth={},
                ),
            )
            cameras[k] = K, turn, place
        for t in ("t0003.000", "t0004.500"):
            world = people(10 * i + len(truth), n_joints=25, up=1) * [1, -1, 1] + [0, 900, 2500]
            score = np.full(25, 0.8)
            if t == "t0004.500":
                score[[3, 20]] = 0
            save(folder / t / "person/person_J3d.json", dict(body_joints3d=np.c_[world / 1000, score].ravel().tolist()))
            for k, (K, turn, place) in cameras.items():
                write_image(folder / t / f"k{k}.color.jpg", picture(k + i, SIZE))
                mask = np.zeros(SIZE[::-1], np.uint8)
                mask[8:40, 16 : 48 + 8 * i] = 255
                cv2.imwrite(str(folder / t / f"k{k}.person_mask.{'png' if i else 'jpg'}"), mask)
                px = opencv_project(world, K, LENS, turn, place)
                truth[f"{name}/{t}/k{k}"] = (
                    split,
                    np.where(score[:, None] > 0, world, np.nan),
                    np.where(score[:, None] > 0, px, np.nan),
                    mask > 0,
                    k + i,
                )
    return truth


@pytest.mark.parametrize("split, count", [("train", 8), ("test", 4)])
def test_reads_what_was_written(tmp_path, split, count):
    truth, rows = write(tmp_path), list(behave.read(tmp_path, split))
    assert [e.example_id for e, _ in rows] == [i for i, t in truth.items() if t[0] == split] and len(rows) == count
    for e, image in rows:
        _, world, px, mask, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        ours = e.camera.project(e.joints3d)
        seen = ((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)
        np.testing.assert_allclose(ours[seen], px[seen], atol=0.1)
        assert (e.dataset, e.split, e.image_size, e.subject, e.frame) == (
            "behave",
            split,
            SIZE,
            e.sequence.split("_")[1],
            90 if "t0003" in e.example_id else 135,
        )
        assert shows(image.load(), number) and (decode_mask(e.mask, SIZE) == mask).mean() > 0.99


@pytest.mark.parametrize(
    "name, change, words",
    [
        (
            "calibs/Date01/config/2/config.json",
            lambda d: d.update(rotation=[1] * 8),
            "config.json: rotation: expected 9",
        ),
        ("calibs/intrinsics/0/calibration.json", lambda d: d["color"].pop("opencv"), "color/opencv"),
        ("calibs/intrinsics/0/calibration.json", lambda d: d["color"].pop("cy"), "color/cy"),
        ("sequences/Date01_Sub01_boxlarge_hand/info.json", lambda d: d.pop("kinects"), "info.json: kinects"),
        ("split.json", lambda d: d.pop("train"), "split.json: train"),
        (
            "calibs/intrinsics/0/calibration.json",
            lambda d: d["color"].update(width=640),
            "size: expected \\(640, 60\\)",
        ),
    ],
)
def test_damage_is_named(tmp_path, name, change, words):
    write(tmp_path)
    data = json.loads((tmp_path / name).read_text("utf-8"))
    change(data)
    save(tmp_path / name, data)
    with pytest.raises(NativeError, match=words):
        list(behave.read(tmp_path))


def test_absent(tmp_path):
    with pytest.raises(NativeError, match="BEHAVE.*virtualhumans"):
        next(behave.read(tmp_path / "none"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: behave.read(root), tmp_path, n=200 if nightly else 10)
