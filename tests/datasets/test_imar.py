"""Fit3D, CHI3D and HumanSC3D: a tiny data set in the owners' layout, written here, read back, and damaged."""

import json

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, people, picture, ring, shows, write_video

from acae_nb.datasets import imar
from acae_nb.datasets.native_files import NativeError

SIZE, CAMERAS = (96, 80), ("50591643", "58860488")  # the real ones are 900 x 900 px and four


def owners_projection(points, camera):
    "The formula of the owners' tool (imar_vision_datasets_tools, dataset_util.project_3d_to_2d); points in m."
    lens = {k: np.array(v) for k, v in camera["intrinsics_w_distortion"].items()}
    x = (points - np.array(camera["extrinsics"]["T"])) @ np.array(camera["extrinsics"]["R"]).T
    x = x[..., :2] / x[..., 2:]
    r2 = (x**2).sum(-1, keepdims=True)
    radial = 1 + lens["k"][0, 0] * r2 + lens["k"][0, 1] * r2**2 + lens["k"][0, 2] * r2**3
    p = lens["p"][0, ::-1]
    return lens["f"] * (x * (radial + (x * p).sum(-1, keepdims=True)) + r2 * p) + lens["c"]


def write(root, dataset="fit3d"):
    """train/SUBJECT/joints3d_25/SEQUENCE.json   {"joints3d_25": [T, 25, 3] m, world z up}; CHI3D: [2, T, 25, 3], two
    people train/SUBJECT/camera_parameters/CAMERA/SEQUENCE.json   extrinsics R [3, 3], T [1, 3] (the camera's place, m),
    intrinsics f, c, k, p train/SUBJECT/videos/CAMERA/SEQUENCE.mp4; the video may go on after the last labelled frame

    """
    places, rotations = ring(2, radius=4.0, height=1.5, target=(0, 0, 0.9))
    info = {
        "train_subj_names": ["s03", "s04"],
        "test_subj_names": ["s02"],
        "all_camera_names": list(CAMERAS),
        "subj_to_act": {"s03": ["Grab 4", "squat"], "s04": ["squat"]},
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{dataset}_info.json").write_text(json.dumps(info), encoding="utf-8")
    truth = {}
    for s, (subject, sequences) in enumerate(info["subj_to_act"].items()):
        for q, sequence in enumerate(sequences):
            n = 3 - q
            joints = people(10 * s + q, 2, n, n_joints=25, up=2) / 1000
            joints[1, :, :, :2] += 0.4
            joints[0, 1, 5] = np.nan
            folder = root / "train" / subject
            (folder / "joints3d_25").mkdir(parents=True, exist_ok=True)
            stored = joints if dataset == "chi3d" else joints[0]
            (folder / "joints3d_25" / f"{sequence}.json").write_text(
                json.dumps({"joints3d_25": stored.tolist()}), encoding="utf-8"
            )
            for c, name in enumerate(CAMERAS):
                plain = {"f": [[95.0 + c, 96.0]], "c": [[48.5, 39.0 + s]]}
                camera = {
                    "extrinsics": {"R": rotations[c].tolist(), "T": [places[c].tolist()]},
                    "intrinsics_w_distortion": plain | {"k": [[-0.22, 0.21, -0.01]], "p": [[-0.011, 0.014]]},
                    "intrinsics_wo_distortion": plain,
                }
                path = folder / "camera_parameters" / name / f"{sequence}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(camera), encoding="utf-8")
                write_video(
                    folder / "videos" / name / f"{sequence}.mp4", [picture(4 * c + t, SIZE) for t in range(n + 1)]
                )
                for t in range(n):
                    for p in range(2 if dataset == "chi3d" else 1):
                        truth[subject, sequence, name, t, p] = (
                            joints[p, t] * 1000,
                            owners_projection(joints[p, t], camera),
                            4 * c + t,
                        )
    return truth


@pytest.mark.parametrize("dataset", ["fit3d", "humansc3d", "chi3d"])
def test_reads_what_was_written(tmp_path, dataset):
    truth = write(tmp_path / dataset, dataset)
    rows = list(imar.read(tmp_path / dataset, dataset=dataset))
    assert len(rows) == len(truth) == 2 * (3 + 2 + 3) * (2 if dataset == "chi3d" else 1)
    assert len({e.example_id for e, _ in rows}) == len(rows)
    for (example, image), key in zip(rows, truth):
        subject, sequence, camera, frame, person = key
        joints, px, number = truth[key]
        assert (example.dataset, example.split, example.sequence, example.camera_name, example.frame) == (
            dataset,
            "train",
            sequence,
            camera,
            frame,
        )
        assert example.subject == (
            f"{subject} {('w_markers', 'wo_markers')[person]}" if dataset == "chi3d" else subject
        )
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert example.image_size == SIZE and image.load().shape == (80, 96, 3)
        assert shows(image.load(), number)
        assert holds(example.box, px, SIZE)
        assert tuple(example.camera.world_up) == (0, 0, 1)
    assert np.isnan(rows[1 if dataset != "chi3d" else 2][0].joints3d[5]).all()


def test_the_lens_is_not_opencvs_own():
    """Taking p for OpenCV's p1, p2 is off by a visible amount with a strong lens, so the difference is worth its four
    coefficients."""
    import cv2

    x = np.array([[0.4, -0.35, 1.0], [0.1, 0.3, 1.0]])
    k, p, f = [-0.22, 0.21, -0.01], [-0.0011, 0.0014], 1145.0
    camera = {
        "extrinsics": {"R": np.eye(3), "T": [[0, 0, 0]]},
        "intrinsics_w_distortion": {"f": [[f, f]], "c": [[450, 450]], "k": [k], "p": [p]},
    }
    K = np.array([[f, 0, 450], [0, f, 450], [0, 0, 1]])
    ours = cv2.projectPoints(x, np.zeros(3), np.zeros(3), K, imar.laboratory_lens(k, p))[0][:, 0]
    naive = cv2.projectPoints(x, np.zeros(3), np.zeros(3), K, np.array([k[0], k[1], p[0], p[1], k[2]]))[0][:, 0]
    np.testing.assert_allclose(ours, owners_projection(x, camera), atol=1e-6)
    assert 0.1 < abs(naive - owners_projection(x, camera)).max() < 1


def test_refuses_what_is_not_there(tmp_path):
    with pytest.raises(NativeError, match="fit3d.imar.ro"):
        list(imar.read(tmp_path / "nothing"))
    write(tmp_path / "fit3d")
    with pytest.raises(NativeError, match="test"):
        list(imar.read(tmp_path / "fit3d", split="test"))
    with pytest.raises(NativeError, match="joints3d_25"):
        list(imar.read(tmp_path / "fit3d", dataset="chi3d"))
    (tmp_path / "fit3d/train/s04/videos/58860488/squat.mp4").unlink()
    with pytest.raises(NativeError, match="58860488/squat.mp4"):
        list(imar.read(tmp_path / "fit3d"))


def test_more_labels_than_pictures(tmp_path):
    write(tmp_path / "fit3d")
    write_video(tmp_path / "fit3d/train/s04/videos/58860488/squat.mp4", [picture(0, SIZE)] * 2)
    with pytest.raises(NativeError, match="58860488/squat.mp4: rows: .*the first: frame 2: expected one of the 2"):
        list(imar.read(tmp_path / "fit3d"))


def test_the_release_with_four_poses_a_picture_is_refused_before_its_first_row(tmp_path):
    write(tmp_path / "fit3d")
    write_video(tmp_path / "fit3d/train/s03/videos/50591643/Grab 4.mp4", [picture(0, SIZE)])
    with pytest.raises(NativeError, match="50591643/Grab 4.mp4: frames: .*, 3 .*2022.*found 1"):
        next(imar.read(tmp_path / "fit3d"))


def test_damaged_files(tmp_path):
    check_mutations(write, imar.read, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, imar.read, tmp_path, n=200)
