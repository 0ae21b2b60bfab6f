"""AGORA: two tiny tables as pickled by pandas 1.x, with the fields of the owners' gt_dataframe.md and their projection,
read back, and harmed."""

import io
import pickle

import cv2
import numpy as np
import pandas as pd
import pytest
from mutations import bit_flipped, check_mutations, missing_file, truncated, zero_filled

from acae_nb.datasets import agora
from acae_nb.datasets.native_files import NativeError
from acae_nb.skeletons.joints import load_skeleton

W, H = 3840, 2160  # gt_joints_2d are for these pictures; the files here have a tenth of that
# picture -> table, lens mm, pitch, yaw, place (cm, Unreal), ground (m), people: (joints' seed, valid)
PICTURES = {
    "ag_trainset_renderpeople_bfh_hdri_50mm_5_10_00000.png": (
        "train_0",
        50,
        0,
        0,
        (0, 0, 170),
        0,
        [(1, True), (2, False)],
    ),
    "ag_trainset_axyz_archviz_5_10_cam01_00003.png": ("train_0", 18, 30, -135, (400, 225, 265), 0, [(3, True)]),
    "ag_trainset_humanalloy_brushifygrasslands_5_15_00001.png": (
        "train_3",
        28,
        0,
        62.5,
        (1250.0, -300.0, 155.0),
        -1.7,
        [(4, True), (5, True)],
    ),
    "ag_validationset_3dpeople_ag2_5_10_00000.png": ("validation_1", 28, 15, 0, (0, 0, 170), 0, [(6, True)]),
}
SMPLX = [*load_skeleton("smplx_127").joints]


class OldPickler(pickle._Pickler):
    "Writes names of classes as pandas 1.x has them, without looking for them in the pandas that is installed."

    def save_global(self, obj, name=None):
        self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__name__}\n".encode())
        self.memoize(obj)

    dispatch = {**pickle._Pickler.dispatch, type: save_global}


def old_class(module, name):
    return type(name, (), {"__module__": module})


Frame, Manager = (
    old_class("pandas.core.frame", "DataFrame"),
    old_class("pandas.core.internals.managers", "BlockManager"),
)
Index, RangeIndex, new_index = (
    old_class("pandas.core.indexes.base", "Index"),
    old_class("pandas.core.indexes.range", "RangeIndex"),
    old_class("pandas.core.indexes.base", "_new_Index"),
)


class Made:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def old_table(columns):
    "The bytes pandas 1.x would write for a table: one block of floats, one of objects."
    names, n = list(columns), len(next(iter(columns.values())))
    floats = [k for k, name in enumerate(names) if name.startswith("cam")]
    others = [k for k in range(len(names)) if k not in floats]
    objects = np.empty((len(others), n), object)
    for i, k in enumerate(others):
        for r in range(n):
            objects[i, r] = columns[names[k]][r]
    axes = [
        Made(new_index, (Index, dict(data=np.array(names, object), name=None))),
        Made(new_index, (RangeIndex, dict(name=None, start=0, stop=n, step=1))),
    ]
    blocks = [
        dict(values=np.array([columns[names[k]] for k in floats], float), mgr_locs=np.array(floats)),
        dict(values=objects, mgr_locs=np.array(others)),
    ]
    items = [
        Made(new_index, (Index, dict(data=np.array([names[k] for k in part], object), name=None)))
        for part in (floats, others)
    ]
    manager = Manager.__new__(Manager)
    manager.__class__.__reduce_ex__ = lambda self, protocol: (__import__("copyreg").__newobj__, (Manager,), self.state)
    manager.state = (axes, [b["values"] for b in blocks], items, {"0.14.1": dict(axes=axes, blocks=blocks)})
    frame = Frame.__new__(Frame)
    frame.__class__.__reduce_ex__ = lambda self, protocol: (__import__("copyreg").__newobj__, (Frame,), self.state)
    frame.state = dict(
        _mgr=manager, _typ="dataframe", _metadata=[], attrs={}, _flags=dict(allows_duplicate_labels=True)
    )
    out = io.BytesIO()
    OldPickler(out, 2).dump(frame)
    return out.getvalue()


def joints(seed):
    "Camera frame, metres: SMPL [45, 3] and SMPL-X [127, 3]."
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(0, 0.3, (n, 3)) + [seed / 5 - 0.7, 0.1, 6] for n in (45, 127))


def seen(points, lens):
    f = lens / 36 * W
    return points[:, :2] / points[:, 2:] * f + [W / 2, H / 2]


def write(root, old=True):
    for folder in ("SMPL", "SMPLX", "train_0", "train_3", "validation"):
        (root / folder).mkdir(parents=True)
    for table in ("train_0", "train_3", "validation_1"):
        pictures = {name: facts for name, facts in PICTURES.items() if facts[0] == table}
        for which, model in enumerate(("SMPL", "SMPLX")):
            columns = {
                key: []
                for key in (
                    "imgPath",
                    "camX",
                    "camY",
                    "camZ",
                    "camYaw",
                    "isValid",
                    "occlusion",
                    "gt_joints_2d",
                    "gt_joints_3d",
                    "kid",
                )
            }
            for name, (_, lens, _pitch, yaw, place, ground, people) in pictures.items():
                brush = ground != 0
                values = dict(
                    imgPath=name,
                    camX=place[0] if brush else 0.0,
                    camY=place[1] if brush else 0.0,
                    camZ=place[2] if brush else 0.0,
                    camYaw=yaw if brush else 0.0,
                    isValid=[v for _, v in people],
                    occlusion=[10.0] * len(people),
                    kid=[False] * len(people),
                    gt_joints_3d=[joints(s)[which] for s, _ in people],
                    gt_joints_2d=[seen(joints(s)[which], lens) for s, _ in people],
                )
                for key, value in values.items():
                    columns[key].append(value)
            (root / model / f"{table}_withjv.pkl").write_bytes(old_table(columns))
    for k, (name, facts) in enumerate(PICTURES.items()):
        cv2.imwrite(
            str(root / (facts[0] if facts[0].startswith("train") else "validation") / name),
            np.full((H // 10, W // 10), 40 * k + 20, np.uint8),
        )


def read(root):
    return [*agora.read(root), *agora.read(root, "validation")]


def owners_camera(lens, pitch, yaw, place, ground):
    """World -> camera as projection.py has it: turn about y by -yaw, then about x by the pitch, after subtracting the
    place."""
    turn = cv2.Rodrigues(np.array([np.deg2rad(pitch), 0, 0]))[0] @ cv2.Rodrigues(np.array([0, np.deg2rad(-yaw), 0]))[0]
    return turn, np.array([place[1], -place[2], place[0]]) / 100 + [0, ground, 0]


def test_reads_back_what_was_written(tmp_path):
    write(tmp_path)
    rows = read(tmp_path)
    expected = [
        (name, p)
        for table in ("train_0", "train_3", "validation_1")
        for name, facts in PICTURES.items()
        if facts[0] == table
        for p, (_, valid) in enumerate(facts[-1])
        if valid
    ]
    assert [e.example_id for e, _ in rows] == [f"{PICTURES[name][0]}/{name[:-4]}/{p}" for name, p in expected]
    chosen = [SMPLX.index(name) for name in load_skeleton("smplx_42").joints]
    for (example, picture), (name, p) in zip(rows, expected):
        table, lens, pitch, yaw, place, ground, people = PICTURES[name]
        body, full = joints(people[p][0])
        eye = np.concatenate([body[:24], full[chosen]])
        turn, position = owners_camera(lens, pitch, yaw, place, ground)
        np.testing.assert_allclose(example.joints3d, (eye @ turn + position) * 1000, atol=0.01)
        np.testing.assert_allclose(example.camera.project(example.joints3d), seen(eye, lens) / 10, atol=0.1)
        px = seen(eye, lens) / 10
        left, top, width, height = example.box
        assert (
            left <= px[:, 0].min()
            and px[:, 0].max() <= left + width
            and top <= px[:, 1].min()
            and px[:, 1].max() <= top + height
        )
        assert (
            example.split == table.split("_")[0]
            and example.image_size == (W // 10, H // 10) == picture.size
            and abs(picture.load().mean() - (40 * list(PICTURES).index(name) + 20)) < 2
        )
        assert example.camera.project(example.joints3d[:1] + 100 * example.camera.world_up)[0, 1] < px[0, 1]


def test_smaller_pictures_have_another_ending(tmp_path):
    write(tmp_path)
    for path in tmp_path.glob("train_*/*.png"):
        path.rename(path.with_name(f"{path.stem}_1280x720.png"))
    assert len(list(agora.read(tmp_path, ending="_1280x720.png"))) == 4
    with pytest.raises(NativeError, match="hdri_50mm_5_10_00000.png"):
        list(agora.read(tmp_path))


def test_the_made_table_is_one_that_pandas_reads(tmp_path):
    write(tmp_path)
    table = pd.read_pickle(tmp_path / "SMPL/train_0_withjv.pkl")
    assert table.imgPath.tolist() == [
        n for n, f in PICTURES.items() if f[0] == "train_0"
    ] and table.camYaw.tolist() == [0, 0]
    own = agora.read_table(tmp_path / "SMPL/train_0_withjv.pkl")
    assert list(own["imgPath"]) == table.imgPath.tolist() and set(own) == set(table.columns)


def test_tables_of_later_pandas(tmp_path):
    "pandas from 1.3 on builds blocks by a function; names as objects, as before pandas 3."
    table = pd.DataFrame(
        {"imgPath": ["a.png", "b.png"], "camX": [1.0, 2.0]}, columns=pd.Index(["imgPath", "camX"], dtype=object)
    ).astype({"imgPath": object})
    table.to_pickle(tmp_path / "t.pkl")
    assert agora.read_table(tmp_path / "t.pkl") == {"imgPath": ["a.png", "b.png"], "camX": [1.0, 2.0]}


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return __import__("os").system, (f"touch {tmp_path}/owned",)

    write(tmp_path)
    (tmp_path / "SMPL/train_0_withjv.pkl").write_bytes(pickle.dumps(dict(_mgr=Evil()), 2))
    with pytest.raises(NativeError, match="train_0_withjv.pkl.*system"):
        read(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_other_pictures_or_other_people_are_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "SMPLX/train_3_withjv.pkl"
    path.write_bytes((tmp_path / "SMPLX/train_0_withjv.pkl").read_bytes())
    with pytest.raises(NativeError, match="SMPLX/train_3_withjv.pkl: imgPath"):
        read(tmp_path)
    path.write_bytes((tmp_path / "SMPL/train_3_withjv.pkl").read_bytes())
    with pytest.raises(NativeError, match="SMPLX/train_3_withjv.pkl: rows: .*gt_joints_3d.*127"):
        read(tmp_path)


def test_absent_data_is_refused_by_name(tmp_path):
    with pytest.raises(NativeError, match="SMPL/train.*AGORA"):
        next(agora.read(tmp_path))


def spoiled_table(path, rng):
    "A column less, or one joint less or a NaN in the joints of somebody."
    if path.suffix != ".pkl":
        return None
    columns = {key: values.tolist() for key, values in pd.read_pickle(path).items()}
    kind = rng.integers(4)
    key = list(columns)[rng.integers(len(columns))] if kind == 0 else ("gt_joints_3d", "gt_joints_2d")[rng.integers(2)]
    if kind == 0:
        del columns[key]
        path.write_bytes(old_table(columns))
        return f"column {key} removed"
    people = columns[key][rng.integers(len(columns[key]))]
    p = rng.integers(len(people))
    if kind == 1:
        people[p] = people[p][:-1]
    elif kind == 2:
        people.pop(p)
    else:
        people[p][rng.integers(24), 0] = np.nan
    path.write_bytes(old_table(columns))
    return f"{key}: {('', 'a joint less', 'a person less', 'a NaN')[kind]}"


def test_mutations(tmp_path, nightly):
    check_mutations(
        write,
        read,
        tmp_path,
        n=200 if nightly else 10,
        kinds=(truncated, spoiled_table, bit_flipped, zero_filled, missing_file),
    )
