"""TotalCapture: a tiny data set in the owners' layout, written here, read back, and damaged."""

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, opencv_project, people, picture, ring, shows, write_video

from acae_nb.datasets import totalcapture
from acae_nb.datasets.native import Masked
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

SIZE = (96, 80)  # the real ones are 1920 x 1080 px, and eight cameras
JOINTS = (
    "Hips Spine Spine1 Spine2 Spine3 Neck Head RightShoulder RightArm RightForeArm RightHand LeftShoulder LeftArm "
    "LeftForeArm LeftHand "
    "RightUpLeg RightLeg RightFoot LeftUpLeg LeftLeg LeftFoot"
).split()
TAKES = {
    "train": [("S1", "acting1"), ("S2", "rom3")],
    "test": [("S1", "walking2"), ("S4", "walking2")],
    None: [("S4", "rom3")],
}


def write(root):
    """calibration.cal: "cameras order", then 7 lines a camera: min and max row and column; fx fy cx cy; k1; R (3
    lines); t in m, x_cam = R x + t vicon/S1/acting1/gt_skel_gbl_pos.txt: names between tabs; a line a frame, "x y z"
    between tabs, inches, y up; gt_skel_gbl_ori.txt: "x y z w" video/s1/acting1/TC_S1_acting1_cam1.mp4

    """
    places, rotations = ring(2, radius=4.0, height=1.6, target=(0, 0.9, 0), up=(0, 1, 0))
    root.mkdir(parents=True, exist_ok=True)
    text, inner = "2 1\n", [(95.0, 96.0, 48.5, 39.5), (97.0, 98.0, 47.5, 40.5)]
    for R, c, K in zip(rotations, places, inner):
        text += "0 79 0 95\n" + " ".join(map(str, K)) + "\n-0.18\n"
        text += (
            "".join(" ".join(repr(float(v)) for v in r) + "\n" for r in R)
            + " ".join(repr(float(v)) for v in -R @ c)
            + "\n"
        )
    (root / "calibration.cal").write_text(text, encoding="utf-8")
    truth = {}
    for number, (split, subject, take) in enumerate((s, *t) for s, ts in TAKES.items() for t in ts):
        joints = people(number, 3, n_joints=21, up=1)
        joints[1, 6] = np.nan
        path = root / "vicon" / subject / take / "gt_skel_gbl_pos.txt"
        path.parent.mkdir(parents=True)
        lines = ["\t".join(" ".join(f"{v / 25.4:.5f}" for v in p) for p in pose) + "\t" for pose in joints]
        path.write_text("\t".join(JOINTS) + "\t\n" + "\n".join(lines) + "\n", encoding="utf-8")
        path.with_name("gt_skel_gbl_ori.txt").write_text(
            "\t".join(JOINTS) + "\t\n" + 3 * ("\t".join(["0 0 0 1"] * 21) + "\t\n"), encoding="utf-8"
        )
        for c, (R, place, (fx, fy, cx, cy)) in enumerate(zip(rotations, places, inner)):
            write_video(
                root / "video" / subject.lower() / take / f"TC_{subject}_{take}_cam{c + 1}.mp4",
                [picture(4 * c + t, SIZE) for t in range(3 + c)],
                60,
            )
            for t in range(3):
                px = opencv_project(joints[t], [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], [-0.18, 0, 0, 0], R, 1000 * place)
                truth[split, subject, take, f"cam{c + 1}", t] = joints[t], px, 4 * c + t
    return truth


@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_what_was_written(tmp_path, split):
    truth = {k: v for k, v in write(tmp_path).items() if k[0] == split}
    rows = list(totalcapture.read(tmp_path, split))
    assert len(rows) == len(truth) == 2 * 2 * 3 and len({e.example_id for e, _ in rows}) == len(rows)
    for (example, image), (key, (joints, px, number)) in zip(rows, truth.items()):
        assert (example.split, example.subject, example.sequence, example.camera_name, example.frame) == key
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert (
            example.image_size == SIZE and shows(image.load(), number) and tuple(example.camera.world_up) == (0, 1, 0)
        )
        assert holds(example.box, px, SIZE)
    assert np.isnan(rows[1][0].joints3d[6]).all()


def test_the_shorter_of_video_and_poses_counts(tmp_path):
    write(tmp_path)
    write_video(tmp_path / "video/s1/acting1/TC_S1_acting1_cam1.mp4", [picture(t, SIZE) for t in range(2)])
    rows = [e for e, _ in totalcapture.read(tmp_path) if e.sequence == "acting1"]
    assert [e.frame for e in rows] == [0, 1, 0, 1, 2]


def test_refuses(tmp_path):
    with pytest.raises(NativeError, match="cvssp.org"):
        list(totalcapture.read(tmp_path))
    write(tmp_path)
    with pytest.raises(NativeError, match="split"):
        list(totalcapture.read(tmp_path, "val"))
    path = tmp_path / "vicon/S2/rom3/gt_skel_gbl_pos.txt"
    text = path.read_text("utf-8")
    for bad in (
        text.replace("Spine3\tNeck", "Neck\tSpine3"),
        text.replace("\t", " ", 3).rsplit(" ", 1)[0],
        text.replace(".", "x", 1),
    ):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(NativeError, match="gt_skel_gbl_pos.txt"):
            list(totalcapture.read(tmp_path))
    path.write_text(text, encoding="utf-8")
    (tmp_path / "video/s2/rom3/TC_S2_rom3_cam2.mp4").unlink()
    with pytest.raises(NativeError, match="TC_S2_rom3_cam2.mp4"):
        list(totalcapture.read(tmp_path))


def test_damaged_files(tmp_path):
    check_mutations(write, totalcapture.read, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, totalcapture.read, tmp_path, n=200)


def test_mattes_become_masks(tmp_path):
    write(tmp_path)
    rows = list(totalcapture.read(tmp_path))
    assert not any(isinstance(image, Masked) for _, image in rows)
    for video in (tmp_path / "video").rglob("*.mp4"):
        mattes = [np.zeros((SIZE[1], SIZE[0], 3), np.uint8) for _ in range(2)]
        mattes[1][20:60, 40:70] = 255
        write_video(tmp_path / "mattes" / video.relative_to(tmp_path / "video"), mattes)
    masked = list(totalcapture.read(tmp_path))
    assert [e.example_id for e, _ in masked] == [e.example_id for e, _ in rows]
    for (example, image), (_, before) in zip(masked, rows):
        assert isinstance(image, Masked) == (example.frame < 2)  # these mattes end before the video
        assert (image.load() == before.load()).all() and image.size == before.size and image.index == before.index
        if example.frame < 2:
            mask = decode_mask(image.mask(), SIZE)
            assert (mask[22:58, 42:68] == (example.frame == 1)).all() and not mask[:16].any() and not mask[:, 74:].any()
    (tmp_path / "mattes/s1/acting1/TC_S1_acting1_cam1.mp4").unlink()
    with pytest.raises(NativeError, match="mattes/s1/acting1/TC_S1_acting1_cam1.mp4"):
        list(totalcapture.read(tmp_path))
