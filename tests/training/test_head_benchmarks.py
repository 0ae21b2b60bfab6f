"""The benchmarks of the head run, and compare heads of the same answer."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel, SeparateJoints

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))  # scripts, beside each other
head, train_step = (importlib.import_module(name) for name in ("head", "train_step"))


@pytest.fixture(autouse=True)
def threads():
    "The scripts set a number of threads for themselves."
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_naive_head_gives_the_same_answer():
    heatmaps = 5 * torch.randn(2, 9, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    models = [kind(tiny_backbone(), SeparateJoints(5)) for kind in (PoseModel, train_step.NaiveModel)]
    (px, relative), (naive_px, naive_relative) = (model.points(heatmaps, 128) for model in models)
    torch.testing.assert_close(px, naive_px, rtol=0, atol=1e-3)
    torch.testing.assert_close(relative, naive_relative, rtol=0, atol=0.01)
    assert px.std() > 10 and relative.std() > 100


def test_a_heads_table(monkeypatch, capsys):
    words = "head --backbone tiny_backbone --size 64 --joints 5 9 --batches 1 4 --rounds 1"
    monkeypatch.setattr("sys.argv", words.split())
    head.main()
    rows = [re.findall(r"[\d.]+", line) for line in capsys.readouterr().out.splitlines()[2:]]
    assert [tuple(row[:2]) for row in rows] == [("5", "1"), ("9", "1"), ("5", "4"), ("9", "4")]
    assert all(len(row) == 10 and float(row[8]) > 0 for row in rows)


def test_a_head_learns_in_its_step():
    given = head.SimpleNamespace(size=64, batch=4, joints=5, device="cpu")
    batch, pooling = train_step.make_batch(given)
    assert batch.is_2d.tolist() == [False, False, False, True]
    for kind in head.HEADS.values():
        model, steps = head.head_steps(kind, tiny_backbone(), batch, pooling, 5)
        before = model.heatmap_heads.conv_final.weight.clone()
        steps["forward"]()
        assert torch.equal(model.heatmap_heads.conv_final.weight, before)
        steps["step"]()
        assert not torch.equal(model.heatmap_heads.conv_final.weight, before)


def test_a_whole_steps_table(monkeypatch, capsys):
    words = "train_step --backbone tiny_backbone --size 64 --joints 5 --batch 4 --rounds 1"
    monkeypatch.setattr("sys.argv", words.split())
    train_step.main()
    assert len(re.findall(r"^ratio .*: +[\d.]+$", capsys.readouterr().out, re.MULTILINE)) == 3
