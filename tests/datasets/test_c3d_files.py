"""C3D files against the library ezc3d as the writer, and damaged ones."""

import ezc3d
import numpy as np
import pytest
from native_scene import write_c3d

from acae_nb.datasets.c3d_files import read_c3d
from acae_nb.datasets.native_files import NativeError


@pytest.mark.parametrize("frames, markers", [(1, 1), (7, 43), (300, 3)])
def test_reads_what_ezc3d_wrote(tmp_path, frames, markers):
    points = np.random.default_rng(frames).normal(0, 700, (frames, markers, 3))
    points[frames // 2, 0] = np.nan
    write_c3d(tmp_path / "a.c3d", points)
    np.testing.assert_allclose(read_c3d(tmp_path / "a.c3d"), points, atol=0.001)
    np.testing.assert_allclose(
        read_c3d(tmp_path / "a.c3d"),
        ezc3d.c3d(str(tmp_path / "a.c3d"))["data"]["points"][:3].transpose(2, 1, 0),
        atol=1e-9,
    )


def test_analogue_channels_are_skipped(tmp_path):
    points, file = np.arange(1, 91, dtype=float).reshape(5, 6, 3), ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"], file["parameters"]["ANALOG"]["RATE"]["value"] = [100.0], [200.0]
    file["parameters"]["POINT"]["LABELS"]["value"], file["parameters"]["ANALOG"]["LABELS"]["value"] = (
        tuple("ABCDEF"),
        ("force", "moment", "emg"),
    )
    file["data"]["points"] = np.concatenate([points.transpose(2, 1, 0), np.ones((1, 6, 5))])
    file["data"]["analogs"] = np.random.default_rng(0).normal(size=(1, 3, 10))
    file.write(str(tmp_path / "a.c3d"))
    np.testing.assert_allclose(read_c3d(tmp_path / "a.c3d"), points, atol=0.001)


def test_truncated_or_damaged(tmp_path):
    write_c3d(tmp_path / "a.c3d", np.random.default_rng(0).normal(0, 700, (20, 43, 3)))
    data, rng, refused = (tmp_path / "a.c3d").read_bytes(), np.random.default_rng(1), 0
    whole = read_c3d(tmp_path / "a.c3d")
    for cut in rng.integers(0, len(data) - 1000, 30):
        (tmp_path / "b.c3d").write_bytes(data[:cut])
        with pytest.raises(NativeError, match="b.c3d"):
            read_c3d(tmp_path / "b.c3d")
    for _ in range(200):  # a flipped bit is refused, or changes one number, or nothing
        bits = bytearray(data)
        at = int(rng.integers(0, 24 if rng.random() < 0.5 else len(data)))
        bits[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.c3d").write_bytes(bits)
        try:
            found = read_c3d(tmp_path / "b.c3d")
            assert found.shape[2] == 3 and found.size <= len(data)
            assert at < 1024 or (found != whole).any(-1).sum() <= 1
        except NativeError:
            refused += 1
    assert refused > 5
