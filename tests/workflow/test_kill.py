"""kill -9 of the kernel, of the stage's runner and of dvc in the middle of a training: the next `dvc repro` goes on,
and the result is that of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.workflow.test_stage import REPO, gone, notebook, wait_for

TRAIN = """
import torch, toy_training
torch.set_num_threads(1)
toy_training.run("work", steps, every=5, dropout=0.3, callbacks=[toy_training.Slow()])
"""
PIPELINE = """
stages:
  train:
    cmd: PYTHON -m acae_nb.workflow.stage train --block train
    params: [train]
    outs: [work/model.safetensors, work/losses.csv]
"""


STARTED = []


@pytest.fixture(autouse=True)
def end_what_was_started():
    yield
    for process in STARTED:
        process.kill()  # the stages below it follow


def repro(folder):
    environment = dict(os.environ, PYTHONPATH=f"{REPO}:{REPO / 'tests'}", OMP_NUM_THREADS="1", DVC_NO_ANALYTICS="1")
    STARTED.append(
        subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    return STARTED[-1]


@pytest.fixture
def pipeline(tmp_path):
    def make(name):
        folder = tmp_path / name
        (folder / "nbs/pipeline").mkdir(parents=True)
        (folder / "nbs/pipeline/train.ipynb").write_text(notebook("steps: int = None", TRAIN))
        (folder / "params.yaml").write_text("train: {steps: 150}\n")
        (folder / "dvc.yaml").write_text(PIPELINE.replace("PYTHON", sys.executable))
        subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
        return folder

    return make


def rows(folder):
    file = folder / "work/run/losses.csv"
    return file.read_text().count("\n") - 1 if file.exists() else 0


@pytest.mark.timeout(1200)
def test_kill_9_of_kernel_runner_and_dvc(pipeline):
    whole, parts = pipeline("whole"), pipeline("parts")
    undisturbed = repro(whole)
    for victim in ("kernel", "runner", "dvc"):
        before, run = rows(parts), repro(parts)
        wait_for(lambda: rows(parts) >= before + 4 or run.poll() is not None, 400)
        assert run.poll() is None, run.stdout.read()
        runner = json.loads((parts / ".tmp/locks/train.lock").read_text())["pid"]
        kernel = next(p.pid for p in psutil.Process(runner).children() if "ipykernel_launcher" in p.cmdline())
        os.kill(dict(kernel=kernel, runner=runner, dvc=run.pid)[victim], signal.SIGKILL)
        assert run.wait(60) != 0
        wait_for(lambda: gone(runner) and gone(kernel), 15)
        run.stdout.close()
        assert not (parts / "work/model.safetensors").exists() and (parts / "work/run/checkpoint.safetensors").exists()
    last = repro(parts)
    assert last.wait(400) == 0, last.stdout.read()
    assert undisturbed.wait(400) == 0, undisturbed.stdout.read()
    for name in ("work/model.safetensors", "work/losses.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
