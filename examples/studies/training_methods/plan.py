"""From a configuration to the list of stages: each method trained at each sigma, then certified there; and ways around training."""

from __future__ import annotations

from typing import Any

from examples.studies.stages import Stage


def plan(config: dict[str, Any]) -> list[Stage]:
    """All stages: every method with the first seed first, then with more seeds where "seeds" gives more, then the routes.

    A method's "cost" is the forward and backward passes that a step takes an image; it is trained for "passes" / "cost" epochs, so that
    all methods compute alike. All start from the "backbone", or from scratch where there is none.

    Raises:
        ValueError: If a method has no cost.
    """
    stages: dict[str, Stage] = {}
    most = max(method.get("seeds", 1) for method in config["methods"].values())
    for seed in range(most):
        for sigma in config["sigmas"]:
            for name, method in config["methods"].items():
                if seed < method.get("seeds", 1):
                    add(stages, *_method(config, name, sigma, seed))
    for name in config.get("routes", {}):
        for sigma in config["sigmas"]:
            if sigma in config["routes"][name].get("sigmas", [sigma]):
                add(stages, *route(config, name, sigma))
    return list(stages.values())


def add(stages: dict[str, Stage], *more: Stage) -> None:
    """Those that are not there yet."""
    for stage in more:
        stages.setdefault(stage.name, stage)


def route(config: dict[str, Any], name: str, sigma: float) -> list[Stage]:
    """The steps of a route, each from the one before, and the certificate of the last.

    A step has a "kind" (a method of `work.Work`), "settings" and "arguments" of the training; a "noisy" one is for one sigma. A route goes
    on "after" another. A step of kind "ensemble" takes all seeds of the "method" that it names.
    """
    about = config["routes"][name]
    stages = route(config, about["after"], sigma)[:-1] if "after" in about else []
    for step in about["steps"]:
        noisy = step.get("noisy", False)
        where = f"{step['kind']}/{folder(name)}" + (f"/sigma{sigma}" if noisy else "")
        if step["kind"] == "adopt":
            stages.append(adopted(step["backbone"]))
            continue
        if step["kind"] == "ensemble":
            method = step["method"]
            seeds = range(config["methods"][method].get("seeds", 1))
            members = tuple(f"train/{folder(method)}/sigma{sigma}/seed{seed}" for seed in seeds)
            stages.append(Stage(where, "ensemble", {"sigma": sigma}, members))
            continue
        settings = _common(config) | {"seed": 0, "sigma": sigma if noisy else None} | step.get("settings", {})
        arguments = config["arguments"] | {"noise": str(sigma) if noisy else "clean"} | step["arguments"]
        needs = (stages[-1].name,) if stages else ()
        stages.append(Stage(where, step["kind"], settings | {"arguments": arguments}, needs))
    return [*stages, _certified(config, f"{folder(name)}/sigma{sigma}", sigma, stages[-1].name)]


def _method(config: dict[str, Any], name: str, sigma: float, seed: int) -> list[Stage]:
    method = config["methods"][name]
    if not method.get("cost", 0) >= 1:
        raise ValueError(f"Method {name!r} needs its `cost`: passes an image and step, at least 1.")
    where = f"{folder(name)}/sigma{sigma}/seed{seed}"
    arguments = config["arguments"] | {
        "noise": str(sigma),
        "num_train_epochs": config["passes"] / method["cost"],
        "objective": method["objective"],
        "objective_args": method.get("settings", {}) | method.get("settings_at", {}).get(str(sigma), {}),
    }
    backbone = [adopted(config["backbone"])] if "backbone" in config else []
    trained = Stage(
        f"train/{where}", "train", _common(config) | {"seed": seed, "arguments": arguments}, tuple(b.name for b in backbone)
    )  # fmt: skip
    return [*backbone, trained, _certified(config, where, sigma, trained.name)]


def _common(config: dict[str, Any]) -> dict[str, Any]:
    return {key: config.get(key) for key in ("data", "size", "model_size", "network", "held_out", "train_images")}


def adopted(path: str) -> Stage:
    """A backbone of the repository."""
    return Stage(f"backbone/{path.rpartition('/')[2]}", "adopt", {"backbone": path})


def targets(config: dict[str, Any], sigma: float) -> list[float]:
    """The radii that are certified: every sigma / 2 up to "up_to" of the sigmas."""
    return [round(sigma * k / 2, 6) for k in range(int(config["certification"]["up_to"] * 2) + 1)]


def _certified(config: dict[str, Any], where: str, sigma: float, trained: str) -> Stage:
    rule = {key: value for key, value in config["certification"].items() if key != "up_to"}
    settings = {
        "data": config["data"],
        "size": config["size"],
        "sigma": sigma,
        "targets": targets(config, sigma),
    } | rule
    return Stage(f"certify/{where}", "certify", settings, (trained,))


def folder(name: str) -> str:
    """A name without blanks and commas."""
    return name.replace(",", "").replace(" ", "-")
