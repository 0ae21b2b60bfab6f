"""What would stop DVC half way: damaged locks, linked output folders, long names of temporary folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from acae_nb.workflow import stage as stages
from acae_nb.workflow.checkout import mend_rwlock
from acae_nb.workflow.parameters import StageError
from acae_nb.workflow.profiles import check_pipeline
from acae_nb.workflow.profiles import main as profiles_command
from acae_nb.workflow.stage import socket_folder
from tests.workflow.test_stage import REPO, notebook, start


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A pipeline of one stage, of which nothing has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "nbs/pipeline").mkdir(parents=True)
    write = "from pathlib import Path; Path('artifacts/a').mkdir(parents=True); Path('artifacts/a/x').touch()"
    (tmp_path / "nbs/pipeline/make.ipynb").write_text(notebook("", write), "utf-8")
    (tmp_path / "params.yaml").write_text("{}", "utf-8")
    command = "python -m acae_nb.workflow.stage make"
    (tmp_path / "dvc.yaml").write_text(f"stages: {{make: {{cmd: {command}, outs: [artifacts/a]}}}}", "utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    return tmp_path


def repro():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = dict(os.environ, PYTHONPATH=str(REPO), PATH=path, DVC_NO_ANALYTICS="1")  # as in .dvc/config
    return subprocess.run([sys.executable, "-m", "dvc", "repro"], env=environment, capture_output=True, text=True)


def test_an_empty_lock_of_dvc_is_removed_and_the_run_goes_on(pipeline, capsys):
    lock = pipeline / ".dvc/tmp/rwlock"
    lock.write_text("", "utf-8")
    refused = repro()
    assert refused.returncode != 0 and "rwlock" in refused.stderr, "DVC mends it by itself now: this check can go"
    assert profiles_command(["--check"]) == 0 and "removed .dvc/tmp/rwlock" in capsys.readouterr().out
    assert repro().returncode == 0 and (pipeline / "artifacts/a/x").exists()


def test_a_lock_is_left_alone_while_dvc_runs(tmp_path):
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    script = tmp_path / "dvc"  # a process that is called as DVC is
    script.write_text("import time; print(flush=True); time.sleep(60)", "utf-8")
    other = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(StageError, match=f"no other DVC in this folder, found process {other.pid}"):
            mend_rwlock(tmp_path)
        assert lock.exists()
    finally:
        other.kill()
        other.wait()
    assert mend_rwlock(tmp_path) and not lock.exists() and not mend_rwlock(tmp_path)


def test_the_copy_of_a_finished_command_that_waits_for_its_daemon_is_none(tmp_path):
    "DVC looks for updates in a daemon; a fork of the command that started it waits under the command's own words."
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    waiting = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(flush=True); input()', 'daemon'])"
    script = tmp_path / "dvc"
    script.write_text(waiting, "utf-8")
    copy = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        copy.stdout.readline()  # of the daemon
        assert mend_rwlock(tmp_path) and not lock.exists()
    finally:
        copy.communicate()


def test_a_whole_lock_is_kept(tmp_path):
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"write": {"a": {"pid": 1, "cmd": "dvc repro"}}}), "utf-8")
    assert not mend_rwlock(tmp_path) and "dvc repro" in lock.read_text("utf-8")


def test_a_linked_folder_of_outputs_is_refused_before_any_work(pipeline, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk")
    (pipeline / "artifacts").symlink_to(disk)
    with pytest.raises(
        StageError, match=f"artifacts: output folder: expected a folder .*cache.dir.*found a link to {disk}"
    ):
        check_pipeline()
    (pipeline / "artifacts").unlink()
    assert check_pipeline() == ["make"]
    subprocess.run([sys.executable, "-m", "dvc", "config", "cache.dir", str(disk)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "config", "cache.type", "symlink"], check=True)
    assert repro().returncode == 0 and (pipeline / "artifacts/a/x").exists() and list(disk.rglob("*")), "the cure works"
    assert check_pipeline() == ["make"]


@pytest.mark.parametrize("length", [78, 150])
def test_a_long_name_of_the_temporary_folder(pipeline, length):
    folder = pipeline / "t"
    folder = folder.with_name("t" * max(1, length - len(str(pipeline)) - 1))
    folder.mkdir()
    listen = "from multiprocessing.connection import Listener; import tempfile, os\n"
    listen += "with Listener(family='AF_UNIX') as one: print(len(one.address), len(tempfile.gettempdir()))"
    (pipeline / "nbs/pipeline/make.ipynb").write_text(notebook("", listen), "utf-8")
    run = start("make", TMPDIR=str(folder))
    output = run.communicate(timeout=120)[0]
    assert run.returncode == 0, output


def test_no_folder_for_sockets_is_one_line(monkeypatch):
    monkeypatch.setattr(stages.tempfile, "tempdir", "/" + "t" * 90)
    monkeypatch.setattr(stages.os, "access", lambda folder, mode: False)
    with pytest.raises(StageError, match="^environment: TMPDIR: expected a temporary folder of at most 60 bytes"):
        socket_folder()
