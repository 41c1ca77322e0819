"""Certify a data set into a run folder: many ranks, a progress bar, resumable after any kill."""

from __future__ import annotations

import datetime
import operator
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor
from tqdm.auto import tqdm

from hf_smoothing.certification.identity import classifier_identity
from hf_smoothing.certification.rounds import check_batch_size, vote_in_rounds
from hf_smoothing.certification.rules import Certificate, FixedRule, Votes
from hf_smoothing.certification.sampling import autocast, classifier_device, resolve_classifier
from hf_smoothing.certification.settings import check_selection, generator_name, run_settings
from hf_smoothing.pixels import to_unit_pixels
from hf_smoothing.records import Row, Run, RunWriter, read_run
from hf_smoothing.statistics import exact_text


PARTIAL_SECONDS = 5.0
"""At most this much work on an unfinished image is lost by a kill, give or take one round."""


def certify_dataset(
    classifier: Any,
    dataset: Any,
    output_dir: str | os.PathLike[str],
    *,
    sigma: float,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    dtype: str = "float32",
    description: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Run:
    """Certify images of a data set and record one row an image; call it again to resume a run that was cut off.

    Under `accelerate launch` or `torchrun` the images are shared out over the ranks. The rows do not depend on the number
    of ranks, the batch size, or where the run was interrupted.

    Args:
        classifier: as in `certify`.
        dataset: map-style; `dataset[i]` is a mapping with "pixel_values", (channels, height, width) uint8 or float
            in [0, 1] at the certified resolution, and if known "labels", an integer. See `hf_smoothing.PixelDataset`.
        output_dir: the run folder, created or resumed.
        sigma, n0, n, alpha: as in `FixedRule`.
        indices: which images, all by default. They identify the images in the rows and in the noise.
        seed: of the noise.
        batch_size, dtype: as in `certify`.
        description: further JSON facts for `run.json`, such as {"model": {"id": ...}, "dataset": {"id": ...}}.
        progress: show a bar on the main rank.

    Returns:
        the run, with the rows of all ranks.

    Raises:
        ValueError: on an empty selection, bad pixels, or a folder that holds another run.
        OSError: if the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C; what is done is kept, and the message says where.
    """
    rule = FixedRule(sigma=sigma, n0=n0, n=n, alpha=alpha)
    resolve_classifier(classifier)
    device = classifier_device(classifier)
    check_batch_size(batch_size, device)
    autocast(device, dtype)
    chosen = check_selection(dataset, indices)
    state = process_state(cpu=device.type == "cpu")
    facts: list[Any] = [None]
    if state.is_main_process:
        facts = [run_settings(classifier, dataset, chosen, rule, seed=seed, dtype=dtype, description=description)]
        writer = RunWriter(output_dir, facts[0])
    if state.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(facts)
    if not state.is_main_process:
        _check_same_classifier(classifier, facts[0])
        writer = RunWriter(output_dir, facts[0], rank=state.process_index)
    with writer:
        before = read_run(output_dir)
        state.wait_for_everyone()  # all ranks must plan from the same rows, before any adds one
        todo = [index for index in chosen if index not in before.rows]
        mine = todo[state.process_index :: state.num_processes]
        bar = tqdm(
            total=len(mine) + (len(chosen) - len(todo)),
            initial=len(chosen) - len(todo),
            desc=f"Certifying at sigma {exact_text(sigma)}",
            unit="image",
            disable=not (progress and state.is_main_process),
        )
        try:
            pending = _pending(dataset, mine, before)
            rounds = vote_in_rounds(classifier, pending, rule, seed=seed, batch_size=batch_size, dtype=dtype)
            _record(rounds, rule, writer, bar, certified=sum(row["radius"] > 0 for row in before.rows.values()))
        except KeyboardInterrupt:
            # Said by the exception itself, so that it is seen wherever it ends: a log may go nowhere.
            done = len(read_run(output_dir).rows)
            raise KeyboardInterrupt(
                f"Interrupted: {done} of {len(chosen)} images are done and kept in {output_dir}. The same command resumes."
            ) from None
        finally:
            bar.close()
    state.wait_for_everyone()
    return read_run(output_dir)


def process_state(cpu: bool = False) -> PartialState:
    """Ranks and device of this process, also for several ranks on a CPU.

    Args:
        cpu: compute on the CPU although there is an accelerator.
    """
    # Without cpu=True, accelerate takes each process that torchrun starts on a machine without a GPU for a run of its own.
    forced = cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    # Ranks wait for each other while one of them hashes the data set, and at the end: hours are no sign of a fault.
    return PartialState(cpu=forced or not torch.accelerator.is_available(), timeout=datetime.timedelta(days=7))


def _check_same_classifier(classifier: Any, settings: Mapping[str, Any]) -> None:
    """Every rank must certify the network that the run names; batch-norm statistics differ after distributed training."""
    drawn_by = generator_name(classifier_device(classifier))
    if settings["noise"]["drawn_by"] != drawn_by:
        raise ValueError(
            f"All ranks of a run must draw their noise alike, but rank 0 is on {settings['noise']['drawn_by']} and this one on {drawn_by}."
        )
    mine = classifier_identity(classifier)
    differing = [key for key, value in mine.items() if settings["model"].get(key) != value]
    if differing:
        raise ValueError(
            f"The classifier of this rank is not that of rank 0: {', '.join(differing)} differ. After distributed training save the model "
            "on one rank and load it on all."
        )


def _pending(dataset: Any, indices: Sequence[int], before: Run) -> Iterator[tuple[Votes, Tensor]]:
    for index in indices:
        item = dataset[index]
        label = item.get("labels")
        votes = Votes(index, None if label is None else operator.index(label))
        if index in before.partials:
            row = before.partials[index]
            looks = [_dense(look, row["num_labels"]) for look in row["looks"]]
            votes = Votes(index, votes.label, looks, row["draws"], row["seconds"])
        yield votes, to_unit_pixels(item["pixel_values"][None], f"image {index}")[0]


def _record(rounds: Iterator[list[Votes]], rule: FixedRule, writer: RunWriter, bar: Any, certified: int) -> None:
    saved = time.monotonic()
    bar.set_postfix(certified=certified)
    for touched in rounds:
        late = time.monotonic() - saved > PARTIAL_SECONDS
        for votes in touched:
            if not rule.segments(votes.drawn):
                certificate = rule.decide(votes)
                writer.append(certificate_row(certificate))
                certified += certificate.radius > 0
                bar.update()
            elif late:
                writer.append(_partial_row(votes))
        if late:
            saved = time.monotonic()
        bar.set_postfix(certified=certified)


def certificate_row(certificate: Certificate) -> Row:
    """A finished line of a run folder."""
    return {
        "index": certificate.index,
        "label": certificate.label,
        "prediction": certificate.prediction,
        "radius": certificate.radius,
        "p_lower": certificate.p_lower,
        "draws": certificate.draws,
        "looks": [_sparse(np.asarray(look)) for look in certificate.looks],
        "seconds": round(certificate.seconds, 4),
    }


def _partial_row(votes: Votes) -> Row:
    return {
        "index": votes.index,
        "partial": True,
        "draws": votes.drawn,
        "num_labels": len(votes.looks[0]),
        "looks": [_sparse(look) for look in votes.looks],
        "seconds": round(votes.seconds, 4),
    }


def _sparse(counts: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, int]:
    return {str(k): int(counts[k]) for k in np.flatnonzero(counts)}


def _dense(counts: Mapping[str, int], num_labels: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    dense = np.zeros(num_labels, dtype=np.int64)
    for label, count in counts.items():
        dense[int(label)] = count
    return dense
