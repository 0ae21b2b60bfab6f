"""Human3.6M: a tiny data set in the owners' layout, written here, read back, and damaged."""

import tracemalloc

import cdflib.cdfwrite
import h5py
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import people, picture, ring, shows, write_video
from scipy.spatial.transform import Rotation

from acae_nb.datasets import h36m
from acae_nb.datasets.native_files import NativeError

SIZE = (96, 80)  # the real ones are 1000 x 1000 or 1000 x 1002 px
NAMES = ("54138969", "55011271", "58860488", "60457274")
SEQUENCES = {1: ["Directions", "Walking 1"], 9: ["Greeting 1", "Greeting"]}
# raw joint of each of the 25: right leg, left leg, spine to head top, left arm, right arm, pelvis; duplicates dropped
RAW = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 21, 22, 25, 26, 27, 29, 30, 0]


def owners_projection(points, rotation, position, f, c, k, p):
    "H36MCamera.project of the owners' Matlab code: x (1 + k r^2.. + p0 y + p1 x) + [p1 p0] r^2."
    x = (points - position) @ rotation.T
    x = x[..., :2] / x[..., 2:]
    r2 = (x**2).sum(-1, keepdims=True)
    gain = 1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3 + p[0] * x[..., 1:] + p[1] * x[..., :1]
    return f * (x * gain + np.array([p[1], p[0]]) * r2) + c


def write_cdf(path, values):
    "One variable, Pose, of one record: [1, frame, number]."
    path.parent.mkdir(parents=True, exist_ok=True)
    file = cdflib.cdfwrite.CDF(str(path), cdf_spec={"Compressed": 0}, delete=True)
    file.write_var(
        {
            "Variable": "Pose",
            "Data_Type": 21,
            "Num_Elements": 1,
            "Rec_Vary": True,
            "Var_Type": "zVariable",
            "Dim_Sizes": list(values.shape),
        },
        var_data=values[None].astype(np.float32),
    )
    file.close()


def write_masks(path, boxes):
    """Matlab 7.3: Masks, a cell array of logical images that are 1 inside the box; HDF5 stores images transposed,
    Matlab deflates them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        references = file.create_dataset("Masks", (len(boxes), 1), h5py.ref_dtype)
        for i, (left, top, right, bottom) in enumerate(boxes):
            mask = np.zeros(SIZE[::-1], np.uint8)
            mask[top : bottom + 1, left : right + 1] = 1
            references[i, 0] = file.create_dataset(
                f"#refs#/m{i}", data=mask.T, chunks=mask.T.shape, compression="gzip"
            ).ref


def write(root):
    """metadata.xml   w0: [4 cameras x 11 subjects x (3 angles, 3 mm)] then [4 cameras x (f f c c k k k p p)];
    dbcameras/index2id: names S1/MyPoseFeatures/D3_Positions/SEQUENCE.cdf   Pose [1, frame, 32 * 3] mm, world z up
    S1/MyPoseFeatures/D2_Positions/SEQUENCE.CAMERA.cdf   Pose [1, frame, 32 * 2] px
    S1/MySegmentsMat/ground_truth_bb/SEQUENCE.CAMERA.mat, S1/Videos/SEQUENCE.CAMERA.mp4 (and _ALL ones that hold no
    sequence)

    """
    rng = np.random.default_rng(0)
    extrinsics, turns = np.zeros((4, 11, 6)), {}
    for s in range(11):
        for c, (place, turn) in enumerate(zip(*ring(4, turn=0.2 + 0.1 * s))):
            angles = Rotation.from_matrix(turn).as_euler("XYZ")  # R = Rx Ry Rz
            extrinsics[c, s] = *angles, *place
            turns[c, s + 1] = turn, place
    inner = np.array([[95 + c, 96, 48.5, 39 + c, -0.2, 0.24, -0.002, -0.009, -0.014] for c in range(4)], float)
    numbers = " ".join(repr(float(x)) for x in [*extrinsics.ravel(), *inner.ravel()])
    items = "".join(f"<item>{n}</item>" for n in NAMES)
    (root / "Release-v1.2").mkdir(parents=True, exist_ok=True)
    (root / "Release-v1.2/metadata.xml").write_text(
        f"<matlab><dbcameras><index2id>{items}</index2id></dbcameras><w0>[{numbers}]</w0></matlab>", encoding="utf-8"
    )
    truth = {}
    for subject, sequences in SEQUENCES.items():
        for q, name in enumerate(sequences):
            folder, n = root / f"S{subject}", 2
            raw = people(subject + q, n, n_joints=32)
            if subject == 1:
                raw[1, [9, 10]] = np.nan  # left toes not captured in this frame
            write_cdf(folder / "MyPoseFeatures/D3_Positions" / f"{name}.cdf", raw.reshape(n, 96))
            for c, camera in enumerate(NAMES):
                f, cc, k, p = inner[c, :2], inner[c, 2:4], inner[c, 4:7], inner[c, 7:]
                px = owners_projection(raw, *turns[c, subject], f, cc, k, p)
                write_cdf(folder / "MyPoseFeatures/D2_Positions" / f"{name}.{camera}.cdf", px.reshape(n, 64))
                boxes = np.stack(
                    [rng.integers(5, 30, n), rng.integers(5, 20, n), rng.integers(50, 80, n), rng.integers(50, 75, n)],
                    1,
                )
                write_masks(folder / "MySegmentsMat/ground_truth_bb" / f"{name}.{camera}.mat", boxes)
                write_video(
                    folder / "Videos" / f"{name}.{camera}.mp4", [picture(4 * c + t, SIZE) for t in range(n + 1)]
                )
                for t in range(n):
                    joints, shift = raw[t, RAW], np.array([0.0, 0, 0])
                    if subject == 9 and name == "Greeting":
                        shift = np.array([-200.0, 0, 0])
                    moved = owners_projection(np.stack([raw[t, 0] + shift, raw[t, 0]]), *turns[c, subject], f, cc, k, p)
                    left, top, right, bottom = boxes[t]
                    box = [left, top, right - left + 1, bottom - top + 1] + np.r_[moved[0] - moved[1], 0, 0]
                    truth[subject, name, camera, t] = (
                        joints + shift,
                        owners_projection(joints + shift, *turns[c, subject], f, cc, k, p),
                        box,
                        4 * c + t,
                    )
        write_video(root / f"S{subject}/Videos/_ALL.54138969.mp4", [picture(0, SIZE)])
    return truth


def test_reads_what_was_written(tmp_path):
    truth = write(tmp_path)
    for split, subject in (("train", 1), ("test", 9)):
        rows = list(h36m.read(tmp_path, split, subjects=(subject,)))
        keys = [key for key in truth if key[0] == subject]
        assert len(rows) == len(keys) == 2 * 4 * 2
        for (example, image), key in zip(rows, keys):
            joints, px, box, number = truth[key]
            assert (example.subject, example.sequence, example.camera_name, example.frame) == (f"S{subject}", *key[1:])
            assert (example.dataset, example.split) == ("h36m", split)
            np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
            np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
            np.testing.assert_allclose(example.box, box, atol=0.1)
            assert image.size == example.image_size == SIZE and shows(image.load(), number)
    assert len({e.example_id for e, _ in rows}) == len(rows)


def test_missing_joints_stay_missing(tmp_path):
    write(tmp_path)
    example = list(h36m.read(tmp_path, "train", subjects=(1,)))[1][0]
    assert np.isnan(example.joints3d[[8, 9]]).all() and np.isfinite(np.delete(example.joints3d, [8, 9], 0)).all()


def test_as_shipped_and_boxes_of_the_joints(tmp_path):
    truth = write(tmp_path)
    for path in tmp_path.rglob("ground_truth_bb/*.mat"):
        path.unlink()
    with pytest.raises(NativeError, match="ground_truth_bb"):
        list(h36m.read(tmp_path, "test", subjects=(9,)))
    rows = list(h36m.read(tmp_path, "test", subjects=(9,), s9_shift=0, boxes=h36m.joint_boxes))
    for (example, _), key in zip(rows, [k for k in truth if k[0] == 9]):
        joints = truth[key][0] + [200.0 if key[1] == "Greeting" else 0, 0, 0]
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        px = example.camera.project(joints)
        px = px[((px > 0) & (px < SIZE)).all(-1)]
        left, top, width, height = example.box
        assert (px > [left - 1, top - 1]).all() and (px < [left + width + 1, top + height + 1]).all()


def test_an_empty_mask_makes_no_row(tmp_path):
    write(tmp_path)
    write_masks(
        tmp_path / "S1/MySegmentsMat/ground_truth_bb/Directions.54138969.mat", np.array([[9, 9, 40, 40], [9, 9, 8, 8]])
    )
    rows = [e for e, _ in h36m.read(tmp_path, subjects=(1,))]
    assert (
        len(rows) == 15
        and rows[0].box.tolist() == [9, 9, 32, 32]
        and (rows[1].camera_name, rows[1].frame) == ("55011271", 0)
    )


def test_a_broken_video_can_be_left_out(tmp_path):
    write(tmp_path)
    (tmp_path / "S1/Videos/Walking 1.55011271.mp4").write_bytes(b"")
    with pytest.raises(NativeError, match="Walking 1.55011271.mp4"):
        list(h36m.read(tmp_path, subjects=(1,)))
    rows = [e for e, _ in h36m.read(tmp_path, subjects=(1,), without=["S1/Walking 1/55011271"])]
    assert len(rows) == 14 and ("Walking 1", "55011271") not in {(e.sequence, e.camera_name) for e in rows}


def test_masks_are_not_all_held_in_memory(tmp_path):
    size, n = (1000, 1002), 40
    with h5py.File(tmp_path / "a.mat", "w") as file:
        references = file.create_dataset("Masks", (n, 1), h5py.ref_dtype)
        mask = np.zeros(size, np.uint8)
        mask[100:300, 50:700] = 1
        one = file.create_dataset("#refs#/m", data=mask, chunks=size, compression="gzip").ref
        for i in range(n):
            references[i, 0] = one
    tracemalloc.start()
    boxes = list(h36m.mask_boxes(tmp_path / "a.mat", np.zeros((n, 25, 2)), np.zeros((n, 2)), size))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(boxes) == n and boxes[0].tolist() == [100, 50, 200, 650] and most < 12e6  # 40 of them are 40 MB


def test_refuses(tmp_path):
    with pytest.raises(NativeError, match="vision.imar.ro"):
        list(h36m.read(tmp_path))
    write(tmp_path)
    with pytest.raises(NativeError, match="S5"):
        list(h36m.read(tmp_path))  # subjects 5 to 8 are not there
    with pytest.raises(NativeError, match="split"):
        list(h36m.read(tmp_path, "val"))
    write_video(tmp_path / "S1/Videos/Directions.55011271.mp4", [picture(0, SIZE)])
    with pytest.raises(NativeError, match="Directions.55011271.mp4: rows: .*frame 1: expected one of the 1 frames"):
        list(h36m.read(tmp_path, subjects=(1,)))


def test_the_owners_2d_positions_catch_a_wrong_camera(tmp_path):
    write(tmp_path)
    path = tmp_path / "Release-v1.2/metadata.xml"
    head, numbers = path.read_text("utf-8").split("<w0>[")
    numbers = numbers.split("]")[0].split()
    numbers[3] = str(float(numbers[3]) + 800)  # camera 1 of subject 1, moved by 0.8 m
    path.write_text(head + "<w0>[" + " ".join(numbers) + "]</w0></matlab>", encoding="utf-8")
    with pytest.raises(NativeError, match="Directions"):
        list(h36m.read(tmp_path, subjects=(1,)))


def read_one(root):
    return h36m.read(root, "train", subjects=(1,))


def test_damaged_files(tmp_path):
    check_mutations(write, read_one, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, read_one, tmp_path, n=200)
