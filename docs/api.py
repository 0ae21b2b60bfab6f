"""Pages of signatures, made from the source without importing it: the heading of a function as it is written, with its
types, and its docstring."""

import ast
import inspect
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "acae_nb"
Definition = ast.ClassDef | ast.FunctionDef


def module_path(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def definitions(module: str) -> dict[str, Definition]:
    "The public classes and functions of a module such as `geometry.cameras`, in their order."
    tree = ast.parse(module_path(module).read_text("utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    }


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


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    "Public methods, and what makes and calls an object."
    kept = ("__init__", "__call__", "__getitem__", "__len__")
    functions = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    return [part for part in functions if not part.name.startswith("_") or part.name in kept]


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


def wing_page(wing: str, heading: str) -> str:
    "Every public class and function of a wing, module by module."
    parts = [f"# {heading}: `acae_nb.{wing}`"]
    for module in module_names(wing):
        summary = ast.get_docstring(ast.parse(module_path(module).read_text("utf-8"))) or ""
        parts += [f"## {module.partition('.')[2]}", f"`acae_nb.{module}`: {summary}"]
        parts += [entry(module, name) for name in definitions(module)]
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
in the wings, one page each. A shape such as `Float[np.ndarray, "n j 3"]` reads: n people, j joints, 3 coordinates.
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
