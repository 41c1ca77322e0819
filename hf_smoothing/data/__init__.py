"""From image data sets to pixels at the certified resolution, with the labels of a model."""

from hf_smoothing.data.columns import find_column
from hf_smoothing.data.datasets import DecodedPixels, PixelDataset, PixelStream
from hf_smoothing.data.image_processing import NoisyImageProcessor, NoisyImageProcessorPil
from hf_smoothing.data.labels import ClassMap, align_labels, class_map, class_names


__all__ = [
    "ClassMap",
    "DecodedPixels",
    "NoisyImageProcessor",
    "NoisyImageProcessorPil",
    "PixelDataset",
    "PixelStream",
    "align_labels",
    "class_map",
    "class_names",
    "find_column",
]
