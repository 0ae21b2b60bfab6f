"""Damaged files are refused by name, or read as what they may be: all that were once read otherwise, and new ones."""

import os
import subprocess
import sys
import time

import fuzzing
import pytest
from conftest import REPO
from fuzzing import Reader, Subject


def fuzz(*words):
    "Ends with 0 and nothing found; a process of its own, which a reader may crash."
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join((str(REPO), str(REPO / "tests"))), OMP_NUM_THREADS="1")
    command = [sys.executable, str(REPO / "tests/fuzzing.py"), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"


def test_kept_files_and_a_few_new_ones(tmp_path):
    fuzz("--rounds", 4, "--keep", tmp_path / "found")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_ten_minutes_of_new_ones():
    fuzz("--seconds", 600, "--seed", int(time.time()) // 86400, "--keep", REPO / ".tmp/found")


def test_every_kept_folder_has_its_reader():
    assert {path.name for path in fuzzing.KEPT.iterdir()} <= set(fuzzing.READERS)


def read_number(error):
    "A reader of a file with 100 metres; other text is refused with `error(path, text)`."

    def read(folder):
        path = folder / "number.txt"
        text = path.read_text("utf-8")
        if text != "100 metres":
            raise error(path, text)
        return 100

    return read


def read_length(folder):
    return len((folder / "number.txt").read_bytes())


BAD_READERS = {  # a reader -> what is said of it
    "names no file": (read_number(lambda path, text: ValueError(f"found {text!r}")), "no file named: ValueError"),
    "raises another kind": (read_number(lambda path, text: KeyError(path.name)), "KeyError"),
    "takes what is cut": (read_length, "a file that was cut is read as another one"),
    "takes what is not sound": (read_length, "a length that is none"),
}


@pytest.mark.parametrize("name", BAD_READERS)
def test_a_bad_reader_is_found(tmp_path, monkeypatch, name):
    read, words = BAD_READERS[name]

    def sound(answer, whole):
        assert answer != 0 or "cut" in name, "a length that is none"

    def write(folder):
        (folder / "number.txt").write_text("100 metres")

    monkeypatch.setitem(fuzzing.READERS, "number", Reader(write, read, sound, cut_is_seen=True))
    subject = Subject("number", tmp_path)
    findings = {subject.damaged(number)[0] for number in range(60)}
    assert any(words in finding for finding in findings - {None}), findings
