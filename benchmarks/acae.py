"""The published ACAE recipe beside `fit_acae`, one process, one thread: time to an equal total, final totals, memory.

    python benchmarks/acae.py POSES [POSES ...] [--steps 40000] [--published-total 0.02283]
        [--rounds 200 --exchanges 0 --polish 800]

POSES: an npz file with poses_train [N, J, 3] and poses_test (mm, camera frame), and joint_names whose first letter l/r
tells the side; or a folder of pseudo-labels of the pipeline (artifacts/pseudo_labels: poses.npy and skeleton.json,
below it too), of which every tenth pose is kept for the test.
The recipe is that of arXiv 2212.14474 as its authors code it, its schedule compressed to --steps: weights from U(-0.1,
1) divided by their sum, Adam at batch 32 with 3e-2, 3e-3, 3e-4, a third each. `--published-total` skips the recipe and
compares with a total that was measured before."""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from acae_nb.autoencoder.acae import ACAE, objective
from acae_nb.autoencoder.fitting import fit_acae
from acae_nb.skeletons.joints import Skeleton


def load(path):
    """Poses for the fit and for the test, joint names, mirror table."""
    return load_pseudo_labels(Path(path)) if Path(path).is_dir() else load_npz(path)


def load_pseudo_labels(folder):
    files = sorted(folder.rglob("poses.npy"))
    skeleton = Skeleton.from_dict(json.loads((files[0].parent / "skeleton.json").read_text()))
    poses = np.concatenate([np.load(file, allow_pickle=False) for file in files])
    test = np.arange(len(poses)) % 10 == 9
    return poses[~test], poses[test], list(skeleton.labels), np.array(skeleton.mirror)


def load_npz(path):
    with np.load(path, allow_pickle=False) as file:
        train, test, names = file["poses_train"], file["poses_test"], [str(n) for n in file["joint_names"]]
    other = {"l": "r", "r": "l"}
    at = {n: i for i, n in enumerate(names)}
    return train, test, names, np.array([at.get(other.get(n[0], "?") + n[1:], i) for i, n in enumerate(names)])


def published(poses, mirror, steps, seed=0, lambda_sparse=0.6, pairs=20, center=8):
    """The published recipe. Returns the autoencoder (rows for the given joint order) and CPU seconds."""
    torch.manual_seed(seed)
    J = len(mirror)
    left = np.array([j for j in range(J) if mirror[j] > j], dtype=int)
    right, middle = mirror[left], np.array([j for j in range(J) if mirror[j] == j], dtype=int)
    order = np.concatenate([left, right, middle])
    data = torch.from_numpy(np.ascontiguousarray(poses[:, order]))

    def blocks(p, c, q, k):
        return [
            torch.nn.Parameter(torch.empty(*shape).uniform_(-0.1, 1))
            for shape in ((p, q), (p, q), (c, q), (p, k), (c, k))
        ]

    def full(ws, wq, wx, wc, wz):
        w = torch.cat([torch.cat([ws, wq, wc], 1), torch.cat([wq, ws, wc], 1), torch.cat([wx, wx, wz], 1)])
        return w / w.sum(0, keepdim=True)

    began, encoder, decoder = (
        time.process_time(),
        blocks(len(left), len(middle), pairs, center),
        blocks(pairs, center, len(left), len(middle)),
    )
    adam = torch.optim.Adam(encoder + decoder)
    perm, at = torch.randperm(len(data)), 0
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = (3e-2, 3e-3, 3e-4)[3 * step // steps]
        if at + 32 > len(data):
            perm, at = torch.randperm(len(data)), 0
        x, at = data[perm[at : at + 32]], at + 32
        E, D = full(*encoder), full(*decoder)
        y = torch.einsum("blc,lk->bkc", torch.einsum("bjc,jl->blc", x, E), D)
        error = (x[..., :2] / x[..., 2:] - y[..., :2] / y[..., 2:]) * (x[..., 2].mean(1)[:, None, None] / 1000)
        loss = error.abs().mean() + lambda_sparse * (E.abs().mean() + D.abs().mean())
        adam.zero_grad()
        loss.backward()
        adam.step()
    back = np.argsort(order)
    seconds = time.process_time() - began
    return ACAE(full(*encoder).detach().T[:, back].contiguous(), full(*decoder).detach().T[back].contiguous()), seconds


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("poses", nargs="+")
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--published-total", type=float)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--polish", type=int, default=800)
    parser.add_argument("--exchanges", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for path in args.poses:
        train, test, joints, mirror = load(path)
        J = len(joints)
        floor = 0.6 * (1 / J + 1 / 48)
        print(
            f"\n{path}: {len(train)} poses of {J} joints, {train.nbytes / 2**20:.0f} MB; floor of the sparsity "
            f"term {floor:.6f}",
            flush=True,
        )
        before = peak_mb()
        acae, report = fit_acae(
            train,
            mirror,
            joints=joints,
            seed=args.seed,
            rounds=args.rounds,
            exchanges=args.exchanges,
            polish_steps=args.polish,
        )
        total, grown = objective(acae, train), peak_mb() - before
        print(report.phases.to_string(index=False, float_format="{:.6f}".format))
        print(
            f"ours       total {total:.6f} (test {objective(acae, test):.6f})  {report.seconds:6.1f} CPU-s  peak "
            f"memory +{grown:.0f} MB ({grown * 2**20 / train.nbytes:.2f} of the data)",
            flush=True,
        )
        goal, seconds = args.published_total, None
        if goal is None:
            theirs, seconds = published(train, mirror, args.steps, args.seed)
            goal = objective(theirs, train)
            print(
                f"published  total {goal:.6f} (test {objective(theirs, test):.6f})  {seconds:6.1f} CPU-s  "
                f"{args.steps} steps"
            )
        passed = report.phases[report.phases.total <= goal]
        reached = f"{passed['CPU seconds'].iloc[0]:.2f} CPU-s ({passed.phase.iloc[0]})" if len(passed) else "never"
        print(
            f"below it by {goal - total:.6f}; above the floor {(goal - floor) / (total - floor):.2f} times "
            f"closer; ours reaches that total after {reached}"
            + (f": {seconds / passed['CPU seconds'].iloc[0]:.0f} times sooner" if seconds and len(passed) else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
