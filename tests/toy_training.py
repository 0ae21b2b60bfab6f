"""A toy training for test_training.py, also run in other processes: `python toy_training.py FOLDER` (slowly, to be
killed)."""

import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from acae_nb.training.callbacks import AverageWeights, FreezeBatchNorm, LossLog, use_ghost_batch_norm
from acae_nb.training.distributed import rank, world_size
from acae_nb.training.loop import Callback, Optimisation, Stopped, example_uniform, first_training_groups, train
from acae_nb.training.losses import LossTerms


@dataclass
class ToyBatch:
    images: Tensor
    labels: Tensor
    dataset: Tensor
    row: Tensor

    def __len__(self):
        return len(self.images)

    def to(self, device):
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def toy_batch(step, infinite=None):
    """This rank's share of the global batch of 16, labels partly missing."""
    g = torch.Generator().manual_seed(step)
    images, row = torch.randn(16, 3, 6, 6, generator=g), torch.randint(0, 1000, (16,), generator=g)
    labels = images.mean((2, 3)) * 5
    labels[torch.rand(16, generator=g) < 0.3] = torch.nan
    if step == infinite:
        labels[3] = torch.inf
    return ToyBatch(*(x[rank() :: world_size()] for x in (images, labels, torch.ones(16, dtype=torch.int64), row)))


def toy_loss(output, batch, step):
    mask = ~batch.labels.isnan()
    return LossTerms({"square": (output - batch.labels)[mask].square().mean()}, {"square": 0.5})


def toy_model(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        use_ghost_batch_norm(nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)), 4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(128, 3),
    )


class StopAfter(Callback):
    order = 500

    def __init__(self, step):
        self.step = step

    def after_step(self, t):
        if t.done == self.step:
            raise Stopped


class Slow(Callback):
    def after_step(self, t):
        time.sleep(0.01)
        print(t.done, flush=True)


def run(folder, steps=12, stop=None, every=4, dropout=0.0, infinite=None, callbacks=(), **settings):
    """Train, with every callback that has a state; save model.safetensors when it ends."""
    folder, model = Path(folder), toy_model(dropout)
    settings = Optimisation(steps, weight_decay=0.1, seed=3, **settings)

    def predict(model, batch, step):
        brightness = 0.9 + 0.2 * example_uniform(batch.dataset, batch.row, 3, step)
        return model(batch.images * brightness[:, None, None, None])

    callbacks = [
        LossLog(folder / "losses.csv", folder / "run", 3),
        AverageWeights(0.8),
        FreezeBatchNorm(3),
        *callbacks,
    ] + ([StopAfter(stop)] if stop else [])
    try:
        t = train(
            model,
            toy_loss,
            lambda a, b: (toy_batch(s, infinite) for s in range(a, b)),
            first_training_groups(model, steps, 1e-2, 2),
            settings,
            folder / "run",
            predict,
            callbacks,
            every,
        )
    except Stopped:
        if stop:
            return None
        raise
    if rank() == 0:
        save_file(t.model.state_dict(), folder / "model.safetensors")
    return t


def run_apart(folder):
    run(Path(folder) / str(rank()))  # each process has a folder of its own, as on machines that share none


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], 40, dropout=0.3, every=7, callbacks=[Slow()])
