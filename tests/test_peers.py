"""benchmarks/peers.py and what it stands on: geometry and counting, the hand-checked boxes, the landmark graphs, the
references of the kept recording; and the sheets of real people."""

import base64
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from acae_nb.geometry.cameras import Camera
from acae_nb.models.tfjs import GraphModel

REPO = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO / "benchmarks"))  # scripts, beside each other
peers, graphs, kept, real = map(importlib.import_module, ("peers", "landmark_graphs", "kept_recording", "real_people"))


def random_limbs(n=4, seed=0):
    return peers.hips_centred(np.random.default_rng(seed).normal(0, 300, (n, 12, 3)))


def test_the_view_looks_at_the_person():
    for direction in ([0, 0, 1], [0.5, -0.2, 1], [-2, 1, 0.1]):
        R = peers.view_rotation(np.array(direction, float))
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(R) == pytest.approx(1)
        np.testing.assert_allclose(R @ direction, [0, 0, np.linalg.norm(direction)], atol=1e-12)


def test_a_crops_roll_is_taken_back():
    "The crop's upward direction (-y) points up in the picture where the crop is upright, and along `points` otherwise."
    world = np.array([[0.0, -1, 5], [1, 0, 5]])
    upright = peers.turned_back(world, np.array([[10.0, 10], [10, 0]]))
    np.testing.assert_allclose(upright, world, atol=1e-12)
    lying = peers.turned_back(world, np.array([[10.0, 10], [20, 10]]))  # the body's up is the picture's right
    np.testing.assert_allclose(lying, [[1, 0, 5], [0, 1, 5]], atol=1e-12)


def test_errors_of_known_changes():
    true = random_limbs()
    scaled = peers.errors(1.5 * true, true)
    assert scaled.MPJPE.min() > 100 and scaled.bones.min() > 0
    np.testing.assert_allclose(scaled[["scaled", "PA"]], 0, atol=1e-6)
    turned = peers.errors(true @ peers.view_rotation(np.array([1.0, 0, 1])), true)
    assert turned.scaled.min() > 50
    np.testing.assert_allclose(turned[["PA", "bones"]], 0, atol=1e-6)


def test_the_sum_of_bones_tells_shrunken_people():
    true = random_limbs()
    np.testing.assert_allclose(peers.errors(0.5 * true, true).bone_sum, 50)


def test_joints_that_are_not_known_do_not_count():
    found, true = random_limbs(1, seed=1)[0], random_limbs(1)[0]
    true[[3, 9]] = np.nan
    one = peers.errors(found[None], true[None]).loc[0]
    known = [k for k in range(12) if k not in (3, 9)]
    assert one["MPJPE"] == pytest.approx(np.mean([np.linalg.norm(found[k] - true[k]) for k in known]))
    again = peers.errors(np.where(np.isnan(true), 1e6, found)[None], true[None]).loc[0]
    assert again.to_dict() == pytest.approx(one.to_dict())
    bones = [(a, b) for a, b in peers.BONES if a in known and b in known]
    length = {name: sum(np.linalg.norm(x[a] - x[b]) for a, b in bones) for name, x in (("f", found), ("t", true))}
    assert len(bones) == 4 and one["bone_sum"] == pytest.approx(100 * length["f"] / length["t"])


def test_the_mean_pose_stands_beside_the_methods():
    """Two people, one turned by half a circle: their mean has no width, whatever the methods say."""
    camera = SimpleNamespace()
    limbs = random_limbs(1)[0]
    people = [limbs * turn + [0, 0, 3000] for turn in ([1, 1, 1], [-1, 1, -1])]
    pictures = [peers.Scene(None, camera, person, np.ones(4), str(k)) for k, person in enumerate(people)]

    def right(scene):
        return peers.hips_centred(scene.limbs)

    table, ratios = peers.compare({"a": right, "b": lambda scene: right(scene) + [100, 0, 0]}, pictures)
    mean = peers.hips_centred(np.stack(people)).mean(0)
    assert table.loc["a", "MPJPE"] == pytest.approx(0, abs=1e-9) and list(ratios) == ["a / b"]
    assert table.loc["b", "MPJPE"] == pytest.approx(100)
    expected = [np.linalg.norm(mean - peers.hips_centred(person), axis=-1).mean() for person in people]
    assert table.loc[peers.MEAN_POSE, "MPJPE"] == pytest.approx(np.mean(expected))
    assert table.loc[peers.MEAN_POSE, "bone_sum"] < 90


@pytest.mark.parametrize("asked, answered", [(None, "mediapipe_33"), ("cmu_panoptic_19", "cmu_panoptic_19")])
def test_ours_answers_in_the_skeleton_of_the_reference_unless_told(asked, answered):
    forms, limbs = [], random_limbs(1)[0] + [0, 0, 3000]

    def estimate(image, boxes, camera, form):
        forms.append(form)
        return SimpleNamespace(skeleton=SimpleNamespace(index=peers.LIMBS.index), joints3d=limbs[None])

    ours = peers.Ours.__new__(peers.Ours)
    ours.form, ours.estimator = asked, SimpleNamespace(estimate=estimate)
    box = np.array([0.0, 0, 10, 10])
    ours.detector = lambda image: SimpleNamespace(boxes=box[None])
    found = ours(peers.Scene(None, None, limbs, box, "a", "mediapipe_33"))
    assert forms == [answered]
    np.testing.assert_allclose(found, peers.in_view(limbs, limbs[peers.HIPS].mean(0)))


def test_bones_join_limbs_of_one_side():
    names = {(peers.LIMBS[a], peers.LIMBS[b]) for a, b in peers.BONES}
    chains = [("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")]
    assert names == {(f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in chains}


def test_ratio_has_an_interval_over_groups():
    ours, theirs = np.array([1.0, 1, 2, 2]), np.array([2.0, 2, 2, 2])
    result = peers.ratio_interval(ours, theirs, np.array(["a", "a", "b", "b"]))
    assert result == pytest.approx({"ratio": 0.75, "low": 0.5, "high": 1.0})


MAIN, BY = [[100, 100, 100, 300], [180, 100, 100, 300]], [[500, 100, 50, 150]]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], (0, 0, 0)),
        ([*MAIN, *BY], (2, 1, 0)),
        ([MAIN[0], MAIN[0]], (1, 0, 1)),  # twice the same person
        ([[140, 100, 100, 300]] * 2, (2, 0, 0)),  # between two people: each may be one
        ([[100, 100, 100, 60]], (0, 0, 1)),  # a head
        ([[700, 700, 50, 50], BY[0]], (0, 1, 1)),
    ],
)
def test_each_box_finds_one_person_and_each_person_is_found_once(boxes, expected):
    assert peers.count_found(boxes, MAIN, BY) == expected


def test_hand_checked_boxes_lie_in_their_pictures():
    pictures = peers.json.loads(peers.BOXES.read_text())["pictures"]
    assert len({(picture["video"], picture["frame"]) for picture in pictures}) == 40
    assert sum(len(picture["main"]) for picture in pictures) == 80
    assert sum(len(picture["bystanders"]) for picture in pictures) == 20
    for picture in pictures:
        for left, top, width, height in [*picture["main"], *picture["bystanders"]]:
            assert 0 <= left and left + width <= 1092 and 0 <= top and top + height <= 1920 and min(width, height) > 50


def text(value):
    return {"s": base64.b64encode(value.encode()).decode()}


def numbers(*values):
    return {"list": {"i": [str(v) for v in values]}}


def node(name, op, *inputs, **attributes):
    return name, {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def slow_convolution(x, kernel, bias, stride):
    "[h, w, c] with SAME padding (TensorFlow: the smaller half before), a sum for every output."
    side = len(kernel)
    size = [-(-n // stride) for n in x.shape[:2]]
    total = [max((m - 1) * stride + side - n, 0) for m, n in zip(size, x.shape)]
    x = np.pad(x, [(t // 2, t - t // 2) for t in total] + [(0, 0)])
    return np.array(
        [
            [
                np.einsum("hwc,hwco->o", x[i : i + side, j : j + side], kernel) + bias
                for j in range(0, size[1] * stride, stride)
            ]
            for i in range(0, size[0] * stride, stride)
        ]
    )


def test_a_landmark_graph_computes_what_its_nodes_say():
    """Asymmetric SAME padding, channels that are added, pooling, and rows of the answer in TensorFlow's order."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.standard_normal((3, 3, 3, 2)).astype(np.float32), rng.standard_normal(2).astype(np.float32)
    once = numbers(1, 1, 1, 1)
    convolution = {"strides": numbers(1, 2, 2, 1), "dilations": once, "padding": text("SAME")}
    fused = {"fused_ops": {"list": {"s": [text("BiasAdd")["s"]]}}}
    window = {"ksize": numbers(1, 2, 2, 1), "strides": numbers(1, 2, 2, 1), "padding": text("VALID")}
    halves = {"half_pixel_centers": {"b": True}}
    nodes = dict(
        [
            node("Identity", "Identity", "model/world_3d/Reshape"),
            node("model/world_3d/Reshape", "Reshape", "sum", "shape"),
            node("sum", "AddV2", "padded", "padded"),
            node("padded", "Pad", "small", "amounts"),
            node("small", "MaxPool", "large", **window),
            node("large", "ResizeBilinear", "convolved", "size", **halves),
            node("convolved", "_FusedConv2D", "picture", "kernel", "bias", **convolution, **fused),
            node("picture", "Placeholder"),
            *[node(name, "Const") for name in ("kernel", "bias", "shape", "amounts", "size")],
            node("unasked", "Unknown", "picture"),
        ]
    )
    constants = {"kernel": kernel, "bias": bias, "shape": np.array([-1, 27]), "size": np.array([6, 6])}
    constants["amounts"] = np.array([[0, 0], [0, 0], [0, 0], [0, 1]])
    picture = rng.random((6, 6, 3)).astype(np.float32)
    [(shape, found)] = graphs.LandmarkGraph(GraphModel(nodes, constants))(picture).items()
    convolved = slow_convolution(picture, kernel, bias, 2)  # [3, 3, 2]
    between = np.array([[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75], [0, 0, 1]])
    large = np.einsum("ih,jw,hwc->ijc", between, between, convolved)
    small = large.reshape(3, 2, 3, 2, 2).max((1, 3))
    expected = 2 * np.concatenate([small, np.zeros((3, 3, 1))], 2).reshape(27)
    assert shape == (27,)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_unknown_operation_is_refused():
    nodes = dict(
        [node("Identity", "Identity", "x/world_3d/y"), node("x/world_3d/y", "Softmax", "p"), node("p", "Placeholder")]
    )
    with pytest.raises(KeyError, match="Softmax"):
        graphs.LandmarkGraph(GraphModel(nodes, {}))


def test_a_network_with_another_checksum_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="landmark_graphs.py"):
        graphs.read_checked(tmp_path / "blazepose-heavy.json")
    for ending in ("json", "bin"):
        (tmp_path / f"blazepose-heavy.{ending}").write_bytes(b"{}")
    with pytest.raises(ValueError, match="blazepose-heavy.json: expected sha256 b0aa28f0"):
        graphs.read_checked(tmp_path / "blazepose-heavy.json")


FETCHED = REPO / graphs.FOLDER / "blazepose-full.json"


@pytest.mark.skipif(not FETCHED.is_file(), reason="python benchmarks/landmark_graphs.py was not run")
def test_the_full_graph_answers_as_litert_does_and_heavy_roughly_so():
    "The same crop of a real person: full as a graph and as tflite agree; heavy is another network for the same points."
    image = next(peers.read_video(REPO / "data/pose2sim/single/cam01.mp4", [10]))
    lite = peers.MediaPipe(REPO / "data/blazepose", REPO / peers.LANDMARKS["full"])
    graph = peers.MediaPipe(REPO / "data/blazepose", FETCHED)
    heavy = peers.MediaPipe(REPO / "data/blazepose", FETCHED.with_name("blazepose-heavy.json"))
    (box, limbs), (_, same), (other_box, other) = (next(iter(m.people(image))) for m in (lite, graph, heavy))
    np.testing.assert_allclose(same, limbs, atol=1)  # mm
    assert peers.overlap(box, other_box) > 0.8
    assert peers.errors(other[None], limbs[None]).PA[0] < 120


def four_cameras():
    "Around the origin, 4 m away, 1.5 m above, looking at it; world z up."
    cameras = []
    for angle in np.deg2rad([10, 100, 190, 280]):
        position = 4000 * np.array([np.cos(angle), np.sin(angle), 0.375])
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, [0, 0, 1]) / np.linalg.norm(np.cross(forward, [0, 0, 1]))
        rotation = np.stack([right, np.cross(forward, right), forward])
        K = np.array([[1600.0, 0, 544], [0, 1600, 960], [0, 0, 1]])
        cameras.append(Camera(K, np.zeros(5), rotation, position, (0, 0, 1)))
    return cameras


def test_the_reference_takes_exchanged_sides_back_and_keeps_what_three_views_agree_on():
    cameras, rng = four_cameras(), np.random.default_rng(1)
    truth = rng.normal(0, 300, (12, 3)) + np.array([[20.0, 0, 0]]).repeat(5, 0).cumsum(0)[:, None]
    px = np.stack([camera.project(truth) for camera in cameras]) + rng.normal(0, 1, (4, 5, 12, 2))
    weights = np.ones(px.shape[:-1])
    px[2, 1] = px[2, 1, kept.MIRROR]  # one view takes left for right
    px[0, 3, 4] += 200  # one view is wrong: three others agree
    px[1, 2, 5] += 200
    weights[0, 2, 5] = 0  # wrong and hidden: two are not enough
    joints, off = kept.reference(px, weights, cameras)
    known = np.isfinite(joints).all(-1)
    assert not known[2, 5] and known.sum() == known.size - 1
    np.testing.assert_allclose(joints[known], truth[known], atol=10)
    assert off[0, 3, 4] > 100


LENGTHS = {"upper arm": (0, 200, 340), "forearm": (2, 170, 300), "thigh": (6, 270, 470), "shin": (8, 270, 450)}


@pytest.mark.parametrize("name", kept.REFERENCES)
def test_the_kept_references_are_people(name):
    "A tall man and a small woman, equal on both sides, and most joints within the boxes that were drawn by hand."
    joints, frames = kept.stored_reference(name)
    assert joints.shape == (2, 10, 12, 3) and frames == sorted({frame for _, frame in kept.kept_pictures()})
    for first, low, high in LENGTHS.values():
        lengths = np.linalg.norm(joints[:, :, first : first + 2] - joints[:, :, first + 2 : first + 4], axis=-1)
        middle = np.nanmedian(lengths, axis=1)  # [person, side]
        assert (low < middle).all() and (middle < high).all(), (name, first, middle)
        assert (np.abs(np.log(middle[:, 0] / middle[:, 1])) < 0.2).all()
    inside = []
    for (camera, frame), picture in kept.kept_pictures().items():
        for person, (left, top, width, height) in enumerate(picture["main"]):
            px = kept.cameras_of(REPO / "data")[camera].project(joints[person, frames.index(frame)])
            px, margin = px[np.isfinite(px).all(-1)], 0.1 * max(width, height)
            far = (px < [left - margin, top - margin]) | (px > [left + width + margin, top + height + margin])
            inside += (~far.any(-1)).tolist()
    assert np.mean(inside) > 0.9


def test_the_two_references_agree():
    "Networks of different making, of the same moments: nobody is exchanged, and left is left in both."
    first, second = (kept.stored_reference(name)[0] for name in kept.REFERENCES)
    apart = np.linalg.norm(first - second, axis=-1)
    exchanged = np.linalg.norm(first - second[:, :, kept.MIRROR], axis=-1)
    assert np.isfinite(apart).sum() > 100 and np.nanmedian(apart) < 70
    assert np.nanmedian(exchanged) > 3 * np.nanmedian(apart)


def test_the_sheets_show_the_person_who_is_meant():
    boxes = np.array([[0.0, 0, 50, 100], [200, 0, 50, 200]])
    assert real.chosen(SimpleNamespace(boxes=boxes), None) == 1
    assert real.chosen(SimpleNamespace(boxes=boxes), np.array([5.0, 5, 50, 100])) == 0
    assert real.chosen(SimpleNamespace(boxes=boxes), np.array([900.0, 5, 50, 100])) is None
    assert real.chosen(SimpleNamespace(boxes=np.zeros((0, 4))), None) is None


def test_a_close_up_has_its_joints_where_the_picture_has_them():
    "A white dot in the picture lies under the end of the bone that is drawn to it."
    image = np.zeros((900, 700, 3), np.uint8)
    skeleton = SimpleNamespace(joints=("left_a", "left_b"), edges=((0, 1),))
    px = np.array([[300.0, 400], [360, 520]])
    for x, y in px.astype(int):
        image[y - 8 : y + 9, x - 8 : x + 9] = 255
    plain = real.close_up(image, np.array([250.0, 300, 150, 300]), np.full((2, 2), -50.0), skeleton)
    drawn = real.close_up(image, np.array([250.0, 300, 150, 300]), px, skeleton)
    changed = np.argwhere((plain != drawn).any(-1))
    white = plain.min(-1) > 200
    for end in (changed[changed[:, 0].argmin()], changed[changed[:, 0].argmax()]):
        assert white[tuple(end)]
