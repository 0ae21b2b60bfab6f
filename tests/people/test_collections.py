"""Descriptions of collections are refused by name.

A tiny collection is complete, true and the same for any number of processes.
"""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="rendering needs the `people` extra")
from acae_nb.examples.tables import ExampleTable, check, decode_mask
from acae_nb.people.body import Rig
from acae_nb.people.collections import Collection, read_collection, render_collection
from acae_nb.people.everyday import everyday_poses
from tests.training.test_ends import marked, wait_until

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


def rig_file():
    for path in (".cache/rig.safetensors", "artifacts/rig/rig.safetensors"):
        if (REPO / path).exists():
            return REPO / path
    pytest.skip(
        "no rig file (artifacts/rig/rig.safetensors or .cache/rig.safetensors): "
        "the pipeline's stage `body` or the notebook nbs/people/body.ipynb makes one"
    )


@pytest.fixture(scope="module")
def rig():
    return Rig.load(rig_file())


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

    rendered, save_chunk = [], module.save_chunk

    def killed(studio, chunk, path):
        if chunk == 1:
            raise KeyboardInterrupt
        return noted(studio, chunk, path)

    def noted(studio, chunk, path):
        rendered.append(chunk)
        return save_chunk(studio, chunk, path)

    monkeypatch.setattr(module, "save_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        render_collection(PARAMS, rig, clips, tmp_path / "small", processes=1)
    assert not (tmp_path / "small").exists() and rendered == [0]
    monkeypatch.setattr(module, "save_chunk", noted)
    render_collection(PARAMS, rig, clips, tmp_path / "small", processes=1)
    assert rendered == [0, 1]
    assert contents(tmp_path / "small") == contents(small)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_two_dask_workers_render_and_prepare_the_same_bytes(small, rig, clips, tmp_path):
    pytest.importorskip("distributed", reason="rendering on a cluster needs `pip install dask distributed`")
    import joblib
    from distributed import Client, LocalCluster

    from acae_nb.datasets import examples
    from acae_nb.datasets.stored import store_crops

    def prepare(folder):
        rows = examples.read(small)
        return store_crops(rows, folder, ExampleTable.open(small).skeleton, 64, jobs=2, shard=4)

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        with joblib.parallel_config(backend="dask"):
            render_collection(PARAMS, rig, clips, tmp_path / "small", processes=2)
            prepare(tmp_path / "dask" / "crops")
        casts = client.run(casts_made)
    assert sum(casts.values()) == 2 and casts_made() == 0  # a chunk each, or both on one; none here
    assert contents(tmp_path / "small") == contents(small)
    prepare(tmp_path / "here" / "crops")
    assert contents(tmp_path / "dask" / "crops") == contents(tmp_path / "here" / "crops")


def casts_made():
    "How often this process asked for the people of a collection."
    from acae_nb.people.collections import cast_of

    return cast_of.cache_info().misses + cast_of.cache_info().hits


RENDERING = """
import sys
from pathlib import Path

import numpy as np

from acae_nb.people.body import Rig
from acae_nb.people.collections import render_collection
from acae_nb.people.everyday import everyday_poses

if __name__ == "__main__":
    params = dict(skeleton="h36m_17", images=3200, seed=3)
    clips = [everyday_poses(60, np.random.default_rng(0))]
    render_collection(params, Rig.load(sys.argv[1]), clips, Path(sys.argv[2]), processes=2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(300)
def test_rendering_processes_end_with_the_one_that_is_killed(tmp_path):
    (tmp_path / "rendering.py").write_text(RENDERING)
    mark = f"ACAE_NB_RENDERS={uuid.uuid4()}"
    environment = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1")
    environment.update([mark.split("=")])
    command = [sys.executable, tmp_path / "rendering.py", rig_file(), tmp_path / "many"]
    renderer = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: len(list(tmp_path.glob(".many.chunks-*/*.npz"))) >= 1, 200)
        assert len(marked(mark)) >= 3  # it and two that render
    finally:
        renderer.kill()
        renderer.wait()
    assert wait_until(lambda: not marked(mark), 8), marked(mark)


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
