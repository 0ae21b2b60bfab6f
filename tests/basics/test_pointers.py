"""Every reader tells a file that Git LFS did not fetch from a damaged one."""

import pytest

from acae_nb.autoencoder.conversion import load_converter
from acae_nb.basics.pointers import found_instead
from acae_nb.evaluation.prediction_files import read_poses
from acae_nb.geometry.calibration import read_calibration
from acae_nb.inference.pictures import VideoPictures, read_picture
from acae_nb.workflow.pose_arrays import read_poses_npz

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
READERS = {
    "poses.npz": read_poses,
    "poses.parquet": read_poses,
    "to_fit.npz": read_poses_npz,
    "picture.jpg": read_picture,
    "picture.png": read_picture,
    "video.mp4": VideoPictures,
    "video.webm": VideoPictures,
    "Calib.toml": read_calibration,
    "Calib.qca.txt": read_calibration,
    "camera.yml": read_calibration,
    "camera.json": read_calibration,
    "conversion.safetensors": load_converter,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pointer_is_called_one(tmp_path, name):
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match="git lfs pull") as error:
        READERS[name](tmp_path / name)
    assert name in str(error.value) and "pickle" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"version", b"version 1 of https://git-lfs.github.com/spec/v1"])
def test_other_files_are_none(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert found_instead(tmp_path / "a", "damage") == "damage"
