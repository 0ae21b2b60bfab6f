"""dvc.yaml against the code: a stage depends on every module that its result can depend on."""

import ast
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from acae_nb.basics.import_closure import closure, imported_files
from acae_nb.claims.runs import CODE
from acae_nb.evaluation.benchmark_runs import SOURCES

REPO = Path(__file__).resolve().parents[2]

WORDS = {
    "acae_nb/basics/names.py",
    "acae_nb/basics/processes.py",
}  # words of messages, and how processes end: no result depends on them
SEEN = {
    "acae_nb/reporting/plots.py",
    "acae_nb/training/views.py",
}  # pictures in executed notebooks and in reports/, no outputs of a stage
STAGES, PARAMS = YAML(typ="safe").load(REPO / "dvc.yaml")["stages"], YAML(typ="safe").load(REPO / "params.yaml")


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_what_it_imports(name):
    stage = STAGES[name].get("do", STAGES[name])
    cells = json.loads((REPO / f"nbs/pipeline/{name}.ipynb").read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    # readers are imported by their names in params.yaml, those of benchmarks by their protocols' too
    formats = {
        "prepare": {item["format"] for item in PARAMS["prepare"]["datasets"].values()},
        "benchmark": {source.format for source in SOURCES.values()} | {"examples"},
    }
    readers = {f"acae_nb/datasets/{format}.py" for format in formats.get(name, ())}
    needed = (
        closure(imported_files(ast.parse(code)) | readers) - readers - WORDS - (SEEN if name != "report" else set())
    )
    given = {d for d in stage["deps"] if d.startswith("acae_nb/") and d.endswith(".py")}
    if readers:
        given.remove("acae_nb/datasets/${item.format}.py")  # the reader itself, by its name
    assert given == needed, f"missing: {sorted(needed - given)}, too many: {sorted(given - needed)}"


def test_the_claims_study_depends_on_what_its_runs_do():
    "The same files as in the fingerprint of a run."
    given = YAML(typ="safe").load(REPO / "claims/dvc.yaml")["stages"]["runs"]["deps"]
    assert {d for d in given if d.endswith(".py")} == {path.relative_to(REPO).as_posix() for path in CODE}
