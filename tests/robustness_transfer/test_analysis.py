"""The measurements of three networks and the folder they are kept in."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from hf_smoothing.data.framing import Framing
from hf_smoothing.models.network import Network
from hf_smoothing.records import RunError
from hf_smoothing.robustness_transfer.activations import activations
from hf_smoothing.robustness_transfer.analysis import Analysis
from hf_smoothing.robustness_transfer.page import write_page
from hf_smoothing.robustness_transfer.records import Key, read_analysis
from hf_smoothing.robustness_transfer.settings import ROLES, AnalysisSettings
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import SIZE, smoothed
from tests.support.walk import wrapped


@pytest.fixture
def networks():
    return {role: smoothed("resnet", seed).eval() for seed, role in enumerate(ROLES)}


def analysis(networks, folder, count=45, batch_size=8, **plan):
    pixels = torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    some = AnalysisSettings(
        attacks=("fgsm",), epsilons={"linf": (0.0, 0.01)}, universal={"linf": 0.1}, batch_size=batch_size, **plan
    )
    return Analysis(networks, pixels, torch.arange(count).sort().values % 3, folder, some)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda given: list(given.values()), TypeError, "`models` must map pretrained, finetuned, standard to a model each, got a list"),
        (lambda given: given | {"standard": given["standard"].base_network}, TypeError, "got a ResNetForImageClassification as the standard one"),
        (lambda given: given | {"pretrained": "a/path"}, TypeError, r"got a str as the pretrained one.*from_pretrained\(path\)"),
        (lambda given: given | {"finetuned": None}, TypeError, "got a NoneType as the finetuned one"),
        (lambda given: {"pretrained": given["pretrained"]}, ValueError, "missing: finetuned, standard"),
    ],
)  # fmt: skip
def test_what_is_compared_are_smoothed_classifiers_by_role(networks, change, error, message, tmp_path):
    with pytest.raises(error, match=message):
        analysis(change(networks), tmp_path)


def test_similarity_hardly_depends_on_how_the_images_are_divided(networks, tmp_path):
    whole = analysis(networks, tmp_path / "a", batch_size=45).similarity("clean")
    parted = analysis(networks, tmp_path / "b", batch_size=40).similarity("clean")  # 40 and 5, if taken as they come
    for pair, record in whole.items():
        assert np.allclose(np.diagonal(record["cka"]), np.diagonal(parted[pair]["cka"]), atol=0.1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("base_network.resnet.encoder.stages", r"must run when images are classified, but LAYER of the standard network never does\. Name other modules"),
        ("base_network", r"LAYER of the standard network gives ImageClassifierOutput\w* for 4 images\. Name other modules to compare: layers=\[\.\.\.\]"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_compared_are_refused_by_name_before_anything_is_measured(
    networks, layer, message, tmp_path
):
    with pytest.raises(ValueError, match=message.replace("LAYER", re.escape(layer))):
        analysis(networks, tmp_path / "new", layers={"standard": (layer,)})
    assert not (tmp_path / "new").exists()


def test_a_layer_that_sees_parts_of_images_is_refused():
    windows = nn.Sequential(nn.Flatten(0, 1), nn.Unflatten(0, (4, 3)))
    with pytest.raises(ValueError, match=r"one row per image, but 0 of the standard network gives shape \(12, 2, 2\)"):
        activations(Network(windows, windows), {"0": windows[0]}, torch.zeros(4, 3, 2, 2), "standard")


@pytest.mark.parametrize("kind", ["PoolFormer", "PvtV2"])
def test_networks_whose_stages_are_lists_or_give_tuples_are_compared(kind, tmp_path):
    model = wrapped(next(a for a in ARCHITECTURES if a.config == kind)).eval()
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = Analysis(dict.fromkeys(ROLES, model), pixels, torch.zeros(8).long(), tmp_path).similarity("clean")
    assert {len(record["rows"]) for record in found.values()} == {5 if kind == "PoolFormer" else 4}


def test_images_are_shuffled_by_the_seed(networks, tmp_path):
    first, again, other = (analysis(networks, tmp_path / str(k), seed=seed) for k, seed in enumerate((0, 0, 1)))
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)
    assert torch.equal(first.labels.sort().values, other.labels.sort().values)


def test_a_damaged_record_is_named_and_a_lost_perturbation_made_again(networks, tmp_path):
    analysis(networks, tmp_path).run(progress=False)
    lost = tmp_path / "records" / f"{Key('universal', 'pretrained', norm='linf')}.safetensors"
    before = lost.read_bytes()
    lost.unlink()
    analysis(networks, tmp_path).run(progress=False)
    assert lost.read_bytes() == before
    record = tmp_path / "records" / f"{Key('frequency', 'standard')}.json"
    record.write_text("{")
    with pytest.raises(RunError, match="frequency-standard.json is damaged"):
        analysis(networks, tmp_path).run(progress=False)
    record.write_text("[]")
    with pytest.raises(RunError, match="frequency-standard.json is not of an analysis"):
        read_analysis(tmp_path)


def test_records_without_their_settings_are_never_taken_for_others(networks, tmp_path):
    analysis(networks, tmp_path).run(progress=False)
    settings = tmp_path / "analysis.json"
    settings.write_text("")
    with pytest.raises(RunError, match="analysis.json is damaged .* Delete the folder"):
        analysis(networks, tmp_path)
    settings.unlink()
    with pytest.raises(RunError, match="holds records, but not what they are of"):
        analysis(networks, tmp_path)


def test_l2_radii_in_other_units_are_refused(networks, tmp_path):
    with pytest.raises(ValueError, match=r"at most 27.71, .* Divide them by 255"):
        Analysis(
            networks,
            torch.rand(8, 3, SIZE, SIZE),
            torch.zeros(8).long(),
            tmp_path,
            AnalysisSettings(epsilons={"l2": (0.0, 128.0)}),
        )


def test_networks_of_other_channels_are_refused_before_anything_is_measured(networks, tmp_path):
    grey = smoothed("resnet", base={"num_channels": 1}, image_mean=[0.5], image_std=[0.5])
    with pytest.raises(ValueError, match=r"same channels, got \{'pretrained': 1"):
        analysis(networks | {"pretrained": grey}, tmp_path)


@pytest.mark.parametrize(
    ("framing", "words"),
    [
        (Framing(SIZE, 2 * SIZE), f"resized to {2 * SIZE} (bilinear), centre ({SIZE}, {SIZE})"),
        (Framing(SIZE, resample="bicubic"), f"resized to ({SIZE}, {SIZE}) (bicubic)"),
        (Framing(SIZE, False), f"not resized, centre ({SIZE}, {SIZE})"),
    ],
)
def test_networks_for_other_parts_of_the_image_are_warned_of_and_named_in_the_report(
    networks, tmp_path, framing, words
):
    others = networks | {"standard": smoothed("resnet", 2, size=framing)}
    with pytest.warns(UserWarning, match=re.escape(f"the standard one for {words}")):
        analysis(others, tmp_path).run(progress=False)
    assert words in write_page(tmp_path).read_text("utf-8")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"layers": {"finetund": ("a",)}}, ValueError, "`layers` must be among pretrained, finetuned, standard, got 'finetund'. Did you mean finetuned"),
        ({"layers": {"finetuned": "base"}}, TypeError, r"`layers\['finetuned'\]` must be a sequence of names of modules, got 'base'. Write \('base',\)"),
        ({"layers": {"finetuned": ()}}, ValueError, "must name at least one module"),
        ({"layers": {"finetuned": ("a", "a")}}, ValueError, "must name each module once"),
        ({"layers": {}}, ValueError, "must name at least one role"),
        ({"layers": ("a", "b")}, TypeError, "`layers` must be a mapping such as"),
        ({"attacks": "pgd"}, TypeError, r"`attacks` must be a sequence of names of attacks, got 'pgd'. Write \('pgd',\)"),
        ({"attacks": ("pdg",)}, ValueError, "`attacks` must be among fgsm.* got 'pdg'. Did you mean pgd"),
        ({"epsilons": {"Linf": (0.0, 0.1)}}, ValueError, "A norm must be one of linf and l2, got 'Linf'"),
        ({"epsilons": {"linf": 0.1}}, TypeError, "Radii must be a sequence of numbers"),
        ({"epsilons": (0.0, 0.1)}, TypeError, "`epsilons` must be a mapping"),
        ({"epsilons": {"linf": np.array(0.1)}}, TypeError, "Radii must be a sequence of numbers"),
        ({"epsilons": {"linf": np.zeros((2, 2))}}, ValueError, "Radii must be finite"),
        ({"epsilons": {"linf": np.array([0.1, 0.2])}}, ValueError, "Radii must start with 0"),
        ({"epsilons": np.array([0.0, 0.1])}, TypeError, "`epsilons` must be a mapping"),
        ({"epsilons": {}}, ValueError, "`epsilons` must have at least one norm"),
        ({"universal": {}}, ValueError, "`universal` must have at least one norm"),
        ({"attacks": np.array(["pgd", "fgsm"])}, TypeError, "`attacks` must be a sequence of names"),
        ({"attacks": ()}, ValueError, "`attacks` must name at least one attack"),
        ({"universal": {"linf": np.array([0.1])}}, ValueError, "Radii must be finite"),
        ({"universal": {"l1": 0.1}}, ValueError, "A norm must be one of"),
        ({"universal": {"linf": "0.1"}}, ValueError, "Radii must be finite"),
        ({"universal": 0.1}, TypeError, "`universal` must be a mapping"),
        ({"cutoffs": ()}, ValueError, "Leave it out for the usual ones"),
        ({"cutoffs": (-1.0,)}, ValueError, "at least 0 cycles"),
        ({"cutoffs": np.array([])}, ValueError, "Leave it out for the usual ones"),
        ({"cutoffs": torch.tensor(2.0)}, TypeError, "`cutoffs` must be a sequence of numbers"),
        ({"cutoffs": 2.0}, TypeError, "`cutoffs` must be a sequence of numbers"),
        ({"steps": 2.5}, ValueError, "`steps` must be a whole number"),
        ({"batch_size": 3}, ValueError, "at least 4 images"),
        ({"seed": 10**20}, ValueError, r"`seed` must be from 0 to 2\*\*63 - 1, got 1(0)+. Any small number will do"),
        ({"seed": -1}, ValueError, r"`seed` must be from 0 .* got -1"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused_when_they_are_made(settings, error, message):
    with pytest.raises(error, match=message):
        AnalysisSettings(**settings)


VALUES = {
    "epsilons": {"linf": [0.0, 0.5, 1.0]},
    "universal": {"linf": 0.5},
    "cutoffs": [1.0, 2.5],
    "steps": 3,
    "batch_size": 4,
    "seed": 7,
}
"""Every setting that holds numbers, in numbers that all types hold exactly."""
TYPES = {
    "numpy": lambda x: np.float32(x) if isinstance(x, float) else np.int64(x) if isinstance(x, int) else np.array(x),
    "numpy in a list": lambda x: [np.float64(one) for one in x] if isinstance(x, list) else np.array(x)[()],
    "torch": torch.tensor,
    "torch in a tuple": lambda x: tuple(map(torch.tensor, x)) if isinstance(x, list) else torch.tensor(x),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", VALUES)
def test_numbers_of_numpy_and_torch_are_kept_as_plain_ones(networks, name, kind, tmp_path):
    plain = VALUES[name]
    given = {k: TYPES[kind](v) for k, v in plain.items()} if isinstance(plain, dict) else TYPES[kind](plain)
    expected, found = AnalysisSettings(**{name: plain}), AnalysisSettings(**{name: given})
    assert found == expected and json.dumps(asdict(found)) == json.dumps(asdict(expected))
    pixels, labels = torch.rand(8, 3, SIZE, SIZE), torch.zeros(8).long()
    Analysis(networks, pixels, labels, tmp_path, expected)
    Analysis(networks, pixels, labels, tmp_path, found)  # takes up the same records


@pytest.mark.parametrize("value", [np.float32(1.0), torch.tensor(1.0), {1, 2}, object()])
def test_further_facts_that_cannot_be_kept_are_refused_before_anything_is(networks, value, tmp_path):
    with pytest.raises(TypeError, match="`about` must hold JSON values only, but 'mine' holds"):
        Analysis(
            networks, torch.rand(8, 3, SIZE, SIZE), torch.zeros(8).long(), tmp_path / "new", about={"mine": value}
        )
    assert not (tmp_path / "new").exists()


def test_the_order_in_which_norms_are_given_changes_nothing(networks, tmp_path):
    pixels, labels = torch.rand(8, 3, SIZE, SIZE), torch.arange(8) % 3
    epsilons, universal = {"linf": (0.0, 0.01), "l2": (0.0, 0.5)}, {"linf": 0.1, "l2": 2.0}
    made = []
    for place, order in (("one", list), ("other", lambda items: list(reversed(items)))):
        settings = AnalysisSettings(
            attacks=("fgsm",),
            epsilons=dict(order(epsilons.items())),
            universal=dict(order(universal.items())),
            steps=1,
        )
        made.append(Analysis(networks, pixels, labels, tmp_path / place, settings))
        Analysis(networks, pixels, labels, tmp_path / "both", settings)
    assert list(made[0].work()) == list(made[1].work())
    for one in made:
        one.run(progress=False)
    (about, records), (other_about, others) = (read_analysis(one.output) for one in made)
    assert json.dumps(about) == json.dumps(other_about) and records == others
    moved = made[1]._inputs(made[1].pixels, "attacked", 0) - made[1].pixels
    assert float(moved.abs().max()) <= 0.01 + 1e-6  # made in l-infinity, whatever came first


def test_records_of_norms_in_another_order_are_those_of_another_analysis(networks, tmp_path):
    pixels, labels = torch.rand(8, 3, SIZE, SIZE), torch.arange(8) % 3
    settings = AnalysisSettings(attacks=("fgsm",), epsilons={"linf": (0.0, 0.01), "l2": (0.0, 0.5)}, steps=1)
    Analysis(networks, pixels, labels, tmp_path / "one", settings)
    file = tmp_path / "one" / "analysis.json"
    kept = json.loads(file.read_text())
    kept["settings"]["epsilons"] = dict(reversed(kept["settings"]["epsilons"].items()))
    file.write_text(json.dumps(kept))
    with pytest.raises(RunError, match="another analysis: epsilons differ"):
        Analysis(networks, pixels, labels, tmp_path / "one", settings)
