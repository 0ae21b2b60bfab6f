"""The body itself, fitted to the joints of one skeleton format: what `benchmarks/conversion_mesh.py` measures.

A format's joints are affine combinations of vertices, and a vertex moves with a few bones: so a joint is the sum over
(joint, bone) of what the bone carries of it, and no vertex is needed while fitting. Unknown are the turn of the root,
`z` (turns of all other bones) and `beta` (the shape), the latter two standard normal before any joint is seen:
principal components of what the training people do and are. The people that are fitted have phenotypes and gestures
that these components do not hold exactly; nothing but joints is told of them, and the fit begins at the average.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, vstack
from scipy.spatial.transform import Rotation

from acae_nb.people.body import random_phenotypes
from acae_nb.people.retarget import retarget


def crossed(vectors):
    """Matrices [..., 3, 3] that do what the cross product with vectors [..., 3] does."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def turns(vectors):
    """Rotations [..., 3, 3] of rotation vectors [..., 3] (Rodrigues), and the matrices that take a small change of the
    vector to the turn it makes (left Jacobian of SO(3))."""
    angle = vectors.norm(dim=-1)[..., None, None].clamp(min=1e-4)
    cross = crossed(vectors)
    square = cross @ cross
    sine, versine = angle.sin() / angle, (1 - angle.cos()) / angle**2
    unit = torch.eye(3)
    return unit + sine * cross + versine * square, unit + versine * cross + (1 - sine) / angle**2 * square


def principal(samples, size):
    """Mean [D] and the `size` strongest components [size, D] of samples [N, D], each one standard deviation long."""
    mean = samples.mean(0)
    _, lengths, directions = np.linalg.svd(samples - mean, full_matrices=False)
    components = lengths[:size, None] / np.sqrt(len(samples)) * directions[:size]
    return torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(components, dtype=torch.float32)


def carried_parts(rig):
    """Of all joints of all formats: joint and bone [P] of every part that a bone carries, and the weights [P, V] of the
    vertices in it."""
    regressor = vstack([rig.joint_regressors[name] for name in rig.formats]).tocoo()
    spread = rig.skinning.tocsr()[regressor.col].tocoo()  # a row for each weight of the regressor
    joint, vertex = regressor.row[spread.row], regressor.col[spread.row]
    weight = regressor.data[spread.row] * spread.data
    pairs, part = np.unique(np.stack([joint, spread.col]), axis=1, return_inverse=True)
    weights = csr_array(coo_array((weight, (part.ravel(), vertex)), shape=(pairs.shape[1], rig.n_vertices)))
    return pairs[0], pairs[1], weights


def nearest_turn(points, goals):
    """The rotations [B, 3, 3] that turn points [J, 3] nearest to goals [B, J, 3], both about their middles."""
    points = points - points.mean(0)
    return np.stack([Rotation.align_vectors(goal - goal.mean(0), points)[0].as_matrix() for goal in goals])


@dataclass(frozen=True)
class Unknowns:
    """Of B bodies: turn of the root [B, 3, 3], z [B, Z] and beta [B, S]."""

    root: torch.Tensor
    z: torch.Tensor
    beta: torch.Tensor

    def moved(self, step):
        """After a step [B, 3 + Z + S]."""
        spin, z, beta = step.split([3, self.z.shape[1], self.beta.shape[1]], 1)
        return Unknowns(turns(spin)[0] @ self.root, self.z + z, self.beta + beta)

    def where(self, chosen, other):
        """These where `chosen` [B], the other ones elsewhere."""
        return Unknowns(
            torch.where(chosen[:, None, None], self.root, other.root),
            torch.where(chosen[:, None], self.z, other.z),
            torch.where(chosen[:, None], self.beta, other.beta),
        )

    def surprise(self):
        return (self.z**2).sum(1) + (self.beta**2).sum(1)


class CarriedJoints:
    """Some joints of a posable body, as functions of its unknowns."""

    def __init__(self, body, rows):
        parts = np.flatnonzero(np.isin(body.joint, rows))
        self.body, self.bone = body, torch.as_tensor(body.bone[parts])
        mean, components = body.shapes
        rest = torch.cat([mean[None], components]).unflatten(-1, (-1, 3))  # the average, then each component
        self.points, self.heads = rest[:, parts], rest[:, len(body.joint) :]
        self.share = body.share[parts, None]
        self.place = torch.as_tensor(np.searchsorted(rows, body.joint[parts]))
        self.size, self.bones = len(rows), len(body.parent)

    def gathered(self, parts):
        """Sums [..., J, bones, C] of parts [..., P, C] of the same joint and bone."""
        out = parts.new_zeros(*parts.shape[:-2], self.size * self.bones, parts.shape[-1])
        out.index_add_(-2, self.place * self.bones + self.bone, parts)
        return out.unflatten(-2, (self.size, self.bones))

    def posed(self, rotations, points, heads):
        """What each bone carries [..., P, 3], and the bones' heads [..., bones, 3], the root's over the origin."""
        parent = self.body.parent
        arms = torch.zeros_like(heads)
        bones = heads[..., 1:, :] - heads[..., parent[1:], :]
        arms[..., 1:, :] = (rotations[:, parent[1:]] @ bones[..., None])[..., 0]
        posed = self.body.under.T @ arms
        arm = points - self.share * heads[..., self.bone, :]
        return (rotations[:, self.bone] @ arm[..., None])[..., 0] + self.share * posed[..., self.bone, :], posed

    def joints(self, unknowns):
        """Joints [B, J, 3] about their middle, mm; with all that their derivatives need."""
        rotations, small = self.body.rotations(unknowns)
        mean, components = self.points[0], self.points[1:]
        points = mean + torch.einsum("bs,spc->bpc", unknowns.beta, components)
        heads = self.heads[0] + torch.einsum("bs,spc->bpc", unknowns.beta, self.heads[1:])
        carried, posed = self.posed(rotations, points, heads)
        joints = torch.zeros(len(carried), self.size, 3).index_add_(1, self.place, carried)
        return joints - joints.mean(1, keepdim=True), (rotations, small, carried, posed)

    def slopes(self, rotations, small, carried, posed):
        """Derivatives [B, 3 J, 3 + Z + S] of `joints` by root turn, z and beta."""
        n, parent = len(carried), self.body.parent
        below = torch.einsum("bjcx,ac->bjax", self.gathered(carried), self.body.under)
        share = self.gathered(self.share)[..., 0] @ self.body.under.T
        lever = below - share[..., None] * posed[:, None]  # of every joint about every bone's head
        by_turn = -crossed(lever).transpose(2, 3)  # [B, J, 3, bones, 3]
        own = rotations[:, parent[1:]] @ small
        by_vector = torch.einsum("bjxak,bakv->bjxav", by_turn[:, :, :, 1:], own).flatten(3)
        by_z = by_vector @ self.body.poses[1].T
        by_shape = []
        for points, heads in zip(self.points[1:], self.heads[1:]):
            moved = self.posed(rotations, points.expand(n, -1, -1), heads.expand(n, -1, -1))[0]
            by_shape.append(torch.zeros(n, self.size, 3).index_add_(1, self.place, moved))
        slopes = torch.cat([by_turn[:, :, :, 0], by_z, torch.stack(by_shape, -1)], -1)
        return (slopes - slopes.mean(1, keepdim=True)).flatten(1, 2)


@dataclass(frozen=True)
class PosableBody:
    """A body of the rig as far as its joints are concerned: see the top of the file."""

    joint: np.ndarray  # [P] of every carried part, a row of all formats side by side
    bone: np.ndarray  # [P]
    share: torch.Tensor  # [P] of the joint's weights that the bone carries
    parent: np.ndarray  # [bones]
    poses: tuple  # mean and components of the turns [bones - 1, 3], flat, of all bones but the root in their parents
    shapes: tuple  # the same of places at rest of parts [P, 3] and bones' heads [bones, 3], flat, mm

    @classmethod
    def of(cls, rig, poses, rng, pose_size=100, shape_size=10):
        """From training poses (`Poses`), each in a body of its own."""
        joint, bone, weights = carried_parts(rig)
        rest, rotations = [], []
        for start in range(0, len(poses), 100):
            rows = slice(start, min(start + 100, len(poses)))
            bodies = rig.bodies(random_phenotypes(rows.stop - start, rng))
            rotations.append(retarget(rig, bodies, poses.positions[rows], rng))
            rest += [np.concatenate([weights @ v, h]).ravel() for v, h in zip(bodies.vertices, bodies.heads)]
        rotations, parent = np.concatenate(rotations), np.array(rig.bone_parents)
        own = np.swapaxes(rotations[:, parent[1:]], -1, -2) @ rotations[:, 1:]
        vectors = Rotation.from_matrix(own.reshape(-1, 3, 3)).as_rotvec().reshape(len(own), -1)
        share = torch.as_tensor(weights.sum(1), dtype=torch.float32)
        return cls(joint, bone, share, parent, principal(vectors, pose_size), principal(np.stack(rest), shape_size))

    @property
    def under(self):
        """[bones, bones]: 1 where the second bone is the first or hangs on it."""
        out = np.eye(len(self.parent), dtype=np.float32)
        for bone, parent in enumerate(self.parent[1:], 1):
            out[:, bone] += out[:, parent]
        return torch.as_tensor(out)

    def rotations(self, unknowns):
        """World rotations [B, bones, 3, 3] of all bones, and of all but the root the turns that small changes of their
        rotation vectors make, in the parent's frame [B, bones - 1, 3, 3]."""
        mean, components = self.poses
        own, small = turns((mean + unknowns.z @ components).unflatten(-1, (-1, 3)))
        world = [unknowns.root]
        for bone, parent in enumerate(self.parent[1:], 1):
            world.append(world[parent] @ own[:, bone - 1])
        return torch.stack(world, 1), small

    def average(self, root):
        """Where a fit begins: the average body in the average pose."""
        return Unknowns(root, torch.zeros(len(root), len(self.poses[1])), torch.zeros(len(root), len(self.shapes[1])))

    def fit(self, target, rows, noise=3.0, steps=30):
        """Joints of all formats [B, J, 3] of the bodies of greatest posterior, given the joints `rows` of B people
        [B, len(rows), 3] in mm as if known to `noise` mm (Levenberg-Marquardt, each person with a damping of its
        own)."""
        seen, everything = CarriedJoints(self, rows), CarriedJoints(self, np.arange(self.joint.max() + 1))
        goal = torch.as_tensor(target, dtype=torch.float32)
        middle = goal.mean(1, keepdim=True)
        mean = seen.joints(self.average(torch.eye(3)[None]))[0][0].numpy()
        best = self.average(torch.as_tensor(nearest_turn(mean, np.asarray(target)), dtype=torch.float32))
        damping = torch.ones(len(goal))
        joints, parts = seen.joints(best)
        cost = ((joints - goal + middle) ** 2).sum((1, 2)) / noise**2 + best.surprise()
        for _ in range(steps):
            slopes = seen.slopes(*parts)
            prior = torch.cat([torch.zeros(len(goal), 3), best.z, best.beta], 1)
            weight = torch.cat([torch.zeros(3), torch.ones(prior.shape[1] - 3)])
            gram = slopes.transpose(1, 2) @ slopes / noise**2 + torch.diag(weight)
            gram = gram + damping[:, None, None] * torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
            pull = ((joints - goal + middle).flatten(1)[:, None] @ slopes)[:, 0] / noise**2 + prior
            tried = best.moved(-torch.linalg.solve(gram.double(), pull.double()).float())
            moved, moved_parts = seen.joints(tried)
            moved_cost = ((moved - goal + middle) ** 2).sum((1, 2)) / noise**2 + tried.surprise()
            better = moved_cost < cost
            damping = torch.where(better, damping / 5, damping * 4).clamp(1e-6, 1e6)
            best, cost = tried.where(better, best), torch.where(better, moved_cost, cost)
            joints, parts = seen.joints(best)
        whole = everything.joints(best)[0]
        return (whole - whole[:, rows].mean(1, keepdim=True) + middle).numpy()
