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
