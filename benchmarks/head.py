"""The pose head against a naive one, everything behind the backbone: heatmaps, soft-argmax, absolute poses; and with
them the losses, the way back to the features and the optimiser's step.

    python benchmarks/head.py [--joints 221 555] [--batches 1 8 32] [--threads 1]

Features are random, of the backbone's size. Ours, the naive head (benchmarks/train_step.py: softmax volumes written out
and weighted by a coordinate volume for each axis) and the backbone's forward take turns in one run; medians of CPU
seconds are compared, so other work on the machine hits them alike. Of the whole step, train_step.py.
"""

import argparse
import statistics
from types import SimpleNamespace

import torch
from torch import nn
from train_step import NaiveModel, make_batch, seconds

from acae_nb.models import backbones
from acae_nb.models.pose_model import PoseModel, SeparateJoints
from acae_nb.training.losses import separate_loss

HEADS = {"ours": PoseModel, "naive": NaiveModel}


class GivenFeatures(nn.Module):
    """A backbone that has seen the pictures already: the same features [b, c, h, w] each time, with a gradient."""

    def __init__(self, backbone, batch: int, size: int):
        super().__init__()
        self.out_channels, self.stride = backbone.out_channels, backbone.stride
        features = torch.randn(batch, self.out_channels, size // self.stride, size // self.stride)
        self.features = nn.Parameter(features.contiguous(memory_format=torch.channels_last))

    def normalise(self, images):
        return images

    def forward(self, images):
        return self.features


def head_steps(kind, backbone, batch, pooling, joints):
    """A model whose pictures were seen already, what makes one forward of its head, and one step of its training."""
    torch.manual_seed(0)
    model = kind(GivenFeatures(backbone, len(batch.images), batch.size), SeparateJoints(joints)).train()
    optimiser = torch.optim.AdamW(model.heatmap_heads.parameters(), lr=1e-5, fused=True)

    def forward():
        with torch.no_grad():
            model(batch.images, batch.intrinsics, 0.5)

    def step():
        output = model(batch.images, batch.intrinsics, 0.5)
        separate_loss(output, batch, pooling, model.backbone.stride).total.backward()
        optimiser.step()
        model.zero_grad(set_to_none=True)

    return model, {"forward": forward, "step": step}


def backbone_step(backbone, images):
    """What makes one forward of the backbone, as in a training whose backbone is frozen."""

    def forward():
        with torch.no_grad():
            backbone(backbone.normalise(images))

    return forward


def measured(steps, rounds):
    """Median CPU seconds of each step, which take turns; a first round warms up."""
    taken = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            taken[name].append(seconds(step, cuda=False))
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_v2_s")
    parser.add_argument("--joints", type=int, nargs="+", default=(221, 555))
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 8, 32))
    parser.add_argument("--size", type=int, default=256, help="of a crop, px")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    backbone = getattr(backbones, args.backbone)().to(memory_format=torch.channels_last).eval()
    print(
        f"{args.backbone}, {args.size} px, fp32, {args.threads} thread(s), torch {torch.__version__}; CPU-ms of a batch"
    )
    print(
        "joints batch | forward: ours    naive  naive/ours | step: ours    naive  naive/ours | backbone  ours/backbone"
    )
    for batch_size in args.batches:
        for joints in args.joints:
            given = SimpleNamespace(size=args.size, batch=batch_size, joints=joints, device="cpu")
            batch, pooling = make_batch(given)
            steps = {"backbone": backbone_step(backbone, batch.images)}
            for name, kind in HEADS.items():
                _, head = head_steps(kind, backbone, batch, pooling, joints)
                steps |= {f"{name} {what}": step for what, step in head.items()}
            ms = {name: 1000 * value for name, value in measured(steps, args.rounds).items()}
            cells = [f"{joints:6d} {batch_size:5d}"]
            for what in ("forward", "step"):
                ours, naive = ms[f"ours {what}"], ms[f"naive {what}"]
                cells.append(f"{ours:13.1f} {naive:8.1f} {naive / ours:11.2f}")
            cells.append(f"{ms['backbone']:8.1f} {ms['ours forward'] / ms['backbone']:14.3f}")
            print(" | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
