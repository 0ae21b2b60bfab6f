"""Published folders: built here with random weights; what does not fit is listed, what would run is refused."""

import json
import os
import pickle
import warnings

import numpy as np
import pytest
import torch

from acae_nb.basics.safe_pickle import UnsafePickle, load_pickle
from acae_nb.geometry.cameras import Camera
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.models.backbones import efficientnet_v2_s
from acae_nb.models.metrabs import LicenceNotice, fill_weights, load_metrabs, mirror_by_first_letter, read_config
from acae_nb.models.pose_model import PoseModel, PoseOutput, SeparateJoints, combine_points

POINTS = ("lhip", "rhip", "neck", "head")
JOINTS = ("lhip_a", "rhip_a", "neck_a", "head_a", "pelv_b", "face_b")


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return {
        k.replace("backbone.features.", "backbone.1."): v
        for k, v in PoseModel(efficientnet_v2_s(), SeparateJoints(4)).state_dict().items()
    }


@pytest.fixture
def folder(tmp_path, weights):
    "The authors' layout with random weights; six joints that are combinations of four points."
    torch.save(weights, tmp_path / "ckpt.pt")
    (tmp_path / "config.yaml").write_text(
        "proc_side: 64\nstride_train: 32\nstride_test: 32\ncentered_stride: false\nlegacy_centered_stride_bug: true\n"
        "efficientnet_size: s\nbackbone: efficientnetv2-s\n"
        "depth: 8\nbox_size_mm: 2200\nweak_perspective: false\nmix_3d_inside_fov: 0.5\naffine_weights: null\n"
        "transform_coords: false\npredict_all_and_latents: false\nmodel_dir: /somewhere\n"
    )
    np.savez(tmp_path / "joint_info.npz", joint_names=np.array(POINTS), joint_edges=np.array([[0, 2], [1, 2], [2, 3]]))
    np.save(
        tmp_path / "joint_transform_matrix.npy",
        np.array([[1, 0, 0, 0, 0.5, 0], [0, 1, 0, 0, 0.5, 0], [0, 0, 1, 0, 0, 0.5], [0, 0, 0, 1, 0, 0.5]]),
    )
    infos = {
        "": dict(indices=list(range(6)), names=list(JOINTS), edges=[[0, 2], [1, 2], [2, 3]]),
        "a_4": dict(indices=np.arange(4), names=list(POINTS), edges=np.array([[0, 2], [1, 2]])),
        "mixed_3": dict(indices=[0, 1, 4], names=["lhip", "rhip", "pelv"], edges=[[0, 2], [1, 2]]),
    }
    (tmp_path / "skeleton_infos.pkl").write_bytes(pickle.dumps(infos))
    return tmp_path


def load(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LicenceNotice)
        return load_metrabs(folder, **options)


def test_every_name_is_consumed_and_the_answer_is_the_same(folder, weights):
    with pytest.warns(LicenceNotice, match="non-commercial"):
        found = load_metrabs(folder)
    state = found.model.state_dict()
    assert {k.replace("backbone.features.", "backbone.1.") for k in state if not k.startswith("layout.")} == set(
        weights
    )
    assert all(torch.equal(v, state[k.replace("backbone.1.", "backbone.features.")]) for k, v in weights.items())
    plain = PoseModel(efficientnet_v2_s(centered=False), SeparateJoints(4), centered=False, legacy_shift=True)
    fill_weights(plain, folder / "ckpt.pt")
    images, K = torch.rand(2, 3, 64, 64), torch.tensor([[[90.0, 0, 32], [0, 90, 32], [0, 0, 1]]]).repeat(2, 1, 1)
    with torch.inference_mode():
        ours, points = found.model(images, K).joints, plain.eval()(images, K).joints
    matrix = torch.from_numpy(np.load(folder / "joint_transform_matrix.npy")).float()
    assert torch.allclose(ours, torch.einsum("bnk,nN->bNk", points, matrix), rtol=1e-4, atol=1e-2)
    assert (
        found.size == 64
        and found.skeleton.joints == JOINTS
        and found.skeleton.mirror[:2] == (1, 0)
        and set(found.formats) == {"a_4", "mixed_3"}
    )


def test_the_stride_flags_are_honoured(folder):
    legacy = load(folder)
    assert (
        legacy.model.geometry["legacy_shift"]
        and not legacy.model.geometry["centered"]
        and legacy.model.backbone.description["options"]["centered"] is False
    )
    (folder / "config.yaml").write_text("proc_side: 64\nefficientnet_size: s\ncentered_stride: true\n")
    usual = load(folder)
    assert usual.model.geometry["centered"] and not usual.model.geometry["legacy_shift"]
    images, K = torch.rand(1, 3, 64, 64), torch.tensor([[[90.0, 0, 32], [0, 90, 32], [0, 0, 1]]])
    with torch.inference_mode():
        assert not torch.allclose(usual.model(images, K).joints, legacy.model(images, K).joints, atol=1.0)
    assert load(folder, batch_coupled=True).model.geometry["batch_coupled"]


def test_options_are_those_of_load(folder):
    with pytest.warns(LicenceNotice):
        estimator = PoseEstimator.from_metrabs(folder, batch_coupled=True, looks=5)
    assert estimator.model.geometry["batch_coupled"] and len(estimator.looks) == 5


def test_mirrored_looks_exchange_the_models_points_before_joints_are_derived(folder, tmp_path):
    """A joint between a left point and a middle one has no partner: exchanged afterwards it would stay on the wrong
    side."""
    matrix = np.load(folder / "joint_transform_matrix.npy")
    matrix[:, 5] = [0.5, 0, 0.5, 0]  # between the left hip and the neck
    np.save(folder / "joint_transform_matrix.npy", matrix)
    with pytest.warns(LicenceNotice):
        estimator = PoseEstimator.from_metrabs(folder, looks=2, device="cpu")
    points = torch.tensor([[120.0, 30, 3000], [-110, 40, 3050], [10, -500, 3010], [0, -700, 3020]])
    seen_in_mirror = points[[1, 0, 2, 3]] * torch.tensor([-1.0, 1, 1])

    class Perfect(torch.nn.Module):
        "Answers with the truth in the first crop and its mirror image in the second; the rest is the loaded model's."

        layout = estimator.model.layout

        def forward(self, images, intrinsics):
            latents = torch.stack([points, seen_in_mirror])
            return PoseOutput(combine_points(self.layout.decoder, latents), None, latents)

    camera = Camera(np.array([[500.0, 0, 99.5], [0, 500, 99.5], [0, 0, 1]]))
    for kept in (estimator, PoseEstimator.load(estimator.save(tmp_path / "ours"), looks=2, device="cpu")):
        kept.model = Perfect()
        poses = kept.estimate(np.zeros((200, 200, 3), np.uint8), [49.5, 49.5, 100, 100], camera)
        np.testing.assert_allclose(poses.joints3d[0], matrix.T @ points.numpy(), atol=0.01)


def test_saved_in_our_format_it_answers_the_same(folder, tmp_path):
    image, box = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8), [20, 20, 100, 160]
    with pytest.warns(LicenceNotice):
        estimator = PoseEstimator.from_metrabs(folder)
    estimator.save(tmp_path / "ours")
    again = PoseEstimator.load(tmp_path / "ours")
    for name in ("all", "a_4", "mixed_3"):
        a, b = estimator.estimate(image, box, skeleton=name), again.estimate(image, box, skeleton=name)
        assert np.allclose(a.joints3d, b.joints3d, rtol=1e-5) and a.skeleton.joints == b.skeleton.joints
    assert (
        "non-commercial" in again.licence
        and json.loads((tmp_path / "ours/model.json").read_text())["params"]["licence"] == again.licence
    )
    with pytest.raises(KeyError, match="did you mean 'mixed_3'"):
        again.estimate(image, box, skeleton="mixed3")


def test_missing_unknown_and_misshapen_weights_are_listed(folder, weights):
    changed = dict(weights, stranger=torch.ones(1), **{"heatmap_heads.conv_final.bias": torch.ones(7)})
    del changed["backbone.1.0.0.weight"], changed["backbone.1.3.1.block.1.1.bias"]
    torch.save(changed, folder / "ckpt.pt")
    with pytest.raises(ValueError) as error:
        load(folder)
    for words in (
        "4 tensors",
        "backbone.features.0.0.weight: missing",
        "backbone.features.3.1.block.1.1.bias: missing",
        "stranger: unknown",
        r"heatmap_heads.conv_final.bias: expected shape (36,), found (7,)",
    ):
        assert words in str(error.value)


class Evil:
    def __init__(self, *command):
        self.command = command

    def __reduce__(self):
        return self.command


@pytest.mark.parametrize(
    "command",
    [(os.system, ("touch {}",)), (eval, ("open({!r}, 'w')",)), (exec, ("open({!r}, 'w')",)), (getattr, (os, "system"))],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_not_run(folder, command, protocol):
    mark = str(folder / "was_run")
    function, arguments = command
    arguments = tuple(a.format(mark) if isinstance(a, str) else a for a in arguments)
    content = pickle.dumps(
        {"": {"indices": Evil(function, arguments) if function is not getattr else [getattr]}}, protocol
    )
    (folder / "skeleton_infos.pkl").write_bytes(content)
    with pytest.raises(UnsafePickle, match="skeleton_infos.pkl: expected plain data"):
        load(folder)
    assert not os.path.exists(mark)


def test_a_checkpoint_with_code_is_refused_and_not_run(folder):
    mark = str(folder / "was_run")
    for content in (
        {"heatmap_heads.conv_final.bias": Evil(os.system, (f"touch {mark}",))},
        PoseModel(efficientnet_v2_s(), SeparateJoints(1)).heatmap_heads,
    ):
        torch.save(content, folder / "ckpt.pt")
        with pytest.raises(ValueError, match="ckpt.pt: expected a dictionary of tensors and nothing else"):
            load(folder)
    (folder / "ckpt.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="ckpt.pt"):
        load(folder)
    assert not os.path.exists(mark)


@pytest.mark.parametrize(
    "text, message",
    [
        ("proc_side: 64\nefficientnet_size: xl\n", "efficientnet_size: expected s, m or l"),
        ("efficientnet_size: s\n", "proc_side: expected"),
        ("- a\n", "proc_side"),
        ("proc_side: [", "expected YAML"),
        ("proc_side: 64\nefficientnet_size: s\naffine_weights: huge8\n", "affine_weights: expected None"),
        ("proc_side: 64\nefficientnet_size: s\nmix_3d_inside_fov: 0.2\n", "mix_3d_inside_fov: expected 0.5"),
        ("!!python/object/apply:os.system ['touch x']", "expected YAML"),
    ],
)
def test_configurations_that_cannot_be_honoured(tmp_path, text, message):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "config.yaml")


def test_skeleton_tables_that_contradict_themselves(folder):
    good = pickle.loads((folder / "skeleton_infos.pkl").read_bytes())
    for change, message in (
        ({"a_4": dict(indices=[0, 9], names=["lhip", "rhip"], edges=[])}, "'a_4': indices: expected 2 in 0..5"),
        ({"a_4": dict(indices=[0], names=["lhip"])}, "'a_4': expected indices, names and edges"),
        ({"a_4": dict(indices=[0, 1], names=["lhip", "rhip"], edges=[[0, 7]])}, "'a_4': .*edges"),
        ({"": good["mixed_3"]}, "expected the format '' with names for all 6 joints"),
    ):
        (folder / "skeleton_infos.pkl").write_bytes(pickle.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            load(folder)


def test_names_and_shapes_of_a_published_checkpoint(tmp_path):
    from conftest import CONFORMANCE

    path = CONFORMANCE / "state_dict_eff2s_J122.json"
    kinds = {
        name: (shape, getattr(torch, kind.removeprefix("torch.")))
        for name, (shape, kind) in json.loads(path.read_text()).items()
    }
    torch.save({name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in kinds.items()}, tmp_path / "ckpt.pt")
    model = PoseModel(efficientnet_v2_s(), SeparateJoints(122))
    fill_weights(model, tmp_path / "ckpt.pt")
    assert all(not v.any() for v in model.state_dict().values())


def test_first_letters():
    assert mirror_by_first_letter(["lkne_x", "rkne_x", "rkne_y", "neck", "right", "left"]) == (1, 0, 2, 3, 4, 5)
    assert mirror_by_first_letter(["leye", "reye", "lower"]) == (1, 0, 2)


def test_plain_pickles_of_every_kind(tmp_path):
    data = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.array(["x", "y"]),
        "c": np.float32(1.5),
        "d": {1, 2},
        "e": b"bytes",
        "f": (1, 2.5, None, True),
        "g": np.array([1, "z"], dtype=object),
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "p.pkl").write_bytes(pickle.dumps(data, protocol))
        back = load_pickle(tmp_path / "p.pkl")
        assert (
            np.array_equal(back["a"], data["a"])
            and list(back["b"]) == ["x", "y"]
            and back["c"] == 1.5
            and back["d"] == {1, 2}
            and back["e"] == b"bytes"
            and back["f"] == data["f"]
            and list(back["g"]) == [1, "z"]
        )
    with pytest.raises(FileNotFoundError, match="none.pkl"):
        load_pickle(tmp_path / "none.pkl")
