"""3DPeople: two tiny motions and two cameras in the layout the owners' notebook reads (rgb, skeleton,
segmentation_clothes), read back, and harmed."""

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import threedpeople
from acae_nb.datasets.native_files import NativeError
from acae_nb.skeletons.joints import load_skeleton

SIZE = 640, 480
K = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])
CLIPS = {
    ("woman17", "02_04_jump", "camera01"): 2,
    ("woman17", "02_04_jump", "camera03"): 1,
    ("man02", "05_01_run", "camera01"): 1,
}  # pictures
# raw rows by the names of the 29 joints, as posepile and the frame printed in the owners' notebook have them
RAW = dict(
    pelvis=0,
    head=5,
    right_eye=6,
    left_eye=7,
    head_top=8,
    left_clavicle=9,
    left_shoulder=10,
    left_elbow=11,
    left_wrist=12,
    left_hand=13,
    right_clavicle=33,
    right_shoulder=34,
    right_elbow=35,
    right_wrist=36,
    right_hand=53,
    left_hip=57,
    left_knee=58,
    left_ankle=59,
    left_foot=60,
    left_toe=61,
    right_hip=62,
    right_toe=66,
    spine=1,
    neck=4,
)


def scene(clip, frame):
    "Decimetres: joints [67, 3]; the camera's rotation and place; px [67, 2] to four digits."
    rng = np.random.default_rng([len(clip[0]), len(clip[1]), frame])
    joints = rng.normal(0, [2, 2, 4], (67, 3)) + [3, -2, 9]
    angle = 0.4 + 0.8 * int(clip[2][-1])
    place = np.array([3 + 40 * np.cos(angle), -2 + 40 * np.sin(angle), 12])
    z = np.array([3, -2, 9]) - place
    z /= np.linalg.norm(z)
    x = np.cross(z, [0, 0, 1])
    x /= np.linalg.norm(x)
    turn = np.array([x, np.cross(z, x), z])
    eye = (joints - place) @ turn.T
    return joints.round(6), turn, place, (eye[:, :2] / eye[:, 2:] * 700 + [320, 240]).round(4)


def write(root):
    for clip, n in CLIPS.items():
        name = "/".join(clip)
        for folder in (f"rgb/{name}/scene05", f"skeleton/{name}", f"segmentation_clothes/{name}"):
            (root / folder).mkdir(parents=True)
        for t in range(n + 1):  # frame 0000 has a skeleton only
            joints, _, _, px = scene(clip, t)
            lines = [" ".join(f"{v:.6f}" for v in (*px[j], 1.0, *joints[j])) for j in range(67)]
            (root / f"skeleton/{name}/{t:04d}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            if not t:
                continue
            cv2.imwrite(
                str(root / f"rgb/{name}/scene05/{t:04d}.jpg"), np.full((SIZE[1], SIZE[0], 3), 70 * t + 30, np.uint8)
            )
            mask = np.full((SIZE[1], SIZE[0], 3), 153, np.uint8)
            mask[100 + t : 400, 200 : 300 + t] = (20, 160, 60)
            cv2.imwrite(str(root / f"segmentation_clothes/{name}/{t:04d}.png"), mask)


def read(root):
    return list(threedpeople.read(root))


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows, skeleton = read(tmp_path), load_skeleton("3dpeople_29")
    assert [e.example_id for e, _ in rows] == [
        "man02/05_01_run/camera01/scene05/0001",
        "woman17/02_04_jump/camera01/scene05/0001",
        "woman17/02_04_jump/camera01/scene05/0002",
        "woman17/02_04_jump/camera03/scene05/0001",
    ]
    for example, picture in rows:
        *clip, _, frame = example.example_id.split("/")
        clip, frame = tuple(clip), int(frame)
        joints, turn, place, px = scene(clip, frame)
        for name, raw in RAW.items():
            j = skeleton.index(name)
            np.testing.assert_allclose(example.joints3d[j], joints[raw] * 100, atol=0.01)
            np.testing.assert_allclose(example.camera.project(example.joints3d[j]), px[raw], atol=0.1)
        np.testing.assert_allclose(example.camera.position, place * 100, atol=2)
        np.testing.assert_allclose(example.camera.rotation, turn, atol=1e-3)
        np.testing.assert_allclose(example.box, [200, 100 + frame, 100 + frame, 300 - frame])
        assert (example.subject, example.sequence, example.camera_name, example.frame, example.split) == (
            *clip,
            frame,
            "train",
        )
        assert picture.size == SIZE == example.image_size and abs(picture.load().mean() - (70 * frame + 30)) < 2


def test_joints_that_contradict_their_places_are_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "skeleton/man02/05_01_run/camera01/0001.txt"
    lines = path.read_text("utf-8").splitlines()
    lines[40] = "500.0 20.0" + lines[40][lines[40].index(" 1.0") :]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(NativeError, match="camera01/0001.txt.*joint"):
        read(tmp_path)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda lines: lines[:66], ["67 rows", "66"]),
        (lambda lines: [line.rsplit(" ", 2)[0] for line in lines], ["5 finite"]),
        (lambda lines: lines[:5] + ["nan" + lines[5][lines[5].index(" ") :]] + lines[6:], ["finite"]),
        (lambda lines: ["x"] * 67, ["text file"]),
    ],
)
def test_errors_name_the_file(tmp_path, edit, words):
    write(tmp_path)
    path = tmp_path / "skeleton/man02/05_01_run/camera01/0001.txt"
    path.write_text("\n".join(edit(path.read_text("utf-8").splitlines())), encoding="utf-8")
    with pytest.raises(NativeError) as e:
        read(tmp_path)
    assert all(w in str(e.value) for w in ["man02/05_01_run/camera01/0001.txt", *words]), e.value


def test_absent_data_is_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="rgb/.*3DPeople"):
        next(threedpeople.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10)
