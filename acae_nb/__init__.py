"""3D human pose in every skeleton format at once: the names that most people need. The rest is in the wings.

`import acae_nb` takes a moment and imports no torch; a name brings its module when it is first asked for."""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # for editors, type checkers and the pages of the documentation
    from acae_nb.autoencoder.acae import load_acae, save_acae
    from acae_nb.autoencoder.fitting import fit_acae
    from acae_nb.examples.tables import ExampleTable
    from acae_nb.geometry.cameras import Camera
    from acae_nb.inference.detection import BlazePoseDetector, MoveNetDetector
    from acae_nb.inference.estimator import PoseEstimator
    from acae_nb.inference.pictures import read_picture
    from acae_nb.skeletons.joints import Skeleton, load_skeleton, skeleton_names

__all__ = [
    "BlazePoseDetector",
    "Camera",
    "ExampleTable",
    "MoveNetDetector",
    "PoseEstimator",
    "Skeleton",
    "fit_acae",
    "load_acae",
    "load_skeleton",
    "read_picture",
    "save_acae",
    "skeleton_names",
]

_MODULES = {
    "BlazePoseDetector": "inference.detection",
    "Camera": "geometry.cameras",
    "ExampleTable": "examples.tables",
    "MoveNetDetector": "inference.detection",
    "PoseEstimator": "inference.estimator",
    "Skeleton": "skeletons.joints",
    "fit_acae": "autoencoder.fitting",
    "load_acae": "autoencoder.acae",
    "load_skeleton": "skeletons.joints",
    "read_picture": "inference.pictures",
    "save_acae": "autoencoder.acae",
    "skeleton_names": "skeletons.joints",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module 'acae_nb' has no attribute {name!r}; its names are {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"acae_nb.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
