"""What the ranks of a run agree on before the first draw: found on rank 0, which reads the first images, and used by all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_smoothing.certification.behaviour import Answer, answer_to_probe
from hf_smoothing.certification.classifiers import ResolvedClassifier
from hf_smoothing.certification.execution import Execution, probe_batch_size
from hf_smoothing.certification.identity import differences_from
from hf_smoothing.certification.images import checked_items, reading_facts
from hf_smoothing.certification.noise_kinds import NoiseStream, choose_noise, make_stream, noise_facts
from hf_smoothing.certification.rules import FixedRule, SequentialRule, rule_on
from hf_smoothing.certification.settings import run_settings
from hf_smoothing.certification.survey import AHEAD, Survey, survey
from hf_smoothing.types import Images


PROBE_DRAWS = 200_000
"""A run of fewer draws is over before the trial of batch sizes has paid."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked for, checked on every rank before any image is read.

    Attributes:
        rule: The rule, for any images.
        own_targets: Whether the user chose the rule's targets.
        label_aware: Whether only the true labels are tested.
        noise_kind: One of "auto", "grid" and "gaussian".
        execution: How the network is run; its batch size may be left open.
        chosen: Indices of the images; None for all of a stream.
        seed: Seed of the noise generator.
        description: Further facts for `run.json`.
        recorded_answer: What the classifier of a run that is there answered to the probe; empty without one.
    """

    rule: FixedRule | SequentialRule
    own_targets: bool
    label_aware: bool
    noise_kind: str
    execution: Execution
    chosen: list[int] | None
    seed: int
    description: Mapping[str, Any] | None
    recorded_answer: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """What decides the rows, in which the ranks of a run must not differ."""
        decided = self.rule.to_dict()
        decided["rule"] = {key: value for key, value in decided["rule"].items() if key != "looks"}  # follow from n
        return {
            **decided,
            "label_aware": self.label_aware,
            "noise_kind": self.noise_kind,
            **self.execution.to_dict(),
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Agreement:
    """What the ranks of a run agree on.

    Attributes:
        settings: The content of `run.json`.
        survey: What is known of the images.
        chosen: Indices of the images, where all were read of those that can be; None for all of a stream.
        rule: The rule as these images and their noise make it.
        noise_kind: One of "grid" and "gaussian".
        seed: Seed of the noise generator.
        execution: How the network is run, with a batch size.
    """

    settings: dict[str, Any]
    survey: Survey
    chosen: list[int] | None
    rule: FixedRule | SequentialRule
    noise_kind: str
    seed: int
    execution: Execution

    def stream_of(self, classifier: ResolvedClassifier) -> NoiseStream:
        """The noise of the run, on the device of this rank's classifier."""
        return _stream(self.noise_kind, self.seed, self.survey, classifier, self.rule.sigma)


def agree(classifier: ResolvedClassifier, dataset: Images, request: RunRequest) -> Agreement:
    """Read the first images, choose their noise and the batch size, and state the run; nothing is written.

    Raises:
        ValueError, TypeError: As `survey`, `choose_noise` and `answer_to_probe`; on images without labels in a label-aware run.
    """
    if request.label_aware:  # found on the first image where it is there, before all are read
        _, first = next(checked_items(dataset, request.chosen), (None, {"labels": 0}))
        _check_labelled(first.get("labels") is not None)

    def answer_of(shape: tuple[int, ...]) -> Answer:
        return answer_to_probe(classifier, shape, request.execution, known=request.recorded_answer)

    surveyed = survey(dataset, request.chosen, AHEAD, answer_of)
    if request.label_aware:
        _check_labelled(surveyed.labelled)
    kind = choose_noise(request.noise_kind, surveyed.off_grid)
    stream = _stream(kind, request.seed, surveyed, classifier, request.rule.sigma)
    rule = rule_on(request.rule, stream, chosen=request.own_targets)
    execution, speeds = _with_batch_size(classifier, surveyed, request)
    logger.info(
        "Certifying at %s (channels, height, width), %s noise, sigma %s.", surveyed.resolution, kind, rule.sigma
    )
    chosen = request.chosen if surveyed.indices is None else surveyed.indices
    informative = {"images_per_second_by_batch_size": speeds} if speeds else {}
    settings = run_settings(
        classifier, surveyed, request.chosen, rule, stream, execution, description=request.description,
        informative=informative | reading_facts(dataset, request.chosen),
    )  # fmt: skip
    return Agreement(settings, surveyed, chosen, rule, kind, request.seed, execution)


def check_same(
    classifier: ResolvedClassifier, stream: NoiseStream, settings: Mapping[str, Any], execution: Execution
) -> None:
    """Refuse a rank with another network than the run names, or other noise; batch-norm statistics differ after distributed training.

    Raises:
        ValueError: The message names what differs.
    """
    facts = noise_facts(stream)
    if any(settings[key] != value for key, value in facts.items()):
        raise ValueError(
            f"All ranks of a run must draw their noise alike, but rank 0 is on {settings['noise_drawn_by']} and this one on {facts['noise_drawn_by']}."
        )
    if differing := differences_from(classifier, settings["model"], stream.shape, execution):
        raise ValueError(
            f"The classifier of this rank is not that of rank 0: {differing}. After distributed training save the model "
            "on one rank and load it on all."
        )


def _stream(kind: str, seed: int, surveyed: Survey, classifier: ResolvedClassifier, sigma: float) -> NoiseStream:
    return make_stream(kind, seed=seed, shape=surveyed.resolution, device=classifier.device, sigma=sigma)


def _with_batch_size(
    classifier: ResolvedClassifier, surveyed: Survey, request: RunRequest
) -> tuple[Execution, dict[str, int]]:
    if request.chosen is not None and len(request.chosen) * request.rule.stage_ends[-1] < PROBE_DRAWS:
        return request.execution, {}
    return probe_batch_size(classifier, surveyed.resolution, request.execution)


def _check_labelled(labelled: bool) -> None:
    if not labelled:
        raise ValueError(
            "Label-aware evaluation needs the true class of every image, but there are images without 'labels'. Use a labelled split, or "
            "leave label_aware out."
        )
