"""Descriptions of collections are refused by name.

A tiny collection is complete, true and the same for any number of processes.
"""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="rendering needs the `people` extra")
from acae_nb.examples.tables import ExampleTable, check, decode_mask
from acae_nb.people.body import Rig
from acae_nb.people.collections import Collection, read_collection, render_collection
from acae_nb.people.everyday import everyday_poses

REPO = Path(__file__).resolve().parents[2]
FORMATS = ("smpl_24", "h36m_17", "coco_17")
GOOD = dict(skeleton="h36m_17", images=3, seed=1)

BAD = [
    (dict(imagse=3), r"unknown key 'imagse' \(did you mean 'images'"),
    (dict(skeleton="h36m"), "skeleton: expected 'all' or some of .* found 'h36m'"),
    (dict(skeleton=["h36m_17", 7]), "skeleton: .*found 7"),
    (dict(images=0), "images: expected a whole number >= 1, found 0"),
    (dict(images=2.5), "images: expected a whole number >= 1, found 2.5"),
    (dict(images=True), "images: expected a whole number >= 1, found True"),
    (dict(seed=-1), "seed: expected a whole number >= 0"),
    (dict(split="trian"), "split: expected one of .*train.* found 'trian'"),
    (dict(label="3D"), "label: expected one of .*3d.* found '3D'"),
    (dict(size=[256]), "size: expected .width, height."),
    (dict(size=[256, 4]), "size: expected .*found .256, 4."),
    (dict(clothes="punk"), "clothes: expected one of .*casual.* found 'punk'"),
    (dict(places={"rom": 1}), "places: expected name: weight.*found .*rom"),
    (dict(places={}), "places: expected"),
    (dict(places={"room": 0}), "places: .*not all 0"),
    (dict(places={"room": float("nan")}), "places: expected"),
    (dict(fill=[0.9, 0.5]), "fill: expected .low, high."),
    (dict(distance=[100, 3000]), "distance: expected .*1200"),
    (dict(distortion=2), "distortion: expected a number from -0.35 to 0.35, found 2"),
    (dict(clips={"wlak": 1}), "clips: expected names from .*found 'wlak'"),
    (dict(crowd=1.5), "crowd: expected a number from 0 to 1"),
    (dict(cameras=-1), "cameras: expected a whole number >= 0"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[f"{next(iter(c))}-{k}" for k, (c, _) in enumerate(BAD)])
def test_bad_descriptions_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message) as error:
        read_collection({**GOOD, **change}, FORMATS, {"walk", "run"}, "people.lab")
    assert str(error.value).startswith("people.lab: ")


def test_all_faults_are_listed_at_once_and_missing_keys_named():
    with pytest.raises(ValueError, match="3 problems(.|\n)*missing key 'images'(.|\n)*missing key 'seed'(.|\n)*label"):
        read_collection(dict(skeleton="h36m_17", label="4d"), FORMATS)


def test_good_descriptions():
    assert read_collection(GOOD, FORMATS) == Collection(("h36m_17",), 3, 1)
    assert read_collection({**GOOD, "skeleton": "all"}, FORMATS).skeleton == FORMATS
    assert read_collection({**GOOD, "skeleton": ["coco_17", "smpl_24"]}, FORMATS).skeleton == ("coco_17", "smpl_24")


@pytest.fixture(scope="module")
def rig():
    for path in (".cache/rig.safetensors", "artifacts/rig/rig.safetensors"):
        if (REPO / path).exists():
            return Rig.load(REPO / path)
    pytest.skip(
        "no rig file (artifacts/rig/rig.safetensors or .cache/rig.safetensors): "
        "the pipeline's stage `body` or the notebook nbs/people/body.ipynb makes one"
    )


PARAMS = dict(
    skeleton=["h36m_17", "coco_17"],
    images=34,
    seed=3,
    size=[96, 80],
    subjects=3,
    places={"room": 1, "park": 1},
    cameras=2,
    distortion=-0.1,
    crowd=0.3,
)


@pytest.fixture(scope="module")
def clips():
    return [everyday_poses(60, np.random.default_rng(0))]


@pytest.fixture(scope="module")
def small(rig, clips, tmp_path_factory):
    return render_collection(PARAMS, rig, clips, tmp_path_factory.mktemp("people") / "small", processes=2)


def test_the_table_is_valid_and_complete(small):
    check(small)
    table = ExampleTable.open(small)
    assert len(table) == 34 and table.dataset == "small" and set(table.skeleton.parts) == {"h36m_17", "coco_17"}
    assert [p.name for p in small.parent.iterdir()] == ["small"]  # no chunks left behind
    assert len({table[k].subject for k in range(34)}) == 3 and {table[k].camera_name for k in range(34)} == {
        "camera0",
        "camera1",
    }
    assert table.image(0).shape == (80, 96, 3) and table.image(0).std() > 5


def test_joints_project_into_the_mask(small):
    table, shares = ExampleTable.open(small), []
    for k in range(34):
        e = table[k]
        mask, px = decode_mask(e.mask, e.image_size), np.round(e.camera.project(e.joints3d)).astype(int)
        near = np.array([mask[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].any() for x, y in px])
        shares.append(near.mean())
        assert (e.box[:2] >= -0.5).all() and (e.box[:2] + e.box[2:] <= np.array([96, 80]) - 0.4).all()
    assert np.median(shares) > 0.95


def test_people_stand_on_the_floor(small):
    table = ExampleTable.open(small)
    lowest = np.array([table[k].joints3d[:, 2].min() for k in range(34)])
    assert (lowest > 0).all() and (lowest < 220).all()  # ankles over the floor


def test_any_number_of_processes_gives_the_same_bytes_and_chunks_are_taken_up(small, rig, clips, tmp_path, monkeypatch):
    import acae_nb.people.collections as module

    done, first = [], module._save_chunk

    def killed(*state):
        if state[-2] == 1:
            raise KeyboardInterrupt
        done.append(state[-2])
        return first(*state)

    monkeypatch.setattr(module, "_save_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        render_collection(PARAMS, rig, clips, tmp_path / "small", processes=1)
    assert not (tmp_path / "small").exists() and done == [0]
    monkeypatch.setattr(module, "_save_chunk", lambda *state: done.append(state[-2]) or first(*state))
    render_collection(PARAMS, rig, clips, tmp_path / "small", processes=1)
    assert done == [0, 1]
    for name in ("images.bin", "table.arrow"):
        assert (tmp_path / "small" / name).read_bytes() == (small / name).read_bytes()


def test_two_dimensional_labels(rig, clips, tmp_path):
    table = ExampleTable.open(
        render_collection(
            {**PARAMS, "skeleton": "coco_17", "images": 2, "label": "2d"}, rig, clips, tmp_path / "flat", processes=1
        )
    )
    assert table[0].joints3d is None and table[0].joints2d.shape == (17, 2) and np.isfinite(table[0].joints2d).all()


def test_photo_places_need_photos(rig, clips, tmp_path):
    with pytest.raises(ValueError, match="places: 'photo' needs pictures"):
        render_collection({**PARAMS, "places": {"photo": 1}}, rig, clips, tmp_path / "x")
    assert not any(tmp_path.iterdir())
