"""Tutorials run as a person runs them who has the package and no repository: whole, by papermill, begun in some folder.

tests/test_notebooks.py runs each in its own folder, with the repository, without its slow cells. Here each runs in one
of three folders, all of its cells; `pytest --nightly` has each in all three."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

papermill = pytest.importorskip("papermill", reason="the extra `stage` is not installed")
TUTORIALS = sorted((REPO / "nbs/tutorials").glob("*.ipynb"))
FOLDERS = ("that of all notebooks", "that of the tutorials", "an empty folder")
CASES = [
    pytest.param(path, folder, marks=[pytest.mark.nightly] * (k % 3 != other), id=f"{path.stem} in {folder}")
    for k, path in enumerate(TUTORIALS)
    for other, folder in enumerate(FOLDERS)
]
WHEELS = REPO / ".cache/wheels"  # which `make fetch` keeps


@pytest.fixture(scope="module")
def package_alone(tmp_path_factory):
    "A folder with the package as a wheel installs it: nothing of the repository lies around it."
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(REPO / "acae_nb", folder / "acae_nb")
    run = subprocess.run(
        [sys.executable, "-c", "import acae_nb; print(acae_nb.__file__)"],
        cwd=folder.parent,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(run.stdout.strip()) == folder / "acae_nb/__init__.py"
    return folder


@pytest.mark.parametrize("path, folder", CASES)
def test_a_tutorial_runs(path, folder, package_alone, tmp_path, monkeypatch):
    "To its end, with the package alone; and it leaves nothing behind in the empty folder."
    if path.stem == "four_cameras":  # which downloads its recording
        if not [*WHEELS.glob("pose2sim-*.whl")]:
            pytest.skip(f"its recording is not in {WHEELS}: make fetch")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(WHEELS))
    monkeypatch.setenv("PYTHONPATH", str(package_alone))
    empty = tmp_path / "empty"
    empty.mkdir()
    cwd = dict(zip(FOLDERS, (REPO / "nbs", path.parent, empty)))[folder]
    done = papermill.execute_notebook(
        path, tmp_path / "done.ipynb", cwd=cwd, kernel_name="python3", progress_bar=False, execution_timeout=600
    )
    assert all(cell.metadata.papermill.status == "completed" for cell in done.cells)
    assert not [*empty.iterdir()]
