"""ASPset-510: a tiny set of clips in the owners' layout, written here, read back, and damaged."""

import json

import ezc3d
import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_video

from acae_nb.datasets import aspset
from acae_nb.datasets.native_files import NativeError

SIZE, N = (96, 64), 3
CLIPS = {
    ("04ac", "0026"): ("train", "all"),
    ("8a59", "0003"): ("train", "mid"),
    ("1e28", "0011"): ("val", "right"),
    ("e1a4", "0001"): ("test", "all"),
}


def write(root):
    """splits.csv; {trainval,test}/{videos,joints_3d,cameras,boxes}/SUBJECT/..., flat row-major matrices, boxes left top
    right bottom."""
    truth = {}
    (root / "splits.csv").write_text(
        "".join(f"{s},{c},{split},{camera}\n" for (s, c), (split, camera) in CLIPS.items()), encoding="utf-8"
    )
    for i, ((subject, clip), (split, camera)) in enumerate(CLIPS.items()):
        part = root / ("test" if split == "test" else "trainval")
        world = people(i, N, n_joints=17, up=1) * [1, -1, 1] + [0, 900, 6000]
        if i == 0:
            world[1, 3] = np.nan
        c3d = ezc3d.c3d()
        c3d["parameters"]["POINT"]["RATE"]["value"] = [50]
        c3d["parameters"]["POINT"]["LABELS"]["value"] = [f"joint{j}" for j in range(17)]
        c3d["data"]["points"] = np.concatenate([world, np.ones((N, 17, 1))], -1).transpose(2, 1, 0)
        for name in ("joints_3d", "cameras", "boxes"):
            (part / name / subject).mkdir(parents=True, exist_ok=True)
        c3d.write(str(part / f"joints_3d/{subject}/{subject}-{clip}.c3d"))
        places, turns = ring(3, 4000.0, 300.0, target=(0, 0, 6000), up=(0, -1, 0), turn=i)
        for k, name in enumerate(("left", "mid", "right")):
            if camera not in ("all", name):
                continue
            place, turn = (np.zeros(3), np.eye(3)) if name == "left" else (places[k] + [0, 0, 6000], turns[k])
            if name != "left":
                z = np.array([0, 0, 6000]) - place
                z /= np.linalg.norm(z)
                x = np.cross([0, 1, 0], z)
                x /= np.linalg.norm(x)
                turn = np.stack([x, np.cross(z, x), z])
            K = np.array([[110.0 + k, 0, 47], [0, 109, 30], [0, 0, 1]])
            (part / f"cameras/{subject}/{subject}-{name}.json").write_text(
                json.dumps(
                    dict(
                        intrinsic_matrix=np.c_[K, np.zeros(3)].ravel().tolist(),
                        extrinsic_matrix=np.vstack([np.c_[turn, -turn @ place], [0, 0, 0, 1]]).ravel().tolist(),
                    )
                ),
                encoding="utf-8",
            )
            boxes = np.array([[10.5 + f, 5, 60, 55.25] for f in range(N)])
            (part / f"boxes/{subject}/{subject}-{clip}-{name}.csv").write_text(
                "left,top,right,bottom\n" + "".join(",".join(map(str, b)) + "\n" for b in boxes), encoding="utf-8"
            )
            write_video(
                part / f"videos/{subject}/{subject}-{clip}-{name}.mkv", [picture(f + 4 * k, SIZE) for f in range(N)]
            )
            for f in range(N):
                px = opencv_project(world[f], K, np.zeros(5), turn, place)
                truth[f"{subject}-{clip}/{name}/{f:06d}"] = (
                    split,
                    world[f],
                    px,
                    [10.5 + f, 5, 49.5 - f, 50.25],
                    f + 4 * k,
                )
    return truth


@pytest.mark.parametrize("split, count", [("train", 12), ("val", 3), ("test", 9)])
def test_reads_what_was_written(tmp_path, split, count):
    truth, rows = write(tmp_path), list(aspset.read(tmp_path, split))
    assert {e.example_id for e, _ in rows} == {i for i, t in truth.items() if t[0] == split} and len(rows) == count
    for e, image in rows:
        _, world, px, box, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        np.testing.assert_allclose(e.box, box)
        assert (e.dataset, e.split, e.image_size, e.subject) == ("aspset", split, SIZE, e.example_id[:4]) and shows(
            image.load(), number
        )


@pytest.mark.parametrize(
    "name, old, new, words",
    [
        ("splits.csv", "04ac,0026,train,all", "04ac,0026,train,top", "splits.csv: line 1"),
        ("splits.csv", "8a59,0003,train,mid", "8a59,0003", "line 2: expected 4 entries"),
        (
            "trainval/boxes/04ac/04ac-0026-mid.csv",
            "11.5,",
            "x,",
            "04ac-0026-mid.csv: rows: .*line 3: expected 4 numbers",
        ),
        ("trainval/cameras/04ac/04ac-mid.json", "extrinsic", "extrin", "extrinsic_matrix"),
    ],
)
def test_damage_is_named(tmp_path, name, old, new, words):
    write(tmp_path)
    assert old in (tmp_path / name).read_text("utf-8")
    (tmp_path / name).write_text((tmp_path / name).read_text("utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(NativeError, match=words):
        list(aspset.read(tmp_path))


def test_lengths(tmp_path):
    "Frames of a video after the boxes are not read; boxes without a frame are refused."
    write(tmp_path)
    video = tmp_path / "trainval/videos/04ac/04ac-0026-mid.mkv"
    write_video(video, [picture(f + 4, SIZE) for f in range(N + 2)])
    assert len(list(aspset.read(tmp_path))) == 12
    write_video(video, [picture(f + 4, SIZE) for f in range(N - 1)])
    with pytest.raises(NativeError, match="04ac-0026-mid.mkv: rows: .*frame 2: expected one of the 2 frames"):
        list(aspset.read(tmp_path))
    boxes = tmp_path / "trainval/boxes/04ac/04ac-0026-left.csv"
    boxes.write_text(boxes.read_text("utf-8").rsplit("\n", 2)[0] + "\n", encoding="utf-8")
    with pytest.raises(NativeError, match="04ac-0026-left.csv: lines: expected .* 3, found 2"):
        list(aspset.read(tmp_path))


def test_absent(tmp_path):
    with pytest.raises(NativeError, match="ASPset-510.*archive.org"):
        next(aspset.read(tmp_path / "none"))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: aspset.read(root), tmp_path, n=200 if nightly else 10)
