"""The cases of tests/conformance are small, and numbers only."""

import json

import numpy as np
import pytest
from conftest import CONFORMANCE

CASES = sorted(path.name for path in CONFORMANCE.iterdir() if path.suffix != ".md")


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_small_and_holds_numbers(name):
    path = CONFORMANCE / name
    assert path.stat().st_size < 300_000
    if path.suffix == ".json":
        json.loads(path.read_text("utf-8"))
        return
    with np.load(path, allow_pickle=False) as arrays:
        kinds = {key: arrays[key].dtype.kind for key in arrays.files}
    labels = {"activity", "scene"}  # short names of a row's group, which evaluations average over
    assert all(kind in "biuf" or (kind == "U" and key in labels) for key, kind in kinds.items()), kinds
