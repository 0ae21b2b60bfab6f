"""Full metric vector of the paper for a million poses of 24 joints, beside a per-pose scipy loop. Usage: python
benchmarks/metrics.py [poses]"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import resource
import sys
import time

import numpy as np
from scipy.spatial.transform import Rotation

from acae_nb.evaluation.metrics import measure

THRESHOLDS = dict(pck=(50, 100, 150), cps=(100, 150, 200), apck=(150, 300))


def scipy_loop(pred, true):
    "The same 19 numbers, one pose at a time, Procrustes by scipy's Kabsch."
    rows = []
    for p, t in zip(pred.astype(float), true.astype(float)):
        d, a = np.linalg.norm((p - p[0]) - (t - t[0]), axis=1), np.linalg.norm(p - t, axis=1)
        cp, ct = p - p.mean(0), t - t.mean(0)
        rotated = Rotation.align_vectors(ct, cp)[0].apply(cp)
        pa = np.linalg.norm((rotated * ct).sum() / (cp**2).sum() * rotated - ct, axis=1)
        row = [d.mean(), pa.mean(), a.mean()]
        row += [100 * (d < t_).mean() for t_ in THRESHOLDS["pck"]] + [
            100 * np.maximum(0, 1 - d / t_).mean() for t_ in THRESHOLDS["pck"]
        ]
        row += [100.0 * (d.max() < t_) for t_ in THRESHOLDS["cps"]] + [
            100 * max(0, 1 - d.max() / t_) for t_ in THRESHOLDS["cps"]
        ]
        row += [100 * (a < t_).mean() for t_ in THRESHOLDS["apck"]] + [
            100 * np.maximum(0, 1 - a / t_).mean() for t_ in THRESHOLDS["apck"]
        ]
        rows.append(row)
    return np.mean(rows, axis=0)


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rng = np.random.default_rng(0)
    true = rng.standard_normal((n, 24, 3), dtype=np.float32) * np.float32(300) + np.float32([0, 0, 4000])
    pred = true + rng.standard_normal(true.shape, dtype=np.float32) * np.float32(60)
    few = min(n, 5000)
    start = time.perf_counter()
    slow = scipy_loop(pred[:few], true[:few])
    loop = (time.perf_counter() - start) / few
    start, cpu = time.perf_counter(), time.process_time()
    measure(pred, true)
    whole, cpu = time.perf_counter() - start, time.process_time() - cpu
    difference = np.abs(np.array(list(measure(pred[:few], true[:few]).values())) - slow).max()
    print(
        f"measure: {n:,} poses x 24 joints, 19 numbers: {whole:.1f} s wall, {cpu:.1f} s of one core, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB peak (inputs included)"
    )
    print(
        f"scipy loop: {loop * 1e6:.0f} us a pose, measure {whole / n * 1e6:.1f} us a pose: "
        f"{loop * n / whole:.0f} times faster; largest difference {difference:.1e}"
    )
