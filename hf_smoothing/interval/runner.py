"""Deterministic certificates of a whole data set, in a run folder."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.allocator import memory_kept
from hf_smoothing.certification.alike import check_same_images, check_same_request, settings_of_first, trouble_reading
from hf_smoothing.certification.behaviour import Answer, answer_to_probe
from hf_smoothing.certification.classes import check_class
from hf_smoothing.certification.classifiers import classifier_device, run_dtype
from hf_smoothing.certification.completion import state_images, take_back_statement, telling_what_is_kept
from hf_smoothing.certification.identity import recorded_answer
from hf_smoothing.certification.images import (
    check_selection,
    check_unchanged,
    checked_items,
    is_stream,
    reading_facts,
    seen_of,
)
from hf_smoothing.certification.labels import warn_other_classes
from hf_smoothing.certification.ranks import Ranks, open_writer, ranks_of_run
from hf_smoothing.certification.settings import common_settings
from hf_smoothing.certification.survey import Survey, check_recorded, survey
from hf_smoothing.interval.certificates import certificates_of, check_bounded, check_certifiable
from hf_smoothing.interval.classifier import interval_classifier
from hf_smoothing.interval.radii import check_largest, check_tolerance
from hf_smoothing.interval.search import BACKWARD, NAMES, check_backward, exact_pixels
from hf_smoothing.keywords import LARGEST, needs
from hf_smoothing.pixels import check_image_batch, warn_other_framing
from hf_smoothing.progress import progress_of
from hf_smoothing.records import Run, check_writable, read_run
from hf_smoothing.types import ImageDataset
from hf_smoothing.units import check_flag, check_whole


@needs(largest=LARGEST)
@memory_kept()
def certify_dataset_linf(
    classifier: nn.Module,
    dataset: ImageDataset,
    output_dir: str | os.PathLike[str],
    *,
    largest: float,
    backward: str = "none",
    steps: int = 20,
    cover_run: bool = True,
    tolerance: float = 1e-8,
    only_right: bool = False,
    indices: Sequence[int] | None = None,
    batch_size: int = 128,
    description: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Run:
    """Certify images of a data set by interval bounds and record one row per image; call it again to resume a run that was cut off.

    Under `accelerate launch` or `torchrun` each rank takes every k-th image. In another batch, or on another number of ranks, a radius may differ by
    rounding and by `tolerance`, since a network and its linear bounds are computed for a batch at once; each is a guarantee by itself.

    Args:
        classifier: As in `linf_certificates`.
        dataset: As in `hf_smoothing.certify_dataset`, but no stream.
        output_dir: The run folder, created or resumed.
        largest, backward, steps, cover_run, tolerance: As in `linf_certificates`.
        only_right: Leave images that are predicted otherwise than labelled without a radius, for measuring certified accuracy in less time.
        indices: Images to certify, all by default.
        batch_size: Images bounded at once.
        description: Further JSON facts for `run.json`.
        progress: Show progress on the main rank: a bar, or in a log file a line every 30 seconds.

    Returns:
        The run, with the rows of all ranks.

    Raises:
        TypeError: If `dataset` gives no images one by one, or `cover_run` or `only_right` is no truth value.
        UnsupportedOperationError: The message names an operation of the network without a bound.
        ValueError: On an empty selection, bad pixels, labels that are no class, no labels where they are needed, train mode, weights that are not finite, a folder that holds another run, or
            ranks that are asked for different runs or read different images.
        OSError: If the folder cannot be written, or another rank is gone.
        KeyboardInterrupt: After Ctrl-C; what is done is kept, and the message says where.
    """
    with ranks_of_run(classifier) as ranks:
        if check_whole(batch_size, "batch_size") < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if is_stream(dataset):
            raise ValueError(
                "Interval certification reads a data set by index, got a stream. Pass PixelDataset instead."
            )
        check_certifiable(classifier, largest, cover_run)
        how: dict[str, Any] = {
            "largest": check_largest(largest),
            "backward": backward,
            "steps": check_backward(backward, steps),
            "cover_run": check_flag(cover_run, "cover_run"),
            "tolerance": check_tolerance(tolerance),
        }
        only_right = check_flag(only_right, "only_right")
        chosen = check_selection(dataset, indices) or []
        warn_other_framing(classifier, dataset, stacklevel=5)
        warn_other_classes(classifier, dataset)
        check_writable(output_dir)
        asked = {"method": "interval-bounds", **how, "only_right": only_right}
        check_same_request(ranks, output_dir, chosen, description, asked)
        seen = survey(dataset, chosen, answer_of=_asking(ranks, classifier, dataset, chosen, output_dir, how))
        if only_right and not seen.labelled:
            raise ValueError("`only_right` needs labels, and images have none. Use a labelled split, or leave it out.")
        settings = common_settings(
            classifier, seen, chosen, _decided(classifier, how, only_right), device=classifier_device(classifier),
            description=description, informative=reading_facts(dataset, chosen),
        )  # fmt: skip
        check_same_images(ranks, seen.seen, lambda: trouble_reading(dataset, chosen))
        settings = settings_of_first(ranks, settings)
        _certify(ranks, classifier, dataset, output_dir, settings, seen, how, only_right, batch_size, progress)
        facts = ranks.exchange(lambda: reading_facts(dataset, chosen))  # once the rows of all ranks are written
        # An image may have become unreadable since, which only the rank knows whose turn it was.
        unreadable = sorted({index for one in facts for index in one.get("unreadable", ())})
        read = facts[0] | ({"unreadable": unreadable} if unreadable else {})
        ranks.from_first(lambda: state_images(output_dir, **read))
    return read_run(output_dir)


def _decided(classifier: nn.Module, how: Mapping[str, Any], only_right: bool) -> dict[str, Any]:
    """What the record says of this method."""
    backward, cover_run = how["backward"], how["cover_run"]
    covers = f"{str(run_dtype(classifier)).removeprefix('torch.')} runs" if cover_run else "real arithmetic"
    rule = {
        "name": f"{NAMES[backward]}, for {covers}",
        "covers_run": cover_run,
        "backward": backward,
        "largest": how["largest"],
        "tolerance": how["tolerance"],
    }
    if backward == BACKWARD[-1]:
        rule["steps"] = how["steps"]
    if only_right:
        rule["only_right"] = True
    return {
        "method": "interval-bounds",
        "norm": "linf",
        "deterministic": True,
        "rule": rule,
        "dtype": "float64, rounded outward",
    }


def _asking(
    ranks: Ranks,
    classifier: nn.Module,
    dataset: ImageDataset,
    chosen: Sequence[int],
    output_dir: str | os.PathLike[str],
    how: Mapping[str, Any],
) -> Callable[[tuple[int, ...]], Answer]:
    """What `survey` asks the classifier: for its answer, that of rank 0 where it is the same, and whether it has bounds."""
    resolved, dtype, device = interval_classifier(classifier), run_dtype(classifier), classifier_device(classifier)

    def answer_of(shape: tuple[int, ...]) -> Answer:
        def asked(known: Mapping[str, Any]) -> Answer:
            return answer_to_probe(resolved, shape, dtype=dtype, known=known, deterministic=True)

        first = ranks.from_first(lambda: asked(recorded_answer(output_dir)))
        answer = first if ranks.rank == 0 else asked(first.to_dict())
        # Before all images are read and the folder is made: a network without bounds would leave a run that nothing finishes.
        for _, item in itertools.islice(checked_items(dataset, chosen), 1):
            check_bounded(classifier, _pixels_of(item).to(device), **how)
        return answer

    return answer_of


def _certify(
    ranks: Ranks,
    classifier: nn.Module,
    dataset: ImageDataset,
    output_dir: str | os.PathLike[str],
    settings: Mapping[str, Any],
    seen: Survey,
    how: Mapping[str, Any],
    only_right: bool,
    batch_size: int,
    progress: bool,
) -> None:
    """Certify what all ranks have read alike, each its part."""
    device, chosen = classifier_device(classifier), seen.indices or []
    with open_writer(ranks, output_dir, settings, seen, dataset) as writer:
        before = read_run(output_dir)

        def begin() -> None:
            check_recorded(dataset, chosen, before, dict(seen.seen))
            if not before.rows.keys() >= set(chosen):
                take_back_statement(output_dir)

        ranks.from_first(begin)  # all ranks must have read the rows before any adds one
        mine = [index for index in chosen[ranks.rank :: ranks.count] if index not in before.rows]
        shown = progress and ranks.rank == 0
        with telling_what_is_kept(output_dir, len(chosen)), progress_of("Bounding", len(mine), shown=shown) as bar:
            for start in range(0, len(mine), batch_size):
                items = list(checked_items(dataset, mine[start : start + batch_size]))
                if not items:  # all of them have become unreadable
                    continue
                labels = [item.get("labels") for _, item in items]
                pixels = torch.cat([_pixels_of(item) for _, item in items])
                now = [seen_of(item) for _, item in items]
                for (index, _), one in zip(items, now, strict=True):
                    check_class(one.label, index, seen.classes)
                    check_unchanged(index, one, seen.seen)
                began = time.perf_counter()
                classes, radii, kinds = certificates_of(
                    classifier,
                    pixels.to(device),
                    labels=torch.tensor(labels, device=device) if only_right else None,
                    **how,
                )
                seconds = (time.perf_counter() - began) / len(items)
                found = zip(items, now, classes.tolist(), radii.tolist(), kinds.tolist(), strict=True)
                for (index, _), one, prediction, radius, kind in found:
                    writer.append(
                        {
                            "index": index,
                            "label": one.label,
                            "prediction": prediction,
                            "radius": radius,
                            "backward": BACKWARD[kind] if radius > 0 else None,
                            "seconds": round(seconds, 4),
                            "image_sha256": one.image_sha256,
                        }
                    )
                bar.update(len(items))
            ranks.wait()  # within, so that a failure of another says what is kept


def _pixels_of(item: Mapping[str, Any]) -> Tensor:
    """Of one image, float64 (1, channels, height, width)."""
    return exact_pixels(check_image_batch(item["pixel_values"][None], "images"))
