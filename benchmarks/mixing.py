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
import pyarrow as pa
import torch

from acae_nb.examples import mixing
from acae_nb.examples.crops import NO_AUGMENTATION
from acae_nb.examples.mixing import BatchPlan, MixedBatches
from acae_nb.examples.tables import SCHEMA_VERSION, TEXT_COLUMNS, ExampleTable, encode_jpeg, number_columns
from acae_nb.skeletons.joints import load_skeleton, union

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


SETS = SETS_3D | SETS_2D
FORMATS = ("h36m_17", "smpl_24", "mpi_inf_3dhp_28", "cmu_panoptic_19", "coco_17", "h36m_25")
RESUMED_STEP = 300_000


def format_of(number):
    "The format of the 3D set of a number: in turn, so that every table has one and the union has several."
    return FORMATS[number % len(FORMATS)]


# ---- made-up tables
def joint_values(field, count, shape, rng):
    "Random joints, made in parts: around a person 3 m away (mm), or in the middle of the picture (px)."
    values = np.empty((count, *shape), np.float32)
    scale, middle = (300, (0, 0, 3000)) if field == "joints3d" else (10, 48)
    for start in range(0, count, 65536):
        part = rng.standard_normal((min(65536, count - start), *shape), np.float32)
        values[start : start + 65536] = part * scale + middle
    return values


def number_values(field, kind, shape, count, jpeg, rng):
    "The values of one column of numbers: joints and frames of their own, all else the same in every row."
    if field in ("joints3d", "joints2d"):
        return joint_values(field, count, shape, rng).astype(kind, copy=False)
    same_in_every_row = {
        "weight": 1,
        "box": [20, 10, 50, 70],
        "image_size": [96, 96],
        "intrinsics": [[120, 0, 48], [0, 120, 48], [0, 0, 1]],
        "distortion": 0,
        "rotation": np.eye(3),
        "position": 0,
        "world_up": [0, -1, 0],
        "image_offset": 0,
        "image_length": len(jpeg),
        "image_crc32": zlib.crc32(jpeg),
    }
    values = np.empty((count, *shape), kind)
    values[:] = np.arange(count) if field == "frame" else same_in_every_row[field]
    return values


def arrow_numbers(values):
    "A column of numbers, or of arrays of one shape, without a copy."
    kind = pa.from_numpy_dtype(values.dtype)
    flat = pa.Array.from_buffers(kind, values.size, [None, pa.py_buffer(values)])
    shape = list(values.shape[1:])
    if not shape:
        return flat
    rows = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(shape)))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(kind, shape), rows)


def arrow_texts(texts):
    "A column of byte texts that are all of one length."
    offsets = np.arange(len(texts) + 1, dtype=np.int64) * texts.dtype.itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(texts))]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def example_ids(name, count):
    "The table's name and nine digits."
    digits = np.char.zfill(np.arange(count).astype("S9"), 9).astype("U9")
    return np.char.add(f"{name}/", digits).astype("S")


def write_table(folder, name, skeleton, count, two_d):
    "A table as ExampleWriter leaves it, its columns made in one go."
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    jpeg = encode_jpeg(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8), 60)
    absent = {"origin", "joints3d" if two_d else "joints2d"}
    columns = {
        field: arrow_numbers(number_values(field, kind, shape, count, jpeg, rng))
        for field, (kind, shape) in number_columns(len(skeleton)).items()
        if field not in absent
    }
    for field in TEXT_COLUMNS:
        columns[field] = arrow_texts(
            example_ids(name, count) if field == "example_id" else np.full(count, b"subject-01")
        )
    metadata = {
        "schema_version": str(SCHEMA_VERSION),
        "dataset": name,
        "images_bytes": str(len(jpeg)),
        "skeleton": json.dumps(skeleton.to_dict()),
    }
    schema = pa.schema([pa.field(f, column.type, nullable=False) for f, column in columns.items()], metadata)
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "table.arrow"), schema) as file:
        file.write_batch(pa.RecordBatch.from_arrays(list(columns.values()), schema=schema))
    (folder / "images.bin").write_bytes(jpeg)


def write_tables(root, rows):
    "All tables that are not in `root` yet, of `rows` rows together."
    total = sum(thousands for thousands, _ in SETS.values())
    for number, (name, (thousands, _)) in enumerate(SETS.items()):
        if not (root / name / "table.arrow").exists():
            two_d = name in SETS_2D
            skeleton = load_skeleton("coco_17" if two_d else format_of(number))
            write_table(root / name, name, skeleton, max(10, rows * thousands // total), two_d)


# ---- measured, each in a process of its own
def peak_mb():
    """Most resident memory so far (Linux counts it from the start of the program; getrusage would count the parent's
    too)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def quotas_are_exact(plan, quotas):
    "Whether twenty batches have each table as often as its quota says."
    expected = [table for table, quota in enumerate(quotas) for _ in range(quota)]
    return all([table for table, _ in plan.batch(step)] == expected for step in range(RESUMED_STEP, RESUMED_STEP + 20))


def leave_out_pictures(tables):
    "From now on a crop is a ready one and a picture is read but not decoded: neither is part of the overhead."
    table = tables[0]
    ready = mixing.make_crop(table[0], table.image(0), table.skeleton, 256)
    crops = {}
    for count in {len(table.skeleton) for table in tables}:
        joints3d, joints2d = np.zeros((count, 3), np.float32), np.zeros((count, 2), np.float32)
        crops[count] = type(ready)(ready.image, ready.camera, joints3d, joints2d, False)
    mixing.make_crop = lambda example, image, skeleton, *rest: crops[len(skeleton)]
    ExampleTable.image = lambda table, row: (table.image_bytes(row), None)[1]


def overhead_of_a_row(batches, batch_size):
    "CPU seconds a row, over twenty batches."
    batches[0]
    start = time.process_time()
    for step in range(1000, 1020):
        batches[step]
    return (time.process_time() - start) / 20 / batch_size


def measure_tables(folder):
    "Open, draw, resume."
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    base = peak_mb()
    start = time.perf_counter()
    tables = [ExampleTable.open(folder / name) for name in SETS]
    opened = time.perf_counter() - start
    skeleton = union([load_skeleton(name) for name in FORMATS])
    quotas = [quota for _, quota in SETS.values()]
    start = time.perf_counter()
    plan = BatchPlan([len(table) for table in tables], quotas, seed=0)
    batches = MixedBatches(tables, plan, skeleton, load_skeleton("coco_17"), 256, NO_AUGMENTATION, seed=0)
    resumed_batch = plan.batch(RESUMED_STEP)
    resume = time.perf_counter() - start
    leave_out_pictures(tables)
    return {
        "rows": sum(len(table) for table in tables),
        "opened": opened,
        "resume": resume,
        "exact": quotas_are_exact(plan, quotas),
        "overhead_ms": overhead_of_a_row(batches, plan.batch_size) * 1e3,
        "base": base,
        "peak": peak_mb(),
        "batch": len(resumed_batch),
    }


def as_object(example):
    "An example whose arrays are its own."
    for field in ("joints3d", "joints2d", "box"):
        if getattr(example, field) is not None:
            setattr(example, field, np.array(getattr(example, field)))
    return example


def objects_of(table):
    return [as_object(table[row]) for row in range(max(1, len(table) // 100))]


def measure_objects(folder):
    "1/100 of the rows as Python objects, the way merged annotation lists are kept."
    base, start = peak_mb(), time.perf_counter()
    objects = [example for name in SETS for example in objects_of(ExampleTable.open(folder / name))]
    loaded = time.perf_counter() - start
    start = time.perf_counter()
    np.random.default_rng(0).shuffle(objects)
    shuffled = time.perf_counter() - start
    return {"rows": len(objects), "loaded": loaded, "shuffled": shuffled, "base": base, "peak": peak_mb()}


MEASUREMENTS = {"tables": measure_tables, "objects": measure_objects}


def measured_apart(name, root):
    "What one of MEASUREMENTS returns in a process of its own."
    command = [sys.executable, __file__, "--measure", name, "--folder", str(root)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


# ---- the report
def tables_text(tables):
    return f"""
tables: {tables["rows"] / 1e6:.2f} million rows, batches of {tables["batch"]}
  open all                       {tables["opened"]:8.2f} s      (limit 10 s)
  peak memory                    {tables["peak"]:8.0f} MB     (limit 2000 MB; {tables["base"]:.0f} MB of it imports)
  plan and batch of step 300,000 {tables["resume"]:8.3f} s      (limit 5 s)
  overhead a row, one core       {tables["overhead_ms"]:8.3f} ms     (limit 1 ms; without decoding and cropping)
  quotas exact                   {"yes" if tables["exact"] else "NO"}"""


def objects_text(objects, tables):
    scale = tables["rows"] / objects["rows"]
    loaded, shuffled, memory = objects["loaded"], objects["shuffled"], objects["peak"] - objects["base"]
    times_loaded = loaded * scale / tables["opened"]
    times_memory = memory * scale / max(1, tables["peak"] - tables["base"])
    all_loaded = f"x {scale:.0f} = {loaded * scale:.0f} s, {times_loaded:.0f} times the tables' time"
    all_memory = f"x {scale:.0f} = {memory * scale / 1000:.0f} GB, {times_memory:.0f} times the tables' memory"
    all_shuffled = f"x {scale:.0f} = {shuffled * scale:.0f} s every epoch; the tables need none"
    return f"""
Python objects: {objects["rows"]} rows (1/{scale:.0f} of them)
  load                           {loaded:8.2f} s      {all_loaded}
  memory                         {memory:8.0f} MB     {all_memory}
  shuffle                        {shuffled:8.2f} s      {all_shuffled}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=13_400_000)
    parser.add_argument("--folder", type=Path, default=None, help="a folder with room for 0.7 kB a row")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--measure", choices=list(MEASUREMENTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(MEASUREMENTS[args.measure](args.folder)))
        return
    root = args.folder or Path(tempfile.mkdtemp(prefix="acae_nb_mixing_"))
    try:
        start = time.perf_counter()
        write_tables(root, args.rows)
        size = sum(path.stat().st_size for path in root.glob("*/table.arrow"))
        seconds = time.perf_counter() - start
        print(f"made up {len(SETS_3D)} + {len(SETS_2D)} tables, {size / 1e9:.1f} GB, in {seconds:.0f} s")
        tables, objects = measured_apart("tables", root), measured_apart("objects", root)
        print(tables_text(tables))
        print(objects_text(objects, tables))
    finally:
        if not args.keep:
            for name in SETS:
                shutil.rmtree(root / name, ignore_errors=True)
            if not args.folder:
                shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
