"""Which modules of acae_nb each module imports, read from the syntax trees: also imports in functions, relative ones,
and modules named in a text, as for a launcher ("acae_nb.training.recipes:first_training") or import_module."""

import ast
import re
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
MODULE_IN_TEXT = re.compile(r"(acae_nb(?:\.\w+)+)(?::\w+)?")


def imported_names(tree: ast.AST, package: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    "Dotted names, as tuples, that a syntax tree of the package `package` imports, from anywhere."
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = (*start, *(node.module.split(".") if node.module else ()))
            names |= {base, *((*base, alias.name) for alias in node.names)}
        elif isinstance(node, ast.Constant) and (match := MODULE_IN_TEXT.fullmatch(str(node.value))):
            names.add(tuple(match[1].split(".")))
    return names


def imported_files(tree: ast.AST, package: tuple[str, ...] = (), repo: Path = REPO) -> set[str]:
    "Files of acae_nb below `repo` (as `acae_nb/basics/files.py`) that a syntax tree of the package `package` imports."
    paths = (Path(*name).with_suffix(".py") for name in imported_names(tree, package) if name[:1] == ("acae_nb",))
    return {path.as_posix() for path in paths if (repo / path).is_file()}


def modules_and_imports(repo: Path = REPO) -> dict[str, set[str]]:
    "{module file: module files it imports} of the package below `repo`; the wings' empty __init__ left out."
    files = [p.relative_to(repo) for p in sorted((repo / "acae_nb").rglob("*.py")) if not p.name.startswith("_")]
    return {file.as_posix(): imports_of(file, repo) for file in files}


def imports_of(file: Path, repo: Path = REPO) -> set[str]:
    "Module files that a module file imports; a module that names itself in a text does not import itself."
    return imported_files(ast.parse((repo / file).read_text("utf-8")), file.parent.parts, repo) - {file.as_posix()}


def closure(files: set[str], repo: Path = REPO) -> set[str]:
    "`files` and all module files that they import, directly or not."
    reached, to_visit = set(), set(files)
    while to_visit:
        file = to_visit.pop()
        reached.add(file)
        to_visit |= imports_of(Path(file), repo) - reached
    return reached
