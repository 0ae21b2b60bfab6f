"""28 + 4 made-up tables in the paper's proportions: opening, drawing batches, resuming; beside annotations as Python
objects.

    python benchmarks/mixing.py [--rows 13400000] [--folder FOLDER] [--keep]

The tables are written in bulk (every row has its own joints, camera, box and id, all rows of a table share one small
picture), about 9 GB for 13.4 million rows, and removed afterwards. Each measurement runs in a process of its own, so
that its peak memory is its own: resident memory here counts the pages of the mapped files that were touched."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import cv2
import numpy as np

# 3D sets: (rows of the 13.4 million in thousands, rounded proportions; quota in a batch of 96); then four 2D sets, 8
# each.
SETS_3D = {
    "h36m": (570, 4),
    "muco": (680, 6),
    "humbi": (840, 5),
    "3doh": (50, 3),
    "agora": (120, 3),
    "surreal": (1400, 5),
    "panoptic": (1650, 7),
    "aist": (1150, 6),
    "aspset": (560, 4),
    "gpa": (510, 4),
    "3dpeople": (640, 4),
    "sailvos": (1200, 5),
    "bml_movi": (920, 5),
    "mads": (110, 2),
    "umpm": (160, 2),
    "bmhad": (240, 3),
    "3dhp": (520, 3),
    "totalcapture": (390, 3),
    "jta": (450, 3),
    "ikea": (60, 2),
    "human4d": (40, 1),
    "behave": (250, 3),
    "rich": (480, 4),
    "spec": (60, 2),
    "fit3d": (180, 2),
    "chi3d": (70, 1),
    "humansc3d": (60, 1),
    "hspace": (40, 3),
}
SETS_2D = {"mpii": (15, 8), "coco": (70, 8), "jrdb": (120, 8), "posetrack": (60, 8)}


def format_of(i):
    "Formats in turn, so that every table has one and the union has several."
    names = ["h36m_17", "smpl_24", "mpi_inf_3dhp_28", "cmu_panoptic_19", "coco_17", "h36m_25"]
    return names[i % len(names)]


def write_table(folder, name, skeleton, n, two_d):
    "A table as ExampleWriter leaves it, its columns made in one go."
    import pyarrow as pa

    from acae_nb.examples.tables import SCHEMA_VERSION, TEXT_COLUMNS, encode_jpeg, number_columns

    rng = np.random.default_rng(zlib.crc32(name.encode()))
    jpeg = encode_jpeg(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8), 60)
    fixed = {
        "weight": 1,
        "box": [20, 10, 50, 70],
        "image_size": [96, 96],
        "intrinsics": [[120, 0, 48], [0, 120, 48], [0, 0, 1]],
        "distortion": 0,
        "rotation": np.eye(3),
        "world_up": [0, -1, 0],
        "origin": 0,
        "image_offset": 0,
        "image_length": len(jpeg),
        "image_crc32": zlib.crc32(jpeg),
    }
    arrays = {}
    for field, (kind, shape) in number_columns(len(skeleton)).items():
        if field == "origin" or field == ("joints3d" if two_d else "joints2d"):
            continue
        values = np.empty((n, *shape), kind)
        if field == "frame":
            values[:] = np.arange(n)
        elif field in ("joints3d", "joints2d"):
            for start in range(0, n, 65536):
                part = rng.standard_normal((min(65536, n - start), *shape), np.float32)
                values[start : start + 65536] = part * 300 + (0, 0, 3000) if field == "joints3d" else part * 10 + 48
        elif field == "position":
            values[:] = 0
        else:
            values[:] = fixed[field]
        arrow = pa.from_numpy_dtype(kind)
        flat = pa.Array.from_buffers(arrow, values.size, [None, pa.py_buffer(values)])
        arrays[field] = (
            flat
            if not shape
            else pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(arrow, list(shape)), pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
            )
        )
    for field in TEXT_COLUMNS:  # ids of one length: a prefix and nine digits
        data = (
            np.char.add(f"{name}/", np.char.zfill(np.arange(n).astype("S9"), 9).astype("U9")).astype("S")
            if field == "example_id"
            else np.full(n, b"subject-01")
        )
        width = data.dtype.itemsize
        offsets = np.arange(n + 1, dtype=np.int64) * width
        arrays[field] = pa.Array.from_buffers(
            pa.large_string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
        )
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "dataset": name,
        "images_bytes": str(len(jpeg)),
        "skeleton": json.dumps(skeleton.to_dict()),
    }
    folder.mkdir(parents=True)
    schema = pa.schema([pa.field(f, a.type, nullable=False) for f, a in arrays.items()], metadata)
    with pa.ipc.new_file(str(folder / "table.arrow"), schema) as file:
        file.write_batch(pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema))
    (folder / "images.bin").write_bytes(jpeg)


def peak_mb():
    """Most resident memory so far (Linux counts it from the start of the program; getrusage would count the parent's
    too)."""
    return (
        next(
            int(line.split()[1])
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            if line.startswith("VmHWM")
        )
        / 1024
    )


def measure_tables(folder):
    "In a process of its own: open, draw, resume."
    import torch

    from acae_nb.examples import mixing
    from acae_nb.examples.crops import NO_AUGMENTATION
    from acae_nb.examples.mixing import BatchPlan, MixedBatches
    from acae_nb.examples.tables import ExampleTable
    from acae_nb.skeletons.joints import load_skeleton, union

    cv2.setNumThreads(1), torch.set_num_threads(1)
    base = peak_mb()
    start = time.perf_counter()
    tables = [ExampleTable.open(folder / name) for name in (*SETS_3D, *SETS_2D)]
    opened = time.perf_counter() - start
    rows = sum(len(t) for t in tables)
    skeleton = union([load_skeleton(n) for n in dict.fromkeys(format_of(i) for i in range(len(SETS_3D)))])
    quotas = [q for _, q in (*SETS_3D.values(), *SETS_2D.values())]
    start = time.perf_counter()
    plan = BatchPlan([len(t) for t in tables], quotas, seed=0)
    batches = MixedBatches(tables, plan, skeleton, load_skeleton("coco_17"), 256, NO_AUGMENTATION, seed=0)
    resumed = plan.batch(300_000)
    resume = time.perf_counter() - start
    exact = all(
        [d for d, _ in plan.batch(step)] == [d for d, q in enumerate(quotas) for _ in range(q)]
        for step in range(300_000, 300_020)
    )
    # the crop itself is no overhead: replace it by a ready one, and decoding too
    table = tables[0]
    ready = mixing.make_crop(table[0], table.image(0), table.skeleton, 256)
    crops = {
        len(t.skeleton): type(ready)(
            ready.image,
            ready.camera,
            np.zeros((len(t.skeleton), 3), np.float32),
            np.zeros((len(t.skeleton), 2), np.float32),
            False,
        )
        for t in tables
    }
    mixing.make_crop = lambda example, image, skeleton, *rest: crops[len(skeleton)]
    ExampleTable.image = lambda self, row: (self.image_bytes(row), None)[1]
    batches[0]
    start = time.process_time()
    for step in range(1000, 1020):
        batches[step]
    overhead = (time.process_time() - start) / 20 / plan.batch_size
    print(
        json.dumps(
            dict(
                rows=rows,
                opened=opened,
                resume=resume,
                exact=exact,
                overhead_ms=overhead * 1e3,
                base=base,
                peak=peak_mb(),
                batch=len(resumed),
            )
        )
    )


def measure_objects(folder):
    "In a process of its own: 1/100 of the rows as Python objects, the way merged annotation lists are kept."
    from acae_nb.examples.tables import ExampleTable

    base, start = peak_mb(), time.perf_counter()
    objects = []
    for name in (*SETS_3D, *SETS_2D):
        table = ExampleTable.open(folder / name)
        for row in range(max(1, len(table) // 100)):
            example = table[row]
            for field in ("joints3d", "joints2d", "box"):
                if getattr(example, field) is not None:
                    setattr(example, field, np.array(getattr(example, field)))
            objects.append(example)
    loaded = time.perf_counter() - start
    start = time.perf_counter()
    np.random.default_rng(0).shuffle(objects)
    print(
        json.dumps(
            dict(rows=len(objects), loaded=loaded, shuffled=time.perf_counter() - start, base=base, peak=peak_mb())
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=13_400_000)
    parser.add_argument("--folder", type=Path, default=None, help="a folder with room for 0.7 kB a row")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--measure", choices=["tables", "objects"], help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.measure:
        return {"tables": measure_tables, "objects": measure_objects}[o.measure](o.folder)
    from acae_nb.skeletons.joints import load_skeleton

    root = o.folder or Path(tempfile.mkdtemp(prefix="acae_nb_mixing_"))
    try:
        total = sum(n for n, _ in (*SETS_3D.values(), *SETS_2D.values()))
        start = time.perf_counter()
        for i, (name, (n, _)) in enumerate((SETS_3D | SETS_2D).items()):
            if not (root / name / "table.arrow").exists():
                two_d = name in SETS_2D
                write_table(
                    root / name,
                    name,
                    load_skeleton("coco_17" if two_d else format_of(i)),
                    max(10, o.rows * n // total),
                    two_d,
                )
        size = sum(p.stat().st_size for p in root.glob("*/table.arrow"))
        print(
            f"made up {len(SETS_3D)} + {len(SETS_2D)} tables, {size / 1e9:.1f} GB, in "
            f"{time.perf_counter() - start:.0f} s"
        )

        def run(what):
            command = [sys.executable, __file__, "--measure", what, "--folder", str(root)]
            return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

        t, p = run("tables"), run("objects")
        print(f"\ntables: {t['rows'] / 1e6:.2f} million rows, batches of {t['batch']}")
        print(f"  open all                       {t['opened']:8.2f} s      (limit 10 s)")
        print(
            f"  peak memory                    {t['peak']:8.0f} MB     (limit 2000 MB; {t['base']:.0f} MB of it "
            "Python, torch and OpenCV)"
        )
        print(f"  plan and batch of step 300,000 {t['resume']:8.3f} s      (limit 5 s)")
        print(
            f"  overhead a row, one core       {t['overhead_ms']:8.3f} ms     (limit 1 ms; without decoding and "
            "cropping)"
        )
        print(f"  quotas exact                   {'yes' if t['exact'] else 'NO'}")
        scale = t["rows"] / p["rows"]
        print(f"\nPython objects: {p['rows']} rows (1/{scale:.0f} of them)")
        print(
            f"  load                           {p['loaded']:8.2f} s      x {scale:.0f} = "
            f"{p['loaded'] * scale:.0f} s, {p['loaded'] * scale / t['opened']:.0f} times the tables' time"
        )
        print(
            f"  memory                         {p['peak'] - p['base']:8.0f} MB     x {scale:.0f} = "
            f"{(p['peak'] - p['base']) * scale / 1000:.0f} GB, "
            f"{(p['peak'] - p['base']) * scale / max(1, t['peak'] - t['base']):.0f} times the tables' memory"
        )
        print(
            f"  shuffle                        {p['shuffled']:8.2f} s      x {scale:.0f} = "
            f"{p['shuffled'] * scale:.0f} s every epoch; the tables need none"
        )
    finally:
        if not o.keep:
            for name in (*SETS_3D, *SETS_2D):
                shutil.rmtree(root / name, ignore_errors=True)
            if not o.folder:
                shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
