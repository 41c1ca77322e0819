"""Certify a data set into a run folder: many ranks, a progress bar, resumable after any kill."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from torch import Tensor
from tqdm.auto import tqdm

from hf_smoothing.certification.certificates import Votes
from hf_smoothing.certification.classifiers import classifier_device, resolve_classifier
from hf_smoothing.certification.execution import Execution, probe_batch_size
from hf_smoothing.certification.identity import classifier_identity
from hf_smoothing.certification.images import check_selection, checked_items, is_stream, left_out_facts, survey
from hf_smoothing.certification.labels import adopt_labels, amend_informative, warn_other_classes
from hf_smoothing.certification.noise_kinds import NoiseStream, choose_noise, make_stream, noise_facts, off_grid
from hf_smoothing.certification.options import (
    ExecutionOptions,
    MeasuringOptions,
    RuleOptions,
    RunOptions,
    documented,
    filled,
    part,
)
from hf_smoothing.certification.rounds import RankError, Ranks, vote_in_rounds
from hf_smoothing.certification.rows import PARTIAL_SECONDS, RowKeeper, restored_votes
from hf_smoothing.certification.rules import make_rule, rule_on
from hf_smoothing.certification.settings import run_settings
from hf_smoothing.pixels import UnreadableImageError, to_unit_pixels, warn_other_framing
from hf_smoothing.records import Run, RunError, RunWriter, check_writable, read_run
from hf_smoothing.statistics import ABSTAIN, check_whole, exact_text
from hf_smoothing.units import check_seconds


PROBE_DRAWS = 200_000
"""A run of fewer draws is over before the trial of batch sizes has paid."""

_SAME_STREAM = "Resume with the same stream in the same order, or use another output folder."
logger = logging.getLogger(__name__)


@documented(RunOptions)
def certify_dataset(
    classifier: Any,
    dataset: Any,
    output_dir: str | os.PathLike[str],
    *,
    sigma: float,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    description: Mapping[str, Any] | None = None,
    progress: bool = True,
    partial_seconds: float = PARTIAL_SECONDS,
    **options: Unpack[RunOptions],
) -> Run:
    """Certify images of a data set and record one row per image; call it again to resume a run that was cut off.

    Under `accelerate launch` or `torchrun` the ranks share every round of draws, so none idles before the end. The rows do not depend
    on the number of ranks, the batch size, or where the run was interrupted.

    Args:
        classifier: As in `certify`.
        dataset: `dataset[i]` is a mapping with "pixel_values", (channels, height, width) uint8 or float in [0, 1] at the certified
            resolution, and if known "labels", an integer. See `hf_smoothing.PixelDataset`. Or a stream of such items
            (`hf_smoothing.PixelStream`, any iterable); a resumption reads it again and checks what is already recorded.
        output_dir: The run folder, created or resumed.
        sigma: Noise standard deviation in [0, 1] pixel units.
        indices: Images to certify, all by default. They identify the images in the rows and in the noise.
        seed: Seed of the noise generator.
        description: Further JSON facts for `run.json`, such as {"model": {"id": ...}, "dataset": {"id": ...}}.
        progress: Show a bar on the main rank.
        partial_seconds: Seconds between two savings of unfinished images; 0 saves after every round. A kill loses at most
            this much work on them, give or take one round.
        {options}

    Returns:
        The run, with the rows of all ranks.

    Raises:
        ValueError: On an empty selection, bad pixels, or a folder that holds another run.
        OSError: If the folder cannot be written, or another rank is gone.
        KeyboardInterrupt: After Ctrl-C; what is done is kept, and the message says where.
    """
    asked = filled(RunOptions, options)
    rule = make_rule(sigma, **part(RuleOptions, asked), **part(MeasuringOptions, asked))
    own_targets, label_aware = asked["targets"] is not None, asked["label_aware"]
    resolve_classifier(classifier)
    device = classifier_device(classifier)
    execution = Execution(**part(ExecutionOptions, asked))
    chosen = check_selection(dataset, indices)
    warn_other_framing(classifier, dataset)
    warn_other_classes(classifier, dataset)
    check_whole(seed, "seed")
    check_seconds(partial_seconds, "partial_seconds")
    check_writable(output_dir)
    state = process_state(cpu=device.type == "cpu")
    facts: list[Any] = [None]
    if state.is_main_process:
        if label_aware:  # found on the first image where it is there, before all are read
            _, first = next(checked_items(dataset, chosen), (None, {"labels": 0}))
            _check_labelled(first.get("labels") is not None)
        seen = survey(dataset, chosen)
        if label_aware:
            _check_labelled(seen.labelled)
        kind = choose_noise(asked["noise_kind"], seen.off_grid)
        stream = make_stream(kind, seed=seed, shape=seen.resolution, device=device, sigma=rule.sigma)
        speeds: dict[str, int] = {}
        if chosen is None or len(chosen) * rule.stage_ends[-1] >= PROBE_DRAWS:
            execution, speeds = probe_batch_size(classifier, stream.shape, execution)
        rule = rule_on(rule, stream, chosen=own_targets)
        logger.info(
            "Certifying at %s (channels, height, width), %s noise, sigma %s.", seen.resolution, kind, rule.sigma
        )
        trial: dict[str, Any] = {"images_per_second_by_batch_size": speeds} if speeds else {}
        trial |= left_out_facts(dataset, chosen)
        chosen = chosen if seen.indices is None else seen.indices
        settings = run_settings(
            classifier, seen, chosen, rule, stream, execution, description=description, informative=trial
        )
        if seen.labelled:
            adopt_labels(output_dir, settings, seen, dataset)
        writer = RunWriter(output_dir, settings)
        facts = [(settings, kind, stream.shape, execution, chosen)]
    if state.num_processes > 1:
        broadcast_object_list(facts)
    if not state.is_main_process:
        settings, kind, shape, execution, chosen = facts[0]
        stream = make_stream(kind, seed=seed, shape=shape, device=device, sigma=rule.sigma)
        _check_same(classifier, stream, settings)
        rule = rule_on(rule, stream, chosen=own_targets)
        writer = RunWriter(output_dir, settings, rank=state.process_index)
    with writer:
        before = read_run(output_dir)
        state.wait_for_everyone()  # all ranks must plan from the same rows, before any adds one
        ranks = Ranks(state.process_index, state.num_processes, gather_object)
        bar = tqdm(
            total=None if chosen is None else len(chosen),
            initial=len(before.rows),
            desc=f"Certifying at sigma {exact_text(sigma)}",
            unit="image",
            disable=not (progress and state.is_main_process),
        )
        keeper = RowKeeper(writer, rule, share=(ranks.rank, ranks.count), partial_seconds=partial_seconds)
        certified = sum(row["prediction"] != ABSTAIN for row in before.rows.values())
        total = "all" if chosen is None else len(chosen)
        unreadable: list[UnreadableImageError] = []
        try:
            pending = _until_unreadable(_pending(dataset, chosen, before, keeper, stream), unreadable)
            for touched in vote_in_rounds(classifier, pending, rule, stream, execution=execution, ranks=ranks):
                finished = keeper.keep(touched)
                certified += sum(not certificate.abstained for certificate in finished)
                bar.update(len(finished))
                bar.set_postfix(certified=certified)
        except KeyboardInterrupt:
            # Said by the exception itself, so that it is seen wherever it ends: a log may go nowhere.
            raise KeyboardInterrupt(f"Interrupted: {_kept(output_dir, total)}") from None
        except RankError as error:
            raise RankError(f"{error} {_kept(output_dir, total)}") from error
        finally:
            bar.close()
    for found in unreadable:
        raise UnreadableImageError(found.index, found.file, f"{found} {_kept(output_dir, total)}")
    if state.is_main_process and is_stream(dataset) and (left_out := left_out_facts(dataset, chosen)):
        amend_informative(output_dir, **left_out)
    state.wait_for_everyone()
    return read_run(output_dir)


def _until_unreadable(
    pending: Iterator[tuple[Votes, Tensor]], found: list[UnreadableImageError]
) -> Iterator[tuple[Votes, Tensor]]:
    """Images up to one that cannot be read, which is put aside until those before it are finished."""
    try:
        yield from pending
    except UnreadableImageError as error:
        found.append(error)


def _check_labelled(labelled: bool) -> None:
    if not labelled:
        raise ValueError(
            "Label-aware evaluation needs the true class of every image, but there are images without 'labels'. Use a labelled split, or "
            "leave label_aware out."
        )


def _kept(output_dir: Any, total: int | str) -> str:
    return f"{len(read_run(output_dir).rows)} of {total} images are done and kept in {output_dir}. The same command resumes."


def process_state(cpu: bool = False) -> PartialState:
    """Ranks and device of this process, also for several ranks on a CPU.

    Args:
        cpu: Compute on the CPU although there is an accelerator.
    """
    # Without cpu=True, accelerate takes each process that torchrun starts on a machine without a GPU for a run of its own.
    forced = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    # Ranks wait for each other while one of them hashes the data set: hours are no sign of a fault.
    return PartialState(cpu=forced or not torch.accelerator.is_available(), timeout=datetime.timedelta(days=7))


def _check_same(classifier: Any, stream: NoiseStream, settings: Mapping[str, Any]) -> None:
    """Every rank must certify the network that the run names; batch-norm statistics differ after distributed training."""
    mine = noise_facts(stream)
    if any(settings[key] != value for key, value in mine.items()):
        raise ValueError(
            f"All ranks of a run must draw their noise alike, but rank 0 is on {settings['noise_drawn_by']} and this one on {mine['noise_drawn_by']}."
        )
    identity = classifier_identity(classifier)
    differing = [key for key, value in identity.items() if settings["model"].get(key) != value]
    if differing:
        raise ValueError(
            f"The classifier of this rank is not that of rank 0: {', '.join(differing)} differ. After distributed training save the model "
            "on one rank and load it on all."
        )


def _pending(
    dataset: Any, chosen: Sequence[int] | None, before: Run, keeper: RowKeeper, stream: NoiseStream
) -> Iterator[tuple[Votes, Tensor]]:
    """The images that are not finished, with the votes they already have."""
    streamed = is_stream(dataset)
    todo = chosen if streamed else [index for index in chosen or () if index not in before.rows]
    unseen = before.rows.keys() | before.partials.keys() if streamed else set()
    for index, item in checked_items(dataset, todo):
        recorded = before.rows.get(index, before.partials.get(index))
        votes = restored_votes(index, item, None if index in before.rows else recorded)
        unseen.discard(index)
        if recorded is not None and recorded.get("image_sha256") != votes.image_sha256:
            raise RunError(f"Image {index} of the stream is not the one that this run has certified. {_SAME_STREAM}")
        if index in before.rows:
            continue
        pixels = to_unit_pixels(item["pixel_values"][None], f"image {index}")[0]
        if stream.kind == "grid":
            choose_noise("grid", off_grid(pixels, f"image {index} lies"))  # of a stream only the first was looked at
        keeper.expect(index)
        yield votes, pixels
    if unseen:
        raise RunError(f"The stream ended before image {max(unseen)}, which this run has recorded. {_SAME_STREAM}")
