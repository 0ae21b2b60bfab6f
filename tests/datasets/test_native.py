import json
import os
import pickle
import struct

import cv2
import numpy as np
import pytest
from mutations import check_mutations

from acae_nb.basics import safe_pickle
from acae_nb.datasets import native, native_files
from acae_nb.datasets.native import (
    ImageFile,
    LeftOut,
    VideoFrame,
    attempt,
    box_of,
    make_camera,
    projection_fault,
    row,
    video_length,
    whole_rows,
)
from acae_nb.datasets.native_files import (
    NativeError,
    checked,
    field,
    load_h5,
    load_json,
    load_mat,
    load_npz,
    load_pickle,
    require,
)
from acae_nb.examples.rows import Example
from acae_nb.geometry.cameras import Camera

LOADERS = {"json": load_json, "npz": load_npz, "npy": load_npz, "mat": load_mat, "h5": load_h5, "pkl": load_pickle}


def samples(folder):
    "One whole file of each kind."
    import h5py
    from scipy.io import savemat

    values = {"poses": np.arange(24.0).reshape(2, 4, 3), "K": np.eye(3), "name": "left"}
    (folder / "a.json").write_text(json.dumps({k: np.asarray(v).tolist() for k, v in values.items()}), encoding="utf-8")
    np.savez(folder / "a.npz", **values)
    np.save(folder / "a.npy", values["poses"])
    savemat(folder / "a.mat", values)
    with h5py.File(folder / "a.h5", "w") as file:
        file.update(values)
    (folder / "a.pkl").write_bytes(pickle.dumps(values, 2))
    return values


@pytest.mark.parametrize("kind", LOADERS)
def test_files_come_back_whole_and_damaged_ones_are_refused(kind, tmp_path):
    values = samples(tmp_path)
    path = tmp_path / f"a.{kind}"
    found = LOADERS[kind](path)
    if kind == "npy":
        assert (found == values["poses"]).all()
    else:
        assert np.array_equal(found["poses"], values["poses"]) and np.array_equal(found["K"], np.eye(3))
        assert str(found["name"]) == "left"
    data = path.read_bytes()
    for bad in (
        b"",
        data[:10],
        data[: len(data) // 2],
        data[:-3] if kind != "h5" else data[:-200],
        bytes(len(data)),
        b"\xff" * len(data),
    ):
        path.write_bytes(bad)
        with pytest.raises(NativeError, match=f"a.{kind}"):
            LOADERS[kind](path)
    path.unlink()
    with pytest.raises(NativeError, match="no such file"):
        LOADERS[kind](path)


@pytest.mark.parametrize("kind", LOADERS)
def test_pointers_of_git_lfs_are_called_so(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", encoding="utf-8")
    with pytest.raises(NativeError, match=f"a.{kind}: file: .*a Git LFS pointer.*git lfs pull"):
        LOADERS[kind](path)


@pytest.mark.parametrize("kind", LOADERS)
def test_flipped_bits_never_crash_a_loader(kind, tmp_path, nightly):
    samples(tmp_path)
    path, rng = tmp_path / f"a.{kind}", np.random.default_rng(3)
    data = path.read_bytes()
    for _ in range(2000 if nightly else 60):
        path.write_bytes(flipped(data, rng))
        try:
            LOADERS[kind](path)
        except NativeError:
            pass


def flipped(data, rng):
    bad = bytearray(data)
    for at in rng.integers(0, len(data) * 8, int(rng.integers(1, 4))):
        bad[at // 8] ^= 1 << at % 8
    return bytes(bad)


def matlab_files(folder):
    """Structs, cells, texts, sparse and complex matrices as scipy writes them: plain, compressed, and with damage
    inside the compression still to be done."""
    from scipy import sparse
    from scipy.io import savemat

    points = np.zeros((1, 3), [("x", object), ("id", object)])
    points[0] = [(1.0, 2), (np.zeros((0, 0)), "t"), (np.uint8(3), {"q": [1, 2]})]
    cells = np.empty((2, 2), object)
    cells[0] = [np.eye(2), "text"]
    cells[1] = [np.zeros((0, 3)), {"a": 1}]
    variables = {
        "structs": points,
        "cells": cells,
        "names": np.array(["abc", "def"]),
        "sparse": sparse.random(6, 20, 0.3, format="csc", random_state=1),
        "flags": np.eye(3) > 0,
        "sparse flags": sparse.csc_matrix(np.eye(4) > 0),
        "complex": np.eye(2) * 1j,
        "single": np.ones((3, 2), np.float32),
        "long": np.arange(5),
        "text": "hip",
    }
    for packed in (False, True):
        for name, value in variables.items():
            savemat(folder / f"{name} {packed}.mat", {name.replace(" ", ""): value, "next": 1.0}, do_compression=packed)
    savemat(
        folder / "four.mat",
        {"a": np.ones((3, 4)), "t": "text", "s": sparse.csc_matrix(np.eye(3)), "z": np.eye(2) * 1j},
        format="4",
    )
    return sorted(folder.glob("*.mat"))


def compressed_again(data, rng):
    "Bits flipped inside the compressed variables of a file, with the sums of the compression right."
    import zlib

    out, at = data[:128], 128
    while at < len(data):
        kind, size = struct.unpack_from("<2I", data, at)
        part, at = zlib.compress(flipped(zlib.decompress(data[at + 8 : at + 8 + size]), rng)), at + 8 + size
        out += struct.pack("<2I", 15, len(part)) + part
    return out


READ_ALL = """
import sys, warnings; warnings.simplefilter("ignore")
from pathlib import Path
from acae_nb.datasets.native_files import NativeError, load_h5, load_mat
refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path, file=sys.stderr)
    try: (load_h5 if path.suffix == ".h5" else load_mat)(path)
    except NativeError: refused += 1
print(refused)
"""


def read_in_another_process(folder, limit):
    """How many files of a folder are refused. AssertionError names the file that ends the process or takes it too long
    or too much memory (4 GiB)."""
    import subprocess
    import sys

    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({4 << 30}, {4 << 30}))\n" + READ_ALL
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, folder],
            capture_output=True,
            text=True,
            timeout=limit,
            cwd=os.path.dirname(os.path.dirname(__file__)),
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"still at {(error.stderr or b'').decode().splitlines()[-1:]} after {limit} s") from None
    assert done.returncode == 0, f"process ended with {done.returncode} at {done.stderr.splitlines()[-5:]}"
    return int(done.stdout)


def test_flipped_bits_in_matlab_files_never_end_the_process(tmp_path, nightly):
    rng, bad = np.random.default_rng(5), tmp_path / "bad"
    (tmp_path / "good").mkdir(), bad.mkdir()
    files = matlab_files(tmp_path / "good")
    assert read_in_another_process(tmp_path / "good", 300) == 0
    for path in files:
        data = path.read_bytes()
        for k in range(200 if nightly else 6):
            (bad / f"{path.stem} {k}.mat").write_bytes(
                (compressed_again if "True" in path.stem and k % 3 else flipped)(data, rng)
            )
    assert read_in_another_process(bad, 600) > len(list(bad.iterdir())) / 4


def hdf5_files(folder):
    "All kinds of storage, old and new layout of the file, and a MATLAB 7.3 file."
    import h5py

    for name, version in (("old.h5", "earliest"), ("new.h5", "latest"), ("seven.mat", "earliest")):
        with h5py.File(folder / name, "w", libver=version, userblock_size=512 if name == "seven.mat" else 0) as file:
            file["poses"] = np.ones((2, 4, 3))
            file["g/K"] = np.eye(3)
            file["g/h/name"] = "left"
            file["poses"].attrs["unit"] = "mm"
            file.create_dataset("zip", data=np.zeros((40, 30)), compression="gzip", chunks=(10, 10))
            file.create_dataset("lzf", data=np.arange(300), compression="lzf", shuffle=True)
            file.create_dataset("texts", data=np.array([b"a", b"bc"]))
            file.create_dataset("several", data=["x", "yy"], dtype=h5py.string_dtype())
            if name != "seven.mat":
                continue
            for text in ("g/h/name", "several"):
                del file[text]
            file["#refs#/a"] = np.array([[104], [105]], np.uint16)
            file["#refs#/a"].attrs["MATLAB_class"] = np.bytes_("char")
            file["cells"] = np.array([[file["#refs#/a"].ref, file["poses"].ref]], h5py.ref_dtype)
    return sorted(folder.iterdir())


def test_flipped_bits_in_hdf5_files_never_end_or_hold_the_process(tmp_path, nightly):
    rng, bad = np.random.default_rng(6), tmp_path / "bad"
    (tmp_path / "good").mkdir(), bad.mkdir()
    files = hdf5_files(tmp_path / "good")
    assert read_in_another_process(tmp_path / "good", 300) == 0
    for path in files:
        data = path.read_bytes()
        for k in range(2000 if nightly else 30):
            (bad / f"{path.stem} {k}{path.suffix}").write_bytes(flipped(data, rng))
    assert read_in_another_process(bad, 600) > 0


@pytest.mark.parametrize("text, size", [(0, 0), (0, 4080), (0, 2**64 - 1), (1, 2**63), (1, 4081)])
def test_damaged_texts_that_the_library_would_read_for_ever(tmp_path, text, size):
    "A size in a heap of texts: of the free space at its end (0), or of the first text (1)."
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["name"] = "left"
    data = bytearray((tmp_path / "a.h5").read_bytes())
    first = data.find(b"GCOL") + 16
    struct.pack_into("<Q", data, first + 8 if text else first + 16 + 8 + 8, size)
    (tmp_path / "a.h5").write_bytes(bytes(data))
    with pytest.raises(NativeError, match="a.h5.*heap"):
        load_h5(tmp_path / "a.h5")


def test_two_flipped_bits_with_which_scipy_itself_crashes(tmp_path):
    (tmp_path / "in").mkdir()
    samples(tmp_path)
    bad = bytearray((tmp_path / "a.mat").read_bytes())
    for byte, bit in ((568, 5), (405, 3)):
        bad[byte] ^= 1 << bit
    (tmp_path / "in/bad.mat").write_bytes(bytes(bad))
    assert read_in_another_process(tmp_path / "in", 300) == 1


def alike(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(alike, a, b))
    if hasattr(a, "tocsr"):
        return (a.tocsr() != b.tocsr()).nnz == 0
    return (
        type(a) is type(b)
        and np.shape(a) == np.shape(b)
        and np.asarray(a).dtype == np.asarray(b).dtype
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    )


@pytest.mark.filterwarnings("ignore")
def test_files_that_matlab_wrote_are_read_as_scipy_reads_them():
    """The files that scipy comes with, MATLAB 4.2 to 8, both byte orders; scipy itself refuses the six that are not
    among them."""
    from pathlib import Path

    import scipy.io.matlab

    folder = Path(scipy.io.matlab.__file__).parent / "tests/data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not at hand: this scipy comes without its tests")
    read = 0
    for path in folder.glob("*.mat"):
        try:
            found = scipy.io.loadmat(path)
        except Exception:
            continue
        want = {name: native_files._mat5(value) for name, value in found.items() if not name.startswith("__")}
        assert alike(load_mat(path), want), path
        read += 1
    assert read > 90


@pytest.mark.parametrize(
    "write, word",
    [
        (lambda file: file.create_dataset("a", (10**10,), "f8", chunks=(1000,), compression="gzip"), "bytes"),
        (lambda file: file.create_dataset("a", (2**40,), "f8", chunks=(2**28,)), "bytes"),
        (lambda file: file.create_dataset("a", (2**62, 2**62), "f8", chunks=(10, 10)), "bytes"),
        (lambda file: file.create_group("a/b").__setitem__("c", file["a"]), "holds itself"),
        (lambda file: file.__setitem__("a", __import__("h5py").ExternalLink("/tmp/other.h5", "/")), "another file"),
        (lambda file: file.create_dataset("a", (10,), "f8", external=[("/etc/hostname", 0, 80)]), "other files"),
    ],
)
def test_hdf5_files_that_claim_too_much_or_lead_elsewhere(tmp_path, write, word):
    import h5py

    for name, load in (("a.h5", load_h5), ("a.mat", load_mat)):
        with h5py.File(tmp_path / name, "w") as file:
            write(file)
        with pytest.raises(NativeError, match=f"{name}.*({word})"):
            load(tmp_path / name)


def test_what_has_several_names_in_an_hdf5_file(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/x"] = np.arange(3)
        file["b"] = file["a"]
        file["c"] = h5py.SoftLink("/a/x")
        file["none"] = np.zeros((0, 3))
        file.create_dataset("packed", data=np.zeros(10**6), compression="gzip")
        file.create_dataset("unwritten", (5, 5), "f4")
    found = load_h5(tmp_path / "a.h5")
    assert (
        found["b"]["x"].tolist() == found["c"].tolist() == [0, 1, 2]
        and found["packed"].shape == (10**6,)
        and found["none"].shape == (0, 3)
        and not found["unwritten"].any()
    )


class Calls:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def _global(name):
    return (
        b"c" + name.replace(".", "\n", 1).encode()
        if name.count(".") == 1
        else b"c" + "\n".join(name.rsplit(".", 1)).encode()
    )


MALICIOUS = {
    "shell": pickle.dumps(Calls(os.system, "touch owned")),
    "shell among arrays": pickle.dumps({"poses": np.ones(3), "more": [Calls(os.system, "touch owned")]}),
    "eval": pickle.dumps(Calls(eval, "open('owned', 'w')")),
    "module attribute": b"\x80\x04\x8c\x05numpy\x8c\x18testing._private.utils.os\x93.",
    "dotted name in an allowed module": b"\x80\x04\x8c\x15numpy.core.multiarray\x8c\x0fos.system.__doc\x93.",
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\nset\nS'__class__'\ntR.",
    "file loader of numpy": b"cnumpy\nload\n(S'x'\ntR.",
    "memmap": b"cnumpy\nmemmap\n(S'owned'\ntR.",
    "extension code": b"\x82\x01.",
    "persistent id": b"Pabc\n.",
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_pickles_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pkl").write_bytes(MALICIOUS[name])
    with pytest.raises(NativeError, match="bad.pkl"):
        load_pickle(tmp_path / "bad.pkl")
    assert not (tmp_path / "owned").exists()


def test_every_global_but_the_listed_ones_is_refused(tmp_path):
    for name in (
        "posix.system",
        "subprocess.Popen",
        "numpy.fromfile",
        "builtins.__import__",
        "functools.partial",
        "operator.attrgetter",
        "codecs.open",
        "types.FunctionType",
    ):
        (tmp_path / "bad.pkl").write_bytes(_global(name) + b"\n.")
        with pytest.raises(NativeError, match=f"{name}, refused"):
            load_pickle(tmp_path / "bad.pkl")


def test_a_pickle_cannot_change_what_it_is_given(tmp_path):
    "BUILD may set attributes of what a global gave; it must not reach numpy or this package."
    put = b"cnumpy.core.numeric\n_frombuffer\n(N(S'__defaults__'\n(I1\ntdtb."
    (tmp_path / "bad.pkl").write_bytes(put)
    before = safe_pickle.BUILDERS["numpy.core.numeric._frombuffer"].__defaults__, np.frombuffer.__doc__
    try:
        load_pickle(tmp_path / "bad.pkl")
    except NativeError:
        pass
    assert (safe_pickle.BUILDERS["numpy.core.numeric._frombuffer"].__defaults__, np.frombuffer.__doc__) == before


def test_pickles_that_ask_for_too_much_memory_get_none(tmp_path):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "memo.pkl").write_bytes(b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".")
    assert load_pickle(tmp_path / "memo.pkl") is None
    for data in (
        b"\x80\x02\x8e" + struct.pack("<Q", 2**40) + b"x.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99999999999\ntS'b'\ntR(I1\n(I99999999999\ntcnumpy\ndtype\n(S'f8'\nI0\nI1\ntRI00\nS'abc'\ntb.",
    ):
        (tmp_path / "bad.pkl").write_bytes(data)
        with pytest.raises(NativeError):
            load_pickle(tmp_path / "bad.pkl")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_hold_what_was_put_in(protocol, tmp_path):
    from collections import OrderedDict

    shared = np.arange(6, dtype=">i2").reshape(2, 3)
    value = {
        "a": shared,
        "same": shared,
        "f": np.asfortranarray(np.ones((2, 3), np.float32)),
        "s": np.float64(2.5),
        "text": "hüfte",
        "bytes": b"\x00\xff",
        "none": None,
        "set": {1, 2},
        "frozen": frozenset("a"),
        "tuple": (1, (2.0, True)),
        "objects": np.array([{"x": 1}, None, "y"], object),
        "ordered": OrderedDict(b=1, a=2),
        "strings": np.array(["left", "r"]),
        3: "number",
        "empty": np.zeros((0, 3)),
        "complex": 1 + 2j,
        "bools": np.array([True, False]),
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
    found = load_pickle(tmp_path / "a.pkl")
    assert list(found) == list(value) and found["same"] is found["a"]
    for key, want in value.items():
        got = found[key]
        if isinstance(want, np.ndarray):
            assert got.dtype == want.dtype and got.shape == want.shape and (got == want).all()
        else:
            assert got == want and type(got) is (dict if key == "ordered" else type(want))


def test_pickles_of_python_2(tmp_path):
    "As cPickle of Python 2 writes {'poses': array([[1., 2.]]), 'name': 'left'}, protocols 0 and 2."
    array = struct.pack("<2d", 1, 2)
    text = "".join(chr(b) if 32 <= b < 127 and b not in (39, 92) else f"\\x{b:02x}" for b in array)
    zero = (
        f"(dp1\nS'poses'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntS'b'\ntRp5\n(I1\n(I1\nI2\ntcnumpy\ndtype\np6\n(S'f8'\nI0\nI1\ntRp7\n"
        f"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'{text}'\ntbsS'name'\np8\nS'left'\np9\ns."
    ).encode()
    (tmp_path / "zero.pkl").write_bytes(zero)
    found = load_pickle(tmp_path / "zero.pkl")
    assert found["poses"].tolist() == [[1, 2]] and found["name"] == "left"
    assert load_pickle(tmp_path / "zero.pkl", encoding="bytes")[b"poses"].tolist() == [[1, 2]]


def test_pickles_of_scipy_matrices(tmp_path):
    from scipy import sparse

    matrix = sparse.random(6, 20, 0.3, format="csc", random_state=1)
    for protocol in (0, 2, 4):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(matrix, protocol))
        assert (load_pickle(tmp_path / "m.pkl") != matrix).nnz == 0


def test_other_records_by_name(tmp_path):
    (tmp_path / "m.pkl").write_bytes(b"\x80\x02cchumpy.ch\nCh\n)\x81}X\x01\x00\x00\x00xK\x05sb.")
    with pytest.raises(NativeError, match="chumpy.ch.Ch, refused"):
        load_pickle(tmp_path / "m.pkl")
    assert load_pickle(tmp_path / "m.pkl", also={"chumpy.ch.Ch": lambda args, state, items: state["x"]}) == 5


def test_field():
    data = {
        "a": {"b": [{"c": [[1, 2, 3]]}]},
        "text": "x",
        "null": [1, None],
        "ragged": [[1], [1, 2]],
        "flag": [0, 1],
        "mat": np.ones((1, 5)),
    }
    assert field(data, "f.json", "a/b/0/c", (None, 3)).tolist() == [[1, 2, 3]] and field(
        data, "f.json", "a/b/0/c", (3,)
    ).tolist() == [1, 2, 3]
    assert field(data, "f.json", "mat", (5,)).shape == (5,) and field(data, "f.json", "flag", (2,), bool).tolist() == [
        False,
        True,
    ]
    for key, shape, kind, word in (
        ("a/x", None, float, "no such key"),
        ("a/b/3", None, float, "list of 1"),
        ("text", None, float, "numbers"),
        ("null", None, float, "numbers"),
        ("ragged", None, float, "different lengths"),
        ("a/b/0/c", (None, 4), float, r"shape \[1, 3\]"),
        ("mat", (5,), str, "text"),
    ):
        with pytest.raises(NativeError, match=f"f.json: {key}.*{word}"):
            field(data, "f.json", key, shape, kind)
    for bad in ([1.5], [np.nan], ["1"]):
        with pytest.raises(NativeError):
            checked(bad, "f.json", "x", (1,), int)


def test_absent_data_sets_are_named(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.json").touch()
    (tmp_path / "b" / "a.json").touch()
    assert [p.name for p in require(tmp_path, "b/*.json", dataset="Set", access="ask")] == ["a.json", "x.json"]
    for root, patterns in ((tmp_path / "c", ["*"]), (tmp_path, ["b/*.json", "b/*.mat"])):
        with pytest.raises(NativeError, match=r"of Set \(ask\)"):
            require(root, *patterns, dataset="Set", access="ask")


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(NativeError("a", "b", "c", "d")))
    assert str(error) == "a: b: expected c, found d" and error.field == "b"


def write_video(path, shades, size=(64, 48), gop=12, edit=False):
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "4", "g": str(gop), "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for shade in shades:
            file.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), shade, np.uint8), format="rgb24")
                )
            )
        file.mux(stream.encode())


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_frames_of_a_video_in_any_order(name, tmp_path):
    shades = np.random.default_rng(0).permutation(60) * 4
    write_video(tmp_path / name, shades)
    assert video_length(tmp_path / name) == 60
    for k in [*range(5), 30, 31, 29, 59, 0, *np.random.default_rng(1).integers(0, 60, 20)]:
        assert abs(VideoFrame(tmp_path / name, int(k)).load().mean() - shades[k]) < 2.5, k


def test_many_videos_at_once(tmp_path):
    for k in range(10):
        write_video(tmp_path / f"{k}.mp4", [k * 20] * 3)
    for k in (*range(10), *range(10)):
        assert abs(VideoFrame(tmp_path / f"{k}.mp4", 1).load().mean() - 20 * k) < 2.5
    assert len(native._OPEN) <= 8


def test_box_of():
    px = np.array([[10, 10], [30, 40], [np.nan, np.nan], [700, 20], [-5, -5]])
    left, top, width, height = box_of(px, (64, 48), 0)
    assert (left, top, left + width, top + height) == (9, 9, 31, 41)
    assert box_of(px * np.nan, (64, 48)) is None
    assert (box_of([[0, 0], [63, 47]], (64, 48), 0.5) == [-0.5, -0.5, 64, 48]).all()


def example(joints, **kwargs):
    camera = Camera([[60, 0, 32], [0, 60, 24], [0, 0, 1]], None, np.eye(3), [0, 0, -3000])
    return Example(
        **dict(
            dict(
                example_id="a/0",
                dataset="a",
                split="train",
                subject="s",
                sequence="q",
                frame=0,
                camera=camera,
                box=np.array([5.0, 5, 30, 30]),
                image_size=(64, 48),
                joints3d=joints,
            ),
            **kwargs,
        )
    )


def test_rows_are_checked():
    joints = np.random.default_rng(0).normal(0, 200, (10, 3))
    joints[2] = np.nan
    assert row("f", example(joints), None, 10)[0].frame == 0
    half = joints.copy()
    half[3, 0] = np.nan
    for bad in (
        example(joints[:9]),
        example(half),
        example(np.zeros((10, 3))),
        example(joints, box=np.array([5.0, 5, 0, 30])),
        example(joints, box=np.array([70.0, 5, 9, 30])),
        example(np.where(np.arange(10)[:, None] < 5, 0, joints)),
        example(joints * np.inf),
        example(joints, weight=np.nan),
    ):
        fault = row("f", bad, None, 10)
        assert isinstance(fault, NativeError) and str(fault).startswith("f: a/0, ")


def test_cameras_are_made_orthonormal_or_refused():
    rotation = cv2.Rodrigues(np.array([0.3, -0.2, 1.0]))[0]
    camera = make_camera("f", "c", np.diag([9.0, 9, 1]), rotation=rotation.round(3), position=np.zeros(3))
    assert (
        abs(camera.rotation - rotation).max() < 1e-3
        and abs(camera.rotation @ camera.rotation.T - np.eye(3)).max() < 1e-12
    )
    for bad in (rotation * [1, 1, -1], rotation + 0.1, rotation * np.nan, rotation[:2]):
        with pytest.raises(NativeError, match="f: camera c"):
            make_camera("f", "c", np.diag([9.0, 9, 1]), rotation=bad)


def test_labels_must_agree_with_their_projection():
    joints = np.random.default_rng(0).normal(0, 200, (10, 3))
    camera = example(joints).camera
    px = camera.project(joints)
    px[4] = np.nan
    assert projection_fault("f", joints, camera, px + 0.3, 0.5) is None
    px[7, 0] += 3
    assert "f: frame 12, joint 7" in str(projection_fault("f", joints, camera, px, 1, "12"))
    tolerances = np.where(np.arange(10) == 7, 5.0, 1.0)
    assert projection_fault("f", joints, camera, px, tolerances) is None
    behind = np.where(np.arange(10)[:, None] == 1, [0, 0, -9000], joints)
    assert "joint 1" in str(projection_fault("f", behind, camera, camera.project(joints), 1))


# ---- broken rows (A13)
@whole_rows
def read_numbered(n_rows, broken=(), weight=-1.0):
    "A reader whose rows `broken` cannot be right, and whose row 0 is of a person out of the picture."
    joints = np.random.default_rng(0).normal(0, 200, (10, 3))
    yield None
    for k in range(n_rows):
        changes = {"weight": weight} if k in broken else {}
        yield row("labels.json", example(joints, example_id=f"clip/{k:04d}", frame=k, **changes), None, 10)


@pytest.mark.parametrize(
    "n_rows, broken", [(300, ()), (300, (0,)), (300, (7, 120, 299)), (100, (99,)), (1, ()), (0, ())]
)
def test_broken_rows_are_left_out_and_named(n_rows, broken):
    rows = read_numbered(n_rows, broken)
    assert [e.frame for e, _ in rows] == [k for k in range(n_rows) if k not in broken]
    assert (rows.left_out.rows, rows.left_out.count) == (n_rows, len(broken))
    for k, reason in zip(broken, rows.left_out.reasons, strict=True):
        assert reason.startswith(f"labels.json: clip/{k:04d}, weight: expected a finite number")
        assert reason in str(rows.left_out) and reason in json.loads(rows.left_out.to_json())["reasons"]


@pytest.mark.parametrize("n_rows, n_broken", [(1, 1), (99, 1), (100, 2), (300, 4), (300, 300)])
def test_more_than_a_hundredth_broken_is_an_error(n_rows, n_broken):
    with pytest.raises(NativeError, match=f"labels.json: rows: .*1% broken, found {n_broken} of {n_rows}.*clip/0000"):
        list(read_numbered(n_rows, range(n_broken)))


def test_the_summary_is_short_where_much_is_left_out():
    rows = read_numbered(20000, range(150))
    assert sum(1 for _ in rows) == 19850 and "and 50 more" in str(rows.left_out)
    assert len(rows.left_out.reasons) == 100
    assert str(LeftOut(5)) == "5 rows, none broken"


def test_the_broken_joint_is_named():
    joints = np.random.default_rng(0).normal(0, 200, (10, 3))
    for bad in (np.inf, np.nan):
        broken = joints.copy()
        broken[6, 1] = bad
        assert str(row("f", example(broken), None, 10)).startswith("f: a/0, joints3d, joint 6: ")


def test_a_row_that_cannot_be_read_is_one_broken_row():
    def make(k):
        if k == 2:
            raise NativeError("f", "annotations/2", "numbers", "text")
        return k

    assert [attempt(make, k) for k in (1, 3)] == [1, 3] and str(attempt(make, 2)).startswith("f: annotations/2")
    with pytest.raises(ZeroDivisionError):
        attempt(lambda k: k / 0, 1)


# ---- the mutations themselves: a sound reader passes, careless ones do not
def write_tiny(folder):
    from acae_nb.examples.images import encode_jpeg

    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    frames = []
    for k in range(3):
        (folder / "images" / f"{k:03d}.jpg").write_bytes(encode_jpeg(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)))
        frames.append({"image": f"{k:03d}.jpg", "joints": rng.normal(0, 200, (10, 3)).tolist()})
    (folder / "labels.json").write_text(
        json.dumps({"camera": {"K": [[60, 0, 32], [0, 60, 24], [0, 0, 1]], "t": [0, 0, -3000]}, "frames": frames}),
        encoding="utf-8",
    )


@whole_rows
def read_tiny(folder, get=field):
    path = folder / "labels.json"
    data = load_json(path)
    camera = make_camera(path, "0", get(data, path, "camera/K", (3, 3)), position=get(data, path, "camera/t", (3,)))
    for k in range(len(data["frames"])):
        picture = ImageFile(folder / "images" / str(get(data, path, f"frames/{k}/image", (), str)))
        joints = get(data, path, f"frames/{k}/joints", (10, 3))
        yield row(
            path,
            example(joints, example_id=f"{picture.path.stem}", camera=camera, image_size=picture.size, frame=k),
            picture,
            10,
        )


def test_a_sound_reader_passes(tmp_path, nightly):
    def read(folder):
        data = load_json(folder / "labels.json")
        if not isinstance(data.get("frames") if isinstance(data, dict) else None, list):
            raise NativeError(folder / "labels.json", "frames", "a list", "none")
        for example, picture in read_tiny(folder):
            if np.isnan(example.joints3d).any():
                raise NativeError(folder / "labels.json", example.example_id, "numbers", "NaN")
            yield example, picture

    counts = check_mutations(write_tiny, read, tmp_path, 200 if nightly else 30)
    assert counts["refused"] > sum(counts.values()) / 2


def test_careless_readers_do_not(tmp_path):
    def unchecked(data, path, key, shape=None, kind=float):
        for part in key.split("/"):
            data = data[int(part)] if part.isdigit() else data[part]
        return np.asarray(data)

    with pytest.raises(AssertionError, match="mutation .*labels.json"):
        check_mutations(write_tiny, lambda folder: read_tiny(folder, unchecked), tmp_path / "a", 60)

    def padded(data, path, key, shape=None, kind=float):
        value = unchecked(data, path, key)
        return value if shape is None or value.dtype.kind not in "if" else np.resize(value, shape)

    with pytest.raises(AssertionError, match="mutation .*labels.json"):
        check_mutations(write_tiny, lambda folder: read_tiny(folder, padded), tmp_path / "b", 60)
