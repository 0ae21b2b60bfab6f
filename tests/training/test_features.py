"""Kept features: the same bytes for any number of processes and after a kill; what the encoder says of each look."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import made_up_sets
import numpy as np
import pytest
import torch

from acae_nb.evaluation.table_poses import predict_examples
from acae_nb.examples.crops import NO_AUGMENTATION, Augmentation
from acae_nb.examples.mixing import BatchPlan, MixedBatches
from acae_nb.examples.tables import ExampleTable
from acae_nb.models.backbones import blazepose, efficientnet_lite0_joined, resnet50, tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints, load_pose_model
from acae_nb.skeletons.joints import load_skeleton, union
from acae_nb.training import features, recipes
from acae_nb.training.distributed import gather_rows
from acae_nb.training.features import (
    FeatureCache,
    FrozenPart,
    KeptLooks,
    LearningModel,
    MixedLooks,
    NoRoom,
    PlainLooks,
    TrainingLooks,
    features_key,
    keep_looks,
    look_pictures,
)
from acae_nb.training.loop import Callback, Stopped, part_of, pose_prediction
from acae_nb.training.parameters import FirstTraining, parameters_from

SIZE = 64
LOOKS = TrainingLooks(SIZE, Augmentation(), 3)


def frozen_backbone(make=tiny_backbone, stride=8):
    torch.manual_seed(0)
    return make().freeze_until(stride)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "SHARD_ROWS", 4)
    made_up_sets.write_sets(tmp_path / "data", rows=10)
    return [ExampleTable.open(tmp_path / "data" / name) for name in made_up_sets.FORMATS]


def cache_in(folder, **changes):
    return FeatureCache(folder=str(folder), **{"jobs": 1} | changes)


def bytes_below(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).rglob("*.safetensors"))}


def batches(tables, augmentation=LOOKS.augmentation, rank=0, world=1):
    plan = BatchPlan([len(t) for t in tables], [3, 2, 3], seed=5)
    formats = union([t.skeleton for t in tables if "joints3d" in t], name="all formats")
    return MixedBatches(tables, plan, formats, load_skeleton("coco_17"), SIZE, augmentation, 5, rank, world)


@pytest.mark.parametrize("jobs", [2, 3])
def test_any_number_of_processes_makes_the_same_bytes(tables, tmp_path, jobs):
    # in one process and in several, whose test hooks (SHARD_ROWS) other processes do not see: shards carry their rows
    for name, n in (("one", 1), ("many", jobs)):
        keep_looks(frozen_backbone(), tables[:1], LOOKS, 2, cache_in(tmp_path / name, jobs=n))
    one, many = bytes_below(tmp_path / "one"), bytes_below(tmp_path / "many")
    assert len(one) == 2 * 3 and one == many


def test_what_is_there_is_not_computed_again(tables, tmp_path):
    cache = cache_in(tmp_path / "cache")
    (kept,) = keep_looks(frozen_backbone(), tables[:1], LOOKS, 1, cache)
    whole = bytes_below(cache.folder)
    lost = kept.shard(0, 4).path
    lost.unlink()
    lost.with_name(f".{lost.name}.1.tmp").write_bytes(b"half of it")  # as a kill leaves it
    times = {path.name: path.stat().st_mtime_ns for path in kept.folder.glob("*.safetensors")}
    keep_looks(frozen_backbone(), tables[:1], LOOKS, 1, cache)
    assert bytes_below(cache.folder) == whole
    assert all((kept.folder / name).stat().st_mtime_ns == at for name, at in times.items())
    keep_looks(frozen_backbone(), tables[:1], LOOKS, 3, cache)  # more looks are added to those that are there
    assert bytes_below(cache.folder).items() > whole.items() and len(bytes_below(cache.folder)) == 3 * len(whole)


def test_a_kill_leaves_whole_shards_and_no_process(tables, tmp_path):
    script = tmp_path / "compute.py"
    script.write_text(
        f"""
import sys, time
sys.path[:0] = {[str(Path(made_up_sets.__file__).parents[1]), str(Path(__file__).parent)]!r}
import torch
from acae_nb.examples.crops import Augmentation
from acae_nb.examples.tables import ExampleTable
from acae_nb.models.backbones import tiny_backbone
from acae_nb.evaluation.table_poses import predict_examples
from acae_nb.training import features, recipes
if __name__ == "__main__":
    features.SHARD_ROWS = 1
    torch.manual_seed(0)
    table = ExampleTable.open({str(tables[0].folder)!r})
    looks = features.TrainingLooks({SIZE}, Augmentation(), 3)
    cache = features.FeatureCache(folder=sys.argv[1], jobs=2)
    features.keep_looks(tiny_backbone().freeze_until(8), [table], looks, 400, cache)
"""
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.rglob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = bytes_below(folder)
    assert 0 < len(done) < 4000
    deadline = time.monotonic() + 10
    while (left := children_with(str(folder), script.name)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    features.SHARD_ROWS = 1
    keep_looks(frozen_backbone(), tables[:1], LOOKS, 1, cache_in(tmp_path / "undisturbed"))
    undisturbed = bytes_below(tmp_path / "undisturbed")
    in_both = done.keys() & undisturbed.keys()
    assert in_both and all(undisturbed[name] == done[name] for name in in_both)


def children_with(*words):
    "Living processes whose command line has one of the words."
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode() if entry.name.isdigit() else ""
        except OSError:
            continue
        if any(word in line for word in words) and entry.name != str(os.getpid()):
            found.append((entry.name, line))
    return found


def changed(name, tables, tmp_path):
    "The key's arguments with one thing changed."
    table, looks, backbone = tables[0], LOOKS, frozen_backbone()
    if name == "table":
        made_up_sets.write_set(tmp_path / "other" / "a", "h36m_17", False, rows=11)
        table = ExampleTable.open(tmp_path / "other" / "a")
    elif name == "size":
        looks = replace(looks, size=96)
    elif name == "seed":
        looks = replace(looks, seed=4)
    elif name == "augmentation":
        looks = replace(looks, augmentation=replace(looks.augmentation, rotation_deg=5.0))
    elif name == "occluders":
        looks = replace(looks, augmentation=replace(looks.augmentation, occluders=(np.zeros((4, 4, 4), np.uint8),)))
    elif name == "plain":
        looks = PlainLooks(SIZE)
    elif name == "a weight":
        next(iter(backbone.features[0].parameters())).data[0] += 1e-3
    elif name == "a running mean":
        backbone.features[0][1].running_mean[0] += 1e-3
    elif name == "stride":
        backbone.freeze_until(4)
    return table, looks, FrozenPart(backbone)


@pytest.mark.parametrize(
    "name", ["table", "size", "seed", "augmentation", "occluders", "plain", "a weight", "a running mean", "stride"]
)
def test_all_that_decides_features_is_in_their_key(name, tables, tmp_path):
    key = features_key(*changed("nothing", tables, tmp_path))
    assert key == features_key(*changed("nothing", tables, tmp_path))
    assert key != features_key(*changed(name, tables, tmp_path))


def test_what_learns_is_not_in_the_key(tables):
    backbone = frozen_backbone()
    key = features_key(tables[0], LOOKS, FrozenPart(backbone))
    backbone.features[-1][0].weight.data += 1
    assert key == features_key(tables[0], LOOKS, FrozenPart(backbone))


@pytest.mark.parametrize(
    "make, stride, size",
    [
        (tiny_backbone, 8, 64),
        (blazepose, 32, 64),
        (blazepose, 16, 64),
        (resnet50, 8, 64),
        (efficientnet_lite0_joined, 32, 64),
    ],
)
def test_the_learning_part_goes_on_where_the_frozen_part_ends(make, stride, size):
    torch.manual_seed(0)
    model = PoseModel(make().freeze_until(stride), SeparateJoints(7))
    learning = LearningModel(model, size)
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    intrinsics = torch.tensor([[80.0, 0, 31.5], [0, 80, 31.5], [0, 0, 1]]).expand(3, 3, 3)
    maps = FrozenPart(model.backbone)(images)
    assert maps.dtype == torch.float16
    with torch.no_grad():
        whole, parts = model.eval().heatmaps(images), learning.eval().heatmaps(maps)
    assert (whole - parts).abs().max() < 2e-3 * whole.abs().max()  # what float16 costs
    learning.train()
    learning(maps, intrinsics).joints.sum().backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learns == {name for name, p in model.named_parameters() if p.requires_grad}


def test_nothing_frozen_is_refused():
    with pytest.raises(ValueError, match="expected null where nothing"):
        FrozenPart(tiny_backbone())


def test_batches_are_those_of_the_mixing_sampler(tables, tmp_path):
    looks = TrainingLooks(SIZE, NO_AUGMENTATION, 0)
    backbone = frozen_backbone()
    kept = keep_looks(backbone, tables, looks, 1, cache_in(tmp_path / "cache"))
    mixed = batches(tables, NO_AUGMENTATION)
    for step in (0, 7):
        fresh, cached = mixed[step], MixedLooks(mixed, kept)[step]
        assert torch.equal(cached.images, FrozenPart(backbone)(fresh.images))
        for name in ("intrinsics", "joints3d", "joints2d", "is_2d", "dataset", "row"):
            torch.testing.assert_close(getattr(cached, name), getattr(fresh, name), rtol=0, atol=0, equal_nan=True)


def test_ranks_share_a_batch_and_all_looks_are_drawn(tables, tmp_path):
    kept = keep_looks(frozen_backbone(), tables, LOOKS, 3, cache_in(tmp_path / "cache"))
    whole = MixedLooks(batches(tables), kept)
    halves = [MixedLooks(batches(tables, rank=rank, world=2), kept) for rank in (0, 1)]
    drawn = torch.zeros(3)
    for step in range(40):
        batch, parts = whole[step], [half[step] for half in halves]
        for name in ("images", "look", "row", "joints3d"):
            both = torch.stack([getattr(part, name) for part in parts], 1).flatten(0, 1)
            torch.testing.assert_close(both, getattr(batch, name), rtol=0, atol=0, equal_nan=True)
        drawn += torch.bincount(batch.look, minlength=3)
    assert (drawn / drawn.sum() - 1 / 3).abs().max() < 0.1


def test_pictures_of_looks_can_be_made_again(tables, tmp_path):
    backbone = frozen_backbone()
    kept = keep_looks(backbone, tables, LOOKS, 2, cache_in(tmp_path / "cache"))
    batch = MixedLooks(batches(tables), kept)[0]
    again = FrozenPart(backbone)(look_pictures(batch, range(len(batch)), tables, LOOKS))
    torch.testing.assert_close(again.float(), batch.images.float(), rtol=0, atol=2e-3)


def test_the_mirrored_look_is_the_first_in_a_mirror(tables):
    looks = PlainLooks(SIZE)
    straight, mirrored = (looks.crop(tables[0], 3, look) for look in (0, 1))
    assert np.array_equal(straight.image[:, ::-1], mirrored.image) and mirrored.flipped and not straight.flipped
    k = straight.camera.intrinsics.copy()
    k[0, 2] = SIZE - 1 - k[0, 2]
    assert np.allclose(mirrored.camera.intrinsics, k) and np.isnan(straight.joints3d).all()
    with pytest.raises(ValueError, match="look: expected 0"):
        looks.crop(tables[0], 3, 2)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"gigabytes": 1e-5}, "30 crops x 2 looks are .* GB of features of 64 px crops, more than features.gigabytes"),
        ({}, "the disk of .* has 0.00 GB left"),
    ],
)
def test_too_much_is_refused_before_work(tables, tmp_path, monkeypatch, changes, words):
    if not changes:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(NoRoom, match=words):
        keep_looks(frozen_backbone(), tables, LOOKS, 2, cache_in(tmp_path / "cache", **changes))
    assert not bytes_below(tmp_path / "cache")


def test_features_of_others_make_room_longest_unused_first(tables, tmp_path):
    folder = tmp_path / "cache"
    first, second = (
        keep_looks(frozen_backbone(), tables[:1], replace(LOOKS, seed=seed), 1, cache_in(folder))[0] for seed in (1, 2)
    )
    os.utime(second.folder, (0, 0))
    size = features.folder_bytes(first.folder)
    room = cache_in(folder, gigabytes=2.5 * size / 1e9)
    third = keep_looks(frozen_backbone(), tables[:1], replace(LOOKS, seed=3), 1, room)[0]
    assert {f.name for f in folder.iterdir()} == {first.folder.name, third.folder.name}


def test_one_command_deletes_them(tables, tmp_path, capsys):
    folder = tmp_path / "cache"
    keep_looks(frozen_backbone(), tables, LOOKS, 1, cache_in(folder))
    (folder / "mine.txt").write_text("not features")
    features.main([str(folder)])
    assert len(list(folder.iterdir())) == 4 and capsys.readouterr().out.count("GB") == 3
    features.main([str(folder), "--delete"])
    assert [f.name for f in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("change", [{"looks": 0}, {"seed": -1}, {"gigabytes": 0}, {"jobs": 0}])
def test_parameters_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match=f"features: {next(iter(change))}: expected"):
        FeatureCache(**change)


def test_a_file_that_is_no_shard_is_named(tables, tmp_path):
    (kept,) = keep_looks(frozen_backbone(), tables[:1], LOOKS, 1, cache_in(tmp_path / "cache"))
    kept.shard(0, 0).path.write_bytes(b"not features")
    with pytest.raises(ValueError, match="look-0-00000.safetensors: expected features, found"):
        KeptLooks(kept.folder, tables[0], 1).read(0, 0)


def train(out, **changes):
    "A first training of four steps on kept features; its weights as bytes."
    parameters = dict(
        size=SIZE,
        quotas={"a": 2, "b": 2, "c": 2},
        steps=4,
        threads=1,
        checkpoint_every=2,
        log_every=1,
        inference_steps=1,
        picture_minutes=1.0,
        heatmap_weight=0.2,
        backbone={"name": "tiny_backbone", "frozen": 8},
        features={"looks": 2, "jobs": 1},
    )
    recipes.first_training("separate", "data", f"models/{out}", f"{out}.csv", **(parameters | changes))
    return Path("models", out, "model.safetensors").read_bytes()


def test_a_training_on_kept_features_goes_on_where_it_stopped(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = train("whole")
    assert Path("reports/train-separate.jpg").exists()

    class StopAtThree(Callback):
        order = 500

        def after_step(self, t):
            if t.done == 3:
                raise Stopped

    asked = recipes.callbacks_of
    monkeypatch.setattr(recipes, "callbacks_of", lambda *a: [*asked(*a), StopAtThree()])
    with pytest.raises(Stopped):
        train("part")
    monkeypatch.setattr(recipes, "callbacks_of", asked)
    shutil.rmtree(".cache")  # features are computed again to the same bytes
    assert len(list(Path(".checkpoints").iterdir())) == 1
    assert train("part", features={"looks": 2, "jobs": 1, "gigabytes": 1.0}) == whole
    assert Path("part.csv").read_text() == Path("whole.csv").read_text()
    assert train("other looks", features={"looks": 3, "jobs": 1}) != whole


def test_features_where_nothing_is_frozen_are_refused(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="features: expected null where nothing of the backbone is frozen"):
        train("x", backbone={"name": "tiny_backbone"})
    with pytest.raises(ValueError, match="features.look: expected a parameter of FeatureCache"):
        train("x", features={"look": 2})


@pytest.mark.parametrize("flip_average", [False, True])
def test_tables_are_predicted_from_kept_features(tables, tmp_path, monkeypatch, flip_average):
    monkeypatch.chdir(tmp_path)
    train("model")
    model, skeleton, info = load_pose_model("models/model")
    cache = features.freeze_as_trained(model, info["params"])
    options = dict(skeleton=skeleton, rows=[7, 2, 9], progress=False)
    fresh = predict_examples(model, tables[0], SIZE, 2, flip_average, **options)
    kept = predict_examples(model, tables[0], SIZE, 2, flip_average, cache=cache, **options)
    scale = np.abs(fresh.camera).max()
    assert np.abs(kept.camera - fresh.camera).max() < 2e-3 * scale  # what float16 costs
    assert np.abs(kept.world - fresh.world).max() < 2e-3 * scale


def test_losses_of_looks_are_those_of_their_pixels(tables, tmp_path):
    "Every term, above all those in the picture, whose unit is the crop's side."
    torch.manual_seed(0)
    sets = recipes.TrainingSets(tables, [3, 2, 3])
    p = parameters_from(FirstTraining, {"quotas": {}, "steps": 1, "backbone": {}, "size": SIZE, "heatmap_weight": 0.2})
    backbone = frozen_backbone()
    model = PoseModel(backbone, SeparateJoints(len(sets.skeleton))).train()
    kept = keep_looks(backbone, tables, LOOKS, 2, cache_in(tmp_path / "cache"))
    batch = MixedLooks(batches(tables), kept)[0]
    pixels = replace(batch, images=look_pictures(batch, range(len(batch)), tables, LOOKS))
    loss, predict = recipes.FirstLoss(model, sets, p), pose_prediction(1, 50)
    looks, crops = (
        loss(predict(m, b, 0), b, 0).values for m, b in ((LearningModel(model, SIZE), batch), (model, pixels))
    )
    assert looks.keys() == crops.keys() and crops["projected"] > 0 and crops["2d/projected"] > 0
    for name, value in crops.items():
        assert abs(looks[name] - value) < 1e-2 * abs(value), name


def test_parts_of_a_batch_of_looks_know_its_size(tables, tmp_path):
    kept = keep_looks(frozen_backbone(), tables, LOOKS, 1, cache_in(tmp_path / "cache"))
    batch = MixedLooks(batches(tables), kept)[0]
    for part in (part_of(batch, 0, 2), batch.to("cpu"), gather_rows(batch)):
        assert part.size == SIZE != part.images.shape[-1]
