"""The field's benchmarks: what each protocol says (method.md 4), and its numbers against the authors' formulas written
out."""

import json

import numpy as np
import pytest

from acae_nb.evaluation.benchmarks import (
    EMDB_1,
    HUMAN36M,
    MUPOTS,
    MUPOTS_BONES,
    MUPOTS_PAPER,
    PROTOCOLS,
    TDPW_TEST_14,
    TDPW_TEST_14_REGRESSED,
    TDPW_WHOLE,
    mupots_protocol,
    protocol_named,
)
from acae_nb.evaluation.metrics import acceleration_error, procrustes
from acae_nb.evaluation.protocols import Protocol, evaluate
from acae_nb.skeletons.joints import load_skeleton


def people(skeleton, n=60, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.normal([0, 0, 4000], [200, 400, 200], (n, len(skeleton), 3))
    return true + rng.normal(0, 30, true.shape) + rng.normal(0, 60, (n, 1, 3)), true


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_goes_through_json_and_prints(name):
    protocol = PROTOCOLS[name]
    again = Protocol.from_dict(json.loads(json.dumps(protocol.to_dict())))
    assert again == protocol and again.hash == protocol.hash and protocol.hash[:12] in protocol.text
    assert len({m.name for m in protocol.measures}) == len(protocol.measures)
    for rule in protocol.formats:
        assert {*rule.joints} <= {*load_skeleton(rule.format).joints}


def test_no_two_protocols_share_a_hash():
    assert len({p.hash for p in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_protocols_by_name(tmp_path):
    skeleton = load_skeleton("smpl_24")
    (tmp_path / "own.json").write_text(json.dumps(EMDB_1.to_dict()))
    assert protocol_named("emdb-1", skeleton) == protocol_named(str(tmp_path / "own.json"), skeleton) == EMDB_1
    assert protocol_named("embedded", skeleton).formats[0].format == "smpl_24"
    with pytest.raises(ValueError, match="expected one of .*human36m.*found 'h36m'"):
        protocol_named("h36m", skeleton)


def test_3dpw_whole_set_equals_the_authors_formulas():
    "The formulas of the authors' 3DPW script (method.md 4), written out for arrays without gaps."
    skeleton = load_skeleton("smpl_24")
    pred, true = people(skeleton)
    result = evaluate(pred, true, skeleton, TDPW_WHOLE, {"sequence": ["a"] * 60}).overall
    p, t = pred - pred[:, :1], true - true[:, :1]
    limbs = [1, 2, 4, 5, 7, 8, 16, 17, 18, 19, 20, 21]
    d, a, pa = (np.linalg.norm(x, axis=-1) for x in (p - t, pred - true, procrustes(p, t) - t))
    expected = {
        "MPJPE": d.mean(),
        "PA-MPJPE": pa.mean(),
        "A-MPJPE": a.mean(),
        "PCK@50 (12 joints)": 100 * (d[:, limbs] <= 50).mean(),
        "APCK@150 (12 joints)": 100 * (a[:, limbs] <= 150).mean(),
        "AUC@199 (12 joints, 50 bins)": 100 * np.maximum(0, 1 - (np.floor(d[:, limbs] / 199 * 50) + 0.5) / 50).mean(),
        "PA-CPS-AUC@300 (12 joints)": 100 * np.maximum(0, 1 - pa[:, limbs].max(1) / 300).mean(),
        **{f"PA-CPS@{k} (12 joints)": 100 * (pa[:, limbs].max(1) <= k).mean() for k in (50, 75, 100, 125, 150)},
    }
    for name, value in expected.items():
        assert np.isclose(result[name], value), name


def test_3dpw_with_14_joints_leaves_the_pelvis_out():
    skeleton = load_skeleton("smpl_24")
    pred, true = people(skeleton)
    subset = [1, 2, 4, 5, 7, 8, 12, 15, 16, 17, 18, 19, 20, 21]
    result = evaluate(pred, true, skeleton, TDPW_TEST_14, {"sequence": ["a"] * 60}).overall
    assert np.isclose(
        result["MPJPE"], np.linalg.norm(((pred - pred[:, :1]) - (true - true[:, :1]))[:, subset], axis=-1).mean()
    )
    assert np.isclose(
        result["PA-MPJPE"],
        np.linalg.norm(procrustes(pred[:, subset], true[:, subset]) - true[:, subset], axis=-1).mean(),
    )


def test_3dpw_regressed_joints_are_the_rows_of_the_regressor():
    rows = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
    assert (
        list(TDPW_TEST_14_REGRESSED.measures[0].joints) == [load_skeleton("h36m_17").joints[r] for r in rows]
        and TDPW_TEST_14_REGRESSED.formats[0].root == "pelvis"
    )


def test_emdb_measures_motion_within_sequences():
    skeleton = load_skeleton("smpl_24")
    pred, true = people(skeleton)
    sequence = ["a"] * 20 + ["b"] * 40
    result = evaluate(pred, true, skeleton, EMDB_1, {"sequence": sequence}, [*range(20), *range(40)])
    own = [acceleration_error(pred[s] - pred[s][:, :1], true[s] - true[s][:, :1]) for s in (slice(20), slice(20, 60))]
    assert np.allclose(result.groups["sequence"]["acceleration error"], own) and np.isclose(
        result.overall["acceleration error"], np.mean(own)
    )


def test_mupots_variants_differ_as_they_say():
    assert (
        mupots_protocol() == MUPOTS
        and MUPOTS.averaging == "mean of sequences"
        and MUPOTS.missing == "miss"
        and MUPOTS.bones == MUPOTS_BONES
    )
    assert (
        MUPOTS_PAPER.averaging == "pooled"
        and MUPOTS_PAPER.missing == "left out"
        and MUPOTS_PAPER.bones == ()
        and len(MUPOTS_PAPER.measures) == 19
    )
    assert [m.alignment for m in mupots_protocol(alignment="absolute").measures] == ["absolute"] * 3
    with pytest.raises(KeyError):
        mupots_protocol(people="some")


def test_the_bone_tree_reaches_every_joint_but_the_root_once():
    order = [child for child, _ in MUPOTS_BONES]
    assert sorted([*order, "pelvis"]) == sorted(load_skeleton("mpi_inf_3dhp_17").joints)
    placed = {"pelvis"}
    for child, parent in MUPOTS_BONES:
        assert parent in placed
        placed.add(child)


def test_universal_and_corrected_truths_are_other_protocols():
    assert (
        "without the correction" in HUMAN36M.text and "with the correction" in PROTOCOLS["human36m-s9-corrected"].text
    )
    assert "univ_annot3" in PROTOCOLS["mpi-inf-3dhp-universal"].text
