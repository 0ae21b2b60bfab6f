"""Damage to small data sets in their native layouts: what a reader must refuse, or must not be harmed by.

    check_mutations(write, read, tmp_path, n=10)

`write(folder)` makes the data set, `read(folder)` yields (Example, picture). Each mutation damages one file. It passes
when the reader (or loading a picture it gave) raises NativeError naming a file of the data set, or the rows are those
of the unharmed data set: all of them, or some of them with nothing wrong in those. Flipped bits may also change values
(nobody can see a digit that was another), as long as every row is one that could be right."""

import json
import pickle
import shutil
import signal
import struct
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np

from acae_nb.datasets.native import row
from acae_nb.datasets.native_files import NativeError
from acae_nb.examples.images import decode_mask

TEXT = {".txt", ".csv", ".calibration", ".xml", ".yml", ".yaml", ".cpm", ".calib", ".trc", ".cfg", ".ini", ".tsv"}
PICTURES = {".jpg", ".jpeg", ".png", ".mp4", ".avi", ".bmp"}
CAMERA = ("intrinsics", "distortion", "rotation", "position", "world_up")


# ---- what is inside a file, as (containers of it, how to write it back) --------------------------------------------
def load_tree(path):
    "(tree, save) of a structured file; None for one without structure."
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json.loads(path.read_text()), lambda tree: path.write_text(json.dumps(tree))
    if suffix in (".pkl", ".pickle"):
        return pickle.loads(path.read_bytes(), encoding="latin1"), lambda tree: path.write_bytes(pickle.dumps(tree, 2))
    if suffix == ".npz":
        with np.load(path) as file:
            return dict(file), lambda tree: np.savez(path, **tree)
    if suffix == ".npy":
        return {"": np.load(path)}, lambda tree: np.save(path, tree[""]) if tree else path.write_bytes(b"")
    if suffix in (".h5", ".hdf5") or suffix == ".mat" and b"\x89HDF" in path.read_bytes()[:520]:
        return H5Tree(path), lambda tree: None
    if suffix == ".mat":
        from scipy.io import loadmat, savemat

        return {k: v for k, v in loadmat(path).items() if not k.startswith("__")}, lambda tree: savemat(path, tree)
    return None


class H5Tree:
    "An HDF5 file whose data sets are replaced in place."

    def __init__(self, path):
        self.path = path

    def places(self):
        import h5py

        found = []
        with h5py.File(self.path, "r") as file:
            file.visititems(
                lambda name, node: found.append(
                    (name, node[()] if isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf" else None)
                )
            )
        return found

    def put(self, name, value=None):
        import h5py

        with h5py.File(self.path, "a") as file:
            attributes = dict(file[name].attrs)
            del file[name]
            if value is not None:
                file[name] = value
                for key, attribute in attributes.items():
                    file[name].attrs[key] = attribute


def walk(tree):
    "Every (container, key) below a tree of dicts, lists, arrays of objects and MATLAB's structs."
    stack, seen = [tree], set()
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            keys = list(node)
        elif isinstance(node, list):
            keys = range(len(node))
        elif isinstance(node, np.ndarray) and node.dtype.names:
            keys = [(place, name) for place in np.ndindex(node.shape) for name in node.dtype.names]
        elif isinstance(node, np.ndarray) and node.dtype.kind == "O":
            keys = list(np.ndindex(node.shape))
        else:
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        for key in keys:
            yield node, key
            stack.append(get(node, key))


def get(node, key):
    return node[key[0]][key[1]] if isinstance(node, np.ndarray) and node.dtype.names else node[key]


def put(node, key, value):
    if isinstance(node, np.ndarray) and node.dtype.names:
        node[key[0]][key[1]] = value
    else:
        node[key] = value


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_array(value):
    if isinstance(value, list):
        return len(value) > 1 and (
            all(map(is_number, value)) or all(isinstance(v, list) and v and all(map(is_number, v)) for v in value)
        )
    return isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.size > 1


# ---- kinds of damage; each returns what it did, or None where it does not apply to the file ------------------------
def truncated(path, rng):
    data = path.read_bytes()
    keep = int(len(data) * rng.choice([0, rng.random(), 0.999]))
    path.write_bytes(data[: min(keep, len(data) - 1)])
    return f"cut to {keep} of {len(data)} bytes"


def zero_filled(path, rng):
    data = path.read_bytes()
    start = int(len(data) * rng.choice([0, rng.uniform(0.2, 0.9)]))
    path.write_bytes(data[:start] + bytes(len(data) - start))
    return f"zeros from byte {start}"


def bit_flipped(path, rng):
    data = bytearray(path.read_bytes())
    if not data:
        return None
    places = rng.integers(0, len(data) * 8, int(rng.integers(1, 4)))
    for at in places:
        data[at // 8] ^= 1 << at % 8
    path.write_bytes(bytes(data))
    return f"bits {places.tolist()} flipped"


def missing_file(path, rng):
    path.unlink()
    return "removed"


def missing_key(path, rng):
    if path.suffix.lower() in TEXT:
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        if not lines:
            return None
        k = int(rng.integers(len(lines)))
        path.write_text("".join(lines[:k] + lines[k + 1 :]))
        return f"line {k + 1} removed: {lines[k][:60]!r}"
    loaded = load_tree(path)
    if loaded is None:
        return None
    tree, save = loaded
    if isinstance(tree, H5Tree):
        name, _ = pick(rng, tree.places())
        tree.put(name)
        return f"{name} removed"
    places = [(node, key) for node, key in walk(tree) if isinstance(node, dict)]
    structs = [
        (node, key) for node, key in walk(tree) if isinstance(get(node, key), np.ndarray) and get(node, key).dtype.names
    ]
    if structs and rng.random() < 0.5:
        node, key = pick(rng, structs)
        value = get(node, key)
        names = list(value.dtype.names)
        lost = names.pop(int(rng.integers(len(names))))
        if not names:
            return None
        kept = np.empty(value.shape, [(name, object) for name in names])
        for name in names:
            kept[name] = value[name]
        put(node, key, kept)
        save(tree)
        return f"field {lost} of {key} removed"
    if not places:
        return None
    node, key = pick(rng, places)
    del node[key]
    save(tree)
    return f"key {key!r} removed"


def pick(rng, things):
    return things[int(rng.integers(len(things)))]


def other_shape(value, rng):
    if isinstance(value, list):
        inner = rng.random() < 0.5 and isinstance(value[0], list) and len(value[0]) > 1
        return [v[:-1] for v in value] if inner else value[:-1] if rng.random() < 0.7 else value + value[-1:]
    axis = pick(rng, [a for a, n in enumerate(value.shape) if n > 1])
    return (
        np.delete(value, -1, axis) if rng.random() < 0.7 else np.concatenate([value, np.take(value, [-1], axis)], axis)
    )


def wrong_shape(path, rng):
    "One value too few or too many along an axis: a wrong joint count, a camera of another shape."
    if path.suffix.lower() in TEXT:
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        places = [k for k, line in enumerate(lines) if len(line.split()) > 1]
        if not places:
            return None
        k = pick(rng, places)
        lines[k] = lines[k].rstrip("\n").rsplit(None, 1)[0] + "\n"
        path.write_text("".join(lines))
        return f"last word of line {k + 1} removed"
    return _with_array(path, rng, other_shape)


def not_a_number(path, rng):
    "NaN in a camera, or wherever there are numbers."
    if path.suffix.lower() in TEXT:
        words = path.read_text(errors="replace").split(" ")
        places = [k for k, word in enumerate(words) if word.strip().replace(".", "", 1).replace("-", "").isdigit()]
        if not places:
            return None
        k = pick(rng, places)
        words[k] = words[k].replace(words[k].strip(), "nan")
        path.write_text(" ".join(words))
        return f"word {k} made nan"

    def spoil(value, rng):
        value = np.array(value, float)
        value.reshape(-1)[int(rng.integers(value.size))] = np.nan
        return value

    return _with_array(
        path, rng, lambda value, rng: spoil(value, rng).tolist() if isinstance(value, list) else spoil(value, rng)
    )


def _with_array(path, rng, change):
    loaded = load_tree(path)
    if loaded is None:
        return None
    tree, save = loaded
    if isinstance(tree, H5Tree):
        places = [(name, value) for name, value in tree.places() if value is not None and np.size(value) > 1]
        if not places:
            return None
        name, value = pick(rng, places)
        tree.put(name, change(value, rng))
        return f"{name}: {change.__name__}"
    places = [(node, key) for node, key in walk(tree) if is_array(get(node, key))]
    if not places:
        return None
    node, key = pick(rng, places)
    before = np.shape(get(node, key)) if not isinstance(get(node, key), list) else len(get(node, key))
    put(node, key, change(get(node, key), rng))
    save(tree)
    return f"{change.__name__} of {key!r} (was {before})"


KINDS = (truncated, missing_key, bit_flipped, wrong_shape, zero_filled, not_a_number, missing_file)


# ---- outcome -------------------------------------------------------------------------------------------------------
def look(rows):
    "Example and pixels of each row, by id."
    out = {}
    for example, picture in rows:
        assert example.example_id not in out, f"id {example.example_id} twice"
        answer = row("the reader's answer", example, picture)
        assert not isinstance(answer, NativeError), str(answer)
        pixels = picture.load()
        assert pixels.shape[1::-1] == tuple(example.image_size), (
            f"{example.example_id}: image_size {example.image_size}, picture {pixels.shape}"
        )
        out[example.example_id] = example, pixels
    return out


def difference(a, b):
    "Names of what differs between two rows."
    (a, pixels_a), (b, pixels_b) = a, b
    out = [
        f.name
        for f in fields(a)
        if f.name not in ("camera", "example_id") and not same(getattr(a, f.name), getattr(b, f.name))
    ]
    out += [name for name in CAMERA if not same(getattr(a.camera, name), getattr(b.camera, name))]
    return out + ["picture"] * bool(pixels_a.shape != pixels_b.shape or (pixels_a != pixels_b).any())


def same(a, b):
    if a is None or b is None or isinstance(a, (str, bytes)):
        return a is b or a == b
    a, b = np.asarray(a, float), np.asarray(b, float)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-4, equal_nan=True)


def lost_joints_only(good, bad):
    "Whether the damaged row differs only by joints that it does not have any more (and by a box made of joints)."
    if set(difference(good, bad)) - {"joints3d", "joints2d", "box"}:
        return False
    for name in ("joints3d", "joints2d"):
        a, b = (getattr(r[0], name) for r in (good, bad))
        if b is None or a is None:
            continue
        known = ~np.isnan(b).any(-1)
        if a.shape != b.shape or not same(a[known], b[known]) or known.all() and not same(a, b):
            return False
    return any(n in difference(good, bad) for n in ("joints3d", "joints2d"))


@contextmanager
def time_limit(seconds):
    def stop(*_):
        raise TimeoutError(f"still reading after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def lost_pixels_only(good, bad):
    "Whether the damaged row differs only by a mask that has less in it, and a box inside the former one."
    if set(difference(good, bad)) - {"mask", "box"}:
        return False
    outer_left, outer_top, outer_width, outer_height = good[0].box
    left, top, width, height = bad[0].box
    before, after = (decode_mask(row[0].mask, row[0].image_size) > 0 for row in (good, bad))
    box_is_inside = (
        left >= outer_left
        and top >= outer_top
        and left + width <= outer_left + outer_width
        and top + height <= outer_top + outer_height
    )
    return box_is_inside and not (after & ~before).any()


def outcome(read, folder, unharmed, kind, names, is_map=False):
    """'refused', 'unharmed', 'fewer rows', 'changed value', 'lost joints', 'lost pixels'; AssertionError for anything
    else."""
    try:
        with time_limit(30):
            found = look(read(folder))
    except NativeError as error:
        assert any(name in str(error) for name in names) or str(folder) in str(error), (
            f"the error names no file: {error}"
        )
        return "refused"
    known = {i: r for i, r in found.items() if i in unharmed}
    wrong = {i: difference(unharmed[i], r) for i, r in known.items() if difference(unharmed[i], r)}
    if kind is bit_flipped:
        return (
            "changed value"
            if wrong or len(known) < len(found)
            else "unharmed"
            if len(found) == len(unharmed)
            else "fewer rows"
        )
    assert len(known) == len(found), f"rows that were not there before: {sorted(set(found) - set(unharmed))[:3]}"
    if wrong and kind is not_a_number and all(lost_joints_only(unharmed[i], found[i]) for i in wrong):
        return "lost joints"
    if wrong and kind is zero_filled and is_map and all(lost_pixels_only(unharmed[i], found[i]) for i in wrong):
        return "lost pixels"
    assert not wrong, f"wrong rows, {len(wrong)} of {len(found)}: {dict(list(wrong.items())[:3])}"
    return "unharmed" if len(found) == len(unharmed) else "fewer rows"


def check_mutations(write, read, tmp_path, n=10, kinds=KINDS, seed=0, maps=()):
    """Damage a data set n times, each time one file in one way, and check the outcome. Returns how often each outcome
    came.

    `maps`: patterns of files that hold nothing but a picture of ids where 0 is nothing. Zeros in them are what a whole
    file could say too, so they may take from masks and boxes (and from nothing else). AssertionError names the
    mutation, the file and what was wrong."""
    base = Path(tmp_path) / "mutations" / "unharmed"
    base.mkdir(parents=True)
    write(base)
    unharmed = look(read(base))
    assert unharmed, "the unharmed data set has no rows"
    files = [p.relative_to(base) for p in sorted(base.rglob("*")) if p.is_file()]
    weights = np.array([1.0 if p.suffix.lower() in PICTURES else 8.0 for p in files])
    counts, seed_of = {}, 0
    for number in range(n):
        kind = kinds[number % len(kinds)]
        while True:  # another file and place when the damage does not apply
            rng, seed_of = np.random.default_rng([seed, number, seed_of]), seed_of + 1
            folder = base.parent / f"{number:03d}"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(base, folder)
            name = files[int(rng.choice(len(files), p=weights / weights.sum()))]
            try:
                done = kind(folder / name, rng)
            except struct.error:
                done = None
            if done:
                break
            if seed_of > 60 * (number + 1):
                kind = truncated
        try:
            result = outcome(
                read, folder, unharmed, kind, {p.name for p in files}, any(name.match(pattern) for pattern in maps)
            )
        except Exception as error:
            raise AssertionError(
                f"mutation {number}, {kind.__name__} of {name} ({done}) in {folder}: {type(error).__name__}: {error}"
            ) from error
        counts[result] = counts.get(result, 0) + 1
        shutil.rmtree(folder)
    return counts
