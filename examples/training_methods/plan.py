"""From a configuration to the list of stages: each method trained at each sigma, then certified there."""

from __future__ import annotations

from typing import Any

from hf_smoothing.stages import Stage


def plan(config: dict[str, Any]) -> list[Stage]:
    """All stages: every method with the first seed first, then more seeds for those that "seeds" gives more.

    A method's "cost" is the forward and backward passes that a step takes an image; it is trained for "passes" / "cost" epochs, so that
    all methods compute alike.

    Raises:
        ValueError: if a method has no cost.
    """
    stages = []
    most = max(method.get("seeds", 1) for method in config["methods"].values())
    for seed in range(most):
        for sigma in config["sigmas"]:
            for name, method in config["methods"].items():
                if seed < method.get("seeds", 1):
                    stages += _method(config, name, sigma, seed)
    return stages


def _method(config: dict[str, Any], name: str, sigma: float, seed: int) -> list[Stage]:
    method = config["methods"][name]
    if not method.get("cost", 0) >= 1:
        raise ValueError(f"Method {name!r} needs its `cost`: passes an image and step, at least 1.")
    where = f"{name.replace(' ', '-')}/sigma{sigma}/seed{seed}"
    arguments = config["arguments"] | {
        "noise": str(sigma),
        "num_train_epochs": config["passes"] / method["cost"],
        "objective": method["objective"],
        "objective_args": method.get("settings", {}) | method.get("settings_at", {}).get(str(sigma), {}),
    }
    trained = Stage(
        f"train/{where}", "train",
        {key: config[key] for key in ("data", "size", "model_size", "network", "held_out")} | {"seed": seed, "arguments": arguments},
    )  # fmt: skip
    radii = [round(sigma * k / 2, 6) for k in range(config["certification"]["up_to"] * 2 + 1)]
    rule = {key: value for key, value in config["certification"].items() if key != "up_to"} | {
        "sigma": sigma,
        "radii": radii,
    }
    settings = {"data": config["data"], "size": config["size"]} | rule
    return [trained, Stage(f"certify/{where}", "certify", settings, (trained.name,))]
