"""A deterministic certificate is attacked around its own centre, in float64, and the function that was certified answers."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from hf_smoothing.attack_run import attack_run
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.preprocessing import Preprocessing


ATTACK = {"steps": 20, "seed": 0, "progress": False}


class Edge(nn.Module):
    """Class 1 where the sum of the pixels is above the threshold."""

    def __init__(self, threshold, dtype=torch.float64):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold, dtype=dtype))

    def forward(self, pixels):
        total = pixels.flatten(1).sum(1)
        return torch.stack([self.threshold - total, total - self.threshold], 1)


class Constants(nn.Module):
    """A formula with Python numbers against a parameter."""

    def __init__(self, formula, limit):
        super().__init__()
        self.formula, self.limit = formula, nn.Parameter(torch.tensor(limit))

    def forward(self, pixels):
        value = self.formula(pixels).flatten(1)
        return torch.cat([0.0 * value + self.limit, value], 1)


def certified(network, pixels, folder, **options):
    options = {"largest": 0.05, "tolerance": 1e-12, "progress": False, **options}
    dataset = [{"pixel_values": pixels, "labels": 0}]
    return dataset, certify_dataset_linf(network.eval(), dataset, folder, **options)


def single(value):
    return float(torch.tensor(value, dtype=torch.float32))


# Whose float32 neighbours are nearer to the edge than they are.
GREY = max(range(140, 250), key=lambda k: single(k / 255) - k / 255)
CENTRES = {
    "uint8": torch.tensor(GREY, dtype=torch.uint8),
    "float64": torch.tensor(single(0.7) - 2.9e-8, dtype=torch.float64),
    "float16": min((torch.tensor(k / 255).half() for k in range(140, 250)), key=lambda x: float(x) - round(float(x) * 255) / 255),
    "float32": torch.tensor(0.7),
}  # fmt: skip


@pytest.mark.parametrize("cover_run", [False, True])
@pytest.mark.parametrize("kind", CENTRES)
def test_the_centre_is_that_of_the_certificate(kind, cover_run, tmp_path):
    pixels = CENTRES[kind].reshape(1, 1, 1)
    centre = float(pixels.double()) / (255 if kind == "uint8" else 1)
    edge = single(centre + 1e-3) - 1e-9  # a float32 image is just beyond
    network = Edge(edge)
    dataset, run = certified(network, pixels, tmp_path, cover_run=cover_run)
    radius = run.rows[0]["radius"]
    assert 0.999 * (edge - centre) < radius <= edge - centre
    (item,) = attack_run(network, dataset, run, **ATTACK)
    assert not item.broken and 0.99999 * radius < item.distance < radius
    (item,) = attack_run(network, dataset, longer(run, 1.01 * radius), **ATTACK)
    assert item.broken


def longer(run, radius):
    """A run whose certificate is careless."""
    return replace(run, rows={0: run.rows[0] | {"radius": radius}})


NORMALISED = Preprocessing((0.1307,), (0.3081,))
FORMULAS = {
    "product": lambda x: x * 0.9,
    "quotient": lambda x: x / 0.8,
    "difference": lambda x: x - 0.8,
    "sum of products": lambda x: torch.add(x, x, alpha=0.7),
    "normalisation": NORMALISED,
}
EXACT = {
    "product": lambda b, number: b / number(0.9),
    "quotient": lambda b, number: b * number(0.8),
    "difference": lambda b, number: b + number(0.8),
    "sum of products": lambda b, number: b / (1 + number(0.7)),
    "normalisation": lambda b, number: b * number(0.3081) + number(0.1307),
}


def in_float32(number):
    return Fraction(single(number))


def between(kind, low, high):
    """A limit b and a float32 pixel that reaches it only with the constants as float64 has them."""
    draw = random.Random(0)
    for _ in range(10_000):
        pixel = single(draw.uniform(low, high))
        limit = float(FORMULAS[kind](torch.full((1, 1, 1, 1), pixel)))
        edge, other = EXACT[kind](Fraction(limit), in_float32), EXACT[kind](Fraction(limit), Fraction)
        if edge - Fraction(pixel) > 1e-9 and Fraction(pixel) - other > 5e-10:
            return limit, pixel, edge
    raise AssertionError("no such pixel")


@pytest.mark.parametrize("kind", FORMULAS)
def test_constants_are_those_of_the_network(kind, tmp_path):
    limit, pixel, edge = between(kind, *((0.002, 0.03) if kind in ("normalisation", "difference") else (0.6, 0.99)))
    image = torch.full((1, 1, 1), single(pixel - 3e-4))
    network = Constants(FORMULAS[kind], limit)
    dataset, run = certified(network, image, tmp_path, cover_run=False)
    radius, true = run.rows[0]["radius"], edge - Fraction(float(image))
    assert 0.99999 * true < radius <= true
    (item,) = attack_run(network, dataset, run, **ATTACK)
    assert not item.broken and item.distance < radius
    (item,) = attack_run(network, dataset, longer(run, 1.0001 * radius), **ATTACK)
    assert item.broken


@pytest.mark.parametrize("cover_run", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ball_below_the_resolution_of_a_run(cover_run, dtype, tmp_path):
    """Its corner is found nevertheless, where only the certified function answers otherwise."""
    image = torch.full((3, 2, 2), 0.5)
    network = Edge(6.0 + 2.0**-19, dtype)  # at a distance of 1.6e-7
    dataset, run = certified(network, image, tmp_path, cover_run=cover_run)
    radius, true = run.rows[0]["radius"], 2.0**-19 / 12
    assert radius <= true and (radius > 0.99 * true or (cover_run and dtype == torch.float32))
    for share in (0.5, 0.999):
        assert not attack_run(network, dataset, longer(run, share * true), **ATTACK)[0].broken or cover_run
    (item,) = attack_run(network, dataset, longer(run, 1.001 * true), **ATTACK)
    assert item.broken and item.distance < 1.001 * true
