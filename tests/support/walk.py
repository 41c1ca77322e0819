"""What this library does with each image classifier of `transformers`; `python -m tests.support.walk` writes the table of docs/architectures.md."""

from __future__ import annotations

import gc
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, PreTrainedModel

from hf_smoothing import RobustTrainer, SmoothedClassifier
from hf_smoothing.data import DecodedPixels
from hf_smoothing.interval import UnsupportedOperationError, linf_certificates
from hf_smoothing.training.layerwise import learning_rates, parameter_depths
from tests.support.architectures import ARCHITECTURES, LABELS, Architecture, label
from tests.support.tiny import MEAN, STD, assert_same_tensors, tensors, trainer


PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
START, END = "<!-- table -->", "<!-- end of the table -->"
COLUMNS = ("class", "certified, saved and loaded", "trained", "light protocols", "l-infinity bounds")
LIGHT = ("last-stage", "linear-probe", "light")
LARGEST = 0.01
"""Up to which an l-infinity radius is looked for."""


def images(architecture: Architecture, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, architecture.size, architecture.size, generator=generator)


def wrapped(architecture: Architecture) -> SmoothedClassifier:
    return SmoothedClassifier.from_base_pretrained(
        architecture.build(), sigma=0.25, size=architecture.size, image_mean=MEAN, image_std=STD
    )


def certify(model: SmoothedClassifier, pixels: Tensor) -> None:
    """It classifies, and its certificates are those of its votes."""
    with torch.no_grad():
        logits = model.classify(pixels)
    assert logits.shape == (len(pixels), LABELS) and bool(torch.isfinite(logits).all())
    (certificate,) = model.certify(pixels[:1], n=40, n0=10, noise_kind="gaussian", seed=0)
    assert certificate.prediction in range(-1, LABELS) and certificate.radius >= 0.0


def reload(model: SmoothedClassifier, pixels: Tensor) -> None:
    """Its class, its tensors and its logits come back by the Auto class."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = AutoModelForImageClassification.from_pretrained(folder)
    assert type(again) is SmoothedClassifier
    assert type(again.base_network) is type(model.base_network)
    assert_same_tensors(tensors(again), tensors(model))
    with torch.no_grad():
        torch.testing.assert_close(again.classify(pixels), model.classify(pixels), rtol=1e-5, atol=1e-6)


def loop(model: PreTrainedModel, architecture: Architecture, folder: str, **kwargs: Any) -> RobustTrainer:
    pixels = (255 * images(architecture, 4)).to(torch.uint8)
    data = DecodedPixels(pixels, torch.arange(4))
    return trainer(model, folder, train_dataset=data, noise="0.25", max_steps=1, **kwargs)


def train(model: SmoothedClassifier, architecture: Architecture) -> None:
    """One step changes it; it is in eval mode and whole afterwards."""
    before = tensors(model)
    with tempfile.TemporaryDirectory() as folder:
        loop(model, architecture, folder).train()
    after = tensors(model.eval())
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert all(bool(torch.isfinite(value).all()) for value in after.values())


def train_lightly(model: SmoothedClassifier, architecture: Architecture, protocol: str) -> None:
    """One step of a protocol changes what it says and nothing else, at the rates that it says.

    Raises:
        ValueError: where there is no telling head from backbone.
    """
    depths = parameter_depths(model)
    assert depths.blocks > 1 or architecture.values.get("n_layer") == 1
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    decay = {"layer_decay": 0.5} if protocol == "light" else {}
    with tempfile.TemporaryDirectory() as folder:
        run = loop(model, architecture, folder, protocol=protocol, **decay)
        run.train()
        names = {parameter: name for name, parameter in run.model.named_parameters()}
        rates = {names[p]: group["initial_lr"] for group in run.optimizer.param_groups for p in group["params"]}
    head = {name for name in depths.head if before[name].is_floating_point()}
    deep = {"last-stage": depths.blocks, "linear-probe": depths.blocks + 2, "light": 0}[protocol]
    expected = {name for name, depth in depths.of.items() if name in head or depth >= deep}
    assert head and rates.keys() == expected
    if protocol == "light":
        assert rates == learning_rates(model, run.args.learning_rate, run.args.finetuning().body_learning_rate, 0.5)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= expected and changed & head
    model.requires_grad_(True)


def forward_order(model: nn.Module, pixels: Tensor) -> list[str]:
    """Names of the parameters in the order in which the modules that own them run."""
    order: list[str] = []
    hooks = []
    for where, module in model.named_modules():
        own = [f"{where}.{name}" if where else name for name, _ in module.named_parameters(recurse=False)]
        if own:
            hooks.append(module.register_forward_pre_hook(lambda _m, _a, own=own: order.extend(own)))
    with torch.no_grad():
        model(pixel_values=pixels)
    for hook in hooks:
        hook.remove()
    return order


def check_depths(network: PreTrainedModel, pixels: Tensor) -> None:
    """No parameter runs before one that is called less deep."""
    depths = parameter_depths(network).of
    order = [depths[name] for name in forward_order(network, pixels)]
    assert order == sorted(order)


def bounds(model: SmoothedClassifier, pixels: Tensor) -> None:
    """No corner and no point within the certified radius has another class.

    Raises:
        UnsupportedOperationError: naming an operation without a bound.
    """
    classes, radii = linf_certificates(model, pixels, largest=LARGEST)
    generator = torch.Generator().manual_seed(2)
    exact = model.double()
    for k in range(len(pixels)):
        away = 2.0 * torch.rand(64, *pixels.shape[1:], generator=generator, dtype=torch.float64) - 1.0
        away[:32] = away[:32].sign()
        points = (pixels[k].double() + float(radii[k]) * away).clamp(0.0, 1.0)
        with torch.no_grad():
            assert exact.classify(points).argmax(1).eq(int(classes[k])).all()
    model.float()


def unbounded(model: SmoothedClassifier, pixels: Tensor) -> str | None:
    """The operation for which there is no bound, or None."""
    try:
        bounds(model, pixels)
    except (UnsupportedOperationError, TypeError) as error:
        named = re.search(r"'(\w+)'", str(error))
        return f"`{named[1]}`" if named else str(error).split(",")[0].split(".")[0].lower()
    return None


def row(architecture: Architecture) -> list[str]:
    """The line of the table."""
    name = f"`{label(architecture)}`"
    if architecture.absent is not None:
        return [name, f"not tried: {architecture.absent}", "", "", ""]
    if architecture.refused is not None:
        return [
            name,
            f"refused: {'needs tokens or patches, not pixels' if 'classify' in architecture.refused else 'gives no logits'}",
            "",
            "",
            "",
        ]
    pixels, model = images(architecture), wrapped(architecture)
    certify(model, pixels)
    reload(model, pixels)
    operation = unbounded(model, pixels)
    train(model, architecture)
    try:
        for protocol in LIGHT:
            train_lightly(model, architecture, protocol)
        light = "yes"
    except ValueError:
        light = "refused: head inside the backbone"
    return [name, "yes", "yes", light, "yes" if operation is None else f"refused: {operation}"]


def table(rows: list[list[str]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Write the table into the page."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    gc.freeze()  # each training collects garbage among all that was ever imported, which takes ten times as long as the step
    made = table([row(architecture) for architecture in ARCHITECTURES])
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(START)
    PAGE.write_text(f"{head}{START}\n{made}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
