"""Cameras for tests with oracle crop models: off-centre, rolled, distorted."""

import numpy as np

from acae_nb.geometry.cameras import Camera, look_at_rotation

UP = np.array([0, 0, 1.0])


def camera_at(position, target, roll_deg=0.0, distortion=None, focal=700.0):
    """A camera of 640 x 480 px with an off-centre principal point that looks at a world point (z up), rolled about its
    axis."""
    position, c, s = np.asarray(position, float), np.cos(np.deg2rad(roll_deg)), np.sin(np.deg2rad(roll_deg))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ look_at_rotation(np.asarray(target) - position, UP)
    return Camera(np.array([[focal, 0, 300], [0, 1.02 * focal, 260], [0, 0, 1]]), distortion, rotation, position, UP)
