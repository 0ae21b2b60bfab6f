"""Shared test set-up: one torch thread, and the conformance cases of the original maths."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parent.parent
CONFORMANCE = REPO / "tests/conformance"  # numbers of the original, small ones
SHARED = Path(os.environ.get("ACAE_NB_SHARED", REPO.parent / "shared"))


def pytest_addoption(parser):
    parser.addoption(
        "--nightly",
        action="store_true",
        help="also the long forms of tests (hundreds of mutations per format and the like)",
    )


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--nightly"):
        for item in items:
            if "nightly" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="a long test: pytest --nightly"))


@pytest.fixture
def nightly(request):
    return request.config.getoption("--nightly")


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_style():
    "What a test or notebook sets of matplotlib's style ends with it."
    import matplotlib

    with matplotlib.rc_context():
        yield


@pytest.fixture(scope="session")
def conformance():
    """`conformance("soft_argmax")` -> (arrays, facts) of a case of tests/conformance, or of the larger ones."""

    def case(name):
        folder = next((f for f in (CONFORMANCE, SHARED / "conformance") if (f / f"{name}.npz").exists()), None)
        if folder is None:
            pytest.skip(f"{name}.npz is too large for the repository, and not in {SHARED}/conformance (ACAE_NB_SHARED)")
        facts = json.loads((folder / f"{name}.json").read_text("utf-8"))
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays), facts

    return case


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    "The documentation site, built once for all processes of this run."
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    run = tmp_path_factory.getbasetemp()
    run = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    folder = run / "site"
    with open(run / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
            environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
            built = subprocess.run(build, cwd=REPO, env=environment, capture_output=True, text=True)
            assert built.returncode == 0, built.stdout + built.stderr
    return folder
