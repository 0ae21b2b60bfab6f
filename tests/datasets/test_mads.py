"""MADS: a tiny data set in the owners' layout, written here, read back, and damaged."""

import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, opencv_project, people, picture, ring, shows, write_video
from scipy.io import savemat

from acae_nb.datasets import mads
from acae_nb.datasets.native_files import NativeError

SIZE = (96, 80)  # the real ones are 512 x 384 px, three cameras
LENS = [-0.2, 0.1, 0.01, -0.005, 0.02]
# the 19: neck pelvis, left leg with toe, right leg with toe, left arm with hand, right arm with hand, head; the 15 lack
# toes and hands
TOES_AND_HANDS = [5, 9, 13, 17]
SEQUENCES = [("HipHop", "HipHop_HipHop1", 19), ("Kata", "Kata_F2", 15)]


def write(root):
    """multi_view_data/KIND/NAME_C0.avi, NAME_GT.mat: GTpose2, a 1 x frames cell array of [19 or 15, 3] mm, y up, NaN
    where there is no pose multi_view_data/KIND/Calib_Cam0.mat: KK [3, 3], kc [5, 1], om_ext [3, 1], T_ext [3, 1]

    """
    truth = {}
    for q, (kind, name, n) in enumerate(SEQUENCES):
        folder = root / "multi_view_data" / kind
        folder.mkdir(parents=True)
        joints = people(q, 4, n_joints=19, up=1)
        if n == 15:
            joints[:, TOES_AND_HANDS] = np.nan
        joints[1] = np.nan  # a frame without a pose
        joints[2, 18] = np.nan  # one without a head
        cells = np.empty((1, 4), object)
        for t in range(4):
            cells[0, t] = joints[t] if n == 19 else np.delete(joints[t], TOES_AND_HANDS, 0)
        savemat(folder / f"{name}_GT.mat", {"GTpose2": cells}, do_compression=True)
        for c, (place, R) in enumerate(zip(*ring(2, target=(0, 900, 0), up=(0, 1, 0), turn=0.4 + q))):
            K = np.array([[95.0 + c, 0, 48.5], [0, 96, 39.5], [0, 0, 1]])
            savemat(
                folder / f"Calib_Cam{c}.mat",
                {
                    "KK": K,
                    "kc": np.reshape(LENS, (5, 1)),
                    "om_ext": cv2.Rodrigues(R)[0],
                    "T_ext": (-R @ place).reshape(3, 1),
                    "fc": K[[0, 1], [0, 1]].reshape(2, 1),
                },
                do_compression=True,
            )
            write_video(folder / f"{name}_C{c}.avi", [picture(4 * c + t, SIZE) for t in range(4 + c)], 15)
            for t in (0, 2, 3):
                truth[kind, name, f"C{c}", t] = joints[t], opencv_project(joints[t], K, LENS, R, place), 4 * c + t
    return truth


def test_reads_what_was_written(tmp_path):
    truth = write(tmp_path / "mads")
    rows = list(mads.read(tmp_path / "mads"))
    assert len(rows) == len(truth) == 2 * 2 * 3 and len({e.example_id for e, _ in rows}) == len(rows)
    for (example, image), ((kind, name, camera, frame), (joints, px, number)) in zip(rows, truth.items()):
        assert (example.subject, example.sequence, example.camera_name, example.frame) == (kind, name, camera, frame)
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert (
            example.image_size == SIZE and shows(image.load(), number) and tuple(example.camera.world_up) == (0, 1, 0)
        )
        assert holds(example.box, px, SIZE)
    assert np.isnan(rows[6][0].joints3d[TOES_AND_HANDS]).all() and np.isfinite(rows[6][0].joints3d).any(1).sum() == 15


def test_refuses(tmp_path):
    root = tmp_path / "mads"
    with pytest.raises(NativeError, match="research/mads"):
        list(mads.read(root))
    write(root)
    with pytest.raises(NativeError, match="split"):
        list(mads.read(root, "test"))
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = people(0, n_joints=19, up=1), np.ones((18, 3))
    savemat(root / "multi_view_data/HipHop/HipHop_HipHop1_GT.mat", {"GTpose2": cells})
    with pytest.raises(
        NativeError, match="HipHop1_GT.mat: rows: .*GTpose2, frame 1: expected numbers of shape .19, 3."
    ):
        list(mads.read(root))
    (root / "multi_view_data/HipHop/HipHop_HipHop1_GT.mat").unlink()
    with pytest.raises(NativeError, match="HipHop1_GT.mat"):
        list(mads.read(root))


def test_damaged_files(tmp_path):
    check_mutations(write, mads.read, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, mads.read, tmp_path, n=200)
