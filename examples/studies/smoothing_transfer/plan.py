"""From a configuration to the list of stages, in the order in which they are run: the cells of the claims first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from examples.studies.stages import Stage


CLAIM_CELLS = (
    ("mixture", "clean"), ("mixture", "mixture"), ("clean", "clean"), ("clean", "mixture"),
    ("0.25", "0.25"), ("0.5", "0.5"), ("1.0", "1.0"),
)  # fmt: skip
"""Pretraining and finetuning noise of the cells that carry a claim."""
SINGLE = ("0.25", "0.5", "1.0")


def plan(config: dict[str, Any]) -> list[Stage]:
    """All stages of a study; every need comes before the stage that has it."""
    if not config["sigmas"] or not config["seeds"]:
        raise ValueError("A study needs at least one sigma to certify at and one seed.")
    builders = [_Architecture(config, name, about) for name, about in config["architectures"].items()]
    full = [builder for builder in builders if builder.about["grid"] == "full"]
    rest = [builder for builder in builders if builder.about["grid"] != "full"]
    shipped = [builder for builder in rest if "backbones" in builder.about]
    first, *others = config["seeds"]

    def claims(some: list[_Architecture], seeds: list[int]) -> list[Iterator[Stage]]:
        return [
            builder.cell(cell[0], cell[1], seed)
            for seed in seeds
            for builder in some
            if seed in builder.seeds
            for cell in builder.claims
        ]

    order = claims(full, [first])
    for builder in builders:
        if builder.about["protocols"]:
            ways = [*builder.about["protocols"], *builder.about["clean_candidates"]]
            order += [builder.protocol("mixture", name) for name in ways]
    order += claims(shipped, [first]) + claims(full, others) + claims(shipped, others) + claims(rest, [first])
    for builder in builders:
        order += [builder.protocol("clean", name) for name in builder.about.get("clean_protocols", [])]
    order += [builder.headline(*cell) for builder in full for cell in config["headline"]["cells"]]
    order += [builder.cell(*cell, first) for builder in full for cell in builder.grid()]
    order += [
        builder.ablation(name, finetuning)
        for finetuning in config["ablation_finetuning"]
        for builder in full
        for name in config["ablation"]
    ]
    order += claims(rest, others)
    stages: dict[str, Stage] = {}
    for group_of_stages in order:
        for stage in group_of_stages:
            stages.setdefault(stage.name, stage)
    return list(stages.values())


def rule(settings: dict[str, Any]) -> dict[str, Any]:
    """The rule of a certification, as `make_rule` takes it.

    Targets are 0 and its multiples of "targets_every", or of sigma / "targets_per_sigma", up to "targets_up_to" times sigma.
    """
    sigma: float = settings["sigma"]
    step: float = settings["targets_every"] if "targets_every" in settings else sigma / settings["targets_per_sigma"]
    targets = [round(step * k, 6) for k in range(round(settings["targets_up_to"] * sigma / step) + 1)]
    return {"targets": targets, **{key: settings[key] for key in ("sigma", "n", "alpha", "label_aware")}}


class _Architecture:
    """The stages of one architecture; each method yields a stage after those that it needs."""

    def __init__(self, config: dict[str, Any], name: str, about: dict[str, Any]) -> None:
        self.config, self.name, self.about = config, name, about
        self.pretrainings = ["none", *config["noises"]]
        self.seeds: list[int] = about.get("seeds", config["seeds"])
        known = set(config["noises"])
        self.claims = [tuple(cell) for cell in about.get("cells", CLAIM_CELLS) if set(cell) <= known]
        if about["grid"] == "full":
            self.claims += [("mixture", name) for name in config["more_finetuning"]]

    def grid(self) -> list[tuple[str, str]]:
        """Pretraining x finetuning."""
        return [(first, second) for first in self.pretrainings for second in self.config["noises"]]

    def pretrain(self, pretraining: str, seed: int) -> Iterator[Stage]:
        if pretraining == "none":
            return
        noise = (self.config["noises"] | self.config["ablation"])[pretraining]
        name = f"pretrain/{self.name}/{folder(pretraining)}/seed{seed}"
        if "backbones" in self.about:  # trained elsewhere: one, whatever the seed of the finetuning
            first = self.config["seeds"][0]
            name = f"pretrain/{self.name}/{folder(pretraining)}/seed{first}"
            yield Stage(name, "adopt", {"backbone": self.about["backbones"][pretraining]})
            return
        yield Stage(
            name,
            "pretrain",
            {
                **self._common(seed),
                "noise": noise,
                "data": self.config["data"]["source"],
                "held_out": self.config["held_out"]["source"],
                "arguments": self.config["arguments"] | self.about["arguments"] | self.about["pretraining"],
            },
        )

    def finetune(self, pretraining: str, finetuning: str, candidate: str, seed: int) -> Iterator[Stage]:
        """One candidate of a cell."""
        before = list(self.pretrain(pretraining, seed))
        yield from before
        choices = self.candidates(finetuning) | self.about["protocols"]
        more = self.config["more_finetuning"].get(finetuning, {"arguments": {}})
        noise = more["noise"] if "noise" in more else self.config["noises"][finetuning]
        sigmas = [float(finetuning)] if finetuning in SINGLE else self.config["sigmas"]
        yield Stage(
            f"finetune/{self.name}/{folder(pretraining)}/{folder(finetuning)}/{folder(candidate)}/seed{seed}",
            "finetune",
            {
                **self._common(seed),
                "noise": noise,
                "data": self.config["data"]["target"],
                "held_out": self.config["held_out"]["target"],
                "arguments": self.config["arguments"]
                | self.about["arguments"]
                | self.config["finetuning"]
                | more["arguments"]
                | choices[candidate],
                "selection": self.config["selection"] | {"sigmas": sigmas},
            },
            tuple(stage.name for stage in before[-1:]),
        )

    def cell(self, pretraining: str, finetuning: str, seed: int) -> Iterator[Stage]:
        """A cell at every sigma. The first seed chooses the candidate, the others follow it."""
        first = self.config["seeds"][0]
        options: list[Stage] = []
        for candidate in self.candidates(finetuning):
            made = list(self.finetune(pretraining, finetuning, candidate, first))
            yield from made
            options.append(made[-1])
        needs = tuple(option.name for option in options)
        where = f"{self.name}/{folder(pretraining)}/{folder(finetuning)}"
        if seed != first:
            before = list(self.pretrain(pretraining, seed))
            yield from before
            settings = options[0].settings | {"seed": seed, "arguments": "as chosen"}
            follower = Stage(
                f"finetune/{where}/chosen/seed{seed}", "finetune", settings, (*(s.name for s in before[-1:]), *needs)
            )
            yield follower
            needs = (follower.name,)
        # Other seeds of a single-sigma model are needed at its own sigma only.
        alone = seed != first and finetuning in SINGLE
        yield from self._certify(where, seed, needs, "certification", [float(finetuning)] if alone else None)

    def protocol(self, pretraining: str, name: str) -> Iterator[Stage]:
        """Clean finetuning of the mixture (or clean) backbone by one protocol, whatever is chosen."""
        made = list(self.finetune(pretraining, "clean", name, self.config["seeds"][0]))
        yield from made
        where = f"{self.name}/{pretraining}/clean/{folder(name)}"
        yield from self._certify(where, self.config["seeds"][0], (made[-1].name,), "certification")

    def ablation(self, name: str, finetuning: str) -> Iterator[Stage]:
        """Another mixture in pretraining."""
        return self.cell(name, finetuning, self.config["seeds"][0])

    def headline(self, pretraining: str, finetuning: str) -> Iterator[Stage]:
        """A cell again, with the draws of the papers."""
        first = self.config["seeds"][0]
        options = [list(self.finetune(pretraining, finetuning, name, first)) for name in self.candidates(finetuning)]
        for option in options:
            yield from option
        where = f"{self.name}/{folder(pretraining)}/{folder(finetuning)}/headline"
        yield from self._certify(where, first, tuple(option[-1].name for option in options), "headline")

    def candidates(self, finetuning: str) -> dict[str, Any]:
        kind = "clean_candidates" if finetuning == "clean" else "noisy_candidates"
        found: dict[str, Any] = self.about[kind]
        return found

    def _certify(
        self, where: str, seed: int, needs: tuple[str, ...], rule: str, sigmas: list[float] | None = None
    ) -> Iterator[Stage]:
        for sigma in sigmas or self.config["sigmas"]:
            settings = {key: value for key, value in self.config[rule].items() if key != "cells"}
            yield Stage(
                f"certify/{where}/seed{seed}/sigma{sigma}",
                "certify",
                settings
                | {
                    "sigma": sigma,
                    "data": self.config["data"]["target"],
                    "channels_last": self.about["arguments"].get("channels_last", False),
                },
                needs,
            )

    def _common(self, seed: int) -> dict[str, Any]:
        return {
            "seed": seed,
            "network": self.about["config"],
            "size": self.config["size"],
            "model_size": self.about["model_size"],
            "held_out_seed": self.config["held_out"]["seed"],
        }


def folder(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")
