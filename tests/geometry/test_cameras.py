"""Cameras against OpenCV, against the original's maths, and against the geometry they promise."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from acae_nb.geometry import cameras as C

UP = np.array([0, 0, 1.0])


def finite(lo, hi):
    return st.floats(lo, hi, allow_nan=False)


direction = st.tuples(*[finite(-1, 1)] * 3).map(np.array).filter(lambda v: np.linalg.norm(v) > 1e-2)


def some_camera(seed, strong=1.0):
    rng = np.random.default_rng(seed)
    K = np.array([[rng.uniform(600, 1500), rng.uniform(-2, 2), 640], [0, rng.uniform(600, 1500), 480], [0, 0, 1]])
    lens = strong * rng.normal(size=12) * [0.1, 0.03, 1e-3, 1e-3, 0.01, 0.03, 0.01, 0.003, 1e-3, 1e-3, 1e-3, 1e-3]
    p = rng.normal(size=3) * 1000 + [4000, 0, 1500]
    return C.Camera(K, lens, C.look_at_rotation(-p, UP), p, UP)


def test_conformance_projection(conformance):
    a, _ = conformance("projection")
    t = {k: torch.tensor(v) for k, v in a.items()}
    torch.testing.assert_close(C.project(t["points"], t["K"]), t["project_pose"], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(C.back_project(t["n2d"], t["dz"], t["z0"]), t["back_project"], rtol=1e-5, atol=1e-2)
    front = a["points"][..., 2] > 1
    np.testing.assert_allclose(
        C.project_points(a["points"], np.eye(3))[front], a["project"][front], rtol=1e-4, atol=1e-4
    )
    found, known = C.look_at_rotation(a["fwd"], a["up"]), ~np.isnan(a["lookat"]).any((1, 2))
    assert np.isfinite(found).all() and known.sum() == len(known) - 1
    np.testing.assert_allclose(found[known], a["lookat"][known], atol=1e-5)
    np.testing.assert_allclose(found[~known][:, 2], a["lookat"][~known][:, 2], atol=1e-6)  # its z axis is defined
    for axis in "xyz":
        torch.testing.assert_close(getattr(C, f"rotation_{axis}")(t["angles"]), t[f"rot_{axis}"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(C.intrinsics_from_field_of_view(55, (480, 640)), t["K_fov55_480x640"])
    torch.testing.assert_close(C.intrinsics_from_field_of_view(30, (900, 500)), t["K_fov30_900x500"])


@pytest.mark.parametrize("n", [0, 4, 5, 8, 12])
def test_projection_against_opencv(n):
    c = some_camera(n)
    lens = c.distortion[:n]
    K = c.intrinsics.copy()
    K[0, 1] = 0  # OpenCV has no skew
    c = C.Camera(K, lens, c.rotation, c.position)
    X = np.random.default_rng(1).uniform(-800, 800, (200, 3))
    oracle = cv2.projectPoints(X, cv2.Rodrigues(c.rotation)[0], -c.rotation @ c.position, K, lens if n else None)[0][
        :, 0
    ]
    np.testing.assert_allclose(c.project(X), oracle, atol=1e-6)


def test_distortion_slopes_against_differences():
    c = some_camera(3, 3.0)
    xy = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    e = 1e-6
    slow = np.stack(
        [(C.distort(xy + d, c.distortion) - C.distort(xy - d, c.distortion)) / (2 * e) for d in np.eye(2) * e], -1
    )
    np.testing.assert_allclose(np.stack(C.distortion_slopes(xy, c.distortion), -1).reshape(-1, 2, 2), slow, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), finite(-0.45, 0.45), finite(-0.35, 0.35))
def test_undistort_is_the_inverse(seed, x, y):
    c = some_camera(seed)
    xy = np.array([x, y])
    px = C.project_points(np.array([x, y, 1]), c.intrinsics, c.distortion)
    np.testing.assert_allclose(C.undistort_points(px, c.intrinsics, c.distortion), xy, atol=1e-7)


def test_no_inverse_is_nan_and_leaves_neighbours_alone():
    K = np.array([[1000, 0, 500], [0, 1000, 500], [0, 0, 1.0]])
    out = C.undistort_points(np.array([[5000, 500], [600, 500], [np.nan, 3]]), K, [-0.3, 0, 0, 0])
    assert np.isnan(out[[0, 2]]).all() and np.isfinite(out[1]).all()


LENSES = {  # coefficients, and whether the model turns at all
    "barrel": ([-0.35, 0, 0, 0], True),
    "barrel that opens again": ([-0.5, 0.05, 0, 0, 0.02], True),
    "tangential too": ([-0.3, 0.02, 0.002, -0.001, 0.002], True),
    "rational with a pole": ([0.1, 0, 0, 0, 0, -0.4, 0, 0], True),
    "prism": ([-0.25, 0.02, 0, 0, 0, 0, 0, 0, 0.001, 0.002, -0.001, 0.001], True),
    "cushion": ([0.2, 0.1, 0, 0, 0], False),
    "only tangential": ([0, 0, 0.001, 0.002], False),
}


def first_fold(distortion, direction):
    "The slow way: the radius at which the picture of a ray from the axis outward first stops or jumps back."
    radii = np.linspace(1e-4, 4, 40001)
    along = C.distort(radii[:, None] * direction, distortion) @ direction
    back = np.flatnonzero(np.diff(along) <= 0)
    return radii[back[0]] if len(back) else np.inf


@pytest.mark.parametrize("name", LENSES)
def test_points_beyond_the_radius_where_the_lens_turns_are_not_seen(name):
    lens, turns = LENSES[name]
    assert np.isfinite(C.turning_radius(lens)) == turns
    for angle in np.linspace(0, 2 * np.pi, 13):
        ray = np.array([np.cos(angle), np.sin(angle)])
        fold = first_fold(lens, ray)
        assert np.isfinite(C.project_points(np.r_[ray * min(0.97 * fold, 3), 1], np.eye(3), lens)).all()
        inside = ray * min(0.97 * fold, 0.9)
        seen = C.project_points(np.r_[inside, 1], np.eye(3), lens)
        np.testing.assert_allclose(C.undistort_points(seen, np.eye(3), lens), inside, atol=1e-5)
        for beyond in (1.03, 1.5, 3.0, 10.0):
            assert not turns or np.isnan(C.project_points(np.r_[ray * beyond * fold, 1], np.eye(3), lens)).all()


def test_a_person_beside_the_camera_is_not_in_the_picture():  # B5, the smallest input
    camera = C.Camera(np.array([[900.0, 0, 960], [0, 900, 540], [0, 0, 1]]), [-0.35, 0, 0, 0])
    assert np.isnan(camera.project(np.array([4500.0, 0, 3000]))).all()
    assert np.isfinite(camera.project(np.array([2500.0, 0, 3000]))).all()


@settings(max_examples=60, deadline=None)
@given(direction, direction)
def test_look_at_is_a_rotation(forward, up):
    R = C.look_at_rotation(forward, up)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-7)
    assert np.linalg.det(R) > 0
    np.testing.assert_allclose(R[2], forward / np.linalg.norm(forward), atol=1e-9)
    if np.linalg.norm(np.cross(forward, up)) > 1e-3:
        assert R[1] @ up < 0 and abs(R[0] @ up) < 1e-6  # y down, x level


@pytest.mark.parametrize("sign", [1, -1])
def test_look_at_along_up_is_finite_also_near_it(sign):
    for tilt in (0, 1e-12, 1e-8, 1e-4):
        R = C.look_at_rotation(sign * UP + [tilt, 0, 0], UP)
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-6)


boxes = st.tuples(finite(-100, 900), finite(-100, 600), finite(20, 500), finite(20, 500))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), boxes, st.sampled_from([64, 128, 255]))
def test_crop_camera(seed, box, size):
    c = some_camera(seed)
    try:
        crop = C.crop_camera(c, box, size)
    except ValueError as e:
        assume(False)
        raise e
    left, top, w, h = box
    x, y = left + w / 2, top + h / 2
    edge = np.array([[x, y], [left, y], [left + w, y], [x, top], [x, top + h]])
    rays = np.c_[C.undistort_points(edge, c.intrinsics, c.distortion), np.ones(5)] * 2000
    px = crop.project(c.to_world(rays))
    np.testing.assert_allclose(px[0], (size - 1) / 2, atol=1e-6)  # looks at the middle
    assert (np.abs(px - (size - 1) / 2) <= size / 2 + 1e-6).all()  # covers the box ...
    assert np.linalg.norm(px - (size - 1) / 2, axis=1).max() > size / 2 - 1e-6  # ... and no more than that
    np.testing.assert_allclose(crop.rotation[0] @ UP, 0, atol=1e-9)
    assert crop.rotation[1] @ UP < 0
    assert not crop.distortion.any() and (crop.position == c.position).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), boxes)
def test_crop_homography_carries_projections(seed, box):
    c = some_camera(seed)
    c = C.Camera(c.intrinsics, None, c.rotation, c.position, UP)
    crop = C.crop_camera(c, box, 128)
    X = np.random.default_rng(seed).uniform(-500, 500, (20, 3))
    px = np.c_[c.project(X), np.ones(20)] @ C.homography(c, crop).T
    np.testing.assert_allclose(px[:, :2] / px[:, 2:], crop.project(X), rtol=1e-7, atol=1e-5)


def test_crop_straight_up_keeps_the_old_upright():
    c = C.Camera(
        np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1.0]]),
        rotation=np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]]),
        world_up=[0, 0, 1],
    )
    crop = C.crop_camera(c, [270, 190, 100, 100], 64)
    np.testing.assert_allclose(crop.rotation, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("box", [[0, 0, 0, 10], [0, 0, 10, -1], [np.nan, 0, 5, 5]])
def test_bad_boxes_are_refused(box):
    with pytest.raises(ValueError, match="box: expected"):
        C.crop_camera(some_camera(0), box, 64)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(intrinsics=np.full((3, 3), np.nan)), "intrinsics: expected finite"),
        (dict(position=[0, np.inf, 0]), "position: expected finite"),
        (dict(intrinsics=np.eye(2)), "intrinsics: expected shape"),
        (dict(rotation=np.eye(3)[::-1]), "rotation: expected an orthonormal"),
        (dict(distortion=np.zeros(6)), "distortion: expected 0, 4, 5, 8 or 12"),
        (dict(world_up=[0, 0, 0]), "world_up"),
        (dict(distortion=[np.nan] * 5), "distortion: expected finite"),
        (dict(intrinsics=None), "intrinsics"),
    ],
)
def test_bad_cameras_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        C.Camera(**{"intrinsics": np.eye(3), **change})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_triangulation_finds_exact_points(seed, views):
    rng = np.random.default_rng(seed)
    cams = [some_camera(seed + i) for i in range(views)]
    cams = [
        C.Camera(c.intrinsics, c.distortion, C.look_at_rotation(-p, UP), p)
        for c, a in zip(cams, np.arange(views) * 1.1)
        for p in [3000 * np.array([np.cos(a), np.sin(a), 0.4])]
    ]
    X = rng.uniform(-400, 400, (2, 3, 3))
    px = np.stack([c.project(X) for c in cams])
    assume(np.isfinite(px).all())
    np.testing.assert_allclose(C.triangulate(px, np.ones(px.shape[:-1]), cams), X, atol=1e-3)


def test_triangulation_minimises_the_pixel_error():
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    cams = [
        C.Camera(np.diag([800, 800, 1.0]), None, C.look_at_rotation(-p, UP), p)
        for p in 3000 * np.array([[1, 0, 0.2], [0, 1, 0.2], [-1, 0.3, 0.4]])
    ]
    X = rng.uniform(-300, 300, 3)
    px = np.stack([c.project(X) for c in cams]) + rng.normal(size=(3, 2)) * 5
    w = np.array([1, 0.5, 0.8])

    def cost(x):
        return sum(wi * ((c.project(x) - p) ** 2).sum() for wi, c, p in zip(w, cams, px))

    slow = minimize(cost, X, method="Nelder-Mead", options=dict(xatol=1e-6, fatol=1e-10, maxiter=4000)).x
    np.testing.assert_allclose(C.triangulate(px, w, cams), slow, atol=1e-2)


def test_triangulation_needs_two_views_in_front():
    cams = [
        C.Camera(np.diag([800, 800, 1.0]), None, C.look_at_rotation(-p, UP), p)
        for p in 3000 * np.array([[1, 0, 0.2], [0, 1, 0.2]])
    ]
    X = np.zeros((3, 3)) + [[0], [50], [90]]
    px = np.stack([c.project(X) for c in cams])
    w = np.ones((2, 3))
    w[0, 0] = 0
    px[1, 1] = np.nan
    out = C.triangulate(px, w, cams)
    assert np.isnan(out[:2]).all() and np.allclose(out[2], X[2], atol=1e-4)
    with pytest.raises(ValueError, match="triangulate: expected px"):
        C.triangulate(px[:1], w, cams)


def test_projection_of_points_behind_is_finite_with_finite_gradient():
    x = torch.tensor([[[5.0, 5, -100], [5, 5, 0], [5, 5, 100]]], requires_grad=True)
    y = C.project(x, torch.eye(3)[None])
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    assert np.isnan(C.project_points(np.array([[0, 0, 0], [1, 1, -1.0]]), np.eye(3))).all()


@pytest.mark.parametrize("angle", [0, 70, 180, 260])
def test_a_direction_in_the_picture_becomes_the_crops_upright(angle):
    camera = some_camera(2)
    middle, direction = np.array([500.0, 420]), np.array([np.sin(np.deg2rad(angle)), -np.cos(np.deg2rad(angle))])
    crop = C.crop_camera(camera, [400, 300, 200, 240], 128, C.world_direction(camera, middle, direction))
    ends = np.c_[C.undistort_points(middle + [[0, 0], 5 * direction], camera.intrinsics, camera.distortion), np.ones(2)]
    a, b = crop.project(camera.to_world(1000 * ends))
    np.testing.assert_allclose(a, 63.5, atol=1e-6)
    np.testing.assert_allclose((b - a) / np.linalg.norm(b - a), [0, -1], atol=0.01)
    for bad in ([0, 0], [np.nan, 1]):
        with pytest.raises(ValueError, match="direction"):
            C.world_direction(camera, middle, bad)
