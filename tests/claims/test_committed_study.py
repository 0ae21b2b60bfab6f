"""The committed study: its tables are what this code makes of its runs, and every page says whose code trained them."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from acae_nb.claims.findings import study_words
from acae_nb.claims.runs import code_fingerprint, whose_code
from acae_nb.claims.study_report import read_studies, report_facts, study_findings
from acae_nb.claims.verdicts import VERDICT_WORDS, read_verdicts, verdicts_table

REPO = Path(__file__).resolve().parents[2]
PAGES = {"README.md": REPO / "README.md"} | {n: REPO / "nbs" / n for n in ("index.ipynb", "results.ipynb")}


def page_text(path):
    "What a reader sees of a page: Markdown, or a notebook's prose and stored outputs."
    if path.suffix == ".md":
        return path.read_text("utf-8")
    texts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            texts.append("".join(cell["source"]))
        for output in cell.get("outputs", []):
            texts.append("".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/markdown", "")))
    return "\n".join(texts)


def test_the_tables_are_what_this_code_makes_of_the_runs():
    "Were the statistics changed and the tables not made again, they would be of other code."
    facts, committed = read_verdicts(REPO / "results/claims.json")
    studies = read_studies(REPO / "results/claims")
    of_folders, not_measured = study_findings(studies)
    made = [finding for findings in of_folders.values() for finding in findings]
    assert facts == report_facts(studies, len(not_measured))
    assert [f.claim for f in committed] == [f.claim for f in made]
    for was, now in zip(committed, made):
        numbers = ("gain", "low", "high", "p", "adjusted_p", "p_of_size", "better", "worse")
        assert [getattr(was, n) for n in numbers] == pytest.approx([getattr(now, n) for n in numbers]), (
            was.claim.sentence
        )
    assert (REPO / "results/claims.json").read_bytes() == (REPO / "results/claims/report/claims.json").read_bytes()
    text = (REPO / "results/claims/report/claims.txt").read_text("utf-8")
    assert study_words(facts, len(made)) in text and VERDICT_WORDS in text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_whose_code_trained(name):
    "A page that says 'by this code' is refused once the code is another one, and so is one that says it no more."
    facts, _ = read_verdicts(REPO / "results/claims.json")
    page = page_text(PAGES[name])
    assert whose_code(facts) in page, f"{name}: run it again (make readme): expected {whose_code(facts)!r}"
    assert (facts["code"] == [code_fingerprint()]) == ("trained by this code" in page)
    assert not (facts["code"] == [code_fingerprint()] and "older code" in page)


@pytest.mark.parametrize("name", ["README.md", "index.ipynb"])
def test_a_page_has_verdicts_of_the_study(name):
    "Six to eight claims with gain and adjusted p, and of all claims how many hold, do not, and are undecided."
    _, findings = read_verdicts(REPO / "results/claims.json")
    page, verdicts = page_text(PAGES[name]), verdicts_table(findings)
    counts = verdicts["verdict"].value_counts()
    assert ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) in page
    rows = {(row["claim"], row["measure"]): row for row in verdicts.to_dict("records")}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    shown = [cells for cells in lines if cells[-1] in set(verdicts["verdict"])]
    assert 6 <= len(shown) <= 8
    for cells in shown:
        row = rows[tuple(cells[:2])]
        assert cells[2:5] == [f"{row['this']:.1f}", f"{row['that']:.1f}", f"{row['gain']:+.1f}"]
        assert cells[6:] == [f"{row['adjusted p']:.4f}", row["verdict"]]


def test_a_claim_of_this_code_is_seen_through():
    "The statement changes with the code, so that the test of the pages can fail."
    assert (
        whose_code({"code": [code_fingerprint()]})
        == f"All runs were trained by this code (fingerprint {code_fingerprint()})."
    )
    for other in (["0" * 16], [code_fingerprint(), "0" * 16], ["not recorded"]):
        assert "by this code" not in whose_code({"code": other}) and other[-1] in whose_code({"code": other})


def test_the_lock_names_commands_of_today():
    "A stage is in the lock only if it ran as dvc.yaml has it, to its end."
    stages = YAML(typ="safe").load(REPO / "claims/dvc.yaml")["stages"]
    locked = YAML(typ="safe").load(REPO / "claims/dvc.lock")["stages"]
    for name, stage in locked.items():
        assert stage["cmd"] == stages[name]["cmd"]
        assert {d["path"] for d in stage["deps"]} == {*stages[name]["deps"]}
