"""HUMBI: two tiny subjects in the owners' layout, written here, read back, and damaged."""

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_image

from acae_nb.datasets import humbi
from acae_nb.datasets.native_files import NativeError

SIZE, CAMERAS = (96, 54), (3, 41)


def write(root):
    """subject_N/body/{intrinsic,extrinsic}.txt: 3 lines of heading, `0 camera`, [place], matrix rows;
    SNAPSHOT8/image/imageCAMERA7.jpg; reconstruction/keypoints.txt, metres."""
    truth = {}

    def lines(m):
        return "".join(" ".join(repr(float(v)) for v in r) + "\n" for r in np.atleast_2d(m))

    for s, subject in enumerate(("subject_4", "subject_88")):
        body = root / subject / "body"
        head = "NumCameras: 107\nNumFrames: 1\nNumP: 107\n"
        inner, outer, cameras = head, head, {}
        places, turns = ring(2, 3500.0, 1300.0, target=(0, 900, 0), up=(0, 1, 0), turn=s)
        down = np.diag([1.0, -1.0, -1.0])
        for c, place, turn in zip(CAMERAS, places @ down, turns @ down):
            K = np.array([[80.0 + s, 0, 48], [0, 80, 27], [0, 0, 1]])
            inner += f"0 {c}\n" + lines(K)
            outer += f"0 {c}\n" + lines(place / 1000) + lines(turn)
            cameras[c] = K, turn, place
        body.mkdir(parents=True)
        (body / "intrinsic.txt").write_text(inner, encoding="utf-8")
        (body / "extrinsic.txt").write_text(outer, encoding="utf-8")
        for snap in (1, 25):
            world = people(10 * s + snap, n_joints=25, up=1) @ down
            if snap == 25:
                world[[17, 22]] = 0 if s else np.nan
            folder = body / f"{snap:08d}"
            (folder / "reconstruction").mkdir(parents=True)
            (folder / "reconstruction/keypoints.txt").write_text(lines(world / 1000), encoding="utf-8")
            known = np.where((world == 0).all(1, keepdims=True), np.nan, world)
            for c in (*CAMERAS, 77):  # 77 is not calibrated
                write_image(folder / f"image/image{c:07d}.jpg", picture(c, SIZE))
                if c != 77:
                    truth[f"{subject}/{snap:08d}/{c:03d}"] = (
                        known,
                        np.where(
                            np.isnan(known[:, :2]),
                            np.nan,
                            opencv_project(world, cameras[c][0], np.zeros(5), *cameras[c][1:]),
                        ),
                        c,
                    )
    return truth


def test_reads_what_was_written(tmp_path):
    truth, rows = write(tmp_path), list(humbi.read(tmp_path))
    assert [e.example_id for e, _ in rows] == list(truth) and len(rows) == 8
    for e, image in rows:
        world, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, e.subject, e.frame) == (
            "humbi",
            "train",
            SIZE,
            e.example_id.split("/")[0],
            int(e.example_id.split("/")[1]),
        ) and shows(image.load(), number)
        inside = px[((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)]
        assert (
            (inside >= e.box[:2]).all()
            and (inside <= e.box[:2] + e.box[2:]).all()
            and e.camera.world_up.tolist() == [0, -1, 0]
        )
    left_out = "subject_4/body/00000001/image/image0000003.jpg"
    assert len(list(humbi.read(tmp_path, subjects="subject_4", without=[left_out]))) == 3


@pytest.mark.parametrize(
    "name, old, new, words",
    [
        ("intrinsic.txt", "0 41", "0 3", "intrinsic.txt: camera 3: expected one block"),
        ("extrinsic.txt", "0 41\n", "", "extrinsic.txt: lines: expected blocks of 5"),
        ("extrinsic.txt", "0 41\n", "0 42\n", "none of number"),
        ("intrinsic.txt", "80.0", "8O.0", "intrinsic.txt: line"),
        ("00000001/reconstruction/keypoints.txt", "\n", "\n1 2 3\n", "keypoints.txt: rows: .*lines"),
    ],
)
def test_damage_is_named(tmp_path, name, old, new, words):
    write(tmp_path)
    path = tmp_path / "subject_4/body" / name
    assert old in path.read_text("utf-8")
    path.write_text(path.read_text("utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(NativeError, match=words):
        list(humbi.read(tmp_path))


def test_absent(tmp_path):
    with pytest.raises(NativeError, match="HUMBI.*humbi-data.net"):
        next(humbi.read(tmp_path / "none"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: humbi.read(root), tmp_path, n=200 if nightly else 10)
