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
PACKAGED_MODEL = NOTEBOOKS.parent / "acae_nb/data/model/model.json"


def awaiting_model(path: Path) -> pytest.MarkDecorator | tuple:
    "A tutorial of the packaged model is expected to fail, visibly, until there is one; from then on it has to pass."
    if PACKAGED_MODEL.is_file() or "PoseEstimator.load()" not in path.read_text("utf-8"):
        return ()
    return pytest.mark.xfail(strict=True, reason="acae_nb/data/model: the package has no model yet")


CASES = [
    pytest.param(path, id=str(path.relative_to(NOTEBOOKS).with_suffix("")), marks=awaiting_model(path))
    for path in LIBRARY
]


@pytest.mark.parametrize("path", CASES)
def test_notebook(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    passed, seconds = run_notebook(path, skip_flags=["notest", "slow", "cuda"])
    assert passed, f"{path} failed: see the traceback above"
