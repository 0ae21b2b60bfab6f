"""Hooks of mkdocs.yml: pages that are not notebooks, and where the front page's links to the repository lead on the
site."""

from pathlib import Path

from mkdocs.structure.files import File

REPO = Path(__file__).resolve().parent.parent
TEXTS = ("CONTRIBUTING.md", "CHANGELOG.md")
FIGURES = ("results/report/figure.jpg", "results/photographs.jpg")


def modules():
    "Every module of the package, as a dotted name."
    paths = sorted((REPO / "acae_nb").rglob("*.py"))
    return [".".join(p.relative_to(REPO).with_suffix("").parts) for p in paths if not p.name.startswith("_")]


def on_files(files, config):
    for text in TEXTS:
        files.append(File.generated(config, text, content=(REPO / text).read_text()))
    for name in modules():
        files.append(
            File.generated(config, f"api/{name.removeprefix('acae_nb.')}.md", content=f"# {name}\n\n::: {name}\n")
        )
    for figure in FIGURES:
        if (REPO / figure).is_file():
            files.append(File.generated(config, figure, content=(REPO / figure).read_bytes()))
    return files


def on_post_page(output, page, config):
    if page.file.src_uri != "index.ipynb":
        return output
    for text in TEXTS:
        output = output.replace(f'"../{text}"', f'"{text.removesuffix(".md")}/"')
    for figure in FIGURES:
        output = output.replace(f'"../{figure}"', f'"{figure}"')
    return output.replace('"../nbs/', '"').replace('.ipynb"', '/"')
