"""Claims written for other verifiers: the file is the network, a box lies within its ball, and the question is the negated claim."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn

from hf_smoothing.data import DecodedPixels
from hf_smoothing.interval import UnsupportedOperationError, certify_dataset_linf, classify_function
from hf_smoothing.interval.export import box_inside, claims_of, export_run, to_onnx, vnnlib_text
from hf_smoothing.interval.export.proof import prove_claims
from hf_smoothing.interval.export.properties import STEPS
from hf_smoothing.interval.margins import logits_of
from hf_smoothing.interval.search import BACKWARD
from hf_smoothing.records import RunError, read_run
from tests.interval.test_run import Absorbed
from tests.support.bounded_networks import BUILDERS, Hidden, images, network
from tests.support.processes import ROOT
from tests.support.tiny import data, smoothed
from tests.support.vnnlib import read_property


def ran(model: onnx.ModelProto, pixels: torch.Tensor) -> np.ndarray:
    return np.concatenate([ReferenceEvaluator(model).run(None, {"pixels": one[None].numpy()})[0] for one in pixels])


UNREAD = {"elu": "Elu", "softplus": "CastLike, Greater, Softplus, Where", "gelu": "Erf", "tokens": "GatherND"}


@pytest.mark.parametrize("name", [*BUILDERS, "resnet", "plain resnet"])
def test_the_file_computes_what_the_network_computes(name):
    size = 8 if name in BUILDERS else 16
    model, x = network(name).float(), images(3, size).float()
    if name in UNREAD:
        with pytest.raises(UnsupportedOperationError, match=f"operators? {UNREAD[name]}, which verifiers do not read"):
            to_onnx(model, (3, size, size))
        return
    written = to_onnx(model, (3, size, size))
    (pixels,), (logits,) = written.graph.input, written.graph.output
    assert (pixels.name, logits.name, written.ir_version) == ("pixels", "logits", 8)
    assert [dim.dim_value for dim in pixels.type.tensor_type.shape.dim] == [1, 3, size, size]
    with torch.no_grad():
        wanted = logits_of(classify_function(model), x).numpy()
    assert np.abs(ran(written, x) - wanted).max() < 1e-5 * max(1.0, np.abs(wanted).max())


def test_weights_are_the_very_ones_of_the_network():
    model = network("max pool").float()
    written = {one.name: onnx.numpy_helper.to_array(one) for one in to_onnx(model, (3, 8, 8)).graph.initializer}
    known = {name: value.numpy() for name, value in model.state_dict().items() if value.is_floating_point()}
    assert {name.removeprefix("network.") for name in written} >= set(known)  # batch norm is not merged
    assert all(np.array_equal(written[f"network.{name}"], value) for name, value in known.items())


@pytest.mark.parametrize(
    ("mean", "std", "operators"),
    [([0.0] * 3, [1.0] * 3, []), ([0.5] * 3, [0.25, 0.5, 2.0], ["Sub", "Mul"]), ([0.5] * 3, [0.3] * 3, ["Sub", "Div"])],
)  # fmt: skip
def test_normalisation_is_exact_and_a_product_where_it_can_be_one(mean, std, operators):
    written = to_onnx(smoothed("resnet", image_mean=mean, image_std=std), (3, 16, 16))
    kinds = [node.op_type for node in written.graph.node]
    assert kinds[: kinds.index("Conv")] == operators


@pytest.mark.parametrize("size", [(12, 20), (24, 9)])
def test_a_resize_is_two_matrix_products(size):
    model = smoothed("resnet", model_size=size)
    written, x = to_onnx(model, (3, 16, 16)), images(2, 16).float()
    assert [node.op_type for node in written.graph.node][:2] == ["MatMul", "MatMul"]
    with torch.no_grad():
        assert np.abs(ran(written, x) - model.classify(x).numpy()).max() < 1e-5


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(x.flatten(1)) if x.sum() > 0 else self.head(x.flatten(1)) * 2


REFUSED = {
    "train mode": (lambda: network("mlp").float().train(), "is in train mode"),
    "float64": (lambda: network("mlp"), r"is a float32 network, got weights in torch.float64: .* Call float\(\)"),
    "bfloat16": (lambda: network("mlp").bfloat16(), "is a float32 network, got weights in torch.bfloat16"),
    "a cast": (lambda: Hidden(lambda self, h: h.double().relu().float()).eval(), "the ONNX operator Cast, which"),
    "a branch": (lambda: Branching().eval(), "cannot be written as a graph of operations: .* depend on the values"),
    "not a module": (lambda: torch.relu, "needs a module"),
    "an operation that ONNX has not": (lambda: Hidden(lambda self, h: torch.special.i0(h)).eval(), "exporter cannot write the network as ONNX: .*i0"),
    "attention": (lambda: smoothed("vit"), "Softmax.* which verifiers do not read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_cannot_be_written_is_refused(name):
    build, message = REFUSED[name]
    shape = (3, 16, 16) if name == "attention" else (3, 8, 8) if "float" in name or "mode" in name else (3, 2, 2)
    with pytest.raises((ValueError, TypeError), match=message):
        to_onnx(build(), shape)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 255), st.floats(0.0, 1.0))
def test_a_box_is_the_largest_on_its_grid_within_the_ball(step, radius):
    pixel = torch.tensor([step / 255], dtype=torch.float64)
    lower, upper = (Fraction(float(end)) for end in box_inside(pixel, radius))
    centre, reach, grid = Fraction(float(pixel)), Fraction(radius), Fraction(1, STEPS)
    assert max(Fraction(0), centre - reach) <= lower < max(Fraction(0), centre - reach) + grid
    assert min(Fraction(1), centre + reach) - grid < upper <= min(Fraction(1), centre + reach)
    for end in (lower, upper):
        assert Fraction(float(np.float32(float(end)))) == end  # so a verifier in float32 reads the same


@pytest.mark.parametrize("radius", [0.0, 1 / 255, 0.3])
def test_a_property_is_read_back_exactly(radius):
    pixels = images(1, 2)[0]
    pixels[0, 0] = torch.tensor([0.0, 1.0])
    lower, upper = box_inside((pixels * 255).round() / 255 if radius else (pixels * STEPS).round() / STEPS, radius)
    found = read_property(vnnlib_text(lower, upper, 1, 3, ["a remark"]))
    assert [float(end) for end in found.lower] == lower.flatten().tolist()
    assert [float(end) for end in found.upper] == upper.flatten().tolist()
    assert (found.prediction, found.others, found.num_labels) == (1, {0, 2}, 3)


@pytest.mark.parametrize(
    ("lower", "upper", "prediction", "message"),
    [(0.1, 0.5, 0, "multiples of"), (0.5, 0.25, 0, "must not be empty"), (0.0, 0.5, 2, "one of at least 2 classes, got 2 of 2"), (-0.5, 0.5, 0, "in \\[0, 1\\]")],
)  # fmt: skip
def test_a_property_that_says_nothing_is_refused(lower, upper, prediction, message):
    ends = (torch.full((2,), end, dtype=torch.float64) for end in (lower, upper))
    with pytest.raises(ValueError, match=message):
        vnnlib_text(*ends, prediction, 2)


def certified(folder, model=None, count=8, size=8, **options):
    """A run of images whose radii differ; those of the untrained network are small and positive."""
    model = model or network("max pool").float()
    some = data(count, size)
    return model, some, certify_dataset_linf(model, some, folder, largest=0.5, progress=False, **options)


def test_a_folder_holds_network_claims_and_a_list(tmp_path):
    model, some, run = certified(tmp_path / "run")
    found = export_run(model, some, run, tmp_path / "out", timeout=12.5)
    assert found.covers_run is True and not found.left_out
    lines = [line.split(",") for line in (tmp_path / "out" / "instances.csv").read_text().splitlines()]
    assert [line[1] for line in lines] == [f"vnnlib/image-{index}.vnnlib" for index in range(8)]
    assert {(line[0], line[2]) for line in lines} == {("network.onnx", "12.5")}
    written = onnx.load(tmp_path / "out" / "network.onnx")
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert facts["model"] == run.settings["model"] and len(facts["claims"]) == 8
    for claim, kept in zip(found.claims, facts["claims"], strict=True):
        row, pixels = run.rows[claim.index], some[claim.index]["pixel_values"]
        assert (claim.prediction, claim.radius, claim.label) == (row["prediction"], row["radius"], row["label"])
        text = (tmp_path / "out" / kept["file"]).read_text()
        asked = read_property(text)
        assert asked.prediction == row["prediction"] and asked.others == {0, 1, 2, 3} - {asked.prediction}
        centres = [Fraction(float(np.float64(step) / 255)) for step in pixels.flatten().tolist()]
        for low, high, centre in zip(asked.lower, asked.upper, centres, strict=True):
            assert max(0, centre - Fraction(row["radius"])) <= low <= centre <= high
            assert high <= min(1, centre + Fraction(row["radius"]))
        assert ran(written, pixels[None].float() / 255).argmax() == row["prediction"]
        printed = Fraction(re.search(r"radius (0\.\d{9}),", text.splitlines()[0])[1])
        assert printed <= Fraction(row["radius"]) < printed + Fraction(1, 10**9)


def test_claims_are_chosen_and_the_rest_is_counted(tmp_path):
    model, some, run = certified(tmp_path / "run")
    radii = {index: row["radius"] for index, row in run.rows.items()}
    middle = sorted(radii.values())[3]
    found = export_run(model, some, run, tmp_path / "one", radius=middle)
    assert [claim.index for claim in found.claims] == [index for index, own in radii.items() if own >= middle]
    assert {claim.radius for claim in found.claims} == {middle}
    assert found.left_out == {f"certified below the radius {middle:g}": 3}
    few, left_out = claims_of(run, indices=[7, 1, 4], max_claims=2)
    assert [claim.index for claim in few] == [1, 4] and left_out == {"beyond the maximum number of claims": 1}
    rows = {**run.rows, 0: run.rows[0] | {"radius": 0.0}, 1: run.rows[1] | {"radius": 1e-9}}
    del rows[2]
    changed = replace(run, rows=rows)
    assert claims_of(changed)[1] == {
        "without a certificate": 1, f"with a radius below 1/{STEPS}, too small to be written": 1, "not certified yet": 1,
    }  # fmt: skip
    with pytest.raises(RunError, match=r"no claim to export: 1 without a certificate. Certify it, or"):
        claims_of(changed, indices=[0])
    for options, message in (
        ({"indices": [3, 1, 1]}, "must name an image once, got 1 more than once"),
        ({"indices": [1.0]}, "must be whole numbers, those of images, got 1.0. Pass 1"),
        ({"indices": [3, 99]}, "must name images that .* has certified, got 99"),
        ({"max_claims": 0}, "`max_claims` must be at least 1"),
        ({"radius": 1e-9}, "`radius` must be at least"),
        ({"radius": 8.0}, "Divide it by 255"),
    ):
        with pytest.raises(ValueError, match=message):
            claims_of(run, **options)


def test_runs_whose_claims_no_float32_file_confirms_are_refused(tmp_path):
    model, some, run = certified(tmp_path / "run")
    smoothing = replace(run, settings=run.settings | {"method": "randomized-smoothing"})
    with pytest.raises(
        RunError, match=r"about a vote over noise, right with probability 1 - alpha.* Certify by interval"
    ):
        export_run(model, some, smoothing, tmp_path / "out")
    for name, other, options in (
        ("wide", network("mlp"), {}),
        ("half", network("mlp").bfloat16(), {"cover_run": False}),
    ):
        _, _, its = certified(tmp_path / name, other, **options)
        with pytest.raises(
            RunError, match=r"holds claims about a network in (float64|bfloat16), and .* is a float32 network"
        ):
            export_run(other, some, its, tmp_path / "out")
    with pytest.raises(RunError, match="another network: model.weights_sha256"):
        export_run(network("max pool", seed=1).float(), some, run, tmp_path / "out")
    with pytest.raises(ValueError, match="does not hold the images of"):
        export_run(model, data(8, 8, seed=5), run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_arithmetic_is_said_and_a_run_that_contradicts_it_refused(tmp_path):
    model, some, run = certified(tmp_path / "run", cover_run=False)
    assert export_run(model, some, run, tmp_path / "out", max_claims=1).covers_run is False
    assert "claims it of real arithmetic" in next((tmp_path / "out" / "vnnlib").iterdir()).read_text()
    bright = DecodedPixels(torch.full((1, 3, 1, 1), 191, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    absorbed = Absorbed().eval()
    run = certify_dataset_linf(absorbed, bright, tmp_path / "two", largest=0.5, cover_run=False, progress=False)
    assert run.rows[0]["radius"] > 0.4
    with pytest.raises(ValueError, match=r"claimed to have class 0, and a float32 run of the file answers 1"):
        export_run(absorbed, bright, run, tmp_path / "absorbed")


def test_a_file_that_is_another_function_is_noticed(tmp_path, monkeypatch):
    from hf_smoothing.interval.export import folder

    model, some, run = certified(tmp_path / "run")
    other = network("max pool").float()
    with torch.no_grad():
        other[-1].bias += 1e-3
    monkeypatch.setattr(folder, "to_onnx", lambda classifier, shape: to_onnx(other, shape))
    with pytest.raises(ValueError, match="gives other logits for image 0 than the network"):
        export_run(model, some, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Normalised(nn.Module):
    """By numbers that no state dict holds."""

    def __init__(self, mean=0.4914, steep=0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.mean, self._steep, self.last = mean, steep, nn.Linear(192, 4)

    def forward(self, x):
        bright = (x.mean((1, 2, 3)) - 0.55).relu().view(-1, 1)
        return self.last(((x - self.mean) / 0.25).flatten(1)) + bright * self._steep * torch.tensor(
            [1.0, 0.0, 0.0, 0.0]
        )


@pytest.mark.parametrize("cover_run", [True, False])
@pytest.mark.parametrize("backward", BACKWARD)
def test_every_claim_is_proved_for_the_network_that_is_exported(backward, cover_run, tmp_path):
    """The answer to the probe, whose mean is 0.5, does not show what another network does to brighter images."""
    model, other = Normalised().eval(), Normalised(steep=2000.0).eval()
    model, some, run = certified(tmp_path / "run", model, count=6, backward=backward, steps=3, cover_run=cover_run)
    assert len(export_run(model, some, run, tmp_path / "out").claims) == 6
    bright = DecodedPixels((some.pixels // 4) + 160, some.labels)
    its = certify_dataset_linf(
        model,
        bright,
        tmp_path / "bright",
        largest=0.5,
        progress=False,
        backward=backward,
        steps=3,
        cover_run=cover_run,
    )
    wrong = next(k for k in range(6) if its.rows[k]["prediction"] != 0 and its.rows[k]["radius"] > 1e-4)
    kind = its.rows[wrong]["backward"]
    with pytest.raises(
        RunError, match=rf"claim of image {wrong} must hold for the network .* certified it \({kind}\)"
    ):
        export_run(other, bright, its, tmp_path / "other", indices=[wrong])
    rows = {k: {name: value for name, value in row.items() if name != "backward"} for k, row in its.rows.items()}
    rule = {name: value for name, value in its.settings["rule"].items() if name != "backward"}
    old = replace(its, rows=rows, settings=its.settings | {"rule": rule})
    prove_claims(model, bright, old, claims_of(old)[0])
    with pytest.raises(RunError, match=rf"certified it \({backward}\)"):
        prove_claims(other, bright, old, claims_of(old, indices=[wrong])[0])
    assert not (tmp_path / "other").exists()


def test_a_claim_at_the_very_edge_is_proved_in_any_company(tmp_path):
    """The search ends where a bound is 0 up to rounding, which another batch may round otherwise."""
    model, some, run = certified(tmp_path / "run", Normalised().eval(), count=40, backward="crown-ibp", batch_size=40)
    claims = claims_of(run)[0]
    for chosen in (claims, claims[::-1], claims[3::7]):
        prove_claims(model, some, run, chosen)


def test_places_and_times_are_checked_first(tmp_path, monkeypatch):
    model, some, run = certified(tmp_path / "run", count=2)
    monkeypatch.setattr("hf_smoothing.interval.export.folder.to_onnx", None)  # nothing is written before the refusal
    with pytest.raises(ValueError, match="`timeout` must be a positive number of seconds, got 0"):
        export_run(model, some, run, tmp_path / "out", timeout=0)
    with pytest.raises(ValueError, match=r"a new or empty folder, got .*run with files in it. Choose another one"):
        export_run(model, some, run, tmp_path / "run")
    with pytest.raises(OSError, match="cannot be written"):
        export_run(model, some, run, tmp_path / "run" / "run.json" / "out")


def test_names_of_a_network_do_not_clash_with_those_of_the_file():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pixels, self.logits = nn.Linear(12, 5), nn.Linear(5, 3)
            self.register_buffer("X_0", torch.ones(5))

        def forward(self, x):
            logits = self.pixels(x.flatten(1)).relu()
            pixels = logits * 3.0 + self.X_0
            return self.logits(pixels)

    torch.manual_seed(0)
    model, x = Named().eval(), images(2, 2).float()
    with torch.no_grad():
        assert np.abs(ran(to_onnx(model, (3, 2, 2)), x) - model(x).numpy()).max() < 1e-6


def test_images_need_no_labels_and_may_be_grey_floats(tmp_path):
    some = [{"pixel_values": torch.rand(1, 3, 5, generator=torch.Generator().manual_seed(k))} for k in range(3)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(15, 4)).eval()
    run = certify_dataset_linf(model, some, tmp_path / "run", largest=0.5, progress=False)
    found = export_run(model, some, run, tmp_path / "out")
    assert [claim.label for claim in found.claims] == [None] * 3
    asked = read_property((tmp_path / "out" / "vnnlib" / "image-2.vnnlib").read_text())
    centre = some[2]["pixel_values"].flatten().tolist()
    assert all(low <= Fraction(x) <= high for low, x, high in zip(asked.lower, centre, asked.upper, strict=True))


def test_a_run_can_still_be_read_beside_its_export(tmp_path):
    model, some, run = certified(tmp_path / "run", count=3)
    export_run(model, some, run, tmp_path / "run" / "export")
    assert read_run(tmp_path / "run").rows == run.rows
    assert re.fullmatch(
        r"[0-9a-f]{64}", json.loads((tmp_path / "run/export/export.json").read_text())["network_sha256"]
    )


def test_no_recorded_verifier_refutes_a_claim():
    record = json.loads((ROOT / "docs" / "results" / "verified_claims.json").read_text())["small_networks"]
    answers = [one[verifier]["claims"] for one in record["value"].values() for verifier in ("Marabou", "auto_LiRPA")]
    assert answers and not any(one["refuted"] for one in answers)
    for one in record["value"].values():
        assert sum(one["Marabou"]["claims"][kind] for kind in ("confirmed", "refuted", "open")) == one["claims"]
