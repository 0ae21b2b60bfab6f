"""benchmarks/peers.py: its geometry and its counting, and the hand-checked boxes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("peers_benchmark", REPO / "benchmarks/peers.py")
spec.loader.exec_module(peers := importlib.util.module_from_spec(spec))


def random_limbs(n=4, seed=0):
    return peers.hips_centred(np.random.default_rng(seed).normal(0, 300, (n, 12, 3)))


def test_the_view_looks_at_the_person():
    for direction in ([0, 0, 1], [0.5, -0.2, 1], [-2, 1, 0.1]):
        R = peers.view_rotation(np.array(direction, float))
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        np.testing.assert_allclose(R @ direction, [0, 0, np.linalg.norm(direction)], atol=1e-12)


def test_a_crops_roll_is_taken_back():
    "The crop's upward direction (-y) points up in the picture where the crop is upright, and along `points` otherwise."
    world = np.array([[0.0, -1, 5], [1, 0, 5]])
    upright = peers.turned_back(world, np.array([[10.0, 10], [10, 0]]))
    np.testing.assert_allclose(upright, world, atol=1e-12)
    lying = peers.turned_back(world, np.array([[10.0, 10], [20, 10]]))  # the body's up is the picture's right
    np.testing.assert_allclose(lying, [[1, 0, 5], [0, 1, 5]], atol=1e-12)


def test_errors_of_known_changes():
    true = random_limbs()
    scaled = peers.errors(1.5 * true, true)
    assert scaled.MPJPE.min() > 100 and scaled.bones.min() > 0
    np.testing.assert_allclose(scaled[["scaled", "PA"]], 0, atol=1e-6)
    turned = peers.errors(true @ peers.view_rotation(np.array([1.0, 0, 1])), true)
    assert turned.scaled.min() > 50
    np.testing.assert_allclose(turned[["PA", "bones"]], 0, atol=1e-6)


def test_bones_join_limbs_of_one_side():
    names = {(peers.LIMBS[a], peers.LIMBS[b]) for a, b in peers.BONES}
    chains = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]
    assert names == {(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in chains}


def test_ratio_has_an_interval_over_groups():
    ours, theirs = np.array([1.0, 1, 2, 2]), np.array([2.0, 2, 2, 2])
    result = peers.ratio_interval(ours, theirs, np.array(["a", "a", "b", "b"]))
    assert result == pytest.approx({"ratio": 0.75, "low": 0.5, "high": 1.0})


MAIN, BY = [[100, 100, 100, 300], [180, 100, 100, 300]], [[500, 100, 50, 150]]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], (0, 0, 0)),
        ([*MAIN, *BY], (2, 1, 0)),
        ([MAIN[0], MAIN[0]], (1, 0, 1)),  # twice the same person
        ([[140, 100, 100, 300]] * 2, (2, 0, 0)),  # between two people: each may be one
        ([[100, 100, 100, 60]], (0, 0, 1)),  # a head
        ([[700, 700, 50, 50], BY[0]], (0, 1, 1)),
    ],
)
def test_each_box_finds_one_person_and_each_person_is_found_once(boxes, expected):
    assert peers.count_found(boxes, MAIN, BY) == expected


def test_hand_checked_boxes_lie_in_their_pictures():
    pictures = peers.json.loads(peers.BOXES.read_text())["pictures"]
    assert len({(picture["video"], picture["frame"]) for picture in pictures}) == 40
    assert sum(len(picture["main"]) for picture in pictures) == 80
    assert sum(len(picture["bystanders"]) for picture in pictures) == 20
    for picture in pictures:
        for left, top, width, height in [*picture["main"], *picture["bystanders"]]:
            assert 0 <= left and left + width <= 1092 and 0 <= top and top + height <= 1920 and min(width, height) > 50
