"""Deterministic certificates of a whole data set, in a run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_smoothing.allocator import memory_kept
from hf_smoothing.certification.behaviour import Answer, answer_to_probe
from hf_smoothing.certification.classes import check_class
from hf_smoothing.certification.classifiers import classifier_device, run_dtype
from hf_smoothing.certification.completion import state_images, take_back_statement
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
from hf_smoothing.certification.ranks import from_first_rank, open_writer, process_state
from hf_smoothing.certification.settings import common_settings
from hf_smoothing.certification.survey import check_recorded, survey
from hf_smoothing.interval.certificates import certificates_of, check_bounded, check_certifiable
from hf_smoothing.interval.classifier import interval_classifier
from hf_smoothing.interval.radii import check_largest, check_tolerance
from hf_smoothing.interval.search import BACKWARD, NAMES, check_backward, exact_pixels
from hf_smoothing.pixels import check_image_batch, warn_other_framing
from hf_smoothing.progress import progress_of
from hf_smoothing.records import Run, check_writable, read_run
from hf_smoothing.types import ImageDataset
from hf_smoothing.units import check_flag, check_whole


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

    Under `accelerate launch` or `torchrun` each rank takes every k-th image. A row does not depend on the others of its batch.

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
        TypeError: If `cover_run` or `only_right` is no truth value.
        UnsupportedOperationError: The message names an operation of the network without a bound.
        ValueError: On an empty selection, bad pixels, labels that are no class, no labels where they are needed, train mode, weights that are not finite, or a folder that holds another run.
    """
    if check_whole(batch_size, "batch_size") < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    if is_stream(dataset):
        raise ValueError("Interval certification reads a data set by index, got a stream. Pass PixelDataset instead.")
    check_certifiable(classifier, largest, cover_run)
    largest, tolerance, steps = check_largest(largest), check_tolerance(tolerance), check_backward(backward, steps)
    cover_run, only_right = check_flag(cover_run, "cover_run"), check_flag(only_right, "only_right")
    chosen = check_selection(dataset, indices) or []
    warn_other_framing(classifier, dataset)
    warn_other_classes(classifier, dataset)
    device = classifier_device(classifier)
    state = process_state(cpu=device.type == "cpu")
    covers = f"{str(run_dtype(classifier)).removeprefix('torch.')} runs" if cover_run else "real arithmetic"
    rule = {
        "name": f"{NAMES[backward]}, for {covers}",
        "covers_run": cover_run,
        "backward": backward,
        "largest": largest,
        "tolerance": tolerance,
    }
    if backward == BACKWARD[-1]:
        rule["steps"] = steps
    if only_right:
        rule["only_right"] = True
    check_writable(output_dir)
    resolved, dtype = interval_classifier(classifier), run_dtype(classifier)
    how: dict[str, Any] = {
        "largest": largest,
        "backward": backward,
        "steps": steps,
        "cover_run": cover_run,
        "tolerance": tolerance,
    }

    def answer_of(shape: tuple[int, ...]) -> Answer:
        def asked(known: Mapping[str, Any]) -> Answer:
            return answer_to_probe(resolved, shape, dtype=dtype, known=known, deterministic=True)

        mine = asked(recorded_answer(output_dir)) if state.is_main_process else None
        first = from_first_rank(state, mine)
        answer = mine or asked(first.to_dict())
        # Before all images are read and the folder is made: a network without bounds would leave a run that nothing finishes.
        _, item = next(checked_items(dataset, chosen))
        check_bounded(classifier, _pixels_of(item).to(device), **how)
        return answer

    seen = survey(dataset, chosen, answer_of=answer_of)
    if only_right and not seen.labelled:
        raise ValueError("`only_right` needs labels, and images have none. Use a labelled split, or leave it out.")
    read = reading_facts(dataset, chosen)
    decided = {
        "method": "interval-bounds",
        "norm": "linf",
        "deterministic": True,
        "rule": rule,
        "dtype": "float64, rounded outward",
    }
    settings = common_settings(
        classifier, seen, chosen, decided, device=device, description=description, informative=read
    )
    with open_writer(state, output_dir, settings, seen, dataset) as writer:
        before, chosen = read_run(output_dir), seen.indices or chosen
        check_recorded(dataset, chosen, before, dict(seen.seen))
        if state.is_main_process and not before.rows.keys() >= set(chosen):
            take_back_statement(output_dir)
        state.wait_for_everyone()  # all ranks must read the rows before any adds one
        mine = [index for index in chosen[state.process_index :: state.num_processes] if index not in before.rows]
        shown = progress and state.is_main_process
        with progress_of("Bounding", len(mine), shown=shown) as bar:
            for start in range(0, len(mine), batch_size):
                items = list(checked_items(dataset, mine[start : start + batch_size]))
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
    state.wait_for_everyone()  # the rows of all ranks are written
    if state.is_main_process:
        state_images(output_dir, **read)
    state.wait_for_everyone()
    return read_run(output_dir)


def _pixels_of(item: Mapping[str, Any]) -> Tensor:
    """Of one image, float64 (1, channels, height, width)."""
    return exact_pixels(check_image_batch(item["pixel_values"][None], "images"))
