"""The smallest random network of every image classifier that `transformers` has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel


LABELS = 5
TRANSFORMER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32, "patch_size": 8,
}  # fmt: skip
WORDS = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50, "pad_token_id": 1,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
"""The text tower that a configuration of a classifier of CLIP's kind has, and its network has not."""
TWO_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1]}
FOUR_STAGES = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
PYRAMID = FOUR_STAGES | {"num_attention_heads": [1, 1, 2, 2]}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
MOBILE = {"image_size": 32, "depth_multiplier": 0.25, "min_depth": 8}
LEVIT = {"hidden_sizes": [16, 32, 48], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}
LATENTS = {
    "num_latents": 8, "d_latents": 16, "d_model": 16, "num_blocks": 1, "num_self_attends_per_block": 1, "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1, "image_size": 32,
}  # fmt: skip
HGNET = {
    "embedding_size": 16, "stem_channels": [3, 8, 16], "stage_in_channels": [16, 16], "stage_mid_channels": [8, 8],
    "stage_out_channels": [16, 32], "stage_num_blocks": [1, 1], "stage_downsample": [False, True], "stage_downsample_strides": [2, 2],
    "stage_light_block": [False, True], "stage_kernel_size": [3, 3], "stage_numb_of_layers": [2, 2],
}  # fmt: skip
EFFICIENT = {
    "image_size": 32, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640, "kernel_sizes": [3, 3], "in_channels": [32, 16],
    "out_channels": [16, 32], "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 4],
}  # fmt: skip
STRIPES = {"conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]], "conv_layer_strides": [[2]] * 4}


@dataclass(frozen=True)
class Architecture:
    """One class of image classifiers.

    Attributes:
        config: name of its configuration's class, without "Config".
        values: of the configuration.
        kind: what follows in the name of the network's class after "ForImageClassification".
        size: height and width of the images that it takes.
        refused: the words with which wrapping is refused, or None.
        absent: why no network can be built here, or None.
        slow: whether it takes seconds.
    """

    config: str
    values: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    size: int = 32
    refused: str | None = None
    absent: str | None = None
    slow: bool = False

    @property
    def name(self) -> str:
        return f"{self.config}ForImageClassification{self.kind}"

    @property
    def model_type(self) -> str:
        return str(getattr(transformers, f"{self.config}Config").model_type)

    def build(self) -> PreTrainedModel:
        """In eval mode; the random state of the caller stays as it is."""
        config = getattr(transformers, f"{self.config}Config")(**self.values, num_labels=LABELS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network: PreTrainedModel = getattr(transformers, self.name)(config).eval()
        return network


def towers(config: str, refused: str | None = None, **vision: Any) -> Architecture:
    values = {"text_config": WORDS, "vision_config": TRANSFORMER | vision}
    return Architecture(config, values, refused=refused)


ARCHITECTURES = [
    Architecture("Beit", TRANSFORMER),
    Architecture("Bit", TWO_STAGES | {"embedding_size": 16, "num_groups": 4}),
    towers("CLIP"),
    Architecture("ConvNext", FOUR_STAGES),
    Architecture("ConvNextV2", FOUR_STAGES),
    Architecture("Cvt", {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}),
    Architecture("Data2VecVision", TRANSFORMER),
    Architecture("DeiT", TRANSFORMER),
    Architecture("DeiT", TRANSFORMER, "WithTeacher"),
    Architecture("Dinat", absent="its attention needs the package natten, built for the machine"),
    Architecture("Dinov2", TRANSFORMER),
    Architecture("Dinov2WithRegisters", TRANSFORMER),
    Architecture("DonutSwin", WINDOWS),
    Architecture("EfficientNet", EFFICIENT),
    Architecture(
        "FocalNet", TWO_STAGES | {"image_size": 32, "embed_dim": 16, "focal_levels": [1, 1], "focal_windows": [3, 3]}
    ),
    Architecture("HGNetV2", TWO_STAGES | HGNET),
    Architecture(
        "Hiera",
        {
            "embed_dim": 16,
            "image_size": [64, 64],
            "depths": [1, 1, 1],
            "num_heads": [1, 1, 2],
            "num_query_pool": 2,
            "masked_unit_size": [4, 4],
            "masked_unit_attention": [True, True, False],
        },
        size=64,
    ),
    Architecture("IJepa", TRANSFORMER),
    Architecture(
        "ImageGPT",
        {"vocab_size": 17, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2},
        size=8,
        refused="ImageGPTForImageClassification cannot classify pixels .*input_ids",
    ),
    Architecture("Levit", LEVIT | {"image_size": 64}, size=64),
    Architecture("Levit", LEVIT | {"image_size": 64}, "WithTeacher", size=64),
    towers("MetaClip2"),
    Architecture("MobileNetV1", MOBILE),
    Architecture("MobileNetV2", MOBILE),
    Architecture(
        "MobileViT",
        {
            "image_size": 64,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 16, 16, 32],
            "num_attention_heads": 2,
        },
        size=64,
    ),
    Architecture(
        "MobileViTV2",
        {"image_size": 64, "n_attn_blocks": [1, 1, 1], "base_attn_unit_dims": [16, 24, 32], "width_multiplier": 0.25},
        size=64,
    ),
    Architecture("Perceiver", LATENTS, "Learned"),
    Architecture("Perceiver", LATENTS, "Fourier", size=224, slow=True),
    Architecture("Perceiver", LATENTS, "ConvProcessing", size=224, slow=True),
    Architecture("PoolFormer", FOUR_STAGES),
    Architecture(
        "PPLCNet",
        {"scale": 0.25, "class_expand": 32},
        refused="PPLCNetForImageClassification must give logits of shape",
    ),
    Architecture(
        "Pvt", PYRAMID | {"image_size": 32, "mlp_ratios": [2] * 4, "sequence_reduction_ratios": [4, 2, 1, 1]}
    ),
    Architecture("PvtV2", PYRAMID | {"image_size": 32, "mlp_ratios": [2] * 4, "sr_ratios": [4, 2, 1, 1]}),
    Architecture("RegNet", TWO_STAGES | {"embedding_size": 16, "groups_width": 8, "layer_type": "y"}),
    Architecture("RegNet", TWO_STAGES | {"embedding_size": 16, "groups_width": 8, "layer_type": "x"}),
    Architecture("ResNet", TWO_STAGES | {"embedding_size": 16, "layer_type": "basic"}),
    Architecture("ResNet", TWO_STAGES | {"embedding_size": 16, "layer_type": "bottleneck"}),
    Architecture("Segformer", PYRAMID | {"sr_ratios": [4, 2, 1, 1]}),
    Architecture("ShieldGemma2", absent="a language model that judges an image by a policy in words"),
    towers("Siglip"),
    Architecture(
        "Siglip2",
        {
            "text_config": WORDS,
            "vision_config": {k: v for k, v in TRANSFORMER.items() if k != "image_size"} | {"num_patches": 16},
        },
        refused="Siglip2ForImageClassification cannot classify pixels",
    ),
    Architecture("SwiftFormer", {"image_size": 64, "depths": [1] * 4, "embed_dims": [16, 16, 32, 32]}, size=64),
    Architecture("Swin", WINDOWS),
    Architecture("Swinv2", WINDOWS),
    Architecture("TextNet", {"image_size": 64, "stem_out_channels": 16, "hidden_sizes": [16] * 5} | STRIPES, size=64),
    Architecture("TimmWrapper", absent="a network of the package timm, which needs torchvision"),
    Architecture("ViT", TRANSFORMER),
    Architecture("ViTMSN", TRANSFORMER),
]
"""Some twice: where a type has several classes, or two kinds of layers."""


def label(architecture: Architecture) -> str:
    """Its class, and the kind of its layers where there are several."""
    layers = architecture.values.get("layer_type")
    return architecture.name + (f" ({layers})" if layers else "")
