import numpy as np
import pytest

from acae_nb.datasets.colours import recoloured
from acae_nb.datasets.examples import read
from acae_nb.datasets.native import ImageFile, Masked
from acae_nb.datasets.sources import native_formats, open_source, reader_of
from acae_nb.datasets.stored import in_skeleton, shard_name, store_crops
from acae_nb.examples.images import decode_mask, encode_jpeg
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter, check
from acae_nb.geometry.cameras import Camera
from acae_nb.skeletons.joints import load_skeleton

SKELETON = load_skeleton("h36m_17")


def table(folder, count=12, seed=0):
    rng = np.random.default_rng(seed)
    with ExampleWriter(folder, SKELETON, folder.name) as writer:
        for k in range(count):
            camera = Camera([[100, 0, 31.5], [0, 100, 31.5], [0, 0, 1]], [-0.1, 0, 0, 0], np.eye(3), [0, 0, -4000.0])
            writer.add(
                Example(
                    f"walk/{k}",
                    folder.name,
                    "train",
                    "s",
                    "walk",
                    k,
                    camera,
                    np.array([12.0, 8, 40, 40]),
                    (64, 64),
                    rng.normal(0, 300, (17, 3)),
                ),
                encode_jpeg(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)),
            )
    return folder


def content(folder):
    return [(folder / name).read_bytes() for name in ("images.bin", "table.arrow")]


def test_the_crops_do_not_depend_on_shards_processes_or_interruptions(tmp_path):
    source = table(tmp_path / "walk")
    want = content(store_crops(read(source), tmp_path / "a" / "crops", SKELETON, 48))
    assert content(store_crops(read(source), tmp_path / "b" / "crops", SKELETON, 48, shard=1, jobs=2)) == want

    def broken():
        for k, row in enumerate(read(source)):
            if k == 10:
                raise RuntimeError("the disk is full")
            yield row

    with pytest.raises(RuntimeError, match="disk is full"):
        store_crops(broken(), tmp_path / "c" / "crops", SKELETON, 48, shard=1, jobs=1)
    left = sorted((tmp_path / "c" / ".crops.shards").iterdir())
    assert 6 <= len(left) <= 10 and not (tmp_path / "c" / "crops").exists()
    times = [(p / "images.bin").stat().st_mtime_ns for p in left]
    seen = []

    class Watched:
        def __init__(self, picture):
            self.picture, self.table = picture, picture.table

        def load(self):
            seen.append(self.picture.row)
            return self.picture.load()

    assert (
        content(
            store_crops(
                ((e, Watched(p)) for e, p in read(source)), tmp_path / "c" / "crops", SKELETON, 48, shard=1, jobs=1
            )
        )
        == want
    )
    assert sorted(seen) == list(range(len(left), 12)) and len(times) == len(left)
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["crops"]


def test_what_the_table_holds(tmp_path):
    source = table(tmp_path / "walk")
    folder = store_crops(read(source), tmp_path / "crops", SKELETON, 48, quality=90, total=12)
    check(folder, decode=True)
    old, new = ExampleTable.open(source), ExampleTable.open(folder)
    assert (
        len(new) == 12
        and new.dataset == "crops"
        and new.column("example_id").tolist() == old.column("example_id").tolist()
    )
    assert abs(new.world_joints3d() - old.world_joints3d()).max() < 0.01 and max(new.image(3).shape) <= 48


def test_an_empty_selection_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one example"):
        store_crops([], tmp_path / "crops", SKELETON, 48)


def test_shards_are_named_by_what_they_are_made_of(tmp_path):
    from dataclasses import replace

    rows = list(read(table(tmp_path / "walk")))[:3]
    name = shard_name(rows, 48, 95)
    assert shard_name(rows, 48, 95) == name
    (e, p), *rest = rows
    other = [
        shard_name(rows, 48, 90),
        shard_name(rows[:2], 48, 95),
        shard_name([(replace(e, box=e.box + 1), p), *rest], 48, 95),
        shard_name([(replace(e, joints3d=e.joints3d + 1), p), *rest], 48, 95),
        shard_name(
            [(replace(e, camera=Camera(e.camera.intrinsics, None, e.camera.rotation, e.camera.position)), p), *rest],
            48,
            95,
        ),
    ]
    other += [shard_name(list(recoloured(rows, change)), 48, 95) for change in ("brightened", "white_balanced")]
    assert len({name, *other}) == 8
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"1")
    before = shard_name([(e, ImageFile(picture))])
    picture.write_bytes(b"22")
    assert shard_name([(e, ImageFile(picture))]) != before


def test_joints_of_another_order(tmp_path):
    imar, h36m = load_skeleton("imar_25"), load_skeleton("h36m_25")
    joints = np.arange(75.0).reshape(25, 3)
    [(example, _)] = in_skeleton(
        [(Example("a", "d", "train", "s", "q", 0, None, None, (1, 1), joints), None)], imar, h36m
    )
    for k, joint in enumerate(h36m.joints):
        assert (example.joints3d[k] == joints[imar.joints.index(joint)]).all()
    with pytest.raises(KeyError):
        list(in_skeleton([], load_skeleton("coco_17"), h36m))


def test_sources(tmp_path):
    source = table(tmp_path / "walk")
    skeleton, rows = open_source("examples", source)
    example, picture = next(rows)
    assert (
        skeleton.name == "h36m_17"
        and picture.size == (64, 64)
        and picture.jpeg() == ExampleTable.open(source).image_bytes(0)
        and picture.load().shape == (64, 64, 3)
    )
    assert {"examples", "coco", "imar", "cmu_panoptic", "mpi_inf_3dhp"} <= set(native_formats()) and not {
        "native",
        "selection",
        "stored",
        "sources",
    } & set(native_formats())
    with pytest.raises(ValueError, match="did you mean 'coco'"):
        reader_of("cocoa")
    with pytest.raises(ValueError, match="options.*'dataset'.*found.*datset"):
        open_source("imar", tmp_path, datset="fit3d")
    for format in ("coco", "imar", "cmu_panoptic", "mpi_inf_3dhp", "examples"):
        with pytest.raises(ValueError, match="nowhere"):
            list(open_source(format, tmp_path / "nowhere")[1])


def upper_half(size):
    return np.arange(size[1])[:, None] * np.ones(size[0]) < size[1] / 2


def test_masks_in_other_files_are_stored_with_the_crops(tmp_path):
    source = table(tmp_path / "walk", 3)

    def masked(correction):
        rows = ((e, Masked(picture, upper_half, (picture.size,))) for e, picture in read(source))
        return recoloured(rows, correction) if correction else rows

    for name, correction in (("plain", None), ("lighter", "brightened")):
        crops = ExampleTable.open(store_crops(masked(correction), tmp_path / name, SKELETON, 48, jobs=1))
        for k in range(3):
            mask = decode_mask(crops[k].mask, crops[k].image_size)
            assert mask[8:20, 12:36].all() and not mask[28:].any()
    rows = list(masked(None))
    assert shard_name(rows) != shard_name(list(read(source)))
