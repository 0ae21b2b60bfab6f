"""What `make` says where it cannot start, and what it starts."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO

MAKE = shutil.which("make")
# as a person types it: under `make test` a second make would name its folder before anything else
TYPED = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["repro", "fetch", "test", "claims"])
def test_an_archive_without_git_is_told_so_before_anything_is_installed(tmp_path, target):
    shutil.copy(REPO / "Makefile", tmp_path)
    run = subprocess.run([MAKE, target], cwd=tmp_path, env=TYPED, capture_output=True, text=True)
    assert run.returncode != 0 and run.stdout.splitlines()[0].startswith("this folder is no git repository")
    assert "git init" in run.stdout and not (tmp_path / ".venv").exists()


def test_no_command_depends_on_the_folder_it_was_installed_in():
    """A console script in .venv/bin names the interpreter by its whole path; only the interpreter itself is a link."""
    scripts = re.compile(r"(?:\$\(BIN\)/|\.venv/bin/)(?!python\b)\w+")
    for file in ("Makefile", "tests/run", "tests/export", ".ci/run"):
        assert not scripts.findall((REPO / file).read_text("utf-8")), file
    bare = re.compile(r"(?m)^\s*(?:nbdev-\w+|dvc|jupyter|pytest|ruff|mkdocs)\b")
    for file in ("Makefile", "tests/run", "tests/export", ".ci/run"):
        assert not bare.findall((REPO / file).read_text("utf-8")), file


def test_modules_of_a_moved_clone_are_its_own(tmp_path):
    """The Makefile puts the folder first on the path, before the one that was installed."""
    clone = tmp_path / "clone"
    shutil.copytree(REPO / "acae_nb", clone / "acae_nb", ignore=shutil.ignore_patterns("__pycache__"))
    lines = (REPO / "Makefile").read_text("utf-8")
    (clone / "Makefile").write_text(
        lines + '\nwhere:\n\t@python3 -c "import acae_nb; print(acae_nb.__file__)"\n', "utf-8"
    )
    run = subprocess.run([MAKE, "-s", "where"], cwd=clone, env=TYPED, capture_output=True, text=True, check=True)
    assert Path(run.stdout.strip()) == clone / "acae_nb/__init__.py"
