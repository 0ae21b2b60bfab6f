"""What the pose head costs: a whole training step against the backbone's forward and backward alone, and against a
naive head.

    python benchmarks/train_step.py                   # CPU: EfficientNetV2-S, 256 px, 555 joints, batch 8
    python benchmarks/train_step.py --device cuda --batch 96 --bf16 --compile
    python benchmarks/train_step.py --backbone efficientnet_lite0 --size 128 --joints 280 --batch 32

All variants take turns in one run and the medians of CPU seconds (on CPU; wall seconds on a GPU) are compared, so other
work on the machine hits them alike. Goal: whole step / backbone at most 1.20 on CPU and 1.10 on a GPU."""

import argparse
import resource
import statistics
import time
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from acae_nb.models import backbones
from acae_nb.models.pose_model import PoseModel, SeparateJoints, heatmap_to_image, heatmap_to_metric
from acae_nb.training.losses import separate_loss


class NaiveModel(PoseModel):
    """The same answer with softmax volumes [b, j, d, h, w] written out and weighted by a coordinate volume for each
    axis."""

    def points(self, heatmaps, size):
        def mean(logits):
            logits = logits.movedim(2, 1).float()
            p = logits.flatten(2).softmax(-1).reshape(logits.shape)
            axes = torch.meshgrid(
                *[
                    torch.linspace(0, 1, n, device=p.device) if n > 1 else torch.zeros(1, device=p.device)
                    for n in p.shape[2:]
                ],
                indexing="ij",
            )
            return torch.stack([(p * axis).sum((2, 3, 4)) for axis in axes[::-1]], -1)

        geometry = size, self.backbone.stride
        return heatmap_to_image(mean(heatmaps[:, :1])[..., :2], *geometry), heatmap_to_metric(
            mean(heatmaps[:, 1:]), *geometry
        )


def make_batch(a):
    g = torch.Generator().manual_seed(0)
    k = torch.tensor([[a.size * 1.2, 0, a.size / 2], [0, a.size * 1.2, a.size / 2], [0, 0, 1]]).expand(a.batch, 3, 3)
    joints = torch.randn(a.batch, a.joints, 3, generator=g) * 300 + torch.tensor([0.0, 0, 3000])
    joints[torch.rand(a.batch, a.joints, generator=g) < 0.8] = torch.nan
    images = torch.randint(0, 256, (a.batch, 3, a.size, a.size), dtype=torch.uint8, generator=g).contiguous(
        memory_format=torch.channels_last
    )
    tensors = {
        "images": images,
        "intrinsics": k,
        "joints3d": joints,
        "joints2d": torch.rand(a.batch, 17, 2, generator=g) * a.size,
        "is_2d": torch.arange(a.batch) >= (3 * a.batch + 3) // 4,
        "weight": torch.ones(a.batch),
    }
    batch = SimpleNamespace(size=a.size, **{name: value.to(a.device) for name, value in tensors.items()})
    return batch, (torch.rand(17, a.joints, generator=g) / a.joints).to(a.device)


def variants(a, batch, pooling):
    """name -> a function that makes one step."""
    autocast = (lambda: torch.autocast(a.device, torch.bfloat16)) if a.bf16 else nullcontext
    compiled = torch.compile if a.compile else (lambda module: module)

    def full(kind):
        torch.manual_seed(0)
        model = kind(getattr(backbones, a.backbone)(), SeparateJoints(a.joints))
        model = model.to(a.device, memory_format=torch.channels_last).train()
        run, optimiser = compiled(model), torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

        def step():
            with autocast():
                output = run(batch.images, batch.intrinsics, 0.5)
            separate_loss(output, batch, pooling, model.backbone.stride).total.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        def forward():
            with torch.no_grad(), autocast():
                run(batch.images, batch.intrinsics, 0.5)

        return step, forward

    torch.manual_seed(0)
    backbone = getattr(backbones, a.backbone)().to(a.device, memory_format=torch.channels_last).train()
    run = compiled(backbone)

    def alone():
        with autocast():
            features = run(backbone.normalise(batch.images))
        features.float().mean().backward()
        for p in backbone.parameters():
            p.grad = None

    def alone_forward():
        with torch.no_grad(), autocast():
            run(backbone.normalise(batch.images))

    step, forward = full(PoseModel)
    return {
        "backbone forward+backward": alone,
        "full step": step,
        "full step, naive head": full(NaiveModel)[0],
        "backbone forward": alone_forward,
        "full forward": forward,
    }


def seconds(step, cuda):
    if cuda:
        torch.cuda.synchronize()
    clock = time.perf_counter if cuda else time.process_time
    start = clock()
    step()
    if cuda:
        torch.cuda.synchronize()
    return clock() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet_v2_s")
    for name, default in (("size", 256), ("joints", 555), ("batch", 8), ("rounds", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    cuda = a.device.startswith("cuda")
    steps = variants(a, *make_batch(a))
    taken, peak = {name: [] for name in steps}, {}
    for _ in range(a.rounds + 1):  # the first round warms up
        for name, step in steps.items():
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            taken[name].append(seconds(step, cuda))
            peak[name] = torch.cuda.max_memory_allocated() / 2**20 if cuda else float("nan")
    median = {name: statistics.median(values[1:]) for name, values in taken.items()}
    print(
        f"{a.backbone}, {a.size} px, {a.joints} joints, batch {a.batch}, {a.device}, "
        f"{'bf16' if a.bf16 else 'fp32'}, {a.threads} thread(s), torch {torch.__version__}"
    )
    for name, value in median.items():
        print(
            f"  {name:28s} {value * 1000:9.1f} ms  {a.batch / value:8.1f} crops/s"
            + (f"  {peak[name]:8.0f} MiB" if cuda else "")
        )
    print(f"ratio full step / backbone:         {median['full step'] / median['backbone forward+backward']:.3f}")
    print(f"ratio full forward / backbone:      {median['full forward'] / median['backbone forward']:.3f}")
    print(f"ratio naive head / ours (full step): {median['full step, naive head'] / median['full step']:.3f}")
    if not cuda:
        print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
