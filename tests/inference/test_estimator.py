"""Pictures to poses: geometry with oracle models, looks, flips, grouping, detection and filters, and bad input."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from oracle_cameras import camera_at
from safetensors.torch import save

from acae_nb.autoencoder.acae import ACAE
from acae_nb.examples.crops import warp_image
from acae_nb.geometry.cameras import Camera, crop_camera, scale_intrinsics
from acae_nb.inference.detection import BlazePoseDetector, People, from_corners, one_box_each
from acae_nb.inference.estimator import PoseEstimator, bytes_per_crop, crops_within
from acae_nb.inference.person_crops import (
    ONE_LOOK,
    WITH_MIRROR,
    Look,
    PersonLeftOut,
    look_camera,
    person_camera,
    spread_looks,
    surroundings,
    take_look,
    trained_looks,
)
from acae_nb.inference.pictures import TruncatedVideo, assumed_camera, read_picture, video_frames
from acae_nb.inference.pose_results import to_table
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import HybridPoints, PoseModel, PoseOutput, SeparateJoints, save_pose_model
from acae_nb.skeletons.joints import load_skeleton, select, union

SKELETON, SIZE = load_skeleton("coco_17"), 96
CAMERAS = {
    "straight": camera_at([4000, 0, 1200], [0, 0, 1000]),
    "rolled": camera_at([0, 5000, 2500], [0, 0, 1000], roll_deg=25),
    "distorted": camera_at([-3000, 3000, 1500], [300, 0, 900], distortion=np.array([-0.2, 0.05, 0.001, -0.002, 0.01])),
    "off centre": camera_at([3000, -3000, 1000], [1200, 900, 1000]),
    "truncated": camera_at([2500, 0, 1700], [0, 0, 1500]),
    "far from the origin": camera_at([41000, -39000, 1000], [40000, -36000, 1000]),
}
PLACES = {name: np.array([40000.0, -36000, 1000]) if "far" in name else np.array([0, 0, 1000.0]) for name in CAMERAS}
IMAGE = np.zeros((480, 640, 3), np.uint8)


class Oracle(torch.nn.Module):
    "Answers with the truth in the frame of the next crop, as seen in a mirror where that crop is mirrored."

    def __init__(self, people):
        super().__init__()
        self.queue = [
            (camera, look, truth)
            for box, source, truth, looks in people
            for look in looks
            for camera in [look_camera(crop_camera(source, box, SIZE), look)]
        ]

    def forward(self, images, intrinsics):
        answers = []
        for K in intrinsics.numpy():
            camera, look, truth = self.queue.pop(0)
            joints, expected = camera.to_camera(truth), camera.intrinsics.copy()
            if look.flip:
                joints, expected[0, 2] = joints[list(SKELETON.mirror)] * [-1, 1, 1], SIZE - 1 - expected[0, 2]
            np.testing.assert_allclose(K, expected, rtol=1e-5)
            answers.append(torch.from_numpy(joints))
        return PoseOutput(joints=torch.stack(answers).float(), joints2d=None)


@pytest.mark.parametrize("looks", [ONE_LOOK, WITH_MIRROR, spread_looks(5)], ids=["one", "mirror", "five"])
@pytest.mark.parametrize("name", CAMERAS)
def test_geometry_adds_less_than_a_tenth_of_a_millimetre_and_pixel(name, looks):
    camera, rng = CAMERAS[name], np.random.default_rng(1)
    truth = rng.normal(0, [150, 150, 400], (2, 17, 3)) + PLACES[name]
    px = np.stack([camera.project(t) for t in truth])
    boxes = np.concatenate([px.min(1) - 10, np.ptp(px, axis=1) + 20], 1)
    if name == "truncated":
        assert (boxes[:, 1] + boxes[:, 3] > 480).any() or (boxes[:, 1] < 0).any()
    oracle = Oracle([(box, camera, t, looks) for box, t in zip(boxes, truth)])
    poses = PoseEstimator(oracle, SKELETON, SIZE, looks=looks, chunk=3).estimate(IMAGE, boxes, camera)
    assert not oracle.queue
    assert (
        np.abs(poses.world - truth).max() < 0.1
        and np.abs(poses.joints3d - np.stack([camera.to_camera(t) for t in truth])).max() < 0.1
    )
    assert np.abs(poses.px - px).max() < 0.1


class ReadsDot(torch.nn.Module):
    "Reads only the place of a bright dot in the crop, and puts every joint there, 3 m away along the crop's axis."

    def forward(self, images, intrinsics):
        weight, grid = images[:, 0].double(), torch.arange(images.shape[-1], dtype=torch.float64)
        place = (
            torch.stack([(weight.sum(1) * grid).sum(1), (weight.sum(2) * grid).sum(1)], -1)
            / weight.sum((1, 2))[:, None]
        )
        rays = (
            torch.linalg.inv(intrinsics.double())
            @ torch.cat([place, torch.ones(len(place), 1, dtype=torch.float64)], 1)[..., None]
        )
        return PoseOutput(joints=3000 * rays.mT.repeat(1, 17, 1), joints2d=None)


@pytest.mark.parametrize(
    "looks",
    [
        ONE_LOOK,
        (Look(flip=True),),
        (Look(rotation_deg=25, scale=0.8, flip=True),),
        (Look(rotation_deg=-40, scale=1.1),),
    ],
)
@pytest.mark.parametrize("name", CAMERAS)
def test_a_dot_in_the_picture_comes_back_to_its_pixel(name, looks):
    camera = CAMERAS[name]
    u, v = camera.project(PLACES[name] + [60, -40, 100])
    x, y = np.meshgrid(np.arange(640), np.arange(480))
    image = (250 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 4.0**2))).astype(np.uint8)
    poses = PoseEstimator(ReadsDot(), SKELETON, 256, looks=looks).estimate(image, (u - 90, v - 110, 200, 200), camera)
    assert np.abs(poses.px - [u, v]).max() < 0.1


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
            + 2 * intrinsics[:, None, :1, 2]
        )
        return PoseOutput(joints=joints.float(), joints2d=None)


def smooth_picture(seed=0, shape=(480, 640)):
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)


def test_flipping_the_picture_flips_and_swaps():
    """A mirrored picture, box and camera give the mirrored pose with exchanged sides, whatever the model, when it looks
    at each crop and its mirror image."""
    camera, mirrored = (Camera(np.array([[700.0, 0, x], [0, 700, 240], [0, 0, 1]])) for x in (300, 639 - 300))
    box, image = np.array([100.0, 120, 150, 260]), smooth_picture()
    other_box = np.r_[639 - box[0] - box[2], box[1:]]
    for looks, bound in ((WITH_MIRROR, 1.0), (ONE_LOOK, None)):
        estimator = PoseEstimator(Conv(), SKELETON, SIZE, looks=looks)
        a, b = estimator.estimate(image, box, camera), estimator.estimate(image[:, ::-1], other_box, mirrored)
        off = np.abs(b.joints3d[0] - a.joints3d[0][list(SKELETON.mirror)] * [-1, 1, 1]).max()
        assert off < bound if bound else off > 50


def test_grouping_changes_nothing():
    model, rng = Conv().train(), np.random.default_rng(0)
    images = [
        smooth_picture(k, shape) for k, shape in enumerate([(480, 640), (300, 200), (96, 96), (700, 500), (50, 400)])
    ]
    boxes = [np.c_[rng.uniform(0, 30, (n, 2)), rng.uniform(20, 60, (n, 2))] for n in (3, 0, 1, 7, 2)]
    results = {
        chunk: PoseEstimator(model, SKELETON, SIZE, looks=spread_looks(3), chunk=chunk).estimate(images, boxes)
        for chunk in (1, 2, 5, 64)
    }
    backwards = PoseEstimator(model, SKELETON, SIZE, looks=spread_looks(3), chunk=4).estimate(
        images[::-1], boxes[::-1]
    )[::-1]
    streamed = list(
        PoseEstimator(model, SKELETON, SIZE, looks=spread_looks(3), chunk=7).estimate(iter(images), iter(boxes))
    )
    for other in (*results.values(), backwards, streamed):
        assert [len(p) for p in other] == [3, 0, 1, 7, 2]
        assert max(np.abs(a.joints3d - b.joints3d).max(initial=0) for a, b in zip(results[1], other)) < 0.01
    assert [p.frame for p in streamed] == list(range(5))


def test_a_stream_reads_only_as_far_as_it_must():
    taken = []

    def frames():
        for k in range(1000):
            taken.append(k)
            yield IMAGE

    stream = PoseEstimator(Conv(), SKELETON, SIZE, chunk=4).stream(
        (image, [[10, 10, 50, 80]], None) for image in frames()
    )
    for _ in range(3):
        next(stream)
    assert len(taken) < 20


def test_what_breaks_in_the_middle_of_a_stream_comes_after_the_good_pictures():
    def frames():
        yield IMAGE
        yield IMAGE
        raise TruncatedVideo("cut")

    found, stream = (
        [],
        PoseEstimator(Conv(), SKELETON, SIZE, detector=lambda image: People([[10, 10, 50, 80]], [0.9])).estimate(
            frames()
        ),
    )
    with pytest.raises(TruncatedVideo):
        for poses in stream:
            found.append(poses)
    assert len(found) == 2


def test_detected_people_are_checked_and_given_boxes_are_not():
    body = np.random.default_rng(0).uniform(-1, 1, (17, 3)) * [200, 400, 100]

    class Scripted(torch.nn.Module):
        def forward(self, images, intrinsics):
            answers = torch.from_numpy(
                np.stack([body, body * 1.01, body * 30, body + [5000, 0, 0]]) + [0, 0, 4000]
            ).float()
            return PoseOutput(joints=answers[: len(images)], joints2d=None)

    camera = assumed_camera((640, 480))
    boxes = [[270, 170, 100, 140], [272, 170, 100, 140], [260, 160, 120, 160], [10, 10, 50, 80]]

    class Turned(Scripted):
        "Gives camera-frame answers: undoes the crop's turn."

        def forward(self, images, intrinsics):
            said = super().forward(images, intrinsics)
            turns = [crop_camera(camera, box, SIZE).rotation for box in boxes][: len(images)]
            return replace(
                said, joints=torch.stack([j @ torch.from_numpy(R.T).float() for j, R in zip(said.joints, turns)])
            )

    estimator = PoseEstimator(
        Turned(), SKELETON, SIZE, looks=ONE_LOOK, detector=lambda image: People(boxes, [0.9, 0.8, 0.7, 0.6])
    )
    kept = estimator.estimate(IMAGE, cameras=camera)
    assert kept.scores.tolist() == [0.9]  # a duplicate, a giant, and a pose outside its box are gone
    assert len(estimator.estimate(IMAGE, boxes, camera)) == 4
    assert (
        len(
            PoseEstimator(
                Turned(),
                SKELETON,
                SIZE,
                looks=ONE_LOOK,
                detector=lambda image: People(boxes, [0.9, 0.8, 0.7, 0.6]),
                plausibility=None,
            ).estimate(IMAGE, cameras=camera)
        )
        == 4
    )


def test_no_person_is_an_answer():
    poses = PoseEstimator(Conv(), SKELETON, SIZE, detector=lambda image: People(np.zeros((0, 4)), [])).estimate(IMAGE)
    assert (
        len(poses) == 0
        and poses.px.shape == (0, 17, 2)
        and poses.to_pandas().shape[0] == 0
        and len(to_table([poses])) == 0
    )
    poses.overlay()


def test_kinds_of_pictures_give_the_same_pose():
    image, box = smooth_picture()[..., :1].repeat(3, 2), [100, 100, 200, 300]
    estimator = PoseEstimator(Conv(), SKELETON, SIZE)
    expected = estimator.estimate(image, box).joints3d
    for same in (image[..., 0], image[..., :1], image.astype(np.uint16) * 257, np.dstack([image, image[..., 0]])):
        assert np.allclose(estimator.estimate(same, box).joints3d, expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(images=np.zeros((0, 10, 3), np.uint8)), r"image: expected uint8 or uint16 .* found uint8 \(0, 10, 3\)"),
        (dict(images=np.zeros((10, 10, 3))), "found float64"),
        (dict(images=np.zeros((10, 10, 2), np.uint8)), r"\(10, 10, 2\)"),
        (dict(images=IMAGE, boxes=[0, 0, 0, 10]), "box 0: .*width > 0"),
        (dict(images=IMAGE, boxes=[[0, 0, 9, 9], [0, np.nan, 5, 5]]), "box 1: expected finite"),
        (dict(images=IMAGE, boxes=[700, 0, 5, 5]), "within the 640 x 480 picture"),
        (dict(images=IMAGE, boxes=[1, 2, 3]), r"expected \[n, 4\]"),
        (dict(images=IMAGE, boxes=np.ones((4, 5))), r"scores .* do not belong here .* found shape \(4, 5\)"),
        (dict(images=IMAGE, boxes=np.ones((2, 2, 2))), r"found shape \(2, 2, 2\)"),
        (dict(images=IMAGE, boxes=[1, 2, 3, 4, 5, 6, 7, 8]), r"found shape \(8,\)"),
        (dict(images=IMAGE, boxes=np.ones((1, 1, 4))), r"found shape \(1, 1, 4\)"),
        (dict(images=None), r"images: expected a picture .* found nothing \(None\)"),
        (dict(images=7), "found int"),
        (dict(images={"a": IMAGE}), "found dict"),
        (dict(images=[None], boxes=[[0, 0, 9, 9]]), r"image: expected an array, a path, .* found nothing \(None\)"),
        (dict(images=torch.zeros(3, 20, 30), boxes=[0, 0, 9, 9]), "found float32"),
        (dict(images=IMAGE, boxes=[0, 0, 9, 9], cameras=np.eye(3)), "expected a Camera"),
        (dict(images=[IMAGE, IMAGE], boxes=[[0, 0, 9, 9]]), "boxes: expected 2, one for each picture, found 1"),
    ],
)
def test_bad_input_is_refused_with_what_was_found(arguments, message):
    with pytest.raises(ValueError, match=message):
        PoseEstimator(Conv(), SKELETON, SIZE).estimate(**arguments)


def test_paths_pil_pictures_and_tensors_are_pictures(tmp_path):
    from PIL import Image

    image, box = smooth_picture(), [100, 100, 200, 300]
    estimator = PoseEstimator(Conv(), SKELETON, SIZE)
    expected = estimator.estimate(image, box).joints3d
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    palette = Image.fromarray(np.repeat(np.arange(200, dtype=np.uint8)[:, None], 300, 1)).convert("P")
    tensor = torch.from_numpy(image)
    for same in (path, str(path), Image.fromarray(image), Image.open(path), tensor, tensor.permute(2, 0, 1)):
        assert np.allclose(estimator.estimate(same, box).joints3d, expected)
        assert np.allclose(estimator.estimate([same], [box])[0].joints3d, expected)
        assert np.allclose(next(estimator.estimate(iter([same]), iter([box]))).joints3d, expected)
    assert estimator.estimate(palette, [10, 10, 90, 90]).image[150, 7].tolist() == [150, 150, 150]
    assert len(estimator.estimate(torch.stack([tensor.permute(2, 0, 1)] * 2), [box, box])) == 2
    grey = image[..., 0].astype(np.uint16) * 257
    deep = estimator.estimate(grey, box).image
    for mode in ("I", "I;16"):
        wide = Image.fromarray(grey.astype(np.int32 if mode == "I" else np.uint16))
        assert wide.mode == mode and (estimator.estimate(wide, box).image == deep).all()
    for strange in (image[..., 0] / np.float32(255), grey.astype(np.int32) - 9, grey.astype(np.int32) * 9):
        with pytest.raises(
            ValueError, match="expected a PIL picture of 8 or 16 bits a channel, found one of mode [IF]"
        ):
            estimator.estimate(Image.fromarray(strange), box)
    with pytest.raises(ValueError, match="boxes: expected an entry for each picture, found none for picture 2"):
        list(estimator.estimate(iter([image] * 3), iter([box] * 2)))
    with pytest.raises(FileNotFoundError, match="none.png"):
        estimator.estimate(tmp_path / "none.png", box)
    (tmp_path / "v.mp4").write_bytes(b"video")
    with pytest.raises(ValueError, match="v.mp4: expected a picture .*video_frames"):
        estimator.estimate(tmp_path / "v.mp4", box)


def test_a_box_where_the_lens_has_no_answer():
    camera = Camera(np.array([[450.0, 0, 320], [0, 450, 240], [0, 0, 1]]), [-0.35, 0, 0, 0])
    good, rim = [250.0, 150, 100, 200], [580.0, 300, 60, 170]
    calls = iter(range(6))

    def detector(image):
        return People([good, rim], [0.9, 0.8]) if next(calls) == 3 else People([good], [0.9])

    estimator = PoseEstimator(Conv(), SKELETON, SIZE, detector=detector, plausibility=None)
    with pytest.warns(PersonLeftOut, match="picture 3: a detected person is left out: box: .*580"):
        poses = estimator.estimate([IMAGE] * 6, cameras=camera)
    assert [p.boxes.tolist() for p in poses] == [[good]] * 6
    with pytest.raises(ValueError, match="picture 1, box 1: box: expected a place inside the lens model's range"):
        estimator.estimate([IMAGE] * 2, [[good], [good, rim]], camera)


@pytest.mark.parametrize(
    "lean, turned", [(0, False), (80, False), (-80, False), (120, True), (180, True), (-150, True)]
)
@pytest.mark.parametrize("name", CAMERAS)
def test_people_upside_down_are_upright_in_their_crops(name, lean, turned):
    camera = CAMERAS[name]
    u, v = camera.project(PLACES[name])
    box = np.array([u - 60, v - 80, 120, 160])
    straight = crop_camera(camera, box, SIZE)
    head = straight.position + 3000 * straight.rotation[2]
    a = np.deg2rad(lean)
    head = head + 100 * (np.sin(a) * straight.rotation[0] - np.cos(a) * straight.rotation[1])
    up = camera.project(head) - [u, v]
    crop = person_camera(camera, box, SIZE, up)
    x, y = (crop if turned else straight).project(head) - (SIZE - 1) / 2
    assert np.allclose(crop.rotation, straight.rotation) != turned
    if turned:
        assert y < 0 and abs(x) < 0.1 * abs(y)
    for unknown in (None, [np.nan, np.nan], [0, 0]):
        unknown = None if unknown is None else np.array(unknown, float)
        assert np.allclose(person_camera(camera, box, SIZE, unknown).rotation, straight.rotation)


@pytest.mark.parametrize("name", CAMERAS)
def test_turned_crops_answer_in_the_pictures_frame(name):
    camera, looks = CAMERAS[name], spread_looks(3)
    truth = np.random.default_rng(1).normal(0, [150, 150, 400], (17, 3)) + PLACES[name]
    px = camera.project(truth)
    box, up = np.r_[px.min(0) - 10, np.ptp(px, axis=0) + 20], np.array([3.0, 70.0])

    class Turned(Oracle):
        def __init__(self):
            super().__init__([])
            straight = person_camera(camera, box, SIZE, up)
            self.queue = [(look_camera(straight, look), look, truth) for look in looks]

    estimator = PoseEstimator(
        Turned(), SKELETON, SIZE, looks=looks, detector=lambda image: People([box], [0.9], up=[up]), plausibility=None
    )
    assert np.abs(estimator.estimate(IMAGE, cameras=camera).world[0] - truth).max() < 0.1


BAD_PARAMS = {  # of a model.json -> what is said
    "no size": ({"size": None}, r"params.size: expected the crop's side in px, found None"),
    "a size of 0": ({"size": 0}, r"params.size: expected the crop's side in px, found 0"),
    "a size that is true": ({"size": True}, r"params.size: expected the crop's side in px, found True"),
    "a licence of numbers": ({"licence": 5}, r"params.licence: expected a text, found 5"),
    "formats in a list": ({"formats": [1]}, r"params.formats: expected formats by name"),
    "a format without indices": ({"formats": {"f": {}}}, r"params.formats.f: expected indices and a skeleton"),
    "a format that is none": ({"formats": {"f": 3}}, r"params.formats.f: expected indices and a skeleton"),
    "indices beyond": ({"formats": {"f": {"indices": [99, 0]}}}, r"params.formats.f: expected 2 indices below 17"),
    "too few indices": ({"formats": {"f": {"indices": [0]}}}, r"params.formats.f: expected 2 indices below 17"),
    "a mirror that is none": ({"point_mirror": [0] * 17}, r"params.point_mirror: expected a permutation"),
}


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_params_that_cannot_be_are_named(tmp_path, case):
    changes, words = BAD_PARAMS[case]
    part = select(SKELETON, [1, 2], "f").to_dict()  # the eyes
    for entry in changes.get("formats", {}).values() if isinstance(changes.get("formats"), dict) else ():
        if isinstance(entry, dict) and "indices" in entry:
            entry["skeleton"] = part
    params = {"size": SIZE, "licence": "", "formats": {"f": {"indices": [1, 2], "skeleton": part}}}
    folder = save_pose_model(tmp_path / "m", PoseModel(tiny_backbone(), SeparateJoints(17)), SKELETON, params)
    assert PoseEstimator.load(folder).formats["f"][0] == [1, 2]
    sidecar = folder / "model.json"
    info = json.loads(sidecar.read_text())
    info["params"] |= changes
    sidecar.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=f"model.json: {words}"):
        PoseEstimator.load(folder)


def test_a_damaged_autoencoder_is_named(tmp_path):
    params = {"size": SIZE}
    folder = save_pose_model(tmp_path / "m", PoseModel(tiny_backbone(), SeparateJoints(17)), SKELETON, params)
    for content in (b"", b"\x00" * 40, save({"encoder": torch.ones(2, 17)}), b"version https://git-lfs"):
        (folder / "acae.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="acae.safetensors: expected an autoencoder as save_acae writes it"):
            PoseEstimator.load(folder)


def test_the_callers_model_stays_where_it_is():
    model = PoseModel(tiny_backbone(), SeparateJoints(17))
    estimator = PoseEstimator(model, SKELETON, 64, device="meta")
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert {p.device.type for p in estimator.model.parameters()} == {"meta"}
    usual = PoseEstimator(model, SKELETON, 64)
    assert {p.device.type for p in usual.model.parameters()} == {"cuda" if torch.cuda.is_available() else "cpu"}
    assert PoseEstimator(model, SKELETON, 64, device="cpu").model is model


def test_the_gpu_is_the_default_where_there_is_one(monkeypatch):
    from acae_nb.inference import estimator

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert estimator.default_device() == torch.device("cuda")
    with pytest.raises(ValueError, match="device: expected one that torch can use here, such as cpu, found mps"):
        PoseEstimator(PoseModel(tiny_backbone(), SeparateJoints(17)), SKELETON, 64, device="mps")


def test_singular_cameras_and_unknown_skeletons():
    with pytest.raises(ValueError, match="camera: intrinsics: expected positive focal"):
        Camera(np.diag([0.0, 700, 1]))
    with pytest.raises(KeyError, match="did you mean 'coco_17'.*it has coco_17"):
        PoseEstimator(Conv(), SKELETON, SIZE).estimate(IMAGE, [0, 0, 9, 9], skeleton="coco17")
    with pytest.raises(ValueError, match="precision"):
        PoseEstimator(Conv(), SKELETON, SIZE, precision=torch.float64)


def test_files_of_pictures_and_videos(tmp_path):
    cv2.imwrite(str(tmp_path / "grey16.png"), np.full((20, 30), 40000, np.uint16))
    assert (
        read_picture(tmp_path / "grey16.png").shape == (20, 30, 3)
        and read_picture(tmp_path / "grey16.png")[0, 0, 0] == 40000 >> 8
    )
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("bad.png", "empty.png"):
        with pytest.raises(ValueError, match=name):
            read_picture(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="none.png"):
        read_picture(tmp_path / "none.png")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for k in range(40):
        writer.write(np.random.default_rng(k).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    assert len(list(video_frames(tmp_path / "v.avi"))) == 40
    content, count = (tmp_path / "v.avi").read_bytes(), 0
    (tmp_path / "half.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(TruncatedVideo, match="half.avi: expected 40 pictures .*found 19"):
        for _ in video_frames(tmp_path / "half.avi"):
            count += 1
    assert count == 19
    with pytest.raises(ValueError, match="bad.png"):
        list(video_frames(tmp_path / "bad.png"))


def test_confidence_comes_from_disagreement():
    two = union([SKELETON, load_skeleton("h36m_17")])
    encoder, decoder = torch.full((4, 34), 1 / 34), torch.nn.functional.one_hot(torch.arange(34) % 4, 4).float()
    hybrid = PoseEstimator(PoseModel(tiny_backbone(), HybridPoints(encoder, decoder)), two, 64)
    box = [100, 100, 200, 300]
    assert np.isfinite(hybrid.estimate(smooth_picture(), box).confidence).all()
    plain = PoseModel(tiny_backbone(), SeparateJoints(34))
    assert np.isnan(PoseEstimator(plain, two, 64).estimate(smooth_picture(), box).confidence).all()
    with_acae = PoseEstimator(plain, two, 64, acae=ACAE(encoder, decoder)).estimate(
        smooth_picture(), box, skeleton="h36m_17"
    )
    assert (
        with_acae.confidence.shape == (1, 17)
        and (with_acae.confidence >= 0).all()
        and (with_acae.confidence <= 1).all()
    )
    with pytest.raises(ValueError, match="acae: expected the 17 joints"):
        PoseEstimator(Conv(), SKELETON, SIZE, acae=ACAE(encoder, decoder))


def test_bfloat16_is_close():
    torch.manual_seed(0)
    model = PoseModel(tiny_backbone(), SeparateJoints(17))
    boxes = [100, 100, 200, 300]
    exact, fast = (
        PoseEstimator(model, SKELETON, 64, looks=ONE_LOOK, precision=p).estimate(smooth_picture(), boxes)
        for p in (torch.float32, torch.bfloat16)
    )
    size = np.ptp(exact.joints3d[0], axis=0).max()
    exact_shape, fast_shape = (p.joints3d[0] - p.joints3d[0].mean(0) for p in (exact, fast))
    assert 0 < np.abs(exact_shape - fast_shape).max() and np.abs(exact.px - fast.px).max() < 3, size


def test_a_memory_budget_sets_the_chunk():
    model = PoseModel(tiny_backbone(), SeparateJoints(17))
    assert bytes_per_crop(model, 128) > 3 * bytes_per_crop(model, 64) and crops_within(0.001, model, 64) == 1
    for none in (0, -5, float("nan")):
        with pytest.raises(ValueError, match="memory: expected a budget"):
            crops_within(none, model, 64)
    assert 8 <= crops_within(8 * bytes_per_crop(model, 64) / 2**20 + 0.01, model, 64) <= 8


def test_detectors_of_others():
    people = from_corners(lambda image: np.array([[0, 0, 10, 20, 0.9], [0, 0, 10, 21, 0.8], [50, 50, 40, 60, 0.9]]))(
        IMAGE
    )
    assert people.boxes.tolist() == [[0, 0, 10, 20]]
    assert len(from_corners(lambda image: [])(IMAGE)) == 0
    with pytest.raises(ValueError, match="expected rows"):
        from_corners(lambda image: np.zeros((3, 4)))(IMAGE)
    with pytest.raises(ValueError, match="a score for each of 1 boxes"):
        People([[0, 0, 1, 1]], [])
    with pytest.raises(FileNotFoundError, match="sample_data"):
        BlazePoseDetector("nowhere")
    assert len(one_box_each(People(np.zeros((0, 4)), []))) == 0


def test_looks():
    five = spread_looks(5)
    assert (
        [look.flip for look in five] == [False, True, False, True, False]
        and five[0] == Look(0.6, -25.0, 0.8)
        and five[-1] == Look(1.0, 25.0, 1.1)
    )
    assert spread_looks(1) == (Look(gamma=0.8),)  # A20: the middle of every range
    assert PoseEstimator(Conv(), SKELETON, SIZE, looks=5).looks == five
    assert trained_looks({}, 1) == ONE_LOOK and trained_looks({}, 2) == WITH_MIRROR and trained_looks({}, 5) == five
    near = trained_looks({"augmentation": {"rotation_deg": 10.0, "scale": 0.2}}, 3)
    assert (
        [look.rotation_deg for look in near] == [-5, 0, 5]
        and near[0].scale == 0.9
        and near[2].scale == 1.1
        and {look.gamma for look in near} == {1.0}
    )
    for n in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            spread_looks(n)
        with pytest.raises(ValueError, match="at least one"):
            PoseEstimator(Conv(), SKELETON, SIZE, looks=n)
        with pytest.raises(ValueError, match="at least one"):
            trained_looks({}, n)


def test_averaging_looks_lowers_errors_that_differ_between_looks():
    "A model that errs by as much in every look, but not alike: n looks err by 1 / sqrt(n) of it."
    camera, rng = CAMERAS["straight"], np.random.default_rng(3)
    truth = rng.normal(0, [150, 150, 400], (30, 17, 3)) + PLACES["straight"]
    px = np.stack([camera.project(t) for t in truth])
    boxes = np.concatenate([px.min(1) - 10, np.ptp(px, axis=1) + 20], 1)

    class Errs(Oracle):
        def forward(self, images, intrinsics):
            said = super().forward(images, intrinsics)
            return replace(said, joints=said.joints + torch.from_numpy(rng.normal(0, 50, said.joints.shape)).float())

    error = {}
    for looks in (ONE_LOOK, WITH_MIRROR, spread_looks(5)):
        poses = PoseEstimator(
            Errs([(box, camera, t, looks) for box, t in zip(boxes, truth)]), SKELETON, SIZE, looks=looks
        ).estimate(IMAGE, boxes, camera)
        error[len(looks)] = np.sqrt(((poses.world - truth) ** 2).mean())
    np.testing.assert_allclose([error[2] / error[1], error[5] / error[1]], [2**-0.5, 5**-0.5], rtol=0.1)


REPO = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(
    not all(
        (REPO / "artifacts" / p).exists() for p in ("models/consistency/model.json", "people/test_indoor/table.arrow")
    ),
    reason="the default pipeline has not been run (make repro)",
)
def test_five_looks_lower_the_error_on_the_embedded_test():
    spec = importlib.util.spec_from_file_location("looks_benchmark", REPO / "benchmarks/looks.py")
    spec.loader.exec_module(benchmark := importlib.util.module_from_spec(spec))
    table = benchmark.compare_looks(
        REPO / "artifacts/models/consistency", REPO / "artifacts/people/test_indoor", 60, ("one look", "five looks")
    )
    assert table.loc["five looks", "mean-centred"] < table.loc["one look", "mean-centred"], table


def test_a_crop_from_the_halved_part_shows_what_the_camera_would_see():
    "Against the slow way: 8 x 8 samples of the whole smooth picture in each pixel of the crop."
    image, camera = (
        smooth_picture(4, (1200, 1600)),
        Camera(np.array([[1500.0, 0, 790], [0, 1500, 610], [0, 0, 1]]), [-0.2, 0.05, 0.001, -0.001, 0.0]),
    )
    looks = spread_looks(3, gamma=(1.0, 1.0))
    for box in ([300, 200, 500, 900], [-200, 700, 600, 601], [1400, 100, 333, 1000], [700, 600, 40, 60]):
        straight = crop_camera(camera, box, SIZE)
        part, own = surroundings(image, camera, straight, looks, SIZE)
        assert part.size < image.size / 4
        for look in looks:
            found, target = take_look(part, own, straight, look, SIZE)
            fine = Camera(
                scale_intrinsics(target.intrinsics, 8), None, target.rotation, target.position, target.world_up
            )
            seen, slow = (
                warp_image(picture, camera, fine, 8 * SIZE).reshape(SIZE, 8, SIZE, 8, 3).mean((1, 3))
                for picture in (np.full_like(image, 255), image)
            )
            inside = cv2.erode((seen.min(-1) == 255).astype(np.uint8), np.ones((5, 5)), borderValue=1).astype(
                bool
            )  # the picture's border fades over a few pixels
            off = np.abs(found - slow)[inside]
            assert inside.mean() > 0.2 and off.mean() < 1 and off.max() < 6


def test_a_detector_sees_half_people_less_surely(tmp_path):
    "The two networks replaced: faces in the whole picture and in tiles, one of them with a doubtful body."
    from types import SimpleNamespace

    from acae_nb.people.blazepose import Detection

    detector = BlazePoseDetector.__new__(BlazePoseDetector)

    def detect(image, threshold):
        if image.shape[:2] != (480, 640):
            return []
        return [
            Detection(0.9, np.array([100.0, 50, 20, 20]), np.full((4, 2), 110.0)),
            Detection(0.8, np.array([400.0, 50, 20, 20]), np.full((4, 2), 410.0)),
        ]

    def landmarks(image, points):
        return SimpleNamespace(
            presence=0.95 if points[0, 0] < 200 else 0.5,
            box=np.array([points[0, 0] - 50, 20, 100, 300]),
            joints2d=np.zeros((33, 2)),
        )

    detector.model, detector.threshold, detector.counts, detector.most_overlap = (
        SimpleNamespace(detect=detect, landmarks=landmarks),
        0.6,
        (1, 2),
        0.6,
    )
    people = detector(IMAGE)
    assert people.boxes.tolist() == [[60, 20, 100, 300]] and np.isclose(people.scores[0], 0.9 * 0.95)
