"""The wings of the package: imports run from a later wing to an earlier one, never in a circle, and a wing is small."""

import json
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from acae_nb.basics.import_closure import modules_and_imports

REPO = Path(__file__).resolve().parents[1]

WINGS = (
    "basics",
    "skeletons",
    "geometry",
    "autoencoder",
    "examples",
    "models",
    "training",
    "people",
    "datasets",
    "evaluation",
    "reporting",
    "inference",
    "workflow",
    "claims",
)
LARGE_WINGS = {"datasets", "people"}  # a reader for every data set; the parts of a rendered person


def wing(file: str) -> str:
    return file.split("/")[1]


def imports_upward(imports: dict[str, set[str]]) -> list[str]:
    "Every import of a later wing by an earlier one."
    return [
        f"{file} imports {other}"
        for file, others in imports.items()
        for other in sorted(others)
        if WINGS.index(wing(other)) > WINGS.index(wing(file))
    ]


def import_circle(imports: dict[str, set[str]]) -> list[str]:
    "One circle of imports between modules, empty where there is none."
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def imports():
    return modules_and_imports()


def test_imports_run_from_a_later_wing_to_an_earlier_one(imports):
    assert imports_upward(imports) == []


def test_no_module_imports_itself_by_a_detour(imports):
    assert import_circle(imports) == []


def test_a_wing_has_at_most_twelve_modules(imports):
    modules = {name: [file for file in imports if wing(file) == name] for name in WINGS}
    assert {name: len(files) for name, files in modules.items() if len(files) > 12 and name not in LARGE_WINGS} == {}


def test_the_top_of_the_package_holds_no_module():
    top = REPO / "acae_nb"
    assert {path.name for path in top.glob("*.py")} <= {"__init__.py", "_modidx.py"}
    folders = {path.name for path in top.iterdir() if any(path.glob("*.py"))}
    assert folders == set(WINGS), "each folder with modules is a wing of the list above"


def test_notebooks_and_tests_have_the_same_wings():
    assert {p.name for p in (REPO / "nbs").iterdir() if p.is_dir()} - {".ipynb_checkpoints"} == {
        *WINGS,
        "tutorials",
        "pipeline",
    }
    assert {p.parent.name for p in (REPO / "tests").glob("*/test_*.py")} <= set(WINGS)


# --- the reader of imports itself ------------------------------------------------------------------------------------
TURNED_ROUND = {  # a line written into geometry/cameras.py -> what it is an import of
    "at the top": ("from ..training.losses import masked", "training/losses.py"),
    "in a function": ("def later():\n    from acae_nb.models import backbones", "models/backbones.py"),
    "plain import": ("import acae_nb.people.body", "people/body.py"),
    "by its name": ("import_module('acae_nb.claims.runs')", "claims/runs.py"),
    "for a launcher": ("launch('acae_nb.training.recipes:first_training')", "training/recipes.py"),
}


def package_of_two(folder: Path, line: str, other: str) -> Path:
    "A package with geometry/cameras.py that holds `line`, and the module `other`."
    for name, text in {"geometry/cameras.py": line, other: ""}.items():
        file = folder / "acae_nb" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize("case", TURNED_ROUND)
def test_an_import_turned_round_is_seen(tmp_path, case):
    line, other = TURNED_ROUND[case]
    imports = modules_and_imports(package_of_two(tmp_path, line, other))
    assert imports_upward(imports) == [f"acae_nb/geometry/cameras.py imports acae_nb/{other}"]


def test_a_circle_in_a_wing_is_seen(tmp_path):
    package = package_of_two(tmp_path, "from . import lenses", "geometry/lenses.py")
    (package / "acae_nb/geometry/lenses.py").write_text("def f():\n    from .cameras import project")
    assert set(import_circle(modules_and_imports(package))) == {
        "acae_nb/geometry/cameras.py",
        "acae_nb/geometry/lenses.py",
    }


def test_a_notebook_says_at_once_what_it_stands_on():
    "In its first cell; that it is there is all that is tested, not that it is true."
    silent = []
    for path in sorted((REPO / "nbs").glob("*/*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        exports = any("default_exp" in "".join(cell["source"]) for cell in cells)
        if exports and "tands on" not in "".join(cells[0]["source"]):
            silent.append(path.relative_to(REPO).as_posix())
    assert not silent
