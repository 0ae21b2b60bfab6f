"""The lower bounds of settings.ini are versions that were tried: tests of training and inference run with them."""

import os
import subprocess
import sysconfig
import venv
from configparser import ConfigParser
from importlib.metadata import version

import pytest
from conftest import REPO

from acae_nb.basics.files import write_whole

SMOKE = ["examples/test_tables.py", "training/test_loop.py", "inference/test_estimator.py", "inference/test_files.py"]
SMOKE = [f"tests/{name}" for name in (*SMOKE, "geometry/test_calibration.py")]


def lowest_requirements():
    "{package: lowest version} of the requirements of settings.ini."
    ini = ConfigParser(delimiters=["="])
    ini.read(REPO / "settings.ini", encoding="utf-8")
    pairs = (requirement.partition(">=") for requirement in ini["DEFAULT"]["requirements"].split())
    return {name: lowest for name, _, lowest in pairs}


def test_every_requirement_has_a_lower_bound():
    assert all(lowest_requirements().values())


def test_what_a_notebook_shows_with_is_required():  # C5: a cell that ends in poses is drawn by plotly, with nbformat
    assert {"plotly", "nbformat"} <= lowest_requirements().keys()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_the_lowest_versions_train_and_estimate(tmp_path):
    """In an environment of its own. torch is the one that is installed here: it is that of the bound, and gigabytes."""
    lowest = lowest_requirements()
    assert version("torch").startswith(lowest.pop("torch")), "install the lowest torch to run this test"
    venv.create(tmp_path / "lowest", with_pip=True)
    python = tmp_path / "lowest/bin/python"
    pins = [f"{name}=={number}" for name, number in lowest.items()]
    subprocess.run([python, "-m", "pip", "install", "-q", *pins], check=True)
    own = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "lowest")})
    rest = sysconfig.get_path("purelib")  # torch and pytest of this environment, behind the other's own packages
    write_whole(f"{own}/rest.pth", f"{rest}\n")
    environment = dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1")
    check = "import importlib.metadata as m, sys; print(*(m.version(name) for name in sys.argv[1:]))"
    found = subprocess.run([python, "-c", check, *lowest], capture_output=True, text=True, check=True, env=environment)
    assert all(f.startswith(number) for f, number in zip(found.stdout.split(), lowest.values(), strict=True))
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SMOKE]
    run = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
