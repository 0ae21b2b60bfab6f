"""The rasterizer against slow oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="rendering needs the `people` extra")
from acae_nb.people.rasterizer import (
    Mesh,
    clip_near,
    interpolate,
    join,
    light_frame,
    lit_fraction,
    rasterize,
    shade,
    shadow_map,
    vertex_normals,
)


def slow_rasterize(pixels, inverse_depth, faces, cut, height, width):
    """Every pixel against every triangle by a 2x2 system.

    Returns face, screen weights kept perspective-correct, and the margin of the decision.
    """
    face, best, weight = np.full((height, width), -1), np.zeros((height, width)), np.zeros((height, width, 3))
    close = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            for f, (i, j, k) in enumerate(faces):
                edges = np.stack([pixels[j] - pixels[i], pixels[k] - pixels[i]], 1)
                if abs(np.linalg.det(edges)) < 1e-9:
                    continue
                b, c = np.linalg.solve(edges, np.array([x, y]) - pixels[i])
                w = np.array([1 - b - c, b, c])
                z = w @ inverse_depth[[i, j, k]]
                if z <= 0:
                    continue
                true = w * inverse_depth[[i, j, k]] / z
                close[y, x] |= abs(w).min() < 1e-6 or abs(z - best[y, x]) < 1e-6 or abs(true @ cut[[i, j, k]]) < 1e-6
                if (w >= 0).all() and z > best[y, x] and true @ cut[[i, j, k]] >= 0:
                    face[y, x], best[y, x], weight[y, x] = f, z, true
    return face, weight, close


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_agrees_with_every_pixel_against_every_triangle(seed):
    rng = np.random.default_rng(seed)
    pixels, inverse_depth, cut = rng.uniform(-4, 14, (9, 2)), rng.uniform(0.1, 1, 9), rng.uniform(-1, 3, 9)
    faces = rng.permuted(np.tile(np.arange(9), (6, 1)), axis=1)[:, :3].astype(np.int32)
    face, weights, nearest = rasterize(pixels, inverse_depth, faces, cut, 10, 12)
    expected, weight, close = slow_rasterize(pixels, inverse_depth, faces, cut, 10, 12)
    assert (face == expected)[~close].all()
    seen = (face == expected) & (face >= 0) & ~close
    assert np.allclose(weights[seen], weight[seen][:, :2], atol=1e-4)


def test_interpolation_is_perspective_correct():
    """A long plank seen at a slant.

    The attribute at a pixel is that of the point on the plank that the pixel's ray meets.
    """
    points = np.array([[-1.0, 1, 2], [1, 1, 2], [1, 1, 10], [-1, 1, 10]])
    pixels, faces = 20 * points[:, :2] / points[:, 2:] + [10, 2], np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    face, weights, _ = rasterize(pixels, 1 / points[:, 2], faces, np.ones(4), 14, 21)
    where = np.flatnonzero(face >= 0)
    found = interpolate(where, face, weights, faces, points.astype(np.float32))
    y, x = where // 21, where % 21
    z = 20 / (y - 2)  # the plank is the plane y = 1
    assert (
        len(where) > 40
        and np.allclose(found[:, 2], z, rtol=1e-4)
        and np.allclose(found[:, 0], (x - 10) / 20 * z, atol=1e-4)
    )


def test_nothing_is_drawn_behind_the_camera_or_where_all_is_cut():
    pixels, faces = np.array([[0, 0], [9, 0], [0, 9.0]]), np.array([[0, 1, 2]], np.int32)
    assert (rasterize(pixels, np.array([1, 1, 0.0]), faces, np.ones(3), 8, 8)[0] == -1).all()
    assert (rasterize(pixels, np.ones(3), faces, -np.ones(3), 8, 8)[0] == -1).all()
    assert (rasterize(pixels, np.ones(3), faces, np.array([-1, 1, 1.0]), 8, 8)[0][0, :4] == -1).all()


def test_same_input_same_bytes():
    rng = np.random.default_rng(0)
    arguments = (
        rng.uniform(0, 40, (60, 2)),
        rng.uniform(0.1, 1, 60),
        rng.integers(0, 60, (80, 3)).astype(np.int32),
        rng.uniform(-1, 2, 60),
        40,
        40,
    )
    for a, b in zip(rasterize(*arguments), rasterize(*arguments)):
        assert a.tobytes() == b.tobytes()


def tetrahedron():
    points = np.float32([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    faces = np.int32([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    return Mesh(points, faces, vertex_normals(points, faces), points * 2, np.ones(4, np.float32), np.zeros(4, np.int32))


def test_normals_point_outwards_and_unused_vertices_have_none():
    mesh = tetrahedron()
    assert np.allclose(mesh.normals, mesh.vertices / np.sqrt(3), atol=1e-6)
    assert (vertex_normals(np.zeros((2, 3), np.float32), np.zeros((0, 3), np.int32)) == 0).all()


def test_join_keeps_every_triangle():
    a, b = tetrahedron(), tetrahedron()
    b.vertices = b.vertices + np.float32([5, 0, 0])
    both = join([a, b])
    assert np.array_equal(both.vertices[both.faces], np.concatenate([a.vertices[a.faces], b.vertices[b.faces]]))


@settings(max_examples=40, deadline=None)
@given(st.floats(-1.5, 1.5))
def test_clipping_keeps_the_far_part_and_its_attributes(near):
    mesh = tetrahedron()
    depth = mesh.vertices @ np.float32([0.1, 0.2, 1])
    clipped = clip_near(mesh, depth, near)
    used = np.unique(clipped.faces)
    assert (clipped.vertices[used] @ np.float32([0.1, 0.2, 1]) >= near - 1e-4).all()
    assert np.allclose(clipped.canonical[used], 2 * clipped.vertices[used], atol=1e-5)

    def area(m, keep=None):
        a, b, c = (m.vertices[m.faces[:, k]].astype(float) for k in range(3))
        return np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2

    rng = np.random.default_rng(0)
    w = rng.dirichlet([1, 1, 1], 4000)
    points = np.einsum("sk,fkc->fsc", w, mesh.vertices[mesh.faces]).reshape(-1, 3)
    share = (points @ [0.1, 0.2, 1] >= near).mean()
    assert abs(area(clipped) / area(mesh) - share) < 0.03


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0.2, -0.5, 0.1)])
def test_light_frame_is_a_rotation_towards_the_light(direction):
    frame = light_frame(np.array(direction, float))
    assert np.allclose(frame @ frame.T, np.eye(3)) and np.linalg.det(frame) > 0
    assert np.allclose(frame[2], np.array(direction) / np.linalg.norm(direction))


def test_a_plate_shades_what_lies_behind_it_and_nothing_else():
    plate = np.float32([[-100, -100, 500], [100, -100, 500], [100, 100, 500], [-100, 100, 500]])
    to_light = np.array([0.3, 0, 0.9])
    shadow = shadow_map(plate, np.int32([[0, 1, 2], [0, 2, 3]]), np.ones(4, np.float32), to_light)

    def lit(*p):
        return lit_fraction(np.array(p, float), shadow.depth, shadow.matrix, shadow.bias, shadow.softness)

    slip = 500 * 0.3 / 0.9
    assert lit(-slip, 0, 0) == 0 and lit(0, 0, 900) == 1 and lit(-slip + 140, 0, 0) == 1 and lit(-slip, 5000, 0) == 1
    assert 0 < lit(-slip + 100, 0, 0) < 1  # the edge is soft


def test_lambert_and_ambient_by_hand():
    def one(*values):
        return np.float32([values])

    empty = np.full((4, 4), -1e9, np.float32)

    def light(normal, wrap=0.0):
        return shade(
            one(0, 0, 0),
            one(*normal),
            one(0.5, 0.5, 0.5),
            one(0, 10),
            np.float32([wrap]),
            np.ones(1, np.float32),
            np.array([0, -1000.0, 100]),
            np.array([[0.0, 0, 1]]),
            one(2, 1, 0),
            np.float32([0.2, 0.2, 0.2]),
            np.float32([0.1, 0.1, 0.1]),
            empty,
            np.zeros((3, 4), np.float32),
            0.0,
            1.0,
        )[0]

    assert np.allclose(light((0, 0, 1)), [0.5 * 2.2, 0.5 * 1.2, 0.5 * 0.2], atol=1e-6)
    assert np.allclose(light((0, -1, 0)), 0.5 * 0.15, atol=1e-6)  # level: half sky, half ground, no light
    assert light((0, -1, 0), 0.3)[0] > light((0, -1, 0))[0]  # wrapped light reaches round
