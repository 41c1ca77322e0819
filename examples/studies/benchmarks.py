"""Tables of the pages on certification and interval bounds, from what their benchmarks measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from examples.studies.guarantee import fuzzed, random_bits
from examples.studies.pages import markdown_table
from hf_smoothing.cards import fill_one
from hf_smoothing.records import read_json


Details = dict[str, Any]


def rebuild(docs: Path) -> None:
    """Put the tables into their pages.

    Raises:
        ValueError: If a page has no place for its table.
    """
    for subject, name, made, results in (
        ("certification", "certification figures", certification, "certification"),
        ("interval", "interval covering", covering, "interval"),
        ("interval", "losses steps", steps, "linf_frontier"),
        ("interval", "bounds tightness", tightness, "linf_frontier"),
        ("interval", "interval dataset", whole_dataset, "guarantee"),
        ("how_to/verify", "verified claims", verified, "verified_claims"),
        ("how_to/verify", "verified networks", verified_networks, "verified_claims"),
        ("explanation/how_it_is_tested", "fuzzed parsers", fuzzed, "guarantee"),
        ("explanation/how_it_is_tested", "random bits", random_bits, "guarantee"),
    ):
        page = docs / f"{subject}.md"
        body = made(read_json(docs / "results" / f"{results}.json") or {})
        page.write_text(fill_one(page.read_text(encoding="utf-8"), name, body, page), encoding="utf-8")


def steps(measured: dict[str, Any]) -> str:
    """What a training step of each loss costs."""
    about = measured["step_cost"]
    rows = [
        [name, f"{ratio:.2f}", f"{min(about['ratios'][name]):.2f} to {max(about['ratios'][name]):.2f}"]
        for name, ratio in about["value"].items()
    ]
    return markdown_table(
        ["loss", "step over that of the fixed radius", f"of {len(about['ratios']['fixed radius'])} rounds"], rows
    )


def tightness(measured: dict[str, Any]) -> str:
    """How far each kind of bounds certifies, and what it costs."""
    rows = [
        [
            network, bounds, f"{one['median_radius']:.4f}", f"{one['at_largest_percent']:g}%",
            "" if bounds == "none" else f"{one['enlarged_percent']:g}%", f"{one['seconds_per_image']:.2f} s",
        ]
        for network, every in measured["tightness"]["value"].items()
        for bounds, one in every.items()
    ]  # fmt: skip
    head = ["network", "`backward`", "median radius", "at the largest radius", "enlarged by these bounds", "time per image"]  # fmt: skip
    return markdown_table(head, rows)


def whole_dataset(measured: dict[str, Any]) -> str:
    """What certifying a whole test set takes."""
    about = measured["interval_dataset"]
    return markdown_table(
        ["images", "time", "peak memory"],
        [
            [f"{one['images']:,}", f"{one['seconds']:g} s", f"{one['peak_memory_mb']:,} MiB"]
            for one in about["value"].values()
        ],
    )


def covering(measured: dict[str, Any]) -> str:
    """What covering float32 runs takes from the radii of interval bounds."""
    about = measured["median_radius"]
    most = max(one["images"] for one in about["value"].values())
    rows = [
        [name if one["images"] == most else f"{name}, the first of them", one["images"], f"{one['real_arithmetic']:.6f}", f"{one['float32_runs']:.6f} ({100 * (1 - one['float32_runs'] / one['real_arithmetic']):.1f}% less)"]
        for name, one in about["value"].items()
    ]  # fmt: skip
    head = [
        f"{about['model']}, every {about['stride']}th test image",
        "images",
        "median radius, real arithmetic",
        "median radius, float32 runs",
    ]
    return markdown_table(head, rows)


def verified(measured: dict[str, Any]) -> str:
    """What other verifiers say of claims, and of radii that are 10% larger."""
    rows = []
    for name, one in measured["small_networks"]["value"].items():
        cells = [
            f"{one[verifier]['claims']['confirmed']} / {one[verifier]['claims']['refuted']} / {one[verifier]['claims']['open']}"
            for verifier in ("Marabou", "auto_LiRPA")
        ]
        beyond = one["Marabou"]["10% beyond"]
        larger = f"{beyond['confirmed']} / {beyond['refuted']} / {beyond['open']}"
        rows.append([name, one["claims"], f"{one['median_radius']:.4f}", *cells, larger])
    head = ["network, training, bounds", "claims", "median radius", "Marabou", "auto_LiRPA", "Marabou at radius + 10%"]
    return markdown_table(head, rows)


def verified_networks(measured: dict[str, Any]) -> str:
    """How many claims of the published networks each kind of another verifier's bounds confirms."""
    rows = [
        [
            name, one["bounds"].replace("none", "intervals"), f"{one['claims']:,}",
            *(f"{count:,}" for count in one["confirmed"].values()), f"{len(one['open']):,}",
        ]
        for name, one in measured["published_networks"]["value"].items()
    ]  # fmt: skip
    first = next(iter(measured["published_networks"]["value"].values()))
    return markdown_table(["network", "certified by", "claims", *first["confirmed"], "open"], rows)


def certification(measured: dict[str, Any]) -> str:
    """A row for each network and device of each figure."""
    rows = []
    for key, (about, unit, how) in FIGURES.items():
        for network, devices in measured[key]["value"].items():
            for device, value in devices.items():
                details = measured[key]["details"][network][device]
                called = f"{network}, {device.upper()}"
                rows.append([about, called, unit(value), how(details | {"key": key})])
    return markdown_table(["what", "network, device", "measured", "how"], rows)


def times(value: float) -> str:
    return f"{value:g}x"


def per_cent(value: float) -> str:
    """Of a share; two digits, since some are near each other."""
    return f"{100 * value:.2g}%"


def _loop(d: Details) -> str:
    ours = ", ".join(
        [d["our_dtype"], *(["compiled"] if d.get("our_compiled") else []), f"batch {d['our_batch_size']}"]
    )
    return (
        f"{d['fewer_draws']:g}x fewer copies, each {d['faster_per_draw']:g}x faster ({ours}; the loop in float32 at its best batch size, "
        f"{d['baseline_batch_size']}); {d['threads']} thread(s)"
    )


def _art(d: Details) -> str:
    seconds, ratios = d["baseline_seconds_per_image"], d["speedup_by_image"]
    return (
        f"ART at its best batch size, {d['baseline_batch_size']}: {np.mean(seconds):.1f} s per image; {min(ratios):g}x to {max(ratios):g}x "
        f"for the {d['baseline_images_timed']} images timed; {d['threads']} threads"
    )


def _label_aware(d: Details) -> str:
    return (
        f"{d['fewer_draws']:g}x fewer copies (mean {d['label_aware_mean_draws']:,.1f}), each {d['faster_per_draw']:g}x faster; "
        f"{d['threads']} thread(s)"
    )


def _draws(d: Details) -> str:
    mean, radii = d["mean_draws"], "seven radii" if "seven" in d["key"] else "single radius 0.5"
    union, spending = (f"{mean[f'{radii}, {way}']:,.1f}" for way in ("union bound", "error spending"))
    return f"mean {union} per image; error spending {spending}; fixed n {d['fixed_draws']:,}"


def _accuracy(d: Details) -> str:
    return f"{len(d['radii'])} radii, same draws, {d['images']:,} images; {d['mean_draws']:,.1f} copies per image"


def _quartiles(d: Details) -> str:
    low, high = d["quartiles"]
    return f"quartiles {low:.3f}-{high:.3f} of {d['rounds']} rounds, {d['dtype']}, {d['threads']} thread(s)"


def _kept(d: Details) -> str:
    low, high = d["quartiles"]
    return f"quartiles {low:.2f}-{high:.2f} of {d['pairs']} pairs of processes, {d['dtype']}, one thread each"


def _memory(d: Details) -> str:
    return f"{max(d['peak_kib'].values()) / 1024:.0f} MiB at the peak"


def _start(d: Details) -> str:
    alone = d["imports_of_torch_transformers_datasets"]
    return (
        f"processor time, {d['images']} images, n = {d['n']}; torch, transformers and datasets alone take {alone:g} s"
    )


def _first_draw(d: Details) -> str:
    fewer, fewest = d["seconds"]["500"], d["peak_kib"]
    return f"{d['images']:,} images at {d['pixels']} px; {fewer:g} s for 500; peak memory {fewest[str(d['images'])] / fewest['500']:.2f}x that of 500"


FIGURES: dict[str, tuple[str, Callable[[float], str], Callable[[Details], str]]] = {
    "speedup_over_published_loop": ("whole table against the published loop", times, _loop),
    "speedup_over_art": ("whole table against ART 1.20.1", times, _art),
    "speedup_label_aware": ("whole table label-aware (no certificates) against the published loop", times, _label_aware),
    "draws_ratio_seven_radii": ("fewer copies, seven radii", times, _draws),
    "draws_ratio_single_radius": ("fewer copies, r = 0.5 alone", times, _draws),
    "max_accuracy_difference_points": ("largest difference to fixed n in certified accuracy", lambda v: f"{v:g} points", _accuracy),
    "certify_over_forward": ("certify / bare forward", lambda v: f"{v:.3f}", _quartiles),
    "memory_kept_over_usual": ("freed memory kept / by the C library's own rule", lambda v: f"{v:.2f}", _kept),
    "grid_noise_cost": ("grid noise / forward", per_cent, lambda d: f"float32 noise {per_cent(d['float32_noise_cost'])}"),
    "two_ranks_over_one": ("two ranks over one", times, lambda d: f"{d['threads_per_rank']} thread(s) each, images that need different numbers of draws"),
    "peak_memory_ratio_n100k_over_n1k": ("peak memory, n = 100,000 over n = 1,000", lambda v: f"{v:g}", _memory),
    "start_seconds": ("the whole of a small `hf-smoothing certify`", lambda v: f"{v:g} s", _start),
    "time_to_first_draw": ("time to the first draw", lambda v: f"{v:g} s", _first_draw),
}  # fmt: skip
"""What the table calls a figure, how its value is written, and what is said of how it was measured."""
