"""Two real processes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.processes import printed, run_ranks
from tests.support.tiny import any_model, assert_same_tensors, data, tensors, trainer
from tests.training.two_ranks import ATTACKING, CERTIFYING, RAGGED


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("two_ranks.py")
    printed(run_ranks(2, script, folder))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("kind", ["vit", "smoothed-resnet"])
def test_ranks_end_with_the_same_weights(kind, ranks):
    first, second = (rank[kind]["weights"] for rank in ranks)
    # The statistics of batch norm too, of which each rank has its own while it trains.
    assert_same_tensors(first, second)
    assert not all(torch.equal(first[name], value) for name, value in tensors(any_model(kind)).items())


@pytest.mark.parametrize("objective", [*ATTACKING, *CERTIFYING])
def test_objectives_of_several_passes_train_the_ranks_alike(objective, ranks):
    first, second = (rank[objective]["weights"] for rank in ranks)
    assert_same_tensors(first, second)
    assert not all(torch.equal(first[name], value) for name, value in tensors(any_model("smoothed-resnet")).items())


@pytest.mark.parametrize("objective", ATTACKING)
def test_buffers_are_sent_once_a_step(objective, ranks):
    # In torch 2.6, sent again they are a change in place that the backward pass refuses.
    assert [rank[objective]["sent"] for rank in ranks] == [2, 2]


@pytest.mark.parametrize("objective", ["denoising", "stability"])
def test_a_denoiser_is_trained_by_all_ranks(objective, ranks):
    first, second = (rank[objective]["weights"] for rank in ranks)
    assert_same_tensors(first, second)
    assert all(torch.isfinite(value).all() for value in first.values())


@pytest.mark.parametrize("kind", ["vit", "smoothed-resnet"])
def test_ranks_steps_and_micro_steps_have_noise_of_their_own(kind, ranks, tmp_path):
    seen = [rank[kind]["seen"] for rank in ranks]
    assert seen[0].shape == seen[1].shape == (4, 2, 3, 16, 16)
    loop = trainer(any_model("vit"), tmp_path)
    images = loop.preprocessing(data(8).pixels / 255)
    noise = []
    for batch in torch.cat(seen).flatten(0, 1):
        # The image is the one whose noise is smallest; with sigma 0.5 no other comes close.
        differences = (batch - images).flatten(1)
        noise.append(differences[differences.norm(dim=1).argmin()])
    noise = torch.stack(noise)
    assert 1.4 < float(noise.std()) < 3.0  # 0.5 over the standard deviations of the normalisation
    distance = torch.cdist(noise, noise).fill_diagonal_(999.0)
    assert float(distance.min()) > 20.0


def test_ranks_share_the_images_out(ranks):
    seen = torch.cat([rank["clean"]["seen"].flatten(0, 1) for rank in ranks])
    assert len({tuple(image.flatten()[:5].tolist()) for image in seen}) == 4


def test_two_ranks_take_the_step_of_one_process_with_their_images(ranks, tmp_path):
    seen = torch.cat([rank["clean"]["seen"].flatten(0, 1) for rank in ranks])
    model = any_model("vit")
    images = trainer(model, tmp_path).preprocessing(data(8).pixels / 255)
    order = torch.cdist(seen.flatten(1), images.flatten(1)).argmin(dim=1)
    loss = torch.nn.functional.cross_entropy(model.train()(pixel_values=images[order]).logits, data(8).labels[order])
    loss.backward()
    for name, parameter in model.named_parameters():
        expected = parameter.detach() - parameter.grad
        torch.testing.assert_close(ranks[0]["clean"]["weights"][name], expected, rtol=1e-3, atol=1e-5)


def test_ranks_measure_the_same_certified_accuracy(ranks):
    assert len(ranks[0]["metrics"]) == 3
    assert ranks[0]["metrics"] == ranks[1]["metrics"]
    # Also while a network with batch norm is trained: the figures choose the best checkpoint, on every rank.
    assert len(ranks[0]["history"]) == 2
    assert ranks[0]["history"] == ranks[1]["history"]


@pytest.mark.parametrize(("kind", "count"), RAGGED)
def test_images_that_fill_up_the_last_batch_do_not_count(kind, count, ranks, tmp_path):
    (metrics, predictions), again = (rank["ragged", kind, count] for rank in ranks)
    alone = trainer(any_model(kind), tmp_path, per_device_eval_batch_size=3).predict(data(count, seed=1))
    names = [name for name in alone.metrics if name.endswith(("loss", "accuracy"))]
    assert len(names) == (3 if "smoothed" in kind else 2)
    for name in names:
        assert metrics[name] == pytest.approx(alone.metrics[name], rel=1e-5)
        assert again[0][name] == metrics[name]
    np.testing.assert_allclose(predictions, alone.predictions, rtol=1e-4, atol=1e-5)


def test_the_noise_of_a_model_differs_between_ranks(ranks):
    assert not torch.equal(ranks[0]["model"], ranks[1]["model"])
