"""LoRA inside a `SmoothedClassifier`: a certified classifier from a frozen foundation model, by training a percent of its weights."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from hf_smoothing.certification.structure import entries_sha256
from hf_smoothing.models.lora_layers import CANNOT, adaptable, called, head_names, inject_lora, of_peft, put
from hf_smoothing.statistics import check_whole


if TYPE_CHECKING:
    from transformers import PreTrainedModel


USUAL = ("q_proj", "v_proj", "query", "value", "qkv")
"""Attention projections, as the models of `transformers` call them."""


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int = 8,
    alpha: float | None = None,
    dropout: float = 0.0,
    target_modules: Sequence[str] | None = None,
) -> float:
    """Freeze the base classifier, and give its linear layers (or convolutions) trainable low-rank updates and it a trainable head.

    What follows is as ever: `RobustTrainer` trains what is trainable, `save_pretrained` and `from_pretrained` keep everything,
    `save_adapters` only what was trained, `merge_lora` makes plain weights of it.

    Args:
        model: A `SmoothedClassifier`.
        rank: Rank of the updates.
        alpha: Their scale times rank; 2 * rank by default.
        dropout: Dropout before the updates, in training.
        target_modules: Last parts of the names of the layers; by default the query and value projections of attention. What else has that name, or
            cannot be adapted, stays as it is: the head, which is trained whole, and convolutions in groups or with holes.

    Returns:
        The share of the parameters that is trained.

    Raises:
        ModuleNotFoundError: Without peft.
        TypeError: If it is no `SmoothedClassifier`.
        ValueError: If there are adapters already, a number makes no sense, or no layer that can be adapted has such a name. The model is then what it was.

    Source: Hu et al. (2022), arXiv 2106.09685.
    """
    if getattr(getattr(model, "config", None), "model_type", None) != "smoothed_classifier":
        raise TypeError(
            f"add_lora needs a SmoothedClassifier, got {type(model).__name__}. Wrap it: SmoothedClassifier.from_base_pretrained(model, sigma=...)."
        )
    if model.config.lora is not None:
        raise ValueError("This classifier has LoRA adapters already. Merge them first: merge_lora(model).")
    check_merged(model)
    rank = check_whole(rank, "rank")
    alpha = 2.0 * rank if alpha is None else alpha
    numbers = all(isinstance(value, int | float) for value in (alpha, dropout))
    if rank < 1 or not numbers or not 0.0 < alpha < math.inf or not 0.0 <= dropout < 1.0:
        raise ValueError(
            f"LoRA needs rank >= 1, a finite alpha > 0 and a dropout in [0, 1), got {rank}, {alpha!r} and {dropout!r}."
        )
    if isinstance(target_modules, str):
        target_modules = [target_modules]
    if target_modules is not None and not target_modules:
        raise ValueError("`target_modules` is empty, so nothing would be adapted. Name layers, or leave it out.")
    known = adaptable(model.base_network)
    wanted = [name for name in USUAL if called(known, name)] if target_modules is None else list(target_modules)
    missing = [name for name in wanted if not called(known, name)]
    if missing or not wanted:
        last = sorted({name.rsplit(".", 1)[-1] for name in known})
        raise ValueError(
            f"There is no layer called {missing[0] if missing else ' or '.join(USUAL)} to adapt. "
            + (f"Give target_modules out of: {', '.join(last)}." if last else f"{CANNOT} Train it without adapters.")
        )
    largest = max(min(layer.weight.flatten(1).shape) for name in wanted for layer in called(known, name).values())
    if rank > largest:
        raise ValueError(f"No layer to adapt has a rank above {largest}, got rank={rank}. Take {largest} at most.")
    settings = {
        "rank": rank,
        "alpha": alpha,
        "dropout": dropout,
        "target_modules": wanted,
    }
    inject_lora(model.base_network, settings)
    freeze_all_but_adapters(model)
    model.config.lora = settings
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return float(sum(n for n, trained in sizes if trained) / sum(n for n, _ in sizes))


def freeze_all_but_adapters(model: PreTrainedModel) -> None:
    """Make the updates and the head trainable, and nothing else."""
    head = head_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or name in head)


def check_merged(model: PreTrainedModel) -> None:
    """Refuse what has adapters of peft that its configuration does not know of, so that they would be lost.

    Args:
        model: A network, or a wrapper; what `add_lora` made passes.

    Raises:
        TypeError: If it is a `PeftModel`.
        ValueError: If there are adapters inside.
    """
    cure = (
        "Merge them first: model = model.merge_and_unload() of a PeftModel, merge_lora(model) of a network to which they were added. Or leave them out, "
        "wrap the network, and call add_lora(wrapper): its updates are trained by RobustTrainer, saved and loaded."
    )
    if of_peft(model):
        raise TypeError(f"A {type(model).__name__} has adapters of peft, which would be lost. {cure}")
    if getattr(getattr(model, "config", None), "lora", None) is None and any(map(of_peft, _modules(model))):
        raise ValueError(f"This {type(model).__name__} has adapters of peft, which would be lost. {cure}")


def _modules(model: PreTrainedModel) -> list[nn.Module]:
    return list(model.modules()) if isinstance(model, nn.Module) else []


def merge_lora(model: PreTrainedModel) -> None:
    """Add the updates to the weights that they update and drop them; the answers stay the same up to rounding, and all is trainable.

    Args:
        model: A `SmoothedClassifier`, or any network to which adapters of peft were added (add_adapter); changed in place.

    Raises:
        TypeError: If it is a `PeftModel`, which merges itself.
        ValueError: Without adapters, or if one cannot be merged; then none is.
    """
    if of_peft(model):
        raise TypeError("A PeftModel merges itself: model = model.merge_and_unload().")
    if not any(map(of_peft, _modules(model))):
        _check(model)
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    adapted = {name: layer for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    merging = {name: layer for name, layer in adapted.items() if not layer.disable_adapters}
    for name, layer in merging.items():
        try:
            copy.deepcopy(layer).merge(safe_merge=True)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"The adapters of {name} cannot be merged ({type(error).__name__}: {error}), so none was. Train them anew on layers of other names; for a "
                "result without any adapter, load the network without."
            ) from error
    for layer in merging.values():
        layer.merge(safe_merge=True)
    plain: dict[str, nn.Module] = {name: layer.get_base_layer() for name, layer in adapted.items()}
    for name, layer in model.named_modules():
        if isinstance(layer, ModulesToSaveWrapper):
            chosen = layer.active_adapters[0] if layer.active_adapters else None
            trained = None if layer.disable_adapters or not chosen else layer.modules_to_save[chosen]
            plain[name] = layer.original_module if trained is None else trained
    for name, module in plain.items():
        put(model, name, module)
    if getattr(model, "_hf_peft_config_loaded", False):  # what add_adapter of transformers leaves
        model._hf_peft_config_loaded = False
        del model.peft_config
    if getattr(model.config, "lora", None) is not None:
        model.config.lora = None
    model.requires_grad_(True)


def save_adapters(model: PreTrainedModel, path: str | os.PathLike[str]) -> None:
    """Only what training changes: the updates, the head and batch-norm statistics, as safetensors; of all else, which is frozen, a hash.

    Raises:
        ValueError: Without adapters, or if there can be no such file.
    """
    _check(model)
    own = {name: value.contiguous() for name, value in _adapters(model).items()}
    try:
        save_file(own, path, metadata=_metadata(model))
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"Adapters cannot be written to {os.fspath(path)} ({error}). Pass the name of a file in a folder that exists."
        ) from error


def load_adapters(model: PreTrainedModel, path: str | os.PathLike[str]) -> None:
    """What `save_adapters` wrote, into the same base classifier after the same `add_lora`.

    Raises:
        ValueError: Without adapters; if there is no such file, it is damaged, or holds adapters that were made otherwise or trained in another base
            classifier. The model is then what it was.
    """
    _check(model)
    try:
        with safe_open(path, "pt") as file:
            made = file.metadata() or {}
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be read as adapters ({error}). Pass the file that save_adapters wrote, or write it again."
        ) from error
    here, other = _metadata(model), f"{os.fspath(path)} holds other adapters than this classifier has"
    if made.get("lora") != here["lora"]:
        raise ValueError(
            f"{other}: made with {made.get('lora')}, but here are {model.config.lora}. Call add_lora with the same settings."
        )
    own = _adapters(model)
    shapes = [{name: value.shape for name, value in side.items()} for side in (own, found)]
    if made.get("frozen") != here["frozen"] or shapes[0] != shapes[1]:
        raise ValueError(
            f"{other}: they were trained in a base classifier of other weights. Load them into that one, in the dtype that it had then, and convert it "
            "afterwards."
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(found[name])


def _metadata(model: PreTrainedModel) -> dict[str, str]:
    """What must be the same where adapters are loaded: their settings, and the weights that they leave alone."""
    own = _adapters(model)
    frozen = {name: value.detach() for name, value in model.named_parameters() if name not in own}
    return {"lora": json.dumps(model.config.lora, sort_keys=True), "frozen": entries_sha256(frozen)}


def _adapters(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    head = head_names(model)
    trained = {name: p.detach() for name, p in model.named_parameters() if ".lora_" in name or name in head}
    return trained | dict(model.named_buffers())


def _check(model: PreTrainedModel) -> None:
    if getattr(getattr(model, "config", None), "lora", None) is None:
        raise ValueError("This classifier has no LoRA adapters. Add them with add_lora(model).")
