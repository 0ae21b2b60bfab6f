"""What `python -m build` makes: an sdist that builds a wheel, and a wheel that works away from the repository."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser

import pytest
from conftest import REPO

pytest.importorskip("build", reason="the extra `dev` is not installed")
USE = """
import numpy as np
import acae_nb
from acae_nb import fit_acae, load_skeleton, skeleton_names
print(acae_nb.__file__)
poses = np.random.default_rng(0).normal([0, 0, 4000], 400, (50, 3, 3)).astype(np.float32)
acae, report = fit_acae(poses, n_latent_sided=0, n_latent_center=3, rounds=2, polish_steps=0)
assert len(skeleton_names()) == 44 and len(load_skeleton("coco_17")) == 17 and len(acae.latents) == 3
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """(sdist, wheel) that is built from the sdist's content, as an installer does."""
    folder = tmp_path_factory.mktemp("distributions")
    source = folder / "source"
    source.mkdir()
    for name in (
        "settings.ini",
        "setup.py",
        "pyproject.toml",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "CITATION.cff",
        "CHANGELOG.md",
    ):
        shutil.copy(REPO / name, source)
    shutil.copytree(REPO / "acae_nb", source / "acae_nb", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    run = subprocess.run(build, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return next((folder / "dist").glob("*.tar.gz")), next((folder / "dist").glob("*.whl"))


def test_the_sdist_holds_what_its_build_reads(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"settings.ini", "setup.py", "pyproject.toml", "LICENSE", "acae_nb/data/skeletons.json"} <= names
    assert not [name for name in names if name.startswith(("tests/", "nbs/", "results/", "data/"))]


def test_the_wheel_holds_every_module_and_table(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        names = set(archive.namelist())
    files = {p.relative_to(REPO).as_posix() for p in (REPO / "acae_nb").rglob("*.py")}
    files |= {p.relative_to(REPO).as_posix() for p in (REPO / "acae_nb/data").rglob("*") if p.is_file()}
    assert files <= names


def test_the_wheel_works_away_from_the_repository(distributions, tmp_path):
    with zipfile.ZipFile(distributions[1]) as archive:
        archive.extractall(tmp_path / "installed")
    command = f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n{USE}"
    run = subprocess.run([sys.executable, "-P", "-c", command], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(tmp_path / "installed"))


def test_the_metadata_are_those_of_settings_ini(distributions):
    ini = ConfigParser(delimiters=["="])
    ini.read(REPO / "settings.ini", encoding="utf-8")
    settings = ini["DEFAULT"]
    with zipfile.ZipFile(distributions[1]) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"))
    required = metadata.get_all("Requires-Dist")
    assert metadata["Version"] == settings["version"] and metadata["License"] == settings["license"]
    assert {r for r in required if "extra ==" not in r} == set(settings["requirements"].split())
    extras = {key.removesuffix("_requirements") for key in settings if key.endswith("_requirements")}
    assert set(metadata.get_all("Provides-Extra")) == extras
