"""Weights from safetensors, whole: every tensor that a network needs and none that it does not know."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from hf_smoothing.data.not_found import not_found, swapped, without_config
from hf_smoothing.keywords import meant
from hf_smoothing.models.class_maps import check_names
from hf_smoothing.models.configuration import NO_CONFIGURATION, SmoothedClassifierConfig, unusable
from hf_smoothing.models.heads import classifier_inside, head_tensors
from hf_smoothing.models.kept_heads import check_kept_names


HUB = ("revision", "subfolder", "token", "cache_dir", "local_files_only", "trust_remote_code")
"""Arguments of `from_pretrained` that say which files of a checkpoint are meant."""


def trusting(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for loading, with `trust_remote_code` said: False unless the caller gave it. Unsaid, `transformers` asks on the terminal."""
    return {**arguments, "trust_remote_code": bool(arguments.get("trust_remote_code"))}


def read_config(path: str | os.PathLike[str], hub: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration of a checkpoint.

    Args:
        path: Folder or Hub id.
        hub: Arguments of `from_pretrained`; those of `HUB` are heeded, and `id2label`, which replaces the names of the file.

    Raises:
        ValueError: If there is no model, or nothing but an adapter of peft, or its values make no configuration; as `check_names`.
    """
    name = os.fspath(path)
    where = {key: hub[key] for key in HUB if key in hub}
    check_no_adapter(name)
    for mistake in (swapped("model", name), without_config(str(Path(name, where.get("subfolder") or "")))):
        if mistake is not None:
            raise mistake
    try:
        names = PreTrainedConfig.get_config_dict(name, **where)[0].get("id2label")
        if names is not None and hub.get("id2label") is None:
            check_names(names)
        config: PreTrainedConfig = AutoConfig.from_pretrained(name, **trusting(where))
    except OSError as error:
        raise not_found("model", name, error) from error
    except NO_CONFIGURATION as error:
        raise ValueError(f"config.json of {name} {unusable(error)}") from error
    return config


def load_whole(
    load: Callable[..., Any], path: Any, kwargs: Mapping[str, Any], *args: Any, cure: str | None = None
) -> Any:
    """Call a `from_pretrained`, from safetensors only, and refuse a network that did not get all its tensors, or not all of the file's.

    A new head is made where it is asked for, with ignore_mismatched_sizes=True and num_labels or id2label, if it has another shape; the old
    one stays, with a warning, where there are as many classes of other names. What belongs to no part of the
    network, such as a text tower or a pretraining head, may then be left over as well; further layers of a part that it has may not.

    Args:
        load: A function such as `AutoModelForImageClassification.from_pretrained`.
        path: Folder or Hub id.
        kwargs, args: Its other arguments.
        cure: What to do about tensors that do not fit, where it is something else than loading.

    Returns:
        The model, or with output_loading_info=True the pair that `from_pretrained` returns.

    Raises:
        TypeError: On an argument that nothing knows.
        ValueError: The message names the missing, unexpected or mismatched tensors; or if the weights are a pickle,
            which could execute code, damaged, incomplete, or those of an adapter; if the path is no UTF-8; or if the old head would answer under its own names in
            another order.
    """
    check_no_adapter(path)
    if (mistake := swapped("model", os.fspath(path))) is not None:
        raise mistake
    if os.fspath(path) != os.fspath(path).encode("utf-8", "ignore").decode():
        raise ValueError(f"The path of weights must be UTF-8, got {os.fspath(path)!a}. Rename what has this name.")
    loading = {**trusting(kwargs), "use_safetensors": True, "output_loading_info": True}
    if not _classes_asked(kwargs) and kwargs.get("label2id") is None:
        loading["ignore_mismatched_sizes"] = True  # they are refused below, by name
    try:
        model, info = load(path, *args, **loading)
    except SafetensorError as error:
        raise ValueError(f"The weights of {path} are damaged ({error}). Download or save them again.") from error
    except StrictDataclassError as error:
        raise ValueError(f"config.json of {path} {unusable(error)}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{path} is incomplete ({error}). Download or save it again.") from error
    except OSError as error:
        if "safetensors" not in str(error):
            raise not_found("model", os.fspath(path), error) from error
        where = Path(os.fspath(path), kwargs.get("subfolder") or "")
        if where.is_dir() and not any(map(_may_be_pickled_weights, where.iterdir())):
            raise ValueError(
                f"{where} has no weights: no model.safetensors beside its config.json. Download or save the whole checkpoint again."
            ) from error
        raise ValueError(
            f"{path} has no safetensors weights. Pickle checkpoints can execute code and are not loaded; convert it once in an "
            "environment you trust: model.save_pretrained(new_path)."
        ) from error
    except ValueError as error:
        if not str(error).startswith("Unrecognized configuration class"):
            raise
        # Which classes there are would be a page of names.
        config = read_config(path, kwargs)
        kind = next(iter(config.architectures or ()), type(config).__name__)
        raise ValueError(
            f"{path} is no image classifier: it holds a {kind} (model type {config.model_type!r}), of which transformers has no image classifier. Pass an image "
            "classifier; of a masked autoencoder make one with classifier_from_autoencoder."
        ) from error
    except TypeError as error:
        if (unknown := _unknown_argument(error, path, kwargs)) is None:
            raise
        raise TypeError(unknown) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            f"{path} has weights of other shapes than were asked for, most likely a head for other classes. To finetune it pass "
            "ignore_mismatched_sizes=True, which gives it a new head; to certify it as it is, leave num_labels, id2label and label2id out."
        ) from error
    if info["mismatched_keys"] and cure is None and not _classes_asked(kwargs):
        raise ValueError(_other_config(path, model, info))
    check_complete(path, model, info, new_head=_new_head_asked(kwargs), cure=cure)
    _check_kept_head(path, model, info, kwargs)
    return (model, info) if kwargs.get("output_loading_info") else model


LOADING = (
    "num_labels",
    "id2label",
    "label2id",
    "ignore_mismatched_sizes",
    "dtype",
    "config",
    "device_map",
    "attn_implementation",
)
"""Further arguments of `from_pretrained` that no configuration names."""


def _unknown_argument(error: TypeError, path: Any, kwargs: Mapping[str, Any]) -> str | None:
    """What to say of a keyword that has reached the constructor of a network, which knows none; None of another error."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if found is None or found[1] not in kwargs:
        return None
    known = {*SmoothedClassifierConfig.__annotations__, *HUB, *LOADING, *read_config(path, kwargs).to_dict()}
    return f"`{found[1]}` is neither an argument for wrapping or loading a classifier nor a setting of the one in {path}. {meant(found[1], known)}"


PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".index", ".pkl")
"""Weights in other formats than safetensors."""

STATE = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")
"""How files of a training begin that are no weights, but may lie beside them."""


def _may_be_pickled_weights(file: Path) -> bool:
    return file.suffix in PICKLES and not file.name.startswith(STATE)


def _check_kept_head(path: Any, model: PreTrainedModel, info: Mapping[str, Any], kwargs: Mapping[str, Any]) -> None:
    """Compare the names in the checkpoint with those that were asked for, as `check_kept_names`, if the head is the checkpoint's."""
    if not _classes_asked(kwargs):
        return
    if head_tensors(model) & ({found[0] for found in info["mismatched_keys"]} | set(info["missing_keys"])):
        return
    found, _ = PreTrainedConfig.get_config_dict(path, **{key: kwargs[key] for key in HUB if key in kwargs})
    check_kept_names(
        str(path), found.get("id2label") or {}, model.config.id2label or {}, asked_anew=_new_head_asked(kwargs)
    )


def _classes_asked(kwargs: Mapping[str, Any]) -> bool:
    return any(kwargs.get(name) is not None for name in ("num_labels", "id2label", "config"))


def _new_head_asked(kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("ignore_mismatched_sizes")) and _classes_asked(kwargs)


def _other_config(path: Any, model: PreTrainedModel, info: Mapping[str, Any]) -> str:
    """What to say of a checkpoint whose configuration describes tensors of other shapes than its own."""
    wrong = {name: (tuple(saved), tuple(made)) for name, saved, made in info["mismatched_keys"]}
    count, name = model.config.num_labels, min(wrong)
    if wrong.keys() <= head_tensors(model) and all(made[:1] == (count,) for _, made in wrong.values()):
        classes = wrong[name][0][0]
        return (
            f"config.json of {path} names {count} classes, but the head in its weights has {classes} ({name}). Correct id2label and label2id there, to the "
            f"{classes} classes that it was trained for; or pass id2label=dict(enumerate(names)) with their names in order."
        )
    return (
        f"config.json of {path} is not that of its weights: {name} has the shape {wrong[name][0]} in the weights and {wrong[name][1]} by the configuration. "
        "Take the config.json that was saved with them, or download both again."
    )


def check_complete(
    path: Any, model: PreTrainedModel, info: Mapping[str, Any], new_head: bool = False, cure: str | None = None
) -> None:
    """Refuse a network of which some tensors are random, or that is another than the one that was saved.

    Args:
        path: Path, for the message.
        model: Model that was loaded.
        info: Loading report of `from_pretrained`: missing_keys, unexpected_keys and mismatched_keys, without those that the class of
            the model ignores.
        new_head: Whether the head (and a pooler before it) may be new.
        cure: As in `load_whole`.

    Raises:
        ValueError: The message names the tensors.
    """
    # Batch norm with a momentum does not use its counter, which the oldest checkpoints lack.
    missing = {name for name in info["missing_keys"] if not name.endswith("num_batches_tracked")}
    mismatched = {found[0] for found in info["mismatched_keys"]}
    # Buffers that are not saved any more: the network computes them itself.
    unexpected = set(info["unexpected_keys"]) - {name for name, _ in model.named_buffers()}
    head = {name for name in head_tensors(model) if not name.endswith("num_batches_tracked")}
    made = {name for name in missing | mismatched if name in head or "pooler" in name.split(".")}
    # A mask token stands in for hidden patches while an autoencoder is pretrained; a pooler is the start of a pretraining head.
    left_over = {
        name
        for name in unexpected
        if not _of_its_parts(name, model) or name.endswith(".mask_token") or "pooler" in name.split(".")
    }
    if new_head:
        missing, mismatched, unexpected = missing - made, mismatched - made, unexpected - left_over
    if any(".lora_" in name for name in unexpected):
        raise ValueError(
            f"{path} has LoRA adapters that a plain checkpoint cannot hold. Save the SmoothedClassifier around it, or call merge_lora(model) first."
        )
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": mismatched}
    if any(wrong.values()):
        said = "; ".join(f"{kind}: {_some(names)}" for kind, names in wrong.items() if names)
        headless = not new_head and head and head <= made and made >= missing | mismatched and left_over >= unexpected
        cure = cure or (
            "It has no head for these classes: finetune it first, with ignore_mismatched_sizes=True and id2label={0: ..., 1: ...} for a new head."
            if headless
            else "Download or save the whole checkpoint again, or load it with the library and the class that it was saved with."
        )
        raise ValueError(f"The weights of {path} are not those of {type(model).__name__}, tensors are {said}. {cure}")


def check_no_adapter(path: Any) -> None:
    """Refuse a folder that holds nothing but an adapter of peft.

    Raises:
        ValueError: The message names the cure.
    """
    folder = Path(os.fspath(path))
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ValueError(
            f"{path} holds an adapter of peft, not a network. Merge it into its network and save that: "
            "PeftModel.from_pretrained(network, path).merge_and_unload().save_pretrained(new_path)."
        )


def _of_its_parts(name: str, model: PreTrainedModel) -> bool:
    """Whether a tensor belongs to a part that the network has: to another layer of it, then, if the network does not know the tensor.

    Parts that differ in a number are one, since a network of fewer stages is another network.
    """
    prefix, classifier = classifier_inside(model)
    name, network = (name[len(prefix) :], classifier) if name.startswith(prefix) else (name, model)
    # In the file of a bare backbone names start inside it.
    modules = {network, getattr(network, "base_model", network)}
    parts = {_unnumbered(part) for module in modules for part, child in module.named_children() if child.state_dict()}
    return _unnumbered(name.split(".")[0]) in parts


def _unnumbered(part: str) -> str:
    return part.rstrip("0123456789")


def _some(names: Collection[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:6]) + (f" and {len(first) - 6} more" if len(first) > 6 else "")
