"""Tables say what results hold, and the page works offline."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from acae_nb.evaluation.protocols import embedded_protocol, evaluate
from acae_nb.reporting.plots import pose_figure, result_bars
from acae_nb.reporting.reports import (
    SYNTHETIC,
    Column,
    Pre,
    Section,
    machine,
    part_html,
    resource_table,
    results_table,
    table_text,
    write_report,
)
from acae_nb.skeletons.joints import load_skeleton, union

COCO = load_skeleton("coco_17")
BOTH = union([load_skeleton("h36m_17"), load_skeleton("smpl_24")], "both")
POSE = np.random.default_rng(0).normal([0, 0, 3000], 300, (17, 3))
TABLE = pd.DataFrame({"MPJPE": [100.0, 80], "PCK@100": [40.0, 60]}, index=["separate", "latent & co <b>"])
OUTSIDE = re.compile(r"https?://|src=['\"]//|@import|href=['\"](?!#)")


def result(off, skeleton=BOTH):
    truth = np.random.default_rng(1).normal([0, 0, 4000], 300, (4, len(skeleton), 3))
    noise = np.random.default_rng(2).normal(0, off, truth.shape)
    return evaluate(truth + noise, truth, skeleton, embedded_protocol(skeleton), {"collection": ["a"] * 4})


def test_results_table_takes_numbers_of_one_protocol():
    results = {"near": result(10), "far": result(60)}
    table = results_table(results, SYNTHETIC)
    assert (
        table.loc["far", "along ray"] == results["far"].overall["inconsistency along"]
        and table.loc["near", "MPJPE"] < table.loc["far", "MPJPE"]
    )
    with pytest.raises(ValueError, match="found none for \\['PCK@7'\\]"):
        results_table(results, [Column("x", "PCK@7", "%")])
    with pytest.raises(ValueError, match="different protocols"):
        results_table({**results, "other": result(10, union([COCO, BOTH], "three"))}, SYNTHETIC)


def test_table_text_reads_back():
    columns = [Column("MPJPE", "MPJPE", "mm"), Column("PCK@100", "PCK@100", "%")]
    lines = table_text(TABLE.assign(**{"PCK@100": [np.nan, 60.04]}), columns).splitlines()
    assert (
        lines[0].split() == ["MPJPE", "PCK@100"]
        and lines[1].split() == ["mm", "%"]
        and lines[2].split() == ["separate", "100.0", "-"]
        and lines[3].endswith("80.0     60.0")
    )


def test_resources_are_summed(tmp_path):
    assert resource_table(tmp_path / "absent").empty
    for name, used in {"a": (1, 2, 30), "b": (10, 20, 20)}.items():
        (tmp_path / f"{name}.json").write_text(
            json.dumps(dict(zip(("wall_seconds", "cpu_seconds", "peak_memory_mb"), used)))
        )
    assert resource_table(tmp_path).loc["all stages"].tolist() == [11, 22, 30] and "core" in machine()


def test_folded_text():
    text = part_html(Pre("a < b", "more & more"))
    assert text == "<details><summary>more &amp; more</summary><pre>a &lt; b</pre></details>"


def test_a_page_is_the_same_each_time(tmp_path):
    pages = [
        write_report(
            tmp_path / f"{k}.html", [Section("s", [pose_figure({"coco": (COCO, POSE)}), result_bars(TABLE), TABLE])]
        ).read_bytes()
        for k in "ab"
    ]
    assert pages[0] == pages[1]


def test_report_is_one_page_that_works_offline(tmp_path):
    image = tmp_path / "x.png"
    result_bars(TABLE).savefig(image)
    parts = [
        "a < b & c",
        Pre("line 1\n  line <2>"),
        TABLE,
        result_bars(TABLE),
        pose_figure({"coco": (COCO, POSE)}),
        image,
    ]
    text = write_report(
        tmp_path / "out" / "report.html", [Section("First <one>", parts), Section("Second", ["x"])], "A & B"
    ).read_text()
    assert not OUTSIDE.search(text) and (tmp_path / "out" / "plotly.min.js").exists()
    assert (
        text.count("data:image/jpeg;base64,") == 1
        and text.count("data:image/png;base64,") == 1
        and "plotly-graph-div" in text
    )
    for escaped in (
        "a &lt; b &amp; c",
        "line &lt;2&gt;",
        "First &lt;one&gt;",
        "latent &amp; co &lt;b&gt;",
        "<title>A &amp; B</title>",
        "<h2 id='s1'>Second</h2>",
    ):
        assert escaped in text
    assert "nan" not in part_html(pd.DataFrame({"a": [np.nan]})).lower()
    with pytest.raises(TypeError, match="found int"):
        write_report(tmp_path / "y.html", [Section("s", [3])])
    assert not (tmp_path / "y.html").exists()


def test_a_report_without_plotly_needs_no_script(tmp_path):
    text = write_report(tmp_path / "report.html", [Section("s", ["x"])]).read_text()
    assert "script" not in text and sorted(p.name for p in tmp_path.iterdir()) == ["report.html"]
