"""MuCo-3DHP: a tiny set of composites in the owners' layout, written here, read back, and damaged."""

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_image, write_video

from acae_nb.datasets import muco
from acae_nb.datasets.native import Masked
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

SIZE, FRAMES = (64, 64), 3
COMPOSITES = [
    [(1, 1, 0, 0), (3, 2, 1, 2), (3, 2, 0, 1), (1, 1, 1, 1)],
    [(3, 2, 0, 0), (1, 1, 0, 2), (1, 1, 1, 0), (3, 2, 1, 1)],
    [(1, 1, 0, 1)] * 4,
]


def put(file, name, value, kind):
    file.create_dataset(name, data=value).attrs["MATLAB_class"] = np.bytes_(kind)
    return file[name].ref


def write(root):
    """sampled_dataset_info.mat (HDF5): composite_info, on disk [4, n] references to [1, 1] cells to [4, 1] numbers:
    subject, sequence, camera, frame. unaugmented_set_001/NUMBER6.jpg from 1; the recordings as MPI-INF-3DHP stores
    them."""
    seen = {}
    for s, q in ((1, 1), (3, 2)):
        folder, world = root / f"mpi_inf_3dhp/S{s}/Seq{q}", people(s, FRAMES, n_joints=28, up=1)
        if s == 3:
            world[1, [3, 8]] = np.nan
        text, poses, pixels = (
            "Skeletool Camera Calibration File V1.0\n",
            np.empty((2, 1), object),
            np.empty((2, 1), object),
        )
        for c, (place, turn) in enumerate(zip(*ring(2, up=(0, 1, 0), target=(0, 900, 0), turn=s))):
            K = np.array([[52 + c + s, 0, 31.5], [0, 56, 30.5], [0, 0, 1]])
            poses[c, 0] = ((world - place) @ turn.T).reshape(FRAMES, 84)
            px = opencv_project(world, K, np.zeros(5), turn, place)
            pixels[c, 0] = px.reshape(FRAMES, 56)

            def matrix(m):
                return " ".join(f"{v:.12g}" for v in np.r_[m.ravel(), 0, 0, 0, 1])

            text += f"name {c}\n  sensor 10 10\n  size 64 64\n  animated 0\n"
            text += f"  intrinsic {matrix(np.c_[K, np.zeros(3)])} \n"
            text += f"  extrinsic {matrix(np.c_[turn, -turn @ place])} \n  radial 0\n"
            for f in range(FRAMES):
                seen[s, q, c, f] = world[f], px[f]
        folder.mkdir(parents=True)
        (folder / "camera.calibration").write_text(text, encoding="utf-8")
        scipy.io.savemat(folder / "annot.mat", dict(annot2=pixels, annot3=poses, univ_annot3=poses))
    with h5py.File(root / "sampled_dataset_info.mat", "w") as file:
        refs = np.empty((4, len(COMPOSITES)), h5py.ref_dtype)
        for k, four in enumerate(COMPOSITES):
            for p, who in enumerate(four):
                numbers = put(file, f"#refs#/n{k}_{p}", np.array(who, float)[:, None], "double")
                refs[p, k] = put(file, f"#refs#/c{k}_{p}", np.array([[numbers]], h5py.ref_dtype), "cell")
        put(file, "composite_info", refs, "cell")
    for k in (0, 1):
        write_image(root / f"unaugmented_set_001/{k + 1:06d}.jpg", picture(k, SIZE))
    return {f"{k + 1:06d}/{p}": (*seen[who], k) for k in (0, 1) for p, who in enumerate(COMPOSITES[k])}


def test_reads_what_was_written(tmp_path):
    truth, rows = write(tmp_path), list(muco.read(tmp_path))
    assert [e.example_id for e, _ in rows] == sorted(truth)
    for e, image in rows:
        world, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.frame, e.image_size) == ("muco", "train", number + 1, SIZE) and shows(
            image.load(), number
        )
        inside = px[((px > -0.5) & (px < 63.5)).all(1)]
        assert (inside >= e.box[:2]).all() and (inside <= e.box[:2] + e.box[2:]).all()
    assert (rows[1][0].subject, rows[1][0].sequence, rows[1][0].camera_name) == ("S3", "S3/Seq2", "1")


def test_recordings_elsewhere_and_absent(tmp_path):
    write(tmp_path)
    (tmp_path / "mpi_inf_3dhp").rename(tmp_path / "elsewhere")
    assert len(list(muco.read(tmp_path, recordings=tmp_path / "elsewhere"))) == 8
    with pytest.raises(NativeError, match="MPI-INF-3DHP"):
        list(muco.read(tmp_path))
    with pytest.raises(NativeError, match="MuCo-3DHP.*SingleShotMultiPerson"):
        list(muco.read(tmp_path / "none"))


def test_frames_counted_from_1(tmp_path):
    truth = write(tmp_path)
    with h5py.File(tmp_path / "sampled_dataset_info.mat", "a") as file:
        for k in range(len(COMPOSITES)):
            for p in range(4):
                file[f"#refs#/n{k}_{p}"][3] += 1
    for e, _ in muco.read(tmp_path, first=1):
        np.testing.assert_allclose(e.joints3d, truth[e.example_id][0], atol=0.01)
    with pytest.raises(NativeError, match="picture 1.*below 3"):
        list(muco.read(tmp_path))
    with h5py.File(tmp_path / "sampled_dataset_info.mat", "a") as file:
        file["#refs#/n1_2"][3] = 0
    with pytest.raises(NativeError, match="picture 2.*from 1"):
        list(muco.read(tmp_path, first=1))


def test_more_pictures_than_the_list_has(tmp_path):
    write(tmp_path)
    write_image(tmp_path / "unaugmented_set_001/000004.jpg", picture(3, SIZE))
    with pytest.raises(NativeError, match="composite_info.*4 .as there are pictures"):
        list(muco.read(tmp_path))


@pytest.mark.parametrize(
    "who, words",
    [((9, 1, 0, 0), "subject 1-8"), ((1, 1, 0, 3), "below 3"), ((1, 1, 5, 0), "camera 5"), ((2, 1, 0, 0), "S2/Seq1")],
)
def test_impossible_composites(tmp_path, who, words):
    write(tmp_path)
    with h5py.File(tmp_path / "sampled_dataset_info.mat", "a") as file:
        file["#refs#/n1_2"][:] = np.array(who, float)[:, None]
    with pytest.raises(NativeError, match=words):
        list(muco.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: muco.read(root), tmp_path, n=200 if nightly else 10)


def test_masks_of_everybody_and_every_chair(tmp_path):
    write(tmp_path)
    before = list(muco.read(tmp_path))
    assert not any(isinstance(image, Masked) for _, image in before)
    boxes = {COMPOSITES[e.frame - 1][int(e.example_id.split("/")[1])]: e.box.astype(int) for e, _ in before}
    masks = {}
    for s, q in ((1, 1), (3, 2)):
        for camera in (0, 1):
            people, chairs = [], []
            for frame in range(FRAMES):
                person = np.zeros((64, 64, 3), np.uint8)
                left, top, width, height = boxes.get((s, q, camera, frame), np.zeros(4, int))
                person[top : top + height, left : left + width, 0] = 255
                seat = np.full((64, 64, 3), 255, np.uint8)
                seat[40 : 48 + 4 * s, 4 + 4 * camera : 16 + 4 * camera, 0] = 0
                people.append(person), chairs.append(seat)
                masks[s, q, camera, frame] = person[..., 0] > 127, seat[..., 0] < 32
            folder = tmp_path / f"mpi_inf_3dhp/S{s}/Seq{q}"
            write_video(folder / f"FGmasks/video_{camera}.avi", people)
            write_video(folder / f"ChairMasks/video_{camera}.avi", chairs)
    rows = list(muco.read(tmp_path))
    assert [e.example_id for e, _ in rows] == [e.example_id for e, _ in before] and rows
    for example, image in rows:
        assert isinstance(image, Masked)
        mask = decode_mask(image.mask(), SIZE)
        want = np.zeros((64, 64), bool)
        for who in COMPOSITES[example.frame - 1]:
            want |= masks[who][0] | masks[who][1]
        border = cv2.dilate(want.astype(np.uint8), np.ones((5, 5))) != cv2.erode(want.astype(np.uint8), np.ones((5, 5)))
        assert want.any() and (mask == want)[~border].all()  # but for what a video's compression does to an edge
    (tmp_path / "mpi_inf_3dhp/S3/Seq2/ChairMasks/video_0.avi").unlink()
    assert not any(isinstance(image, Masked) for _, image in muco.read(tmp_path))
