"""The import closure of a module, and the fingerprints that stand on it."""

import ast
import shutil

import pytest

from acae_nb.basics.files import fingerprint
from acae_nb.basics.import_closure import closure, import_closure, imports_of, package_root
from acae_nb.claims import runs

RECIPES = {
    "acae_nb.training.recipes": import_closure("acae_nb.training.recipes"),
    "acae_nb.training.fine_tuning": import_closure("acae_nb.training.fine_tuning"),
    "acae_nb.claims.runs": runs.CODE,
}


def with_one_constant_changed(text: str) -> str:
    "The source with its last constant that is a number or a text (no docstring of the module) changed."
    spots = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float, str) and node.lineno == node.end_lineno
    ]
    node = spots[-1]
    lines = text.encode().splitlines(keepends=True)
    line = lines[node.lineno - 1]
    lines[node.lineno - 1] = line[: node.col_offset] + b"'another'" + line[node.end_col_offset :]
    return b"".join(lines).decode()


@pytest.mark.parametrize("module", RECIPES)
def test_a_constant_changed_in_any_module_of_the_closure_is_another_fingerprint(tmp_path, module):
    root = package_root()
    names = [path.relative_to(root) for path in RECIPES[module]]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    copies = [tmp_path / name for name in names]
    before = fingerprint({}, modules=copies)
    for copy in copies:
        text = copy.read_text("utf-8")
        copy.write_text(with_one_constant_changed(text), "utf-8")
        assert fingerprint({}, modules=copies) != before, copy
        copy.write_text(text, "utf-8")
    assert fingerprint({}, modules=copies) == before


DECIDES = {  # what was missing from the lists by hand, or would be missed first
    "acae_nb.training.recipes": "examples/images geometry/cameras training/recipes training/callbacks skeletons/joints",
    "acae_nb.training.fine_tuning": "autoencoder/acae training/recipes training/fine_tuning examples/images",
    "acae_nb.claims.runs": "claims/findings claims/runs geometry/cameras examples/images training/fine_tuning",
}


@pytest.mark.parametrize("module", DECIDES)
def test_what_decides_a_result_is_in_the_closure(module):
    names = {path.relative_to(package_root() / "acae_nb").as_posix() for path in RECIPES[module]}
    assert {f"{name}.py" for name in DECIDES[module].split()} <= names


IMPORTS = {  # a line of a module -> what is imported
    "at the top": "from ..basics.files import fingerprint",
    "a module of the wing": "from . import files",
    "in a function": "def later():\n    from acae_nb.basics import files",
    "plain": "import acae_nb.basics.files",
    "for a launcher": 'launch("acae_nb.basics.files:fingerprint")',
    "by its name": 'import_module("acae_nb.basics.files")',
}


@pytest.mark.parametrize("case", IMPORTS)
def test_every_way_to_import_is_seen(tmp_path, case):
    (tmp_path / "acae_nb/basics").mkdir(parents=True)
    for name, text in {"files": "import os", "names": IMPORTS[case], "far": "from .names import near"}.items():
        (tmp_path / f"acae_nb/basics/{name}.py").write_text(text)
    assert imports_of("acae_nb/basics/names.py", tmp_path) == {"acae_nb/basics/files.py"}
    assert closure({"acae_nb/basics/far.py"}, tmp_path) == {f"acae_nb/basics/{n}.py" for n in ("far", "names", "files")}
    assert [path.name for path in import_closure("acae_nb.basics.far", tmp_path)] == ["far.py", "files.py", "names.py"]


def test_a_module_that_is_not_there():
    with pytest.raises(ValueError, match="expected one of the package.*found 'acae_nb.basics.fils'"):
        import_closure("acae_nb.basics.fils")
