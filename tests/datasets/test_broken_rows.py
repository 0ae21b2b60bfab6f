"""One annotation that cannot be right, in every layout: that row is left out and named, the others stay (A13)."""

import importlib.util
import json
import re
import shutil
import struct
from pathlib import Path

import av
import cv2
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from mutations import PICTURES, load_tree

from acae_nb.datasets import native
from acae_nb.datasets.native_files import NativeError
from acae_nb.datasets.sources import native_formats, reader_of


def module_of(format):
    "The format's own tests, which write a tiny data set."
    path = Path(__file__).with_name(f"test_{format}.py")
    specification = importlib.util.spec_from_file_location(f"writer_of_{format}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def edit(root, name, change):
    path = root / name
    document = json.loads(path.read_text("utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


# format, options of its reader, the file that is edited, the change, words of the reason, how many rows it takes
CASES = [
    (
        "coco",
        {},
        "annotations/person_keypoints_train2017.json",
        lambda d: d["annotations"][1].update(num_keypoints=3),
        ["person_keypoints_train2017.json: annotations/1/num_keypoints", "found 3"],
        1,
    ),
    (
        "coco",
        {},
        "annotations/person_keypoints_train2017.json",
        lambda d: d["annotations"][0].update(bbox=[5, 5, -3, 20]),
        ["train2017/000000000139/31, box"],
        1,
    ),
    (
        "gpa",
        {},
        "xyz_gpa12_mdp_cntind_crop_cam_c2g.json",
        lambda d: d["annotations"][2].update(joint_cams=[[1.0] * 34] * 2),
        ["xyz_gpa12", "joint_cams", "[3, 34]"],
        1,
    ),
    (
        "gpa",
        {},
        "xyz_gpa12_mdp_cntind_crop_cam_c2g.json",
        lambda d: d["annotations"][0]["joint_cams"][1].__setitem__(7, float("nan")),
        ["0000000003, joints3d, joint 7", "all coordinates of a joint"],
        1,
    ),
    (
        "imar",
        {},
        "train/s03/joints3d_25/Grab 4.json",
        lambda d: d["joints3d_25"][2][11].__setitem__(0, float("inf")),
        ["Grab 4.json: s03/Grab 4/50591643/000002, joints3d, joint 11", "finite"],
        2,  # one a camera
    ),
    (
        "threedoh",
        {},
        "trainset/annots.json",
        lambda d: d[sorted(d)[1]].update(scale=0),
        ["annots.json", "scale"],
        1,
    ),
]


@pytest.mark.parametrize("format, options, name, change, words, n_broken", CASES)
def test_a_broken_row_is_left_out_and_named(tmp_path, monkeypatch, format, options, name, change, words, n_broken):
    module_of(format).write(tmp_path)
    whole = list(reader_of(format).read(tmp_path, **options))
    edit(tmp_path, name, change)
    with pytest.raises(NativeError, match="at most 1% broken") as error:  # one of a few is more than a hundredth
        list(reader_of(format).read(tmp_path, **options))
    assert words[-1] in str(error.value)
    monkeypatch.setattr(native, "MOST_BROKEN", 0.7)
    rows = reader_of(format).read(tmp_path, **options)
    remaining = {e.example_id: e for e, _ in rows}
    assert len(remaining) == len(whole) - n_broken
    assert (rows.left_out.rows, rows.left_out.count) == (len(whole), n_broken)
    assert all(word in rows.left_out.reasons[0] for word in words), rows.left_out.reasons[0]
    for example, _ in whole:
        if example.example_id in remaining:
            for labels in ("joints3d", "joints2d", "box"):
                np.testing.assert_array_equal(getattr(example, labels), getattr(remaining[example.example_id], labels))


@pytest.mark.parametrize("format", [f for f in native_formats() if f != "pose2sim"])  # which makes its own labels
def test_every_reader_counts_what_it_leaves_out(format, tmp_path):
    assert hasattr(reader_of(format).read, "__wrapped__"), f"{format}.read is not decorated with whole_rows"


# ---- every reader, each in several ways -----------------------------------------------------------------------------
def body_models(root, **options):
    return {"body_models": root / "body_models", **options}


SETS = {  # where the made-up set is written, and what the reader is given
    **{format: (format, "write", lambda root: {}) for format in native_formats()},
    "bmhad": ("bmhad", "write", lambda root: {"clusters": ["l01", "k01"]}),
    "emdb": ("emdb", "write", body_models),
    "h36m": ("h36m", "write", lambda root: {"subjects": (1,)}),
    "mpi_inf_3dhp": ("mpi_inf_3dhp", "write_train", lambda root: {}),
    "mpi_inf_3dhp_test": ("mpi_inf_3dhp", "write_test", lambda root: {}),
    "spec": ("spec", "write", body_models),
}
STRICT = {"examples", "own_coco", "own_table", "pose2sim"}  # own folders are checked whole; pose2sim makes its labels
READERS = sorted(set(SETS) - STRICT)
LISTED = {"human4d", "humbi", "muco", "rich", "threedpeople"}  # the pictures in a folder are the data set
SHORTER_COUNTS = {"aist", "bml_movi", "mads", "totalcapture"}  # owners' videos that end before their poses


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The folder and the rows of a format's made-up set, written once."
    sets = {}

    def of(format):
        if format not in sets:
            test, write, _ = SETS[format]
            root = tmp_path_factory.mktemp(format) / "set"
            root.mkdir()
            getattr(module_of(test), write)(root)
            rows = [(seen(e, p), p) for e, p in read(format, root)]
            sets[format] = root, rows
        return sets[format]

    return of


def read(format, root):
    return reader_of(format).read(root, **SETS[format][2](root))


def seen(example, picture):
    "The name of a row, what its file says, its box, and where its joints are in the picture."
    if hasattr(picture, "mask"):
        example.mask = picture.mask()
    labels = {name: getattr(example, name) for name in ("joints3d", "joints2d", "mask", "image_size", "frame")}
    px = example.joints2d if example.joints3d is None else example.camera.project(example.joints3d)
    return example.example_id, labels, example.box, px


def read_damaged(format, root, rows, taken):
    """The count and the reasons of what is left out of a damaged set. AssertionError when another row than `taken` (a
    number, or None for any) is missing, or reads differently."""
    result = read(format, root)
    remaining = {name: labels for name, *labels in (seen(e, p) for e, p in result)}
    assert set(remaining) <= {name for name, *_ in rows}, "rows that were not there before"
    assert taken is None or len(rows) - len(remaining) == taken
    for name, labels, box, px in rows:
        if name in remaining:
            for key, value in labels.items():
                np.testing.assert_array_equal(remaining[name][0][key], value, err_msg=f"{name}, {key}")
            for was, now in zip((box, px), remaining[name][1:]):  # of a camera that may be fitted to all people
                np.testing.assert_allclose(now, was, atol=0.5, err_msg=name)
    return result.left_out.count, "\n".join(result.left_out.reasons)


def copy_of(whole, format, tmp_path):
    root, rows = whole(format)
    shutil.copytree(root, tmp_path / "set")
    return tmp_path / "set", [row for row, _ in rows], {row[0]: Path(p.path).relative_to(root) for row, p in rows}


def is_video(picture):
    return hasattr(picture, "index")


@pytest.mark.parametrize("kind", ["gone", "cut"])
@pytest.mark.parametrize("format", READERS)
def test_a_picture_that_is_gone_or_cut(format, kind, whole, tmp_path, monkeypatch):
    if is_video(whole(format)[1][0][1]) or format == "hspace":
        pytest.skip("frames of videos, or pictures in records")
    monkeypatch.setattr(native, "MOST_BROKEN", 0.99)
    root, rows, pictures = copy_of(whole, format, tmp_path)
    spoilt = pictures[rows[0][0]]
    if kind == "gone":
        (root / spoilt).unlink()
    else:
        data = (root / spoilt).read_bytes()
        (root / spoilt).write_bytes(data[: len(data) // 2])
    of_picture = sum(path == spoilt for path in pictures.values())
    count, reasons = read_damaged(format, root, rows, of_picture)
    if kind == "cut" or format not in LISTED:
        assert count >= 1 and spoilt.name in reasons


@pytest.mark.parametrize("format", READERS)
def test_a_video_without_its_last_frame(format, whole, tmp_path, monkeypatch):
    of_videos = [(row[0], p) for row, p in whole(format)[1] if is_video(p)]
    if not of_videos:
        pytest.skip("pictures")
    monkeypatch.setattr(native, "MOST_BROKEN", 0.99)
    root, rows, paths = copy_of(whole, format, tmp_path)
    name, picture = of_videos[-1]
    video, last = paths[name], picture.index
    with av.open(str(whole(format)[0] / video)) as source, av.open(str(root / video), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in [p for p in source.demux(source.streams.video[0]) if p.size][:last]:
            packet.stream = stream
            file.mux(packet)
    of_frame = sum(paths[name] == video and p.index >= last for name, p in of_videos)
    count, reasons = read_damaged(format, root, rows, of_frame)
    if format not in SHORTER_COUNTS:
        assert count == of_frame and video.name in reasons and f"frame {last}" in reasons


def in_tree(*keys, value):
    "The change of a file's tree (dicts, lists, arrays) that puts a value at a place."

    def change(path):
        tree, save = load_tree(path)
        node = tree
        for key in keys[:-1]:
            node = node[key]
        if value is DELETED:
            del node[keys[-1]]
        else:
            node[keys[-1]] = value
        save(tree)

    return change


def in_text(old, new):
    "The change of a text file that replaces the first `old`."

    def change(path):
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def word_of_line(number, word):
    "The change of a text file that puts another first word in a line (from 0)."

    def change(path):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        old = re.split(r"[\s,]", lines[number])[0]
        lines[number] = lines[number].replace(old, word, 1)
        path.write_text("".join(lines), encoding="utf-8")

    return change


def in_h5(name, *index, value):
    "The change of a part of a data set of an HDF5 file."

    def change(path):
        with h5py.File(path, "a") as file:
            file[name][index] = value

    return change


def first_mask_of_another_size(path):
    with h5py.File(path, "a") as file:
        file["Masks"][0, 0] = file.create_dataset("#refs#/small", data=np.ones((5, 5), np.uint8)).ref


def in_bytes(old, new):
    "The change of a file's first bytes `old`."

    def change(path):
        data = path.read_bytes()
        assert old in data and len(old) == len(new)
        path.write_bytes(data.replace(old, new, 1))

    return change


def small_picture(path):
    cv2.imwrite(str(path), np.zeros((10, 12, 3), np.uint8))


def table_cell(column, row, person, change):
    "The change of a person's cell of a pickled pandas table."

    def apply(path):
        table = pd.read_pickle(path)
        cells = table[column][row]
        cells[person] = change(np.array(cells[person]))
        table.to_pickle(path)

    return apply


def with_nan(values):
    values.flat[1] = np.nan
    return values


def in_struct(*keys, value):
    "The change of a struct of a MATLAB file of version 5."

    def change(path):
        variables = {k: v for k, v in scipy.io.loadmat(path).items() if k[0] != "_"}
        node = variables
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value
        scipy.io.savemat(path, variables)

    return change


def infinite_first_coordinate(path):
    data = bytearray(path.read_bytes())
    start = (struct.unpack_from("<H", data, 16)[0] - 1) * 512
    struct.pack_into("<f", data, start, np.inf)
    path.write_bytes(data)


NAN = float("nan")
MARKERS = ("Subject_1_F", 0, 0, "move", 0, 0, "markerLocation")
FIRST_ID = ("RELEASE", 0, 0, "annolist", 0, 0, "annorect", 0, 0, "annopoints", 0, 0, "point", 0, 0, "id")  # of MPII
DELETED = object()
# format, the damaged file (the first of this pattern), the damage, how many rows it takes, words of a reason
DAMAGES = [
    ("agora", "SMPL/train_0_withjv.pkl", table_cell("gt_joints_3d", 0, 0, with_nan), 1, "gt_joints_3d[0][0]"),
    ("agora", "SMPL/train_0_withjv.pkl", table_cell("gt_joints_2d", 0, 0, lambda v: v[:9]), 1, "24 joints at least"),
    ("agora", "SMPLX/train_0_withjv.pkl", table_cell("gt_joints_3d", 0, 0, lambda v: v.astype(str)), 1, "numbers"),
    ("aist", "annotations/keypoints3d/*.pkl", in_tree("keypoints3d_optim", 1, 5, 0, value=NAN), None, "joints3d"),
    ("aspset", "trainval/boxes/*/*.csv", word_of_line(2, "left"), 1, "line 3"),
    ("aspset", "trainval/boxes/*/*.csv", word_of_line(2, "nan"), 1, "box"),
    ("behave", "*/*hand/t0003.000/person/*.json", in_tree("body_joints3d", 5, value="left"), 2, "body_joints3d"),
    ("behave", "sequences/*hand/t0003.000/k0.person_mask.jpg", small_picture, 1, "person_mask"),
    ("behave", "sequences/*hand/t0003.000/k0.color.jpg", small_picture, 1, "k0.color.jpg"),
    ("bmhad", "Camera/Correspondences/*.txt", word_of_line(1, "1.5"), None, "line 2"),
    ("bmhad", "Camera/Correspondences/*.txt", word_of_line(1, "one"), None, "line 2"),
    ("bml_movi", "*/*.mat", in_struct(*MARKERS, 4, 3, 0, value=NAN), 2, "joint 3"),
    ("cmu_panoptic", "*/*/*Scene_*.json", in_tree("bodies", 0, "joints19", value="x"), None, "bodies/0/joints19"),
    ("cmu_panoptic", "*/*/*Scene_*.json", in_tree("bodies", 0, "joints19", 5, value=NAN), None, "joint 1"),
    ("cmu_panoptic", "*/*/*Scene_*.json", lambda path: path.write_text("{", "utf-8"), None, "a whole JSON file"),
    ("coco", "annotations/*_train2017.json", in_tree("annotations", 0, "image_id", value="x"), 1, "0/image_id"),
    ("coco", "annotations/*_train2017.json", in_tree("annotations", 0, "bbox", value=DELETED), 1, "0/bbox"),
    ("coco", "annotations/*_train2017.json", in_tree("annotations", 0, "keypoints", 4, value=NAN), 1, "0/keypoints"),
    ("coco", "annotations/*_train2017.json", in_tree("images", 0, "width", value="wide"), None, "images/0/width"),
    ("coco", "annotations/*_train2017.json", in_tree("images", 0, "id", value=DELETED), None, "image_id"),
    ("emdb", "P*/*/*_data.pkl", in_tree("camera", "extrinsics", 0, 1, value=NAN), 1, "extrinsics/0"),
    ("emdb", "P*/*/*_data.pkl", in_tree("smpl", "poses_body", 0, 7, value=NAN), 1, "smpl, frame 0"),
    ("emdb", "P*/*/*_data.pkl", in_tree("bboxes", "bboxes", 0, 2, value=NAN), 1, "box"),
    ("gpa", "*.json", in_tree("annotations", 0, "f", value=["wide", 3]), 1, "f: expected numbers"),
    ("gpa", "*.json", in_tree("annotations", 0, "c", value=DELETED), 1, "c: expected a value"),
    ("h36m", "S1/MySegmentsMat/*/*.mat", first_mask_of_another_size, 1, "Masks, frame 0"),
    ("hspace", "2021_01/train/scene_000.tfrecord", in_bytes(b"RIGGED_0/mask_id", b"RIGGED_7/mask_id"), 1, "mask_id"),
    ("hspace", "2021_01/train/scene_000.tfrecord", in_bytes(b"image/rgb", b"image/rgx"), 2, "image/rgb"),
    ("human4d", "S1/*/Dump/gposes3d/1.npy", lambda path: np.save(path, np.zeros((1, 30, 3))), 2, "33"),
    ("human4d", "S1/*/Dump/gposes3d/1.npy", in_tree("", 0, 3, 1, value=NAN), 2, "joint 3"),
    ("humbi", "subject_4/body/*/reconstruction/keypoints.txt", word_of_line(3, "far"), 2, "keypoints.txt: line 4"),
    ("ikea", "*/*/dev1/pose3d/*.json", in_tree("pose_keypoints_3d", 2, value="x"), 1, "pose_keypoints_3d"),
    ("ikea", "*/*/dev1/pose3d/*.json", in_tree("pose_keypoints_3d", 9, value=NAN), 1, "joint 2"),
    ("ikea", "*/*/dev1/pose3d/*.json", in_tree("pose_keypoints_3d", value=DELETED), 1, "pose_keypoints_3d"),
    ("imar", "train/s03/joints3d_25/Grab 4.json", in_tree("joints3d_25", 1, 7, 2, value=NAN), 2, "joint 7"),
    ("jrdb", "labels/*/*.json", in_tree("annotations", 0, "image_id", value=DELETED), 1, "annotations/0/image_id"),
    ("jrdb", "labels/*/*.json", in_tree("annotations", 0, "keypoints", 4, value="x"), 1, "annotations/0/keypoints"),
    ("jrdb", "labels/*/*.json", in_tree("images", 0, "file_name", value=7), None, "images/0/file_name"),
    ("jta", "annotations/train/seq_7.json", in_tree(3, 7, value="near"), 1, "row 3"),
    ("jta", "annotations/train/seq_7.json", in_tree(3, 2, value=22), 1, "row 3"),
    ("jta", "annotations/train/seq_7.json", in_tree(3, 2, value=0), 1, "two for"),
    ("mads", "multi_view_data/*/*_GT.mat", in_struct("GTpose2", 0, 1, value=np.ones((18, 3))), None, "frame 1"),
    ("mpi_inf_3dhp", "S1/*/annot.mat", in_struct("annot3", 0, 0, 1, 4, value=NAN), 1, "annot3/0, frame 1, joint 1"),
    ("mpi_inf_3dhp_test", "*/TS2/annot_data.mat", in_h5("activity_annotation", 0, value=9), 1, "1 to 7"),
    ("mpi_inf_3dhp_test", "*/TS2/annot_data.mat", in_h5("annot3", 0, 0, 3, 1, value=NAN), 1, "joint 3"),
    ("mpi_inf_3dhp_test", "*/TS2/annot_data.mat", in_h5("annot3", 2, value=-1e5), 1, "a person in the picture"),
    ("mpii", "*.mat", in_struct(*FIRST_ID, value=np.array([[99.0]])), 1, "a joint 0 to 15"),
    ("muco", "sampled_dataset_info.mat", in_h5("#refs#/n1_2", 0, value=9), 1, "subject 1-8"),
    ("muco", "sampled_dataset_info.mat", in_h5("#refs#/n1_2", 3, value=900), 1, "a frame of"),
    ("muco", "unaugmented_set_001/000001.jpg", small_picture, 4, "000001.jpg"),
    ("mupots", "TS2/annot.mat", in_struct("annotations", 0, 1, "annot3", 0, 0, 0, 4, value=NAN), 1, "annotations/0/1"),
    ("mupots", "TS2/annot.mat", in_struct("annotations", 0, 1, "annot2", 0, 0, value=np.ones((2, 9))), 1, "annot2"),
    ("mupots", "TS2/img_000001.jpg", small_picture, 1, "img_000001.jpg"),
    ("posetrack", "*/*/train/*.json", in_tree("annotations", 0, "track_id", value="first"), 1, "track_id"),
    ("posetrack", "*/*/train/*.json", in_tree("annotations", 0, "keypoints", value=[]), 1, "annotations/0/keypoints"),
    ("posetrack", "*/*/train/*.json", in_tree("images", 0, "id", value=DELETED), None, "image_id"),
    ("rich", "bodies/train/*/*/*.pkl", in_tree("jaw_pose", value=DELETED), 2, "jaw_pose"),
    ("rich", "bodies/train/*/*/*.pkl", in_tree("transl", value=np.full(3, NAN)), 2, "transl"),
    ("rich", "images/train/*/cam_01/00018_01.jpg", small_picture, None, "_01.jpg"),
    ("sailvos", "scene_a/500_Ped_*/*_3d.txt", word_of_line(7, "x"), 1, "_3d.txt"),
    ("sailvos", "scene_a/images/*.bmp", small_picture, None, ".bmp: size"),
    ("spec", "annotations/train.npz", in_tree("cam_int", 1, 0, 0, value=NAN), 1, "cam_int[1]"),
    ("spec", "annotations/train.npz", in_tree("pose", 0, 3, value=np.inf), 1, "pose[0]"),
    ("spec", "annotations/train.npz", in_tree("cam_rotmat", 0, value=np.ones((3, 3))), 1, "cam_rotmat[0]"),
    ("surreal", "cmu/train/*/*/*_segm.mat", in_struct("segm_1", value=np.ones((9, 9), np.uint8)), 1, "segm_1"),
    ("surreal", "cmu/train/*/*/*_info.mat", in_struct("joints3D", 0, 4, 0, value=NAN), 1, "joints3D"),
    ("threedoh", "trainset/annots.json", in_tree("00007", "extri", 0, 1, value=NAN), 1, "camera of 00007"),
    ("threedoh", "trainset/annots.json", in_tree("00007", "lsp_joints_3d", 3, 1, value=NAN), 1, "joint 3"),
    ("threedoh", "trainset/annots.json", in_tree("00007", "bbox", value="left"), 1, "00007/bbox"),
    ("threedoh", "trainset/masks/*.png", small_picture, 1, ".png: size"),
    ("threedpeople", "skeleton/man02/*/camera01/0001.txt", word_of_line(5, "x"), 1, "0001.txt"),
    ("threedpeople", "segmentation_clothes/man02/*/camera01/0001.png", small_picture, 1, "0001.png: size"),
    ("threedpw", "sequenceFiles/test/*.pkl", in_tree("cam_poses", 0, 1, value=NAN), None, "cam_poses/0"),
    ("threedpw", "sequenceFiles/test/*.pkl", in_tree("jointPositions", 0, 0, value=NAN), None, "jointPositions/0"),
    ("totalcapture", "vicon/S1/acting1/gt_skel_gbl_pos.txt", word_of_line(2, "x"), 2, "line 3"),
    ("totalcapture", "vicon/S1/acting1/gt_skel_gbl_pos.txt", word_of_line(2, "1 2"), 2, "line 3"),
    ("umpm", "Groundtruth/*.c3d", infinite_first_coordinate, 4, "joints3d"),
]


@pytest.mark.parametrize("format, pattern, damage, taken, words", DAMAGES)
def test_a_damaged_row_is_counted_and_named_and_the_others_stay(
    format, pattern, damage, taken, words, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(native, "MOST_BROKEN", 0.99)
    root, rows, _ = copy_of(whole, format, tmp_path)
    path = sorted(root.glob(pattern))[0]
    damage(path)
    count, reasons = read_damaged(format, root, rows, taken)
    assert count >= 1 and words in reasons, (count, reasons)


def test_every_reader_has_damaged_rows():
    assert set(READERS) == {case[0] for case in DAMAGES}


@pytest.mark.parametrize("format", READERS)
def test_a_file_that_cannot_be_read_is_named(format, whole, tmp_path, monkeypatch):
    "One file of each kind, all of it nonsense: an error that names it, or the rows that hang on it are counted."
    monkeypatch.setattr(native, "MOST_BROKEN", 0.99)
    root, rows, _ = copy_of(whole, format, tmp_path)
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix.lower() not in PICTURES]
    for path in {(p.suffix, p.stem.rstrip("0123456789_")): p for p in files}.values():
        data = path.read_bytes()
        path.write_bytes(b"nonsense\n\x00\xff" * 40)
        try:
            count, reasons = read_damaged(format, root, rows, None)
        except NativeError as error:
            assert path.name in str(error) and ": " in str(error), error
        else:
            assert path.name in reasons or count == 0 and read_damaged(format, root, rows, 0) == (0, ""), path
        path.write_bytes(data)
