"""SAIL-VOS: two tiny scenes with the files that posepile's reader finds (images, visible, *_2d.txt, *_3d.txt), read
back, and harmed."""

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.datasets import sailvos
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

W, H = 1280, 800
# the points of the rig that make the 26 joints of sailvos_26 (posepile)
POINTS = [
    [341, 8],
    [61],
    [216, 234],
    [171],
    [164, 309],
    [255, 39],
    [330],
    [108],
    [45, 294],
    [215, 131, 253],
    [295],
    [144, 315],
    [147, 342, 27],
    [85],
    [152],
    [206, 128, 102],
    [307, 312],
    [130],
    [11],
    [167, 188, 191, 310],
    [194, 193, 236, 78],
    [227, 304, 58, 229],
    [37, 260, 195],
    [47, 148, 232],
    [323],
    [160],
]
MISSING = {("scene_a", 3, 12): [323], ("scene_b", 4, 7): [167, 188]}  # (scene, frame, person): points that do not exist
SCENES = {("scene_a", 3): [12, 500], ("scene_a", 10): [500], ("scene_b", 4): [7]}


def scene_camera(scene, frame):
    "Focal length px, rotation, place m."
    z = np.array([0.2, 1.0, -0.1]) + 0.01 * frame
    z /= np.linalg.norm(z)
    x = np.cross(z, [0, 0, 1])
    x /= np.linalg.norm(x)
    return (
        800 + 20 * frame,
        np.array([x, np.cross(z, x), z]),
        np.array([-1500.0, 2400, 30]) - z * (4 + 0.5 * len(scene)),
    )


def points_of(scene, frame, person):
    rng = np.random.default_rng([frame, person])
    points = rng.normal(0, [0.5, 0.5, 0.8], (345, 3)) + [-1500, 2400, 30] + [0.4 * (person % 3), 0, 0]
    points[MISSING.get((scene, frame, person), [])] = 0
    focal, turn, place = scene_camera(scene, frame)
    eye = (points - place) @ turn.T
    px = eye[:, :2] / eye[:, 2:] * focal + [W / 2, H / 2]
    px[(points == 0).all(1)] = -W, -H
    px[17] = -W, -H  # a point the game could not place, of no interest
    return points, px


def write(root):
    for (scene, frame), people in SCENES.items():
        folder = root / scene
        for name in ("images", "visible"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        seen = np.zeros((H, W), np.int32)
        seen[:50] = 3  # something that is no person
        for k, person in enumerate(people):
            points, px = points_of(scene, frame, person)
            (folder / f"{person}_Ped_a{person}").mkdir(exist_ok=True)
            for end, numbers in (("2d", px), ("3d", points)):
                (folder / f"{person}_Ped_a{person}/{frame:06d}_{end}.txt").write_text(
                    "".join(" ".join(f"{v:.8f}" for v in line) + "\n" for line in numbers), encoding="utf-8"
                )
            seen[100 + frame : 600, 300 * k + 200 : 300 * k + 300] = person
        np.save(folder / "visible" / f"{frame:06d}.npy", seen)
        cv2.imwrite(str(folder / "images" / f"{frame:06d}.bmp"), np.full((H, W), 10 * frame + 20, np.uint8))


def read(root):
    return list(sailvos.read(root))


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = read(tmp_path)
    assert [e.example_id for e, _ in rows] == [
        "scene_a/000003/12",
        "scene_a/000003/500",
        "scene_a/000010/500",
        "scene_b/000004/7",
    ]
    for example, picture in rows:
        scene, frame, person = example.example_id.split("/")
        frame, person = int(frame), int(person)
        points, _ = points_of(scene, frame, person)
        points[(points == 0).all(1)] = np.nan
        means = [points[rows][np.isfinite(points[rows, 0])] for rows in POINTS]
        joints = np.array([m.mean(0) if len(m) else np.full(3, np.nan) for m in means])
        np.testing.assert_allclose(example.joints3d, joints * 1000, atol=0.01)
        focal, turn, place = scene_camera(scene, frame)
        eye = (joints - place) @ turn.T
        np.testing.assert_allclose(
            example.camera.project(example.joints3d), eye[:, :2] / eye[:, 2:] * focal + [640, 400], atol=0.1
        )
        np.testing.assert_allclose(example.camera.position, place * 1000, atol=5)
        np.testing.assert_allclose(example.camera.intrinsics[0, 0], focal, rtol=1e-3)
        k = SCENES[scene, frame].index(person)
        np.testing.assert_allclose(example.box, [300 * k + 200, 100 + frame, 100, 500 - frame])
        assert decode_mask(example.mask, (W, H)).sum() == 100 * (500 - frame) * len(SCENES[scene, frame])
        assert (
            picture.size == (W, H) == example.image_size
            and abs(picture.load().mean() - (10 * frame + 20)) < 1
            and (example.sequence, example.frame, example.split) == (scene, frame, "train")
        )
    assert np.isnan(rows[0][0].joints3d).any(1).nonzero()[0].tolist() == [24]


def test_joints_that_contradict_their_places_are_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "scene_b/7_Ped_a7/000004_2d.txt"
    lines = path.read_text("utf-8").splitlines()
    lines[40] = "500.0 20.0"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(NativeError, match="000004_3d.txt.*joint 40"):
        read(tmp_path)


def test_absent_data_is_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="_3d.txt.*SAIL-VOS.*maintainers"):
        next(sailvos.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, read, tmp_path, n=200 if nightly else 10, maps=["visible/*.npy"])
