"""What is certified is a function of one image, whatever its modules look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_smoothing import SmoothedClassifier
from hf_smoothing.attack_run import attack_run
from hf_smoothing.certification import certify, certify_dataset, predict
from hf_smoothing.certification.behaviour import answer_to_probe
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.certification.execution import Execution
from hf_smoothing.certification.identity import classifier_identity
from hf_smoothing.certification.probes import FURTHER, further_images
from hf_smoothing.certification.tolerance import COARSE, FINE, rows_apart
from hf_smoothing.records import RunError
from tests.support.classifiers import RUN, bytes_of, random_dataset, random_images, results
from tests.support.hidden_networks import SHAPE, WRAPPED, network, saturated
from tests.support.tiny import plain


IN_TRAIN_MODE = {"batch norm": nn.BatchNorm1d(8), "dropout": nn.Dropout(0.2)}
NEIGHBOURS: dict[str, Any] = {
    "batch norm without statistics": network(nn.BatchNorm1d(8, track_running_stats=False)).eval(),
    "batch norm of images without statistics": nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(16, 3)
    ).eval(),
    "a mean over the batch": lambda pixels: (pixels - pixels.mean(0)).flatten(1)[:, :3],
    "a scale of the batch": lambda pixels: pixels.flatten(1)[:, :3] / pixels.max(),
    "the smallest and largest of the batch": lambda pixels: (
        (pixels.flatten(1)[:, :3] - pixels.min()) / (pixels.max() - pixels.min())
    ),
    "random numbers beside a masked class": lambda pixels: torch.cat(
        [pixels.flatten(1)[:, :3] + 0.1 * torch.randn(len(pixels), 3), torch.full((len(pixels), 1), -1e4)], 1
    ),
    "the place in the batch": lambda pixels: pixels.flatten(1)[:, :3] * torch.arange(1.0, len(pixels) + 1)[:, None],
    "random numbers": lambda pixels: pixels.flatten(1)[:, :3] + 0.1 * torch.randn(len(pixels), 3),
}


def votes(logits: Tensor) -> Tensor:
    return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


def normalised(pixels: Tensor) -> Tensor:
    flat = pixels.flatten(1)
    return (flat - flat.mean(0)) / (flat.std(0, unbiased=False) + 0.3) + 0.5 * flat


HARD: dict[str, Callable[[Tensor], Tensor]] = {"votes": votes, "saturated": saturated}
"""What leaves little of logits."""
HIDDEN: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "statistics of the batch": lambda last, pixels: last(normalised(pixels)),
    "dropout": lambda last, pixels: nn.functional.dropout(last(pixels.flatten(1)), 0.1, True),
    "dropout of the inputs": lambda last, pixels: last(nn.functional.dropout(pixels.flatten(1), 0.05, True)),
}
"""What makes a vote depend on the batch or the moment, seen through such an end."""


def refused(classifier: Any, said: str, folder: Any) -> None:
    images = bytes_of(random_images(1, SHAPE))
    for call in (certify, predict):
        with pytest.raises(ValueError, match=said):
            call(classifier, images, sigma=0.5, n=100)
    with pytest.raises(ValueError, match=said):
        certify_dataset(classifier, random_dataset(2), folder / "run", **RUN)
    assert not (folder / "run").exists()


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("layer", IN_TRAIN_MODE.values(), ids=IN_TRAIN_MODE)
def test_a_network_in_train_mode_is_refused_wherever_it_hides(layer, wrap, tmp_path):
    inner = network(layer).train()
    refused(
        wrap(inner),
        r"The classifier must (judge each image by itself|answer to an image alike).*Call eval\(\)",
        tmp_path,
    )
    certify(wrap(inner.eval()), bytes_of(random_images(1, SHAPE)), sigma=0.5, n=100)


@pytest.mark.parametrize("classifier", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_what_depends_on_the_batch_or_the_moment_is_refused(classifier, tmp_path):
    refused(classifier, "The classifier must (judge each image by itself|answer to an image alike)", tmp_path)


@pytest.mark.parametrize("end", HARD.values(), ids=HARD)
@pytest.mark.parametrize("hidden", HIDDEN.values(), ids=HIDDEN)
def test_hard_votes_hide_neither_neighbours_nor_chance(hidden, end):
    for seed in range(12):
        torch.manual_seed(seed)
        last = nn.Linear(16, 3)
        with pytest.raises(
            ValueError, match="The classifier must (judge each image by itself|answer to an image alike)"
        ):
            answer_to_probe(resolve_classifier(lambda pixels, last=last: end(hidden(last, pixels))), SHAPE)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 1, 7), (3, 224, 224)])
def test_further_images_are_grouped_anew_and_the_same(shape):
    first, second = (
        [
            (number, image)
            for batch in further_images(shape, regrouped=again)
            for number, image in zip(*batch, strict=True)
        ]
        for again in (False, True)
    )
    assert [number for number, _ in first] == list(range(FURTHER))
    found = dict(second)
    assert len(found) == FURTHER and all(torch.equal(image, found[number]) for number, image in first)
    assert all(image.shape == shape and image.dtype == torch.float32 for image in found.values())


@pytest.mark.filterwarnings("ignore")  # torch asks to move to torchao
def test_quantised_weights_have_an_identity_and_scales_of_the_batch_are_refused(tmp_path):
    known = set()
    for shift in (0.0, 0.0, 0.5):
        one = network(nn.ReLU()).eval()
        one[1].weight.data[0, 0] += shift
        quantised = torch.ao.quantization.quantize_dynamic(one, {nn.Linear}, dtype=torch.qint8)
        known.add(classifier_identity(quantised)["weights_sha256"])
    assert len(known) == 2
    refused(quantised.eval(), "quantisation a scale that is not taken from the batch", tmp_path)


class Cached(nn.Module):
    """Makes a table at the first pass, as networks do with positions or the features of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.table = network(nn.ReLU()), None

    def forward(self, pixels: Tensor) -> Tensor:
        self.table = pixels.new_ones(3) if self.table is None else self.table
        found: Tensor = self.inner(pixels) * self.table
        return found

    def get_extra_state(self) -> object:
        return object()  # of which nothing can be said but where it lies


def test_what_a_network_keeps_from_the_probe_serves_an_attack_and_a_resumption(tmp_path):
    run = certify_dataset(Cached().eval(), random_dataset(2), tmp_path, **RUN)
    attack_run(Cached().eval(), random_dataset(2), run, steps=1, n=100)
    certify_dataset(Cached().eval(), random_dataset(2), tmp_path, **RUN)


def test_a_batch_that_cannot_be_any_size_is_said_to_be_the_cause():
    def in_fours(pixels):
        assert len(pixels) % 4 == 0
        return pixels.flatten(1)[:, :3]

    with pytest.raises(AssertionError) as caught:
        certify(in_fours, bytes_of(random_images(1, SHAPE)), sigma=0.5, n=100)
    assert any("A classifier must take float32 batches of any size" in note for note in caught.value.__notes__)


def test_every_class_counts_for_the_identity(tmp_path):
    def wide(last):
        return lambda pixels: torch.cat([pixels.flatten(1)] * 2, 1) * torch.tensor([1.0] * 20 + [last] * 12)

    certify_dataset(wide(1.0), random_dataset(2), tmp_path, **RUN)
    with pytest.raises(RunError, match="answers to fixed images"):
        certify_dataset(wide(-1.0), random_dataset(2), tmp_path, **RUN)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_rounding_is_no_fault(dtype, weights):
    model = SmoothedClassifier.from_base_pretrained(
        plain().to(weights), sigma=0.5, size=16, image_mean=[0.5] * 3, image_std=[0.1] * 3
    ).eval()
    found = [
        answer_to_probe(resolve_classifier(model), (3, 16, 16), Execution(dtype=dtype, channels_last=last)).logits
        for last in (False, True)
    ]
    assert not rows_apart(
        *map(torch.tensor, found), COARSE if dtype == "bfloat16" or weights == torch.bfloat16 else FINE
    )


def test_a_class_that_is_ruled_out_is_no_fault():
    def two_of_three(pixels):
        ruled_out = pixels.new_full((len(pixels), 1), -torch.inf)
        return torch.cat([pixels.flatten(1)[:, :2], ruled_out], 1)

    assert answer_to_probe(resolve_classifier(two_of_three), SHAPE).logits[0][2] == 0
    assert certify(two_of_three, bytes_of(random_images(1, SHAPE)), sigma=0.5, n=100)[0].prediction in (-1, 0, 1)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("noise", ["grid", "gaussian"])
def test_rows_do_not_depend_on_the_default_dtype(default, noise, tmp_path):
    seen = set()

    def classifier(pixels):
        seen.add(pixels.dtype)
        return pixels.flatten(1)[:, :3]

    images = random_dataset(2)
    expected = certify_dataset(classifier, images, tmp_path / "a", **RUN, noise_kind=noise)
    torch.set_default_dtype(default)
    try:
        found = certify_dataset(classifier, images, tmp_path / "b", **RUN, noise_kind=noise)
    finally:
        torch.set_default_dtype(torch.float32)
    assert results(found) == results(expected) and seen == {torch.float32}
