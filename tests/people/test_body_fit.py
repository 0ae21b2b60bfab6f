"""The body fitted to joints (benchmarks/body_fit.py): its joints against those of the mesh, its slopes against finite
differences, and a fit of people that it can express."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from acae_nb.people.body import Rig, random_phenotypes
from acae_nb.people.everyday import EVERYDAY, everyday_poses
from acae_nb.people.motion import sample_poses
from acae_nb.people.retarget import retarget

REPO = Path(__file__).resolve().parents[2]
sys.path.append(str(REPO / "benchmarks"))  # scripts, beside each other
fit = importlib.import_module("body_fit")
RIG = REPO / ".cache/rig.safetensors"
pytestmark = pytest.mark.skipif(not RIG.is_file(), reason="no body rig (.cache/rig.safetensors)")
PEOPLE = 6


@pytest.fixture(scope="module")
def six():
    "A body that knows just six people, and these people's joints of all formats read off their meshes."
    rig = Rig.load(RIG)
    rng = np.random.default_rng(0)
    poses = sample_poses([everyday_poses(50, rng, EVERYDAY["train"])], PEOPLE, rng)
    body = fit.PosableBody.of(rig, poses, np.random.default_rng(1), PEOPLE - 1, PEOPLE - 1)
    rng = np.random.default_rng(1)
    bodies = rig.bodies(random_phenotypes(PEOPLE, rng))
    rotations = retarget(rig, bodies, poses.positions, rng)
    joints = rig.joints(rig.pose(bodies, rotations), rig.formats)
    own = np.swapaxes(rotations[:, body.parent[1:]], -1, -2) @ rotations[:, 1:]
    vectors = Rotation.from_matrix(own.reshape(-1, 3, 3)).as_rotvec().reshape(PEOPLE, -1)
    return rig, body, joints, rotations, vectors


def coordinates(samples, principal):
    mean, components = (part.double().numpy() for part in principal)
    return torch.as_tensor(np.linalg.lstsq(components.T, (samples - mean).T, rcond=None)[0].T).float()


def test_joints_are_those_of_the_mesh(six):
    rig, body, joints, rotations, vectors = six
    rest = []
    weights = fit.carried_parts(rig)[2]
    bodies = rig.bodies(random_phenotypes(PEOPLE, np.random.default_rng(1)))
    for vertices, heads in zip(bodies.vertices, bodies.heads):
        rest.append(np.concatenate([weights @ vertices, heads]).ravel())
    unknowns = fit.Unknowns(
        torch.as_tensor(rotations[:, 0]).float(),
        coordinates(vectors, body.poses),
        coordinates(np.stack(rest), body.shapes),
    )
    for name in ("coco_17", "surface_markers_42"):
        start = sum(len(rig.skeleton(format)) for format in rig.formats[: rig.formats.index(name)])
        rows = np.arange(start, start + len(rig.skeleton(name)))
        mine = fit.CarriedJoints(body, rows).joints(unknowns)[0].numpy()
        theirs = joints[:, rows] - joints[:, rows].mean(1, keepdims=True)
        assert np.abs(mine - theirs).max() < 0.5


def test_slopes_are_finite_differences(six):
    _, body, *_ = six
    seen = fit.CarriedJoints(body, np.arange(40, 60))
    generator = torch.Generator().manual_seed(0)
    z, beta = (torch.randn(2, PEOPLE - 1, generator=generator) for _ in range(2))
    unknowns = fit.Unknowns(fit.turns(torch.randn(2, 3, generator=generator))[0], z, beta)
    slopes = seen.slopes(*seen.joints(unknowns)[1])
    for k in range(slopes.shape[2]):
        step = torch.zeros(2, slopes.shape[2])
        step[:, k] = 0.01
        ahead, behind = (seen.joints(unknowns.moved(sign * step))[0].flatten(1) for sign in (1, -1))
        difference = (ahead - behind) / 0.02
        assert (difference - slopes[:, :, k]).abs().max() < 0.01 * difference.abs().max() + 0.1


def test_people_it_can_express_are_found_from_the_average_on(six):
    rig, body, joints, *_ = six
    start = sum(len(rig.skeleton(format)) for format in rig.formats[: rig.formats.index("smpl_24")])
    rows = np.arange(start, start + 24)
    moved = joints + [300, -20, 4000]
    found = body.fit(moved[:, rows], rows, noise=1.0)
    assert np.linalg.norm(found - moved, axis=2).mean() < 10
