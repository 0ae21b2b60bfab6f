"""Who is who through a video: order, speed, gaps, crossings, noise of depth, and times that are uneven."""

from dataclasses import replace

import numpy as np
import pytest

from acae_nb.geometry.cameras import Camera
from acae_nb.inference.pose_results import Poses
from acae_nb.inference.tracks import (
    PERSON_MM,
    Tracker,
    follow,
    people_over_time,
    picture_distances,
    pose_distances,
    presence,
    space_distances,
    world_by_track,
)
from acae_nb.skeletons.joints import load_skeleton

SKELETON = load_skeleton("coco_17")
MIRROR = list(SKELETON.mirror)
BODY = np.random.default_rng(0).normal(0, [150, 400, 100], (17, 3))
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), position=np.array([0, 0, 500.0]))


def picture(frame, places, time_s=None):
    joints = np.array([BODY + place for place in places]).reshape(-1, 17, 3)
    n = len(joints)
    boxes, scores = np.tile([10.0, 20, 100, 200], (n, 1)), np.full(n, 0.8)
    return Poses(SKELETON, joints, boxes, scores, np.full((n, 17), 10.0), CAMERA, None, frame, time_s=time_s)


def numbers(video, rate=30.0, **options):
    return [poses.tracks.tolist() for poses in follow(video, rate, **options)]


def walked(ways, rate, turned=lambda t: False):
    "Pictures of people on their ways (functions of s -> mm), in turned order where told."
    return [picture(t, [way(t / rate) for way in ways][:: -1 if turned(t) else 1]) for t in range(40)]


def walker(start, velocity):
    return lambda seconds: np.array(start, float) + np.array(velocity, float) * seconds


@pytest.mark.parametrize("rate", [5, 10, 30, 60])
@pytest.mark.parametrize("speed", [0, 1500, 8000])
def test_the_order_of_people_does_not_matter(rate, speed):  # B11: a runner at 10 pictures/s got a track a picture
    ways = [walker([-3000, 0, 5000], [speed, 0, 0]), walker([0, 0, 9000], [0, 0, 300])]
    video = walked(ways, rate, turned=lambda t: t % 3 == 1)
    assert numbers(video, rate) == [[1, 0] if t % 3 == 1 else [0, 1] for t in range(40)]


def test_people_who_cross_keep_their_numbers():
    ways = [walker([-1500, 0, 4000], [1500, 0, 0]), walker([1500, 0, 4700], [-1500, 0, 0])]
    assert numbers(walked(ways, 20, turned=lambda t: t % 2 == 1), 20) == [[0, 1], [1, 0]] * 20


def test_a_distance_that_jumps_is_the_same_person():
    rng = np.random.default_rng(0)
    places = [[np.array([x, 0, 5000]) * (1 + rng.normal(0, 0.06)) for x in (-700, 700)] for _ in range(60)]
    assert numbers([picture(t, p) for t, p in enumerate(places)]) == [[0, 1]] * 60


def test_someone_who_was_away_for_a_moment_comes_back_and_later_is_new():
    here, nobody = [[0, 0, 4000]], []
    short = [here] * 5 + [nobody] * 10 + [here] * 3
    assert [n for n in numbers([picture(t, p) for t, p in enumerate(short)]) if n] == [[0]] * 8
    long = [here] * 5 + [nobody] * 60 + [here] * 3
    assert [n for n in numbers([picture(t, p) for t, p in enumerate(long)]) if n] == [[0]] * 5 + [[1]] * 3


def test_reach_grows_with_the_time_between_pictures():
    jump = [picture(0, [[0, 0, 4000]]), picture(1, [[2000, 0, 4000]])]
    assert numbers(jump, 30) == [[0], [1]] and numbers(jump, 3) == [[0], [0]]
    uneven = [picture(0, [[0, 0, 4000]], 0.0), picture(1, [[2000, 0, 4000]], 0.4), picture(2, [[2000, 0, 4000]], 0.5)]
    assert numbers(uneven) == [[0], [0], [0]]
    assert numbers(jump, 30, tracker=Tracker(still_mm=3000)) == [[0], [0]]


def test_a_front_taken_for_a_back_is_the_same_person():
    wide = BODY * [6, 1, 1]  # joints of the two sides far apart, so that their exchange is farther than anyone gets
    shown = [picture(t, [[0, 0, 4000], [2500, 0, 6000]]) for t in range(8)]
    turned = [wide if t % 3 else wide[MIRROR] for t in range(8)]
    video = [replace(p, joints3d=np.stack([pose + [0, 0, 4000], p.joints3d[1]])) for p, pose in zip(shown, turned)]
    moved = pose_distances(turned[0][None] + [0, 0, 4000], turned[1][None] + [0, 0, 4000], np.zeros(3))
    assert moved > Tracker().still_mm + Tracker().speed_mm_s / 30
    assert numbers(video) == [[0, 1]] * 8


def test_the_picture_holds_whom_the_distance_loses():
    "The person stays where they are in the picture, while the network's distance is half as much again for a moment."
    near = BODY + [0, 0, 4000]
    far = near * 1.58
    assert space_distances(near[None], far[None], np.zeros(3), MIRROR) > Tracker().still_mm + Tracker().speed_mm_s / 30
    video = [replace(picture(t, [[0, 0, 0]]), joints3d=np.stack([far if t == 4 else near])) for t in range(8)]
    assert numbers(video) == [[0]] * 8


def test_times_are_those_of_the_pictures():
    "The header's rate would put these people out of reach, and so would equal steps."
    stamps = [0.0, 0.01, 0.02, 0.5, 0.51]
    video = [picture(t, [[4000 * s, 0, 6000]], s) for t, s in enumerate(stamps)]
    assert numbers(video, 100) == [[0]] * 5
    assert [poses.time_s for poses in follow(video, 100)] == stamps
    without = [replace(poses, time_s=None) for poses in video]
    assert numbers(without, 100) == [[0], [0], [0], [1], [1]]
    assert [poses.time_s for poses in follow(without, 100)] == [0, 0.01, 0.02, 0.03, 0.04]


def test_gaps_are_told():
    here, nobody = [[0, 0, 4000]], []
    video = [picture(t, here if t in (1, 2, 5, 6, 8) else nobody, s) for t, s in enumerate(np.arange(10) ** 1.5 / 10)]
    table = presence(follow(video))
    expected = [5, 1 / 10, 8**1.5 / 10, 2, (5**1.5 - 2**1.5) / 10]
    np.testing.assert_allclose(table.loc[0].astype(float), expected)
    assert np.isnan(people_over_time(video)[0][:, 0, 0]).tolist() == [t not in (1, 2, 5, 6, 8) for t in range(10)]
    assert len(presence([])) == 0


def test_arrays_of_people():
    places = [[[30 * t, 0, 4000], [-900, 0, 5000 + 20 * t]][:: 1 if t % 2 else -1] for t in range(6)]
    video = [*(picture(t, p) for t, p in enumerate(places)), picture(6, [[180, 0, 4000]]), picture(7, [])]
    people = people_over_time(video)
    expected = np.array([[30 * t, 0, 4000] for t in range(7)])[:, None] + BODY
    np.testing.assert_allclose(people[0][:7], expected, atol=1e-9)
    assert np.isnan(people[0][7]).all() and np.isnan(people[1][6:]).all() and np.isfinite(people[1][:6]).all()
    np.testing.assert_allclose(people_over_time(video, frame="world")[0][0], CAMERA.to_world(people[0][0]))
    assert people_over_time([picture(0, [])]) == []
    given = [replace(poses, tracks=np.arange(len(poses))) for poses in video]
    np.testing.assert_allclose(people_over_time(given)[0][0], video[0].joints3d[0])


def test_who_lacks_a_joint_is_there():
    "A joint that is not known, as --max-error leaves it out, is no absence: not of the first joint either."
    long, short = walker((-800.0, 0.0, 4000.0), 0.0), walker((800.0, 0.0, 4000.0), 0.0)
    video = [picture(t, [long(t), short(t)] if t < 3 else [long(t)], time_s=t / 10) for t in range(10)]
    video = list(follow(video))

    def without(poses, joints):
        known = poses.joints3d.copy()
        known[:, joints] = np.nan
        return replace(poses, joints3d=known)

    nowhere = [without(poses, slice(None)) for poses in video]
    video[1:] = [without(poses, 0) for poses in video[1:]]
    assert sorted(presence(video).pictures) == [3, 10]
    people = people_over_time(video)
    assert [int(np.isfinite(joints[:, 1, 0]).sum()) for joints in people] == [10, 3]
    assert len(presence(nowhere)) == 0


def test_people_of_poses_keep_their_numbers():
    poses = replace(picture(0, [[0, 0, 4000], [900, 0, 4000]]), tracks=np.array([4, 7]))
    assert poses[1].tracks.tolist() == [7] and poses.of("coco_17").tracks.tolist() == [4, 7]
    assert poses.to_pandas().loc[(0, 1), "track"].unique().tolist() == [7]
    with pytest.raises(ValueError, match="tracks: expected shape"):
        replace(poses, tracks=np.array([1]))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_distances_against_the_slow_way(weight):
    a, b = np.random.default_rng(1).normal(0, 800, (2, 3, 17, 3)) + [0, 0, 4000]
    slow = np.zeros((3, 3))
    for i in range(3):
        for k in range(3):
            sight = b[k].mean(0) / np.linalg.norm(b[k].mean(0))
            for x, y in zip(a[i], b[k]):
                along = (y - x) @ sight
                slow[i, k] += np.sqrt(np.linalg.norm(y - x - along * sight) ** 2 + (weight * along) ** 2) / 17
    np.testing.assert_allclose(pose_distances(a, b, np.zeros(3), weight), slow)


def test_sides_as_they_are_or_exchanged():
    a, b = np.random.default_rng(2).normal(0, 800, (2, 3, 17, 3)) + [0, 0, 4000]
    either = [pose_distances(x, b, np.zeros(3)) for x in (a, a[:, MIRROR])]
    np.testing.assert_allclose(space_distances(a, b, np.zeros(3), SKELETON.mirror), np.minimum(*either))
    b[1] = a[2][MIRROR]
    assert space_distances(a, b, np.zeros(3), SKELETON.mirror)[2, 1] == 0


def test_picture_distances_against_the_slow_way():
    a, b = np.random.default_rng(3).uniform(0, 500, (2, 3, 17, 2))
    a[0, 3] = np.nan
    slow = np.zeros((3, 3))
    for i in range(3):
        for k in range(3):
            boxes = [[min(p[~np.isnan(p[:, 0])][:, c]) for c in (0, 1)] for p in (a[i], b[k])]
            boxes += [[max(p[~np.isnan(p[:, 0])][:, c]) for c in (0, 1)] for p in (a[i], b[k])]
            low_a, low_b, high_a, high_b = np.array(boxes)
            apart = (np.linalg.norm(low_a - low_b) + np.linalg.norm(high_a - high_b)) / 2
            slow[i, k] = apart / np.linalg.norm(high_b - low_b) * PERSON_MM
    np.testing.assert_allclose(picture_distances(a, b), slow)
    a[1] = np.nan
    assert np.isnan(picture_distances(a, b)).tolist() == [[False] * 3, [True] * 3, [False] * 3]


def test_people_whom_the_picture_does_not_show_are_followed_in_space():
    behind = [[[0, 0, -4000 + 10 * t]] for t in range(4)]
    assert numbers([picture(t, place) for t, place in enumerate(behind)]) == [[0]] * 4


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: list(follow([picture(0, [])], 0)), "rate: expected"),
        (lambda: list(follow([picture(0, [], 1.0), picture(1, [], 0.5)])), "found 0.5 after 1.0"),
        (lambda: people_over_time([picture(0, [])], frame="room"), "frame: expected 'camera' or 'world'"),
        (lambda: world_by_track([picture(7, [])]), "picture 7: tracks: expected"),
        (lambda: presence([replace(picture(0, []), tracks=np.zeros(0, int))]), "time_s: expected"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
