"""UMPM: a tiny data set in the owners' layout, written here, read back, and damaged."""

import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, opencv_project, people, picture, ring, shows, write_c3d, write_video

from acae_nb.datasets import umpm
from acae_nb.datasets.native_files import NativeError

SIZE, NAMES = (96, 80), "fsrl"  # the real videos are 644 x 484 px
SEQUENCES = {"p1_table_2": (1, "calib_l06"), "p2_free_1": (2, "calib_n27")}  # the JSON file of the second is broken
LENS = [-0.2, 0.1, 0.01, -0.005]


def write(root):
    """NAME.json: {"id", "calib", ...,} with a comma too many; Calib/CALIB_f.ini: K (3 lines), 4 lens coefficients,
    rotation vector, translation mm Groundtruth/NAME_vm.c3d: 15 points a person, 100 Hz, mm, z up; Video/NAME_f.avi: 50
    Hz

    """
    truth = {}
    for q, (name, (persons, calibration)) in enumerate(SEQUENCES.items()):
        root.mkdir(parents=True, exist_ok=True)
        entries = f'"id":"{name}",\n  "bg":"backgr_l06_7",\n  "calib":"{calibration}",\n  "video_dir":"Video",'
        text = f"{{\n  {entries}\n}}\n"
        (root / f"{name}.json").write_text(text if name != "p2_free_1" else text[:20], encoding="utf-8")
        (root / "p2_free_2.json").write_text("broken", encoding="utf-8")
        world = np.concatenate(
            [people(10 * q + p, 5, n_joints=15, centre=(600 * p - 300, 0, 0)) for p in range(persons)], 1
        )
        world[2, 4] = np.nan
        write_c3d(root / f"Groundtruth/{name}_vm.c3d", world)
        places, rotations = ring(4, turn=0.3 + q)
        for c, (camera, place, R) in enumerate(zip(NAMES, places, rotations)):
            K = np.array([[95.0 + c, 0, 48.5], [0, 96, 39.5], [0, 0, 1]])
            lines = [*K, LENS, cv2.Rodrigues(R)[0].ravel(), -R @ place]
            path = root / f"Calib/{calibration}_{camera}.ini"
            path.parent.mkdir(exist_ok=True)
            path.write_text(
                "".join("  ".join(repr(float(v)) for v in line) + " \n" for line in lines), encoding="utf-8"
            )
            write_video(root / f"Video/{name}_{camera}.avi", [picture(4 * c + t, SIZE) for t in range(3)])
            for t in range(3):
                for p in range(persons):
                    joints = world[2 * t, 15 * p : 15 * p + 15]
                    truth[name, camera, t, p] = joints, opencv_project(joints, K, LENS, R, place), 4 * c + t
    return truth


def test_reads_what_was_written(tmp_path):
    truth = write(tmp_path / "umpm")
    rows = list(umpm.read(tmp_path / "umpm"))
    assert len(rows) == len(truth) == 4 * 3 * 3 and len({e.example_id for e, _ in rows}) == len(rows)
    for (example, image), ((name, camera, frame, person), (joints, px, number)) in zip(rows, truth.items()):
        assert (example.sequence, example.camera_name, example.frame, example.subject) == (
            name,
            camera,
            frame,
            f"{name} {person}",
        )
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert (
            example.image_size == SIZE and shows(image.load(), number) and tuple(example.camera.world_up) == (0, 0, 1)
        )
        assert holds(example.box, px, SIZE)
    assert np.isnan(rows[1][0].joints3d[4]).all()


def test_refuses(tmp_path):
    root = tmp_path / "umpm"
    with pytest.raises(NativeError, match="uu.nl/umpm"):
        list(umpm.read(root))
    write(root)
    with pytest.raises(NativeError, match="split"):
        list(umpm.read(root, "test"))
    write_video(root / "Video/p1_table_2_s.avi", [picture(0, SIZE)])
    with pytest.raises(NativeError, match="p1_table_2_s.avi: rows: .*frame 1: expected one of the 1 frames"):
        list(umpm.read(root))
    write_c3d(root / "Groundtruth/p1_table_2_vm.c3d", people(0, 4, n_joints=14))
    with pytest.raises(NativeError, match="p1_table_2_vm.c3d: points: expected 15 or 30.*found 14"):
        list(umpm.read(root))


def write_whole_json(root):
    write(root)
    for path in root.glob("*.json"):
        path.write_text(
            '{{"id": "{}", "calib": "{}"}}'.format(path.stem, SEQUENCES.get(path.stem, ("", ""))[1]), encoding="utf-8"
        )


def test_damaged_files(tmp_path):
    check_mutations(write_whole_json, umpm.read, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write_whole_json, umpm.read, tmp_path, n=200)
