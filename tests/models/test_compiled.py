"""`torch.compile` of a whole smoothed classifier: the network is compiled, votes and checks are left as they are."""

import pytest
import torch
from packaging.version import Version

from tests.support.tiny import pixels, smoothed


NEW_COMPILER = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.13"), reason="the compiler of torch 2.6 cannot trace a frozen dataclass"
)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model, how, backend="eager"):
    if how == "torch.compile":
        return torch.compile(model, backend=backend)
    model.compile(backend=backend)
    return model


@pytest.mark.parametrize("how", ["torch.compile", "model.compile"])
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_compiled_model_votes_as_before(kind, how):
    model = smoothed(kind)
    expected = model(pixel_values=pixels(), labels=LABELS, seed=3)
    network = compiled(model, how)
    output = network(pixel_values=pixels(), labels=LABELS, seed=3)
    assert torch.equal(output.logits, expected.logits)
    torch.testing.assert_close(output.loss, expected.loss)
    assert network(pixel_values=pixels(2)).logits.shape == (2, 3), "another batch size, fresh noise"
    assert [c.radius for c in network.certify(pixels(2), n0=5, n=60, seed=1)] == [
        c.radius for c in smoothed(kind).certify(pixels(2), n0=5, n=60, seed=1)
    ]


@NEW_COMPILER
@pytest.mark.parametrize("noise", [None, 0.5])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_trains_as_before(backend, noise):
    gradients = []
    for how in (None, "torch.compile", "model.compile"):
        model = smoothed("vit", noise=noise).train()
        network = model if how is None else compiled(model, how, backend)
        torch.manual_seed(0)
        network(pixel_values=pixels().float() / 255, labels=LABELS).loss.backward()
        gradients.append(model.base_network.classifier.weight.grad)
    assert float(gradients[0].abs().max()) > 1e-3
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-3, atol=1e-6)


@NEW_COMPILER
def test_the_network_is_one_graph_where_the_model_adds_no_noise():
    model = smoothed("vit").train()
    network = torch.compile(model, backend="eager", fullgraph=True)
    assert network(pixel_values=pixels().float() / 255).logits.shape == (4, 3)
