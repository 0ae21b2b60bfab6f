"""Files and folders that are whole or absent, however their writer ends, and fingerprints of what a result depends
on."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from acae_nb.basics import files
from acae_nb.basics.files import fingerprint, replace_folder, write_whole

WRITER = """
import sys
from pathlib import Path
from acae_nb.basics.files import replace_folder
place, number = Path(sys.argv[1]), int(sys.argv[2])
while True:
    number += 1
    new = place.with_name(f"new{number}")
    new.mkdir()
    for part in ("a", "b"):
        (new / part).write_text(str(number))
    replace_folder(new, place)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(tmp_path):
    place = tmp_path / "table"
    write_whole(place / "a", "0")
    write_whole(place / "b", "0")
    reached = 0
    for attempt in range(8):
        command = [sys.executable, "-c", WRITER, str(place), str(1000000 * attempt)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            writer.stdout.readline()  # it has replaced the folder once
            time.sleep(0.05 + 0.013 * attempt)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
        numbers = {part.read_text() for part in (place / "a", place / "b")}
        assert len(numbers) == 1, "parts of two tables"
        reached = max(reached, *map(int, numbers))
        for left in tmp_path.glob("new*"):
            shutil.rmtree(left)
    assert reached > 7000000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have two renames")
def test_there_is_no_moment_without_a_folder(tmp_path, monkeypatch):
    """Each step of a replacement sees a whole folder in the place."""
    place, new = tmp_path / "table", tmp_path / "new"
    write_whole(place / "a", "old")
    write_whole(new / "a", "new")
    seen = []

    def watch(event, arguments):
        if event in ("os.rename", "shutil.rmtree", "os.remove"):
            seen.append((place / "a").read_text())

    watching = [True]
    sys.addaudithook(lambda event, arguments: watching and watch(event, arguments))
    replace_folder(new, place)
    watching.clear()
    assert seen and set(seen) <= {"old", "new"} and (place / "a").read_text() == "new" and not new.exists()


@pytest.mark.parametrize("in_one_step", [True, False])
def test_replacing(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    place, new = tmp_path / "table", tmp_path / "new"
    for text in ("first", "second"):  # into an empty place, then over the first
        write_whole(new / "a", text)
        replace_folder(new, place)
        assert [p.name for p in tmp_path.iterdir()] == ["table"] and (place / "a").read_text() == text
    with pytest.raises(OSError):
        replace_folder(tmp_path / "nothing", place)
    assert (place / "a").read_text() == "second" and [p.name for p in tmp_path.iterdir()] == ["table"]


def test_a_link_counts_by_what_lies_behind_it(tmp_path):
    disk, inputs = tmp_path / "disk", tmp_path / "inputs"
    write_whole(disk / "sequence/a", "1")
    inputs.mkdir()
    (inputs / "linked").symlink_to(disk)
    before = fingerprint({}, [inputs])
    write_whole(disk / "sequence/a", "2")
    assert fingerprint({}, [inputs]) != before
    copy = tmp_path / "copy"
    shutil.copytree(inputs, copy, symlinks=False)
    assert fingerprint({}, [copy]) == fingerprint({}, [inputs])


def test_two_ways_to_a_folder_are_one_input(tmp_path, monkeypatch):
    write_whole(tmp_path / "data/a", "1")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert len({fingerprint({}, [way]) for way in ("data", "./data", "link", tmp_path / "data", "data/../data")}) == 1
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    assert fingerprint({}, ["moved"]) == fingerprint({}, ["link"])


CHANGES = {  # what is done to a folder of inputs that its fingerprint has to show
    "another content": lambda folder: write_whole(folder / "a/x", "2"),
    "another name": lambda folder: (folder / "a/x").rename(folder / "a/y"),
    "another place": lambda folder: (folder / "a/x").rename(folder / "x"),
    "one more file": lambda folder: write_whole(folder / "b", ""),
    "one file less": lambda folder: (folder / "a/x").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_an_input_is_seen(tmp_path, change):
    write_whole(tmp_path / "a/x", "1")
    before = fingerprint({}, [tmp_path])
    CHANGES[change](tmp_path)
    assert fingerprint({}, [tmp_path]) != before


def test_absent_inputs_and_links_that_lead_nowhere_or_back_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: expected an input"):
        fingerprint({}, [tmp_path / "nothing"])
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="dangling"):
        fingerprint({}, [tmp_path])
    (tmp_path / "dangling").unlink()
    (tmp_path / "back").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="back: expected a link to something else"):
        fingerprint({}, [tmp_path])
