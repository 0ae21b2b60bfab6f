"""SMPL joints against a slow recursion with scipy's rotations, from files in the layout of the owners' pickles (chumpy,
csc_matrix), and damaged ones."""

import os
import pickle

import numpy as np
import pytest
import scipy.sparse
from scipy.spatial.transform import Rotation

from acae_nb.datasets.native_files import NativeError
from acae_nb.datasets.smpl import body_joints, load_body

PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]


class Ch:
    "Stands in for chumpy.ch.Ch in the pickle."

    def __init__(self, x):
        self.x = x


def made_up_model(seed=0):
    rng = np.random.default_rng(seed)
    regressor = rng.uniform(0, 1, (24, 60)) * (rng.uniform(0, 1, (24, 60)) < 0.2) + 1e-3
    return dict(
        v_template=rng.normal(0, 0.5, (60, 3)),
        shapedirs=rng.normal(0, 0.02, (60, 3, 10)),
        J_regressor=regressor / regressor.sum(1, keepdims=True),
        kintree_table=np.array([[2**32 - 1, *PARENTS[1:]], range(24)], np.uint32),
        posedirs=np.zeros((60, 3, 4)),
        weights=np.zeros((60, 24)),
        f=np.zeros((5, 3), np.uint32),
        bs_type="lrotmin",
    )


def write(folder, gender="NEUTRAL", seed=0, kind="pkl"):
    folder.mkdir(exist_ok=True, parents=True)
    model = made_up_model(seed)
    if kind == "npz":
        np.savez(folder / f"SMPL_{gender}.npz", **{k: v for k, v in model.items() if k != "bs_type"})
        return model
    content = model | dict(J_regressor=scipy.sparse.csc_matrix(model["J_regressor"]), shapedirs=Ch(model["shapedirs"]))
    data = pickle.dumps(content, 2).replace(f"c{__name__}\nCh\n".encode(), b"cchumpy.ch\nCh\n")
    (folder / f"SMPL_{gender}.pkl").write_bytes(data)
    return model


def slow_joints(model, pose, shape, shift):
    rest = model["J_regressor"] @ (model["v_template"] + model["shapedirs"] @ shape)

    def motion(j):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(pose[3 * j : 3 * j + 3]).as_matrix()
        local[:3, 3] = rest[j] - (rest[PARENTS[j]] if j else 0)
        return motion(PARENTS[j]) @ local if j else local

    return np.array([motion(j)[:3, 3] for j in range(24)]) + shift


@pytest.mark.parametrize("kind", ["pkl", "npz"])
def test_joints_are_those_of_a_slow_recursion(tmp_path, kind):
    model = write(tmp_path, kind=kind)
    rng = np.random.default_rng(1)
    pose, shape, shift = rng.normal(0, 1, (5, 72)), rng.normal(0, 1, (5, 10)), rng.normal(0, 1, (5, 3))
    pose[0] = 0
    pose[1, 6:9] = 1e-9
    joints = body_joints(load_body(tmp_path), pose, shape, shift)
    for n in range(5):
        np.testing.assert_allclose(joints[n], slow_joints(model, pose[n], shape[n], shift[n]), atol=1e-9)


def test_absent_damaged_and_malicious_models_are_refused(tmp_path):
    with pytest.raises(NativeError, match="SMPL_MALE.*smpl.is.tue.mpg.de"):
        load_body(tmp_path, "male")
    write(tmp_path)
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    data = path.read_bytes()
    path.write_bytes(data[:-500])
    with pytest.raises(NativeError, match="SMPL_NEUTRAL.pkl"):
        load_body(tmp_path)

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    path.write_bytes(pickle.dumps(made_up_model() | dict(weights=Evil()), 2))
    with pytest.raises(NativeError, match="SMPL_NEUTRAL.pkl.*system"):
        load_body(tmp_path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda m: m.pop("J_regressor"), ["J_regressor"]),
        (lambda m: m.update(J_regressor=np.zeros((24, 60))), ["J_regressor"]),
        (lambda m: m.update(v_template=np.full((60, 3), np.nan)), ["v_template"]),
        (lambda m: m.update(kintree_table=np.array([[0, 5] + PARENTS[2:], range(24)])), ["kintree_table"]),
        (lambda m: m.update(shapedirs=np.zeros((61, 3, 10))), ["shapedirs"]),
        (lambda m: m.update(shapedirs=np.zeros((60, 3, 9))), ["shapedirs", "9"]),
    ],
)
def test_models_that_contradict_themselves_are_refused(tmp_path, change, words):
    model = made_up_model()
    change(model)
    (tmp_path / "SMPL_FEMALE.pkl").write_bytes(pickle.dumps(model, 2))
    with pytest.raises(NativeError) as e:
        load_body(tmp_path, "female")
    assert all(w in str(e.value) for w in ["SMPL_FEMALE.pkl", *words]), e.value
