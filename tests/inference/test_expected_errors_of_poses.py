"""Expected errors from the file beside a model to poses, tables and what is left out; and models that have none."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from toy_models import restless_model

from acae_nb.autoencoder.acae import ACAE, save_acae
from acae_nb.evaluation.expected_error import FILE, ErrorsByLooks, ExpectedError, save_expected_errors
from acae_nb.inference.estimator import PoseEstimator, cues_of, spread_of, ways_to_look
from acae_nb.inference.outputs import write_csv, write_parquet
from acae_nb.inference.person_crops import ONE_LOOK, WITH_MIRROR
from acae_nb.inference.predictions import ErrorLimit, error_limit, one_after_other, source_of, write_predictions
from acae_nb.inference.smoothing import smoothed_people
from acae_nb.inference.tracks import follow
from acae_nb.models.pose_model import SeparateJoints, save_pose_model
from acae_nb.skeletons.joints import load_skeleton, union
from acae_nb.workflow.cli import main

BOTH = union([load_skeleton("coco_17"), load_skeleton("h36m_17")])
BOXES = [[60.0, 40, 100, 150], [100, 20, 80, 200]]
IMAGE = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (320, 240))
FACTORS = np.arange(1, 35.0)
LINE = np.array([0.0, 1e9])


def write_errors(folder, looks=WITH_MIRROR, factors=FACTORS):
    "Expected errors of so many mm a joint, times 1 + the spread."
    error = ExpectedError(np.array([0, 1.0, 0, 0, 0]), factors, LINE, LINE)
    info = json.loads((folder / "model.json").read_text())
    save_expected_errors(folder / FILE, ErrorsByLooks((ways_to_look(looks),), (error,)), info["weights_sha256"])


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = restless_model(SeparateJoints(34))
    encoder, decoder = torch.full((4, 34), 1 / 34), torch.nn.functional.one_hot(torch.arange(34) % 4, 4).float()
    folder = save_pose_model(tmp_path / "model", model, BOTH, {"size": 64})
    save_acae(ACAE(encoder, decoder), folder / "acae.safetensors")
    return folder


def estimated(folder, skeleton="all", **options):
    return PoseEstimator.load(folder, plausibility=None, **options).estimate(IMAGE, BOXES, skeleton=skeleton)


def test_the_spread_of_looks_against_a_slow_reading():
    looks = np.random.default_rng(0).normal(0, 100, (2, 5, 7, 3)) + [0, 0, 4000]
    looks[:, 2] += [0, 0, 900]  # how far away a look puts the person does not count
    found = spread_of(looks)
    for n in range(2):
        poses = [pose - sum(pose) / 7 for pose in looks[n]]
        for j in range(7):
            mean = sum(pose[j] for pose in poses) / 5
            squares = [sum((pose[j] - mean) ** 2) for pose in poses]
            np.testing.assert_allclose(found[n, j], np.sqrt(np.mean(squares)))


def test_a_model_without_the_file_states_no_errors(folder, tmp_path):
    poses = estimated(folder)
    assert poses.expected_error is None and "expected_error_mm" not in poses.to_pandas()
    assert "expected_error_mm" not in pd.read_csv(write_csv([poses], tmp_path / "a.csv"), comment="#")
    assert "expected_error_mm" not in pd.read_parquet(write_parquet([poses], tmp_path / "a.parquet"))


def test_a_calibrated_model_states_the_error_of_every_joint(folder, tmp_path):
    write_errors(folder)
    poses = estimated(folder)
    np.testing.assert_allclose(poses.expected_error, FACTORS * (1 + poses.spread), rtol=1e-5)
    assert (poses.spread > 0).all() and cues_of(poses).shape == (2, 34, 5)
    for table in (
        poses.to_pandas().reset_index(),
        pd.read_csv(write_csv([poses], tmp_path / "a.csv"), comment="#"),
        pd.read_parquet(write_parquet([poses], tmp_path / "a.parquet")),
    ):
        assert list(table).index("expected_error_mm") == list(table).index("confidence") + 1
        np.testing.assert_allclose(table["expected_error_mm"], poses.expected_error.ravel(), rtol=1e-3)


def test_a_format_alone_has_the_errors_that_it_has_among_all(folder):
    write_errors(folder)
    every, alone = estimated(folder), estimated(folder, "h36m_17")
    np.testing.assert_allclose(alone.expected_error, every.expected_error[:, 17:], rtol=1e-6)
    np.testing.assert_array_equal(every.of("h36m_17").expected_error, every.expected_error[:, 17:])
    np.testing.assert_array_equal(every[1].expected_error, every.expected_error[1:])


def test_nobody_has_no_errors(folder):
    write_errors(folder)
    poses = PoseEstimator.load(folder).estimate(IMAGE, np.zeros((0, 4)))
    assert poses.expected_error.shape == (0, 34) and "expected_error_mm" in poses.to_pandas()


def test_looks_or_an_autoencoder_that_were_not_calibrated_have_no_errors(folder):
    write_errors(folder, ONE_LOOK)
    assert estimated(folder).expected_error is None
    assert estimated(folder, looks=1).expected_error is not None
    assert estimated(folder, looks=1, acae=folder / "acae.safetensors").expected_error is None


def test_a_damaged_file_is_refused_when_the_model_is_loaded(folder):
    write_errors(folder, factors=FACTORS[:9])
    with pytest.raises(ValueError, match=rf"{FILE}: 0/factors: expected shape \(34,\).*found shape \(9,\)"):
        PoseEstimator.load(folder)
    (folder / FILE).write_bytes(b"no")
    with pytest.raises(ValueError, match=f"{FILE}: expected a file as save_expected_errors writes it"):
        PoseEstimator.load(folder)


def test_the_file_of_another_model_is_refused(folder):
    write_errors(folder)
    save_pose_model(folder, restless_model(SeparateJoints(34)), BOTH, {"size": 64})
    with pytest.raises(ValueError, match=f"{FILE}: weights_sha256: expected .*acae_nb.workflow.calibration makes this"):
        PoseEstimator.load(folder)


# --- what is left out ------------------------------------------------------------------------------------------------
def test_doubtful_joints_become_nan_and_people_without_others_go(folder):
    poses = replace(estimated(folder), expected_error=np.stack([FACTORS * 10, FACTORS + 200]))
    poses.expected_error[0, 3] = np.nan  # not known is not sure
    limit = ErrorLimit(100.0)
    (left,) = limit([poses])
    assert len(left) == 1 and (limit.joints, limit.left_out) == (68, 68 - 9)
    sure = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(left.joints3d[0]).all(-1)), sure)
    np.testing.assert_array_equal(left.joints3d[0, sure], poses.joints3d[0, sure])
    assert str(limit) == "59 of 68 joints left out, expected error above 100 mm"
    list(limit([poses[0]]))
    assert (limit.joints, limit.left_out) == (34, 25), "counted anew"


def test_a_limit_needs_calibrated_errors(folder):
    with pytest.raises(ValueError, match="max error: expected a model with calibrated errors for 2 looks"):
        error_limit(PoseEstimator.load(folder), 100)
    write_errors(folder)
    with pytest.raises(ValueError, match="max error: expected mm above 0, found -1"):
        error_limit(PoseEstimator.load(folder), -1)
    with pytest.raises(ValueError, match="max error: expected mm above 0, found nan"):
        error_limit(PoseEstimator.load(folder), float("nan"))


def test_changes_go_one_after_the_other():
    assert one_after_other(None, None) is None
    assert one_after_other(None, sorted, lambda values: values[1:])([3, 1, 2]) == [2, 3]


def test_smoothing_goes_on_with_joints_left_out(folder):
    write_errors(folder)
    video = [replace(estimated(folder), frame=k, time_s=k / 10) for k in range(4)]
    video[2] = video[2][0]
    smooth = smoothed_people(ErrorLimit(1e8)(follow(video)))
    assert [len(poses) for poses in smooth] == [2, 2, 2, 2]
    assert np.isnan(smooth[2].expected_error[1]).all() and np.isfinite(smooth[2].expected_error[0]).all()


@pytest.mark.parametrize("ending", ["csv", "json", "trc", "c3d"])
def test_files_have_gaps_where_joints_are_left_out(folder, tmp_path, ending):
    if ending == "c3d":
        pytest.importorskip("ezc3d")
    write_errors(folder)
    (tmp_path / "in").mkdir()
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), IMAGE)
    estimator = PoseEstimator.load(folder)
    middle = float(np.median(estimator.estimate(IMAGE[..., ::-1], BOXES[0]).expected_error))
    limit = error_limit(estimator, middle)
    source = source_of(tmp_path / "in", box=BOXES[0])
    outcome = write_predictions(source, estimator, tmp_path / f"o.{ending}", change=limit)
    assert not outcome.lost and limit.joints == 3 * 34 and 0 < limit.left_out < limit.joints and not limit.left_out % 3
    if ending == "csv":
        table = pd.read_csv(tmp_path / "o.csv", comment="#")
        assert table["x_mm"].isna().sum() == limit.left_out
        assert (table["x_mm"].isna() == (table["expected_error_mm"] > middle + 1e-3)).all()
    if ending == "json":
        people = json.loads((tmp_path / "o.json").read_text())["annotations"]
        assert sum(person["keypoints"][2::3].count(0) for person in people) == limit.left_out


def test_the_command_counts_and_says_what_it_leaves_out(folder, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "p.png"), IMAGE)
    call = ["predict", str(tmp_path / "p.png"), "-o", str(tmp_path / "o.csv"), "--model", str(folder)]
    call += ["--box", "60", "40", "100", "150", "--max-error", "1e-3"]
    assert main(call) == 2
    assert "max error: expected a model with calibrated errors for 2 looks" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()
    write_errors(folder)
    assert main(call) == 0
    assert "(34 of 34 joints left out, expected error above 0.001 mm)" in capsys.readouterr().out
    assert main([*call[:-1], "1e9", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["joints"], told["joints_left_out"]) == (34, 0)
    assert len(pd.read_csv(tmp_path / "o.csv", comment="#")) == 34


def test_the_command_says_when_looks_have_no_errors_and_which_have(folder, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "p.png"), IMAGE)
    output = tmp_path / "o.csv"
    call = ["predict", str(tmp_path / "p.png"), "-o", str(output), "--model", str(folder), "--json"]
    call += ["--box", "60", "40", "100", "150", "--looks"]
    assert main([*call, "3"]) == 0 and capsys.readouterr().err == "", "a model without any"
    write_errors(folder)
    assert main([*call, "3"]) == 0
    words = "acae-nb: --looks 3: no expected errors, which this model has with --looks 2\n"
    assert capsys.readouterr().err == words and "expected_error_mm" not in pd.read_csv(output, comment="#")
    assert main([*call, "2"]) == 0
    assert capsys.readouterr().err == "" and "expected_error_mm" in pd.read_csv(output, comment="#")
    output.unlink()
    assert main([*call, "3", "--max-error", "50"]) == 2
    words = "max error: expected --looks 2, with which this model has expected errors, found 3 looks\n"
    assert capsys.readouterr().err == f"acae-nb: {words}" and not output.exists()


def test_the_model_of_the_package_has_errors_with_the_looks_that_help_names(capsys):
    assert PoseEstimator.load().calibrated_looks == (1, 2)
    main(["predict", "-h"])
    assert "(the package's model: 1 and 2)" in " ".join(capsys.readouterr().out.split())
