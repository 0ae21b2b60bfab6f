"""The report of the study on made-up runs: where each claim is read, together adjusted, of one code, in part."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from acae_nb.claims.beside_the_paper import NOT_COMPARABLE, printed_gains
from acae_nb.claims.findings import Run, write_run
from acae_nb.claims.study_claims import ACROSS, ALONG, CLAIMS_OF, CURVES, variants_of
from acae_nb.claims.study_report import along_and_across, format_errors, read_studies, report, study_findings
from acae_nb.claims.verdicts import read_verdicts, verdict_of

SUBJECTS = 16
MEASURES = ("MPJPE", "PA-MPJPE", "CPS@200", "inconsistency", "inconsistency along", "inconsistency across")
FORMATS = ("smpl_24", "surface_markers_42", "h36m_25", "mpi_inf_3dhp_28", "smplx_42", "jta_22")


def runs_of(folder, seeds=5, code="0123", gain=0.0):
    "Runs of all variants that the claims of a folder are about; those that claims call better are better by `gain`."
    better, runs = {claim.better for claim in CLAIMS_OF[folder]}, []
    hard = np.random.default_rng(0).normal(100, 30, SUBJECTS)
    for number, variant in enumerate(variants_of(folder)):
        for seed in range(1, seeds + 1):
            rng = np.random.default_rng([number, seed])
            names = (*MEASURES, *(f"{name} MPJPE" for name in FORMATS))
            level = hard - gain * (variant in better)
            scores = {name: tuple(level + rng.normal(0, 1, SUBJECTS)) for name in names}
            subjects = tuple(f"s{k}" for k in range(SUBJECTS))
            facts = {"test": folder, "code": code, "seconds": 60.0, "machine": "a desk", "training": "9 steps"}
            runs.append(Run(variant, seed, subjects, (10,) * SUBJECTS, scores, facts))
    return runs


def write(root, folder, runs):
    for run in runs:
        write_run(root / folder / f"{run.variant.replace(' ', '_')}-{run.seed}.json", run)


def test_every_claim_is_read_in_its_folder_and_adjusted_with_all_others():
    studies = {folder: runs_of(folder) for folder in CLAIMS_OF}
    findings, not_measured = study_findings(studies)
    assert not_measured == []
    assert {folder: [f.claim for f in of_folder] for folder, of_folder in findings.items()} == {
        folder: [*claims] for folder, claims in CLAIMS_OF.items()
    }
    every = [finding for of_folder in findings.values() for finding in of_folder]
    assert np.allclose([f.adjusted_p for f in every], false_discovery_control([f.p for f in every]))
    runs = studies["study/validation"]
    alone = [verdict_of(f.claim, runs).p_of_size for f in findings["study/validation"]]
    assert all(f.p_of_size >= p for f, p in zip(findings["study/validation"], alone))


def test_a_claim_is_not_read_elsewhere():
    "Runs of a variant in another folder are of other people: they say nothing."
    findings, not_measured = study_findings({"study/validation": runs_of("study/tests")})
    assert not any(findings[folder] for folder in CLAIMS_OF if folder != "study/validation")
    assert {*CLAIMS_OF["study/tests"]} <= {*not_measured}


def test_depth_against_the_rest_is_of_the_same_run():
    runs = runs_of("study/tests", seeds=2)
    pair = along_and_across(runs)
    assert [(run.variant, run.seed) for run in pair] == [(ALONG, 1), (ACROSS, 1), (ALONG, 2), (ACROSS, 2)]
    [separate] = [run for run in runs if (run.variant, run.seed) == ("separate", 2)]
    assert pair[2].scores == {"distance": separate.scores["inconsistency along"]}
    assert pair[3].scores == {"distance": separate.scores["inconsistency across"]}


def test_runs_of_two_codes_are_no_study(tmp_path):
    runs = runs_of("study/tests", seeds=2)
    write(tmp_path, "study/tests", runs)
    write(tmp_path, "study/tests", runs_of("study/tests", seeds=1, code="4567"))
    with pytest.raises(ValueError, match="study/tests: expected runs of one code, found 0123, 4567"):
        read_studies(tmp_path)


def test_a_part_of_the_study_is_a_part_of_the_table(tmp_path):
    of_one_seed = runs_of("study/tests", seeds=1)
    write(tmp_path, "study/tests", of_one_seed)
    with pytest.raises(ValueError, match="expected runs of two variants of a claim with two seeds"):
        report(tmp_path, tmp_path / "out")
    some = [run for run in runs_of("study/tests", seeds=2, gain=20.0) if run.variant in ("separate", "merged")]
    write(tmp_path, "study/tests", some)
    findings = report(tmp_path, tmp_path / "out")
    assert [f.claim.better for f in findings] == ["separate", ACROSS]
    assert findings[0].verdict == "holds" and findings[0].gain == pytest.approx(20, abs=1)
    facts, read = read_verdicts(tmp_path / "out/claims.json")
    claims = sum(map(len, CLAIMS_OF.values()))
    assert (
        read == findings
        and facts["not measured"] == claims - 2
        and facts["folders"] == {"study/tests": len(of_one_seed) + 2}
    )
    text = (tmp_path / "out/claims.txt").read_text("utf-8")
    assert "study/tests: study/tests, 160 poses of 16 subjects" in text and "separate joints beat joints merged" in text
    assert "consistency lowers the error" not in text and not (tmp_path / "out/latents.jpg").exists()


def test_the_whole_study_has_its_curves_and_the_errors_of_each_format(tmp_path):
    for folder in CLAIMS_OF:
        write(tmp_path, folder, runs_of(folder, seeds=2, gain=5.0))
    findings = report(tmp_path, tmp_path / "out")
    assert all((tmp_path / f"out/{name}.jpg").stat().st_size > 3000 for name in ("claims", *CURVES))
    text = (tmp_path / "out/claims.txt").read_text("utf-8")
    for claim in (finding.claim for finding in findings):
        assert (f"{claim.sentence} ({claim.measure}): half-width" in text) == bool(printed_gains(claim))
    errors = pd.read_csv(tmp_path / "out/formats.csv")
    assert {*errors["study"]} == {"study", "more_people", "dozens"} and {*errors["format"]} == {*FORMATS}
    assert (errors["from"] <= errors["MPJPE"]).all() and (errors["MPJPE"] <= errors["to"]).all()
    assert len(format_errors({"study/validation": runs_of("study/validation", 2)})) == 0
    facts, _ = read_verdicts(tmp_path / "out/claims.json")
    # a run that is scored on tests and validation is one run
    scored = {(folder.split("/")[0], v, s) for folder in CLAIMS_OF for v in variants_of(folder) for s in (1, 2)}
    assert facts["runs"] == len(scored) and facts["seconds"] == 60 * len(scored)


def test_every_source_has_a_word():
    assert {claim.source for claims in CLAIMS_OF.values() for claim in claims} <= {*NOT_COMPARABLE}
