"""CNN-7, the network of certified training: five convolutions and two linear layers, nothing that interval bounds do not know."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_smoothing.keywords import check_not_misspelt
from hf_smoothing.models.class_maps import check_numbers
from hf_smoothing.models.construction import check_own_config
from hf_smoothing.models.outputs import Output, classifier_output
from hf_smoothing.pixels import check_image_batch


class CnnSevenConfig(PreTrainedConfig):
    """Configuration of `CnnSevenForImageClassification`.

    Args:
        width: Channels of the first convolution; 64 in the literature, where the network has 17.2 million parameters at 32 px.
        image_size: Height and width of the images that the network sees.
        num_channels: Number of channels of the images.
        last_stride: Stride of the last convolution; 2 in the literature at 64 px.

    Raises:
        ValueError: If a number is not positive, or `label2id` comes alone and is not the inverse of the names by default.
    """

    model_type = "cnn_seven"

    width: int = 64
    image_size: int = 32
    num_channels: int = 3
    last_stride: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        check_not_misspelt(kwargs, CnnSevenConfig.__annotations__, "CnnSevenConfig")
        for name in ("width", "image_size", "num_channels", "last_stride"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        alone = self.label2id if self.id2label is None else None
        super().__post_init__(**kwargs)
        if alone is not None:  # it is not read
            check_numbers(alone, self.id2label or {})


class CnnSevenForImageClassification(PreTrainedModel):
    """Convolutions of w, w, 2w (stride 2), 2w, 2w channels, 3 x 3; a linear layer of 8w; the head. Batch norm and ReLU after each but the head.

    It takes normalised pixels; `SmoothedClassifier` or `RobustTrainer` normalises.

    Source: the network of Shi et al., arXiv 2103.17268, and of arXiv 2307.13078.
    """

    config_class = CnnSevenConfig
    config: CnnSevenConfig
    base_model_prefix = "body"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False

    def __init__(self, config: CnnSevenConfig) -> None:
        check_own_config(
            config,
            CnnSevenConfig,
            "A CnnSevenForImageClassification",
            "Load one that is saved with CnnSevenForImageClassification.from_pretrained(path).",
        )
        super().__init__(config)
        self.num_labels, self.loss_type = config.num_labels, "ForImageClassification"
        w, side = config.width, -(-config.image_size // 2)
        side = -(-side // config.last_stride)
        convolutions = [
            (config.num_channels, w, 1),
            (w, w, 1),
            (w, 2 * w, 2),
            (2 * w, 2 * w, 1),
            (2 * w, 2 * w, config.last_stride),
        ]
        layers: list[nn.Module] = []
        for inside, outside, stride in convolutions:
            layers += [nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(2 * w * side**2, 8 * w), nn.BatchNorm1d(8 * w), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.classifier = nn.Linear(8 * w, config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: Tensor | None = None, labels: Tensor | None = None, return_dict: bool | None = None, **kwargs: Any
    ) -> Output:  # fmt: skip
        """Logits.

        Args:
            pixel_values: Pixel values (batch, num_channels, image_size, image_size), normalised.
            labels: Labels, int64 (batch,), for the cross-entropy loss.
            return_dict: Pass False for a tuple.
            kwargs: Ignored.

        Raises:
            ValueError: On images of another size.
        """
        pixels = check_image_batch(pixel_values, "pixel_values")
        side = self.config.image_size
        if tuple(pixels.shape[1:]) != (self.config.num_channels, side, side):
            raise ValueError(
                f"`pixel_values` must have shape (batch, {self.config.num_channels}, {side}, {side}), got {tuple(pixels.shape)}. Resize the images, or "
                "make a network for their size with CnnSevenConfig(image_size=...)."
            )
        logits = self.classifier(self.body(pixels))
        return classifier_output(self, logits, labels, return_dict)
