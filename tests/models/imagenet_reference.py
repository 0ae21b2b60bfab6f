"""Records names, shapes and features of torchvision's and timm's own classifiers: tests/models/imagenet_reference.npz.

    python tests/models/imagenet_reference.py

Needs torchvision (0.29.1) and timm (1.0.31) beside this repository; the tests need neither. No file of weights is
needed: every tensor is drawn from the checksum of its name (`drawn`), and the tests draw them again. Stores what the
networks make of one small random picture, every fourth channel of their last features. timm's EfficientNets are built
with even padding, as torchvision's are, and once as published, which pad as TensorFlow does.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

NETWORKS = ("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l", "resnet50")
REFERENCE = Path(__file__).with_suffix(".npz")


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor that depends on its name and shape alone, of a size that keeps a deep network's features finite."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    random = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape).astype(np.float32)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return torch.from_numpy(random + 0.5)
    fan_in = np.prod(shape[1:]) if name.endswith("weight") else 100
    return torch.from_numpy((random - 0.5) * np.float32(np.sqrt(12 / fan_in)))


def drawn_state(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    return {name: drawn(name, tuple(shape)) for name, shape in shapes.items()}


def picture() -> torch.Tensor:
    """What the networks look at: [1, 3, 64, 64] of numbers as a scaled picture has them."""
    return torch.from_numpy(np.random.RandomState(0).uniform(-2, 2, (1, 3, 64, 64)).astype(np.float32))


def networks():
    """By network and naming: a classifier, and what makes features of it."""
    import timm
    import torchvision

    for name in NETWORKS:
        published = getattr(torchvision.models, name)()
        layers = list(published.children())[:-2]
        yield name, "torchvision", published, torch.nn.Sequential(*layers)
        if name == "resnet50":
            network = timm.create_model("resnet50")
            yield name, "timm", network, network.forward_features
        else:
            model = f"tf_{name.replace('_v2', 'v2')}"
            network = timm.create_model(model, pad_type="")
            yield name, "timm", network, network.forward_features
            network = timm.create_model(model)
            yield name, "timm as published", network, network.forward_features


def main() -> None:
    reference = {}
    for name, naming, network, features in networks():
        shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
        network.load_state_dict(drawn_state(shapes))
        network.eval()
        with torch.inference_mode():
            made = features(picture()).numpy()
        print(name, naming, len(shapes), made.shape, np.abs(made).max(), made.std())
        reference[f"{name}, {naming}"] = made[0, ::4]
        if naming != "timm as published":
            reference[f"{name}, {naming}, shapes"] = json.dumps(shapes)
    np.savez_compressed(REFERENCE, **reference)
    print(f"{REFERENCE}: {REFERENCE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
