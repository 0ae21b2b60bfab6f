"""The calibration of a model: the file, the card, and that nothing is written where something is wrong."""

import cv2
import numpy as np
import pytest
import torch
from oracle_cameras import camera_at
from toy_models import restless_model

from acae_nb.autoencoder.acae import ACAE, save_acae
from acae_nb.evaluation.expected_error import FILE
from acae_nb.examples.tables import Example, ExampleTable, ExampleWriter, encode_jpeg
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.publishing import model_card
from acae_nb.models.pose_model import SeparateJoints, save_pose_model
from acae_nb.skeletons.joints import load_skeleton, union
from acae_nb.workflow.calibration import HELD_OUT, PICTURE, REAL, TITLE, calibrate_model, main, measure_people

BOTH = union([load_skeleton("coco_17"), load_skeleton("h36m_17")])
CAMERA = camera_at([4000, 0, 1200], [0, 0, 1000])


def write_people(folder, split, people, seed, skeleton=BOTH):
    "People of noise before noise."
    rng = np.random.default_rng(seed)
    with ExampleWriter(folder, skeleton, "made up") as writer:
        for k in range(people):
            joints = rng.normal(0, [150, 150, 400], (len(skeleton), 3)) + [0, 0, 1000]
            px = CAMERA.project(joints)
            box = np.r_[px.min(0), np.ptp(px, axis=0)]
            image = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (640, 480))
            example = Example(f"{k}", "made up", split, "s", "q", k, CAMERA, box, (640, 480), joints3d=joints)
            writer.add(example, encode_jpeg(image))
    return folder


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    write_people(folder / "validation", "validation", 40, 0)
    write_people(folder / "indoor", "test", 12, 1)
    write_people(folder / "outdoor", "test", 12, 2)
    write_people(folder / "real", "test", 12, 3, load_skeleton("h36m_17"))
    return folder


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "model"
    encoder, decoder = torch.full((4, 34), 1 / 34), torch.nn.functional.one_hot(torch.arange(34) % 4, 4).float()
    save_pose_model(folder, restless_model(SeparateJoints(34)), BOTH, {"size": 64})
    save_acae(ACAE(encoder, decoder), folder / "acae.safetensors")
    model_card(folder, {})
    return folder


def test_people_of_natural_statures_are_not_mixed_with_others(model, tables, tmp_path):
    with ExampleWriter(tmp_path / "scaled", BOTH, "made up", {"statures": "natural"}) as writer:
        table = ExampleTable.open(tables / "indoor")
        writer.add(table[0], table.image_bytes(0))
    with pytest.raises(
        ValueError, match="natural statures in all tables or in none, found none in .*validation, .*out"
    ):
        calibrate_model(model, tables / "validation", [tmp_path / "scaled", tables / "outdoor"], looks=(1,))


def call(model, tables, *more):
    tests = [str(tables / "indoor"), str(tables / "outdoor")]
    return [str(model), "--validation", str(tables / "validation"), "--test", *tests, *more]


def test_a_calibrated_model_says_so_in_its_card_and_in_its_poses(model, tables, capsys):
    before = (model / "README.md").read_text()
    assert main(call(model, tables, "--real", str(tables / "real"), "--looks", "1", "2")) == 0
    assert f"2 looks, {HELD_OUT}: worst tenth" in capsys.readouterr().out
    card = (model / "README.md").read_text()
    assert card.count(TITLE) == 1 and card.index("## Measured") < card.index(TITLE) < card.index("## Limits")
    assert f"On 24 {HELD_OUT} (2 looks)" in card and f"On the {REAL} (12 views" in card and f"({PICTURE})" in card
    assert before.replace(" ", "").replace("\n", "") in card.replace(
        card[card.index(TITLE) : card.index("## Limits")], ""
    ).replace(" ", "").replace("\n", "")
    assert (model / PICTURE).read_bytes()[:4] == b"\x89PNG" and (model / PICTURE).stat().st_size < 100_000
    for looks in (1, 2, 5):
        estimator = PoseEstimator.load(model, looks=looks)
        assert (estimator.expected_error is None) == (looks == 5)
    first = (model / FILE).read_bytes()
    assert main(call(model, tables, "--real", str(tables / "real"), "--looks", "1", "2")) == 0
    assert (model / "README.md").read_text() == card and (model / FILE).read_bytes() == first


def test_what_is_measured_is_what_the_estimator_answers(model, tables):
    estimator, table = PoseEstimator.load(model), ExampleTable.open(tables / "real")
    measured = measure_people(estimator, table)
    assert measured.cues.shape == (12, 34, 5) and np.isnan(measured.errors[:, :17]).all()
    row = 3
    poses = estimator.estimate(table.image(row), table.column("box")[row], table.camera(row)).of("h36m_17")
    true = table.camera(row).to_camera(table.world_joints3d(row).astype(float))
    hips = [poses.skeleton.short_names.index(name) for name in ("lhip", "rhip")]
    found, true = poses.joints3d[0] - poses.joints3d[0, hips].mean(0), true - true[hips].mean(0)
    np.testing.assert_allclose(measured.errors[row, 17:], np.linalg.norm(found - true, axis=-1), rtol=1e-3)


def test_a_calibration_replaces_that_of_another_model(model, tables):
    calibrate_model(model, tables / "validation", [tables / "indoor"], looks=[1])
    save_pose_model(model, restless_model(SeparateJoints(34)), BOTH, {"size": 64})
    with pytest.raises(ValueError, match="weights_sha256"):
        PoseEstimator.load(model, looks=1)
    calibrate_model(model, tables / "validation", [tables / "indoor"], looks=[1])
    assert PoseEstimator.load(model, looks=1).expected_error is not None


REFUSED = {
    "fitted to a test": ({"validation": "indoor"}, "split: expected validation in every row, found test"),
    "measured on validation": ({"test": "validation"}, "split: expected test in every row, found validation"),
    "no table": ({"test": "nowhere"}, "nowhere"),
    "no card": ({"card": None}, "README.md"),
    "no autoencoder": ({"acae": None}, "expected an autoencoder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_and_nothing_is_written(model, tables, capsys, case):
    changes, words = REFUSED[case]
    for name, file in {"card": "README.md", "acae": "acae.safetensors"}.items():
        if name in changes:
            (model / file).unlink()
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    validation, test = (
        str(tables / changes.get(key, default)) for key, default in (("validation", "validation"), ("test", "indoor"))
    )
    assert main([str(model), "--validation", validation, "--test", test, "--looks", "1"]) == 2
    said = capsys.readouterr().err
    assert "refused: " in said and words in said
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
