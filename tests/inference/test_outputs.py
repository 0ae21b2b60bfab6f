"""Files of poses read back by others' readers, tracks over time, the model card, export and the command line."""

import importlib.util
import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from toy_models import restless_model

from acae_nb.geometry.cameras import Camera
from acae_nb.inference.estimator import PoseEstimator
from acae_nb.inference.outputs import write_coco, write_csv, write_parquet, write_trc, writer_of
from acae_nb.inference.pose_results import Poses, to_table
from acae_nb.inference.publishing import benchmarks_of, model_card, pull_model, push_model
from acae_nb.inference.tracks import follow, people_over_time
from acae_nb.models.pose_model import DecodedPoints, HybridPoints, SeparateJoints, save_pose_model
from acae_nb.skeletons.joints import load_skeleton, union
from acae_nb.workflow.cli import main

REPO = Path(__file__).resolve().parents[2]
SKELETON = load_skeleton("coco_17")
UNION = union([SKELETON, load_skeleton("h36m_17")])
BODY = np.random.default_rng(0).normal(0, [150, 400, 100], (34, 3))


def picture(frame, places, skeleton=UNION):
    joints = np.array([BODY[: len(skeleton)] + place for place in places]).reshape(-1, len(skeleton), 3)
    n = len(joints)
    camera = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), position=np.array([0, 0, 500.0]))
    return Poses(
        skeleton,
        joints,
        np.tile([10.0, 20, 100, 200], (n, 1)),
        np.full(n, 0.8),
        np.full((n, len(skeleton)), 10.0),
        camera,
        np.zeros((480, 640, 3), np.uint8),
        frame,
    )


WALK = [picture(t, [[30 * t, 0, 4000], [-900, 0, 5000 + 20 * t]][:: 1 if t % 2 else -1]) for t in range(6)] + [
    picture(6, [[180, 0, 4000]]),
    picture(7, []),
]


def test_tables_come_back(tmp_path):
    expected = to_table(WALK)
    assert len(expected) == 13 * 34 and expected.index.names == ["frame", "person", "format", "joint"]
    csv = pd.read_csv(write_csv(WALK, tmp_path / "p.csv"), comment="#", index_col=[0, 1, 2, 3])
    np.testing.assert_allclose(csv, expected, atol=6e-4)
    assert csv.loc[(0, 0, "h36m_17", load_skeleton("h36m_17").joints[0]), "score"] == 0.8
    file = write_parquet(WALK, tmp_path / "p.parquet")
    back = pd.read_parquet(file).set_index(["frame", "person", "format", "joint"])
    np.testing.assert_allclose(back, expected, rtol=1e-6, atol=1e-3)
    for text in ((tmp_path / "p.csv").read_text()[:400], pq.read_schema(file).metadata[b"axes_and_units"].decode()):
        assert "x right, y down, z forward" in text and "mm" in text


def test_names_of_pictures_are_those_of_the_frames(tmp_path):
    names = [f"shot #{t}, left.jpg" for t in range(8)]
    some = [WALK[1], WALK[4], WALK[7]]
    table = pd.read_csv(write_csv(some, tmp_path / "p.csv", names=names), comment="#", index_col=[0, 1, 2, 3])
    assert list(table["picture"].unique()) == [names[1], names[4]]
    np.testing.assert_allclose(table.drop(columns="picture"), to_table(some), atol=6e-4)
    coco = json.loads(write_coco(some, tmp_path / "p.json", names=names).read_text())
    assert [image["file_name"] for image in coco["images"]] == [names[1], names[4], names[7]]


def test_coco(tmp_path):
    coco = json.loads(write_coco(WALK, tmp_path / "p.json", names=[f"{t}.jpg" for t in range(8)]).read_text())
    assert len(coco["images"]) == 8 and coco["images"][3] == {
        "id": 3,
        "file_name": "3.jpg",
        "height": 480,
        "width": 640,
    }
    first = coco["annotations"][0]
    keypoints = np.array(first["keypoints"]).reshape(-1, 3)
    np.testing.assert_allclose(keypoints[:, :2], WALK[0].px[0], atol=0.01)
    inside = ((WALK[0].px[0] >= -0.5) & (WALK[0].px[0] <= [639.5, 479.5])).all(1)
    assert (keypoints[:, 2] == np.where(inside, 2, 1)).all() and len({a["id"] for a in coco["annotations"]}) == 13
    np.testing.assert_allclose(np.array(first["keypoints3d_mm"]).reshape(-1, 3), WALK[0].joints3d[0], atol=0.01)
    assert np.array(coco["categories"][0]["skeleton"]).min() >= 1 and "mm" in coco["info"]["keypoints3d_mm"]
    behind = replace(WALK[0], joints3d=WALK[0].joints3d * [1, 1, -1])
    flags = np.array(json.loads(write_coco([behind], tmp_path / "b.json").read_text())["annotations"][0]["keypoints"])
    assert not flags.any()
    with pytest.raises(ValueError, match="at least one picture"):
        write_coco([], tmp_path / "none.json")


def test_tables_and_coco_tell_who_is_who(tmp_path):
    followed = list(follow(WALK))
    table = pd.read_csv(write_csv(followed, tmp_path / "p.csv"), comment="#")
    assert set(table.query("frame == 1 and person == 0")["track"]) == {1} and table["track"].dtype == int
    assert pd.read_parquet(write_parquet(followed, tmp_path / "p.parquet"))["track"].dtype == int
    coco = json.loads(write_coco(followed, tmp_path / "p.json").read_text())
    assert [a["track_id"] for a in coco["annotations"]][:6] == [0, 1, 1, 0, 0, 1]
    plain = json.loads(write_coco(WALK, tmp_path / "q.json").read_text())
    assert "track_id" not in plain["annotations"][0] and "track" not in to_table(WALK)


@pytest.mark.parametrize("frame", ["camera", "world"])
def test_trc(tmp_path, frame):
    lines = write_trc(WALK, tmp_path / "p.trc", 50, frame).read_text().split("\n")
    assert lines[2].split("\t")[:5] == ["50", "50", "8", "68", "mm"] and "Y up" in lines[0]
    names = [n for n in lines[3].split("\t")[2:] if n]
    assert len(names) == 68 and names[0] == "coco_17_" + SKELETON.joints[0] and names[34].startswith("2_coco_17_")
    row = lines[6].split("\t")
    x, y, z = people_over_time(WALK, 50, frame)[0][0][0]
    np.testing.assert_allclose(
        [float(v) for v in row[2:5]], [x, -y, -z] if frame == "camera" else [x, z, -y], atol=1e-3
    )
    assert len(row) == 2 + 3 * 68 + 1 and not row[-1] and lines[13].split("\t")[2] == ""
    with pytest.raises(ValueError, match="at least one person"):
        write_trc([picture(0, [])], tmp_path / "e.trc")


def test_c3d(tmp_path):
    ezc3d = pytest.importorskip("ezc3d", reason="the extra `outputs` is not installed")
    from acae_nb.inference.outputs import write_c3d

    file = ezc3d.c3d(str(write_c3d(WALK, tmp_path / "new/p.c3d", 50)))
    point = file["parameters"]["POINT"]
    assert (
        point["UNITS"]["value"] == ["mm"]
        and point["RATE"]["value"][0] == 50
        and "y down" in point["AXES"]["value"][0]
        and len(point["LABELS"]["value"]) == 68
    )
    np.testing.assert_allclose(file["data"]["points"][:3, :34, 0].T, people_over_time(WALK)[0][0], atol=0.01)
    assert (file["data"]["meta_points"]["residuals"][0, :34, 7] < 0).all() and np.isnan(file["data"]["points"][0, 0, 7])
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["p.c3d"]


def test_unknown_endings():
    with pytest.raises(ValueError, match=r"p.xyz: expected an ending out of .csv"):
        writer_of("p.xyz")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.manual_seed(0)
    model = restless_model(SeparateJoints(34))
    return save_pose_model(
        tmp_path_factory.mktemp("m") / "model",
        model,
        UNION,
        {"size": 64, "recipe": "separate", "quotas": {"street": 4}, "steps": 9},
    )


def test_model_card(model_folder, tmp_path):
    card = model_card(model_folder, {"synthetic": {"MPJPE": 169.627, "other": 1.0}})
    assert card == (model_folder / "README.md").read_text()
    for words in ("coco_17 (17 joints)", "| synthetic | 169.6 |", "street 4", "## Limits", "PoseEstimator.load"):
        assert words in card
    assert "Not measured" in model_card(model_folder, {})
    with pytest.raises(FileNotFoundError, match="model.json"):
        model_card(tmp_path, {})
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ValueError, match="model.json: expected a model's description"):
        model_card(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="README.md|model.json|model.safetensors"):
        push_model(tmp_path, "someone/model")


class Hub:
    "huggingface_hub as far as it is used here; a folder stands for the hub, and every call is kept."

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def HfApi(self):
        return self

    def create_repo(self, repo_id, exist_ok=False):
        self.calls.append(("create_repo", (repo_id,), dict(exist_ok=exist_ok)))
        (self.folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, allow_patterns):
        self.calls.append(
            ("upload_folder", (), dict(repo_id=repo_id, folder_path=folder_path, allow_patterns=allow_patterns))
        )
        for name in allow_patterns:
            (self.folder / repo_id / name).write_bytes((Path(folder_path) / name).read_bytes())
        return SimpleNamespace(commit_url=f"hub/{repo_id}/commit/1")

    def snapshot_download(self, repo_id, *, revision, allow_patterns):
        self.calls.append(("snapshot_download", (repo_id,), dict(revision=revision, allow_patterns=allow_patterns)))
        return str(self.folder / repo_id)


def test_a_model_goes_to_a_hub_and_comes_back(model_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub := Hub(tmp_path))
    model_card(model_folder, {})
    (model_folder / "secret.txt").write_text("not to be published")
    errors = ["expected_error.png", "expected_error.safetensors"]  # as the packaged model has; children.png is not here
    for name in errors:
        (model_folder / name).write_bytes(b"errors and a picture of the card")
    for _ in range(2):
        assert push_model(model_folder, "someone/model") == "hub/someone/model/commit/1"
    (model_folder / "secret.txt").unlink()
    found = pull_model("someone/model", "v1")
    assert sorted(p.name for p in found.iterdir()) == ["README.md", *errors, "model.json", "model.safetensors"]
    assert {"acae.safetensors", "children.png", *errors} <= {*hub.calls[-1][2]["allow_patterns"]}
    for name in errors:  # they are no expected errors
        (found / name).unlink()
        (model_folder / name).unlink()
    assert PoseEstimator.load(found).skeleton == UNION
    monkeypatch.undo()
    real = pytest.importorskip(
        "huggingface_hub",
        reason="the extra `hub` is not installed: its functions were not asked whether they take these calls",
    )
    for name, args, kwargs in hub.calls:
        if name == "snapshot_download":
            inspect.signature(real.snapshot_download).bind(*args, **kwargs)
        else:
            inspect.signature(getattr(real.HfApi, name)).bind(real.HfApi, *args, **kwargs)
    assert "commit_url" in real.CommitInfo.__dataclass_fields__


def test_without_the_hub_library_it_says_what_to_install(model_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"acae_nb\[hub\]"):
        pull_model("someone/model")


def test_results_of_the_pipeline_go_into_cards(model_folder, tmp_path):
    numbers = json.loads((REPO / "results/evaluate/consistency.json").read_text())
    rows = benchmarks_of(numbers)
    assert {row.partition(" [")[0] for row in rows} == {
        "synthetic",
        "recording, views",
        "recording, triangulated",
        "recording, detections",
        "recording",
        "mean pose",
    }
    assert rows[f"synthetic [{numbers['protocol']['synthetic']}]"]["MPJPE"] == numbers["synthetic"]["MPJPE"]
    text = model_card(model_folder, rows, ["street: 9 pictures"], ["not for birds"])
    for words in (f"{numbers['synthetic']['MPJPE']:.1f}", "street: 9 pictures", "not for birds"):
        assert words in text
    for wrong in ([1], {"a": {"MPJPE": "1"}}, {"a": [1]}):
        with pytest.raises(ValueError, match="results: "):
            benchmarks_of(wrong)


needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))),
    reason="the extra `export` is not installed",
)


def layouts():
    torch.manual_seed(0)
    encoder, decoder = torch.full((6, 34), 1 / 34), torch.nn.functional.one_hot(torch.arange(34) % 6, 6).float()
    for layout in (SeparateJoints(34), DecodedPoints(decoder), HybridPoints(encoder, decoder)):
        yield PoseEstimator(restless_model(layout), UNION, 64)


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_onnx_equals_torch_for_every_layout_and_number_of_crops(tmp_path):
    from acae_nb.inference.export import export_onnx, largest_difference

    for k, estimator in enumerate(layouts()):
        path = export_onnx(estimator, tmp_path / f"{k}.onnx")
        assert largest_difference(estimator, path, (1, 3, 8)) < 0.05  # mm, at 10 m or nearer


@pytest.mark.filterwarnings("ignore")
def test_exported_program_equals_torch(tmp_path):
    from acae_nb.inference.export import export_torch

    estimator = next(iter(layouts()))
    program = torch.export.load(export_torch(estimator, tmp_path / "m.pt2")).module()
    images, K = (
        torch.randint(0, 255, (5, 3, 64, 64), dtype=torch.uint8),
        torch.tensor([[96.0, 0, 31], [0, 96, 33], [0, 0, 1]]).repeat(5, 1, 1),
    )
    with torch.inference_mode():
        expected = estimator.model(images, K).joints
    assert torch.allclose(program(images, K), expected, rtol=1e-4, atol=0.02)


@needs_onnx
@pytest.mark.filterwarnings("ignore")
def test_the_example_without_torch_gives_the_same_pose(tmp_path, model_folder, capsys):
    assert main(["export", str(model_folder), "-o", str(tmp_path / "crop.onnx"), "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["largest_difference_mm"] < 0.05
    image = cv2.GaussianBlur(
        cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (320, 240)), (0, 0), 3
    )
    cv2.imwrite(str(tmp_path / "p.png"), image)
    blocked = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            blocked,
            str(REPO / "examples/onnx_pose.py"),
            str(tmp_path / "crop.onnx"),
            str(tmp_path / "p.png"),
            "--box",
            "60",
            "40",
            "100",
            "150",
            "--format",
            "h36m_17",
            "--overlay",
            str(tmp_path / "o.png"),
        ],
        capture_output=True,
        text=True,
        env={"PATH": "", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    found = np.array([line.split()[1:] for line in done.stdout.splitlines()], float)
    poses = PoseEstimator.load(model_folder).estimate(image[..., ::-1], [60, 40, 100, 150], skeleton="h36m_17")
    size = np.ptp(poses.joints3d[0], axis=0).max()
    assert (
        np.abs(found[:, 3:] - poses.px[0]).max() < 3
        and np.abs(found[:, :3] - poses.joints3d[0]).max() < 0.05 * np.linalg.norm(poses.joints3d[0], axis=-1).max()
    ), size
    assert (tmp_path / "o.png").is_file()
