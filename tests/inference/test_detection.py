"""The default detector: where it looks, which way up, doubles, people small, many and upside down."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.datasets.pose2sim import read_video
from acae_nb.inference.detection import (
    LEAST_HEIGHT,
    LOOK_SIDES,
    MoveNetDetector,
    People,
    body_directions,
    fine_regions,
    halves,
    keypoint_similarity,
    merged,
    stretches,
    turned_back,
    turns_to_upright,
    wholly_inside,
)
from acae_nb.inference.person_crops import WITH_MIRROR, PeopleCropper
from acae_nb.people.blazepose import overlap
from acae_nb.skeletons.joints import load_skeleton

REPO = Path(__file__).resolve().parents[2]
COCO = load_skeleton("coco_17")
VIDEOS = REPO / "data/pose2sim"
needs_videos = pytest.mark.skipif(not VIDEOS.exists(), reason="data/ is not fetched (make fetch)")


def people_of(n, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.c_[rng.uniform(0, 300, (n, 2)), rng.uniform(50, 200, (n, 2))]
    keypoints = boxes[:, None, :2] + rng.uniform(0, 1, (n, 17, 2)) * boxes[:, None, 2:]
    keypoints[rng.uniform(size=(n, 17)) < 0.3] = np.nan
    return People(boxes, rng.uniform(size=n), keypoints, body_directions(keypoints, COCO))


def test_similarity_of_keypoints_against_loops():
    a, b = people_of(3), people_of(4, 1)
    fast = keypoint_similarity(a, b, COCO.mirror)
    for i in range(3):
        for j in range(4):
            area = min(np.prod(a.boxes[i, 2:]), np.prod(b.boxes[j, 2:]))
            both = []
            for order in (range(17), COCO.mirror):
                terms = []
                for p, q in zip(a.keypoints[i], b.keypoints[j][list(order)]):
                    if np.isfinite([*p, *q]).all():
                        terms.append(np.exp(-((p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2) / (2 * 0.15**2 * area)))
                both.append(np.mean(terms) if terms else 0)
            assert fast[i, j] == pytest.approx(max(both))


def test_nothing_seen_in_both_is_no_agreement():
    unseen = People([[0, 0, 50, 90]], [0.9], np.full((1, 17, 2), np.nan))
    assert keypoint_similarity(unseen, people_of(2), COCO.mirror).tolist() == [[0, 0]]
    assert len(merged([People(np.zeros((0, 4)), [], np.zeros((0, 17, 2)))], COCO.mirror)) == 0


def test_a_person_of_two_looks_is_one_and_two_who_hug_are_two():
    pose = people_of(1).keypoints[0]
    pose = np.where(np.isfinite(pose), pose, 100)
    hugging = People([[0, 0, 300, 300], [10, 0, 300, 300]], [0.8, 0.7], [pose, pose[::-1] + [90, 0]])
    again = People([[0, 0, 200, 150]], [0.5], [pose + 3])
    assert merged([hugging, again], COCO.mirror).scores.tolist() == [0.8, 0.7]
    assert merged([again, hugging], COCO.mirror).scores.tolist() == [0.8, 0.7]
    exchanged = People([[0, 0, 200, 150]], [0.9], [pose[list(COCO.mirror)]])
    assert merged([hugging, exchanged], COCO.mirror).scores.tolist() == [0.9, 0.7]


@pytest.mark.parametrize("turns", range(4))
def test_what_is_found_in_a_turned_picture_lies_where_it_is(turns):
    "Four pixels painted in a picture, found again by their colours in the turned one."
    picture = np.zeros((40, 70), int)
    places = {1: (12, 5), 2: (30, 22), 3: (20, 9), 4: (25, 20)}  # x, y of low and high corner, of head and hips
    for colour, (x, y) in places.items():
        picture[y, x] = colour
    turned = np.rot90(picture, turns)
    seen = {colour: np.argwhere(turned == colour)[0][::-1] + 0.5 for colour in places}
    low, high = np.minimum(seen[1], seen[2]), np.maximum(seen[1], seen[2])
    people = People([[*low, *(high - low)]], [0.9], [[seen[3]]], [seen[3] - seen[4]])
    back = turned_back(people, turns, (70, 40))
    assert back.boxes.tolist() == [[12.5, 5.5, 18, 17]] and back.keypoints.tolist() == [[[20.5, 9.5]]]
    assert back.up.tolist() == [[-5, -11]] and turns_to_upright(back.up) == []
    assert turns_to_upright(people.up) == [4 - turns][:turns]


def test_directions_of_half_seen_bodies():
    keypoints = np.full((3, 17, 2), np.nan)
    names = {name: COCO.index(name) for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")}
    keypoints[0, list(names.values())] = [[10, 0], [30, 0], [15, 50], [25, 50]]
    keypoints[1, [names["left_shoulder"], names["right_hip"]]] = [[0, 9], [0, 2]]
    keypoints[2, names["left_hip"]] = [4, 4]
    up = body_directions(keypoints, COCO)
    assert up[:2].tolist() == [[0, -50], [0, 7]] and np.isnan(up[2]).all()
    assert turns_to_upright(up) == [2]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9000), st.integers(1, 9000), st.floats(100, 2000))
def test_parts_cover_a_picture_and_hold_whoever_is_small(width, height, smallest):
    regions = fine_regions((width, height), smallest)
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in regions)
    assert all(max(w, h) <= smallest * LOOK_SIDES[1] / LEAST_HEIGHT + 1 for _, _, w, h in regions)
    for k, length in ((0, width), (1, height)):
        spans = sorted({(region[k], region[k] + region[k + 2]) for region in regions})
        assert spans[0][0] == 0 and spans[-1][1] == length
        shared = min(a[1] - b[0] for a, b in zip(spans, spans[1:])) if len(spans) > 1 else 2 * smallest
        assert shared >= 2 * smallest - 2


@pytest.mark.parametrize(
    "angle, turns",
    [(0, []), (44, []), (-44, []), (50, [1]), (90, [1]), (125, [1, 2]), (170, [2]), (-130, [2, 3]), (-80, [3])],
)
def test_turns_that_bring_a_body_upright(angle, turns):
    a = np.deg2rad(angle)  # clockwise from upright
    assert turns_to_upright(np.array([[np.sin(a), -np.cos(a)], [np.nan, np.nan]])) == turns


def test_a_length_in_stretches():
    assert stretches(100, 100, 20) == [(0, 100)] and stretches(101, 100, 21) == [(0, 61), (40, 61)]
    assert halves((10, 20, 80, 40)) == [(10, 20, 50, 40), (40, 20, 50, 40)]
    assert halves((10, 20, 40, 80)) == [(10, 20, 40, 50), (10, 50, 40, 50)]


def test_people_cut_by_a_part_are_left_to_others():
    boxes = [[100, 100, 50, 90], [250, 100, 50, 90], [150, 210, 40, 90], [180, 150, 40, 90]]
    people = People(boxes, [0.9, 0.8, 0.7, 0.6])
    assert wholly_inside(people, (100, 0, 200, 300), (400, 300)).boxes.tolist() == [boxes[2], boxes[3]]
    assert len(wholly_inside(people, (0, 0, 400, 300), (400, 300))) == 4


class SeesRectangles(MoveNetDetector):
    "Everything but the network: a person is a rectangle of one colour; seen are six, and none that is too small."

    def look(self, image):
        longest = max(image.shape[:2])
        boxes, scale = [], np.clip(longest * LEAST_HEIGHT / self.smallest, *LOOK_SIDES) / longest
        for colour in np.unique(image[..., 0])[1:]:
            y, x = np.nonzero(image[..., 0] == colour)
            boxes.append([x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1])
        boxes = [box for box in sorted(boxes, key=lambda box: -box[3]) if box[3] * scale >= LEAST_HEIGHT - 1][:6]
        heights = np.array([box[3] for box in boxes], float)
        return People(np.reshape(boxes, (-1, 4)), heights / 5000 + 0.3, np.full((len(boxes), 17, 2), np.nan))


@pytest.mark.parametrize(
    "size, height, many",
    [
        ((640, 480), 150, 3),
        ((1920, 1080), 300, 20),
        ((1080, 1920), 400, 12),
        ((3840, 2160), 242, 5),
        ((3840, 2160), 1500, 3),
        ((5000, 1000), 300, 9),
    ],
)
def test_all_people_are_found_once_however_small_and_many(size, height, many):
    picture, rng = np.zeros((*size[::-1], 3), np.uint8), np.random.default_rng(0)
    columns = size[0] // (height // 3 + 20)
    places = rng.permutation(columns * (size[1] // (height + 10)))[:many]
    boxes = []
    for k, (row, column) in enumerate(zip(places // columns, places % columns)):
        x, y = int(column) * (height // 3 + 20) + 5, int(row) * (height + 10) + 4
        picture[y : y + height, x : x + height // 3] = k + 1
        boxes.append([x, y, height // 3, height])
    assert len(boxes) == many
    assert sorted(SeesRectangles()(picture).boxes.tolist()) == sorted(boxes)


def test_values_that_do_not_do_are_refused():
    for bad in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="threshold: expected a score between 0 and 1"):
            MoveNetDetector(threshold=bad)
    for bad in (0, -5, float("nan")):
        with pytest.raises(ValueError, match="smallest: expected a height of at least 16 px"):
            MoveNetDetector(smallest=bad)
    with pytest.raises(ValueError, match="boxes: expected boxes, or a detector"):
        PeopleCropper(WITH_MIRROR, 96)(np.zeros((48, 64, 3), np.uint8))


DETECTS = """
import sys
sys.modules["ai_edge_litert"] = None  # as where the extra is not installed
import numpy as np
from acae_nb import PoseEstimator, load_skeleton
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints
picture = np.load("tests/models/movenet_reference.npz")["multipose_picture_0"]
model = PoseModel(tiny_backbone(), SeparateJoints(17))
poses = PoseEstimator(model, load_skeleton("coco_17"), 64, plausibility=None, device="cpu").estimate(picture)
print(len(poses), poses.scores.min() > 0.2)
"""


def test_an_estimator_finds_people_without_any_extra():
    run = subprocess.run([sys.executable, "-c", DETECTS], cwd=REPO, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    count, sure = run.stdout.split()
    assert int(count) >= 1 and sure == "True"


@pytest.fixture(scope="module")
def detector():
    return MoveNetDetector()


def test_the_same_picture_gives_the_same_people(detector):
    picture = np.load(REPO / "tests/models/movenet_reference.npz")["multipose_picture_0"]
    first, second = detector(picture), MoveNetDetector()(picture)
    for name in ("boxes", "scores", "keypoints", "up"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@pytest.fixture(scope="module")
def pictures():
    labelled = json.loads((REPO / "benchmarks/people_boxes.json").read_text("utf-8"))["pictures"][1::13]
    return [(next(read_video(VIDEOS / p["video"], [p["frame"]])), p["main"] + p["bystanders"]) for p in labelled]


@needs_videos
@pytest.mark.parametrize("turns", range(4))
def test_people_of_the_videos_are_found_whichever_way_up(detector, pictures, turns):
    for picture, boxes in pictures:
        people = turned_back(detector(np.rot90(picture, turns)), turns, picture.shape[1::-1])
        assert len(people) == len(boxes)
        assert all(max(overlap(np.array(box, float), seen) for seen in people.boxes) > 0.3 for box in boxes)
        upright = detector(picture)
        nearest = [min(people.boxes, key=lambda seen: np.abs(seen - box).max()) for box in upright.boxes]
        off = np.abs(np.array(nearest) - upright.boxes).max(1) / upright.boxes[:, 2:].max(1)
        assert off.max() < 0.03


@needs_videos
@pytest.mark.parametrize("number", range(3))
def test_a_small_person_in_a_large_picture_is_found(detector, number):
    labelled = json.loads((REPO / "benchmarks/people_boxes.json").read_text("utf-8"))["pictures"][number]
    picture = next(read_video(VIDEOS / labelled["video"], [labelled["frame"]]))
    box = np.array(labelled["main"][0])
    scale = 242 / box[3]
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    large = np.full((2160, 3840, 3), (118, 125, 130), np.uint8)
    large[1500 : 1500 + len(small), 2300 : 2300 + small.shape[1]] = small
    true = box * scale + [2300, 1500, 0, 0]
    assert max(overlap(true, seen) for seen in detector(large).boxes) > 0.5
