"""Figures of the pages, computed again from the compact records by other code: scipy and numpy alone, nothing of the package."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats


DOCS = Path(__file__).resolve().parents[2] / "docs"


def lines(study):
    text = (DOCS / "results" / f"{study}-cpu.jsonl").read_text(encoding="utf-8")
    return {line["stage"]: line for line in map(json.loads, text.splitlines())}


SMOOTHING, ROBUSTNESS, METHODS = map(lines, ("smoothing_transfer", "robustness_transfer", "training_methods"))


def row(page, table, *starts):
    """The cells of the row of a table that begins with these."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"<!-- table {re.escape(table)} -->\n(.*?)<!-- end -->", text, flags=re.DOTALL)
    rows = [
        [cell.strip() for cell in line.strip("| \n").split(" | ")]
        for line in block.splitlines()
        if line.startswith("|")
    ]
    (found,) = [cells for cells in rows if cells[: len(starts)] == list(starts)]
    return found


def exact(right, n):
    """Clopper and Pearson's interval in %, by scipy's beta."""
    low = stats.beta.ppf(0.025, right, n - right + 1) if right else 0.0
    high = stats.beta.ppf(0.975, right + 1, n - right) if right < n else 1.0
    return 100 * right / n, 100 * low, 100 * high


def paired(first, second):
    """Difference with Student's interval, by scipy's test."""
    test = stats.ttest_rel(first, second)
    low, high = test.confidence_interval(0.95)
    return float(np.mean(first) - np.mean(second)), float(low), float(high)


def in_words(found, factor=1.0):
    digits = 1 if factor == 100.0 else 3
    value, low, high = (f"{factor * one:+.{digits}f}" for one in found)
    said = "higher" if found[1] > 0 else "lower" if found[2] < 0 else "no significant difference"
    return f"{said}, {value} [{low}, {high}]"


def down(value):
    """Three decimals, rounded down."""
    return f"{math.floor(value * 1000 + 1e-9) / 1000:.3f}"


def smoothing(cell, sigma, seed=0):
    return np.array(SMOOTHING[f"certify/resnet/{cell}/seed{seed}/sigma{sigma}"]["radii"])


def acr_of_seeds(cell, sigma):
    return np.mean([smoothing(cell, sigma, seed).clip(min=0) for seed in range(3)], axis=0)


def method(name, sigma, seed=0):
    return np.array(METHODS[f"certify/{name}/sigma{sigma}/seed{seed}"]["result"]["radii"])


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("finetuning", ["mixture", "levels", "levels-three-times-as-long"])
def test_one_model_against_the_matched_ones(finetuning, sigma):
    """Nine differences, their intervals and verdicts, in two tables."""
    found = paired(acr_of_seeds(f"mixture/{finetuning}", sigma), acr_of_seeds(f"{sigma}/{sigma}", sigma))
    called = "levels, three times as long" if finetuning.endswith("long") else finetuning
    claim = 3 if finetuning.endswith("long") else 2
    sums_up = row("smoothing_transfer", "cpu claims", f"{claim}. mixture → {called} minus matched single sigma, ACR")
    assert sums_up[1 + [0.25, 0.5, 1.0].index(sigma)] == in_words(found)
    cells = row("smoothing_transfer", "cpu claims23-resnet", called, str(sigma), "ACR")
    assert cells[5] == in_words(found).partition(", ")[2]
    assert cells[3].startswith(f"**{down(acr_of_seeds(f'mixture/{finetuning}', sigma).mean())}**")


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_the_grid(sigma):
    """Three cells: % at sigma / 2 and ACR."""
    radii = smoothing("mixture/clean", sigma)
    expected = f"{100 * np.mean(radii >= sigma / 2):.1f} / {down(radii.clip(min=0).mean())}"
    assert row("smoothing_transfer", "cpu grid-resnet", str(sigma), "mixture")[2] == expected


@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0])
def test_many_draws(radius):
    """Three accuracies with their exact intervals."""
    radii = np.array(SMOOTHING["certify/resnet/mixture/mixture/headline/seed0/sigma0.5"]["radii"])
    share, low, high = exact(int((radii >= radius).sum()), len(radii))
    cells = row("smoothing_transfer", "cpu headline-resnet", "0.5", "mixture → mixture")
    assert cells[2 + [0.0, 0.25, 0.5, 0.75, 1.0].index(radius)] == f"{share:.1f} [{low:.0f}, {high:.0f}]"


@pytest.mark.parametrize(("sigma", "k"), [(0.25, 0), (0.25, 4), (0.5, 2)])
def test_certified_accuracy_of_a_method(sigma, k):
    radii = method("consistency", sigma)
    share, low, high = exact(int((radii >= k * sigma / 2).sum()), len(radii))
    assert row("training_methods", f"cpu sigma-{sigma}", "consistency")[2 + k] == f"{share:.1f} ({low:.1f}-{high:.1f})"


@pytest.mark.parametrize(
    ("name", "sigma"), [("consistency", 0.25), ("MACER", 0.25), ("SmoothMix", 0.5), ("CAT-RS", 0.5)]
)
def test_a_method_against_the_mean_of_the_seeds_of_noise(name, sigma):
    seeds = [seed for seed in range(3) if f"certify/{name}/sigma{sigma}/seed{seed}" in METHODS]
    own, noise = (
        np.mean([method(one, sigma, s).clip(min=0) for s in some], axis=0)
        for one, some in ((name, seeds), ("noise", range(3)))
    )
    cells = row("training_methods", "cpu verdicts-methods", name)
    assert cells[2 if sigma == 0.25 else 6] == in_words(paired(own, noise))


def attacked(target, pretraining, way="plain"):
    """Whether each image survives each radius, (seeds, radii, images)."""
    seeds = [
        ROBUSTNESS[f"attack/{target}/{pretraining}/{way}/seed{seed}"]["result"]["right"]["linf"] for seed in range(3)
    ]
    return np.array([[[int(bit) for bit in radius] for radius in seed] for seed in seeds])


@pytest.mark.parametrize("target", ["cifar10", "mnist"])
@pytest.mark.parametrize(("about", "first", "second"), [
    ("adversarial minus clean, plain", ("adversarial", "plain"), ("clean", "plain")),
    ("mixture minus clean, hundredfold mitigation", ("mixture", "hundredfold-mitigation"), ("clean", "hundredfold-mitigation")),
])  # fmt: skip
def test_backbones_under_attack(about, first, second, target):
    sides = [attacked(target, *one)[:, -1].mean(0) for one in (first, second)]
    cells = row("robustness_transfer", "cpu verdicts", "Backbones compared, accuracy at 2/255", about)
    assert cells[2 if target == "cifar10" else 3] == in_words(paired(*sides), 100.0)


@pytest.mark.parametrize("target", ["cifar10", "mnist"])
def test_certified_radius_beside_no_pretraining(target):
    sides = [
        np.mean([np.array(ROBUSTNESS[f"certify/{target}/{one}/plain/seed{seed}"]["result"]["radii"]).clip(min=0) for seed in range(3)], axis=0)
        for one in ("mixture", "none")
    ]  # fmt: skip
    cells = row(
        "robustness_transfer",
        "cpu verdicts",
        "Average certified radius",
        "mixture, plain, minus no pretraining, plain",
    )
    assert cells[2 if target == "cifar10" else 3] == in_words(paired(*sides))


@pytest.mark.parametrize("number", range(8))
def test_certified_accuracy_of_interval_networks(number):
    record = json.loads((DOCS / "results" / "interval.json").read_text(encoding="utf-8"))["adaptive-cifar10"][
        "networks"
    ][number]
    cells = row("interval", "adaptive-cifar10 networks", record["kind"], f"{record['kappa']:g}", str(record["seed"]))
    for place, right in enumerate(record["right"].values()):
        share, low, high = exact(right, record["images"])
        assert cells[3 + place] == f"{share:.1f} ({low:.1f}-{high:.1f})"
