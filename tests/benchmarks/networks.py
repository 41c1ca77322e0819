"""The networks that benchmarks run, from scratch: speed does not depend on the weights."""

from __future__ import annotations

import torch
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from hf_smoothing import SmoothedClassifier


def _smoothed(network: torch.nn.Module, model_size: int | None, size: int = 32) -> SmoothedClassifier:
    return SmoothedClassifier.from_base_pretrained(
        network, sigma=0.5, size=size, model_size=model_size, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )


def small_resnet() -> SmoothedClassifier:
    """That of the embedded backbones: 1.2M parameters, widths 32-256, one basic block per stage, 32 px resized to 64."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1] * 4, layer_type="basic", num_labels=10
    )
    return _smoothed(ResNetForImageClassification(config), 64)


def resnet18() -> SmoothedClassifier:
    """ResNet-18, 11M parameters, 32 px resized to 64."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2] * 4, layer_type="basic", num_labels=10
    )
    return _smoothed(ResNetForImageClassification(config), 64)


def vit_tiny() -> SmoothedClassifier:
    """ViT-Ti, 5.4M parameters: 192 wide, 12 deep, patches of 4 at 32 px."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=32, patch_size=4,
        num_labels=10,
    )  # fmt: skip
    return _smoothed(ViTForImageClassification(config), None)


def vit_base() -> SmoothedClassifier:
    """ViT-B/16 at 224 px, 86M parameters."""
    torch.manual_seed(0)
    return _smoothed(ViTForImageClassification(ViTConfig(num_labels=1000)), None, 224)


def resnet50() -> SmoothedClassifier:
    """ResNet-50 at 224 px, 26M parameters."""
    torch.manual_seed(0)
    return _smoothed(ResNetForImageClassification(ResNetConfig(num_labels=1000)), None, 224)


NETWORKS = {"resnet-18": resnet18, "vit-tiny": vit_tiny, "resnet-small": small_resnet}
LARGE = {"vit-b16": vit_base, "resnet-50": resnet50}
