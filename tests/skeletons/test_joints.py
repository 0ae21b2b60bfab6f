"""Every published format is consistent; broken tables are refused by field; unions, selections and merges keep their
promises."""

import json

import numpy as np
import pytest
from conftest import CONFORMANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from acae_nb.skeletons.joints import Skeleton, load_skeleton, merge_by_name, pool_by_name, select, skeleton_names, union

BASE = dict(name="s", joints=["pelvis", "left_knee", "right_knee"], edges=[[0, 1], [0, 2]], mirror=[0, 2, 1])


@pytest.mark.parametrize("name", skeleton_names())
def test_published_format(name):
    s = load_skeleton(name)
    assert len(set(s.joints)) == len(s) == len(s.mirror) == len(s.short_names)
    assert [s.mirror[s.mirror[i]] for i in range(len(s))] == list(range(len(s)))
    assert all(0 <= a < len(s) and 0 <= b < len(s) for a, b in s.edges)
    for i, side in enumerate(s.sides):
        assert (s.mirror[i] == i) == (side == "c") and (side == "c" or side != s.sides[s.mirror[i]])
        if side != "c" and s.joints[i].startswith(("left_", "right_")):
            assert s.joints[i][0] == side
    assert Skeleton.from_dict(json.loads(json.dumps(s.to_dict()))) == s
    roots = s.parents < 0
    for i in range(len(s)):  # every joint reaches a root along bones
        for _ in range(len(s)):
            if roots[i]:
                break
            assert tuple(sorted((i, s.parents[i]))) in {tuple(sorted(e)) for e in s.edges}
            i = s.parents[i]
        assert roots[i]


def test_package_data_equals_the_facts():
    facts = json.loads((CONFORMANCE / "skeletons.json").read_text("utf-8"))
    assert sorted(facts) == skeleton_names() and len(facts) == 44
    for name, d in facts.items():
        s = load_skeleton(name)
        assert list(s.joints) == d["joints"] and [list(e) for e in s.edges] == d["edges"] and s.source == d["source"]
        if "mirror" in d:
            assert list(s.mirror) == d["mirror"]
        if "short_names" in d:
            assert list(s.short_names) == d["short_names"]
        if "parents" in d:
            assert s.parents.tolist() == d["parents"]


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(joints=["pelvis", "pelvis", "right_knee"], left=[1]), ["joints", "pelvis", "more than once"]),
        (dict(joints=[], edges=[], mirror=[]), ["joints", "at least one"]),
        (dict(mirror=[0, 2, 2]), ["mirror", "involution", "left_knee"]),
        (dict(mirror=[0, 2]), ["mirror", "3 joints", "found 2"]),
        (dict(mirror=[0, 2, 7]), ["mirror", "left_knee"]),
        (dict(mirror=[0, -1, 1]), ["mirror"]),
        (dict(edges=[[0, 3]]), ["edges", "(0, 3)"]),
        (dict(edges=[[1, 1]]), ["edges", "(1, 1)"]),
        (dict(edges=[["pelvis", "left_kneee"]]), ["edges", "left_kneee", "did you mean 'left_knee'"]),
        (dict(short_names=["a"]), ["short_names", "found 1"]),
        (dict(parts={"a": [0, 2]}), ["parts", "0..2"]),
        (dict(joints=["pelvis", "knee_a", "knee_b"]), ["knee_a", "knee_b", "left"]),
        (dict(left=[1, 2]), ["left"]),
        (dict(colour="red"), ["unknown ['colour']"]),
    ],
)
def test_broken_tables_are_refused(change, words):
    with pytest.raises(ValueError) as e:
        Skeleton.from_dict({**BASE, **change})
    assert all(w in str(e.value) for w in words), e.value


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="missing \\['mirror'\\]"):
        Skeleton.from_dict({k: v for k, v in BASE.items() if k != "mirror"})


def test_unknown_names_suggest_near_ones():
    with pytest.raises(KeyError, match="did you mean 'smpl_24'.*cmu_panoptic_19"):
        load_skeleton("smpl24")
    both = union([load_skeleton("h36m_17"), load_skeleton("coco_17")])
    with pytest.raises(KeyError, match="did you mean 'left_wrist'"):
        both.index("left_wrst", "coco_17")
    with pytest.raises(KeyError, match="say which format"):
        both.index("left_wrist")
    with pytest.raises(KeyError, match="did you mean 'coco_17'"):
        both.index("left_wrist", "coco17")


def test_union_refuses_a_format_twice():
    with pytest.raises(ValueError, match="smpl_24"):
        union([load_skeleton("smpl_24"), load_skeleton("smpl_24")])


def test_select_refuses_half_a_body():
    s = load_skeleton("h36m_17")
    with pytest.raises(ValueError, match="mirror.*right_hip"):
        select(s, [0, 1])
    with pytest.raises(ValueError, match="distinct"):
        select(s, [0, 0])
    with pytest.raises(ValueError, match="side by side"):
        select(union([s, load_skeleton("smpl_24")]), [0, 17, 7])


some = st.lists(st.sampled_from(skeleton_names()), min_size=1, max_size=4, unique=True)


@settings(max_examples=25, deadline=None)
@given(some)
def test_union_then_select_is_the_part(names):
    u = union([load_skeleton(n) for n in names])
    assert len(u) == sum(len(load_skeleton(n)) for n in names) and len(set(u.labels)) == len(u)
    for n in names:
        s, part = load_skeleton(n), select(u, u.parts[n])
        assert (part.joints, part.edges, part.mirror, part.short_names, part.left) == (
            s.joints,
            s.edges,
            s.mirror,
            s.short_names,
            s.left,
        )
        assert part.parts == s.parts and u.index(s.joints[-1], n) == u.parts[n][-1]


@settings(max_examples=25, deadline=None)
@given(some.filter(lambda names: "lsp_14" not in names))
def test_merge_by_name(names):
    u = union([load_skeleton(n) for n in names])
    try:
        merged, merged_of = merge_by_name(u)
    except ValueError as e:
        assert "mirrors both" in str(e)
        return
    assert [merged.joints[k] for k in merged_of] == list(u.short_names)
    assert [merged_of[i] for i in u.mirror] == [merged.mirror[k] for k in merged_of]
    assert (merged.sides[merged_of] == u.sides).all()


def test_pool_by_name_against_a_slow_oracle():
    target, source = (
        load_skeleton("coco_17"),
        union([load_skeleton(n) for n in ("berkeley_mhad_43", "coco_17", "human4d_32")]),
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(source), 2))
    pooled = pool_by_name(target, source) @ x
    for k, t in enumerate(target.short_names):
        hit = [x[j] for j, n in enumerate(source.short_names) if n.startswith(t)]
        np.testing.assert_allclose(pooled[k], np.mean(hit, axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match="nose"):
        pool_by_name(target, load_skeleton("h36m_17"))
