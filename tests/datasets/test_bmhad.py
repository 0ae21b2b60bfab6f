"""Berkeley MHAD: a tiny data set in the owners' layout, written here, read back, and damaged."""

import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import holds, people, picture, ring, shows, write_c3d

from acae_nb.datasets import bmhad
from acae_nb.datasets.native_files import NativeError

SIZE = (96, 80)  # the real ones are 640 x 480 px
CLUSTERS = {
    "l01": 2,
    "l02": 1,
    "l03": 1,
    "l04": 1,
    "k01": 1,
    "k02": 1,
}  # the real l01 and l02 have four cameras, l03 and l04 two
TAKES = ["s01_a01_r01", "s05_a02_r05"]  # the second lacks the images of clusters 3 and 4
LENS = np.array([-0.2, 0.1, 0.01, -0.005])


def mosaic(image):
    "What the sensor sees: green red / blue green."
    raw = image[..., 1].copy()
    raw[0::2, 1::2], raw[1::2, 0::2] = image[0::2, 1::2, 0], image[1::2, 0::2, 2]
    return raw


def write(root):
    """Mocap/OpticalData/moc_TAKE.c3d   43 markers, mm; calibration world = (-x, z, y) of it
    Camera/Correspondences/corr_moc_img_TAKE.txt, Kinect/Correspondences/corr_moc_kin01_TAKE.txt   image, time, row of
    the C3D file Camera/Cluster01/Cam01/S01/A01/R01/img_l01_c01_TAKE_00000.pgm;
    Kinect/Kin01/S01/A01/R01/kin_k01_TAKE_color_00000.ppm Calibration/RwTw_l01.txt, camcfg_l01.yml   x_cam = Rrel (Rw x
    + Tw) + trel

    """
    (root / "Calibration").mkdir(parents=True)
    cameras, turns = {}, iter(zip(*ring(7, target=(0, 900, 0), up=(0, 1, 0))))
    for name, n in CLUSTERS.items():
        Rw, Tw = cv2.Rodrigues(np.array([0.1, -0.2, 0.3]))[0], np.array([100.0, -50, 900])

        def flat(v):
            return " ".join(repr(float(x)) for x in np.ravel(v))

        (root / f"Calibration/RwTw_{name}.txt").write_text(f"Rw={flat(Rw)} \nTw={flat(Tw)} \n", encoding="utf-8")
        storage = cv2.FileStorage(str(root / f"Calibration/camcfg_{name}.yml"), cv2.FILE_STORAGE_WRITE)
        storage.write("Number of cameras", n)
        cameras[name] = []
        for i in range(n):
            place, R = next(turns)
            K = np.array([[95.0 + i, 0, 48.5], [0, 96, 39.5], [0, 0, 1]])
            Rrel = R @ Rw.T  # R x - R place = Rrel (Rw x + Tw) + trel
            trel = -R @ place - Rrel @ Tw
            storage.startWriteStruct(f"Camera_{i + 1}", cv2.FileNode_MAP)
            storage.write("K", K)
            storage.write("Dist", LENS.reshape(4, 1))
            storage.write("PosRel", np.r_[trel, cv2.Rodrigues(Rrel)[0].ravel()].reshape(1, 6))
            storage.endWriteStruct()
            cameras[name].append((K, R, place))
        storage.release()
    truth = {}
    for q, take in enumerate(TAKES):
        world = people(q, 9, n_joints=43, up=1)
        world[4, 7] = np.nan
        write_c3d(root / f"Mocap/OpticalData/moc_{take}.c3d", world[..., [0, 2, 1]] * [-1, 1, 1], rate=480.0)
        folder = take.upper().replace("_", "/")
        for name, list_ in cameras.items():
            kinect, number = name[0] == "k", name[1:]
            lines = [1, 4] if kinect else [0, 4, 8]
            table = root / (
                f"Kinect/Correspondences/corr_moc_kin{number}_{take}.txt"
                if kinect
                else f"Camera/Correspondences/corr_moc_img_{take}.txt"
            )
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text(
                "".join(f"{i} {1000.5 + 45 * i:.3f} {line}\n" for i, line in enumerate(lines)), encoding="utf-8"
            )
            if take == "s05_a02_r05" and name in ("l03", "l04"):
                continue
            for i, (K, R, place) in enumerate(list_, 1):
                for t, line in enumerate(lines):
                    image = picture(3 * q + t, SIZE)
                    if kinect:
                        path, data = (
                            root / f"Kinect/Kin{number}/{folder}/kin_{name}_{take}_color_{t:05d}.ppm",
                            b"P6\n96 80\n255\n" + image.tobytes(),
                        )
                    else:
                        path = (
                            root / f"Camera/Cluster{number}/Cam{i:02d}/{folder}/img_{name}_c{i:02d}_{take}_{t:05d}.pgm"
                        )
                        data = b"P5\n96 80\n255\n" + mosaic(image).tobytes()
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(data)
                    px = cv2.projectPoints((world[line] - place) @ R.T, np.zeros(3), np.zeros(3), K, LENS)[0][:, 0]
                    truth[take, name if kinect else f"{name}_c{i:02d}", t] = world[line], px, 3 * q + t
    return truth


def test_reads_what_was_written(tmp_path):
    truth = write(tmp_path / "bmhad")
    rows = list(bmhad.read(tmp_path / "bmhad"))
    assert len(rows) == len(truth) == 5 * 3 + 2 * 2 + 3 * 3 + 2 * 2 and len({e.example_id for e, _ in rows}) == len(
        rows
    )
    for (example, image), ((take, camera, frame), (joints, px, number)) in zip(rows, truth.items()):
        assert (example.subject, f"{example.subject}_{example.sequence}", example.camera_name, example.frame) == (
            take[:3],
            take,
            camera,
            frame,
        )
        np.testing.assert_allclose(example.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), px, atol=0.1)
        assert (
            image.size == example.image_size == SIZE
            and shows(image.load(), number)
            and image.load()[..., 1].mean() > 55
        )
        assert tuple(example.camera.world_up) == (0, 1, 0)
        assert holds(example.box, px, SIZE)
    assert np.isnan(rows[1][0].joints3d[7]).all()


def test_refuses(tmp_path):
    root = tmp_path / "bmhad"
    with pytest.raises(NativeError, match="berkeley_mhad"):
        list(bmhad.read(root))
    write(root)
    with pytest.raises(NativeError, match="split"):
        list(bmhad.read(root, "test"))
    table = root / "Camera/Correspondences/corr_moc_img_s01_a01_r01.txt"
    table.write_text("0 1.0 0\n1 2.0 9\n", encoding="utf-8")
    with pytest.raises(NativeError, match="corr_moc_img_s01_a01_r01.txt: rows: .*line 2"):
        list(bmhad.read(root))
    table.write_text("0 1.0 0\n1 2.0 3\n2 2.0 4\n3 2.0 5\n", encoding="utf-8")
    with pytest.raises(NativeError, match="img_l01_c01_s01_a01_r01_00003.pgm"):
        list(bmhad.read(root))


def read_some(root):
    return bmhad.read(root, clusters=["l01", "k01"])


def test_damaged_files(tmp_path):
    check_mutations(write, read_some, tmp_path, n=10)


@pytest.mark.nightly
def test_many_damaged_files(tmp_path):
    check_mutations(write, read_some, tmp_path, n=200)
