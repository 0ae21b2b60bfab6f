"""Example tables of a few noisy pictures, for tests of trainings."""

from pathlib import Path

import numpy as np

from acae_nb.examples.tables import Example, ExampleWriter, encode_jpeg
from acae_nb.geometry.cameras import Camera
from acae_nb.skeletons.joints import load_skeleton

FORMATS = {"a": ("h36m_17", False), "b": ("cmu_panoptic_19", False), "c": ("coco_17", True)}


def write_set(folder: Path, format: str, flat: bool, rows: int = 6) -> None:
    "A table of `rows` pictures of 64 px, its labels in 2D (`flat`) or in 3D."
    rng, skeleton = np.random.default_rng(len(format)), load_skeleton(format)
    intrinsics = np.array([[80.0, 0, 31.5], [0, 80, 31.5], [0, 0, 1]])
    camera = Camera(intrinsics, np.zeros(12), np.eye(3), np.zeros(3), np.array([0, -1.0, 0]))
    box = np.array([8.0, 4, 40, 50])
    with ExampleWriter(folder, skeleton, folder.name) as writer:
        for i in range(rows):
            joints = rng.normal(0, 300, (len(skeleton), 3)) + [0, 0, 4000]
            labels = {"joints2d": camera.project(joints)} if flat else {"joints3d": joints.astype(np.float32)}
            picture = encode_jpeg(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
            name = f"{folder.name}/{i}"
            writer.add(Example(name, folder.name, "train", "s1", "a", i, camera, box, (64, 64), **labels), picture)


def write_sets(folder: Path, rows: int = 6) -> None:
    for name, (format, flat) in FORMATS.items():
        write_set(folder / name, format, flat, rows)
