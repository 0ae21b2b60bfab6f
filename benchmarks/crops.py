"""Training crops per second and core: `make_crop` beside the same crop from plain OpenCV and numpy calls.

    python benchmarks/crops.py [--count 300] [--size 256] [--stored 384]

Full training augmentation, from JPEG bytes to a uint8 crop with camera and joints, on one thread. The baseline does
what a straightforward data loader does: a full map in numpy and cv2.remap (with and without 2 x 2 supersampling, its
antialiasing), the colours one operation after the other in float and through HSV, objects blended in numpy. Prints the
ratio, and where the time goes."""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import cv2
import numpy as np

from acae_nb.examples.crops import (
    NO_AUGMENTATION,
    Augmentation,
    blob_objects,
    colour_matrix,
    draw_camera,
    make_crop,
    occlude,
    warp_image,
)
from acae_nb.examples.tables import Example, decode_jpeg, encode_jpeg
from acae_nb.geometry.cameras import Camera, project_points
from acae_nb.skeletons.joints import load_skeleton


def stored_example(size, distortion):
    "A picture with detail at every scale, and a person of random joints in its middle."
    rng = np.random.default_rng(0)
    image = sum(
        cv2.resize(rng.normal(0, 28, (n, n, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
        for n in (3, 9, 30, 90, size)
    )
    image = (image + 120).clip(0, 255).astype(np.uint8)
    camera = Camera(np.array([[1.6 * size, 0, size / 2], [0, 1.6 * size, size / 2], [0, 0, 1]]), np.array(distortion))
    joints = (rng.normal(0, 200, (17, 3)) + (0, 0, 4000)).astype(np.float32)
    box = np.array([size / 3, size / 6, size / 3, size * 2 / 3])
    return Example("e", "d", "train", "s", "q", 0, camera, box, (size, size), joints), encode_jpeg(image)


def baseline_crop(example, image, skeleton, size, augmentation, rng, supersample):
    "The same crop by the book."
    a, fine = augmentation, size * supersample
    camera = draw_camera(example.camera, example.box, size, augmentation, rng)
    x, y = np.meshgrid((np.arange(fine) + 0.5) / supersample - 0.5, (np.arange(fine) + 0.5) / supersample - 0.5)
    rays = (
        np.stack([x, y, np.ones_like(x)], -1)
        @ (example.camera.rotation @ camera.rotation.T @ np.linalg.inv(camera.intrinsics)).T
    )
    px = project_points(rays, example.camera.intrinsics, example.camera.distortion).astype(np.float32)
    pixels = cv2.remap(image, px[..., 0], px[..., 1], cv2.INTER_LINEAR)
    if supersample > 1:
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
    joints3d = camera.to_camera(example.joints3d)
    if rng.random() < a.flip:
        pixels, joints3d = pixels[:, ::-1].copy(), joints3d[list(skeleton.mirror)] * (-1, 1, 1)
    if rng.random() < a.occlusion:
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, a.objects + 1)):
                w = int(size * rng.uniform(0.1, 0.5))
                picture = cv2.resize(blob_objects()[rng.integers(32)], (w, w)).astype(np.float32)
                x0, y0 = rng.integers(0, size - w, 2)
                alpha, under = picture[..., 3:] / 255, pixels[y0 : y0 + w, x0 : x0 + w]
                under[:] = (picture[..., :3] * alpha + under * (1 - alpha)).astype(np.uint8)
        else:
            w, h = rng.integers(size // 8, size // 2, 2)
            x0, y0 = rng.integers(0, size - w), rng.integers(0, size - h)
            pixels[y0 : y0 + h, x0 : x0 + w] = rng.integers(0, 256, (h, w, 3))
    values = pixels.astype(np.float32) / 255
    for part in rng.permutation(4):
        if part == 0:
            values = (values + rng.uniform(-a.brightness, a.brightness)).clip(0, 1)
        elif part == 1:
            mean = values.mean((0, 1))
            values = (
                (mean + (values - mean) * rng.uniform(1 - a.contrast, 1 + a.contrast)).clip(0, 1).astype(np.float32)
            )
        else:
            hsv = cv2.cvtColor(values.astype(np.float32), cv2.COLOR_RGB2HSV)
            if part == 2:
                hsv[..., 0] = (hsv[..., 0] + rng.uniform(-a.hue_deg, a.hue_deg)) % 360
            else:
                hsv[..., 1] = (hsv[..., 1] * rng.uniform(1 - a.saturation, 1 + a.saturation)).clip(0, 1)
            values = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return (values * 255).astype(np.uint8), joints3d


def rate(make, count):
    "Calls a CPU-second, after a warm-up."
    for i in range(10):
        make(i)
    start = time.process_time()
    for i in range(count):
        make(i)
    return count / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--stored", type=int, default=384)
    o = parser.parse_args()
    cv2.setNumThreads(1)
    skeleton, full, rng = load_skeleton("h36m_17"), Augmentation(), np.random.default_rng
    for name, distortion in (("stored crop (no distortion)", []), ("frame with a lens", [-0.1, 0.02, 0.001, 0.001])):
        example, jpeg = stored_example(o.stored, distortion)
        rates = {
            "acae_nb": rate(lambda i: make_crop(example, decode_jpeg(jpeg), skeleton, o.size, full, rng(i)), o.count)
        }
        for s in (1, 2):
            rates[f"baseline, {s} x {s} samples"] = rate(
                lambda i: baseline_crop(example, decode_jpeg(jpeg), skeleton, o.size, full, rng(i), s), o.count // 3
            )
        print(f"\n{name}: {o.stored} px JPEG of {len(jpeg) / 1000:.0f} kB -> {o.size} px, full augmentation, one core")
        for method, value in rates.items():
            print(f"  {method:26s} {value:7.0f} crops/s   ratio to acae_nb {value / rates['acae_nb']:.2f}")
        image = decode_jpeg(jpeg)
        crop = make_crop(example, image, skeleton, o.size, NO_AUGMENTATION).image
        cameras = [draw_camera(example.camera, example.box, o.size, full, rng(i)) for i in range(64)]
        parts = {
            "decode": lambda i: decode_jpeg(jpeg),
            "camera": lambda i: draw_camera(example.camera, example.box, o.size, full, rng(i)),
            "warp": lambda i: warp_image(image, example.camera, cameras[i % 64], o.size),
            "colour": lambda i: cv2.transform(crop, colour_matrix(np.array(cv2.mean(crop)[:3]), full, rng(i))),
            "occlusion (half the crops)": lambda i: occlude(crop.copy(), full, rng(i)) if i % 2 else None,
        }
        milliseconds = {part: 1000 / rate(work, o.count) for part, work in parts.items()}
        total = 1000 / rates["acae_nb"]
        milliseconds["joints, flip, rest"] = max(0.0, total - sum(milliseconds.values()))
        print("  " + ", ".join(f"{part} {t:.2f} ms ({100 * t / total:.0f} %)" for part, t in milliseconds.items()))


if __name__ == "__main__":
    main()
