"""benchmarks/sample_videos.py, smoothing.py, identities.py and children.py: people whose truth is made up."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from acae_nb.geometry.cameras import Camera
from acae_nb.inference.pose_results import Poses
from acae_nb.people.body import random_phenotypes
from acae_nb.skeletons.joints import load_skeleton

REPO = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO / "benchmarks"))  # scripts, beside each other
names = ("sample_videos", "smoothing", "identities", "children")
sample_videos, smoothing, identities, children = map(importlib.import_module, names)

SKELETON = load_skeleton("cmu_panoptic_19")


def looking_at_the_middle(turn):
    "A camera 4 m away at an angle, world y down."
    c, s = np.cos(turn), np.sin(turn)
    rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return Camera(
        np.array([[900.0, 0, 544], [0, 900, 960], [0, 0, 1]]), rotation=rotation, position=rotation.T @ [0, 0, -4000.0]
    )


def person(at, seed=0):
    return np.random.default_rng(seed).normal(0, [150, 400, 100], (len(SKELETON), 3)) + at


def video_of(camera, worlds, tracks=None):
    "Poses of pictures; worlds: of each the people's joints in the world."
    results = []
    for t, people in enumerate(worlds):
        n = len(people)
        joints = camera.to_camera(np.array(people).reshape(-1, len(SKELETON), 3))
        px = camera.project(np.array(people).reshape(-1, len(SKELETON), 3))
        boxes = np.concatenate([px.min(1), np.ptp(px, axis=1)], -1)
        unknown = np.full((n, len(SKELETON)), np.nan)
        numbers = None if tracks is None else np.array(tracks[t])
        results.append(Poses(SKELETON, joints, boxes, np.ones(n), unknown, camera, None, t, numbers, t / 60))
    return results


def test_poses_are_kept_as_they_are(tmp_path):
    counts, joints = [2, 0, 1], np.random.default_rng(0).normal(0, 300, (3, 19, 3)) + [0, 0, 4000]
    found = {
        "joints": joints,
        "boxes": np.arange(12.0).reshape(3, 4),
        "picture": np.repeat(np.arange(3), counts),
        "times": np.array([0, 0.02, 0.03]),
        "size": np.array([1088, 1920]),
    }
    np.savez(tmp_path / "poses.npz", **{f"multi/cam02/{key}": array for key, array in found.items()})
    if not (REPO / "data/pose2sim/Calib.qca.txt").is_file():
        pytest.skip("the sample data were not fetched")
    videos = sample_videos.load_poses(tmp_path / "poses.npz", REPO / "data")
    assert list(videos) == ["multi/cam02"] and [len(poses) for poses in videos["multi/cam02"]] == counts
    assert [poses.time_s for poses in videos["multi/cam02"]] == [0, 0.02, 0.03]
    np.testing.assert_array_equal(np.concatenate([poses.joints3d for poses in videos["multi/cam02"]]), joints)
    np.testing.assert_array_equal(videos["multi/cam02"][2].boxes, [[8, 9, 10, 11]])


def test_the_commands_name_what_was_made():
    made = sample_videos.commands_of(["multi/cam01", "multi/cam03", "single/cam02"])
    start = "python benchmarks/sample_videos.py artifacts/sample_videos.npz"
    expected = [f"{start} --videos multi --cameras cam01 cam03", f"{start} --videos single --cameras cam02"]
    assert made == expected


def test_boxes_between_those_that_were_checked():
    boxes = identities.true_boxes("cam01", 100)
    assert boxes.shape == (100, 2, 4)
    np.testing.assert_allclose(boxes[5], [[253, 327, 330, 849], [480, 788, 486, 954]])
    np.testing.assert_allclose(boxes[10, 0], np.mean([[253, 327, 330, 849], [291, 352, 319, 824]], 0))
    np.testing.assert_allclose(boxes[0], boxes[5])
    np.testing.assert_allclose(boxes[99], boxes[95])


def test_each_person_gets_the_pose_that_overlaps_most_and_no_two_the_same():
    true = np.array([[0, 0, 100, 200], [60, 0, 100, 200.0]])
    assert identities.chosen_poses(true[::-1], true).tolist() == [1, 0]
    assert identities.chosen_poses(true[:1], true).tolist() == [0, -1]
    assert identities.chosen_poses(np.array([[500.0, 0, 100, 200]]), true).tolist() == [-1, -1]
    assert identities.chosen_poses(np.zeros((0, 4)), true).tolist() == [-1, -1]


def test_identities_are_counted():
    numbers = np.array([3, 3, -1, 3, 5, 5, 3, 3])
    tracks = [[3], [3, 5], [3, 5], [3], [3, 5], [5], [3], [3]]  # in the third and the fifth, 3 is somebody else's
    expected = {"pictures": 8, "identity": 5, "unseen": 1, "switches": 2, "numbers": 2, "strangers": 2}
    assert identities.counts_of(numbers, tracks) == expected
    nobody = identities.counts_of(np.full(4, -1), [[], [7], [], []])
    assert nobody == {"pictures": 4, "identity": 0, "unseen": 4, "switches": 0, "numbers": 0, "strangers": 0}


def test_numbers_are_those_of_the_poses_in_the_true_boxes():
    camera = looking_at_the_middle(0.0)
    one, two = person([-800, 0, 0]), person([800, 0, 0], 1)
    video = video_of(camera, [[one, two], [two, one], [two]], [[4, 9], [9, 4], [9]])
    true = np.stack([video[0].boxes] * 3)
    assert identities.numbers_of_people(video, true).tolist() == [[4, 4, -1], [9, 9, 9]]


def test_the_views_tell_who_is_exchanged():
    cameras = [looking_at_the_middle(turn) for turn in (0.0, 1.2, 2.5, 4.0)]
    people = [person([-600, 0, 300]), person([700, 0, -200], 1)]
    px = np.array([[identities.trunks_of(video_of(c, [people] * 5, [[1, 2]] * 5), k) for k in (1, 2)] for c in cameras])
    own, exchanged = identities.across_views(px, cameras)
    assert own.max() < 5 < 30 < exchanged.min()  # the middle of four points in a picture is not that of the points
    px[2, :, 3] = px[2, ::-1, 3]
    own, exchanged = identities.across_views(px, cameras)
    assert (own[2, :, 3] > exchanged[2, :, 3]).all() and (own[:, :, 4] < exchanged[:, :, 4]).all()


def test_errors_from_a_reference_that_moves_along():
    "Poses beside the reference by a constant have no error of acceleration; by a t^2 / 2 one of a."
    count, rate = 41, 60.0
    times = np.arange(count) / rate
    rest = np.random.default_rng(2).normal(0, 300, (1, len(SKELETON), 3)).repeat(count, 0)
    limbs = smoothing.hips_centred(smoothing.limbs_of(rest))
    known = {("cam01", t): limbs[t] for t in range(0, count, 4)}
    known["cam01", 99] = limbs[0]  # after the video's end
    wrist = SKELETON.index("left_wrist")
    moved = rest.copy()
    moved[:, wrist, 0] += 30
    found = smoothing.errors(moved, times, "cam01", known)
    assert found["MPJPE"] == pytest.approx(30 / 12) and found["acceleration"] == pytest.approx(0, abs=1e-9)
    moved[:, wrist, 0] += 1000 * 6.0 * times**2 / 2
    assert smoothing.errors(moved, times, "cam01", known)["acceleration"] == pytest.approx(6 / 12)


def test_a_pose_brought_nearer_is_told_as_size_and_depth():
    "All of a pose 1.2 times as far and as large looks the same: only its size and place are wrong."
    skeleton = load_skeleton("smpl_24")
    true = np.random.default_rng(3).normal(0, 300, (5, len(skeleton), 3)) + [300, 0, 4000]
    rows = children.measures(1.2 * true, true)
    pelvis = true[:, skeleton.index("pelvis")]
    np.testing.assert_allclose(rows["size"], 1.2)
    np.testing.assert_allclose(rows["depth %"], 20)
    np.testing.assert_allclose(rows["place"], 0.2 * np.linalg.norm(pelvis, axis=-1))
    np.testing.assert_allclose(rows[["known size", "PA-MPJPE"]], 0, atol=1e-6)
    np.testing.assert_allclose(rows["MPJPE"], 0.2 * np.linalg.norm(true - pelvis[:, None], axis=-1).mean(-1))
    assert (children.measures(0.9 * true, true)["depth off %"] > 9.9).all()


def test_groups_differ_in_what_makes_them_alone():
    class NamesOnly:
        phenotypes = ("gender", "age", "muscle", "weight", "height", *"pcfaxy")

    random = random_phenotypes(children.SUBJECTS, np.random.default_rng([children.SEED, 1]))
    for group, spans in children.GROUPS.items():
        bodies = children.bodies_of(group, NamesOnly)
        for k, name in enumerate(NamesOnly.phenotypes):
            low, high = spans.get(name, (0, 1))
            assert (bodies[:, k] >= low).all() and (bodies[:, k] <= high).all()
            assert (name in spans) != np.array_equal(bodies[:, k], random[:, k])
