"""`make repro` ends as a whole: who is killed takes DVC and its stage along."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.workflow.test_stage import REPO, SLEEP, gone, notebook, pid_from, wait_for

MAKE = shutil.which("make")


@pytest.mark.skipif(MAKE is None, reason="make is not installed")
def test_kill_9_of_make_leaves_nobody(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nbs/pipeline").mkdir(parents=True)
    (tmp_path / "nbs/pipeline/slow.ipynb").write_text(notebook("", SLEEP), "utf-8")
    (tmp_path / "params.yaml").write_text("{}", "utf-8")
    command = f"{sys.executable} -m acae_nb.workflow.stage slow"
    (tmp_path / "dvc.yaml").write_text(f"stages: {{slow: {{cmd: {command}, outs: [late]}}}}", "utf-8")
    (tmp_path / "Makefile").write_text(f"repro:\n\t{sys.executable} -m acae_nb.workflow.repro\n", "utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    environment = dict(os.environ, PYTHONPATH=str(REPO), DVC_NO_ANALYTICS="1")
    make = subprocess.Popen([MAKE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    kernel = wait_for(lambda: (tmp_path / "kernel").exists() and pid_from(tmp_path / "kernel"), 120)
    below = [process.pid for process in psutil.Process(make.pid).children(recursive=True)]
    assert kernel in below and len(below) >= 4
    os.kill(make.pid, signal.SIGKILL)
    make.wait()
    wait_for(lambda: all(gone(pid) for pid in [*below, pid_from(Path("child"))]), 20)
    assert not (tmp_path / "late").exists()
