"""Every image classifier of `transformers`, walked: see docs/architectures.md."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from hf_smoothing import SmoothedClassifier
from hf_smoothing.models.heads import head_tensors
from hf_smoothing.training.layerwise import parameter_depths
from tests.support import walk
from tests.support.architectures import ARCHITECTURES, label


HERE = [a for a in ARCHITECTURES if a.absent is None]
KNOWN = [a for a in HERE if a.refused is None]


def each(architectures):
    return [pytest.param(a, id=label(a), marks=[pytest.mark.slow] if a.slow else []) for a in architectures]


def test_no_class_of_transformers_is_left_out():
    """A new type needs a line in tests/support/architectures.py, and `python -m tests.support.walk`."""
    names = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    theirs = {name for found in names for name in (found if isinstance(found, tuple) else (found,))}
    assert theirs <= {a.name for a in ARCHITECTURES}
    registered = {
        config.model_type for config in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING if "transformers." in config.__module__
    }
    assert registered <= {a.model_type for a in ARCHITECTURES}


def test_there_is_nothing_in_the_table_that_transformers_has_not():
    theirs = str(list(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()))
    assert [a.name for a in ARCHITECTURES if f"'{a.name}'" not in theirs] == []
    assert len({label(a) for a in ARCHITECTURES}) == len(ARCHITECTURES)


def line_of(architecture):
    text = walk.PAGE.read_text(encoding="utf-8").split(walk.START)[1].split(walk.END)[0]
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{label(architecture)}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("architecture", each(ARCHITECTURES))
def test_it_works_as_the_table_says(architecture):
    """Wrapped, certified, saved, loaded, trained, by every light protocol, and bounded; if this fails run `python -m tests.support.walk`."""
    assert walk.row(architecture) == line_of(architecture)


def test_the_table_has_each_class_once():
    text = walk.PAGE.read_text(encoding="utf-8").split(walk.START)[1].split(walk.END)[0]
    assert len(text.strip().splitlines()) == len(ARCHITECTURES) + 2


@pytest.mark.parametrize("architecture", each([a for a in HERE if a.refused is not None]))
def test_what_takes_no_pixels_or_gives_no_logits_is_refused_by_name(architecture):
    with pytest.raises(ValueError, match=architecture.refused):
        walk.wrapped(architecture)


@pytest.mark.parametrize("architecture", each([a for a in KNOWN if not a.name.startswith("Perceiver")]))
def test_depths_follow_the_forward_pass(architecture):
    walk.check_depths(architecture.build(), walk.images(architecture))


@pytest.mark.parametrize("architecture", each([a for a in KNOWN if a.name.startswith("Perceiver")]))
def test_a_head_inside_the_backbone_is_refused_with_the_cure_and_the_cure_works(architecture, tmp_path):
    model = walk.wrapped(architecture)
    for protocol in walk.LIGHT:
        with pytest.raises(ValueError, match=rf"{architecture.name} has no backbone .*from its head\. .*`trainable`"):
            walk.loop(model, architecture, str(tmp_path), protocol=protocol).create_optimizer()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    walk.loop(model, architecture, str(tmp_path), trainable=["decoder"]).train()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed and all(".decoder." in name for name in changed)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("architecture", each(KNOWN))
def test_a_head_is_replaced_or_made_only_when_it_is_asked_for(architecture, tmp_path):
    """From the same class with another head, and from the base model, which may leave a text tower or a pooler over."""
    network = architecture.build()
    network.save_pretrained(tmp_path / "whole")
    pixels = {"size": architecture.size, "image_mean": walk.MEAN, "image_std": walk.STD, "sigma": 0.25}
    asked = {"ignore_mismatched_sizes": True, "id2label": {0: "a", 1: "b", 2: "c"}}
    other = SmoothedClassifier.from_base_pretrained(tmp_path / "whole", **pixels, **asked)
    with torch.no_grad():
        assert other.classify(walk.images(architecture)).shape == (2, 3)
    before, after = network.state_dict(), other.base_network.state_dict()
    differing = {
        name for name in before if before[name].shape != after[name].shape or not before[name].equal(after[name])
    }
    assert differing and differing <= head_tensors(network)
    if type(network.config) not in MODEL_MAPPING or architecture.config == "Perceiver":
        return  # it has no base model, or one without the decoder that is most of the head
    MODEL_MAPPING[type(network.config)](network.config).save_pretrained(tmp_path / "headless")
    with pytest.raises(
        ValueError, match=r"tensors are missing: .*It has no head for these classes: finetune it first"
    ):
        SmoothedClassifier.from_base_pretrained(tmp_path / "headless", **pixels)
    made = SmoothedClassifier.from_base_pretrained(tmp_path / "headless", **pixels, **asked)
    assert made.num_labels == 3


def test_towers_are_backbones():
    """CLIP and its kin: what is before the head, whatever it is called."""
    for architecture in KNOWN:
        if architecture.config in ("CLIP", "MetaClip2", "Siglip"):
            depths = parameter_depths(walk.wrapped(architecture))
            assert depths.blocks == 2
            assert depths.head == {"base_network.classifier.weight", "base_network.classifier.bias"}
            ends = {name.split(".")[2] for name, depth in depths.of.items() if depth == depths.blocks + 1}
            assert {"post_layernorm"} <= ends


def test_the_walk_would_notice():
    """Each of its checks fails on a network that is not what it says."""
    architecture = next(a for a in KNOWN if a.config == "ResNet")
    model, pixels = walk.wrapped(architecture), walk.images(architecture)
    other = walk.wrapped(architecture)
    other.base_network.classifier[1].bias.data[1] += 100.0
    model.classify, classify = other.classify, model.classify
    with pytest.raises(AssertionError):
        walk.reload(model, pixels)
    model.classify = lambda x: classify(x)[:, :2]
    with pytest.raises(AssertionError):
        walk.certify(model, pixels)
    del model.classify
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.requires_grad_(False)
        with pytest.raises((AssertionError, ValueError)):
            walk.train(model, architecture)
