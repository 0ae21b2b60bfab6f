"""Every kind of page that the package, its pipeline and its documentation make, opened in Chromium: its console shows
no error, it asks nothing of any other machine, and what it is about is drawn."""

import shutil

import numpy as np
import pandas as pd
import pytest
from browser import Browser, Page, served
from conftest import REPO
from matplotlib.figure import Figure

from acae_nb.reporting.plots import pose_figure, write_html
from acae_nb.reporting.reports import Pre, Section, write_report
from acae_nb.skeletons.joints import load_skeleton
from acae_nb.workflow.cli import main


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


def expect_quiet(page: Page, *own: str) -> None:
    "No error in the console, and no address outside `own` asked for."
    elsewhere = [url for url in page.requests if not url.startswith((*own, "data:", "blob:"))]
    assert not page.errors and not elsewhere, (page.errors, elsewhere)


def coloured(picture: np.ndarray) -> int:
    "Pixels of bones and joints: saturated, which neither the walls of plotly's cube nor its texts are."
    scene = picture[:, : picture.shape[1] * 3 // 4].astype(int)  # the names of the curves are on the right
    return int((np.ptp(scene, axis=-1) > 80).sum())


def expect_people_in_3d(page: Page, moving: bool) -> None:
    "The first figure of plotly shows bones, and other ones after `play`."
    page.wait_for("document.querySelector('.js-plotly-plot .gl-container canvas')")
    page.wait_for("document.querySelector('.js-plotly-plot')._fullLayout.scene._scene")
    still = page.picture(".gl-container canvas")
    assert coloured(still) > 300, "plotly's scene has no bones in it"
    if moving:
        page.click(".updatemenu-button")
        page.wait_for("document.querySelector('.js-plotly-plot')._fullLayout.sliders[0].active > 0")
        assert (page.picture(".gl-container canvas") != still).any(), "the bones do not move"


def expect_pictures(page: Page, at_least: int) -> None:
    "Every picture of the page is there."
    sizes = page.evaluate("Array.from(document.images, i => i.loading == 'lazy' ? 1 : i.naturalWidth)")
    assert len(sizes) >= at_least and all(sizes), sizes


@pytest.fixture(scope="module")
def walk():
    "A person who walks to the right, mm, camera frame."
    skeleton = load_skeleton("coco_17")
    body = np.random.default_rng(0).normal([0, 0, 4000], [150, 400, 100], (17, 3))
    return skeleton, body + np.arange(6)[:, None, None] * [200, 0, 0]


def test_predict_html(browser, tmp_path):
    "The command's own page, of the packaged model on the packaged picture twice."
    for name in ("1.jpg", "2.jpg"):
        shutil.copy(REPO / "acae_nb/data/people.jpg", tmp_path / name)
    output = tmp_path / "page.html"
    assert main(["predict", str(tmp_path), "-o", str(output), "--rate", "10", "--looks", "1"]) == 0
    page = browser.open(output.as_uri())
    expect_people_in_3d(page, moving=False)
    names = page.evaluate("Array.from(document.querySelectorAll('.legendtext'), e => e.textContent)")
    assert "person 1, smpl_24" in names
    expect_quiet(page, output.as_uri())


def test_a_figure_that_moves(browser, tmp_path, walk):
    path = write_html(pose_figure({"walk": walk}), tmp_path / "walk.html")
    page = browser.open(path.as_uri())
    expect_people_in_3d(page, moving=True)
    expect_quiet(page, tmp_path.as_uri())


BREAKS = {
    "a script that is not there": ("plotly.min.js", "gone.js"),
    "an error in a script": ("</body>", "<script>throw new Error('broken')</script></body>"),
    "a picture from elsewhere": ("</body>", "<img src='http://127.0.0.1:65000/x.png'></body>"),
    "a word in the console": ("</body>", "<script>console.error('broken')</script></body>"),
    "curves that cannot be seen": ('"visible":true', '"visible":true,"opacity":0'),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_page_is_noticed(browser, tmp_path, walk, name):
    path = write_html(pose_figure({"walk": walk}), tmp_path / "walk.html")
    text = path.read_text("utf-8")
    assert BREAKS[name][0] in text
    path.write_text(text.replace(*BREAKS[name]), "utf-8")
    page = browser.open(path.as_uri())
    with pytest.raises(AssertionError):
        expect_quiet(page, tmp_path.as_uri())
        expect_people_in_3d(page, moving=False)


def test_a_report(browser, tmp_path, walk):
    curve = Figure(figsize=(3, 2))
    curve.add_subplot().plot([0, 1], [1, 0])
    table = pd.DataFrame({"MPJPE": [61.5]}, index=["model"])
    parts = ["Text with <b>.", Pre("a log", summary="log"), table, curve, pose_figure({"walk": walk})]
    path = write_report(tmp_path / "index.html", [Section("Poses", parts)])
    page = browser.open(path.as_uri())
    expect_people_in_3d(page, moving=True)
    expect_pictures(page, 1)
    assert page.evaluate("document.querySelector('details').open") is False
    expect_quiet(page, tmp_path.as_uri())


def test_the_report_of_the_pipeline(browser):
    path = REPO / "artifacts/report/index.html"
    if not path.exists():
        pytest.skip(f"{path.relative_to(REPO)} is not there: make repro makes it")
    page = browser.open(path.as_uri())
    expect_people_in_3d(page, moving=False)
    expect_pictures(page, 3)
    expect_quiet(page, path.parent.as_uri())


def test_a_notebook_as_a_page(browser, tmp_path):
    "As the pipeline leaves each notebook that it ran in reports/."
    write_page = pytest.importorskip("acae_nb.workflow.stage", reason="the extra `stage` is not installed").write_html
    path = tmp_path / "cameras.html"
    write_page(REPO / "nbs/geometry/00_cameras.ipynb", path)
    page = browser.open(path.as_uri())
    assert page.evaluate("document.querySelectorAll('.jp-Cell').length") > 5
    expect_pictures(page, 1)
    expect_quiet(page, path.as_uri())


# --- The documentation site -------------------------------------------------------------------------------------------
TABS = ["Start", "Tutorials", "Guides", "Library", "Data sets", "API"]
SITE_PAGES = {
    "": 3,
    "results/": 1,
    "tutorials/first_pose/": 2,
    "evaluation/00_metrics/": 0,
    "datasets/h36m/": 0,
    "api/": 0,
}


@pytest.mark.parametrize("place, pictures", SITE_PAGES.items(), ids=[place or "start" for place in SITE_PAGES])
def test_a_page_of_the_site(browser, site, place, pictures):
    with served(site) as address:
        page = browser.open(f"{address}/{place}")
        tabs = page.evaluate("Array.from(document.querySelectorAll('.md-tabs__link'), e => e.innerText.trim())")
        assert tabs == TABS
        assert page.evaluate("document.querySelector('article h1').getBoundingClientRect().height") > 10
        colours = "getComputedStyle(document.querySelector('.md-header')).backgroundColor"
        assert page.evaluate(colours) != "rgba(0, 0, 0, 0)"  # the style sheet is there
        expect_pictures(page, pictures)
        expect_quiet(page, address)


def test_the_way_to_other_pages(browser, site):
    "What stands once in site.js is on the page: the name, a search, and a way to each page of the section."
    with served(site) as address:
        page = browser.open(f"{address}/geometry/03_gltf/")
        assert page.evaluate("document.querySelector('.md-search__input').getBoundingClientRect().width") > 50
        topics = "Array.from(document.querySelectorAll('.md-header__topic'), e => e.textContent.trim())"
        assert page.evaluate(topics) == ["acae_nb", "Skeletons that move, as glTF"]
        links = "Array.from(document.querySelectorAll('.md-nav--primary a'), e => e.checkVisibility() ? e.href : '')"
        shown = [link for link in page.evaluate(links) if link]
        siblings = {f"{address}/geometry/{path.stem}/" for path in (REPO / "nbs/geometry").glob("*.ipynb")}
        assert siblings < {*shown} and len(siblings) == 4
        for link in shown:
            assert (site / link.removeprefix(f"{address}/") / "index.html").is_file(), link
        marked = page.evaluate("Array.from(document.querySelectorAll('.md-nav__link--active'), e => e.href)")
        assert marked[0] == f"{address}/geometry/03_gltf/"
        expect_quiet(page, address)


def test_formulas_are_drawn(browser, site):
    with served(site) as address:
        page = browser.open(f"{address}/evaluation/00_metrics/")
        sizes = page.evaluate("Array.from(document.querySelectorAll('article math'), e => e.offsetWidth || 1)")
        assert sizes and min(sizes) > 0
        expect_quiet(page, address)


@pytest.mark.parametrize("word, place", [("estimate", "api/"), ("human3.6m", "datasets/h36m/")])
def test_the_search_finds(browser, site, word, place):
    with served(site) as address:
        page = browser.open(f"{address}/?q={word}")
        page.wait_for("document.querySelector('.md-search-result__link')")
        links = page.evaluate("Array.from(document.querySelectorAll('.md-search-result__link'), e => e.href)")
        found = list(dict.fromkeys(link.partition("?")[0] for link in links))
        assert f"{address}/{place}" in found[:3], found
        expect_quiet(page, address)
