"""GPA: a tiny data set in the owners' layout, written here, read back, and damaged."""

import json

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, people, picture, shows, write_image

from acae_nb.datasets import gpa
from acae_nb.datasets.native import Masked
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

SIZE = (96, 80)  # the real ones are 1920 x 1080 px, five cameras


def write(root):
    """xyz_gpa12_mdp_cntind_crop_cam_c2g.json: {"images": [{"file_name"}], "annotations": [{"joint_cams" [3, 34] mm, "f"
    [2], "c" [2], "istrains"}]} Gaussian_img_jpg_new/NUMBER.jpg

    """
    images, annotations, truth = [], [], {}
    cameras = np.arange(30) % 2
    for i, number in enumerate((3, 4, 11, 12, 17)):
        joints = people(i, n_joints=34, up=1, centre=(0, -900, 3800))
        if i == 1:
            joints[30] = np.nan
        f, c = [95.0 + cameras[number], 96.0], [48.5, 39.5]
        images.append({"file_name": f"/some/where/Gaussian_img_jpg_new/{number:010d}.jpg", "id": number})
        annotations.append(
            {"joint_cams": joints.T.tolist(), "f": f, "c": c, "istrains": i < 3, "joint_imgs": [[1, 2]] * 34}
        )
        name = f"{number:010d}"
        folder = root / "Gaussian_img_jpg_new" / ("" if i % 2 else f"{name[:6]}/{name[6:8]}")  # as sorted by posepile
        write_image(folder / f"{name}.jpg", picture(i, SIZE))
        truth["train" if i < 3 else "test", f"{f[0]:.2f} 96.00", number] = (
            joints,
            joints[:, :2] / joints[:, 2:] * f + c,
            i,
        )
    (root / "xyz_gpa12_mdp_cntind_crop_cam_c2g.json").write_text(
        json.dumps({"images": images, "annotations": annotations}), encoding="utf-8"
    )
    return truth


@pytest.mark.parametrize("split, n", [("train", 3), ("test", 2)])
def test_reads_what_was_written(tmp_path, split, n):
    truth = {k: v for k, v in write(tmp_path).items() if k[0] == split}
    rows = list(gpa.read(tmp_path, split))
    assert len(rows) == len(truth) == n and len({e.example_id for e, _ in rows}) == n
    for (example, image), (key, (joints, px, number)) in zip(rows, truth.items()):
        assert (example.split, example.camera_name, example.frame) == key
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert (
            example.image_size == SIZE and shows(image.load(), number) and tuple(example.camera.world_up) == (0, -1, 0)
        )
        assert holds(example.box, px, SIZE)
    if split == "train":
        assert np.isnan(rows[1][0].joints3d[30]).all()


def test_refuses(tmp_path):
    with pytest.raises(NativeError, match="gpa-dataset"):
        list(gpa.read(tmp_path))
    write(tmp_path)
    with pytest.raises(NativeError, match="split"):
        list(gpa.read(tmp_path, "val"))
    path = tmp_path / "xyz_gpa12_mdp_cntind_crop_cam_c2g.json"
    whole = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(whole | {"images": whole["images"][:-1]}), encoding="utf-8")
    with pytest.raises(NativeError, match="same length"):
        list(gpa.read(tmp_path))
    path.write_text(json.dumps(whole | {"images": [{"file_name": "12.jpg"}] * 5}), encoding="utf-8")
    with pytest.raises(NativeError, match="ten digits"):
        list(gpa.read(tmp_path))


def test_damaged_files(tmp_path):
    check_mutations(write, gpa.read, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, gpa.read, tmp_path, n=200)


@pytest.mark.parametrize("nested", [False, True])
def test_masks_of_people(tmp_path, nested):
    write(tmp_path)
    assert not any(isinstance(image, Masked) for _, image in gpa.read(tmp_path))
    mask = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    mask[20:60, 40:70] = 200
    folder = tmp_path / "img_jpg_new_resnet101deeplabv3humanmask" / ("000000/00" if nested else "")
    for number in (3, 11):
        write_image(folder / f"{number:010d}_mask.jpg", mask)
    rows = {e.frame: image for e, image in gpa.read(tmp_path)}
    assert {frame for frame, image in rows.items() if isinstance(image, Masked)} == {3, 11}
    found = decode_mask(rows[11].mask(), SIZE)
    assert found[22:58, 42:68].all() and not found[:16].any() and not found[:, 78:].any()
    write_image(folder / "0000000011_mask.jpg", mask[:40])
    with pytest.raises(NativeError, match="0000000011.jpg: mask: expected .96, 80.*found .96, 40"):
        rows[11].mask()
