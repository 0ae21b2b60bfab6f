"""Made-up people for the writers of native layouts: cameras that stand and roll anyhow, lenses and gaps where a layout
has a word for them."""

import cv2
import numpy as np

from acae_nb.examples.images import encode_jpeg, encode_mask
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter
from acae_nb.geometry.cameras import Camera
from acae_nb.skeletons.joints import load_skeleton

SETS = {
    "coco": ("coco_17", {}),
    "mpii": ("mpii_16", {}),
    "posetrack": ("posetrack18_17", {}),
    "cmu_panoptic": ("cmu_panoptic_19", {}),
    "gpa": ("gpa_34", {}),
    "behave": ("openpose_body_25", {}),
    "humbi": ("openpose_body_25", {}),
    "human4d": ("human4d_32", {}),
    "mpi_inf_3dhp": ("mpi_inf_3dhp_28", {}),
    "imar": ("h36m_25", dict(dataset="humansc3d")),
    "aspset": ("aspset_17", {}),
    "mads": ("mads_19", {}),
}
FLAT = ("coco", "mpii", "posetrack")  # in 2D
WHOLE = ("gpa", "mpi_inf_3dhp", "imar")  # without a word for a missing joint
LENSES = {
    "cmu_panoptic": [-0.06, -0.001, 0, 0],
    "mads": [-0.06, 0.01, 0.001, -0.002, 0.003],
    "behave": [0.4, -0.5, 0.0005, -0.0002, 0.1, 0.3, -0.5, 0.1],
}


def table(folder, layout, count=5, missing=True):
    name = SETS[layout][0]
    rng, skeleton = np.random.default_rng(3), load_skeleton(name)
    with ExampleWriter(folder, skeleton, folder.name) as writer:
        for k in range(count):
            turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            turn *= np.sign(np.linalg.det(turn))
            joints = rng.normal(0, 250, (len(skeleton), 3)) + rng.normal(0, 800, 3)
            lens = LENSES.get(layout) and np.multiply(LENSES[layout], 1 - 0.2 * k)
            camera = Camera(
                [[150 + 5 * k, 0, 60.25], [0, 150 + 5 * k, 62.5], [0, 0, 1]],
                lens,
                turn,
                joints.mean(0) - turn.T @ [100, -80, 3100],
                [0, 0, 1],
            )
            if missing and k == 2 and layout not in WHOLE:
                joints[3:6] = np.nan
            labels = (
                dict(joints2d=camera.project(joints).astype(np.float32))
                if layout in FLAT
                else dict(joints3d=joints.astype(np.float32))
            )
            picture = cv2.resize(
                rng.integers(40, 215, (6, 6, 3), dtype=np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC
            )
            writer.add(
                Example(
                    f"{folder.name}/{k:06d}",
                    folder.name,
                    "train",
                    f"{folder.name}-s{k % 3:03d}",
                    ["walk", "dance_b"][k % 2],
                    7 * k,
                    camera,
                    np.array([20.5, 25, 80, 60 + k]),
                    (128, 128),
                    mask=encode_mask(picture[..., 0] > 128),
                    camera_name=f"camera{k % 2}" if k else "",
                    **labels,
                ),
                encode_jpeg(picture, 90),
            )
    return ExampleTable.open(folder)
