"""Tutorials run as a person runs them: whole, by papermill, in a kernel that begins in some folder.

tests/test_notebooks.py runs each in its own folder without its slow cells. Here each runs in one of three folders, all
of its cells; `pytest --nightly` has each in all three."""

import os

import pytest
from conftest import REPO

papermill = pytest.importorskip("papermill", reason="the extra `stage` is not installed")
TUTORIALS = sorted((REPO / "nbs/tutorials").glob("*.ipynb"))
FOLDERS = ("the repository", "that of the tutorials", "an empty folder")
CASES = [
    pytest.param(path, folder, marks=[pytest.mark.nightly] * (k % 3 != other), id=f"{path.stem} in {folder}")
    for k, path in enumerate(TUTORIALS)
    for other, folder in enumerate(FOLDERS)
]


@pytest.mark.parametrize("path, folder", CASES)
def test_a_tutorial_runs(path, folder, tmp_path, monkeypatch):  # C8
    "To its end; and it leaves nothing behind in the empty folder."
    monkeypatch.setenv("PYTHONPATH", f"{REPO}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    empty = tmp_path / "empty"
    empty.mkdir()
    cwd = dict(zip(FOLDERS, (REPO, path.parent, empty)))[folder]
    done = papermill.execute_notebook(
        path, tmp_path / "done.ipynb", cwd=cwd, kernel_name="python3", progress_bar=False, execution_timeout=600
    )
    assert all(cell.metadata.papermill.status == "completed" for cell in done.cells)
    assert not [*empty.iterdir()]
