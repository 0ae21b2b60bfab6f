"""CMU Panoptic: two tiny sequences in the owners' layout, written here, read back, and damaged."""

import json
import shutil

import numpy as np
import pytest
from mutations import check_mutations
from native_scene import opencv_project, people, picture, ring, shows, write_image, write_video

from acae_nb.datasets import cmu_panoptic, native
from acae_nb.datasets.native_files import NativeError

SIZE = (96, 64)  # the real ones are 1920 x 1080 px
K = [[70.0, 0.0, 47.0], [0.0, 71.0, 31.0], [0.0, 0.0, 1.0]]
LENS = [-0.21, 0.12, 0.002, -0.001, 0.01]  # k1 k2 p1 p2 k3
SEQUENCES = {"171204_pose1": "images", "160906_band1": "videos"}
FRAMES = {"171204_pose1": (120, 121), "160906_band1": (0, 1, 2)}


def write(root):
    """README.md of the panoptic-toolbox: SEQUENCE/calibration_SEQUENCE.json,
    hdPose3d_stage1_coco19/body3DScene_FRAME8.json, and either hdImgs/00_CC/00_CC_FRAME8.jpg or hdVideos/hd_00_CC.mp4.
    Centimetres, y down, x = K (R X + t)."""
    truth = {}
    for s, (sequence, kind) in enumerate(SEQUENCES.items()):
        folder = root / sequence
        places, turns = ring(
            2, 420.0, 150.0, target=(0, 90, 0), up=(0, 1, 0), turn=0.5 + s
        )  # cm, in a world with y up ...
        down = np.diag([1.0, -1.0, -1.0])  # ... turned into the dome's
        places, turns = places @ down, turns @ down
        cameras = [
            dict(
                name="01_01",
                type="vga",
                resolution=[640, 480],
                panel=1,
                node=1,
                K=K,
                distCoef=LENS,
                R=np.eye(3).tolist(),
                t=[[0], [0], [0]],
            ),
            dict(
                name="50_01",
                type="kinect-color",
                resolution=[1920, 1080],
                panel=50,
                node=1,
                K=K,
                distCoef=LENS,
                R=np.eye(3).tolist(),
                t=[[0], [0], [0]],
            ),
        ]
        for c, (place, turn) in enumerate(zip(places, turns)):
            cameras.append(
                dict(
                    name=f"00_{c:02d}",
                    type="hd",
                    resolution=list(SIZE),
                    panel=0,
                    node=c,
                    K=K,
                    distCoef=LENS,
                    R=turn.tolist(),
                    t=(-turn @ place)[:, None].tolist(),
                )
            )
            if kind == "videos":
                write_video(folder / f"hdVideos/hd_00_{c:02d}.mp4", [picture(f + c, SIZE) for f in range(4)])
        folder.mkdir(exist_ok=True)
        (folder / f"calibration_{sequence}.json").write_text(
            json.dumps({"calibDataSource": "tiny", "cameras": cameras}), encoding="utf-8"
        )
        for f in FRAMES[sequence]:
            bodies = []
            for person in range(2):
                cm = people(10 * s + person, n_joints=19, height=170, up=1, centre=(60 * person, 0, 0)) * [
                    0.1,
                    -1,
                    -0.1,
                ] + [0, 0, f % 7]
                sure = np.full(19, 0.7)
                if person == 1:
                    sure[[16, 18]] = 0.1, -1.0  # ears not found
                bodies.append(dict(id=person + 3, joints19=np.c_[cm, sure].ravel().tolist()))
                world = np.where(sure[:, None] > 0.1, cm * 10, np.nan)
                for c, (place, turn) in enumerate(zip(places, turns)):
                    px = opencv_project(cm * 10, K, LENS, turn, place * 10)
                    truth[f"{sequence}/00_{c:02d}/{f:08d}/{person + 3}"] = (
                        world,
                        np.where(sure[:, None] > 0.1, px, np.nan),
                        f + c,
                    )
                    if kind == "images":
                        write_image(folder / f"hdImgs/00_{c:02d}/00_{c:02d}_{f:08d}.jpg", picture(f + c, SIZE))
            scene = folder / "hdPose3d_stage1_coco19" / ("hd" if kind == "videos" else "") / f"body3DScene_{f:08d}.json"
            scene.parent.mkdir(parents=True, exist_ok=True)
            scene.write_text(
                json.dumps(dict(version=0.7, univTime=1.5, fpsType="hd_29_97", bodies=bodies)), encoding="utf-8"
            )
    return truth


def test_reads_what_was_written(tmp_path):
    truth, rows = write(tmp_path), list(cmu_panoptic.read(tmp_path, "val"))
    assert {e.example_id for e, _ in rows} == set(truth) and len(rows) == 2 * 2 * 2 + 3 * 2 * 2
    for e, image in rows:
        world, px, number = truth[e.example_id]
        np.testing.assert_allclose(e.joints3d, world, atol=0.01)
        np.testing.assert_allclose(e.camera.project(e.joints3d), px, atol=0.1)
        assert (e.dataset, e.split, e.image_size, image.size) == (
            "cmu_panoptic",
            "val",
            SIZE,
            SIZE,
        ) and e.subject == f"{e.sequence}/{e.example_id[-1]}"
        assert (
            e.camera.world_up.tolist() == [0, -1, 0]
            and (e.joints3d[:, 1] > -1800).sum() + np.isnan(e.joints3d[:, 1]).sum() == 19
        )
        inside = px[((px > -0.5) & (px < np.array(SIZE) - 0.5)).all(1)]
        left, top, width, height = e.box
        assert (
            (inside >= [left, top]).all()
            and (inside <= [left + width, top + height]).all()
            and left >= -0.5
            and top + height <= SIZE[1] - 0.5
        )
    for e, image in rows[::5]:
        assert shows(image.load(), truth[e.example_id][2])
    assert [e.example_id for e, _ in rows][:4] == [
        "160906_band1/00_00/00000000/3",
        "160906_band1/00_00/00000000/4",
        "160906_band1/00_00/00000001/3",
        "160906_band1/00_00/00000001/4",
    ]


def test_choices(tmp_path):
    write(tmp_path)
    ids = [
        e.example_id
        for e, _ in cmu_panoptic.read(tmp_path, sequences="17*", cameras=["00_01"], without=["171204_pose1/00000121"])
    ]
    assert ids == ["171204_pose1/00_01/00000120/3", "171204_pose1/00_01/00000120/4"]
    assert not any(
        "00_01" in e.example_id
        for e, _ in cmu_panoptic.read(tmp_path, without=["171204_pose1/00_01", "160906_band1/00_01"])
    )
    shutil.rmtree(tmp_path / "160906_band1/hdPose3d_stage1_coco19")  # some sequences were never given poses
    with pytest.raises(NativeError, match="160906_band1.*CMU Panoptic"):
        list(cmu_panoptic.read(tmp_path))
    assert {e.sequence for e, _ in cmu_panoptic.read(tmp_path, without=["160906_band1"])} == {"171204_pose1"}


def test_poses_past_the_end_of_a_video(tmp_path, monkeypatch):
    write(tmp_path)
    folder = tmp_path / "160906_band1"
    write_video(folder / "hdVideos/hd_00_01.mp4", [picture(f % 7, SIZE) for f in range(120)])
    scenes = folder / "hdPose3d_stage1_coco19/hd"

    def read():
        rows = cmu_panoptic.read(tmp_path, sequences="16*", cameras=["00_01"])
        return [e.frame for e, image in rows if image.load() is not None], rows.left_out

    shutil.copy(scenes / "body3DScene_00000002.json", scenes / "body3DScene_00000119.json")
    shutil.copy(scenes / "body3DScene_00000002.json", scenes / "body3DScene_00000120.json")
    with pytest.raises(NativeError, match="hd_00_01.mp4: rows: .*2 of 10, the first: frame 120: .*one of the 120"):
        read()
    monkeypatch.setattr(native, "MOST_BROKEN", 0.2)
    frames, left_out = read()
    assert frames == [0, 0, 1, 1, 2, 2, 119, 119] and left_out.count == 2


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["cameras"][2].update(type="vga"), ["cameras/2", "panel 0"]),
        (lambda c: c["cameras"][2].update(K=[[0, 0, 1]] * 3), ["camera 00_00", "intrinsics"]),
        (lambda c: c["cameras"][2].update(t=[1, 2]), ["cameras/2/t", "shape"]),
        (lambda c: c["cameras"][3].pop("distCoef"), ["cameras/3/distCoef", "no such key"]),
        (lambda c: c["cameras"].pop(), ["00_01", "hdVideos" if False else "cameras"]),
        (lambda c: c["cameras"][2].update(resolution=[640, 480]), ["size", "(640, 480)"]),
        (lambda c: c["cameras"][2].update(t=[[float("nan")]] * 3), ["camera 00_00", "position", "finite"]),
    ],
)
def test_wrong_calibrations_are_named(tmp_path, change, words):
    write(tmp_path)
    path = tmp_path / "171204_pose1/calibration_171204_pose1.json"
    data = json.loads(path.read_text("utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(NativeError) as e:
        list(cmu_panoptic.read(tmp_path, sequences="17*"))
    assert all(w in str(e.value) for w in words), e.value


def test_absent(tmp_path):
    with pytest.raises(NativeError, match="CMU Panoptic.*getData.sh"):
        next(cmu_panoptic.read(tmp_path / "none"))
    write(tmp_path)
    with pytest.raises(NativeError, match="cameras.*00_30"):
        list(cmu_panoptic.read(tmp_path, cameras=["00_30"]))


def test_mutations(tmp_path, nightly):
    check_mutations(write, lambda root: cmu_panoptic.read(root), tmp_path, n=200 if nightly else 10)
