"""Poses from a picture with an exported model and nothing of torch: numpy, OpenCV and onnxruntime.

    acae-nb export MODEL_FOLDER -o crop.onnx
    python examples/onnx_pose.py crop.onnx picture.jpg --box 120 40 200 400 [--format h36m_25] [--overlay out.jpg]

The box is left, top, width, height in px. Without a calibrated camera the picture's longer
side is taken to span 55 degrees.
Prints one line a joint: x, y, z in mm (camera: x right, y down, z forward) and u, v in px.
"""

import argparse
import json

import cv2
import numpy as np
import onnxruntime


def picture_camera(width, height, degrees=55.0):
    "Intrinsics of a picture of unknown origin, principal point in its middle (integer coordinates at pixel centres)."
    focal = max(width, height) / 2 / np.tan(np.deg2rad(degrees) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def crop_camera(K, box, size):
    "Rotation (picture camera -> crop camera) and intrinsics of the camera that looks at the middle of the box,"
    "upright, so that the crop covers the box."
    left, top, width, height = box
    points = np.array(
        [
            [left + width / 2, top + height / 2],
            [left, top + height / 2],
            [left + width, top + height / 2],
            [left + width / 2, top],
            [left + width / 2, top + height],
        ]
    )
    rays = np.c_[points, np.ones(5)] @ np.linalg.inv(K).T
    z = rays[0] / np.linalg.norm(rays[0])
    x = np.cross(z, [0, -1, 0])
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    sides = rays[1:] @ R.T
    focal = size / 2 / np.linalg.norm(sides[:, :2] / sides[:, 2:], axis=1).max()
    return R, np.array([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])


def estimate(session, facts, image, box, K):
    "Joints [J, 3] in mm of the picture's camera frame, averaged over the crop and its mirror image, and their pixels"
    "[J, 2]."
    size = facts["size"]
    R, crop_K = crop_camera(K, box, size)
    shrink = max(1.0, K[0, 0] / crop_K[0, 0])
    if shrink > 1:
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt(shrink**2 - 1) + 1e-3)  # against aliasing
    crop = cv2.warpPerspective(
        image, K @ R.T @ np.linalg.inv(crop_K), (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    images = np.stack([crop, crop[:, ::-1]]).transpose(0, 3, 1, 2)
    (joints,) = session.run(
        ["joints"],
        {"images": np.ascontiguousarray(images), "intrinsics": np.stack([crop_K, crop_K]).astype(np.float32)},
    )
    joints = (joints[0] + joints[1][facts["mirror"]] * [-1, 1, 1]) / 2
    joints = joints @ R
    return joints, (joints / joints[:, 2:]) @ K[:2].T


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("--box", type=float, nargs=4, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"))
    parser.add_argument("--format", help="one skeleton format (default: all joints)")
    parser.add_argument("--overlay", help="picture to write")
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["acae_nb"])
    image = cv2.imread(arguments.picture)
    if image is None:
        raise SystemExit(f"{arguments.picture}: expected a picture, found none")
    if arguments.format not in (None, *facts["formats"]):
        raise SystemExit(f"--format: expected one of {', '.join(facts['formats'])}, found {arguments.format}")
    height, width = image.shape[:2]
    joints, px = estimate(
        session, facts, image[..., ::-1], arguments.box or (0, 0, width, height), picture_camera(width, height)
    )
    rows = facts["formats"][arguments.format]["indices"] if arguments.format else range(len(joints))
    for i in rows:
        print(f"{facts['joints'][i]:40s}" + "".join(f"{v:10.1f}" for v in (*joints[i], *px[i])))
    if arguments.overlay:
        for name in [arguments.format] if arguments.format else facts["formats"]:
            at = px[facts["formats"][name]["indices"]].round().astype(int)
            for a, b in facts["formats"][name]["edges"]:
                cv2.line(image, at[a].tolist(), at[b].tolist(), (40, 40, 220), 2, cv2.LINE_AA)
        cv2.imwrite(arguments.overlay, image)


if __name__ == "__main__":
    main()
