"""Every entry takes networks that take gradients on their way, change their pixels in place, or have weights that are no plain tensors."""

from pathlib import Path

import pytest
import torch

import hf_smoothing
from hf_smoothing import certify, certify_dataset, predict
from hf_smoothing.attack_run import attack_run
from hf_smoothing.attacks import (
    ATTACKS,
    ascend,
    ddn,
    feature_pgd,
    fooled,
    pgd,
    smoothed_logits,
    universal_perturbation,
)
from hf_smoothing.audit import audit_certifier
from hf_smoothing.certification.execution import Execution, probe_batch_size
from hf_smoothing.certification.identity import check_network_of_run
from hf_smoothing.certification.structure import weights_sha256
from hf_smoothing.interval import UnsupportedOperationError, certify_dataset_linf, linf_certificates
from tests.support.tiny import pixels as tiny_pixels
from tests.support.tiny import smoothed
from tests.support.unusual import (
    SHAPE,
    ColumnWeights,
    ExtraState,
    Guided,
    InPlace,
    RowWeights,
    SparseWeights,
    Unusual,
    half_quantised,
)


EVERY = [Unusual, Guided, InPlace, SparseWeights, RowWeights, ColumnWeights, ExtraState]
DIFFERENTIABLE = [Unusual, Guided, InPlace, ExtraState]
pytestmark = pytest.mark.filterwarnings("ignore:Sparse", "ignore:torch.ao.quantization is deprecated")


def images(count=3):
    return torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(1)) / 255


def dataset():
    return [{"pixel_values": image, "labels": number} for number, image in enumerate(images())]


@pytest.mark.parametrize("made", EVERY)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("noise_kind", ["grid", "gaussian"])
def test_they_are_certified_and_asked_in_any_mode(made, mode, noise_kind):
    network, clean = made(), images()
    before = clean.clone()
    how = {"sigma": 0.25, "n": 200, "seed": 0, "noise_kind": noise_kind}
    wanted = [one.prediction for one in certify(network, clean, **how)]
    with mode():
        given = clean.clone()  # made inside, as a server would
        assert [one.prediction for one in certify(network, given, **how)] == wanted
        assert len(predict(network, given, **how)) == len(predict(network, given, **how, mode="fixed")) == 3
        assert torch.equal(given, before)


@pytest.mark.parametrize("made", EVERY)
@pytest.mark.parametrize("channels_last", [False, True])
def test_runs_are_made_and_resumed(made, channels_last, tmp_path):
    options = {"sigma": 0.25, "n": 200, "targets": [0.0], "progress": False, "channels_last": channels_last}
    network = made()
    with torch.inference_mode():
        run = certify_dataset(network, dataset(), tmp_path, **options)
    assert len(certify_dataset(made(), dataset(), tmp_path, **options).rows) == 3
    assert run.settings["model"]["weights_sha256"] == weights_sha256(made())


@pytest.mark.parametrize("made", EVERY)
def test_batch_sizes_are_tried(made):
    execution, speeds = probe_batch_size(made(), SHAPE, Execution(), seconds=0.01)
    assert str(execution.copies_per_batch) in speeds


def test_a_trial_of_batch_sizes_shows_the_same_images_each_time():
    seen = []

    class Watching(InPlace):
        def forward(self, pixels):
            seen.append(float(pixels.mean()))
            return super().forward(pixels)

    probe_batch_size(Watching(), SHAPE, Execution(), seconds=0.0)
    assert set(seen) == {0.5}


@pytest.mark.parametrize("made", DIFFERENTIABLE)
def test_smoothed_runs_are_attacked(made, tmp_path):
    run = certify_dataset(made(), dataset(), tmp_path, sigma=0.25, n=300, progress=False)
    found = attack_run(made(), dataset(), run, steps=2, copies=2, n=300, progress=False)
    assert not any(one.broken for one in found)


@pytest.mark.parametrize("made", [Unusual, InPlace, ExtraState])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cover_run", [True, False])
def test_exact_runs_are_made_and_attacked(made, dtype, cover_run, tmp_path):
    network = made().to(dtype)
    run = certify_dataset_linf(network, dataset(), tmp_path, largest=0.1, cover_run=cover_run, progress=False)
    found = attack_run(network, dataset(), run, steps=3, restarts=2, progress=False)
    assert found
    for one in found:
        assert one.answer == one.certified
        assert 0.9 * one.radius < one.distance < one.radius


@pytest.mark.parametrize(
    "network", [Unusual(), InPlace(), smoothed("resnet").classify], ids=["plain", "in place", "smoothed"]
)
@pytest.mark.parametrize("attack", [
    *ATTACKS.values(),
    lambda f, x, y, epsilon: pgd(f, x, y, epsilon=epsilon, restarts=2, diversity=0.0),
    lambda f, x, y, epsilon: ddn(f, x, y, largest=1.0, steps=5),
    lambda f, x, y, epsilon: feature_pgd(f, x, epsilon=epsilon, steps=2),
    lambda f, x, y, epsilon: ascend(lambda x: f(x).square().sum(1), x, epsilon=epsilon, norm="l2", steps=2),
    lambda f, x, y, epsilon: pgd(smoothed_logits(f, 0.25, 4, torch.Generator().manual_seed(0), batch_size=5), x, y, epsilon=epsilon, steps=2),
    lambda f, x, y, epsilon: x + universal_perturbation(f, x, epsilon=epsilon, epochs=1, batch_size=2, generator=torch.Generator().manual_seed(0)),
], ids=[*ATTACKS, "restarts", "ddn", "features", "ascend", "smoothed", "universal"])  # fmt: skip
def test_attacks_hand_out_copies(network, attack):
    """What an attack makes of a network that works in place is what it makes of the same one that works on a copy."""
    size = 16 if not isinstance(network, Unusual) else SHAPE[-1]
    clean = tiny_pixels(3, size).float() / 255
    before, labels = clean.clone(), torch.tensor([0, 1, 2])

    def found(function):
        torch.manual_seed(0)
        return attack(function, clean, labels, epsilon=0.05)

    assert torch.equal(found(network), found(lambda x: network(x.clone())))
    assert torch.equal(clean, before)
    assert fooled(network, clean, torch.full(clean.shape[1:], 0.01)).shape == labels.shape
    assert torch.equal(clean, before)


def test_the_smoothed_model_itself_votes():
    model = smoothed("resnet")

    def guide(module, inputs, output):
        with torch.enable_grad():
            one = torch.ones((), requires_grad=True)
            torch.autograd.grad(one.square(), one)

    model.base_network.register_forward_hook(guide)
    with torch.inference_mode():
        assert model(pixel_values=tiny_pixels(2), seed=0).logits.shape == (2, 3)


def test_certifiers_are_audited_with_networks_that_take_gradients():
    def certifier(classifier, pixels, **how):
        def guided(x):
            with torch.enable_grad():
                moved = x.detach().clone().requires_grad_()
                torch.autograd.grad(moved.square().sum(), moved)
            return classifier(x)

        return certify(guided, pixels, n=100, n0=10, **how)

    assert not audit_certifier(certifier, explore=3, confirm=10).violated


def test_what_a_network_keeps_from_its_draws_serves_gradients_later():
    class Keeping(Unusual):
        kept = None

        def forward(self, pixels):
            if self.kept is None:
                self.kept = pixels.mean() * 0.0 + 1.0
            return super().forward(pixels * self.kept)

    network = Keeping()
    certify(network, images(), sigma=0.25, n=100)
    assert pgd(network, images(), torch.tensor([0, 1, 2]), epsilon=0.1, steps=1).shape == (3, *SHAPE)


@pytest.mark.parametrize("ask", [
    lambda network, run: check_network_of_run(network, run),
    lambda network, run: attack_run(network, dataset(), run, steps=1, n=100, progress=False),
    lambda network, run: certify_dataset(network, dataset(), run.path, sigma=0.25, n=300, progress=False),
], ids=["check", "attack", "resume"])  # fmt: skip
def test_a_run_is_asked_about_in_inference_mode(ask, tmp_path):
    network = Guided()
    run = certify_dataset(network, dataset(), tmp_path, sigma=0.25, n=300, progress=False)
    with torch.inference_mode():
        ask(network, run)


def test_what_a_network_keeps_from_exact_runs_serves_gradients_later(tmp_path):
    class Keeping(Unusual):
        grid = None

        def forward(self, pixels):
            if self.grid is None:
                self.grid = torch.ones(1, 192)
            return self.layer(pixels.flatten(1) * self.grid)

    network = Keeping()
    with torch.inference_mode():
        certify_dataset_linf(network, dataset(), tmp_path, largest=0.1, progress=False)
    network(images().requires_grad_()).sum().backward()


def test_nothing_runs_a_network_in_inference_mode():
    package = Path(hf_smoothing.__file__).parent
    assert [
        file.name for file in package.rglob("*.py") if "inference_mode()" in file.read_text(encoding="utf-8")
    ] == []


@pytest.mark.parametrize("made", [SparseWeights, RowWeights, ColumnWeights])
def test_places_and_values_decide_the_hash_of_sparse_weights(made):
    first, value, place = made(), made(), made()
    dense = first.weight.to_dense()
    value.weight = torch.nn.Parameter(getattr(dense * 2, made.layout)(), requires_grad=False)
    place.weight = torch.nn.Parameter(getattr(dense.roll(1, 1), made.layout)(), requires_grad=False)
    assert len({weights_sha256(network) for network in (first, value, place)}) == 3


def test_the_order_and_the_repetitions_of_sparse_entries_are_no_part_of_a_network():
    network, other = SparseWeights(), SparseWeights()
    weight = network.weight.detach().coalesce()
    twice = (
        torch.cat([weight.indices(), weight.indices()], 1).flip(1),
        torch.cat([weight.values(), weight.values()]).flip(0) / 2,
    )
    other.weight = torch.nn.Parameter(torch.sparse_coo_tensor(*twice, weight.shape), requires_grad=False)
    assert weights_sha256(network) == weights_sha256(other)


def test_layouts_that_cannot_be_read_are_named():
    network = Unusual()
    network.register_buffer("packed", torch.rand(2, 2).to_mkldnn())
    with pytest.raises(TypeError, match=r"layout _mkldnn. Call to_dense"):
        weights_sha256(network)


def test_quantised_networks_have_no_exact_certificates():
    with pytest.raises(UnsupportedOperationError, match=r"a quantised module, got '1'. Pass the network as it was"):
        linf_certificates(half_quantised().eval(), images(), largest=0.1)
    helped = Unusual()
    helped.add = torch.ao.nn.quantized.FloatFunctional()
    assert (linf_certificates(helped.eval(), images(), largest=0.1)[1] > 0).any()


def test_infinite_weights_are_found_in_what_is_no_tensor():
    network = SparseWeights()
    network.weight.data = (network.weight.to_dense() / 0.0).to_sparse()
    with pytest.raises(ValueError, match="weight holds nan or inf"):
        hf_smoothing.certification.classifiers.check_finite(network)
