"""Poses into files and overlays: times of videos and folders, places that cannot be written, what breaks on the way."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from toy_models import restless_model

from acae_nb.inference import predictions
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.pictures import VideoPictures
from acae_nb.inference.predictions import (
    Outcome,
    OverlayFolder,
    OverlayVideo,
    overlay_to,
    source_of,
    stopping_gently,
    write_predictions,
)
from acae_nb.models.pose_model import SeparateJoints
from acae_nb.skeletons.joints import load_skeleton, union

REPO = Path(__file__).resolve().parents[2]
BOX = [10, 5, 30, 40]


@pytest.fixture(scope="module")
def estimator():
    torch.manual_seed(0)
    both = union([load_skeleton("coco_17"), load_skeleton("h36m_17")])
    model = restless_model(SeparateJoints(34))
    return PoseEstimator(model, both, 64)


def folder_of(path, sizes):
    path.mkdir()
    for k, (width, height) in enumerate(sizes):
        cv2.imwrite(str(path / f"{k}.png"), np.full((height, width, 3), 90, np.uint8))
    return path


def write_video(path, times, **options):
    "A video with a picture at each time."
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=60)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 600)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(time * 600), Fraction(1, 600)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def times_of(path):
    "Read by PyAV's own loop."
    with av.open(str(path)) as video:
        return np.array([float(frame.time) for frame in video.decode(video=0)])


# --- times -----------------------------------------------------------------------------------------------------------
UNEVEN = [0, 1 / 60, 2 / 60, 3 / 60, 0.5, 0.6, 0.7]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_poses_and_overlay_have_the_times_of_the_video(tmp_path, estimator, ending):
    source = source_of(write_video(tmp_path / f"v.{ending}", UNEVEN), BOX)
    seen = overlay_to(tmp_path / f"seen.{ending}", source.rate)
    assert write_predictions(source, estimator, tmp_path / "p.csv", "coco_17", seen) == Outcome(7, 7)
    table = pd.read_csv(tmp_path / "p.csv", comment="#").groupby("frame").first()
    np.testing.assert_allclose(table.time_s, UNEVEN, atol=1 / 500)
    np.testing.assert_allclose(times_of(tmp_path / f"seen.{ending}"), UNEVEN, atol=1 / 400)
    assert table.track.eq(0).all()


@pytest.mark.parametrize("header", [None, 1000.0])
def test_a_header_without_a_rate_stops_nothing(tmp_path, estimator, monkeypatch, header):
    monkeypatch.setattr(predictions, "frame_rate", lambda path: header)
    times = [k / 30 for k in range(6)]
    source = source_of(write_video(tmp_path / "live.webm", times, live="1"), BOX)
    outcome = write_predictions(
        source, estimator, tmp_path / "p.trc", overlay=overlay_to(tmp_path / "s.mp4", source.rate)
    )
    rate = float((tmp_path / "p.trc").read_text().split("\n")[2].split("\t")[0])
    assert outcome.pictures == 6 and not outcome.lost and rate == pytest.approx(30, rel=0.05)
    np.testing.assert_allclose(times_of(tmp_path / "s.mp4"), times, atol=1 / 400)


def test_a_rate_that_is_given_stands_in_the_place_of_time_stamps(tmp_path, estimator):
    slow = source_of(write_video(tmp_path / "v.mp4", UNEVEN), BOX, rate=240)
    write_predictions(slow, estimator, tmp_path / "p.parquet")
    times = pd.read_parquet(tmp_path / "p.parquet").groupby("frame").time_s.first()
    np.testing.assert_allclose(times, np.arange(7) / 240)
    folder = folder_of(tmp_path / "in", [(64, 48)] * 3)
    (folder / "1.png").write_bytes(b"")
    outcome = write_predictions(source_of(folder, BOX, rate=50), estimator, tmp_path / "f.csv")
    table = pd.read_csv(tmp_path / "f.csv", comment="#").groupby("picture").first()
    assert len(outcome.lost) == 1 and dict(table.time_s) == {"0.png": 0, "2.png": 0.04} and table.track.eq(0).all()
    write_predictions(source_of(folder, BOX), estimator, tmp_path / "g.csv")
    assert not {"time_s", "track"} & {*pd.read_csv(tmp_path / "g.csv", comment="#")}


def test_times_of_joined_recordings_run_forward(tmp_path):
    parts = []
    for name, count in (("a", 20), ("b", 30)):
        with av.open(str(tmp_path / f"{name}.mpg"), "w") as file:
            stream = file.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(count):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), "rgb24")))
            file.mux(stream.encode())
        parts.append((tmp_path / f"{name}.mpg").read_bytes())
    (tmp_path / "joined.mpg").write_bytes(b"".join(parts))
    video = VideoPictures(tmp_path / "joined.mpg")
    with pytest.warns(UserWarning, match="time stamps do not run forward"):
        count = len(list(video))
    steps = np.diff(video.times)
    assert count > 45 and (steps > 0).all() and np.median(steps) == pytest.approx(0.04) and steps.max() < 0.2


# --- overlays --------------------------------------------------------------------------------------------------------
def test_pictures_of_several_sizes_are_whole_in_one_video(tmp_path, estimator):
    source = source_of(folder_of(tmp_path / "in", [(64, 48), (33, 61), (64, 48)]), [1, 1, 30, 40])
    with pytest.warns(UserWarning, match="1 pictures of another size are shown whole in 64 x 48 px"):
        outcome = write_predictions(source, estimator, tmp_path / "p.csv", overlay=OverlayVideo(tmp_path / "s.mp4", 30))
    frames = list(VideoPictures(tmp_path / "s.mp4"))
    assert not outcome.lost and [f.shape for f in frames] == [(48, 64, 3)] * 3
    assert frames[1][:, :15].max() < 30 and frames[1][:, 26:38].mean() > 60
    odd = source_of(folder_of(tmp_path / "odd", [(65, 47)]), [1, 1, 30, 40])
    write_predictions(odd, estimator, tmp_path / "p.csv", overlay=OverlayVideo(tmp_path / "odd.mp4", 30))
    assert next(iter(VideoPictures(tmp_path / "odd.mp4"))).shape == (48, 66, 3)


def test_one_format_is_drawn(tmp_path, estimator, monkeypatch):
    drawn = []
    monkeypatch.setattr(predictions, "draw", lambda image, poses: drawn.append(poses.skeleton.parts) or image)
    folder = folder_of(tmp_path / "in", [(64, 48)])
    for name in (None, "h36m_17", "all"):
        overlay = OverlayFolder(tmp_path / "seen")
        write_predictions(source_of(folder, BOX), estimator, tmp_path / "p.csv", "all", overlay, name)
    assert [list(parts) for parts in drawn] == [["coco_17"], ["h36m_17"], ["coco_17", "h36m_17"]]
    with pytest.raises(KeyError, match="one of h36m_17, found 'coco_17'"):
        write_predictions(source_of(folder, BOX), estimator, tmp_path / "q.csv", "h36m_17", overlay, "coco_17")


@pytest.mark.parametrize("ending", ["mp4", "avi"])
def test_a_video_that_fails_leaves_the_one_before(tmp_path, ending):
    path = tmp_path / f"s.{ending}"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), OverlayVideo(path, 30) as overlay:
        overlay.add("0", np.zeros((48, 64, 3), np.uint8), 0.0)
        raise ZeroDivisionError
    with OverlayVideo(path, 30):
        pass  # no picture
    assert path.read_bytes() == b"before" and [p.name for p in tmp_path.iterdir()] == [path.name]


# --- a full disk, a place without permission -------------------------------------------------------------------------
FULL_DISK = """
import resource, sys
import numpy as np, torch
from acae_nb.inference.predictions import overlay_to, source_of, write_predictions
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints
from acae_nb.skeletons.joints import load_skeleton

source, output, overlay, most = sys.argv[1:]
estimator = PoseEstimator(PoseModel(tiny_backbone(), SeparateJoints(17)), load_skeleton("coco_17"), 64)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))  # no file grows larger, as on a disk that is full
source = source_of(source, [10, 5, 30, 40])
print(write_predictions(source, estimator, output, overlay=overlay_to(overlay, source.rate)).lost)
"""


@pytest.mark.parametrize("overlay", ["seen", "seen.mp4", "seen.avi"])
def test_a_disk_full_of_overlays_costs_no_poses(tmp_path, overlay):
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0)
    for k in range(4):
        cv2.imwrite(str(tmp_path / f"in/{k}.png"), noise.integers(0, 255, (240, 320, 3), dtype=np.uint8))
    done = run_script(FULL_DISK, tmp_path / "in", tmp_path / "p.csv", tmp_path / overlay, 30_000)
    assert done.returncode == 0, done.stderr
    assert "cannot be written (File too large" in done.stdout and overlay in done.stdout
    assert pd.read_csv(tmp_path / "p.csv", comment="#").picture.nunique() == 4
    assert not list(tmp_path.glob("**/.*")) and not (tmp_path / overlay).is_file()


def test_poses_that_do_not_fit_on_the_disk_are_told_and_harm_nothing(tmp_path):
    folder = folder_of(tmp_path / "in", [(64, 48)] * 40)
    (tmp_path / "p.csv").write_text("before")
    done = run_script(FULL_DISK, folder, tmp_path / "p.csv", tmp_path / "seen", 30_000)
    assert done.returncode == 1 and f"{tmp_path / 'p.csv'}: cannot be written (File too large)" in done.stderr
    assert (tmp_path / "p.csv").read_text() == "before" and not list(tmp_path.glob(".*"))


def run_script(script, *arguments):
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(REPO))
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture
def as_nobody():
    "A folder of root's, and no rights to write into it."
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        cv2.imwrite(f"{folder}/open.png", np.full((48, 64, 3), 90, np.uint8))
        cv2.imwrite(f"{folder}/shut.png", np.full((48, 64, 3), 90, np.uint8))
        os.chmod(f"{folder}/shut.png", 0o600)
        os.mkdir(f"{folder}/out", 0o777)
        os.chmod(f"{folder}/out", 0o777)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_without_permission(as_nobody, estimator):
    for place in (as_nobody / "seen", as_nobody / "seen.mp4"):
        with pytest.raises(ValueError, match=r"cannot \(Permission denied\): make room, change its permissions"):
            overlay_to(place, 30)
    source = source_of(as_nobody, BOX)
    with pytest.raises(ValueError, match="Permission denied"):
        write_predictions(source, estimator, as_nobody / "p.csv")
    outcome = write_predictions(source, estimator, as_nobody / "out/p.csv")
    assert outcome.pictures == 1 and len(outcome.lost) == 1 and "shut.png" in outcome.lost[0]


# --- the end ---------------------------------------------------------------------------------------------------------
def broken(count):
    yield from [[None]] * count
    raise ValueError("broken")


def test_what_breaks_after_the_first_picture_costs_nothing_before_it():
    outcome = Outcome()
    assert len(list(outcome.follow(broken(3), threading.Event(), len))) == 3 == outcome.pictures == outcome.people
    assert outcome.lost == ["broken; the poses of the pictures before it are written"] and not outcome.interrupted
    with pytest.raises(ValueError, match="broken"):
        list(Outcome().follow(broken(0), threading.Event(), len))


def test_an_end_that_is_asked_for_comes_after_the_picture_at_hand():
    outcome, asked = Outcome(), threading.Event()
    pictures = outcome.follow(([None] for _ in range(9)), asked, len)
    next(pictures)
    asked.set()
    assert list(pictures) == [] and outcome.interrupted and outcome.pictures == 1


def test_the_first_ctrl_c_asks_and_the_second_one_ends(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), stopping_gently() as asked:
            signal.raise_signal(signal.SIGINT)
            assert asked.is_set()
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with stopping_gently() as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
