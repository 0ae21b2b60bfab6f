"""IKEA ASM: a tiny set of recordings in the owners' layout, written here, read back, and damaged."""

import json
import pickle

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_video

from acae_nb.datasets import ikea
from acae_nb.datasets.native_files import NativeError

SIZE = (96, 54)
RECORDINGS = {
    "Lack_TV_Bench/0001_black_table_02_01_2019_08_16_14_00": "train",
    "Kallax_Shelf_Drawer/0007_oak_floor_05_02_2019_08_19_16_54": "train",
    "Lack_Side_Table/0003_white_floor_05_03_2019_08_20_10_00": "test",
    "Lack_Side_Table/0004_white_floor_02_03_2019_08_20_10_30": "train",
}  # the last one is not fetched


def write(root):
    """calibration.py and triangulate.py of the owners: pickled {scene: {dev: K R T}}, cm, frame of dev2; poses R x + T,
    zeros where not triangulated."""
    scenes, truth = {}, {}
    for s, scene in enumerate(("02", "05")):
        places, turns = ring(3, 350.0, 0.0, target=(0, 0, 300), up=(0, -1, 0), turn=0.5 + s)
        K = np.array([[78.0 + s, 0, 48], [0, 78, 27], [0, 0, 1]])
        scenes[scene] = {}
        for d in range(3):
            place = places[d] + [0, 0, 300]
            z = np.array([0, 0, 300.0]) - place
            z /= np.linalg.norm(z)
            x = np.cross([0, 1, 0], z)
            x /= np.linalg.norm(x)
            turn = np.stack([x, np.cross(z, x), z])
            T = (-turn @ place)[:, None]
            scenes[scene][f"dev{d + 1}"] = dict(K=K, dist_coefs=np.zeros((5, 1)), R=turn, T=T, P=K @ np.c_[turn, T])
    (root / "Calibration").mkdir()
    with open(root / "Calibration/camera_parameters.pkl", "wb") as file:
        pickle.dump(scenes, file, 2)
    for split in ("train", "test"):
        (root / f"{split}_cross_env.txt").write_text(
            "".join(f"{n}\n" for n, s in RECORDINGS.items() if s == split), encoding="utf-8"
        )
    for i, (name, split) in enumerate(list(RECORDINGS.items())[:3]):
        for d, frames in ((1, (1, 3)), (3, (3,))):
            camera = scenes[name.split("_floor_" if "floor" in name else "_table_")[1][:2]][f"dev{d}"]
            write_video(root / name / f"dev{d}/images/scan_video.avi", [picture(f + d, SIZE) for f in range(5)])
            for f in frames:
                cm = people(10 * i + f, n_joints=17, up=1, height=170) * [0.1, -1, 0.1] + [0, 80, 300]
                seen = cm @ camera["R"].T + camera["T"][:, 0]
                if f == 3:
                    seen[5:8] = 0
                path = root / name / f"dev{d}/pose3d/{f:06d}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(
                    json.dumps(
                        dict(format="ikea", pose_keypoints_3d=np.c_[seen, (seen != 0).any(1) * 0.8].ravel().tolist())
                    ),
                    encoding="utf-8",
                )
                world = np.where((seen != 0).any(1, keepdims=True), cm * 10, np.nan)
                px = opencv_project(
                    cm * 10, camera["K"], np.zeros(5), camera["R"], -camera["R"].T @ camera["T"][:, 0] * 10
                )
                truth[f"{name}/dev{d}/{f:06d}"] = split, world, np.where(np.isnan(world[:, :2]), np.nan, px), f + d
    return truth


@pytest.mark.parametrize("split, count", [("train", 6), ("test", 3)])
def test_reads_what_was_written(tmp_path, split, count):
    truth, rows = write(tmp_path), list(ikea.read(tmp_path, split))
    assert [e.example_id for e, _ in rows] == sorted(i for i, t in truth.items() if t[0] == split) and len(
        rows
    ) == count
    for e, image in rows:
        _, world, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, e.camera_name) == (
            "ikea",
            split,
            SIZE,
            e.example_id.split("/")[2],
        ) and shows(image.load(), number)
        inside = px[((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)]
        assert (inside >= e.box[:2]).all() and (inside <= e.box[:2] + e.box[2:]).all()


def test_refusals(tmp_path):
    with pytest.raises(NativeError, match="IKEA ASM.*ikeaasm"):
        next(ikea.read(tmp_path / "none"))
    write(tmp_path)
    with open(tmp_path / "Calibration/camera_parameters.pkl", "wb") as file:
        pickle.dump({"02": {}}, file)
    with pytest.raises(NativeError, match="camera_parameters.pkl: 05"):
        list(ikea.read(tmp_path))
    (tmp_path / "train_cross_env.txt").write_text("Lack_TV_Bench\n", encoding="utf-8")
    with pytest.raises(NativeError, match="train_cross_env.txt: line 'Lack_TV_Bench'"):
        list(ikea.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: ikea.read(root), tmp_path, n=200 if nightly else 10)
