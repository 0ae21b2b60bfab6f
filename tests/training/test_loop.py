"""The training engine: schedules against formulas, resume bit for bit, guards, several processes."""

import errno
import functools
import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_training
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from acae_nb.basics.files import fingerprint
from acae_nb.training.callbacks import AverageWeights, CSVLog, GhostBatchNorm2d, LossLog, MaxNormKernels, TimingLog
from acae_nb.training.checkpoints import (
    CheckpointError,
    checkpoint_facts,
    discard_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from acae_nb.training.loop import (
    Callback,
    Group,
    NonFiniteError,
    Optimisation,
    Trainer,
    example_uniform,
    fine_tuning_groups,
    first_training_groups,
    train,
)
from acae_nb.training.losses import LossTerms
from acae_nb.training.schedules import decoupled_weight_decay, one_phase, two_phase, warmed_up

REPO = Path(__file__).resolve().parents[2]


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)


# --- schedules -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [100, 40_000, 400_000])
def test_corner_points_of_the_schedules(steps):
    base = 2.121e-4
    first, head, body = two_phase(base, steps), two_phase(base, steps, 0.5), one_phase(base / 30, steps)
    turn = round(0.92 * steps)
    for rate, step, expected in [
        (first, 0, base),
        (first, turn / 2, base / math.sqrt(3)),
        (first, turn - 1e-6, base / 3),
        (first, turn, base / 30),
        (first, steps, 0.3 * base / 30),
        (head, 0, base),
        (head, steps / 2 - 1e-6, base / 3),
        (head, steps / 2, base / 30),
        (head, steps, 0.01 * base),
        (body, 0, base / 30),
        (body, steps / 2, base / 30 * math.sqrt(0.3)),
        (body, steps, 0.01 * base),
    ]:
        assert math.isclose(rate(step), expected, rel_tol=1e-6), step


@given(st.integers(2, 10**6), st.floats(0, 1), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_schedules_fall_and_stay_positive(steps, first, warm_up):
    rate = two_phase(1.0, steps, first)
    values = [rate(s) for s in sorted({0, steps // 3, steps // 2, steps - 1, steps})]
    assert all(a >= b > 0 for a, b in zip(values, values[1:])) and values[-1] >= 0.0099
    assert all(warmed_up(rate, warm_up)(s) <= rate(s) for s in (0, steps // 2)) and warmed_up(rate, warm_up)(
        warm_up
    ) == rate(warm_up)


def test_weight_decay_as_given():
    assert math.isclose(decoupled_weight_decay(400_000, 2.121e-4), 3e-3 / 400_000**0.5 / 2.121e-4)


def test_adam_against_the_formulas():
    """Adam with decoupled weight decay and the schedule, by hand in float64."""
    model, w0 = nn.Linear(1, 1, bias=False).double(), 0.7
    nn.init.constant_(model.weight, w0)
    xs = np.random.default_rng(0).normal(size=20)

    def batches(a, b):
        return (
            toy_training.ToyBatch(torch.tensor([[xs[s]]]), *[torch.zeros(1, 1, dtype=torch.float64)] * 3)
            for s in range(a, b)
        )

    rate, decay = warmed_up(two_phase(0.05, 20), 3), 0.1
    t = train(
        model,
        lambda o, b, s: LossTerms({"square": (o - 1).square().mean()}, {"square": 1.0}),
        batches,
        [Group("all", [model.weight], rate)],
        Optimisation(20, weight_decay=decay),
        Path("/nonexistent"),
        lambda m, b, s: m(b.images),
        checkpoint_every=100,
        device="cpu",
    )
    w, m, v = w0, 0.0, 0.0
    for s, x in enumerate(xs):
        g, lr = 2 * (w * x - 1) * x, rate(s)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= lr * decay * w
        w -= lr * (m / (1 - 0.9 ** (s + 1))) / (math.sqrt(v / (1 - 0.999 ** (s + 1))) + 1e-8)
    assert math.isclose(t.model.weight.item(), w, rel_tol=1e-12)


def test_fine_tuning_has_two_rates_and_no_parameter_is_forgotten():
    model = toy_training.toy_model()
    groups = fine_tuning_groups(model, model[0], 100, 1e-3)
    assert [g.rate(0) for g in groups] == [1e-3, 1e-3 / 30] and sum(len(g.parameters) for g in groups) == len(
        list(model.parameters())
    )
    with pytest.raises(ValueError, match="expected every parameter that learns in one, found none for"):
        Trainer(model, None, groups[:1], Optimisation(1), None)


@pytest.mark.parametrize(
    "wrong", [dict(steps=0), dict(steps=1, accumulate=0), dict(steps=1, precision="float16"), dict(steps=1, clip=0.0)]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="expected .*, found"):
        Optimisation(**wrong)


# --- resume ----------------------------------------------------------------------------------------------------------
def test_kill_9_at_a_random_step_and_resume_is_bit_equal(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    victim = subprocess.Popen(
        [sys.executable, str(REPO / "tests/toy_training.py"), str(parts)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(REPO), OMP_NUM_THREADS="1"),
    )
    toy_training.run(whole, 40, dropout=0.3, every=7)
    at = random.randint(8, 36)
    for line in victim.stdout:
        if int(line) == at:
            victim.kill()
            break
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL and not (parts / "model.safetensors").exists()
    assert checkpoint_facts(parts / "run")["step"] in (at // 7 * 7, (at + 1) // 7 * 7), at
    (parts / "losses.csv").unlink()  # as DVC does with outputs
    toy_training.run(parts, 40, dropout=0.3, every=7)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes(), at
    assert (whole / "losses.csv").read_bytes() == (parts / "losses.csv").read_bytes(), at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_first(tmp_path, number):
    class Ask(Callback):
        def before_batch(self, t):
            if t.done == 5:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="stopped after step 6 of 12"):
        toy_training.run(tmp_path, callbacks=[Ask()])
    assert checkpoint_facts(tmp_path / "run")["step"] == 6 and signal.getsignal(number) == before


@pytest.mark.parametrize("stop", [1, 5, 9, 10, 11])
def test_resume_anywhere_also_with_frozen_norms_and_average(tmp_path, stop):
    whole = toy_training.run(tmp_path / "a", dropout=0.2)
    assert toy_training.run(tmp_path / "b", dropout=0.2, stop=stop) is None
    again = toy_training.run(tmp_path / "b", dropout=0.2)
    assert equal(whole.model.state_dict(), again.model.state_dict())
    assert (tmp_path / "a/losses.csv").read_bytes() == (tmp_path / "b/losses.csv").read_bytes()


def test_checkpoint_is_safetensors_and_json(tmp_path):
    toy_training.run(tmp_path, stop=5)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoint.safetensors", "losses.csv"]
    with safe_open(tmp_path / "run/checkpoint.safetensors", "pt") as file:
        facts, names = json.loads(file.metadata()["facts"]), set(file.keys())
    assert facts["step"] == 5 and facts["settings"]["seed"] == 3
    assert {
        "model/0.0.weight",
        "optimiser/0.0.weight/exp_avg",
        "optimiser/0.0.weight/exp_avg_sq",
        "optimiser/0.0.weight/step",
        "AverageWeights/0.0.weight",
        "LossLog/count",
    } <= names
    discard_checkpoints(tmp_path / "run")
    discard_checkpoints(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_draws_belong_to_examples():
    dataset, row = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([5, 6, 5, 6, 7])
    u = example_uniform(dataset, row, 1, 9)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(example_uniform(dataset[order], row[order], 1, 9), u[order])
    assert (
        u.unique().numel() == 5
        and not torch.equal(u, example_uniform(dataset, row, 1, 10))
        and not torch.equal(u, example_uniform(dataset, row, 2, 9))
    )


# --- guards and checkpoint errors
# --------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", [0, 7, 11])
def test_non_finite_numbers_name_step_and_example(tmp_path, step):
    row = toy_training.toy_batch(step).row[3].item()
    with pytest.raises(
        NonFiniteError, match=rf"^step {step}: .* found .*total = inf.*; examples: data set 1 row {row}$"
    ):
        toy_training.run(tmp_path, infinite=step)
    saved = checkpoint_facts(tmp_path / "run")
    assert (saved or dict(step=0))["step"] == step // 4 * 4
    if saved:
        assert all(v.isfinite().all() for v in load_checkpoint(tmp_path / "run")[0].values())


def test_bad_weights_blame_no_single_example(tmp_path):
    class Break(Callback):
        def after_step(self, t):
            if t.done == 5:
                next(iter(t.names)).data.fill_(torch.nan)

    with pytest.raises(NonFiniteError, match="^step 5: .*data set 1 row .*, data set 1 row"):
        toy_training.run(tmp_path, callbacks=[Break()])


def test_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    """A real limit: the process may not write files beyond 4 kB."""
    save_checkpoint(tmp_path, 5, {"a": torch.zeros(10)}, {})
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(
            CheckpointError,
            match="cannot write the checkpoint of step 9: File too large; the last good one, of step 5, is kept",
        ):
            save_checkpoint(tmp_path, 9, {"a": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"] and checkpoint_facts(tmp_path)[
        "step"
    ] == 5


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_write_errors(tmp_path, monkeypatch, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    class Full(Callback):
        order = 50

        def after_step(self, t):
            monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(CheckpointError, match=f"step 4: {os.strerror(code)}; there is no earlier one"):
        toy_training.run(tmp_path, callbacks=[Full()])
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["losses.csv"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Not a directory"):
        save_checkpoint(tmp_path / "file/run", 1, {}, {})


@pytest.mark.parametrize("content", [b"", b"x" * 100, "half"])
def test_damaged_checkpoint(tmp_path, content):
    toy_training.run(tmp_path, stop=5)
    file = tmp_path / "run/checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-1000] if content == "half" else content)
    with pytest.raises(CheckpointError, match="checkpoint.safetensors: expected a checkpoint of this package, found"):
        toy_training.run(tmp_path)


def test_checkpoint_of_other_settings_or_model(tmp_path):
    toy_training.run(tmp_path, stop=5)
    with pytest.raises(CheckpointError, match="clip: expected 1.0, found None"):
        toy_training.run(tmp_path, clip=1.0)
    with pytest.raises(CheckpointError, match="steps: expected 13, found 12"):
        toy_training.run(tmp_path, steps=13)
    other = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    with pytest.raises(CheckpointError, match="another model"):
        train(
            other,
            None,
            None,
            first_training_groups(other, 12),
            Optimisation(12, weight_decay=0.1, seed=3),
            tmp_path / "run",
            None,
        )


def test_fingerprint_sees_params_inputs_and_code(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("1")
    (tmp_path / "m.py").write_text("x = 1")

    def of(number=1):
        return fingerprint({"a": number}, [tmp_path / "in"], [tmp_path / "m.py"])

    seen = {of(), of(2)}
    (tmp_path / "in/a").write_text("2")
    seen.add(of())
    (tmp_path / "in/b").write_text("")
    seen.add(of())
    (tmp_path / "m.py").write_text("x = 2")
    seen.add(of())
    os.utime(tmp_path / "in/a")
    seen.add(of())
    assert len(seen) == 5
    with pytest.raises(FileNotFoundError, match="nothing"):
        fingerprint({}, [tmp_path / "none"])


def test_batches_that_end_early(tmp_path):
    model = toy_training.toy_model()
    with pytest.raises(ValueError, match="expected one for each step up to 12, found no more after step 2"):
        train(
            model,
            toy_training.toy_loss,
            lambda a, b: (toy_training.toy_batch(s) for s in range(2)),
            first_training_groups(model, 12),
            Optimisation(12),
            tmp_path,
            lambda m, b, s: m(b.images),
        )


# --- the recipe ------------------------------------------------------------------------------------------------------
def mean_loss(output, batch, step):
    return LossTerms({"square": (output - batch.images.mean((2, 3))).square().mean()}, {"square": 1.0})


def short(model, steps=6, callbacks=(), **settings):
    return train(
        model,
        mean_loss,
        lambda a, b: (toy_training.toy_batch(s) for s in range(a, b)),
        [Group("all", list(model.parameters()), lambda s: 1e-2)],
        Optimisation(steps, **settings),
        Path("/nonexistent"),
        lambda m, b, s: m(b.images),
        callbacks,
        1000,
    )


def close(a, b, **tolerance):
    return all(
        torch.allclose(x.float(), y.float(), **tolerance)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_accumulation_is_the_same_training():
    """Also with ghost batch norm: rows i, i + k ... of a batch hold whole ghost groups."""
    one, four = (short(toy_training.toy_model(), accumulate=k) for k in (1, 4))
    assert close(one.model[0][0], four.model[0][0], atol=1e-5) and close(one.model[4], four.model[4], atol=1e-5)
    assert math.isclose(float(one.values["total"]), float(four.values["total"]), rel_tol=1e-4)


@pytest.mark.parametrize("options", [dict(precision="bfloat16"), dict(channels_last=True)])
def test_faster_arithmetic_is_near(options):
    plain, fast = short(toy_training.toy_model()), short(toy_training.toy_model(), **options)
    assert math.isclose(float(plain.values["total"]), float(fast.values["total"]), rel_tol=0.05) and all(
        p.dtype == torch.float32 for p in fast.model.parameters()
    )


def test_a_compiled_model_trains_alike(monkeypatch):
    """Traced by torch.compile, run by its `eager` backend (no C++ compiler is asked for here)."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, traced = short(toy_training.toy_model(), 3), short(toy_training.toy_model(), 3, compile=True)
    assert traced.runner is not traced.model and plain.runner is plain.model
    assert all(
        torch.allclose(a.float(), b.float(), atol=1e-6)
        for a, b in zip(plain.model.state_dict().values(), traced.model.state_dict().values(), strict=True)
    )
    assert plain.model.state_dict().keys() == traced.model.state_dict().keys()


def test_clipping_limits_the_gradient():
    norms = []

    class Look(Callback):
        def after_backward(self, t):
            step = t.optimiser.step
            t.step = lambda: (
                norms.append((float(t.gradient_norm), float(torch.cat([p.grad.flatten() for p in t.names]).norm()))),
                step(),
            )

    short(toy_training.toy_model(), callbacks=[Look()], clip=0.05)
    assert all(math.isclose(after, min(before, 0.05), rel_tol=1e-3) for before, after in norms) and any(
        before > 0.05 for before, _ in norms
    )


def test_average_and_max_norm_against_slow_loops():
    seen = []

    class Look(Callback):
        order = -1

        def after_step(self, t):
            seen.append(t.model[4].weight.detach().clone())

    start = toy_training.toy_model()[4].weight.detach().clone()
    t = short(toy_training.toy_model(), callbacks=[AverageWeights(0.7), Look()])
    for weight in seen:
        start = 0.7 * start + 0.3 * weight
    assert torch.allclose(t.model[4].weight, start, atol=1e-6)
    t = short(toy_training.toy_model(), callbacks=[MaxNormKernels(0.3)])
    assert t.model[0][0].weight.flatten(1).norm(dim=1).max() <= 0.3001


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_ghost_batch_norm_of_shares_is_that_of_the_batch(parts):
    x = torch.randn(16, 3, 5, 5)
    whole, shares = GhostBatchNorm2d(3), [GhostBatchNorm2d(3) for _ in range(parts)]
    for norm in [whole, *shares]:
        norm.ghost = 4
    y = torch.stack([norm(x[i::parts]) for i, norm in enumerate(shares)], 1).flatten(0, 1)
    assert torch.allclose(whole(x), y, atol=1e-6)
    assert torch.allclose(whole.running_var, torch.stack([n.running_var for n in shares]).mean(0), atol=1e-6)
    with pytest.raises(ValueError, match="multiple of 4, found 6"):
        whole(x[:6])


def test_timing_and_torn_logs(tmp_path):
    short(toy_training.toy_model(), callbacks=[TimingLog(tmp_path / "t.csv", tmp_path / "run", 2)])
    header, *rows = [line.split(",") for line in (tmp_path / "t.csv").read_text().splitlines()]
    assert (
        header == ["step", "images_per_second", "data_wait", "gpu_memory_mb"]
        and [r[0] for r in rows] == ["2", "4", "6"]
        and all(0 <= float(r[2]) <= 1 for r in rows)
    )
    log = CSVLog(tmp_path / "l.csv")
    log.keep(0)
    log.add(dict(step=1, a=1.0))
    with pytest.raises(ValueError, match=r"l.csv: expected columns \['step', 'a'\], found \['step', 'b'\]"):
        log.add(dict(step=2, b=1.0))


def test_the_pose_model_trains_and_resumes(tmp_path):
    """The real model, losses and prediction on made-up batches of 3D and 2D rows."""
    from acae_nb.examples.mixing import Batch
    from acae_nb.models.backbones import efficientnet_lite0
    from acae_nb.models.pose_model import PoseModel, SeparateJoints
    from acae_nb.training.callbacks import FrozenModules
    from acae_nb.training.loop import pose_prediction
    from acae_nb.training.losses import separate_loss

    def batches(start, stop):
        for step in range(start, stop):
            g = torch.Generator().manual_seed(step)
            is_2d = torch.tensor([False, False, False, True])
            joints = torch.randn(4, 6, 3, generator=g) * 300 + torch.tensor([0.0, 0, 3000])
            px = torch.rand(4, 3, 2, generator=g) * 64
            joints[is_2d], px[~is_2d], joints[0, :3] = torch.nan, torch.nan, torch.nan
            yield Batch(
                torch.randint(0, 256, (4, 3, 64, 64), generator=g, dtype=torch.uint8),
                torch.tensor([[80.0, 0, 32], [0, 80, 32], [0, 0, 1]]).expand(4, 3, 3),
                joints,
                px,
                is_2d,
                torch.tensor([0, 0, 1, 2]),
                torch.randint(0, 99, (4,), generator=g),
            )

    def run(folder, *callbacks):
        torch.manual_seed(0)
        model = PoseModel(efficientnet_lite0(), SeparateJoints(6))
        frozen, pooling = FrozenModules(next(m for m in model.modules() if isinstance(m, nn.Conv2d))), torch.eye(6)[:3]

        def loss(output, batch, step):
            return separate_loss(output, batch, pooling, 32, absolute_weight=0.1 if step >= 2 else 0.0)

        return train(
            model,
            loss,
            batches,
            fine_tuning_groups(model, model.backbone, 5, 1e-3),
            Optimisation(5, seed=1),
            folder / "run",
            pose_prediction(1, weak_perspective_steps=1),
            [frozen, LossLog(folder / "losses.csv", folder / "run", 1), *callbacks],
            2,
        )

    whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", toy_training.StopAfter(3))
    assert equal(whole.model.state_dict(), run(tmp_path / "b").model.state_dict())
    header, *rows = (tmp_path / "a/losses.csv").read_text().splitlines()
    assert (tmp_path / "b/losses.csv").read_text().splitlines() == [header, *rows] and len(rows) == 5
    assert {
        "step",
        "total",
        "relative",
        "projected",
        "absolute",
        "2d/projected",
        "gradient_norm",
        "lr_head",
        "lr_backbone",
    } == set(header.split(","))


# --- several processes
# -------------------------------------------------------------------------------------------------
def test_one_process_to_two_and_back(tmp_path, monkeypatch):
    from acae_nb.training.distributed import launch

    monkeypatch.setenv("PYTHONPATH", f"{REPO}:{REPO / 'tests'}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first, second = sorted(random.sample(range(1, 12), 2))
    print("stopped after steps", first, second)
    toy_training.run(tmp_path / "one")
    toy_training.run(tmp_path / "mixed", stop=first)
    launch("toy_training:run", dict(folder=str(tmp_path / "mixed"), stop=second), processes=2)
    assert checkpoint_facts(tmp_path / "mixed/run") | dict(processes=2, step=second) == checkpoint_facts(
        tmp_path / "mixed/run"
    )
    toy_training.run(tmp_path / "mixed")
    one, mixed = (
        np.genfromtxt(tmp_path / name / "losses.csv", delimiter=",", skip_header=1) for name in ("one", "mixed")
    )
    np.testing.assert_allclose(mixed, one, rtol=1e-4)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "mixed"))
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-4) for k in a)


def test_a_failing_process_is_reported(tmp_path, monkeypatch):
    from acae_nb.training.distributed import launch

    monkeypatch.setenv("PYTHONPATH", f"{REPO}:{REPO / 'tests'}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(RuntimeError, match="(?s)failed in one of 2 processes.*NonFiniteError"):
        launch("toy_training:run", dict(folder=str(tmp_path), infinite=2), processes=2)


def test_processes_that_do_not_share_a_folder_do_not_go_on(tmp_path, monkeypatch):
    from acae_nb.training.distributed import launch

    monkeypatch.setenv("PYTHONPATH", f"{REPO}:{REPO / 'tests'}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    toy_training.run(tmp_path / "0", stop=5)
    with pytest.raises(
        RuntimeError, match="(?s)CheckpointError.*expected the same checkpoint in all processes, found step"
    ):
        launch("toy_training:run_apart", dict(folder=str(tmp_path)), processes=2)


@pytest.mark.nightly
def test_two_machines_on_one(tmp_path):
    """The documented command, started twice as on two machines with one process each."""
    import socket

    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    (tmp_path / "arguments.json").write_text(json.dumps(dict(folder=str(tmp_path / "two"))))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"localhost:{port}",
        "-m",
        "acae_nb.training.distributed",
        "toy_training:run",
        str(tmp_path / "arguments.json"),
    ]
    environment = dict(os.environ, PYTHONPATH=f"{REPO}:{REPO / 'tests'}", OMP_NUM_THREADS="1")
    machines = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    try:
        for machine in machines:
            output = machine.communicate(timeout=240)[0]
            assert machine.returncode == 0, output[-2000:]
    finally:
        for machine in machines:
            machine.kill()
    toy_training.run(tmp_path / "one")
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(a[k].float(), b[k].float(), atol=1e-4) for k in a)
