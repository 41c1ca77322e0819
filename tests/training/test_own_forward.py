"""Networks whose forward pass takes no labels, nothing but pixels, or returns tuples are trained and measured like others."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from tests.support.tiny import any_model, data, label_maps, trainer


class OwnConfig(PreTrainedConfig):
    model_type = "own_forward"


class Keywords(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.body, self.head = nn.Linear(3 * 16 * 16, 8), nn.Linear(8, config.num_labels)
        self.post_init()

    def forward(self, pixel_values=None, **kwargs):
        return ImageClassifierOutput(logits=self.head(self.body(pixel_values.flatten(1)).tanh()))


class Bare(Keywords):
    def forward(self, pixel_values):
        return super().forward(pixel_values)


def deit():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = DeiTConfig(**sizes, image_size=16, patch_size=4, **label_maps())
    return DeiTForImageClassificationWithTeacher(config)


def tuples(kind):
    model = any_model(kind)
    model.config.return_dict = False
    return model


MODELS = {
    "keywords": lambda: Keywords(OwnConfig(**label_maps())),
    "bare": lambda: Bare(OwnConfig(**label_maps())),
    "deit": deit,
    "tuples": lambda: tuples("resnet"),
    "tuples of vit": lambda: tuples("vit"),
    "tuples of a wrapper": lambda: tuples("smoothed-vit"),
}


@pytest.mark.parametrize("votes", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_they_are_trained_and_measured(make, smoothing, votes, tmp_path):
    model = make()
    steps = {f"{name}_strategy": "steps" for name in ("eval", "save")} | {"eval_steps": 1, "save_steps": 1}
    loop = trainer(
        model, tmp_path, eval_dataset=data(11), label_smoothing_factor=smoothing, metric_for_best_model="accuracy", load_best_model_at_end=True,
        eval_num_samples=None if votes else 0, **steps,
    )  # fmt: skip
    loop.train()
    figures, output = loop.evaluate(), loop.predict(data(11))
    logits = torch.as_tensor(output.predictions)
    expected = F.cross_entropy(logits, data(11).labels, label_smoothing=smoothing)
    assert figures["eval_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert model.config.return_dict == make().config.return_dict
    name = "eval_smoothed_accuracy" if "eval_smoothed_accuracy" in figures else "eval_accuracy"
    assert figures[name] == pytest.approx(float((logits.argmax(1) == data(11).labels).float().mean()))


@pytest.mark.parametrize("kind", ["resnet", "vit", "smoothed-vit"])
def test_further_columns_of_a_collator_are_left_alone(kind, tmp_path):
    def collate(items):
        batch = {name: torch.stack([torch.as_tensor(item[name]) for item in items]) for name in items[0]}
        return batch | {"index": torch.arange(len(items))}

    loop = trainer(any_model(kind), tmp_path, data_collator=collate)
    loop.train()
    assert loop.evaluate(data(4))["eval_loss"] > 0.0


@pytest.mark.parametrize("kind", ["resnet", "smoothed-vit"])
def test_images_without_labels_have_no_loss(kind, tmp_path):
    def collate(items):
        return {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "labels": torch.full((len(items),), -100),
        }

    figures = trainer(any_model(kind), tmp_path, data_collator=collate).evaluate(data(4))
    assert not {"eval_loss", "eval_accuracy", "eval_smoothed_accuracy"} & figures.keys()
