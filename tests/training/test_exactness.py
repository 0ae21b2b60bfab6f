"""What must come out the same: a fused step after a resume, a batch computed in parts, logits under autocast; and what
a trunk with a rate of its own learns."""

import pytest
import safetensors.torch
import torch
import toy_training
from torch import nn

from acae_nb.examples.mixing import Batch
from acae_nb.models.backbone_names import BACKBONES, backbone_from
from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import HeatmapHead, PoseModel, SeparateJoints
from acae_nb.training.callbacks import DecayTowardStart, use_ghost_batch_norm
from acae_nb.training.checkpoints import optimiser_tensors, restore_optimiser
from acae_nb.training.heatmap_loss import heatmap_errors, heatmap_loss
from acae_nb.training.loop import (
    Callback,
    Group,
    Optimisation,
    Trainer,
    first_training_groups,
    pose_prediction,
    train,
    train_batch,
    with_group_of_its_own,
)
from acae_nb.training.losses import LossTerms, consistency_loss, weighted_mean

# --- A1: the fused step after a resume ------------------------------------------------------------------------------
OF_OTHERS = {"timm_backbone", "transformers_backbone"}  # need packages that are not installed here
LARGE = {"efficientnet_v2_m", "efficientnet_v2_l"}
EVERY_BACKBONE = [
    pytest.param(name, marks=[pytest.mark.nightly] * (name in LARGE)) for name in BACKBONES if name not in OF_OTHERS
]


def fused_adam(model):
    return torch.optim.AdamW(model.parameters(), 1e-2, fused=True)


def gradients_of_step(model, step):
    g = torch.Generator().manual_seed(step)
    for p in model.parameters():
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=g))


@pytest.mark.parametrize("name", EVERY_BACKBONE)
def test_a_fused_step_after_a_resume_is_the_undisturbed_one(name):
    torch.manual_seed(0)
    model = backbone_from({"name": name, "options": {}}).to(memory_format=torch.channels_last)
    names = {p: n for n, p in model.named_parameters()}
    undisturbed = fused_adam(model)
    gradients_of_step(model, 0)
    undisturbed.step()
    kept = {n: v.contiguous() for n, v in optimiser_tensors(undisturbed, names).items()}
    kept = safetensors.torch.load(safetensors.torch.save(kept))
    weights = {n: p.detach().clone() for p, n in names.items()}
    gradients_of_step(model, 1)
    undisturbed.step()
    expected = {n: p.detach().clone() for p, n in names.items()}
    with torch.no_grad():
        for p, n in names.items():
            p.copy_(weights[n])
    resumed = fused_adam(model)
    restore_optimiser(resumed, names, kept)
    for p, state in resumed.state.items():
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == p.stride(), names[p]
    gradients_of_step(model, 1)
    resumed.step()
    assert all(torch.equal(p, expected[n]) for p, n in names.items())


# --- A6: a batch in parts -------------------------------------------------------------------------------------------
def uneven_batch(step):
    "Eight rows, the last four with 2D labels; each has its own number of labels, some outside the picture, a weight."
    g = torch.Generator().manual_seed(step)
    is_2d = torch.arange(8) >= 4
    joints = torch.randn(8, 6, 3, generator=g) * 700 + torch.tensor([0.0, 0, 3000])
    px = torch.rand(8, 6, 2, generator=g) * 90 - 10
    unlabelled = torch.rand(8, 6, generator=g) < torch.linspace(0.1, 0.8, 8)[:, None]
    joints[is_2d[:, None] | unlabelled] = torch.nan
    px[~is_2d[:, None] | unlabelled] = torch.nan
    return Batch(
        torch.randint(0, 256, (8, 3, 64, 64), generator=g, dtype=torch.uint8),
        torch.tensor([[80.0, 0, 32], [0, 80, 32], [0, 0, 1]]).expand(8, 3, 3),
        joints,
        px,
        is_2d,
        torch.arange(8) // 4,
        torch.arange(8),
        torch.linspace(0.5, 2, 8),
    )


def all_terms(output, batch, step):
    decoder = torch.softmax(torch.arange(18.0).reshape(6, 3), 1)
    encoder = torch.softmax(-torch.arange(18.0).reshape(3, 6), 1)
    terms = consistency_loss(output, batch, torch.eye(6), 32, encoder, decoder)
    errors = heatmap_errors(output.heatmaps, batch.joints3d, batch.intrinsics, 64, 32)
    return terms + heatmap_loss(errors, batch.weight).scaled(0.2, "heatmap/")


def first_gradient(parts):
    "Gradients, terms and buffers of the first step of a pose model whose batch norm sees the same groups in any parts."
    torch.manual_seed(0)
    model = PoseModel(use_ghost_batch_norm(tiny_backbone(), 2), SeparateJoints(6))
    settings = Optimisation(1, accumulate=parts)
    t = Trainer(model, all_terms, first_training_groups(model, 1), settings, pose_prediction(1, 0), device="cpu")
    gradients = {}

    class Look(Callback):
        def after_backward(self, t):
            gradients.update({n: p.grad.clone() for p, n in t.names.items()})

    t.callbacks.append(Look())
    t.batch = uneven_batch(0)
    t.model.train()
    train_batch(t)
    return gradients, t.values, dict(t.model.named_buffers())


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradient_and_the_terms_of_the_whole(parts):
    whole, in_parts = first_gradient(1), first_gradient(parts)
    assert len({float(v) for v in whole[1].values()}) == len(whole[1])  # no term is trivially equal
    for name, value in whole[1].items():
        assert torch.allclose(in_parts[1][name], value, rtol=1e-4), name
    largest = max(float(g.abs().max()) for g in whole[0].values())
    for name, gradient in whole[0].items():
        assert torch.allclose(in_parts[0][name], gradient, rtol=1e-3, atol=1e-4 * largest), name


def test_counting_leaves_the_model_and_the_generators_alone():
    "Dropout draws in the counting pass what it draws in the pass that learns; running statistics move once a part."
    torch.manual_seed(0)
    drawn, dropout = [], nn.Dropout(0.5)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(108), nn.Linear(108, 3), dropout)
    dropout.register_forward_hook(lambda module, inputs, output: drawn.append((output == 0).clone()))

    def loss(output, batch, step):
        return LossTerms.of_means({"a": weighted_mean(output, torch.ones(len(output)))}, {"a": 1.0})

    groups = first_training_groups(model, 1)
    t = Trainer(model, loss, groups, Optimisation(1, accumulate=2), lambda m, b, s: m(b.images), device="cpu")
    t.batch = toy_training.toy_batch(0)
    t.model.train()
    train_batch(t)
    assert len(drawn) == 4 and torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[3])
    assert model[1].num_batches_tracked == 2


# --- A18: logits under autocast -------------------------------------------------------------------------------------
def test_logits_are_those_of_float32_under_autocast():
    torch.manual_seed(0)
    head, features = HeatmapHead(32, 5), torch.randn(2, 32, 4, 4) * 20
    expected = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(features), expected) and expected.dtype == torch.float32
        rounded = features.bfloat16()
        assert torch.equal(head(rounded), head(rounded.float()))


# --- a trunk with a rate of its own ---------------------------------------------------------------------------------
def mean_loss(output, batch, step):
    return LossTerms({"square": (output - batch.images.mean((2, 3))).square().mean()}, {"square": 1.0})


def trained(toward_start, rate=1e-2, stop=None, folder=None, steps=8):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 6), nn.Linear(6, 3))
    groups = with_group_of_its_own(
        [Group("all", list(model.parameters()), lambda step: 1e-2)],
        Group("trunk", list(model[1].parameters()), lambda step: rate, toward_start),
    )
    return train(
        model,
        mean_loss,
        lambda a, b: (toy_training.toy_batch(s) for s in range(a, b)),
        groups,
        Optimisation(steps, weight_decay=0.5, seed=1),
        folder,
        lambda m, b, s: m(b.images),
        [DecayTowardStart(), *([toy_training.StopAfter(stop)] if stop else [])],
        3,
    )


def test_a_trunk_stands_still_at_rate_0_and_the_head_learns(tmp_path):
    start, t = trained(1.0, steps=1, rate=0.0, folder=tmp_path).model, trained(1.0, rate=0.0, folder=tmp_path)
    assert torch.equal(start[1].weight, t.model[1].weight) and not torch.equal(start[2].weight, t.model[2].weight)


def test_decay_toward_the_start_is_that_of_the_formulas(tmp_path):
    """Adam by hand in float64 on the gradients that were there; the trunk decays toward its start, not toward zero."""
    seen = []

    class Look(Callback):
        def after_backward(self, t):
            seen.append(t.model[1].weight.grad.double().clone())

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 6), nn.Linear(6, 3))
    start = model[1].weight.detach().double().clone()
    groups = with_group_of_its_own(
        [Group("all", list(model.parameters()), lambda step: 1e-2)],
        Group("trunk", list(model[1].parameters()), lambda step: 1e-2, 5.0),
    )
    batches, predict = (lambda a, b: (toy_training.toy_batch(s) for s in range(a, b))), (lambda m, b, s: m(b.images))
    settings = Optimisation(8, weight_decay=0.5)
    train(model, mean_loss, batches, groups, settings, tmp_path, predict, [Look(), DecayTowardStart()])
    w, m, v = start.clone(), 0.0, 0.0
    for s, g in enumerate(seen):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= 1e-2 * 5.0 * (w - start)
        w -= 1e-2 * (m / (1 - 0.9 ** (s + 1))) / ((v / (1 - 0.999 ** (s + 1))).sqrt() + 1e-8)
    assert torch.allclose(model[1].weight.double(), w, atol=1e-5)
    assert not torch.allclose(w, start, atol=1e-3)


def test_a_resumed_training_knows_where_its_trunk_started(tmp_path):
    whole = trained(5.0, folder=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        trained(5.0, stop=5, folder=tmp_path / "b")
    again = trained(5.0, folder=tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), again.model.parameters()))
