"""The fetch on tiny made-up wheels: pinned content only, resumable, nothing half-written."""

import hashlib
import json
import subprocess
import sys
import zipfile

import pytest
from conftest import REPO

from acae_nb.people import sample_data as S


def sha(b):
    return hashlib.sha256(b).hexdigest()


@pytest.fixture
def toy(tmp_path):
    "A cache with one wheel and the plan that takes two of its three files."
    content = {"pkg/a.txt": b"first", "pkg/deep/b.bin": bytes(range(256)), "pkg/unused.py": b"raise SystemExit"}
    (tmp_path / "cache").mkdir()
    with zipfile.ZipFile(tmp_path / "cache/toy-1-py3-none-any.whl", "w") as z:
        for name, b in content.items():
            z.writestr(name, b)
    pick = {"a.txt": "pkg/a.txt", "sub/b.bin": "pkg/deep/b.bin"}
    wheel = dict(
        package="toy",
        version="1",
        wheel="toy-1-py3-none-any.whl",
        platform="any",
        licence="MIT",
        sha256=S.sha256_of(tmp_path / "cache/toy-1-py3-none-any.whl"),
        files={name: dict(member=m, sha256=sha(content[m]), bytes=len(content[m])) for name, m in pick.items()},
    )
    return dict(
        folder=tmp_path / "data",
        cache=tmp_path / "cache",
        plan=dict(wheels=[wheel], facts={"sub/fact.json": dict(up="z")}),
    )


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_fetch_takes_only_the_planned_files_and_says_where_from(toy):
    S.fetch(**toy)
    found = contents(toy["folder"])
    assert sorted(found) == ["MANIFEST.json", "a.txt", "sub/b.bin", "sub/fact.json"] and found["a.txt"] == b"first"
    manifest = json.loads(found["MANIFEST.json"])
    assert {n: sha(b) for n, b in found.items() if n != "MANIFEST.json"} == {
        n: m["sha256"] for n, m in manifest.items()
    }
    assert manifest["a.txt"]["wheel"] == "toy-1-py3-none-any.whl" and manifest["a.txt"]["member"] == "pkg/a.txt"


def test_fetch_is_deterministic_and_keeps_what_is_right(toy, tmp_path):
    S.fetch(**toy)
    S.fetch(**{**toy, "folder": tmp_path / "again"})
    assert contents(toy["folder"]) == contents(tmp_path / "again")
    before = {p: p.stat().st_mtime_ns for p in toy["folder"].rglob("*")}
    (toy["cache"] / "toy-1-py3-none-any.whl").unlink()
    S.fetch(**toy)  # complete: neither wheel nor writing
    assert before == {p: p.stat().st_mtime_ns for p in toy["folder"].rglob("*")}


def test_fetch_resumes_and_repairs(toy):
    S.fetch(**toy)
    whole = contents(toy["folder"])
    (toy["folder"] / "a.txt").unlink()
    (toy["folder"] / "sub/b.bin").write_bytes(b"cut")
    (toy["folder"] / "sub/.b.bin.1.tmp").write_bytes(b"half")
    (toy["folder"] / "MANIFEST.json").unlink()
    S.fetch(**toy)
    assert contents(toy["folder"]) == whole


def test_a_wheel_with_a_wrong_checksum_is_refused_by_name(toy):
    path = toy["cache"] / "toy-1-py3-none-any.whl"
    expected = S.sha256_of(path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    found = S.sha256_of(path)
    with pytest.raises(S.WrongChecksum) as e:
        S.fetch(**toy)
    assert all(word in str(e.value) for word in (path.name, expected, found))
    assert not toy["folder"].exists() or not contents(toy["folder"])


def test_a_member_with_a_wrong_checksum_is_refused_by_name(toy):
    toy["plan"]["wheels"][0]["files"]["a.txt"]["sha256"] = "0" * 64
    with pytest.raises(S.WrongChecksum, match=f"pkg/a.txt: expected sha256 {'0' * 64}, found {sha(b'first')}"):
        S.fetch(**toy)
    assert not (toy["folder"] / "a.txt").exists()


def test_a_download_with_a_wrong_checksum_never_enters_the_cache(toy, monkeypatch):
    path = toy["cache"] / "toy-1-py3-none-any.whl"
    content = path.read_bytes()
    path.unlink()

    def pip(command):  # stands in for pip: writes something else of the right name
        dest = command[command.index("--dest") + 1]
        assert command[command.index("--platform") + 1] == "any" and command[-1] == "toy==1"
        (__import__("pathlib").Path(dest) / path.name).write_bytes(content + b"x")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(S.subprocess, "run", pip)
    with pytest.raises(S.WrongChecksum, match=path.name):
        S.fetch(**toy)
    assert list(toy["cache"].iterdir()) == []


def test_a_failing_pip_is_reported(toy, monkeypatch):
    (toy["cache"] / "toy-1-py3-none-any.whl").unlink()
    monkeypatch.setattr(S.subprocess, "run", lambda command: subprocess.CompletedProcess(command, 3))
    with pytest.raises(RuntimeError, match="code 3.*toy==1"):
        S.fetch(**toy)
    assert list(toy["cache"].iterdir()) == []


def test_strange_files_stop_the_fetch(toy):
    toy["folder"].mkdir()
    (toy["folder"] / "thesis.docx").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="thesis.docx"):
        S.fetch(**toy)
    assert contents(toy["folder"]) == {"thesis.docx": b"mine"}


def test_dvc_disagreement_stops(toy, monkeypatch, tmp_path):
    S.fetch(**toy)
    S.check_dvc(toy["folder"])  # no data.dvc: nothing to ask
    (tmp_path / "data.dvc").write_text("outs: []")

    def say(code, out):
        return lambda *a, **k: subprocess.CompletedProcess(a, code, out, "no repository")

    for clean in (
        "{}\n",
        '{"not_in_cache": ["data/"]}',
        '{"uncommitted": {"modified": ["models/"]}}',
    ):  # a fresh clone has nothing in DVC's cache
        monkeypatch.setattr(S.subprocess, "run", say(0, clean))
        S.check_dvc(toy["folder"])
    monkeypatch.setattr(
        S.subprocess, "run", say(0, '{"not_in_cache": ["data/"], "uncommitted": {"modified": ["data/"]}}')
    )
    with pytest.raises(RuntimeError, match="data is not what .*data.dvc pins.*modified"):
        S.check_dvc(toy["folder"])
    monkeypatch.setattr(S.subprocess, "run", say(255, ""))
    with pytest.raises(RuntimeError, match="no repository"):
        S.check_dvc(toy["folder"])


def test_the_command_reports_without_a_traceback(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x").write_text("")
    run = subprocess.run(
        [sys.executable, "-m", "acae_nb.people.sample_data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        cwd=REPO,
    )
    assert (
        run.returncode == 1
        and run.stderr.strip().splitlines()[-1].startswith("sample data: ")
        and "Traceback" not in run.stderr
    )
