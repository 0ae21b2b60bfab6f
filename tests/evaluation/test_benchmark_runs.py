"""Trained models on native test sets: tiny sets by the independent writers, crop models that know the truth, and the
files that come out."""

import json
import shutil
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from acae_nb.datasets.native import ImageFile, VideoFrame
from acae_nb.datasets.selection import picture_name
from acae_nb.datasets.sources import open_source
from acae_nb.evaluation import benchmark_runs
from acae_nb.evaluation.benchmark_runs import (
    CropModel,
    benchmark_rows,
    detected_people,
    formats_of,
    joint_rows,
    load_crop_model,
    read_benchmark,
    run_benchmark,
    stride_of,
)
from acae_nb.evaluation.benchmarks import PROTOCOLS
from acae_nb.evaluation.protocols import Protocol, Result
from acae_nb.evaluation.table_poses import model_joints
from acae_nb.examples.crops import NO_AUGMENTATION, draw_camera
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints, save_pose_model
from acae_nb.skeletons.joints import common_formats, load_skeleton, union
from acae_nb.workflow.cli import main
from tests.datasets.test_emdb import write as write_emdb
from tests.datasets.test_h36m import write as write_h36m
from tests.datasets.test_mpi_inf_3dhp import write_test as write_3dhp
from tests.datasets.test_mupots import write as write_mupots
from tests.datasets.test_threedpw import write as write_3dpw

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # suspicions: made-up joints lie at random
LEARNED, SIZE = (
    union([load_skeleton(name) for name in ("mpi_inf_3dhp_28", "smpl_24", "h36m_25")], "learned"),
    64,
)  # the formats of training sets, not those of the tests


def write_3dpw_splits(root):
    write_3dpw(root)
    (root / "sequenceFiles/validation").mkdir()
    shutil.move(root / "sequenceFiles/test/courtyard_box_00.pkl", root / "sequenceFiles/validation")


# writer, reader, options, learned format, people counted, what 30 mm of every joint but the root make of the MPJPE
SETS = {
    "human36m": (write_h36m, "h36m", dict(subjects=[9]), "h36m_25", 2 * 4, 30 * 16 / 17),
    "human36m-s9-corrected": (write_h36m, "h36m", dict(subjects=[9]), "h36m_25", 2 * 4, 30 * 16 / 17),
    "mpi-inf-3dhp": (write_3dhp, "mpi_inf_3dhp_test", {}, "mpi_inf_3dhp_28", 2 * 2, None),
    "mpi-inf-3dhp-universal": (write_3dhp, "mpi_inf_3dhp_test", {}, "mpi_inf_3dhp_28", 2 * 2, None),
    "mupots-paper": (write_mupots, "mupots", {}, "mpi_inf_3dhp_28", 5 + 8, 30 * 16 / 17),
    "3dpw": (write_3dpw_splits, "threedpw", {}, "smpl_24", 6, 30 * 23 / 24),
    "3dpw-test-14": (write_3dpw, "threedpw", {}, "smpl_24", 5, 30),
    "emdb-1": (write_emdb, "emdb", {}, "smpl_24", 4, 30 * 23 / 24),
}


class Knowing(torch.nn.Module):
    """Answers for one target after the other with its world joints, in the frame of its crop; joints of other formats
    are put somewhere else."""

    def __init__(self, answers):
        super().__init__()
        self.queue = [
            (draw_camera(e.camera, e.box, SIZE, NO_AUGMENTATION, np.random.default_rng(0)), world)
            for e, world in answers
        ]

    def forward(self, images, intrinsics):
        said = []
        for K in intrinsics.numpy():
            camera, world = self.queue.pop(0)
            np.testing.assert_allclose(K, camera.intrinsics, rtol=1e-5)
            said.append(camera.to_camera(world))
        return SimpleNamespace(joints=torch.from_numpy(np.stack(said)).float())


def learned(example, native, format, moved=0.0):
    """World joints of all learned formats: the example's by name in one of them, each but the root `moved` mm in some
    direction."""
    rng = np.random.default_rng(zlib.crc32(example.example_id.encode()))
    world = rng.normal(0, 9e3, (len(LEARNED), 3))
    way = rng.normal(size=example.joints3d.shape)
    way *= moved / np.linalg.norm(way, axis=-1, keepdims=True) * (np.array(native.joints) != "pelvis")[:, None]
    world[[LEARNED.index(joint, format) for joint in native.joints]] = example.joints3d + way
    return world


def crop_model(targets, native, format, moved=0.0):
    return CropModel(
        model_joints(Knowing([(e, learned(e, native, format, moved)) for e in targets])),
        LEARNED,
        SIZE,
        formats_of(LEARNED),
    )


def made(tmp_path, name, **more):
    "The test set of a protocol, written: (benchmark, its rows, the reader's skeleton, the learned format)."
    write, reader, options, format, *_ = SETS.get(name, SETS["mupots-paper"])
    write(tmp_path)
    if reader == "emdb":
        options = dict(body_models=str(tmp_path / "body_models"))
    benchmark = read_benchmark(name, dict(format=reader, folder=str(tmp_path), protocol=name, **options) | more)
    rows = list(benchmark_rows(benchmark, stride_of(benchmark, PROTOCOLS[name])))
    return benchmark, rows, load_skeleton(open_source(reader, tmp_path)[0].name), format


def run(tmp_path, benchmark, models, **more):
    return run_benchmark(benchmark, models, tmp_path / "poses", tmp_path / "results", progress=False, **more)


@pytest.mark.parametrize("name", SETS)
def test_who_knows_the_truth_is_measured_as_such_and_a_known_fault_as_itself(tmp_path, name, capsys):
    people, error = SETS[name][4:]
    benchmark, rows, native, format = made(tmp_path, name)
    examples = [e for e, *_ in rows]
    found = run(
        tmp_path,
        benchmark,
        {"oracle": crop_model(examples, native, format), "off": crop_model(examples, native, format, 30.0)},
        batch_size=3,
    )
    assert found["oracle"].poses == people == len(rows) and found["oracle"].protocol == PROTOCOLS[name]
    assert found["oracle"].overall["MPJPE"] < 0.01 and found["oracle"].overall.get("A-MPJPE", 0) < 0.01
    joints = sum(np.isfinite(e.joints3d).all(-1).sum() for e in examples)  # 3DHP's TS6 lacks a joint in one frame
    assert found["off"].overall["MPJPE"] == pytest.approx(
        30 * (joints - people) / joints if error is None else error, abs=0.01
    )
    for model in found:  # the same numbers from the files, by the command
        assert (
            main(
                [
                    "evaluate",
                    f"{tmp_path}/poses/{model}.npz",
                    f"{tmp_path}/poses/truth.npz",
                    "--protocol",
                    name,
                    "-o",
                    f"{tmp_path}/again.json",
                ]
            )
            == 0
        )
        again, written = (
            json.loads(path.read_text()) for path in (tmp_path / "again.json", tmp_path / f"results/{model}.json")
        )
        facts = written.pop("run")
        assert (
            written == again
            and facts["model"] == model
            and facts["boxes"] == "of the truth"
            and Result.load(tmp_path / f"results/{model}.json").overall == found[model].overall
        )
        assert written["protocol_hash"] == PROTOCOLS[name].hash and PROTOCOLS[name].name in written["protocol_text"][0]


@pytest.mark.parametrize(
    "name, groups",
    [
        ("human36m", {"activity": ["Greeting"]}),
        (
            "3dpw",
            {"sequence": ["courtyard_box_00/0", "courtyard_hug_00/0", "courtyard_hug_00/1", "downtown_walk_00/0"]},
        ),
        ("mpi-inf-3dhp", {"activity": ["Sports", "Standing/Walking"], "scene": ["green screen", "outdoors"]}),
        ("emdb-1", {"sequence": ["P0/09_outdoor_walk", "P8/69_outdoor_cartwheel"]}),
    ],
)
def test_groups(tmp_path, name, groups):
    benchmark, rows, native, format = made(tmp_path, name)
    found = run(tmp_path, benchmark, {"oracle": crop_model([e for e, *_ in rows], native, format)})["oracle"]
    if name == "mpi-inf-3dhp":
        groups = groups | {"activity": sorted({e.sequence.split("/", 1)[1] for e, *_ in rows})}
    assert {g: sorted(table.index) for g, table in found.groups.items()} == groups


def test_a_universal_truth_is_another_truth(tmp_path):
    metric, universal = (
        [e.camera.to_camera(e.joints3d) for e, *_ in made(tmp_path / name, name)[1]]
        for name in ("mpi-inf-3dhp", "mpi-inf-3dhp-universal")
    )
    assert all(np.allclose(a * 0.9, b, equal_nan=True) for a, b in zip(metric, universal))


def detections(tmp_path, rows, lost):
    "detections.csv: the boxes of all people but the `lost` ones, and in each picture one where nobody is."
    lines, pictures = ["picture,left,top,width,height"], dict.fromkeys(picture for _, picture, _ in rows)
    for picture in pictures:
        boxes = [e.box for e, p, _ in rows if p == picture and e.example_id not in lost] + [np.array([70.0, 50, 8, 9])]
        lines += [f"{picture_name(tmp_path, picture)},{','.join(map(repr, box.tolist()))}" for box in boxes]
    (tmp_path / "detections.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["mupots", "mupots-matched", "mupots-absolute"])
def test_people_are_matched_and_missing_ones_counted(tmp_path, name):
    benchmark, rows, native, format = made(tmp_path, name, detections="detections.csv")
    lost = {"TS2/000001/0", "TS11/000000/2"}
    detections(tmp_path, rows, lost)
    looked, nobody = (
        detected_people(
            [row[:2] for row in rows], benchmark_runs.read_detections(tmp_path / "detections.csv"), tmp_path
        ),
        np.full((len(LEARNED), 3), -9e4),
    )
    true = {tuple(e.box): e for e, *_ in rows}
    answers = [(e, learned(true[tuple(e.box)], native, format) if tuple(e.box) in true else nobody) for e, _ in looked]
    found = run(
        tmp_path, benchmark, {"oracle": CropModel(model_joints(Knowing(answers)), LEARNED, SIZE, formats_of(LEARNED))}
    )["oracle"]
    assert len(looked) == 13 - 2 + 6 and found.overall["recall"] == pytest.approx((100 * 4 / 5 + 100 * 7 / 8) / 2)
    assert found.groups["sequence"].loc["TS2", "recall"] == 80 and found.tables["matching"][
        "unmatched predictions"
    ].tolist() == [3, 3]
    best = found.groups["sequence"].iloc[:, 0]
    if name == "mupots-matched":
        assert best["TS2"] == 100 and found.poses == 13
    if name == "mupots":
        assert best["TS2"] == pytest.approx(80)  # all annotated: who is missed counts as wrong
    assert (
        main(
            [
                "evaluate",
                f"{tmp_path}/poses/oracle.npz",
                f"{tmp_path}/poses/truth.npz",
                "--protocol",
                name,
                "-o",
                f"{tmp_path}/again.json",
            ]
        )
        == 0
    )
    assert Result.load(tmp_path / "again.json").overall == found.overall


def test_matching_happens_where_people_are_seen(tmp_path):
    "The universal truth of MuPoTS may lie elsewhere; people are matched by the labels that lie on them."
    benchmark, rows, *_ = made(tmp_path, "mupots")
    for (e, _, px), (seen, _) in zip(rows, open_source("mupots", tmp_path, poses="annot3")[1]):
        np.testing.assert_allclose(px, seen.camera.project(seen.joints3d))
        np.testing.assert_allclose(e.joints3d, 1.1 * seen.joints3d)


def test_each_picture_is_decoded_once_for_all_models(tmp_path, monkeypatch):
    benchmark, rows, native, format = made(tmp_path, "mupots-paper")
    loaded, load = [], ImageFile.load
    monkeypatch.setattr(ImageFile, "load", lambda self: loaded.append(self.path) or load(self))
    examples = [e for e, *_ in rows]
    models = {
        "a": crop_model(examples, native, format),
        "b": replace(
            crop_model(examples, native, format),
            predict=lambda images, K: torch.zeros(len(images), len(LEARNED), 3) + 3e3 + images.shape[-1],
            size=32,
        ),
    }
    run(tmp_path, benchmark, models, batch_size=64)
    assert len(loaded) == len(set(loaded)) == 6


def test_every_nth_frame(tmp_path, monkeypatch):
    benchmark, rows, *_ = made(tmp_path, "emdb-1", every=2)
    assert [e.example_id for e, *_ in rows] == [
        "P0/09_outdoor_walk/00000",
        "P0/09_outdoor_walk/00002",
        "P8/69_outdoor_cartwheel/00000",
    ]
    long = [
        (replace(rows[0][0], frame=k), VideoFrame("none.mp4", k)) for k in range(300)
    ]  # nothing but the frames that count is opened
    monkeypatch.setattr(benchmark_runs, "open_source", lambda *a, **k: (None, iter(long)))
    h36m = read_benchmark("h36m", dict(format="h36m", folder="x", protocol="human36m"))
    assert [e.frame for e, *_ in benchmark_rows(h36m, stride_of(h36m, PROTOCOLS["human36m"]))] == [0, 64, 128, 192, 256]
    for every, words in ((5, "expected 64, as protocol"), (0, "whole number"), (1.5, "whole number")):
        with pytest.raises(ValueError, match=words):
            stride_of(replace(h36m, every=every), PROTOCOLS["human36m"])
    assert stride_of(replace(h36m, every=64), PROTOCOLS["human36m"]) == 64 and stride_of(h36m, PROTOCOLS["emdb-1"]) == 1


GOOD = dict(format="threedpw", folder="none", protocol="3dpw-test-14")


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"format": "threedpv"}, "format: expected one of .*found 'threedpv'.*threedpw"),
        ({"protocol": "3dpw-test"}, "protocol: expected one of .*'emdb-1'.*found '3dpw-test'"),
        (
            {"protocol": "emdb-1"},
            "benchmark x: format: expected 'emdb', whose test set 'emdb-1' measures, found 'threedpw'",
        ),
        ({"split": "train"}, "benchmark x: split: expected 'test'.*found 'train'"),
        ({"protocol": "3dpw", "split": "test"}, "'train' and 'validation' and 'test'"),
        ({"protocol": "3dpw-test-14-regressed"}, "whose truth a reader gives.*acae-nb evaluate"),
        ({"sequences": "a*"}, "threedpw: expected options .*found .*'sequences'"),
        ({"folder": None}, "benchmark x: expected the texts format, folder and protocol, found folder: None"),
        ({"detections": "d.csv"}, "benchmark x: detections: expected none"),
        ({}, "none/sequenceFiles/test.*3DPW.*request it"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_read(tmp_path, monkeypatch, entry, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        run(tmp_path, read_benchmark("x", GOOD | entry), {"m": CropModel(None, LEARNED, SIZE, formats_of(LEARNED))})
    assert not (tmp_path / "poses").exists() and not (tmp_path / "results").exists()


def test_a_model_without_the_format_is_named(tmp_path):
    other = load_skeleton("coco_17")
    for entry, format in ((GOOD, "smpl_24"), (dict(format="h36m", folder="none", protocol="human36m"), "h36m_17")):
        with pytest.raises(
            ValueError,
            match=f"model small: expected {format}/.* for protocol "
            f".*{PROTOCOLS[entry['protocol']].name[:5]}.*found the formats coco_17",
        ):
            run(tmp_path, read_benchmark("x", entry), {"small": CropModel(None, other, SIZE, formats_of(other))})


def test_formats():
    """The 17 joints of the tests, as their owners take them from the 25 and 28 of training (indices of PosePile and of
    the owners' script)."""
    rows = joint_rows(
        formats_of(load_skeleton("mpi_inf_3dhp_28")), load_skeleton("mpi_inf_3dhp_17"), "m", PROTOCOLS["mupots"]
    )
    assert rows == [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
    assert joint_rows(formats_of(load_skeleton("h36m_25")), load_skeleton("h36m_17"), "m", PROTOCOLS["human36m"]) == [
        24,
        0,
        1,
        2,
        5,
        6,
        7,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
        19,
        20,
        21,
    ]
    assert joint_rows(
        formats_of(
            LEARNED,
            {"formats": {"h36m_17": {"skeleton": {"joints": load_skeleton("h36m_17").joints}, "indices": range(17)}}},
        ),
        load_skeleton("h36m_17"),
        "m",
        PROTOCOLS["human36m"],
    ) == list(range(17))
    a, b = (
        union([load_skeleton(name) for name in names])
        for names in (("smpl_24", "coco_17", "h36m_25"), ("h36m_25", "smpl_24"))
    )
    assert (
        list(common_formats({"a": a, "b": b}).parts) == ["smpl_24", "h36m_25"]
        and common_formats({"a": a, "b": a}).to_dict() == a.to_dict()
    )
    with pytest.raises(ValueError, match="a: coco_17; b: h36m_25, smpl_24"):
        common_formats({"a": load_skeleton("coco_17"), "b": b})


def test_a_saved_model_and_a_protocol_of_ones_own(tmp_path):
    torch.manual_seed(0)
    model = PoseModel(tiny_backbone(), SeparateJoints(len(LEARNED)))
    save_pose_model(tmp_path / "model", model, LEARNED, {"size": SIZE})
    write_3dpw(tmp_path)
    own = Protocol.from_dict(PROTOCOLS["3dpw-test-14"].to_dict() | {"name": "mine", "frames": "every 2nd"})
    (tmp_path / "own.json").write_text(json.dumps(own.to_dict()))
    found = run(
        tmp_path,
        read_benchmark("own", dict(format="threedpw", folder=str(tmp_path), protocol=str(tmp_path / "own.json"))),
        {
            "mirrored too": load_crop_model(tmp_path / "model"),
            "once": load_crop_model(tmp_path / "model", flip_average=False),
        },
    )
    assert (
        found["once"].poses == 4
        and np.isfinite([r.overall["MPJPE"] for r in found.values()]).all()
        and found["once"].overall != found["mirrored too"].overall
    )
