"""Signatures, made from the source without importing it: the heading of a function as it is written, with its types,
and its docstring; and where each name is defined."""

import ast
import inspect
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "acae_nb"
Definition = ast.ClassDef | ast.FunctionDef


def module_path(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def definitions(module: str) -> dict[str, Definition]:
    "The public classes and functions of a module such as `geometry.cameras`, in their order."
    return names_in(module_path(module).read_text("utf-8"))


def names_in(code: str) -> dict[str, Definition]:
    "The public classes and functions of some code, in their order."
    found = [node for node in ast.parse(code).body if isinstance(node, Definition)]
    return {node.name: node for node in found if not node.name.startswith("_")}


def heading_of(node: Definition, lines: list[str]) -> str:
    "The decorators and the line of `def` or `class`, as they are written; of a class also its fields."
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    text = lines[first - 1 : node.body[0].lineno - 1]
    if isinstance(node, ast.ClassDef):
        text += [lines[k] for field in node.body if isinstance(field, ast.AnnAssign) for k in span(field)]
    return inspect.cleandoc("\n" + "\n".join(line for line in text if not line.startswith("# %%"))).strip()


def span(node: ast.AST) -> range:
    return range(node.lineno - 1, node.end_lineno)


def docstring(node: Definition) -> str:
    return ast.get_docstring(node) or ""


def is_public(function: ast.FunctionDef) -> bool:
    "Also what makes and calls an object."
    kept = ("__init__", "__call__", "__getitem__", "__len__")
    return not function.name.startswith("_") or function.name in kept


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    "Public ones."
    return [part for part in node.body if isinstance(part, ast.FunctionDef) and is_public(part)]


def outline(code: str) -> str:
    """What code defines: its public functions and classes with their docstrings, without bodies and imports; all else
    as it is."""
    lines = code.splitlines()
    parts = ["\n".join(outlined(node, lines)) for node in ast.parse(code).body]
    return "\n\n".join(part for part in parts if part)


def outlined(node: ast.stmt, lines: list[str]) -> list[str]:
    "The lines of a statement that `outline` leaves."
    if isinstance(node, (ast.Import, ast.ImportFrom)) or (isinstance(node, ast.FunctionDef) and not is_public(node)):
        return []
    if not isinstance(node, Definition):
        return [lines[k] for k in span(node)]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    kept = lines[first - 1 : node.body[0].lineno - 1]
    if docstring(node):
        kept += [lines[k] for k in span(node.body[0])]
    for part in node.body[bool(docstring(node)) :] if isinstance(node, ast.ClassDef) else []:
        shown = outlined(part, lines)
        kept += ["", *shown] if shown and isinstance(part, ast.FunctionDef) else shown
    return kept


def entry(module: str, name: str, level: int = 3) -> str:
    "Markdown of one class with its methods, or of one function."
    node, lines = definitions(module)[name], module_path(module).read_text("utf-8").splitlines()
    parts = [titled(name, f"{module}.{name}", level), fenced(heading_of(node, lines)), docstring(node)]
    for method in methods(node) if isinstance(node, ast.ClassDef) else []:
        if method.name == "__init__":
            parts.insert(2, fenced(heading_of(method, lines)))
            continue
        parts += [
            titled(f"{name}.{method.name}", f"{module}.{name}.{method.name.strip('_')}", level + 1),  # __ would be bold
            fenced(heading_of(method, lines)),
            docstring(method),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def titled(name: str, anchor: str, level: int) -> str:
    return f"{'#' * level} `{name}` {{#acae_nb.{anchor}}}"


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def module_names(wing: str) -> list[str]:
    return [f"{wing}.{path.stem}" for path in sorted((PACKAGE / wing).glob("*.py")) if path.stem != "__init__"]


def notebook_of(module: str) -> str:
    "The notebook that a module is exported from, below nbs: geometry/03_gltf.ipynb."
    return re.search(r"File to edit: \.\./\.\./nbs/(\S+\.ipynb)", module_path(module).read_text("utf-8"))[1]


def first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s|\n\n", text, maxsplit=1)[0].replace("\n", " ")


def wing_page(wing: str, heading: str) -> str:
    "Every public class and function of a wing by module, each with a link to where its notebook defines it."
    parts = [f"# {heading}: `acae_nb.{wing}`"]
    for module in module_names(wing):
        summary = ast.get_docstring(ast.parse(module_path(module).read_text("utf-8"))) or ""
        page = "../" + notebook_of(module).replace(".ipynb", ".md")
        parts += [f"## {module.partition('.')[2]}", f"`acae_nb.{module}`: {summary}"]
        parts.append(
            "\n".join(
                f"- [`{name}`]({page}#{name}) {first_sentence(docstring(node))}"
                for name, node in definitions(module).items()
            )
        )
    return "\n\n".join(parts)


PUBLIC = {
    "Poses of pictures": ("PoseEstimator", "Poses", "MoveNetDetector", "BlazePoseDetector", "read_picture", "Camera"),
    "Skeletons": ("Skeleton", "load_skeleton", "skeleton_names"),
    "The autoencoder": ("fit_acae", "load_acae", "save_acae"),
    "Labelled pictures": ("ExampleTable",),
}
INTRODUCTION = """---
search:
  boost: 4
---
# Public names

`from acae_nb import ...` gives these; beside them stands `Poses`, what the estimator answers with. Everything else is
on the pages of the wings, which lead to the notebook that defines it. A shape such as `Float[np.ndarray, "n j 3"]`
reads: n people, j joints, 3 coordinates.
Lengths are mm; x right, y down, z forward.
"""


def public_modules() -> dict[str, str]:
    "Public name -> module, as `acae_nb/__init__.py` imports them for editors; and `Poses`."
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name: node.module.removeprefix("acae_nb.") for node in block.body for alias in node.names}
    return names | {"Poses": "inference.pose_results"}


def public_page() -> str:
    "The public names, those first with which one begins; a name that no group has comes last."
    modules = public_modules()
    grouped = {name for names in PUBLIC.values() for name in names}
    parts = [INTRODUCTION]
    for heading, names in {**PUBLIC, "More": tuple(sorted(set(modules) - grouped))}.items():
        shown = [name for name in names if name in modules]
        parts += [f"## {heading}"] * bool(shown) + [entry(modules[name], name) for name in shown]
    return "\n\n".join(parts)
