"""No true certificate of a run is broken by the attack on it, falsified ones are, and what cannot be attacked is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import nn

from hf_smoothing import certify_dataset, read_run
from hf_smoothing.attack_run import Attacked, allowed_failures, attack_run, summary, write_summary
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.records import RunError
from hf_smoothing.statistics import ABSTAIN
from tests.support.classifiers import Constant, Linear, random_dataset
from tests.support.tiny import SIZE, smoothed


ARGUMENTS = {"sigma": 0.25, "mode": "fixed", "n0": 200, "n": 2000, "copies_per_batch": 256, "progress": False}
ATTACK = {"steps": 8, "copies": 8, "n": 2000, "alpha": 0.001}
QUIET = {**ATTACK, "seed": 0, "progress": False}
DISTANCES = [0.1, -0.15, 0.2, -0.25, 0.3, -0.35, 0.12, -0.22]
FLOATS = [{"pixel_values": Linear().image_at(d), "labels": int(d > 0)} for d in DISTANCES]
DATASET = [{**item, "pixel_values": (item["pixel_values"] * 255).round().to(torch.uint8)} for item in FLOATS]


class LinearModule(nn.Module):
    """`Linear` with weights that a run can name."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.linear = Linear(seed=seed)
        self.weight = nn.Parameter(self.linear.weight.clone())

    def forward(self, pixels):
        return self.linear(pixels)


MODEL = LinearModule().eval()


@pytest.fixture(scope="module", params=["grid", "gaussian"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    dataset = DATASET if request.param == "grid" else FLOATS
    return certify_dataset(MODEL, dataset, folder, noise_kind=request.param, **ARGUMENTS)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run with rows as `change` makes them."""

    def make(change=lambda row: row, **settings):
        # In memory: what a folder says against its own votes is refused when it is read.
        rows = {index: change(dict(row)) for index, row in run.rows.items()}
        (tmp_path / "run.json").write_text(json.dumps({**run.settings, **settings}))
        (tmp_path / "certificates-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
        return replace(run, path=tmp_path, settings={**run.settings, **settings}, rows=rows)

    return make


@pytest.fixture(scope="module")
def bounded(tmp_path_factory):
    """A network with deterministic certificates of eight images."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    for parameter in network.parameters():
        parameter.data.normal_(generator=generator)
    dataset = [{"pixel_values": torch.rand(3, 4, 4, generator=generator), "labels": 0} for _ in range(8)]
    run = certify_dataset_linf(network, dataset, tmp_path_factory.mktemp("linf"), largest=0.1, progress=False)
    assert sum(row["radius"] > 0 for row in run.rows.values()) >= 6
    return network, dataset, run


def test_no_deterministic_certificate_is_broken_and_false_ones_are(bounded):
    network, dataset, run = bounded
    found = attack_run(network, dataset, run, steps=30, restarts=2, seed=0, progress=False)
    assert found and not any(item.broken for item in found)
    assert all(0.99 < item.distance / item.radius < 1.0 and item.draws == 0 for item in found)
    figures = summary(found, run, alpha=0.001, steps=30, restarts=2)
    assert figures["allowed_by_chance"] == figures["broken"] == 0 and figures["restarts"] == 2
    rows = {index: row | {"radius": min(8 * row["radius"], 0.9)} for index, row in run.rows.items()}
    false = attack_run(network, dataset, replace(run, rows=rows), steps=30, seed=0, progress=False)
    assert sum(item.broken for item in false) >= len(false) - 1


class InFloat32(nn.Sequential):
    """Some checkpoints ask for float32 on their way, whatever their weights are in."""

    def forward(self, x):
        return super().forward(x.float())


@pytest.mark.parametrize("cover_run", [True, False])
def test_a_network_that_asks_for_a_dtype(cover_run, bounded, tmp_path):
    network, dataset, _ = bounded
    asking = InFloat32(*network).eval()
    run = certify_dataset_linf(asking, dataset, tmp_path, largest=0.1, cover_run=cover_run, progress=False)
    options = {"steps": 30, "restarts": 2, "seed": 0, "progress": False}
    assert not any(item.broken for item in attack_run(asking, dataset, run, **options))
    rows = {index: row | {"radius": min(8 * row["radius"], 0.9)} for index, row in run.rows.items()}
    false = attack_run(asking, dataset, replace(run, rows=rows), **options)
    assert sum(item.broken for item in false) >= len(false) - 1


class Absorbed(nn.Module):
    """Logits (q - 1/4, 0) with q = (x + 2^24) - 2^24: x in float64, 0 in float32."""

    def forward(self, x):
        q = (x.flatten(1)[:, :1] + 2.0**24) - 2.0**24
        return torch.cat([q - 0.25, 0.0 * q], 1)


@pytest.mark.parametrize("covers_run", [False, True])
def test_certificates_of_runs_are_attacked_in_runs(covers_run, tmp_path):
    dataset = [{"pixel_values": torch.full((1, 2, 2), 0.75), "labels": 0}]
    options = {"largest": 0.1, "cover_run": False, "progress": False}
    exact = certify_dataset_linf(Absorbed().eval(), dataset, tmp_path / "exact", **options)
    (tmp_path / "run.json").write_text(
        json.dumps(exact.settings | {"rule": exact.settings["rule"] | {"covers_run": covers_run}})
    )
    (tmp_path / "certificates-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in exact.rows.values()))
    found = attack_run(Absorbed().eval(), dataset, read_run(tmp_path), steps=2, seed=0, progress=False)
    assert [item.broken for item in found] == [covers_run]


def test_restarts_are_for_deterministic_certificates(run):
    with pytest.raises(ValueError, match="`restarts` is for deterministic certificates, got 2"):
        attack_run(MODEL, images(run), run, restarts=2, **QUIET)


def images(run):
    return DATASET if run.settings["noise_kind"] == "grid" else FLOATS


def test_no_true_certificate_is_broken(run):
    for index, row in run.rows.items():
        exact = MODEL.linear.exact_radius(
            images(run)[index]["pixel_values"].float() / (255 if run.settings["noise_kind"] == "grid" else 1)
        )
        assert 0.0 < row["radius"] < exact + 0.01
    found = attack_run(MODEL, images(run), run, **QUIET)
    assert [item.index for item in found] == list(range(8))
    assert not any(item.broken for item in found)
    for item in found:
        assert 0.0 < item.distance < item.radius == run.rows[item.index]["radius"]
        assert item.certified == run.rows[item.index]["prediction"] == images(run)[item.index]["labels"]
        assert 20 <= item.draws <= 2000
        if run.settings["noise_kind"] == "grid":
            squares = (item.distance * 255) ** 2
            assert math.isclose(squares, round(squares), rel_tol=1e-12), "a distance between 8-bit images"
    # On a linear classifier the way is straight, so the attack comes close to the edge.
    assert sum(item.distance / item.radius for item in found) / len(found) > 0.8


def test_a_falsified_run_is_broken(run, copy):
    false = copy(lambda row: {**row, "radius": 3 * row["radius"]})
    found = attack_run(MODEL, images(run), false, **QUIET)
    figures = summary(found, false, **ATTACK)
    assert figures["broken"] >= 6 > figures["allowed_by_chance"]
    for item in found:
        assert item.distance < item.radius
        if item.broken:
            assert item.answer == 1 - item.certified


def test_a_falsified_class_is_broken(run, copy):
    false = copy(lambda row: {**row, "prediction": 1 - row["prediction"]})
    assert all(item.broken for item in attack_run(MODEL, images(run), false, **QUIET))


def test_on_the_grid_the_attacked_images_are_eight_bit_images(run, monkeypatch):
    from hf_smoothing.attack_run import smoothed as module

    seen, real = [], module.predict

    def watched(classifier, points, **options):
        seen.append((points.clone(), options))
        return real(classifier, points, **options)

    monkeypatch.setattr(module, "predict", watched)
    attack_run(MODEL, images(run), run, **QUIET, images_per_batch=3)
    assert [len(points) for points, _ in seen] == [3, 3, 2]
    steps = torch.cat([points for points, _ in seen]).double() * 255
    off = float((steps - steps.round()).abs().max())
    grid = run.settings["noise_kind"] == "grid"
    assert off < 1e-4 if grid else off > 0.01
    assert {options["noise_kind"] for _, options in seen} == {"grid" if grid else "gaussian"}
    assert [index for _, options in seen for index in options["indices"]] == list(range(8))
    assert all((options["n"], options["alpha"], options["sigma"]) == (2000, 0.001, 0.25) for _, options in seen)
    # A run with the seed of the attack has seen the draws of that seed, so that none of its answers would be new.
    assert not {options["seed"] for _, options in seen} & {0, run.settings["seed"]}


@pytest.mark.parametrize("images_per_batch", [1, 5])
def test_a_seed_makes_it_repeatable(run, images_per_batch):
    first = attack_run(MODEL, images(run), run, **QUIET, images_per_batch=images_per_batch)
    assert first == attack_run(MODEL, images(run), run, **QUIET, images_per_batch=images_per_batch)
    assert first != attack_run(MODEL, images(run), run, **{**QUIET, "seed": 1}, images_per_batch=images_per_batch)


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [0]), (2, [0, 4]), (3, [0, 2, 5]), (8, list(range(8))), (100, list(range(8)))]
)
def test_max_images_spreads_over_the_run(run, count, chosen):
    short = {**QUIET, "steps": 1, "copies": 1, "n": 20}
    assert [item.index for item in attack_run(MODEL, images(run), run, **short, max_images=count)] == chosen


def test_what_is_not_certified_is_not_attacked(run, copy):
    short = {**QUIET, "steps": 1, "copies": 1, "n": 20}
    some = copy(lambda row: row if row["index"] % 2 else {**row, "prediction": ABSTAIN, "radius": 0.0})
    assert [item.index for item in attack_run(MODEL, images(run), some, **short)] == [1, 3, 5, 7]


def test_what_cannot_be_judged_is_refused(run, copy):
    with pytest.raises(RunError, match="was measured label-aware, so it holds no certificates"):
        attack_run(MODEL, images(run), copy(label_aware=True), **QUIET)
    with pytest.raises(RunError, match="another network: model.weights_sha256 was"):
        attack_run(LinearModule(seed=1).eval(), images(run), run, **QUIET)
    with pytest.raises(RunError, match="another network"):
        attack_run(MODEL.linear, images(run), run, **QUIET)
    with pytest.raises(ValueError, match="does not hold the images of"):
        attack_run(MODEL, random_dataset(8), run, **QUIET)
    with pytest.raises(ValueError, match="does not hold the images of"):
        attack_run(MODEL, images(run)[::-1], run, **QUIET)
    with pytest.raises(ValueError, match="eval mode"):
        attack_run(LinearModule(), images(run), run, **QUIET)
    nothing = copy(lambda row: {**row, "prediction": ABSTAIN, "radius": 0.0})
    with pytest.raises(RunError, match="no certificate with a positive radius"):
        attack_run(MODEL, images(run), nothing, **QUIET)


def test_a_real_label_aware_run_is_refused(tmp_path):
    options = {**ARGUMENTS, "mode": "targets", "n0": None, "n": 200, "label_aware": True}
    measured = certify_dataset(MODEL, DATASET, tmp_path, **options)
    with pytest.raises(RunError, match="label-aware"):
        attack_run(MODEL, DATASET, measured, **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"copies": 0}, "`copies` must be at least 1"),
        ({"max_images": 0}, "`max_images` must be at least 1"),
        ({"images_per_batch": 0}, "`images_per_batch` must be at least 1"),
        ({"n": 5}, "`n` must be at least"),
        ({"alpha": 2.0}, "alpha"),
        ({"seed": 0.5}, "`seed` must be a whole number"),
    ],
)
def test_arguments_that_make_no_sense(run, options, message):
    with pytest.raises(ValueError, match=message):
        attack_run(MODEL, images(run), run, **{**QUIET, **options})


def test_a_classifier_without_gradients_is_refused_rather_than_praised(tmp_path):
    run = certify_dataset(Constant(1, 2), DATASET, tmp_path, **ARGUMENTS)
    with (
        pytest.warns(UserWarning, match="gives one answer to all of 163 fixed images"),
        pytest.raises(ValueError, match="depend differentiably on the pixels"),
    ):
        attack_run(Constant(1, 2), DATASET, run, **QUIET)


@pytest.mark.parametrize(
    ("images", "alpha", "answers", "mistaken", "allowed"),
    [
        (1, 0.001, 1, 0.001, 2), (200, 0.001, 200, 0.001, 6), (1000, 0.001, 0, 0.001, 6), (600, 0.05, 24, 0.001, 50), (5, 0.5, 5, 0.001, 6),
        (5, 0.0, 5, 0.0, 0),
    ],
)  # fmt: skip
def test_allowed_failures(images, alpha, answers, mistaken, allowed):
    assert allowed_failures(images, alpha, answers, mistaken) == allowed
    # Whatever the certificates that are false have to do with the number of answers.
    splits = range(allowed + 1)
    assert (
        min(stats.binom.sf(k, images, alpha) + stats.binom.sf(allowed - k, answers, mistaken) for k in splits) <= 0.001
    )


def test_the_summary_is_right_and_kept(run, copy):
    here = copy()
    found = [
        Attacked(0, 1, 0.5, 0.25, 1, 20), Attacked(1, 0, 0.5, 0.5, 1, 40), Attacked(2, 1, 0.4, 0.3, ABSTAIN, 2000)
    ]  # fmt: skip
    assert [item.broken for item in found] == [False, True, False]
    figures = summary(found, here, **ATTACK)
    assert (figures["certificates"], figures["broken"], figures["undecided"], figures["draws"]) == (3, 1, 1, 2060)
    assert math.isclose(figures["mean_distance_over_radius"], 0.75)
    assert (figures["alpha_of_certificates"], figures["alpha_of_answers"]) == (0.001, 0.001)
    assert figures["images_begun"] == 8, "of which three were attacked"
    assert figures["allowed_by_chance"] == allowed_failures(8, 0.001, 3, 0.001)
    interrupted = replace(here, rows={0: here.rows[0]}, partials={index: here.rows[index] for index in range(1, 8)})
    assert summary(found, interrupted, **ATTACK)["images_begun"] == 8
    assert write_summary(figures, here) == here.path / "attack.json"
    kept = json.loads((here.path / "attack.json").read_text())
    assert kept == figures and [row["broken"] for row in kept["rows"]] == [False, True, False]
    assert read_run(here.path).rows == here.rows, "a run with attack.json is still a run"
    # A second attack, with other settings, leaves the first where it is.
    for number in (2, 3):
        assert write_summary(figures | {"steps": number}, here).name == f"attack-{number}.json"
    assert json.loads((here.path / "attack.json").read_text()) == figures
    assert json.loads((here.path / "attack-2.json").read_text())["steps"] == 2
    assert read_run(here.path).rows == here.rows


# --- Found broken ----------------------------------------------------------------------------------------------------


SHORT = {**QUIET, "steps": 1, "copies": 1, "n": 20}


class Stream:
    def __iter__(self):
        return iter(DATASET)


def test_a_run_in_another_order_can_be_attacked(tmp_path):
    run = certify_dataset(MODEL, DATASET, tmp_path, **ARGUMENTS, indices=[5, 0, 3])
    assert len(attack_run(MODEL, DATASET, run, **SHORT)) == 3


def test_too_few_images_are_explained(run):
    with pytest.raises(ValueError, match="does not hold the images of"):
        attack_run(MODEL, images(run)[:3], run, **SHORT)


def test_other_images_than_those_of_a_stream_are_refused(tmp_path):
    run = certify_dataset(MODEL, Stream(), tmp_path, **ARGUMENTS)
    with pytest.raises(ValueError, match="does not hold the images"):
        attack_run(MODEL, random_dataset(8), run, **SHORT)


def test_an_unfinished_run_does_not_take_other_images(run, copy):
    part = copy(num_images=9)
    with pytest.raises(ValueError, match="does not hold the images"):
        attack_run(MODEL, images(run)[::-1], part, **SHORT)


def test_a_stream_is_attacked_or_refused_with_the_cure(tmp_path):
    run = certify_dataset(MODEL, Stream(), tmp_path, **ARGUMENTS)
    try:
        attack_run(MODEL, Stream(), run, **SHORT)
    except (TypeError, ValueError) as error:
        if "subscriptable" in str(error):
            raise


def test_the_same_weights_in_another_model_are_refused(tmp_path):
    pixels = [{"pixel_values": torch.full((3, SIZE, SIZE), 40 * k, dtype=torch.uint8), "labels": 0} for k in range(3)]
    run = certify_dataset(smoothed("resnet"), pixels, tmp_path, **{**ARGUMENTS, "n": 40})
    with pytest.raises(RunError, match="another network"):
        attack_run(smoothed("resnet", image_std=[2.0, 2.0, 2.0]), pixels, run, **SHORT)


def test_figures_that_cannot_be_kept_leave_no_file(run, tmp_path):
    """Told before the file is made, which a later attack would number itself after."""
    found = [Attacked(0, 1, 0.2, 0.1, 1, 10)]
    here = replace(run, path=tmp_path)
    with pytest.raises(ValueError, match=r"must be JSON values, got others .*int64.*\.item\(\)"):
        write_summary(summary(found, here, alpha=0.001, seed=torch.zeros(1, dtype=torch.int64).numpy()[0]), here)
    with pytest.raises(ValueError, match="must be JSON values"):
        write_summary(summary(found, here, alpha=0.001, note=math.nan), here)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="certificates that were attacked, got none"):
        summary([], here, alpha=0.001)


@pytest.mark.parametrize("key", ["method", "noise_kind", "dtype", "model"])
def test_a_run_that_does_not_say_enough_is_refused(run, key):
    less = replace(run, settings={name: value for name, value in run.settings.items() if name != key})
    with pytest.raises(
        RunError, match="must say how it was certified|must say what each run folder says, but .* is missing"
    ):
        attack_run(MODEL, DATASET, less, **QUIET)
