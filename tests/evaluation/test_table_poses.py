"""Poses of example tables: geometry with oracle crop models, flips, independence of the batch."""

import numpy as np
import pytest
import torch
from oracle_cameras import camera_at

from acae_nb.evaluation.table_poses import (
    crop_batches,
    flip_averaged,
    mirror_crops,
    mirror_poses,
    predict_examples,
    unlabelled_crop,
)
from acae_nb.examples.crops import make_crop
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter, encode_jpeg
from acae_nb.models.pose_model import PoseOutput
from acae_nb.skeletons.joints import load_skeleton

SKELETON, SIZE = load_skeleton("coco_17"), 96
CAMERAS = {
    "straight": camera_at([4000, 0, 1200], [0, 0, 1000]),
    "rolled": camera_at([0, 5000, 2500], [0, 0, 1000], roll_deg=25),
    "distorted": camera_at([-3000, 3000, 1500], [300, 0, 900], distortion=np.array([-0.2, 0.05, 0.001, -0.002, 0.01])),
    "off the middle": camera_at([3000, -3000, 1000], [1200, 900, 1000]),
    "far from the origin": camera_at([41000, -39000, 1000], [40000, -36000, 1000]),
}
PLACES = {name: np.array([40000.0, -36000, 1000]) if "far" in name else np.array([0, 0, 1000.0]) for name in CAMERAS}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """One person per camera; each picture's green says which example it is, and its red grows to the right, so that a
    mirrored crop shows."""
    folder, rng = tmp_path_factory.mktemp("table") / "t", np.random.default_rng(0)
    with ExampleWriter(folder, SKELETON, "oracle") as writer:
        for k, (name, camera) in enumerate(CAMERAS.items()):
            joints = rng.normal(0, [150, 150, 400], (17, 3)) + PLACES[name]
            px = camera.project(joints)
            box = np.r_[px.min(0) - 10, np.ptp(px, axis=0) + 20]
            if name == "straight":
                box[1] = -40  # reaches out of the picture
            image = np.zeros((480, 640, 3), np.uint8)
            image[..., 0], image[..., 1] = np.linspace(60, 250, 640), 30 + 40 * k
            writer.add(
                Example(name, "oracle", "test", "s", "q", k, camera, box, (640, 480), joints3d=joints),
                encode_jpeg(image),
            )
    return ExampleTable.open(folder)


class Oracle(torch.nn.Module):
    "Answers with the truth in the frame of whatever crop it is shown, mirrored or not."

    def __init__(self, table):
        super().__init__()
        self.truth = [
            make_crop(table[k], table.image(k), SKELETON, SIZE).camera.to_camera(table[k].joints3d.astype(float))
            for k in range(len(table))
        ]
        self.mirrored = 0

    def forward(self, images, intrinsics):
        answers = []
        for image in images.numpy():
            seen = image[1] > 15
            k = round((np.median(image[1][seen]) - 30) / 40)
            flipped = np.polyfit(np.nonzero(seen)[1], image[0][seen].astype(float), 1)[0] < 0  # red falls to the right
            self.mirrored += flipped
            truth = torch.from_numpy(self.truth[k])
            answers.append(mirror_poses(truth, SKELETON) if flipped else truth)
        return PoseOutput(joints=torch.stack(answers), joints2d=None)


@pytest.mark.parametrize("flip_average", [False, True])
def test_geometry_adds_less_than_a_tenth_of_a_millimetre(table, flip_average):
    oracle = Oracle(table)
    found = predict_examples(oracle, table, SIZE, 2, flip_average, skeleton=SKELETON, progress=False)
    assert oracle.mirrored == (len(table) if flip_average else 0)
    assert np.abs(found.world - table.world_joints3d()).max() < 0.1
    camera_truth = np.stack([table.camera(k).to_camera(table[k].joints3d) for k in range(len(table))])
    assert np.abs(found.camera - camera_truth).max() < 0.1 and found.camera.dtype == found.world.dtype == np.float32


class Conv(torch.nn.Module):
    """A small network with normalisation layers, whose answers would depend on the batch if it were left in training
    mode."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 5, 4),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 5, 4),
            torch.nn.BatchNorm2d(8),
            torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(32, 51),
        )

    def forward(self, images, intrinsics):
        joints = (
            300 * self.net(images.float() / 255).reshape(-1, 17, 3)
            + torch.tensor([0.0, 0, 3000])
            + intrinsics[:, None, :1, 2]
        )
        return PoseOutput(joints=joints, joints2d=None)


def test_batches_do_not_matter(table):
    model = Conv().train()
    whole = predict_examples(model, table, SIZE, 5, skeleton=SKELETON, progress=False)
    for batch_size in (1, 2, 64):
        other = predict_examples(model, table, SIZE, batch_size, skeleton=SKELETON, progress=False)
        assert np.abs(whole.camera - other.camera).max() < 0.01
    rows = [3, 0]
    some = predict_examples(model, table, SIZE, 2, skeleton=SKELETON, rows=rows, progress=False)
    assert np.abs(some.camera - whole.camera[rows]).max() < 0.01 and some.rows.tolist() == rows


def test_flip_average_is_exactly_equivariant():
    model = Conv().eval()
    images, K = (
        torch.randint(0, 255, (4, 3, SIZE, SIZE), dtype=torch.uint8),
        torch.tensor([[100.0, 3, 40], [0, 100, 50], [0, 0, 1]]).repeat(4, 1, 1),
    )
    predict = flip_averaged(lambda i, k: model(i, k).joints.detach(), SKELETON)
    assert torch.allclose(predict(*mirror_crops(images, K)), mirror_poses(predict(images, K), SKELETON), atol=1e-3)
    again = mirror_crops(*mirror_crops(images, K))
    assert torch.equal(again[0], images) and torch.equal(again[1], K)


def test_mirror_matches_the_original(conformance):
    """Test-time augmentation of the original: x mirrored by the flip matrix, left and right joints swapped on flipped
    crops."""
    arrays, facts = conformance("mirror_tta")
    from acae_nb.skeletons.joints import Skeleton

    names = facts["flags"]["joint_names"]
    skeleton = Skeleton("conformance", tuple(names), (), tuple(int(i) for i in arrays["mirror_mapping"]))
    poses = torch.from_numpy(arrays["poses"])
    for flip, pose, out in zip(arrays["should_flip"], poses, arrays["out"]):
        unturned = torch.linalg.norm(
            (mirror_poses(pose, skeleton) if flip else pose), dim=-1
        )  # lengths do not see the crop's turn, only the swap
        np.testing.assert_allclose(unturned, np.linalg.norm(out, axis=-1), rtol=1e-4)


def test_crops_come_in_order(table):
    rows = [4, 2, 0, 1]
    greens = [
        float(np.median(image[1])) for images, *_ in crop_batches(table, rows, SIZE, 3) for image in images.numpy()
    ]
    assert [round((g - 30) / 40) for g in greens] == rows
    image, camera = unlabelled_crop(table[1], table.image(1), SIZE)
    assert image.shape == (SIZE, SIZE, 3) and not camera.distortion.any()


def test_a_model_of_another_skeleton_is_refused(table):
    with pytest.raises(ValueError, match=r"expected joints .*19 of cmu_panoptic_19.*found \(2, 17, 3\)"):
        predict_examples(Conv(), table, SIZE, 2, False, skeleton=load_skeleton("cmu_panoptic_19"), progress=False)
