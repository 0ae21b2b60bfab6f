"""The authors' printed tables: complete, of known protocols, and never in one table with numbers measured here."""

import json
from pathlib import Path

import numpy as np

from acae_nb.claims.published_results import published_results
from acae_nb.evaluation.benchmarks import PROTOCOLS

REPO = Path(__file__).resolve().parents[2]


def test_tables_are_complete():
    tables = published_results()
    assert {n: t.table.shape for n, t in tables.items()} == {
        "ablation": (8, 16),
        "prior work": (11, 7),
        "speed": (8, 2),
        "predecessor": (11, 6),
    }
    assert not tables["ablation"].table.isna().any(axis=None) and np.isnan(
        tables["prior work"].table.loc["Sun 2021 (ROMP)", "Human3.6M MPJPE"]
    )
    assert (
        tables["ablation"].table.loc["L, consistency", "Human3.6M MPJPE"] == 40.6
        and tables["prior work"].table.loc["384 px, 800k steps, EfficientNetV2-L, 5 crops", "3DPW MPJPE"] == 57.0
    )


def test_every_table_says_whose_it_is_and_by_what_protocol():
    for table in published_results().values():
        assert table.source and "as printed by the authors" in table._repr_html_()
        for dataset, protocol in table.protocols.items():
            assert protocol in PROTOCOLS and any(c.startswith(dataset) for c in table.table)


def test_percentages_and_errors_are_plausible():
    for name, table in published_results().items():
        for column in table.table:
            values = table.table[column].dropna()
            if "PCK" in column or "CPS" in column:
                assert values.between(20, 100).all(), (name, column)
            elif "MPJPE" in column:
                assert values.between(20, 120).all(), (name, column)


def test_the_results_page_keeps_them_apart():
    "No cell of the page shows the authors' numbers among measured ones; differences alone are beside each other."
    cells = [
        "".join(c["source"])
        for c in json.loads((REPO / "nbs/results.ipynb").read_text())["cells"]
        if c["cell_type"] == "code"
    ]
    both = [c for c in cells if "published[" in c and ("measured" in c or "findings" in c)]
    assert not both and sum("beside_the_paper(findings)" in c for c in cells) == 1
