"""Forward passes of a classifier over fixed images, which must agree with one another."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.probes import (
    FURTHER,
    LEVELS,
    NOISY,
    SOME,
    further_images,
    noisy_image,
    probe_images,
)
from hf_smoothing.certification.sampling import check_logits
from hf_smoothing.certification.tolerance import COARSE, FINE, allowed_apart, most, rows_apart


class Asking:
    """Asks a classifier about fixed images.

    Args:
        classifier: The classifier, on its device.
        shape: Shape of an image, (channels, height, width).
        execution: How the network is run.
        dtype: Dtype of the pixels.
    """

    def __init__(
        self, classifier: ResolvedClassifier, shape: tuple[int, ...], execution: Execution, dtype: torch.dtype
    ):
        self.classifier, self.shape, self.execution, self.dtype = classifier, shape, execution, dtype
        self.image, *self.near, self.dark, self.bright = probe_images(shape).to(classifier.device, dtype)
        # An accelerator may choose another kernel for another batch, and TF32 for float32.
        self.coarse = classifier.device.type != "cpu" or in_half(classifier, execution)
        self.tolerance = COARSE if self.coarse else FINE

    def logits(self, *images: Tensor) -> Tensor:
        """Logits of images in one batch, finite and in float64."""
        batch = torch.stack(images)
        if self.execution.channels_last:  # as it is run, which a network may not take
            batch = batch.contiguous(memory_format=torch.channels_last)
        with self.execution.autocast(self.classifier.device):
            found = check_logits(self.classifier(batch), len(images))
        # Minus infinity stands for a class that is ruled out; nan is refused where votes are counted.
        return torch.nan_to_num(found.cpu().double(), nan=0.0, posinf=0.0, neginf=0.0)

    def about_near(self, *, noisy: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the image and its copies of less contrast; those of the image alone; those of the dark, the bright and the first noisy images.

        Args:
            noisy: Whether noisy images are asked about.
        """
        outside = [self.dark, self.bright, *(self._noisy(number) for number in range(len(LEVELS) if noisy else 0))]
        images = (self.image, *self.near)
        try:
            found, again = (self.logits(*outside, *images) for _ in range(2))
            beside = self.logits(*images, self.bright)[:-1]
        except Exception as error:
            dtype = str(self.dtype).removeprefix("torch.")
            error.add_note(
                f"This came for {len(outside) + len(images)} images of a check, before any draw. A classifier must take {dtype} batches of any size, here of "
                f"images of shape {self.shape}. Call model.float() for other weights; PixelDataset(dataset, Framing(size, channels=...)) gives images of "
                "another number of channels; a network with a part that has a method classify is certified by passing that part."
            )
            raise
        try:
            alone = self.logits(self.image)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"The classifier must judge each image by itself, but one image alone gives {type(error).__name__}: {error} {_CURE}"
            ) from error
        if rows_apart(found, again, self.tolerance):
            raise _other_each_time(found, again)
        beyond, near = found[: len(outside)], found[len(outside) :]
        for other in (beside, alone):
            if rows_apart(near[: len(other)], other, self.tolerance):
                raise _other_in_company(near[: len(other)], other)
        return near, alone, beyond

    def about_further(self) -> Tensor:
        """Logits of the further images."""
        found, again = self._further(self.image), self._further(self.image)
        # Where nothing rounds coarsely, the same batches give the same answers.
        if rows_apart(found, again, self.tolerance) > (allowed_apart(self.tolerance, FURTHER) if self.coarse else 0):
            raise _other_each_time(found, again)
        regrouped = self._further(self.dark, self.image, regrouped=True)
        if rows_apart(found, regrouped, self.tolerance) > allowed_apart(self.tolerance, FURTHER):
            raise _other_in_company(found, regrouped)
        return found

    def about_some(self) -> None:
        """Ask about a part of the further images, once in each grouping."""
        found = self._further(self.image, stop=SOME)
        regrouped = self._further(self.dark, self.image, stop=SOME, regrouped=True)
        if rows_apart(found, regrouped, self.tolerance) > allowed_apart(self.tolerance, SOME):
            raise _other_in_company(found, regrouped)

    def about_noisy(self) -> Tensor:
        """Logits of the noisy images after the first."""
        step = len(LEVELS)
        batches = [range(start, start + step) for start in range(step, NOISY, step)]
        return torch.cat(
            [self.logits(self.image, *(self._noisy(number) for number in batch))[1:] for batch in batches]
        )

    def _noisy(self, number: int) -> Tensor:
        return noisy_image(number, self.shape).to(self.classifier.device, self.dtype)

    def _further(self, *others: Tensor, stop: int = FURTHER, regrouped: bool = False) -> Tensor:
        rows: dict[int, Tensor] = {}
        for numbers, images in further_images(self.shape, stop, regrouped=regrouped):
            found = self.logits(*others, *images.to(self.classifier.device, self.dtype))[len(others) :]
            rows.update(zip(numbers, found, strict=True))
        return torch.stack([rows[number] for number in range(stop)])


def in_half(classifier: ResolvedClassifier, execution: Execution) -> bool:
    """Whether half precision is asked for, or in the weights."""
    weights = () if classifier.module is None else classifier.module.parameters()
    return execution.dtype != "float32" or any(
        weight.dtype.is_floating_point and weight.dtype.itemsize < 4 for weight in weights
    )


def _other_each_time(first: Tensor, again: Tensor) -> ValueError:
    return ValueError(
        f"The classifier must answer to an image alike each time, but its logits for the same batch differ by {most(first - again):.3g} between two passes. "
        "Call eval() on the network in it, and let it draw no random numbers."
    )


def _other_in_company(first: Tensor, other: Tensor) -> ValueError:
    return ValueError(
        "The classifier must judge each image by itself, but its logits for an image change by "
        f"{most(first - other):.3g} with the other images of the batch. {_CURE}"
    )


_CURE = (
    "Call eval() on the network in it; batch norm needs running statistics (track_running_stats=True), quantisation a scale that is "
    "not taken from the batch."
)
