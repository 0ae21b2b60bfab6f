"""Claims beside the authors' numbers: their gains by hand, directions as a table, and nothing else compared."""

import json
from pathlib import Path

import pytest

from acae_nb.claims.beside_the_paper import NOT_COMPARABLE, PRINTED_MODELS, beside_the_paper, comparison, printed_gains
from acae_nb.claims.findings import CLAIMS, VARIANTS, Claim, Finding
from acae_nb.claims.published_results import published_results
from acae_nb.claims.verdicts import read_verdicts

REPO = Path(__file__).resolve().parents[2]
MERGING = Claim("separate joints beat joints merged by name", "separate", "merged", "MPJPE")


def finding(gain, adjusted_p, claim=MERGING):
    return Finding(claim, gain, gain - 1, gain + 1, adjusted_p, adjusted_p, 100.0, 100.0 + gain, 5, 48)


@pytest.mark.parametrize(
    "better, worse, measure, lower, backbone, gains",
    [  # subtracted by hand from method.md 3.1: MuPoTS-3D, 3DPW, MPI-INF-3DHP, Human3.6M
        ("separate", "merged", "MPJPE", True, "S", [7.3, 10.7, 10.2, -0.1]),
        ("consistency", "separate", "PA-MPJPE", True, "S", [1.2, 0.4, 0.5, 1.0]),
        ("consistency", "separate", "CPS@200", False, "S", [6.9, 0.8, 0.9, 0.0]),
        ("consistency", "latent", "MPJPE", True, "S", [1.2, 0.5, 1.0, 1.3]),
        ("consistency", "separate", "MPJPE", True, "L", [1.9, 0.3, 1.2, 1.0]),
        ("consistency", "hybrid", "CPS@200", False, "L", [0.9, 0.0, 0.4, 0.0]),
        ("separate", "merged", "MPJPE", True, "L", []),  # no such row
        ("consistency", "separate", "inconsistency", True, "S", []),  # no such column
        ("consistency", "latents 8", "MPJPE", True, "S", []),
    ],
)
def test_the_authors_gains(better, worse, measure, lower, backbone, gains):
    assert [*printed_gains(Claim("x", better, worse, measure, lower), backbone).values()] == gains


@pytest.mark.parametrize(
    "gain, adjusted_p, printed, words",
    [
        (3, 0.01, [1, 1, 1, -1], "direction: same, authors 3 of 4 data sets for it"),
        (-3, 0.01, [1, 1, 1, -1], "direction: opposite, authors 3 of 4 data sets for it"),
        (-3, 0.01, [-1, -1, -1, 0], "direction: same, authors 0 of 4 data sets for it"),
        (3, 0.01, [-1, -1, 1, 0], "direction: opposite, authors 1 of 4 data sets for it"),
        (3, 0.06, [1, 1, 1, 1], "direction: undecided here, authors 4 of 4 data sets for it"),
        (3, 0.01, [1, 1, -1, -1], "direction: the authors' data sets disagree"),
        (3, 0.01, [], NOT_COMPARABLE[""]),
    ],
)
def test_directions(gain, adjusted_p, printed, words):
    assert comparison(finding(gain, adjusted_p), dict(zip("abcd", printed))) == words


def test_every_finding_has_a_row_and_a_word():
    findings = read_verdicts(REPO / "results/claims.json")[1]
    table = beside_the_paper(findings)
    assert list(table["claim"]) == [f.claim.sentence for f in findings] and (table["comparable"] != "").all()
    printed = [claim for claim in CLAIMS if printed_gains(claim)]
    assert {c for claim in printed for c in (claim.better, claim.worse)} == {*PRINTED_MODELS} <= {*VARIANTS}
    assert (table["comparable"].str.startswith("direction") == (table["authors: 3DPW"] != "")).all()
    assert {claim.source for claim in CLAIMS} <= {*NOT_COMPARABLE}


def test_columns_say_whose_they_are():
    "Each number stands under the name of who measured it, and all of the authors' are differences."
    table = beside_the_paper([finding(3, 0.01)])
    assert all(c.startswith(("authors: ", "here: ")) or c in ("claim", "measure", "comparable") for c in table)
    assert [c.removeprefix("authors: ") for c in table if c.startswith("authors: ")] == [
        *published_results()["ablation"].protocols
    ]


def test_the_results_page_shows_the_committed_findings_so():
    cells = json.loads((REPO / "nbs/results.ipynb").read_text("utf-8"))["cells"]
    tables = [
        "".join(output["data"]["text/html"])
        for cell in cells
        for output in cell.get("outputs", [])
        if "comparable" in "".join(output.get("data", {}).get("text/html", ""))
    ]
    assert len(tables) == 1
    for _, row in beside_the_paper(read_verdicts(REPO / "results/claims.json")[1]).iterrows():
        cells_of_row = "\n".join(f"      <td>{value}</td>".replace("&", "&amp;") for value in row)
        assert cells_of_row in tables[0], row["claim"]
