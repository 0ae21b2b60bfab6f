"""The profiles against params.yaml and dvc.yaml of this repository."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from acae_nb.claims.runs import read_study
from acae_nb.people.collections import read_collection
from acae_nb.people.formats import rig_formats
from acae_nb.people.motion import HELD_OUT
from acae_nb.people.native_layouts import LAYOUTS
from acae_nb.workflow.parameters import StageError
from acae_nb.workflow.profiles import apply_profile, check_pipeline

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The parts of this repository that the pipeline's definition consists of, in a folder of its own."""
    (tmp_path / "results").mkdir()
    for name in ("dvc.yaml", "params.yaml", "data.dvc", "results/claims.json"):
        shutil.copy(REPO / name, tmp_path / name)
    for name in ("profiles", "nbs/pipeline", "claims", "results/claims/dozens", "results/claims/more_people"):
        shutil.copytree(REPO / name, tmp_path / name)
    for name in {d.split("/")[0] for d in ("acae_nb", "tests")}:
        (tmp_path / name).symlink_to(REPO / name)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    return tmp_path


def params():
    return YAML(typ="safe").load(Path("params.yaml"))


def test_default_and_smoke_pass_the_check(checkout):
    default = check_pipeline()
    apply_profile("smoke")
    stages = check_pipeline()
    assert params()["train"]["steps"] < 100 and len(stages) == len(default) + 2 * 8  # people and prepare
    shutil.copy(REPO / "params.yaml", checkout)
    apply_profile("gpu")
    assert check_pipeline() == default and params()["train"]["backbone"] == {"name": "efficientnet_v2_s", "stride": 32}
    read_study("params.yaml", REPO / "claims/params.yaml", REPO / "claims/gpu.yaml")


def test_smoke_writes_and_reads_every_native_layout_and_trains_on_all_its_data_sets(checkout):
    apply_profile("smoke")
    p = params()
    plans = {n: plan for n, plan in p["people"]["collections"].items() if plan.get("split", "train") == "train"}
    read = {
        name: read_collection({k: v for k, v in plan.items() if k != "layout"}, tuple(p["body"]["formats"]), name=name)
        for name, plan in plans.items()
    }
    layouts = {name: plan["layout"] for name, plan in plans.items() if "layout" in plan}
    assert sorted(layouts.values()) == sorted(LAYOUTS) and len(layouts) == 12
    for name, layout in layouts.items():
        assert p["prepare"]["datasets"][name]["format"] == layout
        assert (read[name].skeleton, read[name].label) == ((LAYOUTS[layout].format,), LAYOUTS[layout].label)
    assert set(plans) == set(p["batches"]["quotas"]) == set(p["prepare"]["datasets"]) == set(p["report"]["training"])
    assert set(p["evaluate"]["training"]) == {name for name, plan in read.items() if plan.label == "3d"}


def test_dozens_are_the_papers_collections_and_published_renders_40100_pictures(checkout):
    paper = YAML(typ="safe").load(REPO / "profiles/paper.yaml")["batches"]["quotas"]
    apply_profile("dozens")
    check_pipeline()
    dozens = params()["people"]["collections"]
    training = {name: plan for name, plan in dozens.items() if plan.get("split", "train") == "train"}
    assert set(training) == set(paper) == set(params()["batches"]["quotas"]) == set(params()["prepare"]["datasets"])
    assert {n for n, plan in training.items() if plan["label"] == "2d"} == {"mpii", "coco", "jrdb", "posetrack"}
    assert all(a != b | {"seed": a["seed"]} for m, a in training.items() for n, b in training.items() if m != n)
    apply_profile("published")
    check_pipeline()
    formats, plans = params()["body"]["formats"], params()["people"]["collections"]
    read = [read_collection(dict(plan), tuple(formats), name=name) for name, plan in plans.items()]
    assert sum(plan.images for plan in read if plan.split == "train") == 40_100
    held_out = {clip for names in HELD_OUT.values() for clip in names}
    assert not held_out & {clip for plan in read for clip in plan.clips}
    assert set(formats) <= set(rig_formats())
    old = {plan["seed"] for plan in plans.values()}
    plain = {name: plan | {"seed": 0, "images": 0} for name, plan in plans.items()}
    for profile, pictures in (("continued", 29_200), ("further", 23_360)):
        apply_profile(profile)
        check_pipeline()
        more = params()["people"]["collections"]
        assert sum(plan["images"] for name, plan in more.items() if name in training) == pictures
        assert all((plan["seed"] in old) == (name not in training) for name, plan in more.items())
        assert {name: plan | {"seed": 0, "images": 0} for name, plan in more.items()} == plain
        old |= {plan["seed"] for plan in more.values()}


def test_the_papers_recipe_names_every_absent_data_set(checkout):
    apply_profile("paper")
    p = params()
    quotas, sets = p["batches"]["quotas"], p["prepare"]["datasets"]
    flat = {"mpii", "coco", "jrdb", "posetrack"}
    assert (
        sum(q for name, q in quotas.items() if name not in flat) == 96
        and sum(quotas[name] for name in flat) == 32
        and len(quotas) == 32
    )
    assert set(quotas) <= set(sets) and {Path(t).name for t in p["pseudo_label"]["tables"].values()} <= set(sets)
    assert (p["train"]["steps"], p["finetune"]["steps"], p["train"]["learning_rate"]) == (
        400_000,
        40_000,
        2.121e-4,
    ) and p["people"]["collections"].keys() >= set(p["evaluate"]["tests"])
    assert (
        p["batches"]["workers"] * 8 <= 96
    )  # null: every process of a GPU would start as many as the machine has cores
    (checkout / "native/h36m").mkdir(parents=True)
    with pytest.raises(StageError) as refusal:
        check_pipeline()
    absent = {
        path for path in (line.split()[0] for line in str(refusal.value).splitlines()[1:]) if path.startswith("native/")
    }  # a reader not yet written is named too
    assert absent == {s["folder"] for s in (*sets.values(), *p["benchmark"]["benchmarks"].values())} - {
        "native/h36m"
    } and "stage prepare@rich" in str(refusal.value)


TO_COME = {
    "agora",
    "aspset",
    "behave",
    "bml_movi",
    "gpa",
    "hspace",
    "human4d",
    "humbi",
    "ikea",
    "jrdb",
    "jta",
    "mads",
    "mpii",
    "posetrack",
    "rich",
    "sailvos",
    "spec",
    "surreal",
    "threedoh",
    "threedpeople",
    "umpm",
}  # formats whose reader may not be written yet


def test_readers_of_the_papers_data_sets():
    """Every format of the profile is a reader of this package."""
    from acae_nb.datasets.sources import native_formats

    p = YAML(typ="safe").load(REPO / "profiles/paper.yaml")
    missing = (
        {s["format"] for s in (*p["prepare"]["datasets"].values(), *p["benchmark"]["benchmarks"].values())}
        - set(native_formats())
        - TO_COME
    )
    assert not missing, f"no reader in acae_nb.datasets for {sorted(missing)}"


def test_benchmarks_of_the_profile_are_protocols_and_their_test_sets():
    from acae_nb.evaluation.benchmark_runs import read_benchmark, stride_of
    from acae_nb.evaluation.benchmarks import PROTOCOLS

    entries = YAML(typ="safe").load(REPO / "profiles/paper.yaml")["benchmark"]["benchmarks"]
    every = {
        b.protocol: stride_of(b, PROTOCOLS[b.protocol])
        for b in (read_benchmark(name, entry) for name, entry in entries.items())
    }
    assert (
        {"human36m", "mpi-inf-3dhp", "mupots", "3dpw", "3dpw-test-14", "emdb-1"} <= set(every)
        and every.pop("human36m") == 64
        and set(every.values()) == {1}
    )
