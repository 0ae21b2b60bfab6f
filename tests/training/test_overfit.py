"""All parts together: rows, crops, batches, model, losses, loop and estimator learn 64 pictures to under 15 mm."""

import numpy as np
import torch
from torch import nn

from acae_nb.datasets.stick_figure import draw_stick_figure, stick_figure
from acae_nb.evaluation.metrics import joint_distances, root_relative
from acae_nb.evaluation.table_poses import predict_examples
from acae_nb.examples.crops import NO_AUGMENTATION
from acae_nb.examples.mixing import BatchPlan, MixedBatches
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter, encode_jpeg
from acae_nb.geometry.cameras import Camera, look_at_rotation
from acae_nb.models.backbones import Backbone, conv_norm
from acae_nb.models.pose_model import PoseModel, SeparateJoints
from acae_nb.skeletons.joints import load_skeleton
from acae_nb.training.loop import Group, Optimisation, pose_prediction, train
from acae_nb.training.losses import separate_loss

COUNT, SIZE, STRIDE, STEPS = 64, 64, 16, 500
SKELETON = load_skeleton("h36m_17")


def write_people(folder):
    """64 stick figures, each joint moved by some 60 mm, turned and seen by a camera of its own."""
    rng = np.random.default_rng(0)
    with ExampleWriter(folder, SKELETON, "sticks") as writer:
        for i in range(COUNT):
            x, y, z = (stick_figure(SKELETON, lift=rng.uniform(-30, 100)) + rng.normal(0, 60, (17, 3))).T
            a = rng.uniform(-1, 1)
            joints = np.stack([np.cos(a) * x + np.sin(a) * z, np.cos(a) * z - np.sin(a) * x, y], 1)  # z up
            position = np.array([rng.normal(0, 300), rng.uniform(3000, 4500), rng.uniform(500, 1800)])
            rotation = look_at_rotation(np.array([0, 0, 900.0]) - position, np.array([0, 0, 1.0]))
            camera = Camera(
                np.array([[220.0, 0, 95.5], [0, 220, 95.5], [0, 0, 1]]),
                np.zeros(12),
                rotation,
                position,
                np.array([0, 0, 1.0]),
            )
            px = camera.project(joints)
            low, high = px.min(0), px.max(0)
            box = (
                np.r_[low - (high - low).max() * 0.25, [(high - low).max() * 1.5] * 2]
                - np.r_[((high - low).max() - (high - low)) / 2, 0, 0]
            )
            writer.add(
                Example(
                    f"sticks/{i}",
                    "sticks",
                    "train",
                    "",
                    "",
                    i,
                    camera,
                    box,
                    (192, 192),
                    joints3d=joints.astype(np.float32),
                ),
                encode_jpeg(draw_stick_figure([px], SKELETON, (192, 192))),
            )
    return ExampleTable.open(folder)


def small_model():
    torch.manual_seed(0)
    widths, strides = [3, 24, 48, 96, 128, 128, 192], [2, 2, 2, 2, 1, 1]
    parts = [
        conv_norm(a, b, 3, s, activation=nn.ReLU6, centered=i == 3, momentum=0.1)
        for i, (a, b, s) in enumerate(zip(widths, widths[1:], strides))
    ]
    return PoseModel(
        Backbone(parts, [2, 4, 8, 16, 16, 16], 192, 0.5, 0.5, {"name": "small", "options": {}}), SeparateJoints(17)
    )


def error(model, table):
    """Root-relative MPJPE, mm, of the answers of the estimator in inference mode."""
    answers = predict_examples(model, table, SIZE, flip_average=False, skeleton=SKELETON, progress=False)
    truth = table.camera_joints3d(SKELETON)
    return float(joint_distances(root_relative(answers.camera, 0), root_relative(truth, 0)).mean())


def test_64_pictures_are_learnt_to_15_mm(tmp_path):
    table = write_people(tmp_path / "sticks")
    batch = MixedBatches(
        [table], BatchPlan([COUNT], [COUNT], seed=0), SKELETON, SKELETON, SIZE, NO_AUGMENTATION, seed=0
    )[0]
    model, pooling = small_model(), torch.eye(17)
    before = error(model, table)

    def loss(output, batch, step):
        return separate_loss(output, batch, pooling, STRIDE, absolute_weight=0.1)

    def rate(step):
        return 4e-3 * min(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / STEPS))

    train(
        model,
        loss,
        lambda start, stop: (batch for _ in range(start, stop)),
        [Group("all", list(model.parameters()), rate)],
        Optimisation(STEPS, channels_last=True),
        tmp_path / "run",
        pose_prediction(0, weak_perspective_steps=20),
        checkpoint_every=10**6,
    )
    after = error(model, table)
    print(f"MPJPE {before:.0f} -> {after:.1f} mm")
    assert before > 150 and after < 15
