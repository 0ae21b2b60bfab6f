"""MPI-INF-3DHP: tiny training and test sequences in the owners' layout, written here, read back, and damaged."""

import h5py
import numpy as np
import pytest
import scipy.io
from mutations import check_mutations
from native_scene import look_at, opencv_project, people, picture, ring, shows, write_image, write_video

from acae_nb.datasets import mpi_inf_3dhp, mpi_inf_3dhp_test
from acae_nb.datasets.native import Masked
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask
from acae_nb.geometry.cameras import Camera

SIZE, FRAMES = (64, 64), 3  # the real ones are 2048 x 2048 px
LENS = [-0.277, 0.131, -0.00036, -0.00115, -0.0493]


def cells(arrays):
    "Matlab's cell array, n x 1."
    out = np.empty((len(arrays), 1), object)
    for i, a in enumerate(arrays):
        out[i, 0] = a
    return out


def flat(matrix, corner=(0, 0, 0, 1)):
    return " ".join(f"{v:.12g}" for v in np.r_[np.asarray(matrix).ravel(), corner])


def write_train(root):
    """S*/Seq*/annot.mat: cells of 14 (here 2) cameras, [F, 84] mm in the camera's frame and [F, 56] px;
    camera.calibration; imageSequence/video_C.avi."""
    truth = {}
    for s, sequence in enumerate(("S1/Seq1", "S2/Seq2")):
        folder, world = root / sequence, people(s, FRAMES, n_joints=28, up=1)
        if s:
            world[1, [12, 17]] = np.nan  # hands missing in one frame
        text, seen, pixels = "Skeletool Camera Calibration File V1.0\n", [], []
        for c, (place, turn) in enumerate(zip(*ring(2, up=(0, 1, 0), target=(0, 900, 0), turn=s + 1))):
            K = np.array([[55 + c, 0, 31.5], [0, 56, 30.5 + s], [0, 0, 1]])
            seen.append((world - place) @ turn.T)
            pixels.append(opencv_project(world, K, np.zeros(5), turn, place))
            text += (
                f"name          {c}\n  sensor        10 10\n  size          {SIZE[0]} {SIZE[1]}\n  animated      0\n"
                f"  intrinsic     {flat(np.c_[K, np.zeros(3)])} \n"
                f"  extrinsic     {flat(np.c_[turn, -turn @ place])} \n  radial        0\n"
            )
            write_video(folder / f"imageSequence/video_{c}.avi", [picture(f + 5 * c, SIZE) for f in range(FRAMES + s)])
            truth |= {f"{sequence}/{c}/{f:06d}": (world[f], pixels[c][f], f + 5 * c) for f in range(FRAMES)}
        (folder / "camera.calibration").write_text(text, encoding="utf-8")
        scipy.io.savemat(
            folder / "annot.mat",
            dict(
                annot2=cells([p.reshape(FRAMES, 56) for p in pixels]),
                annot3=cells([p.reshape(FRAMES, 84) for p in seen]),
                univ_annot3=cells([0.9 * p.reshape(FRAMES, 84) for p in seen]),
                cameras=np.arange(2)[None],
                frames=np.arange(FRAMES)[:, None],
            ),
        )
    return truth


def captury(number, focal, place, turn, lens, size):
    "A camera of a .calib file."

    def words(v):
        return " ".join(map(repr, np.asarray(v, float).tolist()))

    return (
        f"camera\t{number}\t(a)\n\tframe\t0\n\t\tsensorSize\t10 {10 * size[1] / size[0]}\t\t\t# in mm\n"
        f"\t\tfocalLength\t{focal}\t# in mm\n\t\tpixelAspect\t0.99\n"
        f"\t\tcenterOffset\t-0.1 0.2\t# in mm\n\t\tdistortionModel\tOpenCV\n"
        f"\t\tdistortion\t{words(lens)}\n\t\torigin\t{words(place)}\n"
        f"\t\tup\t{words(-turn[1])}\n\t\tright\t{words(turn[0])}\n\t\tcolorCorrection\n\t\t\tred\t1 0 0\n"
    )


def write_test(root, folder="mpi_inf_3dhp_test_set"):
    """mpi_inf_3dhp_test_set/TS*/annot_data.mat (Matlab 7.3; on disk [F, 1, 17, 3]), imageSequence/img_FRAME6.jpg from
    1, two .calib files."""
    truth, root = {}, root / folder
    for name, calib, (w, h), lens in (
        ("TS2", "ts1-4", (64, 64), np.zeros(5)),
        ("TS6", "ts5-6", (96, 54), np.array(LENS)),
    ):
        places, turns = ring(3, up=(0, 1, 0), target=(0, 900, 0), turn=2)
        place, turn, focal, others = places[0], turns[0], 8.5, []
        if (
            calib == "ts1-4"
        ):  # the studio's file has other cameras before and after the benchmark's, which is known by its numbers
            place, focal, others = np.array([3427.28, 1387.86, 309.42]), 7.325058937, [1, 2]
            turn = look_at(place, (0, 900, 0), (0, 1, 0))
        cameras = [
            captury(8, focal, place, turn, lens, (w, h)),
            *(captury(i, 7.32506, places[i], turns[i], lens, (w, h)) for i in others),
        ]
        (root / "test_util/camera_calibration").mkdir(parents=True, exist_ok=True)
        (root / f"test_util/camera_calibration/{calib}cameras.calib").write_text(
            "tc camera calibration v0.3\n" + "".join(np.roll(cameras, 1)), encoding="utf-8"
        )
        K = [[focal / 10 * w, 0, w / 2 - 0.1 / 10 * w], [0, focal / 10 * w * 0.99, h / 2 + 0.2 / 10 * w], [0, 0, 1]]
        world = people(7, FRAMES, n_joints=17, up=1)
        valid = np.array([1, 0, 1.0])
        if name == "TS6":
            world[2, 0] = np.nan
        (root / name / "imageSequence").mkdir(parents=True, exist_ok=True)
        with h5py.File(root / name / "annot_data.mat", "w") as file:
            for key, value in dict(
                annot3=((world - place) @ turn.T)[:, None],
                univ_annot3=0.9 * ((world - place) @ turn.T)[:, None],
                annot2=opencv_project(world, K, lens, turn, place)[:, None],
                valid_frame=valid[:, None],
                activity_annotation=np.array([1, 3, 7.0])[:, None],
                bb_crop=np.zeros((FRAMES, 34)),
            ).items():
                file[key] = value
                file[key].attrs["MATLAB_class"] = np.bytes_("double")
        for f in range(FRAMES):
            write_image(root / name / f"imageSequence/img_{f + 1:06d}.jpg", picture(f, (w, h)))
        truth |= {f"{name}/{f:06d}": (world[f], opencv_project(world[f], K, lens, turn, place), f) for f in (0, 2)}
    return truth


def check(truth, rows):
    assert {e.example_id for e, _ in rows} == set(truth) and len(rows) == len(truth)
    for e, image in rows:
        world, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert e.image_size == image.size and e.camera.world_up.tolist() == [0, 1, 0]
        inside = px[((px > -0.5) & (px < np.array(image.size) - 0.5)).all(1)]
        left, top, width, height = e.box
        assert (inside >= [left, top]).all() and (inside <= [left + width, top + height]).all()
        assert shows(image.load(), number)


def test_training_sequences(tmp_path):
    truth, rows = write_train(tmp_path), list(mpi_inf_3dhp.read(tmp_path))
    check(truth, rows)
    assert [e.example_id for e, _ in rows][::4] == ["S1/Seq1/0/000000", "S1/Seq1/1/000001", "S2/Seq2/0/000002"]
    e = rows[-1][0]
    assert (e.dataset, e.split, e.subject, e.sequence, e.camera_name, e.frame) == (
        "mpi_inf_3dhp",
        "train",
        "S2",
        "S2/Seq2",
        "1",
        2,
    )
    some = list(mpi_inf_3dhp.read(tmp_path, sequences="S2/*", cameras=[1], poses="univ_annot3"))
    assert len(some) == FRAMES and np.allclose(
        some[0][0].camera.to_camera(some[0][0].joints3d), 0.9 * e.camera.to_camera(truth["S2/Seq2/1/000000"][0])
    )


def test_test_sequences(tmp_path):
    truth, rows = write_test(tmp_path), list(mpi_inf_3dhp_test.read(tmp_path))
    check(truth, rows)
    assert [(e.sequence, e.split, e.subject, e.frame) for e, _ in rows] == [
        (f"{s}/{a}", "test", s, f) for s in ("TS2", "TS6") for a, f in (("Standing/Walking", 0), ("Miscellaneous", 2))
    ]
    assert len(list(mpi_inf_3dhp_test.read(tmp_path, sequences="TS6", poses="univ_annot3"))) == 2


def test_the_test_set_as_the_owners_script_unpacks_it(tmp_path):
    check(write_test(tmp_path, "mpi_inf_3dhp_test_set/mpi_inf_3dhp_test_set"), list(mpi_inf_3dhp_test.read(tmp_path)))


def test_a_calibration_without_the_benchmarks_camera(tmp_path):
    write_test(tmp_path)
    path = tmp_path / "mpi_inf_3dhp_test_set/test_util/camera_calibration/ts1-4cameras.calib"
    path.write_text(path.read_text("utf-8").replace("3427.28", "3427.38"), encoding="utf-8")
    with pytest.raises(NativeError, match="ts1-4cameras.calib: camera.*3427.28"):
        list(mpi_inf_3dhp_test.read(tmp_path))


def test_masks_of_the_person(tmp_path):
    write_train(tmp_path)
    rows = list(mpi_inf_3dhp.read(tmp_path, sequences="S1/*"))
    assert not any(isinstance(image, Masked) for _, image in rows)
    for camera in (0, 1):
        frames = []
        for frame in range(2):  # one fewer than the video has
            left, top, width, height = next(
                e.box for e, _ in rows if (e.camera_name, e.frame) == (str(camera), frame)
            ).astype(int)
            image = np.zeros((64, 64, 3), np.uint8)
            image[top + 2 : top + height - 2, left + 2 : left + width - 2, 0] = 255
            image[:, 62:, 0] = 255  # a pillar at the studio's edge
            frames.append(image)
        write_video(tmp_path / f"S1/Seq1/FGmasks/video_{camera}.avi", frames)
    masked = list(mpi_inf_3dhp.read(tmp_path, sequences="S1/*"))
    assert [isinstance(image, Masked) for _, image in masked] == [e.frame < 2 for e, _ in masked]
    for example, image in masked:
        if example.frame < 2:
            left, top, width, height = example.box.astype(int)
            mask = decode_mask(image.mask(), SIZE)
            assert mask[top + 4 : top + height - 4, left + 4 : left + width - 4].all()
            assert mask.sum() < 1.3 * width * height
            if left + 1.3 * width < 60:
                assert not mask[:, 62:].any()


def write_large(root, n_frames, changes):
    """One recording of one camera with pictures of 2048 px, in which `changes` (frame, joint, (x, y) px) are added to
    annot2."""
    world = people(0, n_frames, n_joints=28, up=1)
    [place], [turn] = ring(1, up=(0, 1, 0), target=(0, 900, 0), turn=1)
    K = np.array([[1500.0, 0, 1023.5], [0, 1500, 1023.5], [0, 0, 1]])
    seen = (world - place) @ turn.T
    pixels = opencv_project(world, K, np.zeros(5), turn, place)
    for frame, joint, shift in changes:
        pixels[frame, joint] += shift
    folder = root / "S1/Seq1"
    write_video(folder / "imageSequence/video_0.avi", [np.zeros((2048, 2048, 3), np.uint8)] * n_frames)
    (folder / "camera.calibration").write_text(
        "Skeletool Camera Calibration File V1.0\nname 0\n  sensor 10 10\n  size 2048 2048\n  animated 0\n"
        f"  intrinsic {flat(np.c_[K, np.zeros(3)])}\n  extrinsic {flat(np.c_[turn, -turn @ place])}\n  radial 0\n",
        encoding="utf-8",
    )
    poses = cells([seen.reshape(n_frames, 84)])
    arrays = dict(annot2=cells([pixels.reshape(n_frames, 56)]), annot3=poses, univ_annot3=poses)
    scipy.io.savemat(folder / "annot.mat", arrays)
    return world


@pytest.mark.parametrize(
    "changes",
    [
        [(0, 18, (1.1, 1.8))],  # the smallest input of A12
        [(f, j, (1.1, 1.8)) for f in range(3) for j in (3, 18, 23)],
        [(1, 23, (-8.0, 9.0)), (2, 3, (12.0, 0))],
        [(1, 7, (1.0, -1.0))],
    ],
)
def test_pixels_as_the_owners_wrote_them_are_read(tmp_path, changes):
    world = write_large(tmp_path, 3, changes)
    rows = mpi_inf_3dhp.read(tmp_path)
    np.testing.assert_allclose([e.joints3d for e, _ in rows], world, atol=1e-3)
    assert (rows.left_out.rows, rows.left_out.count) == (3, 0)


@pytest.mark.parametrize(
    "changes, words",
    [
        ([(f, 18, (15.0, 15.0)) for f in range(3)], ["frame 0 of camera 0", "left_hip", "within 20 px"]),
        ([(f, 7, (1.5, 1.5)) for f in range(3)], ["frame 0 of camera 0", "within 2 px"]),
        ([(2, 5, (60.0, 0.0))], ["frame 2 of camera 0", "within 2 px"]),
    ],
)
def test_pixels_of_another_calibration_are_refused(tmp_path, changes, words):
    write_large(tmp_path, 3, changes)
    with pytest.raises(NativeError) as error:
        list(mpi_inf_3dhp.read(tmp_path))
    assert "annot.mat" in str(error.value) and all(word in str(error.value) for word in words), error.value


def test_a_single_frame_that_is_off_is_left_out(tmp_path):
    view = mpi_inf_3dhp.View(Camera([[1500, 0, 1023.5], [0, 1500, 1023.5], [0, 0, 1]]), (2048, 2048))
    joints = people(0, 200, n_joints=28, up=1) - [0, 900, -4000]
    pixels = view.camera.project(joints)
    pixels[120, 5] += 30
    data = {"annot3": [joints.reshape(200, 84)], "annot2": [pixels.reshape(200, 56)]}
    recording = mpi_inf_3dhp.read_recording("annot.mat", data, "annot3", 0, view)
    assert list(recording.faults) == [120] and "frame 120 of camera 0" in str(recording.faults[120])
    pixels[121:123, 5] += 30
    data["annot2"] = [pixels.reshape(200, 56)]
    with pytest.raises(NativeError, match="frame 120 of camera 0"):
        mpi_inf_3dhp.read_recording("annot.mat", data, "annot3", 0, view)


def test_a_video_that_ends_early(tmp_path):
    write_train(tmp_path)
    write_video(tmp_path / "S1/Seq1/imageSequence/video_1.avi", [picture(0, SIZE)] * 2)
    with pytest.raises(NativeError, match="video_1.avi: rows: .*the first: frame 2: expected one of the 2"):
        list(mpi_inf_3dhp.read(tmp_path))
    assert len(list(mpi_inf_3dhp.read(tmp_path, sequences="S1/*", short=["S1/Seq1/1"]))) == 5


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("  radial        0\n", "", ["radial", "1 numbers"]),
        ("  radial        0", "  radial        1", ["camera 0", "radial 0"]),
        ("extrinsic", "extrinsik", ["extrinsic"]),
        ("  intrinsic     55", "  intrinsic     0", ["camera 0", "focal"]),
        ("  intrinsic     55", "  intrinsic     155", ["frame 0 of camera 0", "within 2 px"]),
        ("  intrinsic     55", "  intrinsic     nan", ["camera 0", "finite"]),
        ("name          1", "name          2", ["camera 1"]),
        ("size          64 64", "size          64 65", ["video_0.avi: size"]),
    ],
)
def test_wrong_calibrations_are_named(tmp_path, old, new, words):
    write_train(tmp_path)
    path = tmp_path / "S1/Seq1/camera.calibration"
    assert old in path.read_text("utf-8")
    path.write_text(path.read_text("utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(NativeError) as e:
        list(mpi_inf_3dhp.read(tmp_path))
    assert all(w in str(e.value) for w in words), e.value


def test_absent(tmp_path):
    for reader in (mpi_inf_3dhp, mpi_inf_3dhp_test):
        with pytest.raises(NativeError, match="MPI-INF-3DHP.*gvv.mpi-inf"):
            next(reader.read(tmp_path / "none"))


def test_mutations_of_training_files(tmp_path, nightly):
    check_mutations(write_train, lambda root: mpi_inf_3dhp.read(root), tmp_path, n=200 if nightly else 10)


def test_mutations_of_test_files(tmp_path, nightly):
    check_mutations(write_test, lambda root: mpi_inf_3dhp_test.read(root), tmp_path, n=200 if nightly else 10)
