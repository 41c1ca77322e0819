"""From image data sets to pixels at the certified resolution, with the labels of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_smoothing.lazy import on_first_use


# Imported on first use: the command line reads the options of `DataChoice`, which needs neither torch nor transformers.
_CONTENTS = {
    "ClassMap": "labels",
    "DataChoice": "choice",
    "DecodedPixels": "decoded",
    "Framing": "framing",
    "NoisyImageProcessor": "image_processing",
    "NoisyImageProcessorPil": "image_processing",
    "PixelDataset": "datasets",
    "PixelStream": "datasets",
    "class_map": "labels",
    "class_names": "labels",
    "find_column": "columns",
    "load_split": "opening",
    "open_pixels": "opening",
}

__all__ = list(_CONTENTS)
__getattr__ = on_first_use(__name__, _CONTENTS)


if TYPE_CHECKING:
    from hf_smoothing.data.choice import DataChoice as DataChoice
    from hf_smoothing.data.columns import find_column as find_column
    from hf_smoothing.data.datasets import PixelDataset as PixelDataset
    from hf_smoothing.data.datasets import PixelStream as PixelStream
    from hf_smoothing.data.decoded import DecodedPixels as DecodedPixels
    from hf_smoothing.data.framing import Framing as Framing
    from hf_smoothing.data.image_processing import NoisyImageProcessor as NoisyImageProcessor
    from hf_smoothing.data.image_processing import NoisyImageProcessorPil as NoisyImageProcessorPil
    from hf_smoothing.data.labels import ClassMap as ClassMap
    from hf_smoothing.data.labels import class_map as class_map
    from hf_smoothing.data.labels import class_names as class_names
    from hf_smoothing.data.opening import load_split as load_split
    from hf_smoothing.data.opening import open_pixels as open_pixels
