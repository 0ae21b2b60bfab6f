"""BML-MoVi: a tiny data set in the owners' layout, written here, read back, and damaged."""

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, opencv_project, people, picture, ring, shows, write_video
from scipy.io import savemat

from acae_nb.datasets import bml_movi
from acae_nb.datasets.native_files import NativeError

SIZE = (96, 80)  # the real ones are 800 x 600 px
SUBJECTS = {"1": "F_Subjects_1_45", "46": "F_Subjects_46_90"}


def write(root):
    """F_Subjects_1_45/F_v3d_Subject_1.mat: Subject_1_F.move.markerLocation [T, 87, 3] mm at 120 Hz, z up, zeros where
    lost F_PG1_Subject_1_L.avi: 30 Hz; Calib/cameraParams_PG1.npz, Extrinsics_PG1.npz: Matlab's transposed matrices,
    pixels from 1

    """
    (root / "Calib").mkdir(parents=True)
    cameras = {}
    for c, (place, R) in enumerate(zip(*ring(2))):
        K, name = np.array([[95.0 + c, 0, 48.5], [0, 96, 39.5], [0, 0, 1]]), f"PG{c + 1}"
        np.savez(
            root / f"Calib/cameraParams_{name}.npz",
            IntrinsicMatrix=(K + [[0, 0, 1], [0, 0, 1], [0, 0, 0]]).T,
            RadialDistortion=[-0.2, 0.1],
            TangentialDistortion=[0.01 * c, -0.02 * c],
        )  # as OpenCV's p1, p2; not in every version of the files
        np.savez(root / f"Calib/Extrinsics_{name}.npz", rotationMatrix=R.T, translationVector=(-R @ place))
        cameras[name] = K, R, place
    truth = {}
    for q, (subject, folder) in enumerate(SUBJECTS.items()):
        world = people(q, 10, n_joints=87, centre=(-500, 300, 0))
        stored = world.copy()
        world[4, 11], stored[4, 11] = np.nan, 0
        (root / folder).mkdir()
        savemat(
            root / folder / f"F_v3d_Subject_{subject}.mat",
            {
                f"Subject_{subject}_F": {
                    "subject": int(subject),
                    "move": {
                        "markerLocation": stored,
                        "virtualMarkerLocation": stored[:, 67:],
                        "flags30": np.array([[0, 1], [1, 2]]),
                    },
                }
            },
            do_compression=True,
        )
        for c, (name, (K, R, place)) in enumerate(cameras.items()):
            write_video(root / f"F_{name}_Subject_{subject}_L.avi", [picture(4 * c + t, SIZE) for t in range(3)], 30)
            for t in range(3):
                truth[subject, name, t] = (
                    world[4 * t],
                    opencv_project(world[4 * t], K, [-0.2, 0.1, 0.01 * c, -0.02 * c], R, place),
                    4 * c + t,
                )
    return truth


def test_reads_what_was_written(tmp_path):
    truth = write(tmp_path / "movi")
    rows = list(bml_movi.read(tmp_path / "movi"))
    assert len(rows) == len(truth) == 2 * 2 * 3 and len({e.example_id for e, _ in rows}) == len(rows)
    for (example, image), ((subject, camera, frame), (joints, px, number)) in zip(rows, truth.items()):
        assert (example.subject, example.camera_name, example.frame) == (subject, camera, frame)
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert (
            example.image_size == SIZE and shows(image.load(), number) and tuple(example.camera.world_up) == (0, 0, 1)
        )
        assert holds(example.box, px, SIZE)
    assert np.isnan(rows[1][0].joints3d[11]).all() and np.isfinite(rows[0][0].joints3d).all()


def test_tangential_terms_in_all_files_or_none(tmp_path):
    write(root := tmp_path / "movi")
    for name in ("PG1", "PG2"):
        with np.load(path := root / f"Calib/cameraParams_{name}.npz") as file:
            entries = {k: file[k] for k in file if k != "TangentialDistortion"}
        np.savez(path, **entries)
        if name == "PG1":
            with pytest.raises(
                NativeError,
                match="cameraParams_PG1.npz: TangentialDistortion: expected two numbers, as in cameraParams_PG2.npz",
            ):
                bml_movi.read_camera(root, name)
    assert not bml_movi.read_camera(root, "PG2").distortion[2:4].any()


def test_refuses(tmp_path):
    root = tmp_path / "movi"
    with pytest.raises(NativeError, match="JRHDRN"):
        list(bml_movi.read(root))
    write(root)
    with pytest.raises(NativeError, match="split"):
        list(bml_movi.read(root, "test"))
    savemat(
        root / "F_Subjects_1_45/F_v3d_Subject_1.mat", {"Subject_1_F": {"move": {"markerLocation": np.ones((8, 86, 3))}}}
    )
    with pytest.raises(NativeError, match="Subject_1.mat: Subject_1_F/move/markerLocation.*87"):
        list(bml_movi.read(root))
    write(tmp_path / "again")
    (tmp_path / "again/F_PG2_Subject_46_L.avi").unlink()
    with pytest.raises(NativeError, match="F_PG2_Subject_46_L.avi"):
        list(bml_movi.read(tmp_path / "again"))


def test_damaged_files(tmp_path):
    check_mutations(write, bml_movi.read, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, bml_movi.read, tmp_path, n=200)
