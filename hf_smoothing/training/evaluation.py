"""What an evaluation reports: means over images, however they are split into batches and ranks."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.state import GradientState
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hf_smoothing.allocator import memory_kept
from hf_smoothing.certification.ranks import leave_ranks_at_exit
from hf_smoothing.data.decoded import UNLABELLED, UNLABELLED_CURE
from hf_smoothing.models.forward import logits_of
from hf_smoothing.models.smoothed_classifier import SmoothedClassifier
from hf_smoothing.noise import MAX_IMAGES
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.training.checkpoints import WholeCheckpoints
from hf_smoothing.training.classes import check_classes
from hf_smoothing.training.collator import checked_batch
from hf_smoothing.training.labels import hard_labels
from hf_smoothing.training.precision import kept_weights, without_mixed_precision


_LOG = logging.getLogger(__name__)


def real_images(state: GradientState, count: int, rank: int, ranks: int) -> int:
    """How many of this rank's images are not copies that fill up the last batch: the first ones.

    Args:
        state: State of the accelerator whose loader is being read.
        count: Images of this batch, on each rank.
        rank, ranks: Rank of this process, and number of ranks.
    """
    left = state.remainder if ranks > 1 and state.end_of_dataloader else -1
    return count if left <= 0 else min(max(left - rank * count, 0), count)


class EvaluationSums:
    """Sums over the images of one rank, in double precision."""

    def __init__(self) -> None:
        self.images: dict[str, int] = defaultdict(int)
        self.totals: dict[str, float] = defaultdict(float)

    def add(self, name: str, total: float, images: int) -> None:
        """Add the sum of a figure over some images."""
        self.images[name] += images
        self.totals[name] += total

    def means(self) -> dict[str, float]:
        """The means over the images of all ranks; every rank must ask."""
        ranks = gather_object([(dict(self.images), dict(self.totals))])
        images: dict[str, int] = defaultdict(int)
        totals: dict[str, float] = defaultdict(float)
        for counts, sums in ranks:
            for name in counts:
                images[name] += counts[name]
                totals[name] += sums[name]
        return {name: totals[name] / count for name, count in images.items() if count}


class ImageMeans(WholeCheckpoints):
    """The stock Trainer's loss is a mean over batches in which the copies that fill up the last one count; here it is one over images.

    Args:
        num_labels: Number of classes, or None for an autoencoder.
        preprocessing: Of a plain backbone's pixels, or None where the model does it.
        votes_matter: Whether a `SmoothedClassifier` votes over noise in evaluation where the number of votes is not set.
        kwargs: As for `WholeCheckpoints`.
    """

    def __init__(
        self, *, num_labels: int | None, preprocessing: Preprocessing | None, votes_matter: bool = True, **kwargs: Any
    ) -> None:
        self._num_labels, self.preprocessing, self._votes_matter = num_labels, preprocessing, votes_matter
        self._evaluated, self._sums = 0, EvaluationSums()
        self._labelled: set[bool] = set()
        self._cost_said = False
        super().__init__(**kwargs)
        leave_ranks_at_exit(self._release_ranks)

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """As the parent, of all images: `dataloader_drop_last` is for training."""
        with self._all_images():
            loader: DataLoader[Any] = super().get_eval_dataloader(*args, **kwargs)
        return loader

    def get_test_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """As `get_eval_dataloader`."""
        with self._all_images():
            loader: DataLoader[Any] = super().get_test_dataloader(*args, **kwargs)
        return loader

    @contextmanager
    def _all_images(self) -> Iterator[None]:
        given, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = given

    @memory_kept()
    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the parent, with the averaged weights where there are any.

        Raises:
            ValueError: If the data set names the classes otherwise than the model does.
        """
        if self._num_labels is not None:
            check_classes(self.model, eval_dataset)
        with self._averaged(), self._without_mixed_precision_after():
            metrics: dict[str, float] = super().evaluate(eval_dataset, *args, **kwargs)
        return metrics

    @memory_kept()
    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """As the parent, with the averaged weights where there are any.

        Raises:
            ValueError: As `evaluate`.
        """
        if self._num_labels is not None:
            check_classes(self.model, test_dataset)
        with self._averaged(), self._without_mixed_precision_after():
            return super().predict(test_dataset, *args, **kwargs)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """As the parent, but figures are means over the images, and a classifier's accuracy is among them.

        Of a `SmoothedClassifier`, `accuracy` is that of the base classifier on clean images; `smoothed_accuracy` and `loss` are of its
        vote shares. Without votes (`eval_num_samples` 0) all figures and `predictions` are of the base classifier, and `smoothed_accuracy` is none of them. `loss` is the cross-entropy, with `label_smoothing_factor` where it is set, as the parent has it. `predictions`, also those that compute_metrics gets, are the logarithms of the vote
        shares. An image with the label -100 counts in none of them. A figure of compute_metrics wins over one of the same name here, but not over the loss.
        """
        # Numbered anew, so that votes do not depend on the batch size.
        self._evaluated, self._sums, self._labelled = 0, EvaluationSums(), set()
        self._share_buffers()
        self._say_what_votes_cost()
        with kept_weights(self.model):  # bf16_full_eval and fp16_full_eval round them
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        means = self._sums.means()
        if "loss" not in means:  # no image has a label
            output.metrics.pop(f"{metric_key_prefix}_loss", None)
        for name, mean in means.items():
            key = f"{metric_key_prefix}_{name}"
            if name == "loss" or key not in output.metrics:
                output.metrics[key] = mean
        return output

    @contextmanager
    def _without_mixed_precision_after(self) -> Iterator[None]:
        """Mixed precision replaces `forward`. A classifier made of this model later must not run in it unasked, however a training or evaluation ended."""
        inside = self.is_in_train
        try:
            yield
        finally:
            if not inside:
                self.model = without_mixed_precision(self.model, self.accelerator)

    def _say_what_votes_cost(self) -> None:
        if (
            not isinstance(self.model, SmoothedClassifier)
            or not self._copies
            or self._cost_said
            or not self.is_world_process_zero()
        ):
            return
        self._cost_said = True
        _LOG.warning(
            "Evaluation classifies each image %d times: once without noise, and %d noisy copies that vote. Set eval_num_samples for fewer or more.",
            1 + self._copies, self._copies,
        )  # fmt: skip

    def _share_buffers(self) -> None:
        """Give every rank the batch-norm statistics of rank 0: each has seen other images, so theirs differ."""
        if self.args.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def _release_ranks(self) -> None:
        """Drop the wrapper that adds up gradients over the ranks."""
        self.model_wrapped = self.model
        self.accelerator.free_memory()

    def _prepare_inputs(self, inputs: Any) -> dict[str, Any]:
        """As the parent, of a batch that has its images and labels under their names.

        Raises:
            TypeError, ValueError: As `checked_batch`.
        """
        batch: dict[str, Any] = super()._prepare_inputs(checked_batch(inputs))
        return batch

    @property
    def _copies(self) -> int:
        asked = self.args.eval_num_samples
        if asked is None:
            return int(self.model.config.num_samples) if self._votes_matter else 0
        return int(asked)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """One evaluation step: clean images; a `SmoothedClassifier` votes with noise seeded by `args.seed`."""
        inputs = dict(self._prepare_inputs(inputs))
        count = len(inputs["pixel_values"])
        real = real_images(self.accelerator.gradient_state, count, self.args.process_index, self.args.world_size)
        if self._num_labels is None:
            inputs = {name: values[: max(real, 1)] for name, values in inputs.items()}
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(model, inputs).detach()
            self._sums.add("loss", real * float(loss), real)
            return loss, None, None
        labels, labelled, loss = inputs.get("labels"), 0, None
        self._labelled.add(labels is not None)
        if len(self._labelled) > 1:
            raise ValueError(
                f"An evaluation needs labels of all images or of none, got batches with and without them. {UNLABELLED_CURE}"
            )
        if labels is not None:
            labels = hard_labels(labels, count, self._num_labels).clone()
            labels[real:] = UNLABELLED  # the loss ignores these, and gathering drops them
            labelled = int((labels != UNLABELLED).sum())
        with torch.no_grad(), self.compute_loss_context_manager():
            logits, clean = self._answers(model, inputs["pixel_values"], labelled > 0)
        if labels is not None and labelled:
            # Here and not by the model, whose forward may take no labels.
            loss = F.cross_entropy(logits, labels, label_smoothing=self.args.label_smoothing_factor)
            self._sums.add("loss", labelled * float(loss), labelled)
            if clean is not None:
                self._sums.add("smoothed_accuracy", _hits(logits, labels), labelled)
            self._sums.add("accuracy", _hits(logits if clean is None else clean, labels), labelled)
        elif labels is not None:  # of copies alone: ranks gather a loss each
            loss = logits.new_zeros(())
        return (loss, None, None) if prediction_loss_only else (loss, logits, labels)

    def _answers(self, model: nn.Module, values: Tensor, measured: bool) -> tuple[Tensor, Tensor | None]:
        """What is predicted of a batch, logits or logarithms of vote shares; beside votes that are measured, the logits of the base classifier."""
        wrapped, clean = isinstance(self.model, SmoothedClassifier), None
        if wrapped and not self._copies:
            return self.classify(to_unit_pixels(values, "pixel_values")).float(), None
        if not wrapped:
            # With noise_owner="processor" they are ready but for the dtype.
            ready = self.preprocessing is None
            pixels = values.to(self.model.dtype) if ready else to_unit_pixels(values, "pixel_values")
            return self._logits(pixels, model).float(), None
        if measured:
            clean = self.classify(to_unit_pixels(values, "pixel_values"))
        number = self._evaluated * self.args.world_size + self.args.process_index
        size = self.args.eval_batch_size
        self._evaluated += 1
        noise = {"seed": self.args.seed, "first_index": number * size % (MAX_IMAGES - size)}
        votes = logits_of(model, values, self.model.config, num_samples=self._copies, **noise)
        return votes.float(), clean


def _hits(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(dim=1) == labels).sum())  # no class is `UNLABELLED`
