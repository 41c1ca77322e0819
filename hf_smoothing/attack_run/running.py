"""An attack inside each certified radius of a run."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from hf_smoothing.allocator import memory_kept
from hf_smoothing.attack_run.attackers import Attacker
from hf_smoothing.attack_run.figures import Attacked
from hf_smoothing.attack_run.smoothed import SmoothedAttacker
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.identity import check_network_of_run
from hf_smoothing.certification.images import is_stream
from hf_smoothing.certification.rows import recorded_pixels
from hf_smoothing.data.selection import spread
from hf_smoothing.noise import fresh_seed
from hf_smoothing.progress import progress_of
from hf_smoothing.records import Run, RunError, check_settings
from hf_smoothing.statistics import check_alpha, check_whole
from hf_smoothing.types import Classifier, ImageDataset


INSIDE = 1.0 - 1e-6
"""A certificate holds in the open ball, so the attack stays this share of its radius inside it."""


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
    l-infinity attack climbs the network itself, in the float64 ball around the image as it was bounded. There the function that was bounded
    answers, in float64 with its constants as the network has them in its own dtype, and so does a run of the network where the certificates are for runs.

    Args:
        classifier, dataset: Classifier and data set of the run.
        run: Run from `read_run`.
        steps: Number of steps of the attack.
        restarts: Number of ascents per image, of which the best counts; 1 for smoothing, whose noise is fresh at every step.
        copies: Number of noisy copies over which a gradient is averaged, for smoothing as the next two, of which a deterministic attack takes no notice.
        n: Maximum number of draws for each answer.
        alpha: Failure probability of each answer.
        max_images: Certificates to attack, all that have a positive radius by default; evenly spread over the run otherwise.
        images_per_batch: Images attacked together.
        seed: Seed of the attack and the answers; fresh by default.
        progress: Show progress: a bar, or in a log file a line every 30 seconds.

    Raises:
        RunError: If the run has no certificates (label-aware evaluation has none), does not say what each run folder says, or belongs to another classifier.
        TypeError: If `dataset` gives no images one by one.
        ValueError: On arguments out of range, or if the run's images are not those of the data set.

    Source: Salman et al. (2019), arXiv 1906.04584 (the attack); for rounding, the threat model in `noise.grid`.
    """
    if is_stream(dataset):
        raise ValueError(
            "Attacking needs a data set with indices, dataset[i], got a stream. Load it without streaming."
        )
    check_settings(run)
    if run.settings.get("label_aware"):
        raise RunError(
            f"{run.path} was measured label-aware, so it holds no certificates to attack. Certify without label_aware."
        )
    attacker = _attacker_of(
        classifier, run, steps=steps, restarts=restarts, copies=copies, n=n, alpha=alpha, seed=fresh_seed(seed)
    )
    check_network_of_run(attacker.classifier, run)
    _check_at_least_one(images_per_batch=images_per_batch, max_images=1 if max_images is None else max_images)
    chosen = [index for index in sorted(run.rows) if run.rows[index]["radius"] > 0]
    if not chosen:
        raise RunError(f"{run.path} has no certificate with a positive radius, so there is nothing to attack.")
    if max_images is not None and max_images < len(chosen):
        chosen = [chosen[place] for place in spread(max_images, len(chosen))]
    images = [recorded_pixels(dataset, run, index)[None] for index in chosen]
    found: list[Attacked] = []
    device = attacker.classifier.device
    with progress_of("Attacking", len(chosen), "certificate", shown=progress) as bar:
        for first in range(0, len(chosen), images_per_batch):
            rows = [run.rows[index] for index in chosen[first : first + images_per_batch]]
            centres = torch.cat([attacker.centre(image) for image in images[first : first + len(rows)]]).to(device)
            radii = torch.tensor([row["radius"] for row in rows], dtype=torch.float64, device=device) * INSIDE
            points, answers = attacker.attack(centres, radii, rows)
            distances = attacker.distances(points, centres).tolist()
            for row, how_far, (answer, draws) in zip(rows, distances, answers, strict=True):
                found.append(Attacked(row["index"], row["prediction"], row["radius"], how_far, answer, draws))
            bar.update(len(rows), broken=sum(item.broken for item in found))
    return found


def _attacker_of(
    classifier: Classifier, run: Run, *, steps: int, restarts: int, copies: int, n: int, alpha: float, seed: int
) -> Attacker:
    """What attacks the certificates of this run."""
    _check_at_least_one(steps=steps, restarts=restarts, copies=copies, n=n)
    check_alpha(alpha)
    if run.settings.get("deterministic"):
        from hf_smoothing.attack_run.deterministic import DeterministicAttacker

        network = cast(nn.Module, classifier)  # interval bounds certify modules alone
        covers_run = run.settings["rule"]["covers_run"]
        return DeterministicAttacker(network, covers_run=covers_run, steps=steps, restarts=restarts, seed=seed)
    if restarts != 1:
        raise ValueError(
            f"`restarts` is for deterministic certificates, got {restarts} for smoothed ones, whose noise is fresh at every step. Raise `steps`."
        )
    resolved = resolve_classifier(classifier)
    return SmoothedAttacker(resolved, run.settings, steps=steps, copies=copies, n=n, alpha=alpha, seed=seed)


def _check_at_least_one(**numbers: int) -> None:
    for name, value in numbers.items():
        if check_whole(value, name) < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
