"""AIST++: a tiny set of dances in the owners' layout, written here, read back, and damaged."""

import json
import pickle
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_video

from acae_nb.datasets import aist
from acae_nb.datasets.native_files import NativeError

SIZE, LENS = (96, 64), [-0.09, 0.03, 0.001, 0.0, 0.0]
SEQUENCES = {
    "gBR_sBM_cAll_d04_mBR0_ch01": ("train", 60),
    "gPO_sFM_cAll_d11_mPO2_ch10": ("train", 30),
    "gWA_sBM_cAll_d26_mWA2_ch05": ("test", 60),
    "gLO_sBM_cAll_d13_mLO1_ch02": ("val", 60),
}
IGNORED, N = "gLO_sBM_cAll_d13_mLO1_ch02", 4


def write(root):
    """Loader of aistplusplus_api: cm; rotation vector and translation world -> camera; mapping.txt 'sequence setting';
    pickled dict of arrays."""
    notes, truth = root / "annotations", {}
    for part in ("keypoints3d", "cameras", "splits"):
        (notes / part).mkdir(parents=True)
    mapping = ""
    for s, (sequence, (split, rate)) in enumerate(SEQUENCES.items()):
        setting = f"setting{1 + s % 2}"
        mapping += f"{sequence} {setting}\n"
        places, turns = ring(2, 420.0, 150.0, target=(0, 90, 0), up=(0, 1, 0), turn=1 + s % 2)
        K = np.array([[75.0 + s % 2, 0, 47], [0, 75, 31], [0, 0, 1]])
        cameras = [
            dict(
                name=f"c{c + 1:02d}",
                size=list(SIZE),
                matrix=K.tolist(),
                rotation=cv2.Rodrigues(turn)[0].ravel().tolist(),
                translation=(-turn @ place).tolist(),
                distortions=LENS,
            )
            for c, (place, turn) in enumerate(zip(places, turns))
        ]
        (notes / f"cameras/{setting}.json").write_text(json.dumps(cameras), encoding="utf-8")
        cm = people(s, N, n_joints=17, up=1) / 10
        if s == 0:
            cm[2, 9] = np.nan  # a wrist not found: no middle depends on it
        with open(notes / f"keypoints3d/{sequence}.pkl", "wb") as file:
            pickle.dump({"keypoints3d": cm + 1, "keypoints3d_optim": cm}, file, 2)
        for c in range(2):
            write_video(
                root / f"videos/{sequence.replace('cAll', f'c{c + 1:02d}')}.mp4",
                [picture(f + c, SIZE) for f in range(N * rate // 60)],
                rate,
            )
            for f in range(N if sequence != IGNORED else 0):
                joints = np.vstack([cm[f], (cm[f, 5] + cm[f, 6]) / 2, (cm[f, 11] + cm[f, 12]) / 2]) * 10
                truth[f"{sequence}/c{c + 1:02d}/{f:06d}"] = (
                    split,
                    joints,
                    opencv_project(joints, K, LENS, turns[c], places[c] * 10),
                    f * rate // 60 + c,
                )
    (notes / "cameras/mapping.txt").write_text(mapping, encoding="utf-8")
    (notes / "ignore_list.txt").write_text(IGNORED + "\n", encoding="utf-8")
    for split in ("train", "val", "test"):
        (notes / f"splits/pose_{split}.txt").write_text(
            "".join(f"{n}\n" for n, (s, _) in SEQUENCES.items() if s == split), encoding="utf-8"
        )
    return truth


@pytest.mark.parametrize("split, count", [("train", 16), ("test", 8), ("val", 0)])
def test_reads_what_was_written(tmp_path, split, count):
    truth, rows = write(tmp_path), list(aist.read(tmp_path, split))
    assert [e.example_id for e, _ in rows] == sorted(i for i, t in truth.items() if t[0] == split) and len(
        rows
    ) == count
    for e, image in rows:
        _, joints, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, e.subject) == (
            "aist",
            split,
            SIZE,
            e.sequence.split("_")[3],
        ) and shows(image.load(), number)
        inside = px[((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)]
        assert (inside >= e.box[:2]).all() and (inside <= e.box[:2] + e.box[2:]).all()


def test_videos_not_fetched_or_too_short(tmp_path):
    write(tmp_path)
    video = tmp_path / "videos/gBR_sBM_c02_d04_mBR0_ch01.mp4"
    video.unlink()
    assert len(list(aist.read(tmp_path))) == 12 and len(list(aist.read(tmp_path, cameras=["c02"]))) == 4
    poses = tmp_path / "annotations/keypoints3d/gBR_sBM_cAll_d04_mBR0_ch01.pkl"
    with open(poses, "wb") as file:
        pickle.dump({"keypoints3d_optim": people(0, 60, n_joints=17, up=1) / 10}, file, 2)
    with pytest.raises(NativeError, match="mBR0_ch01.mp4: frames"):
        list(aist.read(tmp_path))


@pytest.mark.parametrize("rate", [Fraction(60), Fraction(60000, 1001), Fraction(30)])
def test_frames_of_poses_are_those_of_ffmpeg(rate):
    "The owners resample by ffmpeg's filter `fps=60:round=down`: numbered frames go through that filter."
    graph, kept = av.filter.Graph(), []
    source, resample, sink = (
        graph.add_buffer(width=16, height=16, format="gray", time_base=1 / rate),
        graph.add("fps", "fps=60:round=down"),
        graph.add("buffersink"),
    )
    source.link_to(resample)
    resample.link_to(sink)
    graph.configure()
    for k in [*range(1200), None]:
        frame = (
            None
            if k is None
            else av.VideoFrame.from_ndarray(np.full((16, 16), [k // 256, k % 256] * 8, np.uint8), format="gray")
        )
        if frame is not None:
            frame.pts, frame.time_base = k, 1 / rate
        graph.push(frame)
        while True:
            try:
                kept.append(int(graph.pull().to_ndarray()[0, :2] @ [256, 1]))
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    assert len(kept) > 1100 and aist.frame_of_pose(len(kept), float(rate)).tolist() == kept


def test_views_that_the_owners_leave_out(tmp_path):
    write(tmp_path)
    video = tmp_path / "videos/gBR_sBM_c01_d04_mBR0_ch01.mp4"
    video.with_name("gBR_sBM_c05_d04_mBR0_ch01.mp4").write_bytes(
        video.read_bytes()
    )  # run_estimate_keypoints.py: "not synced view"
    assert {e.camera_name for e, _ in aist.read(tmp_path)} == {"c01", "c02"}


def test_refusals(tmp_path):
    with pytest.raises(NativeError, match="AIST.*aistplusplus"):
        list(aist.read(tmp_path / "none"))
    write(tmp_path)
    (tmp_path / "annotations/cameras/mapping.txt").write_text("gBR_sBM_cAll_d04_mBR0_ch01\n", encoding="utf-8")
    with pytest.raises(NativeError, match="mapping.txt: line 1: expected 2 words"):
        list(aist.read(tmp_path))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: aist.read(root), tmp_path, n=200 if nightly else 10)
