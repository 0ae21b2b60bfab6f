"""A file of tensors whose header is sorted: the same bytes in every process, and the same contents for its reader."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from acae_nb.basics.tensor_files import sort_header

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
SAVE = """
import sys, torch
from acae_nb.autoencoder.acae import ACAE, save_acae
from acae_nb.basics.tensor_files import sort_header
eye = torch.eye(3)
save_acae(ACAE(eye, eye.clone(), list("abc"), list("xyz")), sys.argv[1])
sort_header(sys.argv[1])
"""


def test_processes_write_the_same_bytes(tmp_path):
    for k in range(6):  # three texts have six orders
        subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / f"{k}.safetensors")], check=True)
    assert len({(tmp_path / f"{k}.safetensors").read_bytes() for k in range(6)}) == 1


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, NAMES, max_size=5), st.dictionaries(NAMES, st.integers(0, 5), min_size=1, max_size=4))
def test_contents_stay(tmp_path_factory, texts, sizes):
    path = tmp_path_factory.mktemp("sorted") / "a.safetensors"
    sizes.pop("__metadata__", None)
    arrays = {name: np.arange(size, dtype=np.float32) + k for k, (name, size) in enumerate(sizes.items())}
    save_file(arrays, path, texts)
    sort_header(path)
    with safe_open(path, "numpy") as file:
        assert (file.metadata() or {}) == texts
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {
            name: array.tolist() for name, array in arrays.items()
        }
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


@pytest.mark.parametrize("content", [b"", b"\x05\0\0\0\0\0\0\0hello", b"version https://git-lfs"])
def test_other_files_are_named_and_left(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors: expected the header of a safetensors file"):
        sort_header(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == content
