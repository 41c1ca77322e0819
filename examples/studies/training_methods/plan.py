"""From a configuration to the list of stages: each method trained at each sigma, then certified there; and ways around training."""

from __future__ import annotations

from typing import Any

from examples.studies.stages import Stage


def plan(config: dict[str, Any]) -> list[Stage]:
    """All stages: every method with the first seed first, then with more seeds where `seeds_of` gives more, then the routes in the same order.

    A method's "cost" is the forward and backward passes that a step takes an image; it is trained for "passes" / "cost" epochs, so that
    all methods compute alike. All start from the "backbone", or from scratch where there is none.

    Raises:
        ValueError: If a method has no cost.
    """
    stages: dict[str, Stage] = {}
    methods, routes, sigmas = config["methods"], config.get("routes", {}), config["sigmas"]
    for seed in range(_most_seeds(methods, sigmas)):
        for sigma in sigmas:
            for name, method in methods.items():
                if seed in seeds_of(method, sigma):
                    add(stages, *_method(config, name, sigma, seed))
    for seed in range(_most_seeds(routes, sigmas)):
        for name, about in routes.items():
            for sigma in sigmas:
                if seed in seeds_of(about, sigma):
                    add(stages, *route(config, name, sigma, seed))
    return list(stages.values())


def seeds_of(about: dict[str, Any], sigma: float) -> range:
    """Seeds of a method or route at a sigma: as many as its "seeds" (1 by default), or its "seeds_at" for this sigma; none at a sigma that its "sigmas" leave out."""
    if sigma not in about.get("sigmas", [sigma]):
        return range(0)
    return range(about.get("seeds_at", {}).get(str(sigma), about.get("seeds", 1)))


def _most_seeds(all_of_them: dict[str, Any], sigmas: list[float]) -> int:
    return max((len(seeds_of(about, sigma)) for about in all_of_them.values() for sigma in sigmas), default=0)


def add(stages: dict[str, Stage], *more: Stage) -> None:
    """Those that are not there yet."""
    for stage in more:
        stages.setdefault(stage.name, stage)


def route(config: dict[str, Any], name: str, sigma: float, seed: int = 0) -> list[Stage]:
    """The steps of a route, each from the one before, and the certificate of the last.

    A step has a "kind" (a method of `work.Work`), "settings" and "arguments" of the training; a "noisy" one is for one sigma. A route goes
    on "after" another. A step of kind "ensemble" takes all seeds of the "method" that it names. Seeds after the first are those of the
    noisy steps; what they start from is the same.
    """
    about = config["routes"][name]
    stages = route(config, about["after"], sigma, seed)[:-1] if "after" in about else []
    for step in about["steps"]:
        noisy = step.get("noisy", False)
        where = f"{step['kind']}/" + (_noisy(name, sigma, seed) if noisy else folder(name))
        if step["kind"] == "adopt":
            stages.append(adopted(step["backbone"]))
            continue
        if step["kind"] == "ensemble":
            method = step["method"]
            seeds = seeds_of(config["methods"][method], sigma)
            members = tuple(f"train/{folder(method)}/sigma{sigma}/seed{member}" for member in seeds)
            stages.append(Stage(where, "ensemble", {"sigma": sigma}, members))
            continue
        settings = (
            _common(config)
            | {"seed": seed if noisy else 0, "sigma": sigma if noisy else None}
            | step.get("settings", {})
        )
        arguments = config["arguments"] | {"noise": str(sigma) if noisy else "clean"} | step["arguments"]
        needs = (stages[-1].name,) if stages else ()
        stages.append(Stage(where, step["kind"], settings | {"arguments": arguments}, needs))
    return [*stages, _certified(config, _noisy(name, sigma, seed), sigma, stages[-1].name)]


def _noisy(name: str, sigma: float, seed: int) -> str:
    """Where a route's stages for one sigma are; the first seed has no folder of its own."""
    return folder(name) + (f"/seed{seed}" if seed else "") + f"/sigma{sigma}"


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
