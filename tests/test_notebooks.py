"""Every library notebook runs: one pytest test each (cells marked notest, slow or cuda are left out)."""

from pathlib import Path

import pytest
from nbdev.test import test_nb as run_notebook

NOTEBOOKS = Path(__file__).resolve().parent.parent / "nbs"
LIBRARY = [
    path
    for path in sorted(NOTEBOOKS.rglob("*.ipynb"))
    if not any(
        (folder / ".notest").exists()
        for folder in path.relative_to(NOTEBOOKS).parents
        for folder in [NOTEBOOKS / folder]
    )
    and ".ipynb_checkpoints" not in path.parts
]

CASES = [pytest.param(path, id=str(path.relative_to(NOTEBOOKS).with_suffix(""))) for path in LIBRARY]


@pytest.mark.parametrize("path", CASES)
def test_notebook(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    passed, seconds = run_notebook(path, skip_flags=["notest", "slow", "cuda"])
    assert passed, f"{path} failed: see the traceback above"
