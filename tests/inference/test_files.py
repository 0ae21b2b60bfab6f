"""Pictures, videos and motion files as cameras and other programs make and read them (rows B and D of faults)."""

import os
import struct
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from acae_nb.geometry.cameras import Camera
from acae_nb.inference.outputs import check_c3d_length, resampled, write_coco, write_csv, write_parquet, write_trc
from acae_nb.inference.pictures import FolderPictures, TruncatedVideo, VideoPictures, as_rgb, frame_count, read_picture
from acae_nb.inference.pose_results import Poses
from acae_nb.skeletons.joints import Skeleton, load_skeleton

VARIABLE = [k / 60 for k in range(15)] + [15 / 60 + k / 15 for k in range(15)]
GAP = [k / 30 for k in range(10)] + [2 + k / 30 for k in range(10)]
CODECS = {"mp4": "mpeg4", "mkv": "mpeg4", "webm": "libvpx"}


def write_video(path, times, options=None, size=(64, 48)):
    "A video with a picture at each time; the left half is white, the right one dark."
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    picture[:, : size[0] // 2] = 255
    picture[: size[1] // 2] //= 2
    with av.open(str(path), "w", options=options or {}) as file:
        stream = file.add_stream(CODECS[path.suffix[1:]], rate=60)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 600)
        for time in times:
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = round(time * 600), Fraction(1, 600)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def person(frame, places, joints=3):
    skeleton = Skeleton("stick", tuple(f"joint_{k}" for k in range(joints)), (), tuple(range(joints)))
    body = np.arange(joints)[:, None] * np.array([10.0, 20, 5])
    poses = np.array([body + place for place in places]).reshape(-1, joints, 3)
    n = len(poses)
    camera = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]))
    return Poses(
        skeleton, poses, np.tile([1.0, 2, 30, 40], (n, 1)), np.ones(n), np.full((n, joints), 1.0), camera, frame=frame
    )


def test_some_pictures_of_a_video_keep_their_times(tmp_path):
    some, times = [person(frame, [[0, 0, 4000]]) for frame in (1, 2, 5)], [0, 0.1, 0.2, 0.3, 0.5, 0.7]

    def seconds(**told):
        lines = write_trc(some, tmp_path / "p.trc", **told).read_text().split("\n")[6:-1]
        return [float(line.split("\t")[1]) for line in lines]

    assert seconds(times=times) == [0.1, 0.2, 0.7] and seconds(times=[1, 2, 3]) == [1, 2, 3]
    assert seconds(rate=10) == [0, 0.1, 0.4]
    with pytest.raises(ValueError, match="times: expected those of the pictures 0 to 5, found 4"):
        seconds(times=times[:4])
    with pytest.raises(ValueError, match="3 finite seconds that increase"):
        seconds(times=[0, 2, 1])


@pytest.mark.parametrize("ending", CODECS)
@pytest.mark.parametrize("times", [VARIABLE, GAP], ids=["variable", "gap"])
def test_times_are_those_of_the_container_in_every_file(tmp_path, ending, times):
    video = VideoPictures(write_video(tmp_path / f"v.{ending}", times))
    results = [person(k, [[0, 0, 4000]]) for k, _ in enumerate(video)]
    np.testing.assert_allclose(video.times, times, atol=1 / 500)
    with pytest.warns(UserWarning, match="unevenly spaced"):
        lines = write_trc(results, tmp_path / "p.trc", times=video.times).read_text().split("\n")[6:-1]
    np.testing.assert_allclose([float(line.split("\t")[1]) for line in lines], times, atol=1 / 500)
    csv = pd.read_csv(write_csv(results, tmp_path / "p.csv", times=video.times), comment="#")
    parquet = pd.read_parquet(write_parquet(results, tmp_path / "p.parquet", times=video.times))
    for table in (csv, parquet):
        np.testing.assert_allclose(table.groupby("frame").time_s.first(), times, atol=1 / 500)


def test_a_live_recording_is_whole_and_has_no_made_up_rate(tmp_path):
    path = write_video(tmp_path / "live.webm", [k / 30 for k in range(20)], {"live": "1"})
    video = VideoPictures(path)
    assert len(list(video)) == 20 and frame_count(path) is None
    results = [person(k, [[0, 0, 4000]]) for k in range(20)]
    rate = float(write_trc(results, tmp_path / "p.trc", times=video.times).read_text().split("\n")[2].split("\t")[0])
    assert rate == pytest.approx(30, rel=0.05)


MATRICES = {  # a, b, c, d -> what becomes of the picture
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (-1, 0, 0, -1): lambda x: x[::-1, ::-1],
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_display_matrices_are_undone(tmp_path, matrix):
    path = write_video(tmp_path / "v.mp4", [0, 0.1])
    plain = next(iter(VideoPictures(path)))
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    for k, value in zip((0, 1, 3, 4), matrix):
        content[at + 4 * k : at + 4 * k + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    np.testing.assert_array_equal(next(iter(VideoPictures(path))), MATRICES[matrix](plain))


def test_a_cut_matroska_is_told_by_the_length_it_states(tmp_path):
    content = write_video(tmp_path / "v.mkv", [k / 30 for k in range(90)]).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    pictures = iter(VideoPictures(tmp_path / "cut.mkv"))
    with pytest.raises((TruncatedVideo, ValueError)):
        list(pictures)


def test_resampling_equals_interpolation_and_makes_nothing_up_in_gaps():
    seconds = np.array([0, 0.05, 0.2, 0.3, 1.0])
    points = np.random.default_rng(0).normal(size=(5, 2, 3))
    grid = np.arange(11) / 10
    expected = np.stack([np.interp(grid, seconds, x) for x in points.reshape(5, -1).T], -1).reshape(-1, 2, 3)
    expected[4:10] = np.nan
    np.testing.assert_allclose(resampled(points, seconds, 10.0), expected, atol=1e-9)


def test_more_pictures_than_c3d_counts_are_refused():
    check_c3d_length(65_535)
    with pytest.raises(ValueError, match=r"65535 pictures, found 65536: write .trc"):
        check_c3d_length(65_536)


def test_coco_names_are_plain_where_there_is_one_format(tmp_path):
    import json

    skeleton = load_skeleton("coco_17")
    camera = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]))
    one = Poses(skeleton, np.ones((1, 17, 3)), np.ones((1, 4)), np.ones(1), np.ones((1, 17)), camera)
    names = json.loads(write_coco([one], tmp_path / "c.json").read_text())["categories"][0]["keypoints"]
    assert names == list(skeleton.short_names)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_pictures_of_any_depth_are_bright(bits):
    values = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)
    assert np.abs(as_rgb(values)[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


def test_a_folder_is_read_in_the_order_of_its_numbers_and_names_what_it_leaves_out(tmp_path):
    for name in ("frame10.png", "frame2.png", "Frame1.jpg", "a.jfif"):
        ok, data = cv2.imencode(".png" if name.endswith("png") else ".jpg", np.zeros((8, 8, 3), np.uint8))
        (tmp_path / name).write_bytes(data.tobytes())
    (tmp_path / "small.png").write_bytes(cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes())
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "phone.HEIC").write_bytes(b"heic")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "link.png")
    pictures = FolderPictures(tmp_path, box=[4, 4, 4, 4])
    assert len(list(pictures)) == 4
    assert pictures.names == ["a.jfif", "Frame1.jpg", "frame2.png", "frame10.png"]
    problems = "\n".join(pictures.unreadable)
    for words in (
        "phone.HEIC: a picture of a kind",
        "x.jpg: expected a picture, found a folder",
        "link.png",
        "small.png: box 0",
    ):
        assert words in problems
    assert len(pictures.unreadable) == 4


@pytest.mark.parametrize("ending", ["gif", "avif", "jp2", "jpe"])
def test_more_kinds_of_pictures_are_read(tmp_path, ending):
    from PIL import Image

    image = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))
    kind = {"jp2": "JPEG2000", "jpe": "JPEG"}.get(ending, ending.upper())
    try:
        Image.fromarray(image).save(tmp_path / f"a.{ending}", kind)
    except (KeyError, OSError):
        pytest.skip(f"Pillow cannot write {kind} here")
    assert np.abs(read_picture(tmp_path / f"a.{ending}").astype(int) - image).mean() < 4


def png_of(size, data):
    "A PNG whose header states a size, with the compressed rows `data`, whatever they are."
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("size", [(8000, 8000), (20000, 20000), (32000, 30000)])
def test_a_header_of_more_pixels_than_the_file_can_hold_is_refused(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(png_of(size, zlib.compress(bytes(3000))))
    with pytest.raises(ValueError, match="bomb.png: expected a picture, found .* bytes that state"):
        read_picture(tmp_path / "bomb.png")


def test_a_chunk_longer_than_the_file_is_refused(tmp_path):
    data = png_of((8, 8), zlib.compress(bytes(8 * 25)))
    (tmp_path / "whole.png").write_bytes(data + b"more")
    assert read_picture(tmp_path / "whole.png").shape == (8, 8, 3)
    (tmp_path / "long.png").write_bytes(data[:33] + b"\xff" * 4 + data[37:])
    with pytest.raises(ValueError, match="long.png: expected a picture, found .* bytes with a chunk of 4294967295"):
        read_picture(tmp_path / "long.png")


def test_a_large_picture_of_one_colour_is_read(tmp_path):
    "As few bytes as deflate makes of it."
    (tmp_path / "white.png").write_bytes(png_of((5000, 4000), zlib.compress((b"\0" + bytes(15000)) * 4000, 9)))
    assert read_picture(tmp_path / "white.png").shape == (4000, 5000, 3)
