import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.datasets.native import ImageFile, VideoFrame
from acae_nb.datasets.selection import (
    bone_lengths,
    detected,
    mean_bones,
    moving,
    novel,
    overlap,
    picture_name,
    plausible,
    read_detections,
)
from acae_nb.examples.rows import Example
from acae_nb.geometry.cameras import Camera
from acae_nb.skeletons.joints import Skeleton, load_skeleton

CAMERA = Camera([[60, 0, 32], [0, 60, 24], [0, 0, 1]], None, np.eye(3), [0, 0, -3000])


def example(frame, joints, subject="s", sequence="q", camera="c", box=(0, 0, 64, 48), **other):
    return Example(
        f"{sequence}/{camera}/{frame}/{subject}",
        "toy",
        "train",
        subject,
        sequence,
        frame,
        CAMERA,
        np.array(box, float),
        (64, 48),
        None if joints is None else np.asarray(joints, float),
        camera_name=camera,
        **other,
    )


def walk(seed, n=60, joints=5, tracks=1, missing=0.0):
    "Random walks of several people and cameras, interleaved frame by frame."
    rng = np.random.default_rng(seed)
    paths = rng.normal(0, 45, (tracks, n, joints, 3)).cumsum(1)
    paths[rng.random(paths.shape[:3]) < missing] = np.nan
    return [example(t, paths[k, t], subject=f"s{k % 2}", camera=f"c{k // 2}") for t in range(n) for k in range(tracks)]


def rows(examples):
    return [(e, None) for e in examples]


def frames(kept):
    return [e.example_id for e, _ in kept]


def moved_by(a, b):
    "Joint by joint, with loops."
    out = []
    for p, q in zip(a, b):
        d = sum((float(x) - float(y)) ** 2 for x, y in zip(p, q)) ** 0.5
        out.append(0.0 if d != d else d)
    return out


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([1, 2, 3]), st.sampled_from([60.0, 100.0, 250.0]), st.sampled_from([0, 0.2])
)
def test_moving_against_a_slow_loop(seed, joints, mm, missing):
    examples = walk(seed, tracks=4, missing=missing)
    kept = []
    for e in examples:
        before = [k for k in kept if (k.subject, k.sequence, k.camera_name) == (e.subject, e.sequence, e.camera_name)]
        if not before or sum(d >= mm for d in moved_by(e.joints3d, before[-1].joints3d)) >= joints:
            kept.append(e)
    assert frames(moving(rows(examples), mm, joints)) == [e.example_id for e in kept]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 100]), st.sampled_from([60.0, 100.0, 250.0]))
def test_novel_against_a_slow_loop(seed, memory, mm):
    examples = walk(seed, tracks=3)
    kept = []
    for e in examples:
        before = [k for k in kept if (k.subject, k.sequence, k.camera_name) == (e.subject, e.sequence, e.camera_name)][
            -memory:
        ]
        if all(max(moved_by(e.joints3d, k.joints3d)) >= mm for k in before):
            kept.append(e)
    assert frames(novel(rows(examples), mm, memory)) == [e.example_id for e in kept]


def test_the_memory_of_one_compares_like_moving():
    examples = walk(5, tracks=2)
    assert frames(novel(rows(examples), memory=1)) == frames(moving(rows(examples)))


def test_generators_hold_no_more_than_they_need():
    def endless():
        k = 0
        while True:
            yield example(k, [[60.0 * k, 0, 0]]), None
            k += 1

    kept = moving(endless())
    assert [next(kept)[0].frame for _ in range(4)] == [0, 2, 4, 6]


def test_single_pictures_are_all_kept():
    examples = [example(0, np.zeros((4, 3)), sequence=f"q{k}") for k in range(20)]
    assert len(frames(moving(rows(examples)))) == len(frames(novel(rows(examples)))) == 20


def test_labels_in_2d_cannot_be_sampled_by_motion():
    for sample in (moving, novel):
        with pytest.raises(ValueError, match="q/c/0/s: joints3d"):
            list(sample(rows([example(0, None, joints2d=np.zeros((4, 2)))])))


def test_overlap_against_counting_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (np.r_[rng.integers(0, 20, 2), rng.integers(1, 20, 2)] for _ in range(2))
        grids = [np.zeros((60, 60), bool) for _ in range(2)]
        for grid, (left, top, width, height) in zip(grids, (a, b)):
            grid[top : top + height, left : left + width] = True
        assert overlap(a, b) == pytest.approx((grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum())


def test_detections_replace_boxes(tmp_path):
    (tmp_path / "detections.csv").write_text(
        "picture,left,top,width,height,score\na/1.jpg,10,10,20,20,.9\na/1.jpg,40,10,20,30,.3\nv.mp4#3,0,0,5,5,.5\n",
        encoding="utf-8",
    )
    found = read_detections(tmp_path / "detections.csv")
    assert found["a/1.jpg"].tolist() == [[10, 10, 20, 20], [40, 10, 20, 30]]
    people = [
        (example(0, np.zeros((4, 3)), box=(38, 12, 20, 28)), ImageFile(tmp_path / "a/1.jpg")),
        (example(1, np.zeros((4, 3)), box=(12, 8, 20, 20)), ImageFile(tmp_path / "a/1.jpg")),
        (example(2, np.zeros((4, 3)), box=(40, 40, 8, 8)), VideoFrame(tmp_path / "v.mp4", 3)),
        (example(3, np.zeros((4, 3))), ImageFile(tmp_path / "b.jpg")),
    ]
    kept = list(detected(people, found, tmp_path, 0.3))
    assert [(e.frame, e.box.tolist()) for e, _ in kept] == [(0, [40, 10, 20, 30]), (1, [10, 10, 20, 20])]
    assert picture_name(tmp_path, people[2][1]) == "v.mp4#3" and (people[0][0].box == [38, 12, 20, 28]).all()
    for text, word in (
        ("picture,left,top,width\na,1,2,3\n", "height"),
        ("picture,left,top,width,height\na,1,x,3,4\n", "top"),
        ("picture,left,top,width,height\na,1,,3,4\n", "top"),
    ):
        (tmp_path / "bad.csv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=f"bad.csv.*{word}"):
            read_detections(tmp_path / "bad.csv")


def test_bones_against_loops():
    skeleton, rng = load_skeleton("h36m_17"), np.random.default_rng(0)
    poses = rng.normal(0, 300, (30, 17, 3))
    poses[rng.random((30, 17)) < 0.3] = np.nan
    poses[:, 5] = np.nan
    means, number = mean_bones(rows([example(k, p) for k, p in enumerate(poses)]), skeleton)
    assert number == 30
    for mean, (a, b) in zip(means, skeleton.edges):
        lengths = [np.linalg.norm(p[a] - p[b]) for p in poses]
        lengths = [v for v in lengths if v == v]
        assert (np.isnan(mean) and not lengths) or mean == pytest.approx(np.mean(lengths))


def test_plausible_against_loops():
    skeleton, rng = (
        Skeleton("chain", tuple("abcdef"), tuple((k, k + 1) for k in range(5)), tuple(range(6))),
        np.random.default_rng(0),
    )
    people = []
    for k in range(300):
        steps = rng.normal(0, 1, (6, 3))
        steps *= (rng.choice([5, 300, 300, 300, 1100], (6, 1), p=[0.02, 0.4, 0.3, 0.26, 0.02])) / np.linalg.norm(
            steps, axis=1, keepdims=True
        )
        pose = steps.cumsum(0)
        pose[rng.random(6) < 0.1] = np.nan
        people.append(example(k, pose, box=rng.uniform(0, 20, 4) + [0, 0, 20, 20]))
    means, _ = mean_bones(rows(people), skeleton)
    want = []
    for e in people:
        bad = False
        for (a, b), mean in zip(skeleton.edges, means):
            length = float(np.linalg.norm(e.joints3d[a] - e.joints3d[b]))
            if (length < 0.1 * mean or length > 3 * mean) and abs(length - mean) > 150:
                bad = True
        px, (left, top, width, height) = e.camera.project(e.joints3d), e.box
        inside = sum(1 for x, y in px if left <= x <= left + width and top <= y <= top + height)
        if not bad and inside >= 4:
            want.append(e.example_id)
    assert frames(plausible(rows(people), skeleton, means)) == want and 20 < len(want) < 280
    assert bone_lengths(np.zeros((2, 6, 3)), skeleton).shape == (2, 5)


def test_2d_rows_are_judged_by_their_box():
    inside = np.c_[np.linspace(5, 30, 17), np.linspace(5, 30, 17)]
    people = [
        example(0, None, joints2d=inside),
        example(1, None, joints2d=inside + 100),
        example(2, None, joints2d=np.where(np.arange(17)[:, None] < 3, inside, np.nan)),
    ]
    skeleton = load_skeleton("coco_17")
    means, number = mean_bones(rows(people), skeleton)
    assert np.isnan(means).all() and [e.frame for e, _ in plausible(rows(people), skeleton, means)] == [0]
