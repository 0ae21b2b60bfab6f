"""Crops: the warped picture, the camera and the joints must tell the same story, whatever the augmentation."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from acae_nb.examples.crops import (
    NO_AUGMENTATION,
    Augmentation,
    blob_objects,
    colour_matrix,
    crop_joints,
    draw_camera,
    erase_rectangle,
    flip_crop,
    from_linear,
    make_crop,
    occlude,
    paste_object,
    store_crop,
    to_linear,
    warp_image,
)
from acae_nb.examples.tables import Example, decode_jpeg, decode_mask, encode_mask
from acae_nb.geometry.cameras import Camera, look_at_rotation, project_points
from acae_nb.skeletons.joints import load_skeleton

SKELETON = load_skeleton("h36m_17")
W, H = 320, 240
X, Y = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32))
LENSES = {
    "none": [],
    "radial": [-0.12, 0.02, 0, 0],
    "tangential": [-0.1, 0.01, 0.002, -0.001, 0.001],
    "twelve": [0.1, -0.05, 0.001, -0.001, 0.01, 0.2, -0.04, 0.005, 0.001, -0.0005, 0.0008, 0.0003],
}
GEOMETRY = replace(NO_AUGMENTATION, rotation_deg=20, scale=0.25, shift=0.1, flip=0.5)
NOISE = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def opencv_pixels(points, k, distortion):
    "Camera-frame points to px by OpenCV's lens model, which has no skew of its own."
    xy = cv2.projectPoints(np.asarray(points, float).reshape(-1, 3), np.zeros(3), np.zeros(3), np.eye(3), distortion)[
        0
    ][:, 0]
    return xy @ k[:2, :2].T + k[:2, 2]


def scene(seed, lens="none", focal=250.0):
    "A camera anywhere, and a person of random joints somewhere in its view."
    rng = np.random.default_rng(seed)
    camera = Camera(
        np.array([[focal, seed % 2 * 0.3, W / 2 + 3], [0, focal * 1.02, H / 2 - 5], [0, 0, 1]]),
        np.array(LENSES[lens]),
        look_at_rotation(rng.normal(0, [1, 0.2, 1]), [0, -1, 0]),
        rng.normal(0, 2000, 3),
    )
    centre = np.array([rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.25), 1]) * rng.uniform(3000, 6000)
    joints = camera.to_world(centre + rng.normal(0, 300, (17, 3)))
    px = camera.project(joints)
    low, high = px.min(0) - 4, px.max(0) + 4
    return Example(
        f"e{seed}", "d", "train", "s", "q", 0, camera, np.r_[low, high - low], (W, H), joints.astype(np.float32)
    )


@given(seed=st.integers(0, 10**6), lens=st.sampled_from(list(LENSES)), size=st.sampled_from([32, 64, 128, 200]))
@settings(max_examples=60, deadline=None)
def test_a_joint_warped_with_the_picture_is_the_joint_of_the_new_camera(seed, lens, size):
    """The picture holds its own x and y as brightness: where the crop's camera puts a joint, the crop must show the
    joint's place in the original. The tolerance is 0.1 px of the crop."""
    example, rng = scene(seed, lens), np.random.default_rng(seed)
    camera = draw_camera(example.camera, example.box, size, GEOMETRY, rng)
    ramps = [warp_image(ramp + 1000, example.camera, camera, size) - 1000 for ramp in (X, Y)]
    joints3d, joints2d = crop_joints(example, camera, 17)
    original = opencv_pixels(
        example.camera.to_camera(example.joints3d), example.camera.intrinsics, example.camera.distortion
    )
    zoom = camera.intrinsics[0, 0] / example.camera.intrinsics[0, 0]
    inside = ((joints2d > 2) & (joints2d < size - 3)).all(1) & (
        (original > 6 / zoom) & (original < (W - 6 / zoom, H - 6 / zoom)) & (original > 6) & (original < (W - 6, H - 6))
    ).all(1)
    at = joints2d[inside].astype(np.float32)
    seen = (
        np.stack([cv2.remap(r, at[:, :1], at[:, 1:], cv2.INTER_LINEAR)[:, 0] for r in ramps], -1)
        if len(at)
        else np.zeros((0, 2))
    )
    assert (np.abs(seen - original[inside]) * zoom).max(initial=0) < 0.1


@given(seed=st.integers(0, 10**6), lens=st.sampled_from(list(LENSES)))
@settings(max_examples=30, deadline=None)
def test_labels_in_2d_move_like_labels_in_3d(seed, lens):
    example = scene(seed, lens)
    flat = replace(example, joints3d=None, joints2d=example.camera.project(example.joints3d))
    one, two = (make_crop(e, NOISE, SKELETON, 64, GEOMETRY, np.random.default_rng(seed)) for e in (example, flat))
    np.testing.assert_allclose(two.joints2d, one.joints2d, atol=1e-2)
    assert np.isnan(two.joints3d).all() and (one.image == two.image).all()
    np.testing.assert_allclose(project_points(one.joints3d, one.camera.intrinsics), one.joints2d, atol=1e-3)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_flip_mirrors_image_and_joints_and_twice_is_identity(seed):
    example = scene(seed)
    plain, flipped = (
        make_crop(example, NOISE, SKELETON, 64, replace(GEOMETRY, flip=f), np.random.default_rng(seed)) for f in (0, 1)
    )
    assert flipped.flipped and not plain.flipped
    assert (flipped.image == plain.image[:, ::-1]).all()
    left, right = SKELETON.index("lkne"), SKELETON.index("rkne")
    np.testing.assert_allclose(flipped.joints3d[left], plain.joints3d[right] * (-1, 1, 1), rtol=1e-6)
    np.testing.assert_allclose(flipped.joints2d[left], (63, 0) + plain.joints2d[right] * (-1, 1), atol=1e-4)
    camera, joints3d, joints2d = flip_crop(flipped.camera, flipped.joints3d, flipped.joints2d, SKELETON, 64)
    np.testing.assert_array_equal(joints3d, plain.joints3d)
    np.testing.assert_allclose(joints2d, plain.joints2d, atol=1e-4)
    for f in fields(Camera):
        np.testing.assert_allclose(getattr(camera, f.name), getattr(plain.camera, f.name), atol=1e-9)
    # the flipped camera is an ordinary camera that sees the mirrored person upright
    np.testing.assert_allclose(
        flipped.camera.project(flipped.camera.to_world(flipped.joints3d.astype(float))), flipped.joints2d, atol=1e-2
    )
    np.testing.assert_allclose(abs(np.linalg.det(flipped.camera.rotation)), 1)


def test_no_augmentation_is_upright_centred_and_filled():
    example = scene(5)
    crop = make_crop(example, NOISE, SKELETON, 100)
    assert (
        crop.camera.rotation[0] @ crop.camera.world_up == pytest.approx(0, abs=1e-9)
        and crop.camera.rotation[1] @ crop.camera.world_up < 0
    )
    assert crop.camera.intrinsics[:2, 2].tolist() == [49.5, 49.5] and not crop.camera.distortion.any()
    spread = crop.joints2d.max(0) - crop.joints2d.min(0)
    assert 80 < spread.max() <= 100 and abs(crop.joints2d.max(0) + crop.joints2d.min(0) - 99).max() < 12


def test_a_crop_depends_on_its_generator_alone():
    example = scene(3)

    def state():
        return np.random.Generator(np.random.Philox(key=[1, 2]))

    one, two = (make_crop(example, NOISE, SKELETON, 64, Augmentation(), state()) for _ in range(2))
    assert (one.image == two.image).all() and (one.joints3d == two.joints3d).all()
    assert (make_crop(example, NOISE, SKELETON, 64, Augmentation(), np.random.default_rng(4)).image != one.image).any()


def test_unlabelled_joints_stay_nan_and_swap_with_a_flip():
    example = scene(2)
    joints = example.joints3d.copy()
    joints[SKELETON.index("lkne")] = np.nan
    for flip, name in ((0, "lkne"), (1, "rkne")):
        crop = make_crop(replace(example, joints3d=joints), NOISE, SKELETON, 64, replace(GEOMETRY, flip=flip))
        missing = np.isnan(crop.joints3d).any(1)
        assert (
            np.flatnonzero(missing).tolist() == [SKELETON.index(name)]
            and (np.isnan(crop.joints2d).any(1) == missing).all()
        )
    nothing = make_crop(replace(example, joints3d=None), NOISE, SKELETON, 64, GEOMETRY)
    assert np.isnan(nothing.joints3d).all() and np.isnan(nothing.joints2d).all()


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("zoom", [1, 3.3])
def test_warping_agrees_with_a_pixel_by_pixel_oracle(lens, zoom):
    "Every crop pixel is looked up by its ray, one at a time, through cv2.projectPoints, in a smooth picture."
    example = scene(11, lens)
    picture = (128 + 60 * np.sin(X / 19) + 50 * np.cos(Y / 23)).astype(np.float32)
    camera = draw_camera(example.camera, example.box, 40, GEOMETRY, np.random.default_rng(1))
    camera = Camera(camera.intrinsics / [[zoom, 1, 1], [1, zoom, 1], [1, 1, 1]], None, camera.rotation, camera.position)
    got = warp_image(picture, example.camera, camera, 40)
    for y in range(0, 40, 3):
        for x in range(0, 40, 3):
            ray = example.camera.rotation @ camera.rotation.T @ np.linalg.inv(camera.intrinsics) @ [x, y, 1]
            px, py = opencv_pixels(ray, example.camera.intrinsics, example.camera.distortion)[0]
            if ray[2] > 0 and 12 < px < W - 13 and 12 < py < H - 13 and np.hypot(*ray[:2]) < ray[2]:
                assert got[y, x] == pytest.approx(128 + 60 * np.sin(px / 19) + 50 * np.cos(py / 23), abs=4)
            elif ray[2] > 0 and (px < -12 or py < -12 or px > W + 11 or py > H + 11) and lens == "none":
                assert got[y, x] == 0


def test_shrinking_does_not_alias():
    "A fine chessboard becomes grey; a plain bilinear look-up leaves strong patterns."
    board = ((np.indices((400, 400)).sum(0) % 2) * 255).astype(np.uint8)
    camera = Camera(np.array([[400, 0, 199.5], [0, 400, 199.5], [0, 0, 1.0]]))
    for size in (200, 150, 130, 90, 41):
        target = Camera(np.array([[size, 0, size / 2 - 0.5], [0, size, size / 2 - 0.5], [0, 0, 1.0]]))
        inner = warp_image(board, camera, target, size)[3:-3, 3:-3].astype(float)
        assert inner.std() < 12 and abs(inner.mean() - 127.5) < 2, (size, inner.std())


@pytest.mark.parametrize("factor", [1, 1.3, 2, 2.7, 4, 7.5])
def test_shrinking_keeps_places(factor):
    camera = Camera(np.array([[300, 0, 160], [0, 300, 120], [0, 0, 1.0]]))
    target = Camera(np.array([[300 / factor, 0, 15.5], [0, 300 / factor, 15.5], [0, 0, 1]]))
    for ramp, c in ((X, 160), (Y, 120)):
        warped = warp_image(ramp + 500, camera, target, 32) - 500
        middle = warped[14:18, 14:18].mean()
        assert middle == pytest.approx(c, abs=0.1 * factor)


def test_what_lies_behind_the_source_camera_is_black():
    camera = Camera(np.array([[60, 0, 160], [0, 60, 120], [0, 0, 1.0]]))
    target = Camera(
        np.array([[12, 0, 15.5], [0, 12, 15.5], [0, 0, 1.0]]),
        None,
        look_at_rotation(np.array([1.0, 0, 0.6]), np.array([0, -1.0, 0])),
    )
    picture = warp_image(np.full((H, W), 255, np.uint8), camera, target, 32)
    rays = np.stack([*np.meshgrid(np.arange(32), np.arange(32)), np.full((32, 32), 0)], -1) - (15.5, 15.5, 0)
    rays = np.concatenate([rays[..., :2] / 12, np.ones((32, 32, 1))], -1) @ target.rotation
    assert (picture[rays[..., 2] <= 0] == 0).all() and (rays[..., 2] <= 0).any() and (picture == 255).any()


# --- colours and occlusion


def test_colour_matrix_is_the_composition_it_says():
    "Brightness, contrast, saturation and hue one at a time against their plain formulas."
    rng, a = np.random.default_rng(0), NO_AUGMENTATION
    colours, mean = rng.uniform(0, 255, (50, 3)), np.array([90.0, 120, 60])
    luma = colours @ [0.299, 0.587, 0.114]
    for seed in range(20):
        draw = np.random.default_rng(seed).uniform(-1, 1, 4)

        def out(**k):
            return colours @ (m := colour_matrix(mean, replace(a, **k), np.random.default_rng(seed)))[:, :3].T + m[:, 3]

        np.testing.assert_allclose(out(brightness=0.125), colours + draw[0] * 0.125 * 255)
        np.testing.assert_allclose(out(contrast=0.5), mean + (colours - mean) * (1 + draw[1] * 0.5))
        np.testing.assert_allclose(
            out(saturation=0.5), luma[:, None] + (colours - luma[:, None]) * (1 + draw[2] * 0.5), atol=0.5
        )
        np.testing.assert_allclose(out(hue_deg=72) @ [0.299, 0.587, 0.114], luma, atol=1e-6)
    assert np.isfinite(colour_matrix(mean, Augmentation(), rng)).all()


@given(seed=st.integers(0, 10**6), size=st.sampled_from([16, 33, 128]))
@settings(max_examples=60, deadline=None)
def test_occlusion_stays_in_the_image_and_below_its_largest_area(seed, size):
    rng, image = np.random.default_rng(seed), np.full((size, size, 3), 7, np.uint8)
    erase_rectangle(image, 1 / 3, rng)
    assert 0 < (image != 7).any(-1).mean() < 0.4
    paste_object(image, blob_objects()[seed % 32], rng)
    occlude(image, Augmentation(), rng)
    assert image.shape == (size, size, 3)


def test_background_is_replaced_where_the_mask_is_not():
    example = scene(4)
    mask = np.zeros((H, W), bool)
    left, top, width, height = example.box.astype(int)
    mask[max(0, top + height // 4) : top + 3 * height // 4, max(0, left + width // 4) : left + 3 * width // 4] = True
    green = np.zeros((50, 70, 3), np.uint8)
    green[..., 1] = 255
    image = np.full((H, W, 3), (255, 0, 0), np.uint8)
    crop = make_crop(
        replace(example, mask=encode_mask(mask)),
        image,
        SKELETON,
        64,
        replace(NO_AUGMENTATION, background=1, backgrounds=(green,)),
    )
    want = warp_image(mask.astype(np.float32), example.camera, crop.camera, 64)
    assert (
        (crop.image[want == 1] == (255, 0, 0)).all()
        and (crop.image[want == 0] == (0, 255, 0)).all()
        and (want == 1).any()
    )
    assert (
        make_crop(example, image, SKELETON, 64, replace(NO_AUGMENTATION, background=1, backgrounds=(green,))).image[
            ..., 1
        ]
        == 0
    ).all()


# --- stored crops


@given(seed=st.integers(0, 10**6), lens=st.sampled_from(list(LENSES)))
@example(seed=509, lens="none")  # a camera rolled by 45 degrees
@settings(max_examples=25, deadline=None)
def test_a_stored_crop_is_the_same_person(seed, lens):
    example = scene(seed, lens)
    flat = replace(example, joints2d=example.camera.project(example.joints3d).astype(np.float32))
    stored, jpeg = store_crop(flat, NOISE, 192)
    assert decode_jpeg(jpeg).shape[1::-1] == stored.image_size and max(stored.image_size) <= 192
    np.testing.assert_array_equal(stored.joints3d, example.joints3d)
    np.testing.assert_allclose(stored.camera.project(stored.joints3d), stored.joints2d, atol=0.05)
    assert not stored.camera.distortion.any() and (stored.camera.position == example.camera.position).all()
    assert max(stored.box[2:]) == pytest.approx(stored.image_size[0] / 1.5)
    one, two = (make_crop(e, i, SKELETON, 64) for e, i in ((example, NOISE), (stored, decode_jpeg(jpeg))))
    np.testing.assert_allclose(two.camera.intrinsics, one.camera.intrinsics, rtol=1e-6)
    np.testing.assert_allclose(two.camera.rotation, one.camera.rotation, atol=1e-6)
    np.testing.assert_allclose(two.joints2d, one.joints2d, atol=0.01)


def test_a_stored_crop_keeps_its_mask():
    example = scene(4)
    mask = np.hypot(X - example.box[0] - example.box[2] / 2, Y - example.box[1] - example.box[3] / 2) < 20
    stored, _ = store_crop(replace(example, mask=encode_mask(mask)), NOISE, 192)
    kept = decode_mask(stored.mask, stored.image_size)
    centre = np.argwhere(kept).mean(0)[::-1]
    assert kept.any() and abs(centre - (stored.image_size[0] - 1) / 2).max() < 1.5


def test_a_stored_crop_is_not_enlarged_beyond_its_limit():
    example = replace(scene(4), box=np.array([100, 100, 30, 50.0]))
    assert store_crop(example, NOISE, 384)[0].image_size == (90, 90)


def test_light_adds_up_linearly():
    "Half black, half white, shrunk: half of the light, which is 188 in sRGB and not 128."
    board = (np.indices((240, 320)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    example = replace(
        scene(4),
        camera=Camera(np.array([[300, 0, 160], [0, 300, 120], [0, 0, 1.0]])),
        box=np.array([80, 60, 160, 120.0]),
    )
    stored, jpeg = store_crop(example, board, 64)
    assert abs(decode_jpeg(jpeg)[20:44, 20:44].astype(float).mean() - 188) < 3
    assert (np.diff(to_linear().astype(int)) > 0).all() and (from_linear()[to_linear()] == np.arange(256)).all()


# --- refusals


@pytest.mark.parametrize(
    "change, image, message",
    [
        (dict(), NOISE[:100], "image: expected size"),
        (dict(joints3d=np.zeros((16, 3))), NOISE, "joints3d: expected the 17 joints of h36m_17, found 16"),
        (dict(joints2d=np.zeros((19, 2))), NOISE, "joints2d: expected the 17 joints of h36m_17, found 19"),
        (dict(box=np.array([1, 2, 0, 3.0])), NOISE, "box"),
        (dict(box=np.array([1, 2, np.nan, 3.0])), NOISE, "box"),
    ],
    ids=["image size", "3D joints", "2D joints", "empty box", "NaN box"],
)
def test_bad_examples_are_refused_by_name(change, image, message):
    with pytest.raises(ValueError, match=f"d, e1, {message}"):
        make_crop(replace(scene(1), **change), image, SKELETON, 64)
