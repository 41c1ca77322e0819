"""Run by test_ranks.py under torchrun: trains on two processes and writes down what each of them saw."""

import gc
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from torch.nn.parallel import DistributedDataParallel

from hf_smoothing import CertifiedAccuracyCallback, denoised_classifier
from tests.support.tiny import any_model, assert_same_tensors, data, tensors, trainer


ATTACKING = ("smoothadv", "cat-rs", "adversarial")
"""Objectives that run the network in eval mode as well."""

SEND = DistributedDataParallel._sync_buffers

CERTIFYING = {
    "adaptive-interval": {},
    "sabr": {"steps": 2},
    "mtl-ibp": {"adaptive": True},
    "cc-ibp": {},
    "exp-ibp": {},
}
"""Objectives whose bounds go past what distributes the network."""

DENOISING = {"denoising": {}, "stability": {"mse": 0.0, "stability": 1.0}}
"""Settings of the objective that trains a part of the model."""


RAGGED = [("vit", 11), ("resnet", 9), ("smoothed-vit", 11), ("smoothed-resnet", 2)]
"""Models and numbers of images that two ranks cannot share out evenly in batches of four."""


def watched(kind, folder, **kwargs):
    model = any_model(kind)
    seen = []
    target = model.base_network if "-" in kind else model
    hook = target.register_forward_pre_hook(
        lambda _m, _a, inputs: seen.append(inputs["pixel_values"].detach().clone()) if model.training else None,
        with_kwargs=True,
    )
    loop = trainer(model, folder, train_dataset=data(8), per_device_train_batch_size=2, **kwargs)
    return loop, model, seen, hook


def main(folder: Path) -> None:
    record = {}
    steps = {"max_steps": 2, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 1}
    for kind in ("vit", "smoothed-resnet"):
        loop, model, seen, hook = watched(kind, folder / kind, noise="0.5", **steps)
        loop.train()
        record[kind] = {"seen": torch.stack(seen), "weights": tensors(model)}
        hook.remove()
        resumed, again, _, hook = watched(kind, folder / f"{kind}-resumed", noise="0.5", **steps)
        with torch.no_grad():
            for parameter in again.parameters():
                parameter.add_(1.0)
        resumed.train(resume_from_checkpoint=str(folder / kind / "checkpoint-1"))
        assert_same_tensors(tensors(model), tensors(again))
        hook.remove()

    for name in ATTACKING:
        loop, model, _, hook = watched(
            "smoothed-resnet", folder / name, noise="clean" if name == "adversarial" else "0.5", objective=name,
            objective_args={"steps": 2}, max_steps=2,
        )  # fmt: skip
        with patch.object(DistributedDataParallel, "_sync_buffers", autospec=True, side_effect=SEND) as sent:
            loop.train()
        record[name] = {"weights": tensors(model), "sent": sent.call_count}
        hook.remove()

    for name, settings in CERTIFYING.items():
        loop, model, _, hook = watched(
            "smoothed-resnet", folder / name, noise="clean", objective=name, max_steps=2,
            objective_args={"largest": 0.01, "clean_share": 0.0, "ramp_share": 0.5, "l1": 1e-5, **settings},
        )  # fmt: skip
        loop.train()
        record[name] = {"weights": tensors(model)}
        hook.remove()

    for name, weights in DENOISING.items():
        model = denoised_classifier(
            any_model("smoothed-resnet"), sigma=0.25, denoiser={"kind": "residual", "width": 4, "depth": 3}
        )
        before = tensors(model.base_network.network)
        loop = trainer(
            model, folder / name, train_dataset=data(8), per_device_train_batch_size=2, noise="0.25", objective="denoising",
            objective_args=weights, trainable=["denoiser"], max_steps=2,
        )  # fmt: skip
        loop.train()
        assert_same_tensors(tensors(model.base_network.network), before)
        record[name] = {"weights": tensors(model.base_network.denoiser)}

    loop, model, seen, hook = watched(
        "smoothed-resnet", folder / "history", max_steps=2, eval_strategy="steps", eval_steps=1, eval_dataset=data(4)
    )
    loop.add_callback(CertifiedAccuracyCallback(loop, data(4), n0=4, n=50))
    loop.train()
    name = "eval_average_certified_radius_sigma0.25"
    record["history"] = [entry[name] for entry in loop.state.log_history if name in entry]
    hook.remove()

    loop, model, seen, hook = watched(
        "vit", folder / "clean", max_steps=1, optim="sgd", learning_rate=1.0, max_grad_norm=0.0, lr_scheduler_type="constant",
        eval_dataset=data(4),
    )  # fmt: skip
    loop.train()
    record["clean"] = {"seen": torch.stack(seen), "weights": tensors(model)}
    hook.remove()
    loop.add_callback(CertifiedAccuracyCallback(loop, data(4), n0=4, n=12))
    for kind, count in RAGGED:
        uneven = trainer(any_model(kind), folder / f"ragged-{kind}-{count}", per_device_eval_batch_size=4)
        output = uneven.predict(data(count, seed=1))
        record["ragged", kind, count] = (output.metrics, output.predictions)
        del uneven
    record["metrics"] = {name: value for name, value in loop.evaluate().items() if "certified" in name}
    record["model"] = any_model("smoothed-vit", noise=0.5).train()(data(2).pixels).logits.detach()

    torch.save(record, folder / f"rank{loop.args.process_index}.pt")
    # A loader that is still alive when the process group goes down can abort the process.
    del loop, resumed, model, again
    gc.collect()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
