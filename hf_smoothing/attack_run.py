"""Trying to break the certificates of a run: an attack inside each certified radius."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from scipy import stats
from torch import Tensor, nn

from hf_smoothing.allocator import memory_kept
from hf_smoothing.attacks import Norm, distance, pgd, round_to_grid, smoothed_logits
from hf_smoothing.certification import predict
from hf_smoothing.certification.classifiers import ResolvedClassifier, resolve_classifier, run_dtype
from hf_smoothing.certification.identity import check_network_of_run
from hf_smoothing.certification.images import is_stream
from hf_smoothing.certification.rows import recorded_pixels
from hf_smoothing.data.selection import spread
from hf_smoothing.noise import fresh_seed
from hf_smoothing.pixels import to_unit_pixels, without_tolerance
from hf_smoothing.progress import progress_of
from hf_smoothing.records import Run, RunError
from hf_smoothing.statistics import ABSTAIN, check_alpha, check_whole
from hf_smoothing.types import Classifier, ImageDataset


# A certificate holds in the open ball, so the attack stays this much inside it.
_INSIDE = 1.0 - 1e-6


ATTACK_FILE = "attack.json"


@dataclass(frozen=True)
class Attacked:
    """What became of one certificate.

    Attributes:
        index: Index of the image within the run.
        certified: The class that the certificate promises.
        radius: Radius up to which it does.
        distance: Distance of the attacked image in the norm of the certificate, after rounding to the grid where the
            noise is on it.
        answer: Answer of the certified classifier there, or `ABSTAIN` where `predict` cannot decide.
        draws: Number of draws that this answer took; 0 where the certificate is deterministic.
    """

    index: int
    certified: int
    radius: float
    distance: float
    answer: int
    draws: int

    @property
    def broken(self) -> bool:
        """True if the certified classifier gives another class than the certificate promises."""
        return self.answer not in (self.certified, ABSTAIN)


@memory_kept()
def attack_run(
    classifier: Classifier,
    dataset: ImageDataset,
    run: Run,
    *,
    steps: int = 20,
    restarts: int = 1,
    copies: int = 16,
    n: int = 10_000,
    alpha: float = 0.001,
    max_images: int | None = None,
    images_per_batch: int = 16,
    seed: int | None = None,
    progress: bool = True,
) -> list[Attacked]:
    """Attack inside the certified radius of each image by PGD, and ask the certified classifier there.

    For smoothing the l2 attack climbs the soft smoothed classifier, and a certificate counts as broken only if `predict` answers with
    another class, so at most alpha of the true certificates are called broken by mistake. For deterministic certificates the
    l-infinity attack climbs the network itself, whose answer in float64 decides.

    Args:
        classifier, dataset: Classifier and data set of the run.
        run: Run from `read_run`.
        steps: Number of steps of the attack.
        restarts: Number of ascents per image, of which the best counts; 1 for smoothing, whose noise is fresh at every step.
        copies: Number of noisy copies over which a gradient is averaged, for smoothing as the next two.
        n: Maximum number of draws for each answer.
        alpha: Failure probability of each answer.
        max_images: Certificates to attack, all that have a positive radius by default; evenly spread over the run otherwise.
        images_per_batch: Images attacked together.
        seed: Seed of the attack and the answers; fresh by default.
        progress: Show progress: a bar, or in a log file a line every 30 seconds.

    Raises:
        RunError: If the run has no certificates (label-aware evaluation has none), or belongs to another classifier.
        ValueError: On arguments out of range, or if the run's images are not those of the data set.

    Source: Salman et al. (2019), arXiv 1906.04584 (the attack); for rounding, the threat model in `noise.grid`.
    """
    resolved = resolve_classifier(classifier)
    settings = run.settings
    if settings.get("label_aware"):
        raise RunError(
            f"{run.path} was measured label-aware, so it holds no certificates to attack. Certify without label_aware."
        )
    if settings.get("deterministic"):
        from hf_smoothing.interval.classifier import interval_classifier

        resolved = interval_classifier(cast(nn.Module, classifier))  # interval bounds certify modules alone
    check_network_of_run(resolved, run)
    if is_stream(dataset):
        raise ValueError(
            "Attacking needs a data set with indices, dataset[i], got a stream. Load it without streaming."
        )
    sizes = {
        "copies": copies,
        "n": n,
        "images_per_batch": images_per_batch,
        "max_images": 1 if max_images is None else max_images,
    }
    for name, value in sizes.items():
        if check_whole(value, name) < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    check_alpha(alpha)
    chosen = [index for index in sorted(run.rows) if run.rows[index]["radius"] > 0]
    if not chosen:
        raise RunError(f"{run.path} has no certificate with a positive radius, so there is nothing to attack.")
    if max_images is not None and max_images < len(chosen):
        chosen = [chosen[place] for place in spread(max_images, len(chosen))]
    images = [to_unit_pixels(recorded_pixels(dataset, run, index)[None]) for index in chosen]
    if settings.get("deterministic"):
        images = [without_tolerance(image) for image in images]  # as they were certified
    if restarts != 1 and not settings.get("deterministic"):
        raise ValueError(
            f"`restarts` is for deterministic certificates, got {restarts} for smoothed ones, whose noise is fresh at every step. Raise `steps`."
        )
    key = fresh_seed(seed)
    generator = torch.Generator(resolved.device).manual_seed(key % (1 << 63))
    if settings.get("deterministic"):
        runs = settings["rule"]["covers_run"]
        attack = _network_attack(cast(nn.Module, classifier), steps, restarts, generator, runs)
    else:
        attack = _smoothed_attack(resolved, settings, steps, copies, n, alpha, key, generator)
    norm: Norm = settings.get("norm", "l2")
    found: list[Attacked] = []
    with progress_of("Attacking", len(chosen), "certificate", shown=progress) as bar:
        for first in range(0, len(chosen), images_per_batch):
            rows = [run.rows[index] for index in chosen[first : first + images_per_batch]]
            clean = torch.cat(images[first : first + len(rows)]).to(resolved.device)
            radii = (
                torch.tensor([row["radius"] for row in rows], dtype=torch.float64, device=resolved.device) * _INSIDE
            )
            points, answers = attack(clean, radii, rows)
            for row, how_far, (answer, draws) in zip(
                rows, distance(points, clean, norm).tolist(), answers, strict=True
            ):
                found.append(Attacked(row["index"], row["prediction"], row["radius"], how_far, answer, draws))
            bar.update(len(rows), broken=sum(item.broken for item in found))
    return found


_Attack = Callable[[Tensor, Tensor, Sequence[dict[str, Any]]], tuple[Tensor, list[tuple[int, int]]]]
"""(clean images, radii, their rows) -> (attacked images, (answer, draws) of each)."""


def _smoothed_attack(
    classifier: ResolvedClassifier,
    settings: dict[str, Any],
    steps: int,
    copies: int,
    n: int,
    alpha: float,
    key: int,
    generator: torch.Generator,
) -> _Attack:
    soft = smoothed_logits(classifier, settings["sigma"], copies, generator)
    noise_kind = settings["noise_kind"]

    def attack(clean: Tensor, radii: Tensor, rows: Sequence[dict[str, Any]]) -> tuple[Tensor, list[tuple[int, int]]]:
        # The noise is fresh at every step, so the last point is worth more than the one whose draws were luckiest.
        points = pgd(soft, clean, _classes(rows, clean), epsilon=radii, steps=steps, generator=generator, keep="last")
        points = round_to_grid(points, clean, radii, "l2") if noise_kind == "grid" else points
        answers = predict(
            classifier, points, sigma=settings["sigma"], n=n, alpha=alpha, noise_kind=noise_kind, dtype=settings["dtype"],
            channels_last=settings["channels_last"], compile=settings["compile"], seed=key, indices=[row["index"] for row in rows],
        )  # fmt: skip
        return points, [(answer.prediction, answer.draws) for answer in answers]

    return attack


def _network_attack(
    classifier: nn.Module, steps: int, restarts: int, generator: torch.Generator, runs: bool
) -> _Attack:
    """The answer in float64; where that is as claimed and the certificates are for `runs` in the network's dtype, that of a run.

    A network that asks for a dtype of its own on its way may only be run as it is.
    """
    from hf_smoothing.interval.classifier import interval_classifier

    run, dtype = interval_classifier(classifier), run_dtype(classifier)
    exact = interval_classifier(copy.deepcopy(classifier).double())

    def climbed(points: Tensor) -> Tensor:
        return run(points.to(dtype, copy=True))  # a network may change its pixels in place

    def exactly(points: Tensor) -> Tensor:
        try:
            return exact(points.to(torch.float64, copy=True))
        except RuntimeError as error:
            if runs and not isinstance(error, torch.OutOfMemoryError):
                return climbed(points)
            raise ValueError(
                f"These certificates are for real arithmetic, so the network must run in float64 to be attacked, and its copy there fails: {error}"
            ) from error

    def attack(clean: Tensor, radii: Tensor, rows: Sequence[dict[str, Any]]) -> tuple[Tensor, list[tuple[int, int]]]:
        claimed = _classes(rows, clean)
        points = pgd(
            climbed, clean, claimed, epsilon=radii, norm="linf", steps=steps, restarts=restarts, generator=generator,
        )  # fmt: skip
        with torch.no_grad():
            answers = exactly(points).argmax(dim=1)
            if runs:
                answers = torch.where(answers == claimed, climbed(points).argmax(dim=1), answers)
        return points, [(answer, 0) for answer in answers.tolist()]

    return attack


def _classes(rows: Sequence[dict[str, Any]], like: Tensor) -> Tensor:
    return torch.tensor([row["prediction"] for row in rows], device=like.device)


def allowed_failures(certificates: int, alpha: float) -> int:
    """The largest number of false ones among this number of true-to-alpha certificates that chance explains, in 999 of 1000 attacks.

    >>> allowed_failures(200, 0.001)
    3
    """
    return int(stats.binom.ppf(0.999, certificates, check_alpha(alpha)))


def summary(found: Sequence[Attacked], run: Run, *, alpha: float, **how: Any) -> dict[str, Any]:
    """The figures of an attack, as plain JSON values.

    Args:
        found: Results of `attack_run`.
        run: The run that was attacked.
        alpha: Failure probability of the answers.
        how: Further settings of the attack, to be kept with its figures.
    """
    exact = run.settings.get("deterministic", False)
    promised = 0.0 if exact else run.settings["alpha"]
    return {
        "certificates": len(found),
        "broken": sum(item.broken for item in found),
        "undecided": sum(item.answer == ABSTAIN for item in found),
        "allowed_by_chance": 0 if exact else allowed_failures(len(found), min(promised + alpha, 0.5)),
        "alpha_of_certificates": promised,
        "alpha_of_answers": 0.0 if exact else alpha,
        "mean_distance_over_radius": sum(item.distance / item.radius for item in found) / len(found),
        **how,
        "draws": sum(item.draws for item in found),
        "rows": [asdict(item) | {"broken": item.broken} for item in found],
    }


def write_summary(figures: dict[str, Any], run: Run) -> Path:
    """Keep the figures of an attack beside the rows of the run: as attack.json, or attack-2.json and so on where there are some already.

    Returns:
        The file.
    """
    for number in itertools.count(1):
        file = run.path / (ATTACK_FILE if number == 1 else f"attack-{number}.json")
        with contextlib.suppress(FileExistsError), open(file, "x", encoding="utf-8") as stream:
            stream.write(json.dumps(figures, indent=1) + "\n")
            break
    return file
