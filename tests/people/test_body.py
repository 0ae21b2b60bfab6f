"""The body: blend shapes and skinning against slow oracles on a toy rig.

The real rig's symmetry, joints and retargeting where it is at hand.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation

from acae_nb.people.body import ANCHORS, Rig, _coefficients, random_phenotypes
from acae_nb.people.everyday import everyday_poses
from acae_nb.people.formats import parse_recipe, regressor, rig_formats, rig_skeleton
from acae_nb.people.motion import sample_poses, turn_poses
from acae_nb.people.retarget import hand_curl, limb, pose_people, retarget, swing, turned, unit

REPO = Path(__file__).resolve().parents[2]
DEFAULT = YAML(typ="safe").load(REPO / "params.yaml")["body"]["formats"]
PHENOTYPES = (
    "gender",
    "age",
    "muscle",
    "weight",
    "height",
    "proportions",
    "cupsize",
    "firmness",
    "african",
    "asian",
    "caucasian",
)
seeds = st.integers(0, 2**31)


def toy_rig(rng, bones=5, vertices=7, shapes=3, products=6):
    """A rig of random numbers, for oracles."""
    weights = (
        rng.random((vertices, bones)) * (rng.random((vertices, bones)) < 0.6)
        + np.eye(vertices, bones)
        + 1e-3 * (np.arange(bones) == 0)
    )
    return Rig(
        bones=tuple("abcdefgh"[:bones]),
        bone_parents=np.array([-1] + [int(rng.integers(i)) for i in range(1, bones)]),
        phenotypes=PHENOTYPES,
        formats=(),
        part_names=(),
        faces=np.zeros((1, 3), int),
        face_uv=np.zeros((1, 3, 2)),
        groups={},
        helpers={},
        texture_masks={},
        part_texture=np.zeros((2, 2)),
        skinning=csr_array((weights / weights.sum(1, keepdims=True)).astype(np.float32)),
        joint_regressors={},
        base=rng.normal(0, 100, (vertices + bones, 3)).astype(np.float32),
        shapes=rng.normal(0, 10, (shapes, (vertices + bones) * 3)).astype(np.float32),
        shape_group=rng.integers(0, shapes, products),
        shape_anchors=rng.random((products, sum(ANCHORS.values()))) < 0.15,
    )


@pytest.fixture(scope="module")
def rig():
    for path in (".cache/rig.safetensors", "artifacts/rig/rig.safetensors"):
        if (REPO / path).exists():
            return Rig.load(REPO / path)
    pytest.skip(
        "no rig file (artifacts/rig/rig.safetensors or .cache/rig.safetensors): "
        "the pipeline's stage `body` or the notebook nbs/people/body.ipynb makes one"
    )


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_pose_is_linear_blend_skinning(seed):
    rng = np.random.default_rng(seed)
    rig = toy_rig(rng)
    bodies = rig.bodies(rng.random((2, 11)))
    rotations = Rotation.random(10, rng=rng).as_matrix().reshape(2, 5, 3, 3)
    root = rng.normal(0, 50, (2, 3))
    expected = np.zeros((2, 7, 3))
    for b in range(2):  # one vertex and one bone at a time
        motion = {}
        for i, parent in enumerate(rig.bone_parents):
            head = bodies.heads[b, i].astype(float)
            R, t = (rotations[b, parent], motion[parent][1]) if i else (None, None)
            place = root[b] if i == 0 else R @ head + t  # the head rides on its parent
            motion[i] = rotations[b, i], place - rotations[b, i] @ head
        for v in range(7):
            for i in range(5):
                expected[b, v] += rig.skinning.toarray()[v, i] * (motion[i][0] @ bodies.vertices[b, v] + motion[i][1])
    assert np.abs(rig.pose(bodies, rotations, root) - expected).max() < 1e-2


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_coefficients_are_products_of_interpolated_anchors(seed):
    rng = np.random.default_rng(seed)
    rig = toy_rig(rng)
    value = rng.uniform(0, 1, 11)
    value[1] = rng.uniform(-1 / 3, 1)
    named = dict(zip(PHENOTYPES, value))
    weights = list(value[8:] / value[8:].sum())
    for name, n in list(ANCHORS.items())[1:]:
        anchors = np.linspace(-1 / 3 if name == "age" else 0, 1, n)
        weights += [np.interp(named[name], anchors, np.eye(n)[k]) for k in range(n)]
    expected = np.zeros(3)
    for used, group in zip(rig.shape_anchors, rig.shape_group):
        expected[group] += np.prod([w for w, u in zip(weights, used) if u])
    assert _coefficients(rig, value[None])[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_wrong_shapes_are_refused_with_both_shapes():
    rig = toy_rig(np.random.default_rng(0))
    bodies = rig.bodies(np.full((2, 11), 0.5))
    with pytest.raises(ValueError, match=r"\[B, 11\].*gender.*\(2, 10\)"):
        rig.bodies(np.zeros((2, 10)))
    with pytest.raises(ValueError, match="NaN"):
        rig.bodies(np.full((1, 11), np.nan))
    with pytest.raises(ValueError, match=r"expected \(2, 5, 3, 3\), found \(1, 5, 3, 3\)"):
        rig.pose(bodies, np.eye(3)[None, None].repeat(5, 1))


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "no body rig here"),
        (b"", "expected a safetensors file"),
        (b"\x08\0\0\0\0\0\0\0garbage!", "expected a safetensors file"),
    ],
)
def test_missing_and_broken_rig_files_are_named(tmp_path, content, words):
    path = tmp_path / "rig.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        Rig.load(path)
    assert str(path) in str(e.value) and words in str(e.value)


def test_a_safetensors_file_of_another_kind_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="kind"):
        Rig.load(tmp_path / "model.safetensors")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["l-knee", "pelvis", "coco:nose", "#12", "l-finger-3-1"]), st.integers(-300, 300)),
        min_size=1,
        max_size=4,
        unique_by=lambda t: t[0],
    )
)
def test_recipes_read_back(terms):
    total = 100 - sum(w for _, w in terms)
    terms = {**dict(terms), "neck": total}
    text = " ".join(f"{'-' if w < 0 else '+'} {abs(w) / 100}" + f" {n}" for n, w in terms.items()).removeprefix("+ ")
    if text.startswith("- "):
        text = "-" + text[2:]
    assert parse_recipe(text) == pytest.approx({n: w / 100 for n, w in terms.items()})


@pytest.mark.parametrize("recipe", ["", ".5 l-knee", ".5 l-knee + .6 neck"])
def test_recipes_that_do_not_sum_to_one_are_refused(recipe):
    with pytest.raises(ValueError, match="sum to 1"):
        parse_recipe(recipe)


def test_formats_have_their_joints_and_name_unknown_ones():
    assert set(DEFAULT) <= set(rig_formats()) and sum(len(rig_skeleton(f)) for f in DEFAULT) == 308
    with pytest.raises(KeyError, match="smpl_24"):
        rig_skeleton("smpl24")
    with pytest.raises(KeyError, match="smpl_24/pelvis"):
        regressor("smpl_24", {}, 100)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_limb_follows_the_clip_and_is_a_rotation(seed):
    rng = np.random.default_rng(seed)
    rest, pose = rng.normal(size=(2, 3, 12, 3))
    parent = Rotation.random(12, rng=rng).as_matrix()
    upper, first, second = limb(tuple(rest), tuple(pose), parent)
    for R, (a, b) in ((upper, (0, 1)), (first, (0, 1)), (second, (1, 2))):
        assert turned(R, unit(rest[b] - rest[a])) == pytest.approx(unit(pose[b] - pose[a]), abs=1e-5)
        assert np.linalg.det(R) == pytest.approx(1) and R @ np.swapaxes(R, 1, 2) == pytest.approx(
            np.tile(np.eye(3), (12, 1, 1)), abs=1e-6
        )


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_swing_is_the_smallest_turn(seed):
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=(2, 9, 3))
    angle = np.arccos(np.clip((unit(u) * unit(v)).sum(1), -1, 1))
    assert Rotation.from_matrix(swing(u, v)).magnitude() == pytest.approx(angle, abs=1e-6)
    assert np.isfinite(swing(u, u)).all() and np.isfinite(swing(u, -u)).all()


def test_fingers_bend_within_limits():
    curl = hand_curl(5000, np.random.default_rng(0))
    assert curl.shape == (5000, 5) and curl.min() >= -0.1 and curl.max() <= 1.15 and curl.std(0).min() > 0.1


# ---- the real rig ----


def test_rig_loads_fast_and_is_whole(rig):
    assert (
        rig.n_vertices == 19158
        and len(rig.bones) == 104
        and rig.faces.max() < 19158
        and rig.face_uv.shape == (len(rig.faces), 3, 2)
    )
    assert (
        {"tights", "skirt", "hair"} <= set(rig.helpers)
        and {"lips", "face"} <= set(rig.texture_masks)
        and rig.part_texture.max() < len(rig.part_names)
    )
    assert rig.skinning.sum(1) == pytest.approx(1, abs=1e-5)
    for f in rig.formats:
        assert rig.joint_regressors[f].sum(1) == pytest.approx(1, abs=1e-5), f


def test_left_is_left_and_mirror_is_mirror_in_every_format(rig):
    template = rig.template[None]
    for f in (f for f in rig.formats if f in DEFAULT):  # test_body_formats.py has all
        s, j = rig.skeleton(f), rig.joints(template, f)[0]
        assert (j[s.sides == "l", 0] > 10).all() and (j[s.sides == "r", 0] < -10).all(), f
        assert j[list(s.mirror)] * [-1, 1, 1] == pytest.approx(j, abs=1), f
        named = dict(zip(s.short_names, j))
        for low, high in (("lank", "lkne"), ("lkne", "lhip"), ("lhip", "lsho"), ("neck", "head")):
            if low in named and high in named:
                assert named[low][2] < named[high][2], (f, low, high)


def test_like_named_joints_of_different_formats_are_different_points(rig):
    place = {f: dict(zip(rig.skeleton(f).short_names, rig.joints(rig.template[None], f)[0])) for f in rig.formats}
    for joint, least in (("lhip", 5), ("lsho", 3), ("neck", 5)):
        formats = [
            f for f in rig.formats if f in DEFAULT and joint in place[f] and f != "h36m_25"
        ]  # h36m_25 holds the same raw joints as h36m_17
        gaps = [np.linalg.norm(place[a][joint] - place[b][joint]) for i, a in enumerate(formats) for b in formats[:i]]
        assert np.median(gaps) > least, (joint, gaps)


def test_joints_move_with_the_body_and_unknown_formats_are_named(rig):
    vertices = rig.template[None] + np.array([10, 20, 30], np.float32)
    both = rig.joints(vertices, ("coco_17", "smpl_24"))
    assert both.shape == (1, 41, 3) and both[0, 17:] - rig.joints(rig.template[None], "smpl_24")[0] == pytest.approx(
        np.tile([10, 20, 30], (24, 1)), abs=1e-2
    )
    assert len(rig.skeleton(("coco_17", "smpl_24"))) == 41
    with pytest.raises(KeyError, match="coco_17"):
        rig.joints(vertices, "coco17")


def test_people_are_of_human_size(rig):
    heights = np.ptp(
        rig.bodies(random_phenotypes(100, np.random.default_rng(0))).vertices[:, rig.groups["body"], 2], axis=1
    )
    assert 1550 < np.median(heights) < 1800 and heights.min() > 850 and heights.max() < 2200


def test_turning_the_clip_turns_the_person_and_feet_stand(rig):
    phenotypes = random_phenotypes(4, np.random.default_rng(0))
    bodies = rig.bodies(phenotypes)
    poses = sample_poses([everyday_poses(50, np.random.default_rng(1))], 4, np.random.default_rng(2))
    vertices, contact = pose_people(rig, bodies, poses, np.random.default_rng(3))
    assert contact.all() and vertices[:, rig.groups["body"], 2].min(1) == pytest.approx(0, abs=0.02)
    poses.positions[:] = turn_poses(poses.positions, np.full(4, 90.0))
    again, _ = pose_people(rig, bodies, poses, np.random.default_rng(3))
    assert np.abs(again - vertices @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])).max() < 1
    with pytest.raises(ValueError, match="one pose a body"):
        retarget(rig, bodies, poses.positions[:3], np.random.default_rng(0))


def test_posed_body_equals_anny(rig):
    cache = REPO / ".cache/anny"
    if not cache.exists():
        pytest.skip(f"{cache} is not at hand: building anny takes 105 CPU-s")
    import os

    os.environ["ANNY_CACHE_DIR"] = str(cache)
    torch, anny = pytest.importorskip("torch"), pytest.importorskip("anny")
    rng = np.random.default_rng(3)
    model = anny.Anny(topology="anny-full", phenotypes="all", phenotype_blendshapes="original").to(dtype=torch.float32)
    values = rng.uniform(0, 1, (6, 11))
    values[:, 1] = values[:, 1] * 4 / 3 - 1 / 3
    values[:3] = np.round(values[:3] * 2) / 2
    G = Rotation.random(6 * 104, rng=rng).as_matrix().reshape(6, 104, 3, 3)
    kwargs = dict(phenotype_kwargs=torch.tensor(values, dtype=torch.float32))
    with torch.no_grad():
        rest = model(**kwargs)["rest_bone_poses"]
        orientation = rest.clone()
        orientation[..., :3, :3] = torch.tensor(G, dtype=torch.float32) @ rest[..., :3, :3]
        theirs = (
            model(pose_parameters=orientation, pose_parameterization="world-orient", **kwargs)["vertices"].numpy()
            * 1000
        )
    assert np.linalg.norm(rig.pose(rig.bodies(values), G) - theirs, axis=-1).max() < 0.1
