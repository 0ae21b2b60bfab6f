"""The plan of the study's runs: what is in it, what decides a run, and a study that was stopped. (The runs themselves
take hours: `make claims`.)"""

from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from acae_nb.claims import runs as claim_runs
from acae_nb.claims.findings import Run, read_run, write_run
from acae_nb.claims.plan import RATES, plan
from acae_nb.claims.runs import (
    Places,
    Study,
    Variant,
    acae_params,
    claimed,
    first_params,
    make_runs,
    read_study,
    run_files,
    run_fingerprint,
    tuning_params,
)
from acae_nb.claims.study_claims import CLAIMS_OF, variants_of
from acae_nb.workflow.profiles import apply_profile

REPO = Path(__file__).resolve().parents[2]
PARAMS = REPO / "params.yaml"


@pytest.fixture(scope="module")
def dozens(tmp_path_factory):
    "params.yaml of the profile dozens."
    folder = tmp_path_factory.mktemp("dozens")
    (folder / "profiles").symlink_to(REPO / "profiles")
    (folder / "params.yaml").write_text(PARAMS.read_text("utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        apply_profile("dozens")
    return folder / "params.yaml"


def study_of(name, dozens):
    "The study whose runs lie in results/claims/`name`."
    overlays = {
        "study": ["params"],
        "more_people": ["params", "more_people"],
        "dozens": ["dozens"],
        "longer": ["params", "longer"],
    }[name]
    params = dozens if name == "dozens" else PARAMS
    return read_study(params, *(REPO / f"claims/{overlay}.yaml" for overlay in overlays))


# ---- what is in it
def test_the_second_look_shares_no_seed_and_no_person_with_the_first(dozens, tmp_path, monkeypatch):
    "Its verdicts stand on it alone, so nothing that made people look again may be in it."
    first, again = study_of("study", dozens), study_of("more_people", dozens)
    assert not {*first.seeds} & {*again.seeds}
    (tmp_path / "profiles").symlink_to(REPO / "profiles")
    (tmp_path / "params.yaml").write_text(PARAMS.read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    apply_profile("more_people")
    before, after = (YAML(typ="safe").load(path) for path in (PARAMS, tmp_path / "params.yaml"))
    changed = {k for k, of in after["people"]["collections"].items() if of != before["people"]["collections"][k]}
    assert changed == {*again.tests} and {k for k in after if after[k] != before[k]} == {"people"}
    seeds = {k: of["seed"] for k, of in after["people"]["collections"].items()}
    assert not {seeds[k] for k in changed} & {of["seed"] for of in before["people"]["collections"].values()}
    assert all(after["people"]["collections"][k]["split"] == "test" for k in changed)


@pytest.mark.parametrize("name", ["study", "more_people", "dozens", "longer"])
def test_the_studies_measure_every_claim(name, dozens):
    "Of the abstract with five seeds, of all others with three, each where it is read; and nothing besides."
    study = study_of(name, dozens)
    read = {folder: claims for folder, claims in CLAIMS_OF.items() if folder.startswith(f"{name}/")}
    looked_at_first = ["more_people/tests"] if name == "study" else []  # and decided there
    assert {*study.variants} == {*variants_of(*read, *looked_at_first)}
    for folder, claims in read.items():
        kind, planned = folder.split("/")[1], study.runs()
        for claim in claims:
            variants = variants_of(folder) if claim.measure == "distance" else (claim.better, claim.worse)
            assert all(kind in study.scored_on(v) for v in variants if v in study.variants)
            seeds = [{s for v, s in planned if v == variant} for variant in variants if variant in study.variants]
            assert len(set.intersection(*seeds)) >= (5 if folder in ("study/tests", "more_people/tests") else 3), (
                claim.sentence
            )


@pytest.mark.parametrize("name", ["study", "more_people", "dozens", "longer"])
def test_a_training_sees_many_pictures_and_warms_up_once(name, dozens):
    study = study_of(name, dozens)
    for variant in study.variants:
        first = first_params(study, variant, 1)
        assert first["steps"] * sum(first["quotas"].values()) >= (28_000 if name == "dozens" else 51_000)
        assert first["backbone"]["name"] == "movenet_thunder" and first["backbone"]["frozen"] == 32
        assert first["size"] == 224 and first["features"] is not None
        tuning = tuning_params(study, variant, 1)
        assert [tuning[k] for k in ("warm_up", "weak_perspective_steps", "absolute_from")] == [0, 0, 0]
        assert first["warm_up"] and tuning["quotas"] == first["quotas"] and tuning["frozen"] == 32


def test_choices_are_not_read_on_the_tests(dozens):
    study = study_of("study", dozens)
    of_abstract = {*variants_of("study/tests", "more_people/tests")}
    for name in study.variants:
        assert {*study.scored_on(name)} == ({"tests", "validation"} if name in of_abstract else {"validation"})
    assert not {*study.tests} & {*study.validation}
    assert {*study_of("longer", dozens).scored_on("separate")} == {"validation"}


def test_the_abstract_comes_first_and_starts_before_what_starts_from_them(dozens):
    study = study_of("study", dozens)
    planned = study.runs()
    on_tests = ["tests" in study.scored_on(name) for name, _ in planned]
    assert on_tests == sorted(on_tests, reverse=True)
    seeds = [seed for (_, seed), tests in zip(planned, on_tests) if tests]
    assert seeds == sorted(seeds) and planned[0] == ("separate", 1)
    for number, (name, seed) in enumerate(planned):
        variant = study.variants[name]
        assert not variant.use or (variant.start, seed) in planned[:number]


def test_the_two_series_of_sets(dozens):
    "The same numbers of pictures in a batch; in the second, of pictures in all; smaller sets lie in the larger ones."
    study = study_of("dozens", dozens)
    collections = study.blocks["people"]["collections"]
    sets = {name: first_params(study, name, 1)["quotas"] for name in study.variants}
    assert {sum(quotas.values()) for quotas in sets.values()} == {28}
    for number in (1, 3, 14, 28):
        assert len(sets[f"sets {number}"]) == number
        assert all(collections[name]["label"] == "3d" for name in sets[f"sets {number}"])
    assert {*sets["sets 1"]} < {*sets["sets 3"]} < {*sets["sets 14"]} < {*sets["sets 28"]}
    for number in (3, 14, 28):
        of_as_many = study.variants[f"sets {number} of as many"]
        assert {*of_as_many.pictures} == {*sets[f"sets {number}"]} == {*sets[f"sets {number} of as many"]}
        assert sum(of_as_many.pictures.values()) == collections["h36m"]["images"] == 800
        assert max(of_as_many.pictures.values()) - min(of_as_many.pictures.values()) <= 2


def test_overlays_are_studies():
    for overlay in ("smoke", "gpu", "longer"):
        read_study(PARAMS, REPO / "claims/params.yaml", REPO / f"claims/{overlay}.yaml")


# ---- what decides a run
def test_variants_differ_in_one_thing(dozens):
    study = study_of("study", dozens)
    v = study.variants

    def changed(a, b):
        return {k for k in a if a[k] != b[k]}

    assert changed(first_params(study, "collections 2", 1), first_params(study, "separate", 1)) == {"quotas"}
    assert {sum(first_params(study, name, 1)["quotas"].values()) for name in v} == {32}
    assert changed(first_params(study, "merged", 1), first_params(study, "merged", 2)) == {"seed"}
    assert changed(tuning_params(study, "latent", 1), tuning_params(study, "latent", 2)) == {"seed"}
    assert changed(tuning_params(study, "latent", 1), tuning_params(study, "latent longer", 1)) == {"steps"}
    assert changed(acae_params(study, v["not chiral"]), acae_params(study, v["consistency"])) == {"chiral"}
    assert acae_params(study, v["plain 3D loss"])["loss"] == "spatial"
    assert v["rare"].pictures == v["rare alone"].pictures and study.first("rare consistency") == v["rare"]
    assert [
        sum(acae_params(study, v[n])[k] for k in ("n_latent_sided", "n_latent_center"))
        for n in ("latents 8", "latents 16", "latents 32", "consistency", "latents 96")
    ] == [8, 16, 32, 48, 96]
    marks = {run_fingerprint(study, n, s, "data") for n, s in study.runs()}
    assert len(marks) == len(study.runs())


HARMLESS_LEAVES = {  # of the blocks that runs read: no number depends on them
    *(f"batches.{k}" for k in ("cpu_processes", "workers", "checkpoint_every", "picture_minutes", "tensorboard")),
    *(f"batches.features.{k}" for k in ("gigabytes", "folder", "jobs")),
    *("base.seed", "base.threads", "train.models", "finetune.models", "pseudo_label.tables", "pseudo_label.batch_size"),
    *("fit_acae.held_out", "evaluate.tests", "evaluate.training", "evaluate.models", "evaluate.batch_size"),
}


def leaves(block, path):
    if isinstance(block, dict) and block and path not in ("train.models", "finetune.models", "pseudo_label.tables"):
        return [leaf for key, value in block.items() for leaf in leaves(value, f"{path}.{key}")]
    return [path]


def test_every_value_of_the_blocks_and_of_the_study_decides(dozens):
    "Each changed alone changes the fingerprint of a fine-tuning; what is harmless does not."
    study = study_of("study", dozens)

    def marks(other):
        return [run_fingerprint(other, name, 1, "data") for name in ("rare consistency", "merged")]

    before, read = marks(study), ("base", "batches", "train", "pseudo_label", "fit_acae", "finetune", "evaluate")
    for path in [leaf for block in read for leaf in leaves(study.blocks[block], block)]:
        first, *rest, last = path.split(".")
        blocks = study.blocks | {first: YAML(typ="safe").load(PARAMS)[first]}
        place = blocks[first]
        for key in rest:
            place = place[key]
        value = place[last]
        if path.startswith("batches.features."):
            place[last] = (value or 0) + 1 if not isinstance(value, str) else f"{value}2"
        elif path.endswith("models") or path.endswith("tables"):
            place[last] = {"another": "one"}
        else:
            place[last] = "changed"
        changed = marks(replace(study, blocks=blocks)) != before
        assert changed == (path not in HARMLESS_LEAVES), path
    for field in ("tests", "validation"):
        assert marks(replace(study, **{field: ["others"]})) != before
    fewer = study.variants | {"rare": replace(study.variants["rare"], pictures={"markers": 99})}
    assert marks(replace(study, variants=fewer))[0] != before[0]


@pytest.mark.parametrize(
    "bad, words",
    [
        (dict(layout="joined"), "layout: expected one of"),
        (dict(use="both"), "use: expected one of"),
        (dict(use="latent", acae={"loss": "l2"}), "acae.loss"),
        (dict(use="latent", acae={"latents": 8}), "acae: expected some of"),
        (dict(acae={"chiral": False}), "only with a `use`"),
        (dict(use="latent", teacher={"folder": "x"}), "teacher: expected some of"),
        (dict(use="latent", pictures={"a": 3}), "quotas, pictures: expected those of the model"),
    ],
)
def test_variants_that_cannot_be(bad, words):
    with pytest.raises(ValueError, match=words):
        Variant(**bad)


@pytest.mark.parametrize(
    "text, words",
    [
        ("training: {x: 1}", "training: expected seeds, variants, tests, validation or a block"),
        ("train: {step: 1}", r"train: expected parameters .* found \['step'\]"),
        ("variants: {separate: {size: 3}}", "variants: separate: .*size"),
        ("variants: {seperate: {}}", r"expected those of the claims .* found \['seperate'\]"),
        ("variants: {latent: {use: latent}}", "latent: expected the first training 'separate', from which it starts"),
        ("variants: {separate: {}, latent: {use: latent, start: rare}}", "expected the first training 'rare'"),
        ("{validation: [], tests: []}", r"expected collections on which \['separate', .* are scored, found none"),
    ],
)
def test_studies_that_cannot_be(tmp_path, text, words):
    (tmp_path / "claims.yaml").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_study(PARAMS, REPO / "claims/params.yaml", tmp_path / "claims.yaml")


# ---- a study that was stopped
@pytest.fixture
def small(tmp_path, monkeypatch):
    "(study, places, folder of runs, list of the runs that are made): of four runs that cost nothing."
    for name in ("prepared/a", "people/t", "people/v"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
        (tmp_path / "artifacts" / name / "x").write_text(name)
    blocks = {"base": {"threads": 1}, "batches": {"quotas": {"a": 2}}, "evaluate": {"flip_average": True}}
    blocks |= {"train": {"steps": 30, "backbone": {}}}
    study = Study(blocks, [1, 2], {"separate": Variant(), "merged": Variant("merged")}, ["t"], ["v"])
    made = []

    def pretend(study, places, data, name, seed):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((name, seed))
        facts = {"fingerprint": run_fingerprint(study, name, seed, data[name]), "seconds": 60.0}
        run = Run(name, seed, ("s",), (1,), {"MPJPE": (1.0,)}, facts)
        return dict.fromkeys(study.scored_on(name), run)

    monkeypatch.setattr(claim_runs, "make_run", pretend)
    return study, Places(tmp_path, tmp_path / "work"), tmp_path / "runs", made


def test_a_stopped_study_goes_on_where_it_was(small):
    study, places, out, made = small
    with pytest.raises(KeyboardInterrupt):
        make_runs(study, places, out)
    made.clear()
    make_runs(study, places, out)
    assert made == [("merged", 2)] and len([*out.glob("*/*.json")]) == 8
    made.clear()
    make_runs(study, places, out)
    assert made == []


def test_runs_of_other_pictures_or_parameters_do_not_count(small):
    "They are removed before the first is made again, so that a stopped study is of one kind."
    study, places, out, made = small
    for seed in (1, 2):
        made.clear()
        make_runs(replace(study, seeds=[seed]), places, out)
    made.clear()
    (out / "tests/old-1.json").write_text("{}")
    (places.root / "artifacts/people/t/x").write_text("other pictures")
    with pytest.raises(KeyboardInterrupt):
        make_runs(study, places, out)
    assert made == [("separate", 1), ("merged", 1), ("separate", 2)]
    assert sorted(path.name for path in (out / "tests").iterdir()) == [
        "merged-1.json",
        "separate-1.json",
        "separate-2.json",
    ]
    made.clear()
    longer = replace(study, blocks=study.blocks | {"train": {"steps": 31, "backbone": {}}})
    with pytest.raises(KeyboardInterrupt):
        make_runs(longer, places, out)
    assert len(made) == 3


def test_half_a_run_is_made_again(small):
    study, places, out, made = small
    make_runs(replace(study, seeds=[1]), places, out)
    made.clear()
    run_files(study, out, "merged", 1)["validation"].unlink()
    make_runs(replace(study, seeds=[1]), places, out)
    assert made == [("merged", 1)]


def test_the_list_says_what_is_made(small, monkeypatch):
    study, places, out, made = small
    one = replace(study, seeds=[1])
    monkeypatch.setitem(RATES, "first training", 6.0)
    assert list(plan(study, places.root, out)["minutes"]) == [0.7] * 4  # 60 pictures at 6 a second, and 30 s
    make_runs(one, places, out)
    path = run_files(study, out, "merged", 1)["tests"]
    write_run(path, replace(read_run(path), facts={"fingerprint": "0" * 16, "seconds": 9.0}))
    table = plan(study, places.root, out)
    assert list(table["variant"]) == ["separate", "merged"] * 2 and list(table["seed"]) == [1, 1, 2, 2]
    assert list(table["state"]) == ["made", "of other code or parameters", "to make", "to make"]
    assert list(table["minutes"]) == [1.0] * 4  # as long a picture as the one that is made
    (places.root / "artifacts/people/v/x").unlink()
    (places.root / "artifacts/people/v").rmdir()
    assert set(plan(study, places.root, out)["state"]) == {"not compared", "to make"}


def test_two_processes_share_a_study(small, monkeypatch):
    "A run that another process makes is left to it; what both need is waited for."
    study, places, out, made = small
    with claimed(places.work / "run-separate-1") as ours:
        assert ours
        with claimed(places.work / "run-separate-1", wait=False) as again:
            assert not again
        make_runs(study, places, out)
    assert made == [("merged", 1), ("separate", 2), ("merged", 2)]
    made.clear()
    make_runs(study, places, out)
    assert made == [("separate", 1)]
