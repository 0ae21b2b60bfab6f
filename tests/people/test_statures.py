"""Rendered people get statures that people have: published means and spreads, with the same pictures."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("numba", reason="rendering needs the `people` extra")
from acae_nb.examples.tables import ExampleTable, ExampleWriter, check
from acae_nb.people.body import Rig, random_phenotypes
from acae_nb.people.collections import render_collection
from acae_nb.people.everyday import everyday_poses
from acae_nb.people.statures import NaturalStatures, rescale_people, scales_of_collection, statures
from acae_nb.workflow import natural_statures
from tests.people.test_collections import PARAMS as PARAMS_OF_A_RIG
from tests.people.test_collections import contents, rig_file

PARAMS = PARAMS_OF_A_RIG | {"skeleton": ["coco_17"]}


@pytest.fixture(scope="module")
def natural():
    return NaturalStatures(Rig.load(rig_file()))


@pytest.fixture(scope="module")
def rendered(natural, tmp_path_factory):
    clips = [everyday_poses(60, np.random.default_rng(0))]
    return render_collection(PARAMS, natural.rig, clips, tmp_path_factory.mktemp("people") / "small", processes=2)


@pytest.fixture
def copy(rendered, tmp_path):
    return shutil.copytree(rendered, tmp_path / "small")


def test_adults_are_as_tall_as_measured_ones_and_of_the_same_order(natural):
    "Means and standard deviations in inches by the National Center for Health Statistics: see the notebook."
    phenotypes = random_phenotypes(800, np.random.default_rng(5))
    before = statures(phenotypes, natural.rig)
    after, female = before * natural.scales(phenotypes), natural.is_female(phenotypes)
    adult = phenotypes[:, natural.rig.phenotypes.index("age")] >= 2 / 3
    men, women = after[adult & ~female], after[adult & female]
    assert men.mean() / 25.4 == pytest.approx(69.0, abs=0.4) and women.mean() / 25.4 == pytest.approx(63.5, abs=0.4)
    assert men.std() / 25.4 == pytest.approx(2.85, abs=0.3) and women.std() / 25.4 == pytest.approx(2.58, abs=0.3)
    assert before[adult & ~female].std() > 1.7 * men.std()  # what is repaired
    assert (before - after)[adult].mean() == pytest.approx(50, abs=15)
    assert np.corrcoef(before[adult & female], women)[0, 1] > 0.9


def test_the_pictures_stay_and_their_world_is_scaled(natural, rendered, copy):
    table = ExampleTable.open(rendered)
    scales = scales_of_collection(copy, PARAMS, natural)
    assert set(scales) == set(table.column("subject"))
    rescale_people(copy, scales)
    check(copy)
    scaled = ExampleTable.open(copy)
    assert (copy / "sources.csv").read_bytes() == (rendered / "sources.csv").read_bytes()
    assert (copy / "images.bin").read_bytes() == (rendered / "images.bin").read_bytes()
    for old, new in zip((table[k] for k in range(len(table))), (scaled[k] for k in range(len(table)))):
        assert new.camera.project(new.joints3d) == pytest.approx(old.camera.project(old.joints3d), abs=1e-2)
        size = [np.linalg.norm(e.camera.to_camera(e.joints3d), axis=-1) for e in (new, old)]
        assert size[0] / size[1] == pytest.approx(scales[old.subject], rel=1e-5)
        assert (new.box == old.box).all() and new.mask == old.mask and new.example_id == old.example_id
    once = contents(copy)
    rescale_people(copy, scales)
    assert contents(copy) == once  # not twice


def test_people_of_other_parameters_are_refused_and_nothing_is_changed(natural, copy):
    before = contents(copy)
    with pytest.raises(
        ValueError, match="sources.csv, picture small/000000, body: expected one .* rendered with other"
    ):
        scales_of_collection(copy, PARAMS | {"seed": 4}, natural)
    with pytest.raises(KeyError, match="small-s"):
        rescale_people(copy, {})
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["small"]


def test_the_command_reads_the_collection_that_the_folder_is_named_after(
    natural, rendered, copy, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(f"people: {{collections: {{small: {PARAMS}}}}}\n")
    natural_statures.main([str(copy), "--rig", str(rig_file())])
    scaled, scales = ExampleTable.open(copy), scales_of_collection(copy, PARAMS, natural)
    of_rows = np.array([scales[subject] for subject in scaled.column("subject")])
    assert "statures" in scaled.notes and np.abs(of_rows - 1).max() > 0.02
    joints = ExampleTable.open(rendered).world_joints3d() * of_rows[:, None, None]
    assert scaled.world_joints3d() == pytest.approx(joints, rel=1e-5)
    with pytest.raises(ValueError, match="folders: expected collections of params.yaml, found other"):
        natural_statures.main([str(tmp_path / "other"), "--rig", str(rig_file())])
    (tmp_path / "params.yaml").write_text(f"people: {{collections: {{small: {PARAMS | {'layout': 'imar'}}}}}}\n")
    with pytest.raises(ValueError, match="expected example tables, found .* layout: .'small'"):
        natural_statures.main([str(copy), "--rig", str(rig_file())])


def test_pictures_labelled_in_2d_keep_their_labels_and_a_left_over_of_a_killed_run_is_replaced(natural, copy):
    table = ExampleTable.open(copy)
    examples = [table[k] for k in range(3)]
    flat = copy.parent / "flat"
    with ExampleWriter(flat, table.skeleton, "small") as writer:
        for k, e in enumerate(examples):
            writer.add(replace(e, joints3d=None, joints2d=e.camera.project(e.joints3d)), table.image_bytes(k))
    (copy.parent / ".flat.scaled").mkdir()
    (copy.parent / ".flat.scaled" / "table.arrow").write_bytes(b"half")
    rescale_people(flat, scales_of_collection(copy, PARAMS, natural))
    for before, after in zip(examples, (ExampleTable.open(flat)[k] for k in range(3))):
        assert after.joints3d is None
        assert after.joints2d == pytest.approx(before.camera.project(before.joints3d), abs=1e-3)
