"""Tiny valid files of every kind that a user hands in, damage to them, and the answers that a reader may give.

    python tests/fuzzing.py --seconds 600 [--seed N] [--only NAME ...] [--keep FOLDER]

A reader answers with a result that `sound` cannot tell from a right one, or refuses with ValueError or OSError whose
message names the file. Anything else is a finding: another error, a crash of the interpreter, more than SLOW seconds,
more than MORE_MEMORY bytes. Each finding is kept as a folder of the changed files, FOLDER/reader/number: moved to
tests/fuzz/ it is a test for good. The reader runs in this process, so that a crash ends it: the files that it died of
are then in FOLDER/reader/last."""

import argparse
import faulthandler
import io
import json
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from mutations import get, load_tree, put, walk
from PIL import Image
from safetensors.numpy import load, save

SLOW = 20  # seconds of the processor for a file of a few kB
MORE_MEMORY = 2**30  # bytes that reading one may take
MOST_MEMORY = 2**33  # bytes beyond which the system gives none, so that a finding is no end of the machine
KEPT = Path(__file__).parent / "fuzz"


@dataclass(frozen=True)
class Reader:
    "`write` puts valid files into an empty folder, `read` reads the folder, `sound` asserts what a right answer is."

    write: Callable[[Path], None]
    read: Callable[[Path], object]
    sound: Callable[[object, object], None] = lambda answer, whole: None
    cut_is_seen: bool = False  # whether a file that lost its end is always refused, or read as it was


# ---- pictures and videos -------------------------------------------------------------------------------------------
def photograph(size=(48, 32)):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def write_picture(kind, ending, exif=False, sixteen_bit=False):
    def write(folder):
        tags = Image.Exif()
        if exif:
            tags[0x0112] = 6
            tags[0x8769] = {0xA405: 28, 0xA002: 48, 0xA003: 32, 0x829A: (1, 250)}
        picture = Image.fromarray(photograph())
        if sixteen_bit:
            picture = Image.fromarray(photograph()[..., 0].astype(np.uint16) * 16)
        picture.save(folder / f"picture{ending}", kind, **({"exif": tags} if exif else {}))

    return write


def read_pictures(folder):
    from acae_nb.geometry.calibration import exif_field_of_view
    from acae_nb.inference.pictures import FolderPictures, read_picture

    [path] = folder.iterdir()
    angle = exif_field_of_view(path)
    pixels = read_picture(path)
    [same] = FolderPictures(folder)
    assert np.array_equal(pixels, same)
    return pixels, angle


def sound_picture(answer, whole):
    pixels, angle = answer
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    assert angle is None or 0 < angle < 180


def write_video(ending, codec):
    def write(folder):
        with av.open(str(folder / f"video{ending}"), "w") as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for k in range(8):
                frame = av.VideoFrame.from_ndarray(np.roll(photograph(), 3 * k, 1), "rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())

    return write


def read_video(folder):
    from acae_nb.inference.pictures import VideoPictures, frame_count, frame_rate

    [path] = folder.iterdir()
    video = VideoPictures(path)
    shapes = [picture.shape for picture in video]
    return shapes, list(video.times), frame_rate(path), frame_count(path)


def sound_video(answer, whole):
    shapes, times, rate, count = answer
    assert len(shapes) == len(times) > 0 and times[0] == 0 and (np.diff(times) > 0).all() and np.isfinite(times).all()
    assert all(len(shape) == 3 and shape[2] == 3 and 0 not in shape for shape in shapes)
    assert rate is None or rate > 0
    assert count is None or count > 0


# ---- tables of examples, own data ----------------------------------------------------------------------------------
def write_examples(folder):
    from acae_nb.examples.images import encode_jpeg, encode_mask
    from acae_nb.examples.rows import Example
    from acae_nb.examples.tables import ExampleWriter
    from acae_nb.geometry.cameras import Camera
    from acae_nb.skeletons.joints import Skeleton

    skeleton = Skeleton("stick", ("a", "b"), ((0, 1),), (0, 1))
    camera = Camera([[50.0, 0, 24], [0, 50, 16], [0, 0, 1]])
    with ExampleWriter(folder, skeleton, "tiny") as writer:
        for k in range(2):
            joints = np.array([[0.0, 0, 2000], [100, 50, 2000]])
            example = Example(
                f"e{k}", "tiny", "train", "s", "q", k, camera, np.array([4.0, 4, 20, 20]), (48, 32), joints
            )
            example.mask = encode_mask(photograph()[..., 0] > 128)
            writer.add(example, encode_jpeg(photograph()))


def read_examples(folder):
    from acae_nb.examples.rows import InvalidExamples
    from acae_nb.examples.tables import ExampleTable, validate

    problems = validate(folder, decode=True)
    if problems:
        raise InvalidExamples(problems)
    table = ExampleTable.open(folder)
    return [(table[k], table.image(k)) for k in range(len(table))]


def sound_examples(answer, whole):
    for example, pixels in answer:
        assert pixels.shape[1::-1] == example.image_size
        assert example.joints3d is None or example.joints3d.shape == (2, 3)


def write_own_table(folder):
    write_own(folder)
    pd.DataFrame(
        {
            "image": ["0.jpg", "1.png"],
            "camera": ["a", "a"],
            "frame": [0, 1],
            "mask": ["", "1.png"],
            **{f"{joint}.{axis}": [10.0 * k, 10.0 * k + 5] for joint in "ab" for k, axis in enumerate("xyz")},
            "weight": [1.0, 0.5],
        }
    ).assign(**{"b.z": [20.0, 20], "b.x": [300.0, 310]}).to_csv(folder / "examples.csv", index=False)


def write_own_parquet(folder):
    write_own_table(folder)
    pd.read_csv(folder / "examples.csv").to_parquet(folder / "examples.parquet")
    (folder / "examples.csv").unlink()


CAMERA = {
    "intrinsics": [[50, 0, 24], [0, 50, 16], [0, 0, 1]],
    "position": [0, 0, -2000],
    "distortion": [-0.05, 0.01, 0, 0],
}


def write_own(folder):
    (folder / "images").mkdir()
    Image.fromarray(photograph()).save(folder / "images/0.jpg")
    Image.fromarray(photograph()).save(folder / "images/1.png")
    skeleton = {"name": "stick", "joints": ["a", "b"], "edges": [["a", "b"]], "mirror": [["a", "b"]]}
    (folder / "skeleton.json").write_text(json.dumps(skeleton))
    (folder / "cameras.json").write_text(json.dumps({"a": CAMERA}))


def write_own_coco(folder):
    write_own(folder)
    (folder / "annotations").mkdir()
    category = {"id": 1, "name": "stick", "keypoints": ["l_a", "r_a"], "skeleton": [[1, 2]]}
    people = [
        {"id": 1, "image_id": 0, "category_id": 1, "keypoints": [10, 10, 2, 20, 20, 2], "bbox": [5, 5, 20, 20]},
        {"id": 2, "image_id": 1, "category_id": 1, "keypoints3d": [0, 0, 0, 300, 0, 20], "subject": "x", "frame": 3},
    ]
    images = [
        {"id": 0, "file_name": "0.jpg", "width": 48, "height": 32},
        {"id": 1, "file_name": "1.png", "width": 48, "height": 32, "camera": "a"},
    ]
    content = {"images": images, "annotations": people, "categories": [category], "cameras": {"a": CAMERA}}
    (folder / "annotations/train.json").write_text(json.dumps(content))


def read_own(module):
    def read(folder):
        import importlib

        from acae_nb.datasets.own import validate_folder

        reader = importlib.import_module(f"acae_nb.datasets.{module}")
        problems = validate_folder(folder)
        if problems:
            assert all(problem.expected and problem.file for problem in problems)
        skeleton = reader.skeleton(folder)
        rows = [(example, picture.load()) for example, picture in reader.read(folder)]
        assert rows or problems, "no rows, and no problem said"
        return skeleton, rows

    return read


def sound_own(answer, whole):
    skeleton, rows = answer
    for example, pixels in rows:
        assert pixels.shape[1::-1] == tuple(example.image_size)
        joints = example.joints3d if example.joints3d is not None else example.joints2d
        assert len(joints) == len(skeleton)


# ---- weights -------------------------------------------------------------------------------------------------------
def tiny_model():
    import torch

    from acae_nb.models.backbones import tiny_backbone
    from acae_nb.models.pose_model import PoseModel, SeparateJoints
    from acae_nb.skeletons.joints import Skeleton

    torch.manual_seed(0)
    skeleton = Skeleton("stick", ("f/a", "f/b", "g/a"), ((0, 1),), (0, 1, 2))
    return PoseModel(tiny_backbone(), SeparateJoints(3)), skeleton


def write_model(folder):
    from acae_nb.models.pose_model import save_pose_model
    from acae_nb.skeletons.joints import select

    model, skeleton = tiny_model()
    formats = {"f": {"indices": [0, 1], "skeleton": select(skeleton, [0, 1], "f").to_dict()}}
    save_pose_model(folder, model, skeleton, {"size": 64, "formats": formats, "licence": "MIT"})
    write_autoencoder(folder)


def write_autoencoder(folder):
    from acae_nb.autoencoder.acae import ACAE, save_acae

    encoder = np.array([[0.5, 0.25, 0.25], [0, 0.5, 0.5]], np.float32)
    decoder = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    import torch

    acae = ACAE(torch.tensor(encoder), torch.tensor(decoder), ("f/a", "f/b", "g/a"), ("l", "r"))
    save_acae(acae, folder / "acae.safetensors")


def read_estimator(folder):
    from acae_nb.inference.estimator import PoseEstimator

    return PoseEstimator.load(folder)


def sound_estimator(answer, whole):
    import torch

    assert len(answer.skeleton) == answer.model.layout.n_joints
    state = whole.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in answer.model.state_dict().items())
    for rows, skeleton in answer.formats.values():
        assert len(rows) == len(skeleton) and all(0 <= row < len(answer.skeleton) for row in rows)


def read_autoencoder(folder):
    from acae_nb.autoencoder.acae import load_acae

    return load_acae(folder / "acae.safetensors")


def sound_autoencoder(answer, whole):
    assert len(answer.joints) == answer.encoder.shape[1] == answer.decoder.shape[0]
    assert all(isinstance(name, str) for name in answer.joints + answer.latents)
    assert answer.encoder.is_floating_point() and answer.decoder.is_floating_point()


def write_network(folder):
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(torch.nn.Linear(4, 3).state_dict(), folder / "network.safetensors")


def read_network(folder):
    import torch

    from acae_nb.models.trunks import load_weights

    network = torch.nn.Linear(4, 3)
    load_weights(network, folder / "network.safetensors")
    return network


def sound_network(answer, whole):
    assert answer.weight.dtype == whole.weight.dtype


def write_imagenet(ending):
    def write(folder):
        import torch
        from safetensors.torch import save_file

        from acae_nb.models.backbones import tiny_backbone

        torch.manual_seed(0)
        state = tiny_backbone(8).state_dict()
        save = save_file if ending == ".safetensors" else torch.save
        save(state, folder / f"weights{ending}")

    return write


def read_imagenet(folder):
    from acae_nb.models.backbones import tiny_backbone
    from acae_nb.models.imagenet_weights import load_imagenet_weights

    [path] = folder.iterdir()
    backbone = tiny_backbone(8)
    load_imagenet_weights(backbone, path)
    return backbone


def sound_imagenet(answer, whole):
    assert all(value.isfinite().all() for value in answer.state_dict().values())


def write_converter(folder):
    from acae_nb.autoencoder.conversion import Converter, JointMoments, save_converter

    rng = np.random.default_rng(0)
    moments = [JointMoments(rng.normal(size=(4, 2)), np.ones(4)) for _ in range(2)]
    names = {"f": ("a", "b"), "g": ("a", "c")}
    save_converter(Converter(names, *moments, rng.normal(0, 100, (3, 4, 3))), folder / "conversion.safetensors")


def read_converter(folder):
    from acae_nb.autoencoder.conversion import load_converter

    return load_converter(folder / "conversion.safetensors")


def sound_converter(answer, whole):
    count = sum(map(len, answer.formats.values()))
    assert len(answer.fitted.loadings) == len(answer.held_out.std) == answer.sample.shape[1] == count
    assert answer.sample.shape[2:] == (3,) and answer.fitted.loadings.ndim == 2


# ---- files of poses ------------------------------------------------------------------------------------------------
def write_predictions(ending):
    def write(folder):
        from acae_nb.evaluation.prediction_files import write_poses
        from acae_nb.skeletons.joints import load_skeleton

        skeleton = load_skeleton("h36m_17")
        poses = np.random.default_rng(0).normal(0, 300, (3, 17, 3)) + [0, 0, 4000]
        columns = {"sequence": ["s"] * 3, "frame": [0, 1, 2], "camera": ["c"] * 3, "activity": ["walk"] * 3}
        write_poses(folder / f"poses{ending}", skeleton, poses, columns)

    return write


def read_predictions(folder):
    from acae_nb.evaluation.prediction_files import evaluate_files, read_poses, skeleton_of

    [path] = folder.iterdir()
    poses = read_poses(path)
    skeleton = skeleton_of(poses)
    evaluate_files(path, path, "human36m")
    return poses, skeleton


def sound_predictions(answer, whole):
    poses, skeleton = answer
    assert poses.joints3d.shape == (len(poses.columns["frame"]), len(skeleton), 3)


def write_poses_to_fit(folder):
    poses = np.random.default_rng(0).normal(0, 300, (3, 17, 3))
    np.savez(folder / "poses.npz", joints3d=poses, skeleton="h36m_17")


def read_poses_to_fit(folder):
    from acae_nb.workflow.pose_arrays import read_poses_npz

    return read_poses_npz(folder / "poses.npz")


def sound_poses_to_fit(answer, whole):
    assert answer.joints3d.ndim == 3 and answer.joints3d.dtype.kind in "fiu"
    assert answer.joints is None or len(answer.joints) == answer.joints3d.shape[1]
    assert answer.skeleton is None or len(answer.skeleton) == answer.joints3d.shape[1]


def write_c3d(folder):
    import ezc3d

    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [50]
    file["parameters"]["POINT"]["LABELS"]["value"] = ["a", "b"]
    file["data"]["points"] = np.random.default_rng(0).normal(0, 500, (4, 2, 5))
    file.write(str(folder / "markers.c3d"))


def read_markers(folder):
    from acae_nb.datasets.c3d_files import read_c3d

    return read_c3d(folder / "markers.c3d")


def sound_markers(answer, whole):
    assert answer.ndim == 3 and answer.shape[2] == 3


# ---- calibrations --------------------------------------------------------------------------------------------------
MATRIX = [[1100.0, 0, 655], [0, 1090, 362], [0, 0, 1]]


def write_toml(folder):
    text = "[metadata]\nadjusted = false\nerror = 0.0\n"
    for name in ("a", "b"):
        text += f'\n[{name}]\nname = "{name}"\nsize = [1280.0, 720.0]\nmatrix = {MATRIX}\nfisheye = false\n'
        text += "distortions = [-0.1, 0.03, 0.0, 0.0]\nrotation = [0.2, -0.4, 0.1]\ntranslation = [0.1, 0.0, 4.2]\n"
    (folder / "Calib.toml").write_text(text)


def write_qualisys(folder):
    text = '<?xml version="1.0"?>\n<calibration><cameras>\n'
    for name in ("26578", "28191"):
        rotation = " ".join(f'r{k + 1}{j + 1}="{float(j == k)}"' for k in range(3) for j in range(3))
        text += (
            f'<camera serial="{name}"><fov_video left="0" top="0" right="1279" bottom="719"/>\n'
            f'<transform x="100.5" y="-20" z="3000" {rotation}/>\n'
            '<intrinsic focalLengthU="70000" focalLengthV="70000" skew="0" centerPointU="40960" centerPointV="23040" '
            'radialDistortion1="-0.1" radialDistortion2="0.1" radialDistortion3="0" tangentalDistortion1="0" '
            'tangentalDistortion2="0"/></camera>\n'
        )
    (folder / "Calib.qca.txt").write_text(text + "</cameras></calibration>\n")


def write_opencv(ending):
    def write(folder):
        storage = cv2.FileStorage(str(folder / f"camera{ending}"), cv2.FILE_STORAGE_WRITE)
        storage.write("image_width", 1280)
        storage.write("image_height", 720)
        storage.write("camera_matrix", np.array(MATRIX))
        storage.write("distortion_coefficients", np.array([[-0.1, 0.03, 0, 0, 0]]))
        storage.write("R", np.eye(3))
        storage.write("T", np.array([[0.0], [0], [4000]]))
        storage.release()

    return write


def write_colmap(folder):
    (folder / "cameras.txt").write_text("# cameras\n1 OPENCV 1280 720 1100 1090 655.5 362.5 -0.1 0.03 0 0\n")
    lines = "1 0.9 0.1 -0.2 0.1 0.1 0 4.2 1 a.jpg\n10 10 -1\n2 0.8 0.2 0.1 0 0.3 0.1 4 1 b.jpg\n\n"
    (folder / "images.txt").write_text("# images\n" + lines)


def read_cameras(folder):
    from acae_nb.geometry.calibration import read_calibration

    files = list(folder.iterdir())
    return read_calibration(files[0] if len(files) == 1 else folder)


def sound_cameras(answer, whole):
    assert answer
    for name, view in answer.items():
        assert isinstance(name, str)
        for part in ("intrinsics", "distortion", "rotation", "position", "world_up"):
            assert np.isfinite(getattr(view.camera, part)).all(), part
        assert abs(view.camera.rotation @ view.camera.rotation.T - np.eye(3)).max() < 1e-3
        assert view.camera.intrinsics[0, 0] > 0 and view.camera.intrinsics[1, 1] > 0
        assert view.size is None or min(view.size) > 0, f"pictures of {view.size} px"


READERS = {
    **{
        f"picture{name}": Reader(write_picture(*arguments), read_pictures, sound_picture, cut_is_seen=True)
        for name, arguments in {
            ".jpg": ("JPEG", ".jpg"),
            "_exif.jpg": ("JPEG", ".jpg", True),
            ".png": ("PNG", ".png"),
            "_16.png": ("PNG", ".png", False, True),
            "_exif.png": ("PNG", ".png", True),
            ".bmp": ("BMP", ".bmp"),
            ".tif": ("TIFF", ".tif"),
            ".webp": ("WEBP", ".webp", True),
            ".gif": ("GIF", ".gif"),
            ".avif": ("AVIF", ".avif"),
            ".jp2": ("JPEG2000", ".jp2"),
        }.items()
    },
    **{
        f"video{ending}": Reader(write_video(ending, codec), read_video, sound_video)
        for ending, codec in {
            ".mp4": "mpeg4",
            ".mov": "libx264",
            ".mkv": "mpeg4",
            ".webm": "libvpx",
            ".avi": "mpeg4",
            ".mpg": "mpeg1video",
        }.items()
    },
    "examples": Reader(write_examples, read_examples, sound_examples, cut_is_seen=True),
    "own_table": Reader(write_own_table, read_own("own_table"), sound_own),
    "own_parquet": Reader(write_own_parquet, read_own("own_table"), sound_own),
    "own_coco": Reader(write_own_coco, read_own("own_coco"), sound_own),
    "model": Reader(write_model, read_estimator, sound_estimator, cut_is_seen=True),
    "autoencoder": Reader(write_autoencoder, read_autoencoder, sound_autoencoder, cut_is_seen=True),
    "network": Reader(write_network, read_network, sound_network, cut_is_seen=True),
    "imagenet.pth": Reader(write_imagenet(".pth"), read_imagenet, sound_imagenet, cut_is_seen=True),
    "imagenet.safetensors": Reader(write_imagenet(".safetensors"), read_imagenet, sound_imagenet, cut_is_seen=True),
    "converter": Reader(write_converter, read_converter, sound_converter, cut_is_seen=True),
    "predictions.npz": Reader(write_predictions(".npz"), read_predictions, sound_predictions, cut_is_seen=True),
    "predictions.parquet": Reader(write_predictions(".parquet"), read_predictions, sound_predictions, cut_is_seen=True),
    "poses_to_fit": Reader(write_poses_to_fit, read_poses_to_fit, sound_poses_to_fit, cut_is_seen=True),
    "markers": Reader(write_c3d, read_markers, sound_markers),
    "calibration.toml": Reader(write_toml, read_cameras, sound_cameras),
    "calibration.qca.txt": Reader(write_qualisys, read_cameras, sound_cameras),
    "calibration.yml": Reader(write_opencv(".yml"), read_cameras, sound_cameras),
    "calibration.json": Reader(write_opencv(".json"), read_cameras, sound_cameras),
    "calibration.xml": Reader(write_opencv(".xml"), read_cameras, sound_cameras),
    "calibration_colmap": Reader(write_colmap, read_cameras, sound_cameras),
}


# ---- damage: bytes -------------------------------------------------------------------------------------------------
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)


def span(data, rng, longest=64):
    start = int(rng.integers(len(data)))
    return start, min(len(data), start + int(rng.integers(1, longest)))


def cut(data, rng):
    return data[: int(rng.choice([0, rng.integers(len(data)), len(data) - 1]))]


def flipped_bits(data, rng):
    changed = bytearray(data)
    for at in rng.integers(0, 8 * len(data), int(rng.integers(1, 6))):
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def flipped_early(data, rng):
    return flipped_bits(data[:200], rng) + data[200:]


def zeros(data, rng):
    start, end = span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def noise(data, rng):
    start, end = span(data, rng)
    return data[:start] + rng.bytes(end - start) + data[end:]


def removed(data, rng):
    start, end = span(data, rng)
    return data[:start] + data[end:]


def repeated(data, rng):
    start, end = span(data, rng, 512)
    return data[:end] + data[start:end] * int(rng.integers(1, 4)) + data[end:]


def spliced(data, rng):
    start, end = span(data, rng, 512)
    to = int(rng.integers(len(data)))
    return data[:to] + data[start:end] + data[to + end - start :]


def odd_number(data, rng):
    "Two, four or eight bytes are another number, of either byte order."
    kind = np.dtype(str(rng.choice([">u2", "<u2", ">u4", "<u4", ">u8", "<u8"])))
    value = NUMBERS[int(rng.integers(len(NUMBERS)))] % 2 ** (8 * kind.itemsize)
    number = np.array(value, np.uint64).astype(kind).tobytes()
    at = int(rng.integers(min(len(data), 400) if rng.random() < 0.5 else len(data)))
    return data[:at] + number + data[at + len(number) :]


BYTES = (cut, flipped_bits, flipped_early, zeros, noise, removed, repeated, spliced, odd_number, odd_number)


# ---- damage: texts -------------------------------------------------------------------------------------------------
WORDS = ["", "nan", "inf", "-1", "0", "1e999", "-1e308", "9" * 20, "true", "null", "[]", "{}", '"', "[[1]]", "é"]
WORDS += ["\udcff", "x" * 200, "1,5", "-0", "0x10", "1e-320", "\x00", "# ", "&lt;", "<!-- "]


def other_word(data, rng):
    text = data.decode("utf-8", "surrogateescape")
    words = list(re.finditer(r"[\w.+-]+", text))
    if not words:
        return data
    start, end = words[int(rng.integers(len(words)))].span()
    word = WORDS[int(rng.integers(len(WORDS)))]
    return (text[:start] + word + text[end:]).encode("utf-8", "surrogateescape")


def lines_changed(data, rng):
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    one, other = (int(k) for k in rng.integers(len(lines), size=2))
    kind = int(rng.integers(4))
    if kind == 0:
        lines[one : one + 1] = []
    if kind == 1:
        lines[other:other] = [lines[one]]
    if kind == 2:
        lines[one], lines[other] = lines[other], lines[one]
    if kind == 3:
        lines[one] = lines[one][: int(rng.integers(len(lines[one]) + 1))]
    return b"".join(lines)


def other_encoding(data, rng):
    text = data.decode("utf-8", "replace")
    return [b"\xef\xbb\xbf" + data, text.encode("utf-16"), data.replace(b"\n", b"\r\n"), data.replace(b" ", b"\xa0")][
        int(rng.integers(4))
    ]


TEXTS = {".json", ".csv", ".toml", ".txt", ".yml", ".xml"}


# ---- damage: what files are made of --------------------------------------------------------------------------------
ODD = [None, True, -1, 0, 1, 3, 10**20, 1e308, float("nan"), float("inf"), "", "a", "f/a", [], {}, [[]], [None], -1.5]
ODD += [["a", "a"], [1, 2], [[1, 2, 3]], {"a": 1}, "../../x", "\ud800", [0] * 50]


def odd_tree(tree, rng):
    "A value below `tree` is absent, another one, or twice there."
    places = list(walk(tree))
    if not places:
        return
    node, key = places[int(rng.integers(len(places)))]
    kind = rng.random()
    if kind < 0.2 and isinstance(node, (dict, list)):
        del node[key]
    elif kind < 0.3 and isinstance(node, list):
        node.append(node[key])
    elif kind < 0.4 and isinstance(node, dict):
        node[str(key) + "x"] = node[key]
    elif kind < 0.5 and isinstance(get(node, key), np.ndarray):
        put(node, key, odd_array(get(node, key), rng))
    else:
        put(node, key, ODD[int(rng.integers(len(ODD)))])


def odd_array(array, rng):
    array = np.atleast_1d(array)
    kind = int(rng.integers(9))
    if kind == 0:
        return array[..., None]
    if kind == 1:
        return array[:0]
    if kind == 2:
        return np.concatenate([array, array]) if array.ndim else array
    if kind == 3:
        return array.astype(np.complex64) if array.dtype.kind in "iuf" else array.astype("S")
    if kind == 4:
        return array.astype(bool) if array.dtype.kind in "iuf" else np.char.add(array, " ")
    if kind == 5:
        return array.astype(np.float16) if array.dtype.kind in "iuf" else np.zeros(array.shape)
    if kind == 6:
        return array.reshape(-1)[:1].reshape(())
    if kind == 7:
        return array.T
    changed = np.array(array, float) if array.dtype.kind in "iuf" else np.array(array)
    if changed.size and changed.dtype.kind == "f":
        changed.reshape(-1)[int(rng.integers(changed.size))] = rng.choice([np.nan, np.inf, -1e30, 0])
    return changed


def damaged_tree(path, rng):
    "Damage within json, npz and the header of safetensors, whose lengths and sums stay right."
    if path.suffix == ".safetensors":
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        if rng.random() < 0.4:
            arrays = load(data)
            name = str(rng.choice(sorted(arrays)))
            changed = odd_array(arrays.pop(name), rng)
            if changed.dtype.kind in "iufb" and rng.random() < 0.9:
                arrays[name] = np.ascontiguousarray(changed)
            path.write_bytes(save(arrays, header.get("__metadata__")))
            return
        if "__metadata__" in header and rng.random() < 0.5:
            texts = header["__metadata__"]
            name = str(rng.choice(sorted(texts)))
            try:
                inner = {"": json.loads(texts[name])}
            except ValueError:
                inner = {"": texts[name]}
            odd_tree(inner, rng)
            texts[name] = json.dumps(inner.get("", ""))
        else:
            odd_tree(header, rng)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
        return
    loaded = load_tree(path)
    if loaded is None:
        return
    tree, save_tree = loaded
    tree = {"": tree} if path.suffix == ".json" else tree
    odd_tree(tree, rng)
    save_tree(tree[""] if path.suffix == ".json" and "" in tree else {k: v for k, v in tree.items() if v is not None})


def damaged_columns(path, rng):
    "A parquet or Arrow file with a column that is absent, of another kind, or has holes; or with other texts about it."
    is_arrow = path.suffix == ".arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all() if is_arrow else pq.read_table(path)
    kind, name = int(rng.integers(7)), str(rng.choice(table.column_names))
    place, metadata = table.column_names.index(name), dict(table.schema.metadata or {})
    column = table.column(name)
    if kind == 0:
        table = table.drop_columns([name])
    elif kind == 1:
        table = table.slice(0, int(rng.integers(table.num_rows + 1)))
    elif kind == 2:
        table = pa.concat_tables([table, table])
    elif kind == 3:
        values = [None, "a", b"\xff", 1e300, [1, 2], True]
        new = [pa.array([value] * table.num_rows) for value in values]
        table = table.set_column(place, name, new[int(rng.integers(len(new)))])
    elif kind == 4:
        table = table.rename_columns([n + "x" if n == name else n for n in table.column_names])
    elif kind == 5:
        table = table.append_column(name, column)
    elif metadata:
        key = sorted(metadata)[int(rng.integers(len(metadata)))]
        try:
            inner = {"": json.loads(metadata[key])}
            odd_tree(inner, rng)
            metadata[key] = json.dumps(inner.get("", "")).encode()
        except ValueError:
            metadata[key] = other_word(metadata[key], rng)
        table = table.replace_schema_metadata(metadata)
    if is_arrow:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    else:
        pq.write_table(table, path)


def damaged_chunk(path, rng):
    "A chunk of a PNG is changed, and its sum is right again."
    data, at, chunks = path.read_bytes(), 8, []
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    k = int(rng.integers(len(chunks)))
    name, content = chunks[k]
    if content:
        content = BYTES[int(rng.integers(1, len(BYTES)))](content, rng)
    chunks[k] = name, content
    out = io.BytesIO(data[:8])
    out.seek(8)
    for name, content in chunks:
        out.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    path.write_bytes(out.getvalue())


def damaged_tags(path, rng):
    "EXIF tags of odd kinds."
    odd = [0, -1, 10**6, 0.5, (1, 0), (0, 0), "x", b"\xff", (3, 4, 5), float("nan"), 2**31]
    with Image.open(path) as picture:
        picture.load()
        tags = picture.getexif()
        place = tags if rng.random() < 0.3 else tags.get_ifd(0x8769)
        place[int(rng.choice([0x0112, 0xA405, 0xA002, 0xA003, 0x9204]))] = odd[int(rng.integers(len(odd)))]
        out = io.BytesIO()
        try:
            picture.save(out, picture.format, exif=tags)
        except Exception:  # the writer refuses what it is to write: no damage
            return
    path.write_bytes(out.getvalue())


def damage(folder, rng):
    "Changes one file of the folder; (its path, whether it was only cut)."
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    inner = {".parquet": damaged_columns, ".arrow": damaged_columns, ".png": damaged_chunk, ".jpg": damaged_tags}
    inner |= {ending: damaged_tree for ending in (".json", ".npz", ".safetensors")}
    if path.suffix in inner and rng.random() < 0.5:
        inner[path.suffix](path, rng)
        return path, False
    data = path.read_bytes()
    kinds = BYTES
    if path.suffix in TEXTS and rng.random() < 0.8:
        kinds = (other_word, other_word, other_word, lines_changed, other_encoding)
    kind = kinds[int(rng.integers(len(kinds)))]
    changed = kind(data, rng)
    while rng.random() < 0.15 and changed:
        kind, changed = noise, noise(changed, rng)
    path.write_bytes(changed)
    return path, kind is cut


# ---- outcome -------------------------------------------------------------------------------------------------------
def virtual_memory():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def finding(reader, folder, whole, only_cut=False):
    "None for a right result or a refusal that names the file, else the words for what is wrong."
    names = {path.name for path in folder.rglob("*") if path.is_file()} | {folder.name}
    memory = peak_memory()
    signal.setitimer(signal.ITIMER_PROF, SLOW)  # of the processor's time; a reader in C is ended too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = reader.read(folder)
            reader.sound(answer, whole)
            if only_cut and reader.cut_is_seen:
                assert same(answer, whole), "a file that was cut is read as another one"
    except (ValueError, OSError) as error:
        if not any(name in str(error) for name in names):
            return f"no file named: {where(error)}"
    except Exception as error:
        return where(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if peak_memory() - memory > MORE_MEMORY:
        return f"{(peak_memory() - memory) / 2**20:.0f} MiB of memory"
    return None


def same(answer, whole):
    "Whether two answers are alike as far as arrays, numbers and texts in them go."
    if isinstance(whole, np.ndarray):
        return np.shape(answer) == whole.shape and np.array_equal(answer, whole, equal_nan=whole.dtype.kind == "f")
    if isinstance(whole, (tuple, list)):
        return len(answer) == len(whole) and all(map(same, answer, whole))
    if isinstance(whole, dict):
        return answer.keys() == whole.keys() and all(same(answer[k], whole[k]) for k in whole)
    return answer == whole if isinstance(whole, (str, int, float, bytes, type(None))) else True


def where(error):
    "Kind of the error, its words, and the last line of the package that it came through."
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "acae_nb" in f.filename or "fuzzing" in f.filename
    ]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].line}" if frames else "?"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} [{place}]"


def kept(name):
    "Folders of files that once were findings."
    return sorted(path for path in (KEPT / name).glob("*") if path.is_dir())


class Subject:
    "A reader with its valid files, and what it says of them."

    def __init__(self, name, folder):
        self.name, self.reader = name, READERS[name]
        self.valid = folder / f"{name}-valid"
        self.valid.mkdir(parents=True)
        self.reader.write(self.valid)
        self.whole = self.reader.read(self.valid)
        self.reader.sound(self.whole, self.whole)
        self.folder = folder / f"{name}-damaged"

    def fresh(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.valid, self.folder)
        return self.folder

    def with_files(self, files):
        "What the reader says of the valid files with some of them replaced by those of a folder."
        shutil.copytree(files, self.fresh(), dirs_exist_ok=True)
        return finding(self.reader, self.folder, self.whole)

    def damaged(self, number, last=None):
        "(what is wrong or None, the damaged file) of damage number `number`."
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), number])
        path, only_cut = damage(self.fresh(), rng)
        if last is not None:
            keep(path, self.folder, last)
        return finding(self.reader, self.folder, self.whole, only_cut), path


def keep(path, folder, to):
    shutil.rmtree(to, ignore_errors=True)
    (to / path.relative_to(folder)).parent.mkdir(parents=True)
    shutil.copy(path, to / path.relative_to(folder))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.0, help="at least so long")
    parser.add_argument("--rounds", type=int, default=1, help="at least so many damaged files of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=sorted(READERS))
    parser.add_argument("--keep", type=Path, default=Path("found"), help="folder of the findings")
    arguments = parser.parse_args()
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    found, tried = {}, 0

    def note(subject, name, words):
        key = (subject.name, words.split(":")[0] + words[words.rfind("[") :])
        if key not in found:
            found[key] = words
            print(f"{subject.name} {name}: {words}", flush=True)
            return True

    with tempfile.TemporaryDirectory() as scratch:
        subjects = [Subject(name, Path(scratch)) for name in arguments.only]
        resource.setrlimit(resource.RLIMIT_AS, (virtual_memory() + MOST_MEMORY, resource.RLIM_INFINITY))
        for subject in subjects:
            for files in kept(subject.name):
                tried += 1
                if words := subject.with_files(files):
                    note(subject, files.name, words)
        start, number = time.monotonic(), 0
        while number < arguments.rounds or time.monotonic() - start < arguments.seconds:
            for subject in subjects:
                folder, place = arguments.keep / subject.name, 1000000 * arguments.seed + number
                words, path = subject.damaged(place, folder / "last")
                tried += 1
                if words and note(subject, f"{place} {path.name}", words):
                    keep(path, subject.folder, folder / str(place))
            number += 1
    print(f"{tried} damaged files of {len(subjects)} kinds, {len(found)} findings", flush=True)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
