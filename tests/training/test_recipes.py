"""Whole recipes on made-up data: resumed with other workers, with the paper's norms, from 2D sets of several formats,
with a user's pictures, with a trunk of its own."""

import cv2
import numpy as np
import pytest

from acae_nb.examples.crops import Augmentation
from acae_nb.examples.images import encode_jpeg, encode_mask
from acae_nb.examples.tables import Example, ExampleWriter
from acae_nb.geometry.cameras import Camera
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import load_pose_model
from acae_nb.skeletons.joints import load_skeleton, union
from acae_nb.training import recipes
from acae_nb.training.callbacks import GhostBatchNorm2d
from acae_nb.training.loop import Callback, Stopped


def write_set(folder, format, flat, n=6, weight=1.0, mask=None):
    rng = np.random.default_rng(len(format))
    skeleton = union([load_skeleton(name) for name in format.split("+")], name=format)
    camera = Camera(
        np.array([[80.0, 0, 31.5], [0, 80, 31.5], [0, 0, 1]]),
        np.zeros(12),
        np.eye(3),
        np.zeros(3),
        np.array([0, -1.0, 0]),
    )
    with ExampleWriter(folder, skeleton, folder.name) as writer:
        for i in range(n):
            joints = rng.normal(0, 300, (len(skeleton), 3)) + [0, 0, 4000]
            labels = dict(joints2d=camera.project(joints)) if flat else dict(joints3d=joints.astype(np.float32))
            writer.add(
                Example(
                    f"{folder.name}/{i}",
                    folder.name,
                    "train",
                    "s1",
                    "a",
                    i,
                    camera,
                    np.array([8.0, 4, 40, 50]),
                    (64, 64),
                    weight=weight,
                    mask=mask,
                    **labels,
                ),
                encode_jpeg(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)),
            )


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name, format, flat in (
        ("a", "h36m_17", False),
        ("b", "cmu_panoptic_19", False),
        ("c", "coco_17", True),
        ("d", "mpii_16", True),
    ):
        write_set(tmp_path / "data" / name, format, flat)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PARAMS = dict(
    size=64,
    quotas={"a": 2, "b": 2, "c": 2, "d": 2},
    augmentation={},
    workers=0,
    box_mm=2200.0,
    absolute_from=1,
    weak_perspective_steps=1,
    inference_steps=1,
    clip=5.0,
    betas=[0.9, 0.98],
    precision="float32",
    warm_up=0,
    log_every=1,
    checkpoint_every=2,
    picture_minutes=None,
    tensorboard=False,
    accumulate=2,
    compile=False,
    ghost=2,
    kernel_norm=20.0,
    average=0.9,
    learning_rate=1e-3,
    seed=1,
    threads=1,
    steps=5,
    depth_bins=8,
    heatmap_weight=0.0,
    backbone={"name": "tiny_backbone", "frozen": 2},
)


def train(project, out, **changes):
    recipes.first_training("separate", "data", f"models/{out}", f"{out}.csv", **(PARAMS | changes))
    return (project / "models" / out / "model.safetensors").read_bytes()


def test_a_run_goes_on_with_other_workers_and_watchers(project, monkeypatch):
    whole = train(project, "whole")

    class StopAtThree(Callback):
        order = 500

        def after_step(self, t):
            if t.done == 3:
                raise Stopped

    asked = recipes.callbacks_of
    monkeypatch.setattr(recipes, "callbacks_of", lambda *a: [*asked(*a), StopAtThree()])
    with pytest.raises(Stopped):
        train(project, "part", workers=2)
    monkeypatch.setattr(recipes, "callbacks_of", asked)
    assert len(list((project / ".checkpoints").iterdir())) == 1
    assert train(project, "part", workers=1, picture_minutes=1.0, checkpoint_every=4) == whole
    assert (project / "part.csv").read_text() == (project / "whole.csv").read_text()
    assert (project / "reports/train-separate.jpg").exists() and not list((project / ".checkpoints").iterdir())


def test_another_parameter_is_another_run(project, monkeypatch):
    class StopAtOne(Callback):
        order = 500

        def after_step(self, t):
            raise Stopped

    asked = recipes.callbacks_of
    monkeypatch.setattr(recipes, "callbacks_of", lambda *a: [*asked(*a), StopAtOne()])
    for rate in (1e-3, 2e-3):
        with pytest.raises(Stopped):
            train(project, "x", learning_rate=rate)
    assert len(list((project / ".checkpoints").iterdir())) == 2


def test_sets_labelled_in_2d_share_the_largest_format(project):
    sets = recipes.open_training_sets("data", PARAMS["quotas"])
    assert [t.dataset for t in sets.tables] == ["a", "b", "c", "d"] and sets.skeleton_2d.name == "coco_17"
    batch = next(iter(recipes.batches_of(sets, 64, recipes.Augmentation(flip=0), 0, 0)(0, 1)))
    labelled = batch.joints2d.isfinite().all(-1)
    assert batch.is_2d.tolist() == [False] * 4 + [True] * 4 and labelled[4:6].all() and not labelled[:4].any()
    assert labelled[6].sum() == 12  # the joints that mpii_16 shares by name with coco_17
    with pytest.raises(ValueError, match="expected a set with 3D labels"):
        recipes.open_training_sets("data", {"c": 1})


def test_frozen_norms_stay_frozen_as_ghosts():
    backbone = tiny_backbone().freeze_until(4)
    before = {n: p.requires_grad for n, p in backbone.named_parameters()}
    recipes.use_ghost_batch_norm(backbone, 2)
    ghosts = [m for m in backbone.modules() if isinstance(m, GhostBatchNorm2d)]
    assert (
        before == {n: p.requires_grad for n, p in backbone.named_parameters()}
        and not all(before.values())
        and len(ghosts) == 5
    )
    assert [m.training for m in ghosts] == [False, False, True, True, True]


def test_unknown_backbones_and_options_are_named():
    with pytest.raises(ValueError, match="expected a name out of .*efficientnet_v2_s.*timm_backbone.*found .*resnet5'"):
        recipes.make_backbone("resnet5")
    with pytest.raises(ValueError, match="backbone resnet50: options .*depth"):
        recipes.make_backbone("resnet50", depth=3)


def test_weights_of_examples_come_with_the_batch(tmp_path):
    write_set(tmp_path / "a", "h36m_17", False, weight=0.0)
    write_set(tmp_path / "b", "cmu_panoptic_19", False, weight=2.5)
    sets = recipes.open_training_sets(tmp_path, {"a": 2, "b": 3})
    (batch,) = recipes.batches_of(sets, 64, recipes.Augmentation(), 0, 0)(0, 1)
    assert batch.weight.tolist() == [0.0, 0.0, 2.5, 2.5, 2.5]


def test_pictures_of_a_user_are_behind_and_before_the_people(tmp_path):
    mask = np.zeros((64, 64), bool)
    mask[20:44, 20:44] = True
    write_set(tmp_path / "data/a", "h36m_17", False, mask=encode_mask(mask))
    for name, picture in {
        "behind/green.png": np.full((80, 80, 3), (0, 255, 0), np.uint8),
        "before/blue.png": np.full((40, 40, 4), (255, 0, 0, 255), np.uint8),
    }.items():
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), picture)
    plain = {name: 0 for name in ("rotation_deg", "scale", "shift", "flip", "brightness", "contrast", "saturation")}
    plain |= {"hue_deg": 0, "occlusion": 0}
    sets = recipes.open_training_sets(tmp_path / "data", {"a": 6})

    def pictures(**values):
        augmentation = recipes.augmentation_from(plain | values)
        (batch,) = recipes.batches_of(sets, 64, augmentation, 0, 0)(0, 1)
        return batch.images.permute(0, 2, 3, 1).numpy()

    before = pictures()
    behind = pictures(background=1, backgrounds=str(tmp_path / "behind"))
    assert (behind[:, 0, 0] == (0, 255, 0)).all() and not (before[:, 0, 0] == (0, 255, 0)).all()
    assert (behind[:, 32, 32] == before[:, 32, 32]).all()
    hidden = pictures(occlusion=1, erased_area=0, occluders=str(tmp_path / "before"))
    assert ((hidden == (0, 0, 255)).all(-1).sum((1, 2)) > 30).any()


def test_a_trunk_of_its_own_from_the_parameters(project):
    "Its rate is logged, its parts up to `frozen` stand still; with and without one the model differs."
    trunk = {"learning_rate": 1e-3, "warm_up": 2, "toward_start": 0.1}
    plain, own = train(project, "plain"), train(project, "own", trunk=trunk)
    assert plain != own and "lr_trunk" in (project / "own.csv").read_text().splitlines()[0]
    assert load_pose_model(project / "models/own")[2]["params"]["trunk"] == trunk
    with pytest.raises(ValueError, match="^trunk: expected null where no part of it learns"):
        train(project, "x", trunk=trunk, backbone={"name": "tiny_backbone", "frozen": 32})


def test_a_format_of_several_sets_is_predicted_once(project):
    "Set e is labelled in the formats of a and b: its labels go to the columns where theirs go."
    write_set(project / "data" / "e", "cmu_panoptic_19+h36m_17", False)
    sets = recipes.open_training_sets(project / "data", {"a": 2, "e": 3, "b": 2})
    assert sets.skeleton.parts == {"h36m_17": range(17), "cmu_panoptic_19": range(17, 36)}
    batch = recipes.mixed_crops(sets, 32, Augmentation(), seed=0)[0]
    labelled = batch.joints3d.isfinite().all(-1)
    expected = {"a": [True] * 17 + [False] * 19, "e": [True] * 36, "b": [False] * 17 + [True] * 19}
    for row, table in enumerate(batch.dataset.tolist()):
        assert labelled[row].tolist() == expected[sets.tables[table].dataset]
