"""The documentation site: its order, its signatures, and that no page asks anything of anybody else."""

import ast
import html
import inspect
import re
import sys
from urllib.parse import unquote

import pytest
from conftest import REPO

import acae_nb

sys.path.insert(0, str(REPO / "docs"))
import api  # noqa: E402

REQUESTS = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^"'> ]+""")


def test_the_page_of_public_names_has_them_all_and_begins_with_the_estimator():
    page = api.public_page()
    headings = re.findall(r"^### `(\w+)`", page, re.M)
    assert headings[:2] == ["PoseEstimator", "Poses"] and set(headings) >= set(acae_nb.__all__)
    assert len(headings) == len(set(headings))


def test_the_facts_of_the_method_that_are_cited_are_there():
    text = (REPO / "docs/method.md").read_text("utf-8")
    headings = set(re.findall(r"^#+ (\d(?:\.\d)?)\.? ", text, re.M))
    sources = [*REPO.glob("nbs/*.ipynb"), *REPO.glob("nbs/*/*.ipynb"), *REPO.glob("acae_nb/**/*.py")]
    cited = {
        number
        for path in sources
        for number in re.findall(r"method\.md`?,?(?: section)? (\d(?:\.\d)?)", path.read_text("utf-8"))
    }
    assert {"1.4", "1.9", "3.1", "4"} <= cited <= headings


@pytest.mark.parametrize("method", ["load", "estimate", "stream", "save", "from_metrabs"])
def test_methods_are_found_by_their_names_with_their_parameters(method):
    page = api.public_page()
    assert f"#### `PoseEstimator.{method}`" in page
    code = page.split(f"#### `PoseEstimator.{method}`")[1].split("```")[1].removeprefix("python\n")
    written = ast.parse(re.sub(r"@\w+\n", "", code) + "    pass").body[0]
    real = inspect.signature(getattr(acae_nb.PoseEstimator, method)).parameters
    arguments = [argument.arg for argument in (*written.args.args, *written.args.kwonlyargs)]
    assert [name for name in arguments if name != "cls"] == [name for name in real if name != "options"]


@pytest.mark.parametrize("wing", sorted(p.name for p in (REPO / "acae_nb").iterdir() if (p / "__init__.py").is_file()))
def test_every_exported_function_and_class_is_on_the_page_of_its_wing(wing):
    page = api.wing_page(wing, wing)
    for module in api.module_names(wing):
        tree = ast.parse((REPO / "acae_nb" / f"{module.replace('.', '/')}.py").read_text("utf-8"))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert re.search(rf"^- \[`{node.name}`\]\(\.\./\S+\.md#{node.name}\)", page, re.M)


def test_an_outline_is_the_code_without_its_bodies():
    code = '''import os

LIMIT = 3  # px

@cache
def double(x: int) -> int:  # twice
    """Two of it.

    For ever."""
    y = 2 * x
    return y

def _helper():
    "Nobody's business."

class Box:
    "A box."
    side: float = 1.0

    def __post_init__(self):
        self.side *= 2

    def area(
        self,
    ) -> float:
        "Its area."
        return self.side**2
'''
    shown = '''LIMIT = 3  # px

@cache
def double(x: int) -> int:  # twice
    """Two of it.

    For ever."""

class Box:
    "A box."
    side: float = 1.0

    def area(
        self,
    ) -> float:
        "Its area."'''
    assert api.outline(code) == shown


def test_the_start_page_names_every_tutorial_once():
    folder = REPO / "nbs/tutorials"
    named = re.findall(r"\]\((\w+\.ipynb)\)", (folder / "00_start.ipynb").read_text("utf-8"))
    assert sorted(named) == sorted(p.name for p in folder.glob("*.ipynb") if p.name != "00_start.ipynb")
    assert "nbs/tutorials/00_start.ipynb" in (REPO / "Makefile").read_text("utf-8")


@pytest.mark.parametrize("path", sorted((REPO / "nbs/tutorials").glob("*.ipynb")), ids=lambda path: path.stem)
def test_tutorials_run_from_any_folder(path):
    assert "../../" not in path.read_text("utf-8")


def test_the_built_site(site):  # D3: no request to elsewhere, no raw formula, small
    pages = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    assert [found for text in pages.values() for found in REQUESTS.findall(text)] == []
    assert not [path for path, text in pages.items() if re.search(r"""class=["']?arithmatex""", text)]
    assert not [path for path, text in pages.items() if "{#" in re.sub(r"<(pre|code).*?</\1>", "", text, flags=re.S)]
    assert "<math" in pages[site / "evaluation/00_metrics/index.html"]
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 6e6


def test_links_within_the_site_lead_to_a_page_and_a_place_on_it(site):
    anchors = {path: set(ID.findall(path.read_text("utf-8"))) for path in site.rglob("*.html")}
    links = [(path, href) for path in anchors if path.name != "404.html" for href in links_of(path)]
    assert len(links) > 3000
    for path, href in links:
        place, _, anchor = href.partition("#")
        target = (path.parent / place if place else path).resolve()
        target = target / "index.html" if target.is_dir() else target
        assert target.is_file(), (path, href)
        assert not anchor or unquote(anchor) in anchors[target], (path, href)


ID = re.compile(r"""<[^>]+\bid=["']?([^"'> ]+)""")


def links_of(path):
    "Where the links of a page lead that stay on the site."
    hrefs = re.findall(r"""<a\b[^>]*\bhref=["']?([^"'> ]+)""", path.read_text("utf-8"))
    return [html.unescape(href) for href in hrefs if not re.match(r"\w+:", href)]
