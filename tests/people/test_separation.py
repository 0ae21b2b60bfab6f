"""A3: training, validation and tests share no clip, generator, body, place, photograph or camera.

Read from the tables that are made.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPO
from ruamel.yaml import YAML

from acae_nb.people.cmu_clips import cmu_clips
from acae_nb.people.everyday import ANYWHERE, EVERYDAY, everyday_poses
from acae_nb.people.motion import ROW, SPLITS, heading_of, mirror_poses, read_motions, split_clips, turn_poses
from acae_nb.people.separation import (
    Source,
    check_separation,
    digest,
    read_sources,
    shared_ingredients,
    write_sources,
)

MOTIONS = REPO / "data/motions"
SOURCE = Source("a/000000", "train", 1, "a-s000", "b0", "walk.txt@3", "", "", "room/1-5-0", "", "c0")
TEST = Source("b/000000", "test", 2, "b-s000", "b1", "dance.txt@3", "", "", "room/2-5-0", "", "c1")


def test_separate_collections_pass(tmp_path):
    for name, source in (("a", SOURCE), ("b", TEST)):
        (tmp_path / name).mkdir()
        write_sources(tmp_path / name, [source])
    assert read_sources(tmp_path / "a") == [SOURCE]
    check_separation([tmp_path / "a", tmp_path / "b"], {"c9": "cam01"})
    with pytest.raises(ValueError, match="camera cam01 of the recording: in b"):
        check_separation([tmp_path / "a", tmp_path / "b"], {"c1": "cam01"})


SHARED = [
    (dict(seed=1), "seed 1: in test (b) and in train (a)"),
    (dict(subject="a-s000"), "subject a-s000: in test (b) and in train (a)"),
    (dict(body="b0"), "body b0: in test (b) and in train (a)"),
    (dict(pose="walk.txt@30"), "motion walk.txt: in test (b) and in train (a)"),
    (dict(upper_body="walk.txt@30"), "motion walk.txt: in test (b) and in train (a)"),
    (dict(place="room/1-5-0"), "place room/1-5-0: in test (b) and in train (a)"),
    (dict(camera="c0"), "camera c0: in test (b) and in train (a)"),
    (dict(photograph="copy.jpg@123"), "photograph 123: in test (b) and in train (a)"),
]


@pytest.mark.parametrize("change, sentence", SHARED, ids=[next(iter(change)) for change, _ in SHARED])
def test_what_is_shared_is_named(change, sentence):
    training = replace(SOURCE, photograph="hall.jpg@123")
    assert shared_ingredients({"a": [training], "b": [replace(TEST, **change)]}) == [sentence]
    assert not shared_ingredients({"a": [training], "b": [replace(TEST, split="train", **change)]})


def test_a_collection_without_sources_or_with_other_columns_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="sources.csv"):
        read_sources(tmp_path)
    (tmp_path / "sources.csv").write_text("picture,split\na/0,train\n")
    with pytest.raises(ValueError, match=r"sources.csv: expected columns .*found \['picture', 'split'\]"):
        read_sources(tmp_path)


def test_families_of_everyday_poses_share_no_kind_and_no_place_of_the_hands_but_hanging():
    places = {split: {place for kind in EVERYDAY[split].values() for place in kind.hands} for split in SPLITS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(EVERYDAY[one]) & set(EVERYDAY[other])
        assert places[one] & places[other] <= {"hanging"}
    assert all(ANYWHERE not in places[split] for split in ("validation", "test"))


def facing(poses):
    "Poses [N, 21, 3] with the pelvis at the origin and the hips along one direction."
    return turn_poses(poses - poses[:, :1], -heading_of(poses))


def nearest(poses, others):
    "RMS distance (mm a joint) of each pose to the nearest of the others."
    a, b = poses.reshape(len(poses), -1), others.reshape(len(others), -1)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0).min(1) / len(ROW))


def test_clips_of_two_splits_are_different_recordings():
    "Also mirrored: of no clip is half of the frames within 35 mm a joint of frames of another split."
    if not MOTIONS.is_dir():
        pytest.skip(f"{MOTIONS} is not at hand: `python -m acae_nb.people.sample_data data` fetches it")
    splits = split_clips([*read_motions(MOTIONS), *cmu_clips()])
    assert all(clip.source for clips in splits.values() for clip in clips)
    poses = {
        split: [facing(clip.positions[:: max(1, len(clip) // 150)].astype(float)) for clip in clips]
        for split, clips in splits.items()
    }
    for split in ("validation", "test"):
        others = np.concatenate([p for other in SPLITS if other != split for p in poses[other]])
        others = np.concatenate([others, facing(mirror_poses(others))])
        for clip, held_out in zip(splits[split], poses[split]):
            assert np.median(nearest(held_out, others)) > 35, clip.name


def test_collections_of_the_default_have_seeds_of_their_own_and_no_photographs():
    collections = YAML(typ="safe").load(REPO / "params.yaml")["people"]["collections"]
    seeds = [collection["seed"] for collection in collections.values()]
    assert len(set(seeds)) == len(seeds)
    assert not any("photo" in collection.get("places", {}) for collection in collections.values())


def test_no_stage_that_renders_reads_the_recording_or_its_room():
    cells = json.loads((REPO / "nbs/pipeline/people.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert "rooms" not in code and "pose2sim" not in code and "photos" not in code


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A small collection of every kind in params.yaml, made as the stage makes it."
    pytest.importorskip("numba", reason="rendering needs the `people` extra")
    from acae_nb.people.body import Rig
    from acae_nb.people.collections import render_collection
    from acae_nb.people.native_layouts import store_native

    path = next(
        (p for p in (REPO / ".cache/rig.safetensors", REPO / "artifacts/rig/rig.safetensors") if p.exists()), None
    )
    if path is None or not MOTIONS.is_dir():
        pytest.skip("no rig file or no clips: `dvc repro body` makes the one, the fetch of the sample data the others")
    rig, folder = Rig.load(path), tmp_path_factory.mktemp("people")
    clips = split_clips([*read_motions(MOTIONS), *cmu_clips()])
    for k, split in enumerate(SPLITS):
        rng = np.random.default_rng([0, k])
        clips[split].append(everyday_poses(60, rng, EVERYDAY[split], f"everyday/{split}/seed 0-{k}"))
    collections = YAML(typ="safe").load(REPO / "params.yaml")["people"]["collections"]
    chosen = [name for name in collections if name in ("lab_h36m", "street_smpl", "unlabelled", "test_indoor")]
    for name in chosen:
        params = dict(collections[name], images=8, subjects=2, size=[64, 64])
        layout = params.pop("layout", None)
        render_collection(params, rig, clips[params.get("split", "train")], folder / name, processes=1)
        if layout:
            store_native(folder / name, layout)
    return folder


def test_made_collections_of_every_split_are_separate_and_say_what_they_are_made_of(made):
    check_separation(sorted(made.iterdir()))
    sources = {folder.name: read_sources(folder) for folder in made.iterdir()}
    assert {source.split for rows in sources.values() for source in rows} == set(SPLITS)
    for name, rows in sources.items():
        assert len(rows) == 8 and len({source.picture for source in rows}) == 8
        for source in rows:
            assert source.subject.startswith(name) and source.photograph == ""
            clip, _, frame = source.pose.rpartition("@")
            assert clip and frame.isdigit()


def test_a_test_rendered_with_a_training_clip_is_found(made, tmp_path):
    rows = read_sources(made / "test_indoor")
    training = read_sources(made / "street_smpl")[0]
    (tmp_path / "test_indoor").mkdir()
    write_sources(tmp_path / "test_indoor", [replace(rows[0], pose=training.pose), *rows[1:]])
    with pytest.raises(ValueError, match="in test .test_indoor. and in train .street_smpl"):
        check_separation([made / "street_smpl", tmp_path / "test_indoor"])


def test_sources_agree_with_the_table(made):
    from acae_nb.examples.tables import ExampleTable

    table = ExampleTable.open(made / "test_indoor")
    for example, source in zip(table, read_sources(made / "test_indoor")):
        assert (example.example_id, example.split, example.subject) == (source.picture, source.split, source.subject)
        assert int(source.pose.rpartition("@")[2]) == example.frame
        assert digest(example.camera.position, example.camera.rotation) == source.camera
