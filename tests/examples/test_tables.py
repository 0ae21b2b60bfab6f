"""The example table: round trips, every kind of bad row, and every kind of damage to the files."""

import dataclasses
import json
import os
import pickle

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from acae_nb.examples.tables import (
    Example,
    ExampleTable,
    ExampleWriter,
    InvalidExamples,
    check,
    decode_jpeg,
    decode_mask,
    encode_jpeg,
    encode_mask,
    jpeg_size,
    validate,
)
from acae_nb.geometry.cameras import Camera
from acae_nb.skeletons.joints import load_skeleton, union

SKELETON = load_skeleton("h36m_17")
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
JPEG = encode_jpeg(IMAGE)


def camera(**changes):
    values = (
        dict(
            intrinsics=np.array([[50, 0, 16], [0, 50, 12], [0, 0, 1.0]]),
            distortion=np.linspace(0, 1e-3, 12),
            rotation=np.eye(3),
            position=np.array([1, 2, 3.0]),
            world_up=np.array([0, -1.0, 0]),
        )
        | changes
    )
    return Camera(**values)


class AnyCamera:
    "What a reader might hand over: fields that no Camera would accept."

    def __init__(self, **changes):
        good = camera()
        for f in ("intrinsics", "distortion", "rotation", "position", "world_up"):
            setattr(self, f, changes.get(f, getattr(good, f)))


def example(i=0, **changes):
    rng = np.random.default_rng(i)
    values = dict(
        example_id=f"e{i}",
        dataset="d",
        split="train",
        subject="s",
        sequence="q",
        frame=i,
        camera=camera(),
        box=np.array([1, 2, 10, 20.0]),
        image_size=(32, 24),
        joints3d=rng.normal(0, 900, (17, 3)).astype(np.float32),
    )
    return Example(**values | changes)


def write(folder, examples, image=JPEG, skeleton=SKELETON):
    with ExampleWriter(folder, skeleton, "d") as writer:
        for e in examples:
            writer.add(e, image)
    return folder


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# --- round trip


def test_rows_come_back_as_they_were(tmp_path):
    mask = np.zeros((24, 32), bool)
    mask[3:9, 4:20] = True
    missing = example(3).joints3d
    missing[4] = np.nan
    rows = [
        example(0),
        example(1, mask=encode_mask(mask), weight=0.5, camera_name="54138969", subject="Ärger"),
        example(2, joints3d=None),
        example(3, joints3d=missing),
        example(4, joints3d=None, joints2d=np.random.default_rng(1).normal(size=(17, 2)).astype(np.float32)),
    ]
    table = ExampleTable.open(write(tmp_path / "t", rows))
    assert len(table) == 5 and table.skeleton == SKELETON and table.dataset == "d"
    for row, want in enumerate(rows):
        got = table[row]
        for f in (
            "example_id",
            "dataset",
            "split",
            "subject",
            "sequence",
            "frame",
            "image_size",
            "mask",
            "weight",
            "camera_name",
        ):
            assert getattr(got, f) == getattr(want, f), f
        for f in ("joints3d", "joints2d", "box"):
            np.testing.assert_array_equal(getattr(got, f), getattr(want, f))
        for f in dataclasses.fields(Camera):
            np.testing.assert_array_equal(getattr(got.camera, f.name), getattr(want.camera, f.name))
        np.testing.assert_array_equal(table.image(row), decode_jpeg(JPEG))
    assert (decode_mask(table[1].mask, (32, 24)) == mask).all()
    assert table[-1].example_id == "e4"
    with pytest.raises(IndexError):
        table[5]


def test_columns_are_views_of_the_file_and_read_only(tmp_path):
    table = ExampleTable.open(write(tmp_path / "t", [example(i) for i in range(7)]))
    before = pa.total_allocated_bytes()
    for name in ("joints3d", "intrinsics", "box", "frame", "image_size"):
        column = table.column(name)
        assert not column.flags.owndata and not column.flags.writeable and len(column) == 7
    assert pa.total_allocated_bytes() == before
    assert table.column("joints3d").shape == (7, 17, 3) and table.column("joints3d").dtype == np.float32
    with pytest.raises(KeyError, match="joints4d.*joints3d"):
        table.column("joints4d")


def test_the_same_examples_give_the_same_bytes(tmp_path):
    rows = [example(i) for i in range(5)]
    assert contents(write(tmp_path / "a", rows)) == contents(write(tmp_path / "b", rows))


def test_the_skeleton_with_its_parts_is_in_the_table(tmp_path):
    both = union([load_skeleton("smpl_24"), load_skeleton("h36m_17")])  # not in alphabetical order
    row = example(joints3d=np.zeros((41, 3)))
    table = ExampleTable.open(write(tmp_path / "t", [row], skeleton=both))
    assert table.skeleton == both and list(table.skeleton.parts.items()) == list(both.parts.items())


@given(scale=st.sampled_from([1e3, 1e5, 1e7, 1e9, 5e9]), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_huge_coordinates_keep_a_hundredth_of_a_millimetre(tmp_path_factory, scale, seed):
    rng = np.random.default_rng(seed)
    joints = rng.normal(0, 500, (17, 3)) + rng.normal(0, scale, 3)
    joints[3] = np.nan
    table = ExampleTable.open(write(tmp_path_factory.mktemp("far") / "t", [example(joints3d=joints)]))
    np.testing.assert_allclose(table[0].joints3d, joints, rtol=0, atol=0.002)
    np.testing.assert_array_equal(table.world_joints3d()[0], table[0].joints3d)


def test_rows_where(tmp_path):
    table = ExampleTable.open(
        write(tmp_path / "t", [example(i, split="test" if i % 3 else "train", subject=f"s{i % 2}") for i in range(12)])
    )
    assert table.rows_where(split="test", subject="s0").tolist() == [i for i in range(12) if i % 3 and i % 2 == 0]


def test_another_process_opens_the_table_by_its_path(tmp_path):
    table = ExampleTable.open(write(tmp_path / "t", [example(i) for i in range(3)]))
    message = pickle.dumps(table)
    assert len(message) < 300
    assert pickle.loads(message)[2].example_id == "e2"


# --- images and masks


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
@settings(max_examples=200, deadline=None)
def test_masks_survive(mask):
    assert (decode_mask(encode_mask(mask), mask.shape[::-1]) == mask).all()


def test_masks_are_those_of_coco():
    # Worked by hand from the format: runs down the columns, background first; each digit 48 + 5 bits + 32 if more
    # follow.
    mask = np.array([[0, 0, 1], [0, 1, 1], [0, 1, 0]], bool)  # columns: 000 011 110 -> runs 4, 4, 1
    assert encode_mask(mask) == bytes([52, 52, 49])
    assert encode_mask(np.ones((2, 2), bool)) == bytes([48, 52])  # no background first: a run of 0
    assert encode_mask(np.zeros((5, 10), bool)) == bytes([48 + 32 + 18, 49])  # 50 = 1 * 32 + 18
    # the fourth run is stored as its difference to the second: runs 1, 3, 1, 2, 1 -> 1, 3, 1, 2 - 3 = -1 -> 31, 1 - 1 =
    # 0
    assert encode_mask(np.array([[0], [1], [1], [1], [0], [1], [1], [0]], bool)) == bytes([49, 51, 49, 48 + 31, 48])


@pytest.mark.parametrize("code", [b"", b"\x00", b"o", b"ooooooooooooo1", b"44", b"zz", b"1O"])
def test_bad_masks_are_refused(code):
    with pytest.raises(ValueError, match="mask"):
        decode_mask(code, (3, 3))


def test_jpeg_size_is_what_opencv_decodes():
    rng = np.random.default_rng(0)
    for flags in (
        [],
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 1],
        [cv2.IMWRITE_JPEG_QUALITY, 3],
    ):
        for _ in range(10):
            image = rng.integers(0, 255, (*rng.integers(1, 90, 2), 3), dtype=np.uint8)
            data = cv2.imencode(".jpg", image, flags)[1].tobytes()
            assert jpeg_size(data) == image.shape[1::-1] and decode_jpeg(data).shape == image.shape


def test_jpeg_colours_are_rgb():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    assert abs(decode_jpeg(encode_jpeg(red)).astype(int) - red).max() < 5


def test_every_truncation_of_a_jpeg_is_refused():
    for n in range(len(JPEG)):
        with pytest.raises(ValueError, match="JPEG"):
            jpeg_size(JPEG[:n])


# --- bad rows: field, expected and found are told, and nothing is written

NAN = float("nan")
BAD_ROWS = {
    "wrong number of joints": (dict(joints3d=np.zeros((16, 3))), "joints3d", r"\[17, 3\]", r"\[16, 3\]"),
    "joints of two coordinates": (dict(joints3d=np.zeros((17, 2))), "joints3d", r"\[17, 3\]", r"\[17, 2\]"),
    "ragged joints": (dict(joints3d=[[1, 2, 3], [4]]), "joints3d", r"\[17, 3\]", "4"),
    "text for joints": (dict(joints3d="none"), "joints3d", r"\[17, 3\]", "none"),
    "infinite joint": (dict(joints3d=np.full((17, 3), np.inf)), "joints3d", "finite", "inf"),
    "half a joint": (dict(joints3d=np.array([[1, 2, NAN]] + [[0, 0, 0]] * 16)), "joints3d", "all coordinates", "nan"),
    "half a 2D joint": (dict(joints2d=np.array([[1, NAN]] * 17)), "joints2d", "all coordinates", "nan"),
    "wrong number of 2D joints": (dict(joints2d=np.zeros((19, 2))), "joints2d", r"\[17, 2\]", r"\[19, 2\]"),
    "NaN focal length": (dict(camera=AnyCamera(intrinsics=np.diag([NAN, 50, 1]))), "intrinsics", "finite", "nan"),
    "no focal length": (dict(camera=AnyCamera(intrinsics=np.diag([0, 50, 1.0]))), "intrinsics", "f > 0", "0"),
    "transposed intrinsics": (dict(camera=AnyCamera(intrinsics=camera().intrinsics.T)), "intrinsics", "0, 0, 1", "16"),
    "infinite distortion": (dict(camera=AnyCamera(distortion=np.full(12, np.inf))), "distortion", "finite", "inf"),
    "five distortion coefficients": (dict(camera=AnyCamera(distortion=np.zeros(5))), "distortion", r"\[12\]", r"\[5\]"),
    "mirrored rotation": (dict(camera=AnyCamera(rotation=np.diag([1, 1, -1.0]))), "rotation", "determinant 1", "-1"),
    "scaled rotation": (dict(camera=AnyCamera(rotation=2 * np.eye(3))), "rotation", "orthonormal", "2"),
    "NaN rotation": (dict(camera=AnyCamera(rotation=np.full((3, 3), NAN))), "rotation", "finite", "nan"),
    "rotation vector": (dict(camera=AnyCamera(rotation=np.zeros(3))), "rotation", r"\[3, 3\]", r"\[3\]"),
    "NaN position": (dict(camera=AnyCamera(position=np.array([0, NAN, 0]))), "position", "finite", "nan"),
    "no up direction": (dict(camera=AnyCamera(world_up=np.zeros(3))), "world_up", "length", "0"),
    "no camera": (dict(camera=None), "intrinsics", r"\[3, 3\]", "None"),
    "empty box": (dict(box=np.array([5, 5, 0, 9.0])), "box", "width > 0", "0"),
    "negative box": (dict(box=np.array([5, 5, 4, -9.0])), "box", "height > 0", "-9"),
    "NaN box": (dict(box=np.array([5, 5, 4, NAN])), "box", "finite", "nan"),
    "box beside the image": (dict(box=np.array([32, 5, 4, 4.0])), "box", "touches", "32"),
    "box left of the image": (dict(box=np.array([-8, 5, 4, 4.0])), "box", "touches", "-8"),
    "box of three numbers": (dict(box=np.array([5, 5, 4.0])), "box", r"\[4\]", r"\[3\]"),
    "size of another image": (dict(image_size=(24, 32)), "image_size", r"\(32, 24\)", r"\(24, 32\)"),
    "no size": (dict(image_size=None), "image_size", r"\[2\]", "None"),
    "negative weight": (dict(weight=-1.0), "weight", ">= 0", "-1"),
    "NaN weight": (dict(weight=NAN), "weight", "finite", "nan"),
    "fractional frame": (dict(frame=1.5), "frame", "one number", "1.5"),
    "no frame": (dict(frame=None), "frame", "one number", "None"),
    "empty id": (dict(example_id=""), "example_id", "id of its own", "''"),
    "number as id": (dict(example_id=7), "example_id", "text", "7"),
    "same id again": (dict(example_id="e0"), "example_id", "id of its own", "again"),
    "another data set": (dict(dataset="other"), "dataset", "'d'", "'other'"),
    "no subject": (dict(subject=None), "subject", "text", "None"),
    "mask of another size": (
        dict(mask=encode_mask(np.ones((3, 3), bool))),
        "mask",
        "image's size",
        "9 pixels of 32 x 24",
    ),
    "damaged mask": (dict(mask=b"\x01\x02"), "mask", "image's size", "run-length"),
}


@pytest.mark.parametrize("changes, field, expected, found", BAD_ROWS.values(), ids=BAD_ROWS)
def test_bad_rows_are_refused_by_name(tmp_path, changes, field, expected, found):
    folder = write(tmp_path / "t", [example(5)])
    before = contents(folder)
    with pytest.raises(InvalidExamples) as error:
        with ExampleWriter(folder, SKELETON, "d") as writer:
            writer.add(example(0), JPEG)
            writer.add(example(1, **changes), JPEG)
    assert error.match(rf"(?s)data set d.*row 1.*{field}: expected .*{expected}.*, found .*{found}")
    assert field in [p.field for p in error.value.problems] and {p.row for p in error.value.problems} == {1}
    assert contents(folder) == before and sorted(p.name for p in tmp_path.iterdir()) == ["t"]


@pytest.mark.parametrize("image", [b"", b"not a picture", JPEG[:50], JPEG[:-2], b"\0" * len(JPEG), JPEG[1:], None])
def test_bad_images_are_refused(tmp_path, image):
    with pytest.raises(InvalidExamples, match="image: expected a whole JPEG"):
        write(tmp_path / "t", [example()], image)
    assert not list(tmp_path.iterdir())


def test_all_faults_of_a_row_are_told_at_once(tmp_path):
    with pytest.raises(InvalidExamples) as error:
        write(
            tmp_path / "t",
            [
                example(
                    camera=AnyCamera(rotation=np.zeros((3, 3))), box=np.zeros(4), weight=-1.0, joints3d=np.zeros((3, 3))
                )
            ],
        )
    assert {p.field for p in error.value.problems} == {"rotation", "box", "weight", "joints3d"}


# --- atomicity


def test_an_error_in_the_block_leaves_the_old_table(tmp_path):
    folder = write(tmp_path / "t", [example(5)])
    before = contents(folder)
    with pytest.raises(ZeroDivisionError):
        with ExampleWriter(folder, SKELETON, "d") as writer:
            writer.add(example(0), JPEG)
            raise ZeroDivisionError
    assert contents(folder) == before and sorted(p.name for p in tmp_path.iterdir()) == ["t"]


def test_a_killed_writer_leaves_the_old_table_and_the_next_writer_tidies_up(tmp_path):
    folder = write(tmp_path / "t", [example(5)])
    before = contents(folder)
    child = os.fork()
    if not child:
        writer = ExampleWriter(folder, SKELETON, "d").__enter__()
        writer.add(example(0), JPEG)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert contents(folder) == before and (tmp_path / ".t.partial").is_dir()
    write(folder, [example(0), example(1)])
    assert len(ExampleTable.open(folder)) == 2 and sorted(p.name for p in tmp_path.iterdir()) == ["t"]


def test_an_open_table_outlives_its_replacement(tmp_path):
    folder = write(tmp_path / "t", [example(5)])
    table = ExampleTable.open(folder)
    write(folder, [example(0), example(1)])
    assert table[0].example_id == "e5" and table.image(0).shape == IMAGE.shape and len(ExampleTable.open(folder)) == 2


def test_two_writers_of_one_folder(tmp_path):
    with ExampleWriter(tmp_path / "t", SKELETON, "d") as writer:
        writer.add(example(0), JPEG)
        with pytest.raises(BlockingIOError):
            write(tmp_path / "t", [example(1)])
    assert ExampleTable.open(tmp_path / "t")[0].example_id == "e0"


def test_notes_are_kept(tmp_path):
    for notes in (None, {}, {"left_out": '{"rows": 3}', "of": "näher"}):
        with ExampleWriter(tmp_path / "t", SKELETON, "d", notes) as writer:
            writer.add(example(0), JPEG)
        assert ExampleTable.open(tmp_path / "t").notes == (notes or {}) and not validate(tmp_path / "t")
    with pytest.raises(ValueError, match="notes: .*found \\['skeleton'\\]"):
        ExampleWriter(tmp_path / "t", SKELETON, "d", {"skeleton": "{}"})


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(InvalidExamples, match="at least one example"):
        write(tmp_path / "t", [])


# --- damage to the files


def rewrite(folder, change):
    "Write the table again with changed arrays and metadata."
    with pa.memory_map(str(folder / "table.arrow")) as file:
        data = pa.ipc.open_file(file).read_all()
    arrays, metadata = dict(zip(data.column_names, data.columns)), dict(data.schema.metadata)
    change(arrays, metadata)
    table = pa.table({k: v for k, v in arrays.items()}).replace_schema_metadata(metadata)
    with pa.ipc.new_file(str(folder / "new"), table.schema) as file:
        file.write_table(table)
    os.replace(folder / "new", folder / "table.arrow")


def tensor(values):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


def bad_joints(arrays, metadata):
    values = arrays["joints3d"].chunk(0).to_numpy_ndarray().copy()
    values[1, 3] = np.inf
    values[2, 4, 1] = np.nan
    arrays["joints3d"] = tensor(values)


DAMAGE = {
    "no table": (lambda f: (f / "table.arrow").unlink(), "table.arrow", "file", "no such file"),
    "no images": (lambda f: (f / "images.bin").unlink(), "images.bin", "file", "no such file"),
    "empty table file": (lambda f: (f / "table.arrow").write_bytes(b""), "table.arrow", "file", ""),
    "zero-filled table": (lambda f: (f / "table.arrow").write_bytes(bytes(9999)), "table.arrow", "file", ""),
    "short table": (lambda f: os.truncate(f / "table.arrow", 5000), "table.arrow", "file", ""),
    "short images": (lambda f: os.truncate(f / "images.bin", 5000), "images.bin", "file", "5000 bytes"),
    "unknown version": (
        lambda f: rewrite(f, lambda a, m: m.update({b"schema_version": b"99"})),
        "table.arrow",
        "schema_version",
        "99",
    ),
    "no version": (
        lambda f: rewrite(f, lambda a, m: m.pop(b"schema_version")),
        "table.arrow",
        "schema_version",
        "none",
    ),
    "no skeleton": (lambda f: rewrite(f, lambda a, m: m.pop(b"skeleton")), "table.arrow", "skeleton", "skeleton"),
    "damaged skeleton": (
        lambda f: rewrite(f, lambda a, m: m.update({b"skeleton": m[b"skeleton"][:200]})),
        "table.arrow",
        "skeleton",
        "",
    ),
    "another skeleton": (
        lambda f: rewrite(
            f, lambda a, m: m.update({b"skeleton": json.dumps(load_skeleton("smpl_24").to_dict()).encode()})
        ),
        "table.arrow",
        "joints3d",
        r"17",
    ),
    "missing column": (
        lambda f: rewrite(f, lambda a, m: a.pop("rotation")),
        "table.arrow",
        "rotation",
        "no such column",
    ),
    "column of another type": (
        lambda f: rewrite(f, lambda a, m: a.update(frame=pa.array(["1"] * 4))),
        "table.arrow",
        "frame",
        "string",
    ),
}


@pytest.mark.parametrize("damage, file, field, found", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_refused_by_name(tmp_path, damage, file, field, found):
    folder = write(tmp_path / "t", [example(i) for i in range(4)])
    damage(folder)
    with pytest.raises(InvalidExamples) as error:
        ExampleTable.open(folder)
    assert any(p.file == str(folder / file) and p.field == field and found in p.found for p in error.value.problems), (
        str(error.value)
    )
    with pytest.raises(InvalidExamples):
        check(folder)


def test_validate_lists_everything(tmp_path):
    folder = write(tmp_path / "t", [example(i) for i in range(5)])
    assert validate(folder) == validate(folder, decode=True) == []
    rewrite(folder, bad_joints)
    rewrite(folder, lambda a, m: a.update(example_id=pa.array(["e0", "e1", "e0", "e3", ""], pa.large_string())))
    rewrite(folder, lambda a, m: a.update(weight=pa.array([1, 1, 1, NAN, 1], pa.float32())))
    data = bytearray((folder / "images.bin").read_bytes())
    data[3 * len(JPEG) + 700] ^= 16
    (folder / "images.bin").write_bytes(data)
    found = {(os.path.basename(p.file), p.row, p.field) for p in validate(folder)}
    assert found == {
        ("table.arrow", 1, "joints3d"),
        ("table.arrow", 2, "joints3d"),
        ("table.arrow", 2, "example_id"),
        ("table.arrow", 4, "example_id"),
        ("table.arrow", 3, "weight"),
        ("images.bin", 3, "image"),
    }


def test_truncated_archive_names_every_lost_image(tmp_path):
    folder = write(tmp_path / "t", [example(i) for i in range(4)])
    os.truncate(folder / "images.bin", 2 * len(JPEG) + 10)
    problems = validate(folder)
    assert {p.row for p in problems} == {None, 2, 3} and "truncated" in str(InvalidExamples(problems))


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_of_the_table_is_an_error_or_a_list_of_problems(tmp_path, seed):
    "A flipped bit anywhere in table.arrow either changes a value or is refused: no crash, no other exception."
    folder = write(tmp_path / "t", [example(i) for i in range(3)])
    rng, path = np.random.default_rng(seed), folder / "table.arrow"
    data = bytearray(path.read_bytes())
    end = len(data) if seed % 2 else 4000  # half of them in the header
    for at in rng.integers(0, end, 3):
        data[at] ^= 1 << rng.integers(8)
    path.write_bytes(data if seed % 5 else data[: rng.integers(len(data))])
    try:
        ExampleTable.open(folder)
    except InvalidExamples as error:
        assert error.problems
    validate(folder)
