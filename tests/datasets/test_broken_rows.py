"""One annotation that cannot be right, in many layouts: that row is left out and named, the others stay (A13)."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from acae_nb.datasets import native
from acae_nb.datasets.native_files import NativeError
from acae_nb.datasets.sources import native_formats, reader_of


def writer_of(format):
    "The function of the format's own tests that writes a tiny data set."
    path = Path(__file__).with_name(f"test_{format}.py")
    specification = importlib.util.spec_from_file_location(f"writer_of_{format}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.write


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
    writer_of(format)(tmp_path)
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
