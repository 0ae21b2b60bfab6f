"""A small made-up scene for the writers of native formats: people, cameras round them, pictures and videos. Knows
nothing of acae_nb."""

from pathlib import Path

import av
import cv2
import ezc3d
import numpy as np


def people(seed, *shape, n_joints, height=1700.0, up=2, centre=(0, 0, 0)):
    """Joints mm [*shape, n_joints, 3] of bodies about `height` tall that stand at `centre`, `up` is the index of the
    upward axis."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-350, 350, (*shape, n_joints, 3))
    x[..., up] = rng.uniform(0, height, (*shape, n_joints))
    return x + np.asarray(centre, float)


def look_at(position, target, up):
    "Rotation world -> camera (x right, y down, z forward) of a camera at `position` that looks at `target`."
    z = np.asarray(target, float) - position
    z /= np.linalg.norm(z)
    x = np.cross(z, np.asarray(up, float))
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def ring(n, radius=4000.0, height=1500.0, target=(0, 0, 900), up=(0, 0, 1), turn=0.3):
    "Positions mm [n, 3] and rotations [n, 3, 3] of cameras in a circle round the upward axis, all looking at `target`."
    up = np.asarray(up, float)
    a = np.eye(3)[np.abs(up).argmin()]
    a -= up * (a @ up)
    a /= np.linalg.norm(a)
    b, angles = np.cross(up, a), turn + 2 * np.pi * np.arange(n) / n
    places = radius * (np.cos(angles)[:, None] * a + np.sin(angles)[:, None] * b) + height * up
    return places, np.stack([look_at(p, target, up) for p in places])


def opencv_project(points, intrinsics, distortion, rotation, position):
    "OpenCV's own projection: px [..., 2] of world points mm [..., 3]."
    points = np.asarray(points, float)
    camera = (points.reshape(-1, 3) - position) @ np.asarray(rotation).T
    px = cv2.projectPoints(
        camera, np.zeros(3), np.zeros(3), np.asarray(intrinsics, float), np.asarray(distortion, float)
    )[0]
    return px.reshape(*points.shape[:-1], 2)


def picture(number, size):
    "A smooth RGB picture [h, w, 3] whose mean red value tells its number."
    w, h = size
    x, y = np.meshgrid(np.linspace(0, 60, w), np.linspace(0, 60, h))
    return np.stack([np.full_like(x, 20 + 12 * (number % 18)), 60 + x, 60 + y], -1).astype(np.uint8)


def shows(image, number):
    "Whether a decoded image is `picture(number)`."
    return abs(float(image[..., 0].mean()) - (20 + 12 * (number % 18))) < 6


def holds(box, px, size):
    "Whether the box (left, top, width, height) has all points px in it that lie in a picture of that size, to 1 px."
    seen = px[~np.isnan(px).any(-1)]
    seen = seen[((seen > 0) & (seen < size)).all(-1)]
    left, top, width, height = box
    return (seen > [left - 1, top - 1]).all() and (seen < [left + width + 1, top + height + 1]).all()


def write_c3d(path, points, rate=100.0):
    "A C3D file of points mm [T, n, 3], by the library ezc3d."
    path.parent.mkdir(parents=True, exist_ok=True)
    file = ezc3d.c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [rate]
    file["parameters"]["POINT"]["LABELS"]["value"] = tuple(f"M{i:03d}" for i in range(points.shape[1]))
    data = np.ones((4, points.shape[1], len(points)))
    data[:3] = points.transpose(2, 1, 0)
    file["data"]["points"] = data
    file.write(str(path))


def write_image(path, image):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def write_video(path, images, fps=50):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "ultrafast"})
        stream.width, stream.height = images[0].shape[1::-1]
        stream.pix_fmt = "yuv420p"
        for image in images:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
