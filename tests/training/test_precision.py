"""Mixed precision lasts as long as a training or an evaluation, whichever way that ends."""

import copy

import pytest
import torch
from transformers import TrainerCallback

from tests.support.tiny import any_model, data, trainer


class Stop(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        raise KeyboardInterrupt


def broken_off(loop):
    loop.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        loop.train()
    loop.remove_callback(Stop)


USES = {
    "train": lambda loop: loop.train(),
    "evaluate": lambda loop: loop.evaluate(data()),
    "predict": lambda loop: loop.predict(data()),
    "broken off": broken_off,
}


def watched(kind):
    """A model, and the dtypes that its first linear or convolutional layer puts out."""
    model, seen = any_model(kind), []
    layer = next(m for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)))
    layer.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    return model, seen


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("kind", ["resnet", "vit", "smoothed-vit"])
def test_the_model_has_its_own_forward_afterwards(kind, use, tmp_path):
    model = any_model(kind)
    before = dict(vars(model))
    use(trainer(model, tmp_path, bf16=True))
    added = {name for name in vars(model).keys() - before.keys() if "forward" in name or "accelerate" in name}
    assert not added
    pixels, twin = torch.rand(2, 3, 16, 16), copy.deepcopy(model.eval())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        # A copy answers with its own weights; and what `transformers` wraps around `forward` is still there.
        classify = twin.classify if kind.startswith("smoothed") else lambda x: twin(pixel_values=x).logits
        assert not classify(pixels).any()
    if not kind.startswith("smoothed"):
        assert model(pixel_values=pixels, output_hidden_states=True).hidden_states is not None


@pytest.mark.parametrize("kind", ["resnet", "vit", "smoothed-vit"])
def test_every_use_of_a_trainer_has_its_mixed_precision(kind, tmp_path):
    model, seen = watched(kind)
    loop = trainer(model, tmp_path, bf16=True)
    for name in ("evaluate", "train", "evaluate", "train", "broken off", "predict", "train"):
        seen.clear()
        USES[name](loop)
        assert torch.bfloat16 in seen, name
        if name == "train":
            assert set(seen) == {torch.bfloat16}, name
    seen.clear()
    trainer(model, tmp_path, bf16=True).train()
    assert set(seen) == {torch.bfloat16}, "another trainer of the same model"


FULL = {"bf16_full_eval": torch.bfloat16, "fp16_full_eval": torch.float16}
MEASURES = {
    "evaluate": lambda loop: loop.evaluate(data()),
    "predict": lambda loop: loop.predict(data()),
    "callback": lambda loop: loop.evaluation_loop(loop.get_eval_dataloader(data()), "own"),
}


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(before, after):
    return all(before[name].dtype == value.dtype and torch.equal(before[name], value) for name, value in after.items())


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("setting", FULL)
@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_an_evaluation_in_half_precision_leaves_the_weights_as_they_are(kind, setting, measure, tmp_path):
    model, seen = watched(kind)
    before = values(model)
    loop = trainer(model, tmp_path, ema_decay=0.5, eval_num_samples=1, **{setting: True})
    measure(loop)
    assert set(seen) == {FULL[setting]}
    assert same(before, values(model))
    seen.clear()
    loop.train()
    assert set(seen) == {torch.float32}
    trained = values(model)
    measure(loop)
    assert same(trained, values(model)) and model.dtype == torch.float32
    loop.save_model(str(tmp_path / "saved"))
    assert same(trained, values(type(model).from_pretrained(tmp_path / "saved")))


def test_so_does_one_that_is_broken_off(tmp_path):
    model = any_model("resnet")
    before = values(model)
    loop = trainer(model, tmp_path, bf16_full_eval=True, compute_metrics=lambda out: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loop.evaluate(data())
    assert same(before, values(model))
