"""What the writers of native layouts put into files, read by other libraries as the owners of the data sets say.

Each reader here gives, for a written collection, the pictures by their names in detections.csv and where the joints are
seen in them, in px: by NumPy, SciPy, OpenCV, PyAV and ezc3d alone.
"""

import csv
import json
from pathlib import Path

import av
import cv2
import ezc3d
import numpy as np
import pytest
from layout_tables import table
from scipy.io import loadmat

from acae_nb.people.native_layouts import store_native


def load(path):
    return json.loads(Path(path).read_text("utf-8"))


def seen(points, rotation_vector, shift, inner, lens=None):
    """OpenCV's projection of world points [J, 3], NaN where there is none."""
    points, lens = np.asarray(points, float), np.zeros(4) if lens is None else np.asarray(lens, float)
    known = np.isfinite(points).all(-1)
    px = np.full((len(points), 2), np.nan)
    inner, shift = np.asarray(inner, float), np.asarray(shift, float).reshape(3, 1)
    px[known] = cv2.projectPoints(points[known], np.asarray(rotation_vector, float), shift, inner, lens)[0][:, 0]
    return px


def image(path):
    return cv2.imread(str(path))[..., ::-1]


def only_frame(path):
    with av.open(str(path)) as file:
        [frame] = file.decode(video=0)
        return frame.to_ndarray(format="rgb24")


def mpii(root):
    """RELEASE.annolist(i).annorect.annopoints.point: x, y from 1, id 0 .. 15."""
    release = loadmat(root / "mpii_human_pose_v1_u12_1.mat", squeeze_me=True, struct_as_record=False)["RELEASE"]
    assert release.img_train.tolist() == [1] * len(release.annolist)
    for entry in release.annolist:
        px = np.full((16, 2), np.nan)
        for point in entry.annorect.annopoints.point:
            px[int(point.id)] = point.x - 1, point.y - 1
        name = f"images/{entry.image.name}"
        yield name, image(root / name), px


def posetrack(root):
    """images, annotations and categories as COCO's, a file a video; 17 times x, y, marked."""
    [path] = (root / "posetrack_data/annotations/train").iterdir()
    data = load(path)
    assert path.stem.startswith("000001_") and path.stem.endswith("_train")
    assert data["categories"][0]["keypoints"][:5] == ["nose", "head_bottom", "head_top", "left_ear", "right_ear"]
    files = {entry["id"]: entry for entry in data["images"]}
    assert len(files) == len(data["images"]) == data["images"][0]["nframes"]
    assert len({(entry["image_id"], entry["track_id"]) for entry in data["annotations"]}) == len(data["annotations"])
    for entry in data["annotations"]:
        x, y, marked = np.reshape(entry["keypoints"], (17, 3)).T
        name = files[entry["image_id"]]["file_name"]
        assert name.split("/")[:3] == ["images", "train", path.stem]
        yield name, image(root / name), np.where(marked[:, None] > 0, np.c_[x, y], np.nan)


def gpa(root):
    """joint_cams [3, 34] mm in the camera's frame, f and c in px."""
    data = load(root / "xyz_gpa12_mdp_cntind_crop_cam_c2g.json")
    for entry, labels in zip(data["images"], data["annotations"], strict=True):
        x, y, z = np.array(labels["joint_cams"])
        (fx, fy), (cx, cy) = labels["f"], labels["c"]
        yield entry["file_name"], image(root / entry["file_name"]), np.c_[fx * x / z + cx, fy * y / z + cy]


def behave(root):
    """x_world = rotation x_camera + translation, m; the lens is opencv[4:] in OpenCV's order."""
    for sequence in load(root / "split.json")["train"]:
        folder = root / "sequences" / sequence
        info = load(folder / "info.json")
        [snapshot] = (path for path in folder.iterdir() if path.is_dir())
        joints = np.reshape(load(snapshot / "person/person_J3d.json")["body_joints3d"], (25, 4))
        points = np.where(joints[:, 3:] > 0, joints[:, :3], np.nan)
        for k in info["kinects"]:
            pose = load(folder / info["config"] / f"{k}/config.json")
            color = load(folder / info["intrinsic"] / f"{k}/calibration.json")["color"]
            R, t = np.reshape(pose["rotation"], (3, 3)), np.array(pose["translation"])
            inner = [[color["fx"], 0, color["cx"]], [0, color["fy"], color["cy"]], [0, 0, 1]]
            picture = snapshot / f"k{k}.color.jpg"
            shown = image(picture)
            assert cv2.imread(str(snapshot / f"k{k}.person_mask.png"), 0).shape == shown.shape[:2]
            assert shown.shape[1::-1] == (color["width"], color["height"])
            px = seen(points, cv2.Rodrigues(R.T)[0], -R.T @ t, inner, color["opencv"][4:])
            yield picture.relative_to(root).as_posix(), shown, px


def humbi(root):
    """Blocks of four lines for K and of five for place and R, after three lines; 25 joints, m."""
    for body in sorted(root.glob("subject_*/body")):
        inner = [line.split() for line in (body / "intrinsic.txt").read_text().splitlines()[3:]]
        outer = [line.split() for line in (body / "extrinsic.txt").read_text().splitlines()[3:]]
        cameras = {
            int(inner[4 * c][1]): (np.array(inner[4 * c + 1 : 4 * c + 4], float), np.array(outer[5 * c + 1], float))
            + (np.array(outer[5 * c + 2 : 5 * c + 5], float),)
            for c in range(len(inner) // 4)
        }
        for picture in sorted(body.glob("*/image/image*.jpg")):
            K, place, R = cameras[int(picture.stem.removeprefix("image"))]
            points = np.loadtxt(picture.parents[1] / "reconstruction/keypoints.txt")
            points[~points.any(-1)] = np.nan
            px = seen(points, cv2.Rodrigues(R)[0], -R @ place, K)
            yield picture.relative_to(root).as_posix(), image(picture), px


def human4d(root):
    """Image i shows pose i - offset; three lines of rotation to the world and one of the place, mm; 33 points."""
    for dump in sorted(root.glob("S?/*/Dump")):
        subject, recording = dump.parents[1], dump.parent.name
        repository = {entry["Device"]: entry for entry in load(subject / "device_repository.json")}
        lines = [line.split("\t") for line in (subject / "offsets.txt").read_text().splitlines()]
        [offset] = [int(words[1]) for words in lines if words[0] == recording]
        for picture in sorted((dump / "color").iterdir()):
            number, device, kind, _ = picture.stem.split("_")
            [points] = np.load(dump / f"gposes3d/{int(number) - offset}.npy")
            assert kind == "color" and np.array_equal(points[15], points[9], equal_nan=True)
            pose = np.loadtxt(subject / f"pose/{device}.extrinsics")
            K = np.reshape(repository[device]["Color Intrinsics"][0]["1280x720"], (3, 3))
            assert (np.reshape(repository[device]["Color Depth Rotation"], (3, 3)) == np.eye(3)).all()
            px = seen(np.delete(points, 15, 0), cv2.Rodrigues(pose[:3].T)[0], -pose[:3].T @ pose[3], K)
            yield picture.relative_to(root).as_posix(), image(picture), px


def aspset(root):
    """splits.csv; flat matrices of 3 x 4 and 4 x 4; C3D files of mm."""
    with open(root / "splits.csv", newline="") as file:
        clips = list(csv.reader(file))
    for subject, clip, split, camera in clips:
        assert split == "train" and camera in ("mid", "right")  # the left one is the world
        name = f"{subject}/{subject}-{clip}"
        c3d = ezc3d.c3d(str(root / f"trainval/joints_3d/{name}.c3d"))
        assert c3d["parameters"]["POINT"]["UNITS"]["value"] == ["mm"]
        assert c3d["parameters"]["POINT"]["LABELS"]["value"][-1] == "pelvis"
        points = c3d["data"]["points"][:3, :, 0].T
        matrices = load(root / f"trainval/cameras/{subject}/{subject}-{camera}.json")
        K, E = (np.reshape(matrices[f"{part}_matrix"], (-1, 4)) for part in ("intrinsic", "extrinsic"))
        video = f"trainval/videos/{name}-{camera}.mkv"
        px = seen(points, cv2.Rodrigues(E[:3, :3])[0], E[:3, 3], K[:, :3])
        [box] = np.loadtxt(root / f"trainval/boxes/{name}-{camera}.csv", delimiter=",", skiprows=1, ndmin=2)
        assert (box[2:] > box[:2]).all()
        yield f"{video}#0", only_frame(root / video), px


def mads(root):
    """The Matlab toolbox's KK, kc, om_ext and T_ext; GTpose2, a cell a frame."""
    for path in sorted(root.glob("multi_view_data/*/*_C?.avi")):
        sequence, camera = path.stem[:-3], path.stem[-1]
        [pose] = loadmat(path.with_name(f"{sequence}_GT.mat"))["GTpose2"].ravel()
        view = loadmat(path.with_name(f"Calib_Cam{camera}.mat"))
        assert view["om_ext"].shape == view["T_ext"].shape == (3, 1) and view["kc"].shape == (5, 1)
        px = seen(pose, view["om_ext"], view["T_ext"], view["KK"], view["kc"])
        yield f"{path.relative_to(root).as_posix()}#0", only_frame(path), px


@pytest.mark.parametrize("read", [mpii, posetrack, gpa, behave, humbi, human4d, aspset, mads])
def test_other_libraries_see_the_same_people_in_the_same_pictures(read, tmp_path):
    before = table(tmp_path / "set", read.__name__)
    folder = store_native(tmp_path / "set", read.__name__)
    with open(folder / "detections.csv", newline="") as file:
        boxes = {line["picture"]: float(line["height"]) for line in csv.DictReader(file)}
    rows = list(read(folder))
    assert sorted(name for name, *_ in rows) == sorted(boxes)
    by_height = {before[k].box[3]: k for k in range(len(before))}
    for name, shown, px in rows:
        k = by_height[boxes[name]]
        old = before[k]
        expected = old.camera.project(old.joints3d) if old.joints2d is None else old.joints2d
        np.testing.assert_allclose(px, expected, atol=0.01)
        assert abs(shown.astype(int) - before.image(k)).mean() < 2.5
