"""`hf-smoothing` as a person types it, in this process: what tests of the command line start with."""

from __future__ import annotations

from pathlib import Path

from hf_smoothing.cli import main
from tests.support.tiny import parquet_folder, smoothed


def command(*words: object) -> int:
    """Run a command; its exit status."""
    return main([str(word) for word in words])


def certify(
    model: Path, images: Path, run: Path, *options: object, sigma: str = "0.25", n: str = "20", n0: str | None = "5"
) -> int:
    """Certify a data set with few draws.

    Args:
        model: Its folder.
        images: Folder of the data set.
        run: Where the rows go.
        options: Further words.
        sigma, n, n0: Noise level and numbers of draws; no `--n0` where it is None.
    """
    draws = ("--n", n, *(("--n0", n0) if n0 else ()))
    return command(
        "certify", model, images, "--sigma", sigma, *draws, "--device", "cpu", "--output-dir", run, *options
    )


def model_and_images(folder: Path, count: int = 6) -> Path:
    """The folder, with a smoothed classifier in `model` and `count` images in `images`."""
    smoothed("vit").save_pretrained(folder / "model")
    parquet_folder(folder / "images", count=count)
    return folder
