"""CKA and SVCCA beside plain full-batch twins, and what they must say of features that are known to be alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_smoothing.robustness_transfer import MinibatchCKA, linear_cka, svcca
from hf_smoothing.robustness_transfer.similarity import pooled


def features(count=60, width=8, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width, seed=1):
    return torch.linalg.qr(features(width, width, seed))[0]


def plain_unbiased_hsic(k, l):  # noqa: E741
    """Song et al., equation 5, in loops over all ordered sets of different images."""
    n = len(k)
    total = 0.0
    rest = range(n)
    first = sum(k[i, j] * l[i, j] for i in rest for j in rest if i != j) / (n * (n - 1))
    second = sum(k[i, j] * l[p, q] for i in rest for j in rest for p in rest for q in rest if len({i, j, p, q}) == 4)
    third = sum(k[i, j] * l[i, q] for i in rest for j in rest for q in rest if len({i, j, q}) == 3)
    total = first + second / (n * (n - 1) * (n - 2) * (n - 3)) - 2 * third / (n * (n - 1) * (n - 2))
    return total


def test_cka_equals_a_plain_twin():
    x, y = features(9, 4) + 3.0, features(9, 5, 2) @ rotation(5)
    y[:, :4] += 0.7 * x
    k, l = (x @ x.T).numpy(), (y @ y.T).numpy()  # noqa: E741
    expected = plain_unbiased_hsic(k, l) / np.sqrt(plain_unbiased_hsic(k, k) * plain_unbiased_hsic(l, l))
    assert linear_cka(x, y) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(
    "change", [lambda x: x, lambda x: x @ rotation(8), lambda x: 5 * x + 3, lambda x: -x @ rotation(8, 3)]
)
def test_both_are_1_for_the_same_features_rotated_scaled_or_shifted(change):
    x = features()
    assert linear_cka(x, change(x)) == pytest.approx(1.0, abs=1e-9)
    assert svcca(x, change(x), keep=1.0) == pytest.approx(1.0, abs=1e-9)


def test_both_are_small_for_independent_features():
    x, y = features(2000, 8), features(2000, 8, 5)
    assert abs(linear_cka(x, y)) < 0.02
    assert svcca(x, y) < 0.15


def test_batches_add_up_to_the_whole():
    x, y = features(4000, 6), features(4000, 6, 2)
    y = y + 0.5 * x
    both = MinibatchCKA()
    for part in torch.arange(4000).split(200):
        both.update({"a": x[part], "b": y[part]}, {"c": y[part]})
    assert both.rows == ["a", "b"]
    assert both.columns == ["c"]
    assert float(both.values()[0, 0]) == pytest.approx(linear_cka(x, y), abs=0.01)
    assert float(both.values()[1, 0]) == pytest.approx(1.0, abs=1e-9)


def test_layers_are_known_by_their_names_in_every_batch():
    parts = [{name: features(20, 4, seed) for seed, name in enumerate(names)} for names in ("abz", "bax")]
    both, twin = MinibatchCKA(), MinibatchCKA()
    for part in parts:
        last = list(part)[2]
        both.update({name: part[name] for name in part if name in "ab"}, {"z": part[last]})
        twin.update({name: part[name] for name in "ab"}, {"z": part[last]})
    assert both.rows == ["a", "b"] and torch.equal(both.values(), twin.values())


@pytest.mark.parametrize("names", ["cd", "a", "abc", ""])
def test_other_layers_in_a_later_batch_are_refused(names):
    for side in (0, 1):
        both = MinibatchCKA()
        for layers in ("ab", names):
            given = [{"z": features(8)}, {"z": features(8)}]
            given[side] = {name: features(8) for name in layers}
            if layers == "ab":
                both.update(*given)
        with pytest.raises(ValueError, match="the same in every batch, got .* after .'a', 'b'"):
            both.update(*given)


def plain_svcca(x, y, keep):
    """NumPy: principal directions by eigenvalues of the covariance, then canonical correlations by the classical formula."""
    sides = []
    for side in (x.numpy(), y.numpy()):
        side = side - side.mean(0)
        values, vectors = np.linalg.eigh(side.T @ side)
        order = np.argsort(-values)
        share = np.cumsum(values[order]) / values.sum()
        count = int((share < keep).sum()) + 1
        sides.append(side @ vectors[:, order[:count]])
    a, b = sides
    whitened = [np.linalg.inv(np.linalg.cholesky(side.T @ side)) for side in (a, b)]
    return np.linalg.svd(whitened[0] @ a.T @ b @ whitened[1].T, compute_uv=False).mean()


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
def test_svcca_equals_a_plain_twin(keep):
    x = features(80, 7) * torch.linspace(3, 0.2, 7)
    y = features(80, 5, 2) + x[:, :5]
    assert svcca(x, y, keep) == pytest.approx(plain_svcca(x, y, keep), abs=1e-6)


def test_a_layer_that_gives_all_images_the_same_is_distinguished():
    assert np.isnan(svcca(torch.zeros(20, 3), features(20, 3)))
    assert np.isnan(svcca(torch.full((40, 7), 0.1), features(40, 7)))  # its mean is not quite 0.1
    assert np.isnan(linear_cka(torch.zeros(20, 3), features(20, 3)))


def test_pooled():
    assert pooled(torch.ones(2, 3, 4, 4)).shape == (2, 3)
    assert pooled(torch.ones(2, 17, 6)).shape == (2, 6)
    assert pooled(torch.ones(2, 6)).shape == (2, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_cka(features(3), features(3)), "at least 4 per batch, got"),
        (lambda: linear_cka(features(8), features(9)), "the same images"),
        (lambda: MinibatchCKA().values(), "no batch yet"),
        (lambda: MinibatchCKA().update({}, {"z": features(8)}), "at least one layer of each network"),
        (lambda: linear_cka(features(8).numpy(), features(8)), "must give a tensor .* got ndarray.*torch.from_numpy"),
        (lambda: linear_cka(features(8)[:, 0], features(8)), r"must give a tensor .* got shape \(8,\)"),
        (lambda: svcca(features(8), features(8).numpy()), "must give a tensor .* got ndarray"),
        (lambda: svcca(features(8), features(9)), "of the same images"),
        (lambda: svcca(features(8)[:, :, None], features(8)), "Pool over space first"),
        (lambda: svcca(features(8), features(8), keep=0.0), "`keep` must be a share"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
