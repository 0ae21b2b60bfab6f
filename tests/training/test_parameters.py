"""Parameters of a training: declared once, refused by name, given by params.yaml, its profiles and the claims study."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from acae_nb.training.parameters import FineTuning, FirstTraining, parameters_from, values_of_blocks
from acae_nb.training.recipes import first_training

REPO = Path(__file__).resolve().parents[2]
PARAMS = REPO / "params.yaml"
WARM_UPS = ("warm_up", "weak_perspective_steps", "absolute_from")
STUDIES = [path for path in REPO.glob("claims/*.yaml") if path.name != "dvc.yaml"]
OVERLAYS = sorted([*REPO.glob("profiles/*.yaml"), *STUDIES])


def read(path):
    return YAML(typ="safe").load(path)


def test_the_values_of_params_yaml_are_those_of_the_recipes():
    blocks = read(PARAMS)
    first = values_of_blocks(blocks["base"], blocks["batches"], blocks["train"])
    tuning = values_of_blocks(blocks["base"], blocks["batches"], blocks["finetune"])
    for kind, values in ((FirstTraining, first), (FineTuning, tuning)):
        assert {*values} == {*kind.__dataclass_fields__}  # each named, none besides
        assert parameters_from(kind, values).size == blocks["batches"]["size"]


@pytest.mark.parametrize("path", [PARAMS, *OVERLAYS], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_warm_ups_belong_to_the_first_training(path):
    blocks = read(path)
    assert not {*WARM_UPS} & {*blocks.get("batches", {})}
    tuning = read(PARAMS)["finetune"] | blocks.get("finetune", {})
    if path.stem == "continued":  # at the rates of a first training, to which it rises: Adam knows nothing yet
        assert 0 < tuning["warm_up"] < 0.05 * tuning["steps"]
        tuning["warm_up"] = 0
    assert [tuning[name] for name in WARM_UPS] == [0, 0, 0]


REFUSED = {  # values -> what the message says  (C10)
    "none": ({}, "^quotas: expected a value, which FirstTraining needs, found none"),
    "no backbone": ({"quotas": {"a": 1}, "steps": 1}, "^backbone: expected a value"),
    "misspelt": ({"learning_rte": 1}, "learning_rte: .* unknown name .did you mean 'learning_rate'"),
    "of the stage": ({"cpu_processes": 2}, "^cpu_processes: .* unknown name"),
    "misspelt in the trunk": (
        {"quotas": {}, "steps": 1, "backbone": {}, "trunk": {"learning_rate": 1, "warm": 1}},
        "^trunk.warm: expected a parameter of TrunkParameters, found an unknown name .did you mean 'warm_up'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parameters_that_cannot_be_are_named(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    values, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        first_training("separate", "data", "out", "log.csv", **values)
    assert not any(tmp_path.iterdir())
