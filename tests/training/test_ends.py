"""Every process of a training ends within seconds of it, however it ends: trainers, torchrun, loader workers, the
server they are forked from, and Python's resource trackers."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SECONDS = 8

TRAINING = """
import os
import sys

sys.path[:0] = [{tests!r}, {here!r}]
from test_recipes import PARAMS, write_set

from acae_nb.training.distributed import launch

if __name__ == "__main__":
    from pathlib import Path

    for name, format in (("a", "h36m_17"), ("b", "cmu_panoptic_19")):
        write_set(Path("data") / name, format, False)
    values = PARAMS | dict(quotas={{"a": 2, "b": 2}}, steps=100_000, workers=2, ghost=None, accumulate=1)
    target = "acae_nb.training.recipes:first_training"
    launch(target, dict(name="separate", data="data", out="model", log="log.csv", **values), {processes})
"""


def marked(mark: str) -> dict[int, str]:
    "{pid: command line} of the living processes that have the mark in their environment."
    alive = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                alive[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:150]
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return alive


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


ENDS = {  # what the training's first process (or, for Ctrl-C, its whole group) gets
    "SIGTERM": lambda pid: os.kill(pid, signal.SIGTERM),
    "SIGKILL": lambda pid: os.kill(pid, signal.SIGKILL),
    "Ctrl-C": lambda pid: os.killpg(pid, signal.SIGINT),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "end, processes",
    [
        pytest.param("SIGTERM", 1, id="SIGTERM, alone"),
        pytest.param("SIGKILL", 1, id="SIGKILL, alone"),
        pytest.param("Ctrl-C", 1, id="Ctrl-C, alone", marks=pytest.mark.nightly),
        pytest.param("SIGTERM", 2, id="SIGTERM, torchrun", marks=pytest.mark.nightly),
        pytest.param("SIGKILL", 2, id="SIGKILL, torchrun"),
        pytest.param("Ctrl-C", 2, id="Ctrl-C, torchrun", marks=pytest.mark.nightly),
    ],
)
def test_nothing_outlives_a_training(tmp_path, end, processes):
    script, mark = tmp_path / "training.py", uuid.uuid4().hex
    script.write_text(
        TRAINING.format(tests=str(REPO / "tests"), here=str(REPO / "tests/training"), processes=processes)
    )
    environment = dict(os.environ, PYTHONPATH=f"{REPO}:{REPO / 'tests'}", OMP_NUM_THREADS="1", MARK_OF_TEST=mark)
    with open(tmp_path / "output.txt", "w") as output:
        training = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        log = tmp_path / "log.csv"
        begun = wait_until(lambda: log.exists() and log.read_text().count("\n") > 3 or training.poll() is not None, 240)
        assert begun and training.poll() is None, (tmp_path / "output.txt").read_text()[-3000:]
        before = marked(mark)
        assert len(before) >= 4 + processes, before  # a server of workers and its workers, a resource tracker
        ENDS[end](training.pid)
        training.wait(60)
        assert wait_until(lambda: not marked(mark), SECONDS), marked(mark)
    finally:
        for pid in marked(mark):
            os.kill(pid, signal.SIGKILL)
        training.wait()
