"""Every requested copy is drawn once and voted on in full batches, and what is no vote is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from hf_smoothing.certification import Draws, Execution, certify, count_votes, noisy_batches, predict
from hf_smoothing.certification.classifiers import resolve_classifier
from hf_smoothing.noise import GaussianStream
from tests.support.classifiers import Constant, Linear, Ranges, Watched, random_images


SHAPE = (1, 4, 4)
IMAGES = random_images(3)


def votes(classifier, requests, copies_per_batch=16, sigma=0.5, **options):
    execution = Execution(**options, copies_per_batch=copies_per_batch)
    return count_votes(classifier, IMAGES, requests, stream=gaussian(sigma), execution=execution)


def gaussian(sigma=0.5):
    return GaussianStream(0, SHAPE, sigma=sigma)


@st.composite
def request_lists(draw):
    count = draw(st.integers(1, 6))
    made = []
    for _ in range(count):
        slot, start, length = draw(st.integers(0, 2)), draw(st.integers(0, 80)), draw(st.integers(1, 50))
        made.append(Draws(slot, 10 + slot, start, start + length))
    return made


@given(request_lists(), st.integers(1, 70))
def test_every_requested_copy_is_made_once_in_full_batches(requests, batch_size):
    copies = [[] for _ in requests]
    sizes, buffers = [], set()
    batches = noisy_batches(IMAGES, requests, stream=gaussian(), copies_per_batch=batch_size)
    for batch, pieces in batches:
        sizes.append(len(batch))
        buffers.add(batch.untyped_storage().data_ptr())
        assert batch.untyped_storage().nbytes() <= batch_size * 16 * 4
        assert [first for _, first, _ in pieces] == [0, *(last for _, _, last in pieces[:-1])]
        assert pieces[-1][2] == len(batch)
        for number, first, last in pieces:
            copies[number].append(batch[first:last].clone())
    total = sum(request.stop - request.start for request in requests)
    assert sum(sizes) == total
    assert all(size == batch_size for size in sizes[:-1])
    assert len(buffers) == 1, "one buffer is reused"
    for request, made in zip(requests, copies, strict=True):
        expected = torch.empty(request.stop - request.start, *SHAPE)
        gaussian().draw(expected, request.image, request.start)
        assert torch.equal(torch.cat(made), IMAGES[request.slot] + 0.5 * expected)


@given(request_lists())
def test_votes_do_not_depend_on_the_batch_size(requests):
    expected = votes(Ranges(), requests, copies_per_batch=1)
    assert expected.sum(axis=1).tolist() == [request.stop - request.start for request in requests]
    for batch_size in (7, 64):
        assert votes(Ranges(), requests, copies_per_batch=batch_size).tolist() == expected.tolist()


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))
def test_votes_of_neighbouring_requests_add_up(start, first, second):
    parts = votes(Ranges(), [Draws(0, 0, start, start + first), Draws(0, 0, start + first, start + first + second)])
    whole = votes(Ranges(), [Draws(0, 0, start, start + first + second)])
    assert parts.sum(axis=0).tolist() == whole[0].tolist()


def test_classifier_may_scribble_on_its_batch():
    def scribbling(pixels):
        logits = Ranges()(pixels)
        pixels.zero_()
        return logits

    requests = [Draws(0, 0, 0, 50), Draws(1, 1, 0, 50)]
    images = IMAGES.clone()
    assert votes(scribbling, requests).tolist() == votes(Ranges(), requests).tolist()
    assert torch.equal(IMAGES, images)


def test_classify_is_preferred_to_calling():
    class Both:
        def __call__(self, pixels):
            raise AssertionError("eval-mode forward of a smoothed model is not the base classifier")

        def classify(self, pixels):
            return Constant(label=2)(pixels)

    assert votes(Both(), [Draws(0, 0, 0, 9)]).tolist() == [[0, 0, 9]]


def module(training: bool) -> nn.Module:
    stack = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Sequential(nn.Dropout(0.5))).eval()
    stack[2][0].train(training)
    return stack


def test_module_in_train_mode_is_refused_even_deep_inside():
    broken = module(training=True)
    for classifier in (broken, broken.forward):
        with pytest.raises(ValueError, match=r"must be in eval mode to be certified.*Call model.eval\(\) first"):
            resolve_classifier(classifier)
    with pytest.raises(ValueError, match="must be in eval mode"):
        votes(broken, [Draws(0, 0, 0, 9)])
    assert votes(module(training=False), [Draws(0, 0, 0, 9)]).sum() == 9


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_network_runs_in_half_precision_on_float32_noise(dtype):
    seen = []

    def classifier(pixels):
        logits = pixels.flatten(1) @ torch.ones(16, 2)
        seen.append((pixels.dtype, logits.dtype))
        return logits

    assert votes(classifier, [Draws(0, 0, 0, 20)], dtype=dtype).sum() == 20
    assert set(seen) == {(torch.float32, getattr(torch, dtype))}


def test_autograd_is_off():
    weight = torch.ones(16, 2, requires_grad=True)
    watched = Watched(lambda pixels: pixels.flatten(1) @ weight)
    votes(lambda pixels: watched(pixels).double(), [Draws(0, 0, 0, 5)])
    assert not torch.is_inference_mode_enabled()
    assert not watched.batches[0].requires_grad


@pytest.mark.parametrize(
    ("classifier", "error", "message"),
    [
        (lambda x: x.flatten(1).numpy(), TypeError, r"must return a tensor of logits .*got ndarray"),
        (
            lambda x: {"logits": x.flatten(1)},
            TypeError,
            "got dict. Wrap a transformers model .* or return output.logits",
        ),
        (lambda x: x.sum((1, 2, 3)), ValueError, r"logits of shape \(batch, num_labels\) = \(9, ...\), got \(9,\)"),
        (lambda x: x.flatten(1)[:5], ValueError, r"= \(9, ...\), got \(5, 16\)"),
        (lambda x: x, ValueError, r"= \(9, ...\), got \(9, 1, 4, 4\)"),
        (lambda x: x.flatten(1)[:, :1], ValueError, "single output, as for regression.*use two logits"),
    ],
)
def test_what_is_no_logits_is_refused(classifier, error, message):
    with pytest.raises(error, match=message):
        votes(classifier, [Draws(0, 0, 0, 9)])


ODD_LOGITS = {
    "truth values": lambda logits: logits > 0,
    "complex numbers": lambda logits: logits.to(torch.complex64),
    "eight bits": lambda logits: logits.to(torch.float8_e4m3fn),
    "sparse": lambda logits: logits.float().to_sparse(),
    "sparse rows": lambda logits: logits.float().to_sparse_csr(),
    "nested": lambda logits: torch.nested.nested_tensor(list(logits)),
    "quantised": lambda logits: torch.quantize_per_tensor(logits.float(), 0.1, 0, torch.qint8),
    "no sign": lambda logits: logits.abs().long().to(torch.uint16),
}


@pytest.mark.filterwarnings("ignore")  # torch says that some of these are new
@pytest.mark.parametrize("odd", ODD_LOGITS.values(), ids=ODD_LOGITS)
def test_logits_of_which_none_is_known_to_be_the_largest_are_refused(odd):
    with pytest.raises(TypeError, match="must return a dense tensor of real logits, such as float32, got"):
        votes(lambda pixels: odd(Ranges()(pixels)), [Draws(0, 0, 0, 20)])
    for call in (certify, predict):
        with pytest.raises(TypeError, match="must return a dense tensor of real logits, such as float32, got"):
            call(lambda pixels: odd(Ranges()(pixels)), (255 * IMAGES).to(torch.uint8), sigma=0.5, n=20)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8]
)
def test_votes_are_votes_in_any_dtype(dtype):
    requests = [Draws(0, 0, 0, 40)]
    found = votes(lambda pixels: Ranges()(pixels).to(dtype), requests)
    assert (found == votes(Ranges(), requests)).all()


def test_number_of_classes_may_not_change():
    watched = Watched(lambda pixels: Constant(num_labels=2 + len(watched.batches))(pixels))
    with pytest.raises(ValueError, match="num_labels|classes"):
        votes(watched, [Draws(0, 0, 0, 40)])


@pytest.mark.parametrize("where", [0, 1, 2])
def test_nan_logits_are_refused_naming_the_image(where):
    def classifier(pixels):
        logits = Linear()(pixels)
        # Only one of the 30 copies of one image is affected.
        logits[(pixels == broken).flatten(1).all(1), 1] = float("nan")
        return logits

    noise = torch.empty(1, *SHAPE)
    gaussian().draw(noise, 100 + where, 17)
    broken = (IMAGES[where] + 0.5 * noise)[0]
    requests = [Draws(slot, 100 + slot, 0, 30) for slot in range(3)]
    with pytest.raises(
        ValueError, match=f"nan logits for noisy copies of image {100 + where}; votes on nan mean nothing"
    ):
        votes(classifier, requests)


ENDLESS = [[math.inf, math.inf, 0.0], [0.0, math.inf, math.inf], [math.inf] * 3, [-math.inf] * 3]


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("logits", ENDLESS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_infinite_logits_without_a_largest_are_refused_naming_the_image(where, logits, dtype):
    """They would be votes for the lowest class, whatever the image."""
    noise = torch.empty(1, *SHAPE)
    gaussian().draw(noise, 100 + where, 17)
    broken = (IMAGES[where] + 0.5 * noise)[0]

    def classifier(pixels):
        found = Linear()(pixels).to(dtype)
        found = torch.cat([found, found.new_full((len(found), 1), -math.inf)], dim=1)[
            :, :3
        ]  # one without a chance is no fault
        found[(pixels == broken).flatten(1).all(1)] = torch.tensor(logits[: found.shape[1]], dtype=dtype)
        return found

    requests = [Draws(slot, 100 + slot, 0, 30) for slot in range(3)]
    with pytest.raises(
        ValueError, match=f"infinite logits for noisy copies of image {100 + where}, of which none is the largest"
    ):
        votes(classifier, requests)


def test_infinite_logits_are_votes():
    def classifier(pixels):
        return torch.tensor([0.0, float("inf"), -float("inf")]).expand(len(pixels), -1)

    assert votes(classifier, [Draws(0, 0, 0, 9)]).tolist() == [[0, 9, 0]]


def test_no_request_is_refused():
    with pytest.raises(ValueError, match="at least one draw, got none"):
        votes(Linear(), [])


def test_dtype_is_checked():
    with pytest.raises(ValueError, match="must be one of float32, bfloat16, float16, got 'int8'"):
        votes(Linear(), [Draws(0, 0, 0, 9)], dtype="int8")


class LiveBytes(TorchDispatchMode):
    """The largest amount of tensor memory that was alive at once, of what was made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


def test_memory_does_not_grow_with_the_number_of_draws():
    peaks = []
    for draws in (2_000, 100_000):
        with LiveBytes() as live:
            assert votes(Constant(), [Draws(0, 0, 0, draws)], copies_per_batch=1_000).sum() == draws
        peaks.append(live.peak)
    assert peaks[0] >= 1_000 * 16 * 4, "the batch itself must have been seen"
    assert peaks[1] == peaks[0]
