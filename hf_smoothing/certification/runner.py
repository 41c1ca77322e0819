"""Certify a data set into a run folder: many ranks, a progress bar, resumable after any kill."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from hf_smoothing.certification.agreement import RunRequest, agree, check_same
from hf_smoothing.certification.alike import check_same_images, check_same_request, trouble_reading
from hf_smoothing.certification.classifiers import ResolvedClassifier, check_own_precision, resolve_classifier
from hf_smoothing.certification.completion import state_images, take_back_statement, telling_what_is_kept
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.identity import recorded_answer
from hf_smoothing.certification.images import check_selection, is_stream, reading_facts
from hf_smoothing.certification.labels import warn_other_classes
from hf_smoothing.certification.missing import MissingImages
from hf_smoothing.certification.options import (
    ExecutionOptions,
    RunOptions,
    RunRuleOptions,
    documented,
    filled,
    options_in,
)
from hf_smoothing.certification.ranks import Ranks, open_writer, ranks_of_run
from hf_smoothing.certification.rounds import vote_in_rounds
from hf_smoothing.certification.rows import PARTIAL_SECONDS, RowKeeper
from hf_smoothing.certification.rules import make_rule
from hf_smoothing.certification.survey import check_recorded, first_images, read_again
from hf_smoothing.certification.tally import Tally
from hf_smoothing.keywords import SIGMA, needs
from hf_smoothing.pixels import warn_other_framing
from hf_smoothing.progress import progress_of
from hf_smoothing.records import Run, check_writable, read_run
from hf_smoothing.statistics import check_whole, exact_text
from hf_smoothing.types import Classifier, Images
from hf_smoothing.units import check_seconds


@needs(sigma=SIGMA)
@documented(RunOptions)
def certify_dataset(
    classifier: Classifier,
    dataset: Images,
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
        progress: Show progress on the main rank: a bar, or in a log file a line every 30 seconds.
        partial_seconds: Seconds between two savings of unfinished images; 0 saves after every round. A kill loses at most
            this much work on them, give or take one round.
        {options}

    Returns:
        The run, with the rows of all ranks.

    Raises:
        TypeError: If `dataset` gives no images one by one, or `sigma` is left out.
        ValueError: On an empty selection, bad pixels, a folder that holds another run, or ranks that are asked for different runs or read different images.
        OSError: If the folder cannot be written, or another rank is gone.
        KeyboardInterrupt: After Ctrl-C; what is done is kept, and the message says where.
    """
    with ranks_of_run(classifier) as ranks:
        complete = filled(RunOptions, options)
        rule = make_rule(sigma, **options_in(RunRuleOptions, complete))
        resolved = resolve_classifier(classifier)
        check_own_precision(resolved)
        chosen = check_selection(dataset, indices)
        warn_other_framing(resolved.module or classifier, dataset, stacklevel=4)
        warn_other_classes(resolved.module or classifier, dataset)
        check_seconds(partial_seconds, "partial_seconds")
        check_writable(output_dir)
        request = RunRequest(
            rule=rule,
            own_targets=complete["targets"] is not None,
            label_aware=complete["label_aware"],
            noise_kind=complete["noise_kind"],
            execution=Execution(**options_in(ExecutionOptions, complete)),
            chosen=chosen,
            seed=check_whole(seed, "seed"),
            description=description,
            recorded_answer=recorded_answer(output_dir),
        )
        check_same_request(ranks, output_dir, chosen, description, request.facts())
        _certify(ranks, resolved, dataset, output_dir, request, progress, partial_seconds)
    return read_run(output_dir)


def _certify(
    ranks: Ranks,
    classifier: ResolvedClassifier,
    dataset: Images,
    output_dir: str | os.PathLike[str],
    request: RunRequest,
    progress: bool,
    partial_seconds: float,
) -> None:
    """Certify what the ranks are asked for, which is the same on all."""
    first = ranks.rank == 0
    agreed = ranks.from_first(lambda: agree(classifier, dataset, request))
    stream = agreed.stream_of(classifier)
    # Before the folder is made. The further images are compared with one another as they are drawn for.
    ranks.exchange(lambda: None if first else check_same(classifier, stream, agreed.settings, request.execution))
    seen = agreed.survey.seen if first else read_again(dataset, request.chosen, first_images(agreed.survey.seen))
    check_same_images(ranks, first_images(seen), lambda: trouble_reading(dataset, request.chosen))
    with open_writer(ranks, output_dir, agreed.settings, agreed.survey, dataset) as writer:
        before = read_run(output_dir)
        if agreed.chosen is None or is_stream(dataset):
            ranks.wait()  # all ranks must plan from the same rows, before any adds one
        else:
            recorded, seen = agreed.chosen, dict(seen)
            # Ranks compare what they read with one another, so one of them is enough.
            ranks.from_first(lambda: check_recorded(dataset, recorded, before, seen))
        # No rank writes a row of an image that is not recorded before all have drawn for it, so one of them is in time.
        begin = functools.partial(take_back_statement, output_dir) if first else (lambda: None)
        missing = MissingImages(dataset, agreed.chosen, before, agreed.noise_kind, seen, begin)
        keeper = RowKeeper(writer, agreed.rule, (ranks.rank, ranks.count), partial_seconds)
        images = None if agreed.chosen is None else len(agreed.chosen)
        tally = Tally(before, images, agreed.rule.stage_ends[-1], request.label_aware)
        title, shown = f"Certifying at sigma {exact_text(agreed.rule.sigma)}", progress and first
        rounds = vote_in_rounds(
            classifier, keeper.in_turn(missing), agreed.rule, stream,
            execution=agreed.execution, ranks=ranks, classes=agreed.survey.classes, trouble=missing.trouble,
        )  # fmt: skip
        with (
            telling_what_is_kept(output_dir, images),
            progress_of(title, tally.total, "draw", initial=tally.draws, shown=shown) as bar,
            contextlib.closing(rounds),  # leaves the network as it was found
        ):
            for touched in rounds:
                finished = keeper.keep(touched)
                bar.update(tally.see(touched, finished), total=tally.total, **tally.facts())
            if missing.unreadable is not None:
                raise missing.unreadable
    ranks.wait()  # the rows of all ranks are written
    counted = {} if request.chosen is not None else {"num_images": missing.total}
    ranks.from_first(lambda: state_images(output_dir, **reading_facts(dataset, request.chosen), **counted))
