"""TF32 and its like are off while a network runs beside its bounds, by whatever switch somebody turned them on."""

from __future__ import annotations

import threading

import pytest
import torch

from hf_smoothing.interval import linf_certificates
from hf_smoothing.interval.classifier import interval_classifier, run_as_covered
from tests.support.bounded_networks import Hidden, pixels


NEW = hasattr(torch.backends.cudnn, "conv")
PLACES = ("cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn.conv", "mkldnn.rnn", "mkldnn.matmul")
BACKENDS = ("", "cudnn", "mkldnn", "cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")


def _at(place):
    found = torch.backends
    for part in filter(None, place.split(".")):
        found = getattr(found, part)
    return found


def _state():
    """All switches as they can be read; the names of errors where they cannot."""

    def read(function):
        try:
            return function()
        except RuntimeError as error:
            return type(error).__name__

    places = (
        [lambda place=place: _at(place).fp32_precision for place in ("", "cudnn", "mkldnn", *PLACES)] if NEW else []
    )
    old = (
        lambda: torch.backends.cudnn.allow_tf32,
        lambda: torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision,
    )
    return [read(function) for function in (*places, *old, lambda: torch.backends.cudnn.benchmark)]


def _legacy(products, convolutions):
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def _new(place, precision):
    def switch():
        _at(place).fp32_precision = precision

    return switch


SWITCHES = {f"{p} {c}": (lambda p=p, c=c: _legacy(p, c)) for p in ("highest", "high", "medium") for c in (True, False)}
if NEW:
    SWITCHES |= {
        f"{place or 'all'} {precision}": _new(place, precision)
        for place in BACKENDS
        for precision in ("ieee", "tf32", "bf16")
        if precision != "bf16" or place.startswith("mkldnn")
    }


@pytest.fixture(autouse=True)
def switches():
    """Whatever a test switches is as before afterwards."""
    yield
    for place in ("", "mkldnn", "cudnn", *PLACES) if NEW else ():
        _at(place).fp32_precision = "none"
    _legacy("highest", True)


def _less_than_float32():
    if NEW:
        return [place for place in PLACES if _at(place).fp32_precision not in ("ieee", "none")]
    return [torch.backends.cudnn.allow_tf32] * torch.backends.cudnn.allow_tf32 + [
        torch.get_float32_matmul_precision()
    ] * (torch.get_float32_matmul_precision() != "highest")


@pytest.mark.parametrize("name", SWITCHES)
def test_runs_are_in_float32_and_the_switches_as_before(name):
    SWITCHES[name]()
    before = _state()
    for _ in range(2):
        with run_as_covered():
            assert not _less_than_float32()
            with run_as_covered():
                assert not _less_than_float32()
            assert not _less_than_float32()
        assert _state() == before
    with pytest.raises(KeyError), run_as_covered():
        raise KeyError
    assert _state() == before


@pytest.mark.parametrize("name", SWITCHES)
def test_certificates_do_not_depend_on_the_switches(name):
    model, x = Hidden(lambda self, h: h.relu()).eval(), pixels()
    SWITCHES[name]()
    _, radii = linf_certificates(model, x, largest=0.1)
    assert (radii > 0).any()
    assert len(interval_classifier(model).classify(x)) == len(x)


@pytest.mark.skipif(not NEW, reason="one switch for all in this torch")
def test_what_is_inherited_stays_so():
    torch.backends.fp32_precision = "tf32"
    with run_as_covered():
        assert not _less_than_float32()
    torch.backends.fp32_precision = "ieee"
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
    assert torch.backends.mkldnn.conv.fp32_precision == "ieee"


def test_a_thread_that_leaves_first_switches_nothing_on():
    _legacy("high", True)
    before, entered, leave = _state(), threading.Event(), threading.Event()

    def first():
        with run_as_covered():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with run_as_covered():
        leave.set()
        thread.join(10)
        assert not _less_than_float32()
    assert _state() == before
