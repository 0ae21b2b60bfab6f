"""Hooks of mkdocs.yml: the notebooks as pages with titles that people read, their exported code as signatures and
docstrings; a list of names for each wing; links of the repository as links of the site; formulas as MathML, which needs
no script; and pages without what they repeat of each other."""

import base64
import html
import io
import json
import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import urljoin

import api
import numpy as np
from latex2mathml.converter import convert
from matplotlib.figure import Figure
from minify_html import minify
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url
from PIL import Image

REPO = Path(__file__).resolve().parent.parent
START = REPO / "nbs/tutorials/00_start.ipynb"
WINGS = {
    "skeletons": "Skeletons",
    "geometry": "Cameras",
    "autoencoder": "The autoencoder",
    "examples": "Labelled pictures",
    "models": "Models",
    "training": "Training",
    "evaluation": "Evaluation",
    "inference": "Poses of pictures",
    "people": "Rendered people",
    "reporting": "Plots and reports",
    "workflow": "Pipeline and command line",
    "claims": "The study of the claims",
    "basics": "Files and processes",
}
SIGNATURES = {**WINGS, "datasets": "Data sets"}
TEXTS = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
ABOUT = {"contributing.md": "How to contribute", "changelog.md": "Changes"}
GUIDES = ("own_data", "calibration", "outputs", "profiles")


# Which file of the repository becomes which page


@cache
def cells(path: Path) -> list[dict]:
    "The cells of a notebook, each source one text."
    notebook = json.loads(path.read_text("utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"]]


def notebooks(wing: str) -> list[Path]:
    return sorted((REPO / "nbs" / wing).glob("*.ipynb"))


def tutorials() -> list[Path]:
    "The start page, and the tutorials in the order of its table."
    names = re.findall(r"\]\((\w+\.ipynb)\)", "".join(cell["source"] for cell in cells(START)))
    return [START, *(START.parent / name for name in dict.fromkeys(names))]


def page_of(path: Path) -> str:
    "The page of a notebook or text of the repository: nbs/models/03_pose_model.ipynb -> models/03_pose_model.md."
    name = path.relative_to(REPO).as_posix()
    return TEXTS.get(name) or name.removeprefix("nbs/").removeprefix("docs/").replace(".ipynb", ".md")


@cache
def sources() -> dict[Path, str]:
    "Every file that becomes a page, and the page."
    paths = [REPO / "nbs/index.ipynb", REPO / "nbs/results.ipynb", *tutorials(), *(REPO / name for name in TEXTS)]
    paths += [path for wing in (*WINGS, "datasets") for path in notebooks(wing)]
    return {path: page_of(path) for path in [*paths, *(REPO / "docs").rglob("*.md")]}


def title_of(path: Path) -> str:
    "The first heading of a notebook or text."
    text = cells(path)[0]["source"] if path.suffix == ".ipynb" else path.read_text("utf-8")
    return re.search(r"^# (.+)$", text, re.M)[1]


def titled(paths: list[Path]) -> list[dict[str, str]]:
    return [{title_of(path): page_of(path)} for path in paths]


def on_config(config):
    wings = [{name: titled(notebooks(wing))} for wing, name in WINGS.items()]
    signatures = [{name: f"api/{wing}.md"} for wing, name in SIGNATURES.items()]
    config.nav = [
        {"Start": ["index.md", {"Results": "results.md"}, *({title: page} for page, title in ABOUT.items())]},
        {"Tutorials": titled(tutorials())},
        {"Guides": titled([REPO / f"docs/guides/{name}.md" for name in GUIDES])},
        {"Library": [{"The wings": "architecture.md"}, {"The method": "method.md"}, *wings]},
        {"Data sets": titled(sorted(notebooks("datasets"), key=lambda path: title_of(path).casefold()))},
        {"API": [{"Public names": "api/index.md"}, *signatures]},
    ]
    return config


def on_files(files, config):
    pages = sources()
    for path, page in pages.items():
        if path.suffix == ".ipynb":
            text, pictures = notebook_page(path, page)
            for name, content in pictures.items():
                files.append(File.generated(config, name, content=content))
        elif path.is_relative_to(REPO / "docs"):
            continue  # mkdocs reads it itself
        else:
            text = path.read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "api/index.md", content=api.public_page()))
    for wing, heading in SIGNATURES.items():
        files.append(File.generated(config, f"api/{wing}.md", content=api.wing_page(wing, heading)))
    for picture in sorted({target for path in pages for target in shown_files(path)}):
        files.append(File.generated(config, file_uri(picture), content=as_webp(picture.read_bytes())))
    return files


def file_uri(picture: Path) -> str:
    return f"files/{picture.stem}.webp"


# A notebook as a page

PICTURES = {"image/png": "webp", "image/jpeg": "webp", "image/svg+xml": "svg"}
PLOTLY = "application/vnd.plotly.v1+json"


def notebook_page(path: Path, page: str) -> tuple[str, dict[str, bytes]]:
    "(markdown, pictures by their place on the site) of a notebook with its stored outputs."
    parts, pictures, notebook = [], {}, path.relative_to(REPO).as_posix()
    for cell in cells(path):
        if cell["cell_type"] == "markdown":
            parts.append(cell["source"])
        elif cell["cell_type"] == "code" and "#| hide" not in cell["source"]:
            code = "\n".join(line for line in cell["source"].splitlines() if not line.startswith("#|")).strip()
            if "#| export" in cell["source"]:
                parts.append("".join(f'<a id="{name}"></a>' for name in api.names_in(code)))
                code = api.outline(code)
            parts += [fenced(code, "python")] * bool(code)
            heading = next((p for p in reversed(parts) if p.startswith("#")), "").splitlines()
            label = heading[0].strip("# ") if heading else page
            for output in cell["outputs"]:
                parts.append(shown_output(output, page.removesuffix(".md"), label, pictures))
    if any("#| export" in cell["source"] for cell in cells(path)):
        parts.append(f"What is defined here is shown without its code, which stands in `{notebook}`.")
    return "\n\n".join(part for part in parts if part), pictures


def shown_output(output, place: str, label: str, pictures: dict[str, bytes]) -> str:
    "Markdown of one output: its picture, else its table, else its text. What went to stderr is left out."
    if output["output_type"] == "stream":
        return text_block("".join(output["text"])) if output["name"] == "stdout" else ""
    data = {
        kind: "".join(content) if isinstance(content, list) else content
        for kind, content in output.get("data", {}).items()
    }
    for kind, ending in PICTURES.items():
        if kind in data:
            content = data[kind].encode() if ending == "svg" else as_webp(base64.b64decode(data[kind]))
            return picture_line(content, ending, place, label, pictures)
    if PLOTLY in data:
        return picture_line(still(data[PLOTLY]), "webp", place, label, pictures)
    if "text/markdown" in data:
        return data["text/markdown"]
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>|<script.*?</script>", "", data["text/html"], flags=re.S)
        table = re.sub(r"\n\s*", " ", table).replace(' border="1"', "")
        return f'<div class="output" data-search-exclude markdown="0">{table}</div>'
    return text_block(data.get("text/plain", ""))


def as_webp(picture: bytes) -> bytes:
    "The picture of a file in a third of its bytes."
    file = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(file, "webp", quality=75, method=6)
    return file.getvalue()


def text_block(text: str) -> str:
    text = text.strip("\n")
    return fenced(text, "{.text .output}") if text.strip() else ""


def fenced(text: str, kind: str) -> str:
    "A block of code, which may have blocks of code in it."
    fence = max(re.findall("`+", text) + ["``"], key=len) + "`"
    return f"{fence}{kind}\n{text}\n{fence}"


def picture_line(content: bytes, ending: str, place: str, label: str, pictures: dict[str, bytes]) -> str:
    name = f"{place}_{len(pictures)}.{ending}"
    pictures[name] = content
    return f"![{label.translate(str.maketrans('', '', '[]`$'))}]({os.path.basename(name)})"


def still(figure: dict) -> bytes:
    "A plotly figure of 3D curves as a picture; the script that turns it would be 5 MB."
    fig = Figure(figsize=(6, 6), layout="constrained")
    axes = fig.add_subplot(projection="3d")
    for curve in figure["data"]:
        if curve.get("visible", True) is True:
            x, y, z = (values_of(curve[axis]) for axis in "xyz")
            colour = curve.get("line", {}).get("color") or curve.get("marker", {}).get("color")
            if "lines" in curve.get("mode", "lines"):
                axes.plot(x, y, z, color=colour if isinstance(colour, str) else None, linewidth=2)
            else:
                axes.scatter(x, y, z, color=colour if isinstance(colour, (str, list)) else None, s=6)
    scene = figure["layout"][
        "scene"
    ]  # as acae_nb.reporting.plots.pose_figure sets it: a cube, and where it is seen from
    axes.set(**{f"{axis}lim": scene[f"{axis}axis"]["range"] for axis in "xyz"})
    axes.set_box_aspect((1, 1, 1))
    eye = scene["camera"]["eye"]
    height = np.arctan2(eye["z"], np.hypot(eye["x"], eye["y"]))
    axes.view_init(elev=np.degrees(height), azim=np.degrees(np.arctan2(eye["y"], eye["x"])))
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=150)
    return as_webp(file.getvalue())


def values_of(axis) -> np.ndarray:
    "Plotly's numbers: a list, or base64 of a typed array."
    if isinstance(axis, dict):
        return np.frombuffer(base64.b64decode(axis["bdata"]), axis["dtype"])
    return np.array([np.nan if value is None else value for value in axis], float)


# Links of the repository, as links of the site

LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
PICTURE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def text_of(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text("utf-8")
    return "\n\n".join(cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown")


def shown_files(path: Path) -> list[Path]:
    "Pictures of the repository, outside docs, that a text shows."
    targets = [(path.parent / found["target"]).resolve() for found in PICTURE.finditer(text_of(path))]
    return [target for target in targets if target.is_file() and not target.is_relative_to(REPO / "docs")]


def on_page_markdown(markdown, page, config, files):
    pages = sources()
    origin = next((path for path, uri in pages.items() if uri == page.file.src_uri), None)
    if origin is None:
        return markdown
    here = os.path.dirname(page.file.src_uri)

    def link(found):
        target, _, anchor = found["target"].partition("#")
        anchor = f"#{anchor.lower()}" if anchor else ""  # Jupyter keeps capitals in anchors, markdown does not
        if not target:
            return f"[{found['text']}]({anchor})"
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        path = (origin.parent / target).resolve()
        if path in pages:
            relative = os.path.relpath(pages[path], here or ".")
            return f"[{found['text']}]({relative}{anchor})"
        if path.exists() and not path.is_relative_to(REPO / "docs"):
            return found["text"]  # a file of the repository that is no page
        return found[0]  # mkdocs says whether it leads nowhere

    def picture(found):
        path = (origin.parent / found["target"]).resolve()
        if path.is_file() and not path.is_relative_to(REPO / "docs"):
            return f"![{found['text']}]({os.path.relpath(file_uri(path), here or '.')})"
        return found[0]

    return PICTURE.sub(picture, LINK.sub(link, markdown))


# Formulas, and what a search reads

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_page_content(content, page, config, files):
    "Formulas as MathML; code and outputs out of the search; wide tables in boxes of their own."

    def formula(found):
        return convert(html.unescape(found[2]), display="block" if found[1] == "div" else "inline")

    content = FORMULA.sub(formula, content)
    content = re.sub(r'<div class="([^"]*\bhighlight\b)', r'<div data-search-exclude class="\1', content)
    content = TOKEN.sub(short_token, content)
    return content.replace("<table", '<div class="wide"><table').replace("</table>", "</table></div>")


# What a page need not carry

TOKEN = re.compile(r'<span class="([a-z]{1,2}[0-9]?)">([^<]*)</span>')
SHORT = {"k": "b", "kn": "b", "kc": "b", "ow": "b", "nf": "u", "nc": "u", "nd": "u", "c1": "s"}
SHORT |= dict.fromkeys(("s1", "s2", "sa", "sd", "se", "si"), "i")


def short_token(found) -> str:
    "A coloured piece of code by the shortest tag, whose colour is in site.css; other pieces as they are."
    tag = SHORT.get(found[1])
    return f"<{tag}>{found[2]}</{tag}>" if tag else found[2]


UNUSED = [  # of the theme, on every page
    (r'<span class="md-ellipsis">\s*(.*?)\s*</span>', r"\1"),  # boxes around words
    (r'\s*<span class="md-nav__icon md-icon"></span>\s*</a>', "</a>"),  # arrows at sections that are not open
    (" md-nav__item--pruned md-nav__item--nested", ""),
    (r'<input [^>]*id="__toc">(?:\s*<label .*?</label>)?', ""),  # the page's headings a second time, for phones
    (r'<nav class="md-nav md-nav--secondary".*?</nav>(?=\s*</li>)', ""),
    (r'<a [^>]*class="md-nav__button md-logo".*?</a>', ""),
    (r"<script>var (?:palette|target)=.*?</script>", ""),  # for choices of colour and tabs, which no page has
    (r'<meta name="(?:description|generator)".*?>', ""),
]
SHARED = [  # these are the same on many pages
    r"<header .*?</header>",
    r'<nav class="md-nav md-nav--primary.*?</nav>(?=\s*</div>)',
    r'<script id="__config".*?</script>',
]
THE_PAGES_OWN = [  # what differs within them: the page's title, and the mark of its link; site.js puts them there
    (r'(data-md-component="header-topic">).*?</div>', r"\1</div>"),
    (r'(<li class="md-nav__item) md-nav__item--active(">\s*<a )', r"\1\2"),
    (" md-nav__link--active", ""),
]
LINK_OF_THEME = re.compile(r'((?:href=|"base": |"search": )")([^"]*)"')
ROOT = "file:///"  # stands for where the site lies
shared_parts: dict[str, int] = {}


def on_post_page(output, page, config):
    """The same page in fewer bytes: no indentation, quotes and closing tags that HTML does not need, and a line of
    script in the place of what many pages share, which site.js puts there."""

    def share(found):
        part = LINK_OF_THEME.sub(lambda link: f'{link[1]}{urljoin(ROOT + page.url, link[2])}"', found[0])
        part = minify(replaced(part, THE_PAGES_OWN))
        return f"<script>shared({shared_parts.setdefault(part, len(shared_parts))})</script>"

    output = replaced(output, UNUSED)
    for pattern in SHARED:
        output = re.sub(pattern, share, output, flags=re.S)
    script = f'<script src="{get_relative_url("site.js", page.url)}"></script>'
    return minify(output.replace("</head>", f"{script}</head>"))


def replaced(text: str, replacements: list[tuple[str, str]]) -> str:
    for pattern, replacement in replacements:
        text = re.sub(pattern, replacement, text, flags=re.S)
    return text


def on_post_build(config):
    "What pages share, into site.js; maps of the theme's sources, and other languages of its search, go."
    site = Path(config.site_dir)
    parts = json.dumps([*shared_parts], ensure_ascii=False)
    script = site / "site.js"
    script.write_text(f"const parts = {parts};\n{script.read_text('utf-8')}", "utf-8")
    for path in [*site.rglob("*.map"), *site.glob("assets/javascripts/lunr/**/*.js")]:
        path.unlink()
