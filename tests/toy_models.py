"""An untrained model for tests of what is built around one."""

import torch

from acae_nb.models.backbones import tiny_backbone
from acae_nb.models.pose_model import PoseModel


def restless_model(layout: torch.nn.Module) -> PoseModel:
    "A tiny pose model with logits so large that its answers differ between crops."
    model = PoseModel(tiny_backbone(), layout)
    with torch.no_grad():
        model.heatmap_heads.conv_final.weight *= 30
    return model
