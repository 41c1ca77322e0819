"""From a configuration to the list of stages: pretraining, finetuning and from scratch, attacks, certificates, analyses."""

from __future__ import annotations

from typing import Any

from examples.studies.stages import Stage


NONE = "none"
"""No pretraining: the standard network."""


def plan(config: dict[str, Any]) -> list[Stage]:
    """All stages; every need comes before the stage that has it. The first seed of everything comes first."""
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> str:
        stages.setdefault(stage.name, stage)
        return stage.name

    for seed in config["seeds"]:
        for target in config["target_data"]:
            models = {}
            for pretraining in [NONE, *config["pretraining"]["kinds"]]:
                backbone = () if pretraining == NONE else (add(pretrain(config, pretraining, seed)),)
                for way in config["ways"]:
                    if not _wanted(config["ways"][way], target=target, pretraining=pretraining, seed=seed):
                        continue
                    models[pretraining, way] = add(train(config, target, pretraining, way, seed, backbone))
            for (pretraining, way), model in models.items():
                where = f"{target}/{pretraining}/{folder(way)}/seed{seed}"
                settings = {"data": target, "size": config["size"], "corruption": None}
                add(Stage(f"attack/{where}", "attack", settings | config["attack"], (model,)))
                add(Stage(f"certify/{where}", "certify", settings | config["certification"], (model,)))
            if seed == config["seeds"][0]:
                standard = models[NONE, "plain"]
                for (pretraining, way), model in models.items():
                    if pretraining != NONE and way in config["analysed"]:
                        needs = (f"pretrain/{pretraining}/seed{seed}", model, standard)
                        settings = {"data": target, "size": config["size"], "corruption": None, **config["analysis"]}
                        add(Stage(f"analyse/{target}/{pretraining}/{folder(way)}", "analyse", settings, needs))
    for name, sweep in config.get("sweeps", {}).items():
        for point in sweep["points"]:
            for stage in sweep_point(config, name, point):
                add(stage)
    return list(stages.values())


def _wanted(way: dict[str, Any], **cell: Any) -> bool:
    """Whether a way of finetuning is asked for here: its "only" names the targets, pretrainings and seeds, each all by default."""
    return all(value in way.get("only", {}).get(key, [value]) for key, value in cell.items())


def sweep_point(config: dict[str, Any], sweep: str, point: str) -> list[Stage]:
    """The finetuned and the standard network of one point of a factor sweep, attacked; the first seed.

    A point changes "network" (of the backbone too), "train_images", "corruption" (of all images of the target) for both networks, and
    "arguments" or the "way", plain by default, for the finetuned one alone. Where the sweep says "held_out", held-out images are attacked:
    for choices, which test images must not make.
    """
    about = config["sweeps"][sweep]
    changes, target, seed = about["points"][point], about["target"], config["seeds"][0]
    shared = {key: value for key, value in changes.items() if key not in ("arguments", "way")}
    stages, where = [], f"{folder(sweep)}/{folder(point)}"
    held_out = {"held_out": config["held_out"]["target"], "held_out_seed": config["held_out"]["seed"]}
    for pretraining in (NONE, about["pretraining"]):
        backbone: tuple[str, ...] = ()
        if pretraining != NONE:
            stages.append(pretrain(config, pretraining, seed))
            if "network" in changes:
                stages[-1] = _changed(stages[-1], f"pretrain/{where}", {"network": changes["network"]})
            backbone = (stages[-1].name,)
        way = changes.get("way", "plain") if backbone else "plain"
        trained = train(config, target, pretraining, way, seed, backbone)
        own = dict(shared)
        if backbone and "arguments" in changes:
            own["arguments"] = trained.settings["arguments"] | changes["arguments"]
        stages.append(_changed(trained, f"train/{where}/{pretraining}", own) if own else trained)
        settings = {
            "data": target,
            "size": config["size"],
            "corruption": changes.get("corruption"),
            **config["attack"],
            **(held_out if about.get("held_out") else {}),
        }
        stages.append(Stage(f"attack/{where}/{pretraining}", "attack", settings, (stages[-1].name,)))
    return stages


def _changed(stage: Stage, name: str, changes: dict[str, Any]) -> Stage:
    return Stage(name, stage.kind, stage.settings | changes, stage.needs)


def pretrain(config: dict[str, Any], kind: str, seed: int) -> Stage:
    """A backbone from scratch on the source."""
    about = config["pretraining"]
    settings = _common(config, seed) | {
        "data": config["source"],
        "held_out": config["held_out"]["source"],
        "train_images": None,
        "corruption": None,
        "arguments": config["arguments"] | about["arguments"] | about["kinds"][kind],
    }
    return Stage(f"pretrain/{kind}/seed{seed}", "pretrain", settings)


def train(
    config: dict[str, Any], target: str, pretraining: str, way: str, seed: int, backbone: tuple[str, ...]
) -> Stage:
    """A classifier of the target, from a backbone or from scratch: the same images and steps for all."""
    about = config["target_data"][target]
    objective = {key: value for key, value in config["ways"][way].items() if key != "only"}
    settings = _common(config, seed) | {
        "data": target,
        "held_out": config["held_out"]["target"],
        "train_images": about["train_images"],
        "corruption": None,
        "arguments": config["arguments"] | about["arguments"] | objective,
    }
    return Stage(f"train/{target}/{pretraining}/{folder(way)}/seed{seed}", "train", settings, backbone)


def _common(config: dict[str, Any], seed: int) -> dict[str, Any]:
    return {key: config[key] for key in ("network", "size", "model_size")} | {
        "seed": seed,
        "held_out_seed": config["held_out"]["seed"],
    }


def folder(name: str) -> str:
    """A name without blanks."""
    return name.replace(" ", "-")
