"""What comes with the package to try it on: a small robust backbone and some images of CIFAR-10, 5 MB together."""

from __future__ import annotations

from pathlib import Path


__all__ = ["sample_backbone", "sample_images"]

_HERE = Path(__file__).resolve().parent
_INSTALLED = {"backbone": _HERE / "sample_files" / "resnet-mixture-small", "images": _HERE / "sample_files" / "images"}
_CLONED = {
    "backbone": _HERE.parent / "model_cards" / "resnet-mixture-small",
    "images": _HERE.parent / "examples" / "data" / "sample",
}


def sample_backbone() -> str:
    """Folder of `resnet-mixture-small`: a ResNet of 1.2M parameters for 32 px, pretrained on clean and noisy images of Tiny-ImageNet.

    Raises:
        FileNotFoundError: If the package was installed without it.
    """
    return _folder("backbone")


def sample_images() -> str:
    """Folder for `datasets.load_dataset`: 1,000 training and 250 test images of CIFAR-10, with columns image and label.

    Raises:
        FileNotFoundError: If the package was installed without them.
    """
    return _folder("images")


def _folder(name: str) -> str:
    """Where it is: beside the package in a clone, inside it where it was installed."""
    for place in (_INSTALLED[name], _CLONED[name]):
        if place.is_dir():
            return str(place)
    raise FileNotFoundError(
        f"The sample must be in {_INSTALLED[name]}, which does not exist. Install hf_smoothing from a wheel or a clone of its repository."
    )
