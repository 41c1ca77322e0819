"""Networks that `examples/adaptive_certified_training.py` trains: their folders, and what each was trained with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_smoothing.records import differences, read_json, write_json


LOSSES = {"interval": "", "sabr": "share", "mtl-ibp": "alpha", "cc-ibp": "alpha", "exp-ibp": "alpha"}
"""The setting that traces the tradeoff of each loss, beside kappa, which all have."""

_NUMBER = r"([\d.]+(?:e[+-]\d+)?)"
_NAME = re.compile(
    rf"(?:({'|'.join(LOSSES)})-)?(adaptive|fixed)(?:-(?:alpha|share){_NUMBER})?-kappa{_NUMBER}-seed(\d+)"
)


@dataclass(frozen=True)
class NetworkName:
    """What tells the networks of an output folder apart, as the name of its own folder.

    Attributes:
        kind: Radii in training, "adaptive" or "fixed".
        kappa: Weight of clean cross-entropy.
        seed: Seed.
        loss: One of `LOSSES`.
        strength: Its alpha or share; None for "interval".

    >>> str(NetworkName("fixed", 0.0, 0, "mtl-ibp", 0.5)), str(NetworkName("adaptive", 0.25, 1))
    ('mtl-ibp-fixed-alpha0.5-kappa0-seed0', 'adaptive-kappa0.25-seed1')
    """

    kind: str
    kappa: float
    seed: int
    loss: str = "interval"
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("adaptive", "fixed") or self.loss not in LOSSES:
            raise ValueError(
                f"Radii are adaptive or fixed, and the loss is one of {', '.join(LOSSES)}, got {self.kind!r} and {self.loss!r}."
            )

    def __str__(self) -> str:
        before = "" if self.loss == "interval" else f"{self.loss}-"
        own = "" if self.loss == "interval" else f"-{LOSSES[self.loss]}{self.strength:g}"
        return f"{before}{self.kind}{own}-kappa{self.kappa:g}-seed{self.seed}"

    @classmethod
    def read(cls, folder: str) -> NetworkName | None:
        """The name that a folder's name says; None if it is that of something else."""
        found = _NAME.fullmatch(folder)
        if found is None:
            return None
        loss, kind, strength, kappa, seed = found.groups()
        return cls(kind, float(kappa), int(seed), loss or "interval", float(strength) if strength else None)

    @classmethod
    def of_record(cls, network: Mapping[str, Any]) -> NetworkName:
        """The name of a network of a record, `to_dict` backwards."""
        return cls(
            network["kind"],
            network["kappa"],
            network["seed"],
            network.get("loss", "interval"),
            network.get("strength"),
        )

    @property
    def rank(self) -> tuple[Any, ...]:
        """Place in a table: by seed, loss, strength and kappa."""
        return self.seed, self.loss != "interval", self.loss, self.strength or 0.0, self.kappa, self.kind

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return "adaptive-interval" if self.loss == "interval" else self.loss

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the objective that trace its tradeoff, beside kappa."""
        return {} if self.loss == "interval" else {LOSSES[self.loss]: self.strength}

    def to_dict(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """As the record has it, with further settings of the loss; the loss of interval bounds goes without saying."""
        said: dict[str, Any] = {"kind": self.kind, "kappa": self.kappa, "seed": self.seed}
        if self.loss != "interval":
            said |= {"loss": self.loss, "strength": self.strength}
        return said | ({"settings": dict(settings)} if settings else {})


def trained(output: Path) -> list[NetworkName]:
    """Those below a folder that are trained, by their ranks."""
    found = [NetworkName.read(folder.name) for folder in output.iterdir() if (folder / "model/config.json").exists()]
    return sorted((name for name in found if name is not None), key=lambda name: name.rank)


def check_settings(now: Mapping[str, Any], folder: Path, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Keep what a network is trained with, and refuse one that was trained with something else.

    Args:
        now: What all networks of the output folder are trained with.
        folder: Folder of the network.
        own: Settings of its own loss; those that it was trained with by default.

    Returns:
        The settings of its own loss.

    Raises:
        SystemExit: The message names what differs.
    """
    file = folder / "settings.json"
    kept = read_json(file)
    if own is None:
        own = (kept or {}).get("loss", {})
    asked = dict(now) | ({"loss": dict(own)} if own else {})
    differing = differences(kept or asked, asked)
    if differing:
        raise SystemExit(f"{folder} was trained otherwise: {'; '.join(differing)}. Use another --output-dir.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, asked)
    return dict(own)
