"""RICH and the SMPL-X joints it needs: tiny sequences and a made-up model in the owners' layouts, written here, read
back, and damaged."""

import pickle

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, picture, ring, shows, write_image
from scipy.spatial.transform import Rotation

from acae_nb.datasets import rich, smplx_body
from acae_nb.datasets.native_files import NativeError

SIZE, LENS = (96, 72), [-0.08, 0.03, 0.001, 0.0, 0.004]
# vchoutas/smplx joint_names.py and vertex_ids.py: rows of the 127 joints that the paper keeps, and the vertices of 55
# to 75
VERTEX = dict(
    zip(
        range(55, 76),
        (
            9120,
            9929,
            9448,
            616,
            6,
            5770,
            5780,
            8846,
            8463,
            8474,
            8635,
            5361,
            4933,
            5058,
            5169,
            5286,
            8079,
            7669,
            7794,
            7905,
            8022,
        ),
    )
)
KEPT = [*range(25), 28, 43, *range(55, 67), 68, 71, 73]
N = 9950


def model(seed, bends=False):
    """Random arrays with the names and shapes of SMPLX_*.npz (20 shape directions), zero where no joint depends on
    them; with or without pose blend shapes."""
    rng = np.random.default_rng(seed)
    used = np.array([VERTEX[k] for k in KEPT if k >= 55])
    spots = np.setdiff1d(np.arange(N), used)[:110]
    m = dict(
        v_template=np.zeros((N, 3)),
        shapedirs=np.zeros((N, 3, 20), np.float32),
        posedirs=np.zeros((N, 3, 486), np.float32 if bends else np.int8),
        J_regressor=np.zeros((55, N), np.float32),
        weights=np.zeros((N, 55), np.float32),
        kintree_table=np.array([[2**32 - 1] + [int(rng.integers(max(0, k - 4), k)) for k in range(1, 55)], range(55)]),
    )
    for rows in (used, spots):
        m["v_template"][rows] = rng.uniform(-0.4, 0.4, (len(rows), 3)) + [0, 0.5, 0]
        m["shapedirs"][rows] = rng.normal(0, 0.02, (len(rows), 3, 20))
    if bends:
        m["posedirs"][used] = rng.normal(0, 0.001, (len(used), 3, 486))
    m["J_regressor"][np.arange(55), spots[:55]] = 0.5
    m["J_regressor"][np.arange(55), spots[55:]] = 0.5
    w = rng.uniform(0, 1, (len(used), 55)) ** 8
    m["weights"][:, 0] = 1
    m["weights"][used] = w / w.sum(1, keepdims=True)
    for s in "lr":
        m |= {f"hands_mean{s}": rng.normal(0, 0.2, 45), f"hands_components{s}": rng.normal(0, 0.2, (45, 45))}
    return m


def parameters(seed):
    rng = np.random.default_rng(seed)
    sizes = dict(
        betas=10,
        expression=10,
        global_orient=3,
        body_pose=63,
        jaw_pose=3,
        leye_pose=3,
        reye_pose=3,
        left_hand_pose=12,
        right_hand_pose=12,
    )
    return {k: rng.normal(0, 0.3, (1, n)).astype(np.float32) for k, n in sizes.items()} | {
        "transl": rng.normal(0, 0.1, (1, 3)).astype(np.float32)
    }


def oracle(m, fit):
    "Linear blend skinning by the book: 4 x 4 matrices, one joint and one vertex at a time; metres, 42 joints."
    f = {k: v[0].astype(float) for k, v in fit.items()}
    v = m["v_template"] + m["shapedirs"] @ np.r_[f["betas"], f["expression"]]
    J = m["J_regressor"] @ v
    hands = [
        m[f"hands_mean{s}"] + f[f"{side}_hand_pose"] @ m[f"hands_components{s}"][:12]
        for s, side in (("l", "left"), ("r", "right"))
    ]
    R = Rotation.from_rotvec(
        np.concatenate(
            [f["global_orient"], f["body_pose"], f["jaw_pose"], f["leye_pose"], f["reye_pose"], *hands]
        ).reshape(55, 3)
    ).as_matrix()
    G = []
    for k in range(55):
        local = np.eye(4)
        local[:3, :3], p = R[k], m["kintree_table"][0, k]
        local[:3, 3] = J[k] - (J[p] if k else 0)
        G.append(local if k == 0 else G[p] @ local)
    out = []
    for k in KEPT:
        if k < 55:
            out.append(G[k][:3, 3])
            continue
        i = VERTEX[k]
        x = v[i] + m["posedirs"][i] @ (R[1:] - np.eye(3)).reshape(-1)
        out.append(sum(w * (g[:3, :3] @ (x - J[j]) + g[:3, 3]) for j, (w, g) in enumerate(zip(m["weights"][i], G))))
    return np.array(out) + f["transl"]


def write(root):
    """rich_toolkit: bodies/SPLIT/SEQUENCE/FRAME5/PERSON3.pkl, images/SPLIT/SEQUENCE/cam_CC/FRAME5_CC.EXT,
    scan_calibration/PLACE/calibration/0CC.xml."""
    models, truth = {"MALE": model(1), "FEMALE": model(2)}, {}
    (root / "body_models/smplx").mkdir(parents=True)
    for name, m in models.items():
        np.savez_compressed(root / f"body_models/smplx/SMPLX_{name}.npz", **m)
    for s, (sequence, split, kind) in enumerate(
        (("BBQ_001_guitar", "train", "jpg"), ("Gym_003_018_tossball", "train", "png"), ("BBQ_010_dance", "val", "jpg"))
    ):
        place = sequence.split("_")[0]
        places, turns = ring(2, 3000.0, 800.0, target=(0, 500, 0), up=(0, 1, 0), turn=len(place))
        K = np.array([[75.0, 0, 48], [0, 75, 36], [0, 0, 1]])
        for c, (p, turn) in enumerate(zip(places, turns)):

            def data(name, v):
                numbers = " ".join(repr(float(x)) for x in np.ravel(v))
                return f'<{name} type_id="opencv-matrix"><rows>1</rows><data>\n {numbers}</data></{name}>'

            path = root / f"scan_calibration/{place}/calibration/{c:03d}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                f'<?xml version="1.0"?>\n<opencv_storage>\n{data("CameraMatrix", np.c_[turn, -turn @ p / 1000])}\n'
                f"{data('Intrinsics', K)}\n{data('Distortion', LENS)}\n</opencv_storage>\n",
                encoding="utf-8",
            )
        for f in (17, 18):
            for person in sequence.split("_")[1:-1]:
                if (f, person) == (18, "018"):
                    continue  # no fit in this frame
                fit = parameters(100 * s + f + int(person))
                path = root / f"bodies/{split}/{sequence}/{f:05d}/{person}.pkl"
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "wb") as file:
                    pickle.dump(fit, file, 2)
                joints = oracle(models["FEMALE" if person in ("010", "018") else "MALE"], fit) * 1000
                for c in range(2):
                    truth[f"{sequence}/{c:02d}/{f:05d}/{person}"] = (
                        split,
                        joints,
                        opencv_project(joints, K, LENS, turns[c], places[c]),
                        f + c,
                    )
            for c in range(3):
                write_image(
                    root / f"images/{split}/{sequence}/cam_{c:02d}/{f:05d}_{c:02d}.{kind}", picture(f + c, SIZE)
                )  # 2 moves: no calibration
    return truth


@pytest.mark.parametrize("split, count", [("train", 10), ("val", 4)])
def test_reads_what_was_written(tmp_path, split, count):
    truth, rows = write(tmp_path), list(rich.read(tmp_path, split))
    assert [e.example_id for e, _ in rows] == sorted(i for i, t in truth.items() if t[0] == split) and len(
        rows
    ) == count
    for e, image in rows:
        _, joints, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, joints, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, e.subject) == ("rich", split, SIZE, e.example_id[-3:]) and shows(
            image.load(), number
        )
        inside = px[((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)]
        assert (inside >= e.box[:2]).all() and (inside <= e.box[:2] + e.box[2:]).all()


def test_joints_of_a_body_with_full_hands(tmp_path):
    m, fit = model(3, bends=True), parameters(5)
    np.savez(tmp_path / "SMPLX_MALE.npz", **m)
    body = smplx_body.load_body(tmp_path / "SMPLX_MALE.npz")
    np.testing.assert_allclose(smplx_body.smplx_joints(body, fit, "x.pkl"), 1000 * oracle(m, fit), atol=0.001)
    whole = fit | {
        f"{side}_hand_pose": fit[f"{side}_hand_pose"] @ m[f"hands_components{s}"][:12]
        for s, side in (("l", "left"), ("r", "right"))
    }
    np.testing.assert_allclose(smplx_body.smplx_joints(body, whole, "x.pkl"), 1000 * oracle(m, fit), atol=0.01)
    for change in (dict(betas=np.zeros(11)), dict(body_pose=np.zeros(69)), dict(transl=np.array([0, np.nan, 0]))):
        with pytest.raises(NativeError, match="x.pkl: " + next(iter(change))):
            smplx_body.smplx_joints(body, fit | change, "x.pkl")
    with pytest.raises(NativeError, match="x.pkl: jaw_pose"):
        smplx_body.smplx_joints(body, {k: v for k, v in fit.items() if k != "jaw_pose"}, "x.pkl")


def test_absent(tmp_path):
    with pytest.raises(NativeError, match="RICH.*rich.is.tue"):
        next(rich.read(tmp_path / "none"))
    write(tmp_path)
    (tmp_path / "body_models").rename(tmp_path / "elsewhere")
    with pytest.raises(NativeError, match="SMPLX_FEMALE.npz.*SMPL-X.*licensed"):
        list(rich.read(tmp_path))
    assert len(list(rich.read(tmp_path, models=tmp_path / "elsewhere/smplx", sequences="Gym*"))) == 6


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: rich.read(root), tmp_path, n=200 if nightly else 10)
