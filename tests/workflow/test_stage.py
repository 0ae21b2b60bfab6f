"""The stage runner: what it refuses, what it leaves, its lock, and that nothing outlives it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.workflow.lock import stage_lock
from acae_nb.workflow.parameters import StageError, fits, merge_parameters, prepare, read_yaml
from acae_nb.workflow.profiles import apply_profile, check_pipeline
from acae_nb.workflow.stage import LogWriter

REPO = Path(__file__).resolve().parents[2]
GOOD = "steps: int = None  # optimiser steps\nlr: float = None\nname: str | None = None"


def notebook(*sources, tags=(("parameters",),)):
    tags = list(tags) + [()] * len(sources)
    return json.dumps(
        dict(
            nbformat=4,
            nbformat_minor=5,
            metadata={},
            cells=[
                dict(
                    cell_type="code",
                    id=f"cell{i}",
                    metadata=dict(tags=list(t)),
                    source=s,
                    outputs=[],
                    execution_count=None,
                )
                for i, (s, t) in enumerate(zip(sources, tags))
            ],
        )
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with nbs/pipeline; project(name, *sources) writes a notebook."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "nbs/pipeline").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text("train:\n  a: {steps: 3, lr: 3e-4, name: a}\nbase: {seed: 1}\n")

    def write(name, *sources, **kw):
        path = tmp_path / f"nbs/pipeline/{name}.ipynb"
        path.write_text(notebook(*sources, **kw))
        return path

    return write


def start(*words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "acae_nb.workflow.stage", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(REPO), **environment),
    )


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def pid_from(path):
    return wait_for(lambda: path.exists() and path.read_text().endswith("\n") and int(path.read_text()))


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# --- refusals, before any work ---------------------------------------------------------------------------------------
REFUSALS = {  # params.yaml, parameters cell, blocks, pairs -> file, field, words of expected/found
    "unknown parameter": (
        "train: {steps: 3, lr: 1, name: a, stpes: 4}",
        GOOD,
        ["train"],
        [],
        "params.yaml",
        "train.stpes",
        "did you mean 'steps'",
    ),
    "missing parameter": ("train: {steps: 3, name: a}", GOOD, ["train"], [], "nbs/pipeline/x.ipynb", "lr", "none"),
    "str for int": (
        "train: {steps: many, lr: 1, name: a}",
        GOOD,
        ["train"],
        [],
        "params.yaml",
        "train.steps",
        "'many' (str)",
    ),
    "bool for int": (
        "train: {steps: true, lr: 1, name: a}",
        GOOD,
        ["train"],
        [],
        "params.yaml",
        "train.steps",
        "True (bool)",
    ),
    "float for int": (
        "train: {lr: 1, name: a}",
        GOOD,
        ["train"],
        ["steps=3.5"],
        "command line",
        "steps",
        "3.5 (float)",
    ),
    "null for float": ("train: {steps: 1, lr: null, name: a}", GOOD, ["train"], [], "params.yaml", "train.lr", "None"),
    "duplicated key in YAML": (
        "train: {steps: 3, lr: 1, lr: 2, name: a}",
        GOOD,
        ["train"],
        [],
        "params.yaml",
        "line 1",
        "duplicate key",
    ),
    "broken YAML": ("train: [1", GOOD, ["train"], [], "params.yaml", "line 1", "expected"),
    "given by two sources": (
        "train: {steps: 3, lr: 1, name: a}",
        GOOD,
        ["train"],
        ["lr=2"],
        "command line",
        "lr",
        "params.yaml: train.lr",
    ),
    "unknown block": ("train: {}", GOOD, ["trian"], [], "params.yaml", "trian", "did you mean 'train'"),
    "block is a value": ("train: 3", GOOD, ["train"], [], "params.yaml", "train", "3"),
    "pair without =": ("train: {}", GOOD, [], ["steps"], "command line", "steps", "no '='"),
    "pair without name": ("train: {}", GOOD, [], ["=3"], "command line", "=3", "no name"),
    "name is not a file name": (
        "train: {steps: 3, lr: 1}",
        GOOD,
        ["train"],
        ["name=../a"],
        "command line",
        "name",
        "../a",
    ),
    "statement in the cell": (
        "train: {}",
        "import os",
        [],
        [],
        "nbs/pipeline/x.ipynb",
        "parameters cell, line 1",
        "import os",
    ),
    "an annotation that would run": (
        "train: {}",
        "a: ().__class__.__base__.__subclasses__() = 1",
        [],
        [],
        "nbs/pipeline/x.ipynb",
        "a",
        "an annotation of int",
    ),
    "an annotation of an endless loop": (
        "train: {}",
        "a: list[[x for x in range(10**12)]] = 1",
        [],
        [],
        "nbs/pipeline/x.ipynb",
        "a",
        "an annotation of int",
    ),
    "not Python": (
        "train: {}",
        "x: int = ",
        [],
        [],
        "nbs/pipeline/x.ipynb",
        "parameters cell, line 1",
        "invalid syntax",
    ),
    "declared twice": ("train: {}", "a = 1\na = 2", [], [], "nbs/pipeline/x.ipynb", "a", "second declaration"),
    "strange annotation": ("train: {}", "a: Path = 1", [], [], "nbs/pipeline/x.ipynb", "a", "Path"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_before_work(project, case):
    params, cell, blocks, pairs, file, field, words = REFUSALS[case]
    Path("params.yaml").write_text(params, encoding="utf-8")
    project("x", cell, "open('ran', 'w')")
    with pytest.raises(StageError) as e:
        prepare("x", blocks, pairs)
    assert (e.value.file, e.value.field) == (file, field) and words in str(e.value)
    assert "expected" in str(e.value) and "found" in str(e.value)
    assert sorted(p.name for p in Path(".").iterdir()) == ["nbs", "params.yaml"]


@pytest.mark.parametrize("tags", [((),), (("parameters",), ("parameters",))], ids=["stripped tag", "two tags"])
def test_parameters_tag_is_needed_once(project, tags):
    project("x", GOOD, "1", tags=tags)
    with pytest.raises(StageError, match="cell tag 'parameters': expected exactly one"):
        prepare("x", ["train.a"])


def test_all_faults_at_once(project):
    project("x", GOOD)
    with pytest.raises(StageError) as e:
        prepare("x", [], ["stpes=3", "lr=fast"])
    assert all(w in str(e.value) for w in ("stpes", "fast", "x.ipynb: steps", "x.ipynb: name"))


@pytest.mark.parametrize(
    "content, words", [(None, "no such file (did you mean 'train'?)"), ("{", "JSONDecodeError"), ("{}", "KeyError")]
)
def test_notebook_file(project, content, words):
    project("train", GOOD)
    if content:
        Path("nbs/pipeline/trian.ipynb").write_text(content, encoding="utf-8")
    with pytest.raises(StageError) as e:
        prepare("trian")
    assert words in str(e.value)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.one_of(
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
            st.text(st.characters(codec="ascii")),
        ),
    )
)
def test_pairs_are_yaml_values(values):
    merged, origins = merge_parameters({}, [], [f"{k}={json.dumps(v)}" for k, v in values.items()])
    assert merged == values and set(origins) == set(values)


@pytest.mark.parametrize(
    "value, kind, good",
    [
        (1, float, True),
        (True, float, False),
        (1, int, True),
        (1.0, int, False),
        (None, int | None, True),
        ("1", int | None, False),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ({"a": 1}, dict[str, int], True),
        ({"a": []}, dict[str, int], False),
        ("x", str, True),
    ],
)
def test_types(value, kind, good):
    assert fits(value, kind) is good


def test_yaml_numbers_are_those_of_dvc():
    assert read_yaml("a: 3e-4\nb: 1_0\nc: no\nd: 0o10", "") == dict(a=3e-4, b=10, c="no", d=8)


# --- a run -----------------------------------------------------------------------------------------------------------
def test_run_leaves_copy_html_and_resources(project):
    project(
        "train",
        GOOD,
        """
import sys, os
print('steps', steps, os.getcwd(), sys.executable)
for i in range(50):
    print(f'\\rbar {i}', end='', file=sys.stderr, flush=True)
""",
    )
    run = start("train", "--block", "train.a")
    out = run.communicate(timeout=60)[0]
    assert run.returncode == 0, out
    assert f"steps 3 {os.getcwd()} {sys.executable}" in out and "bar 49" in out and "\r" not in out
    assert sorted(p.name for p in Path("reports").iterdir()) == ["train-a.html", "train-a.ipynb"]
    html = Path("reports/train-a.html").read_text(encoding="utf-8")
    assert "steps 3" in html and 'src="http' not in html and 'rel="stylesheet" href="http' not in html
    used = json.loads(Path("results/resources/train-a.json").read_text(encoding="utf-8"))
    assert (
        set(used) == {"wall_seconds", "cpu_seconds", "peak_memory_mb"}
        and 0 < used["wall_seconds"] < 60
        and 20 < used["peak_memory_mb"] < 2000
    )
    stored = json.loads(Path("reports/train-a.ipynb").read_text(encoding="utf-8"))["cells"][-1]["outputs"]
    assert ["".join(o["text"]) for o in stored if o["name"] == "stderr"] == ["bar 49"]
    assert json.loads(Path("nbs/pipeline/train.ipynb").read_text(encoding="utf-8"))["cells"][-1]["outputs"] == []


def test_failing_cell_is_the_last_line(project):
    project("fail", "", "raise ValueError('the real one')", "print('never')")
    run = start("fail")
    out = run.communicate(timeout=60)[0]
    assert run.returncode == 1 and out.strip().splitlines()[-1] == "ValueError: the real one"
    assert "the real one" in Path("reports/fail.html").read_text(encoding="utf-8") and not Path("results").exists()


def test_leaving_early_is_a_failure(project):
    project("leave", "", "raise SystemExit", "print('never')")
    run = start("leave")
    out = run.communicate(timeout=60)[0]
    assert run.returncode == 1 and "ended before its last cell" in out


SLEEP = """
import os, time, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open('child', 'w').write(f'{child.pid}\\n')
open('kernel', 'w').write(f'{os.getpid()}\\n')
time.sleep(60)
open('late', 'w')
"""
DVC = f"""
import os, subprocess
environment = dict(os.environ, DVC_STAGE='slow', PYTHONPATH='{REPO}')
subprocess.run(['/bin/sh', '-c', '{sys.executable} -m acae_nb.workflow.stage slow; true'], env=environment)
"""


def test_second_run_is_refused_by_the_holders_name_and_signals_stop_it(project):
    project(
        "slow",
        "name: str = None",
        SLEEP.replace("time.sleep(60)\n", "try: time.sleep(60)\nexcept KeyboardInterrupt: open('saved', 'w'); raise\n"),
        "open('next', 'w')",
    )
    first = start("slow", "name=a")
    kernel = pid_from(Path("kernel"))
    second = start("slow", "name=a")
    out = second.communicate(timeout=60)[0]
    assert (
        second.returncode == 2
        and f"process {first.pid} on" in out
        and "acae_nb.workflow.stage slow name=a" in out
        and "since 20" in out
    )
    with stage_lock(Path(".tmp/locks/slow-b.lock")):
        pass  # another key is free
    first.send_signal(signal.SIGTERM)
    out = first.communicate(timeout=60)[0]
    assert first.returncode == 128 + signal.SIGTERM and "stopped by SIGTERM" in out
    assert Path("saved").exists() and not Path("next").exists() and not Path("late").exists() and gone(kernel)
    wait_for(lambda: gone(pid_from(Path("child"))), 5)
    with stage_lock(Path(".tmp/locks/slow-a.lock"), orphan_wait=0):
        pass


@pytest.mark.parametrize("victim", ["kernel", "runner"])
def test_kill_9_leaves_no_second_writer(project, victim):
    project("slow", "", SLEEP)
    run = start("slow")
    kernel = pid_from(Path("kernel"))
    os.kill(kernel if victim == "kernel" else run.pid, signal.SIGKILL)
    out = run.communicate(timeout=60)[0]
    wait_for(lambda: gone(kernel), 5)
    assert run.returncode == (1 if victim == "kernel" else -signal.SIGKILL)
    wait_for(lambda: gone(pid_from(Path("child"))), 5)
    assert victim == "runner" or "the kernel died (exit status -9" in out
    with stage_lock(Path(".tmp/locks/slow.lock"), orphan_wait=5):
        pass
    assert not Path("late").exists()


def test_kill_9_of_dvc_ends_the_stage(project):
    """A stand-in for dvc: a process that starts a shell with DVC_STAGE in its environment, which starts the stage."""
    project("slow", "", SLEEP)
    dvc = subprocess.Popen([sys.executable, "-c", DVC], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kernel = pid_from(Path("kernel"))
    runner = psutil.Process(kernel).ppid()
    dvc.kill()
    dvc.wait()
    wait_for(lambda: gone(runner) and gone(kernel) and gone(pid_from(Path("child"))), 5)


def test_an_orphan_that_holds_the_lock_is_waited_for_then_named(tmp_path):
    with stage_lock(tmp_path / "a.lock") as descriptor:
        orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(descriptor,))
    holder = json.loads((tmp_path / "a.lock").read_text())
    (tmp_path / "a.lock").write_text(json.dumps(holder | dict(created=0.0)))  # the runner is dead
    with pytest.raises(StageError, match="not running on this host, but a process it started still is"):
        with stage_lock(tmp_path / "a.lock", orphan_wait=0.5):
            pass
    orphan.kill()
    orphan.wait()
    with stage_lock(tmp_path / "a.lock", orphan_wait=0.5):
        pass


def test_log_writer_keeps_plain_lines():
    import io

    out = io.StringIO()
    log = LogWriter(out)
    log.write("a\nb\r\nc")
    log.close()
    assert out.getvalue() == "a\nb\nc\n"


# --- profiles and the whole pipeline ---------------------------------------------------------------------------------
def test_profile_keeps_comments_and_refuses_unknown(project):
    Path("profiles").mkdir()
    Path("params.yaml").write_text("# top\ntrain:  # step 1\n  steps: 600  # many\n  sets: [a, b]\n", encoding="utf-8")
    Path("profiles/smoke.yaml").write_text("train: {steps: 3, sets: [a]}", encoding="utf-8")
    Path("profiles/bad.yaml").write_text("train: {steps: 5, stpes: 3}", encoding="utf-8")
    with pytest.raises(StageError, match="profiles/bad.yaml: train.stpes: expected a key of params.yaml"):
        apply_profile("bad")
    assert "600" in Path("params.yaml").read_text(encoding="utf-8")
    apply_profile("smoke")
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert all(c in text for c in ("# top", "# step 1", "# many")) and read_yaml(text, "") == {
        "train": {"steps": 3, "sets": ["a"]}
    }


def test_check_of_the_whole_pipeline(project):
    project("train", GOOD)
    Path("dvc.yaml").write_text(
        """
stages:
  train:
    foreach: ${models}
    do:
      cmd: python -m acae_nb.workflow.stage train --block train.${item} name=${item}
""",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    good = "models: [a, b]\ntrain:\n  a: {steps: 3, lr: 1}\n  b: {steps: 4, lr: 1}\n"
    Path("params.yaml").write_text(good, encoding="utf-8")
    assert check_pipeline() == ["train-a", "train-b"]
    for wrong, field in (
        (good + "  c: {steps: 1}\n", "train.c.steps"),
        (good.replace("steps: 4", "stpes: 4"), "2 parameters"),
    ):
        Path("params.yaml").write_text(wrong, encoding="utf-8")
        with pytest.raises(StageError) as e:
            check_pipeline()
        assert e.value.field == field
