"""How alike two networks see the same images: linear CKA and SVCCA of their activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


_OF_AN_ARRAY = "Pass activations (images, features); torch.from_numpy makes a tensor of an array."


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Centred kernel alignment of two sets of features of the same images, unbiased: 1 for features equal up to rotation and scale.

    Args:
        x, y: Activations (images, ...), at least 4 images; flattened.

    Raises:
        ValueError: On too few images, or different ones, or what is no tensor.

    Source: Kornblith et al. (2019), arXiv 1905.00414; the unbiased estimator of HSIC is that of Song et al. (2012), as used by
    Nguyen et al. (2021), arXiv 2010.15327.
    """
    both = MinibatchCKA()
    both.update({"x": x}, {"y": y})
    return float(both.values()[0, 0])


class MinibatchCKA:
    """Linear CKA of every layer of one network with every layer of another, added up batch by batch.

    The unbiased HSIC of each batch is averaged over batches, weighted by their sizes, before it is divided, so that the result does
    not drift with the batch size (Nguyen et al. 2021). Of a few images it is very noisy: make batches about equally large.
    """

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.columns: list[str] = []
        self._cross: Tensor | None = None
        self._own: tuple[Tensor, Tensor] | None = None

    def update(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            first, second: Layer -> activations (batch, ...) of the same images; at least 4, always the same layers.

        Raises:
            ValueError: On fewer images, or different numbers of them; on other layers than those of the first batch; on what is no tensor.
        """
        if self._cross is None:
            self.rows, self.columns = list(first), list(second)
        first, second = _layers(first, self.rows), _layers(second, self.columns)
        sizes = {len(x) for x in (*first.values(), *second.values())}
        if len(sizes) != 1 or min(sizes) < 4:
            raise ValueError(
                f"CKA compares activations of the same images, at least 4 per batch, got {sorted(sizes)}. Use a larger batch."
            )
        grams = [torch.stack([_gram(x) for x in side.values()]) for side in (first, second)]
        cross = torch.stack([torch.stack([_hsic(k, other) for other in grams[1]]) for k in grams[0]])
        own = [torch.stack([_hsic(k, k) for k in side]) * min(sizes) for side in grams]
        cross = cross * min(sizes)
        if self._cross is None or self._own is None:
            self._cross, self._own = cross, (own[0], own[1])
        else:
            self._cross, self._own = self._cross + cross, (self._own[0] + own[0], self._own[1] + own[1])

    def values(self) -> Tensor:
        """CKA, (layers of the first, layers of the second), float64; nan where a layer gives all images the same.

        Raises:
            ValueError: Before the first batch.
        """
        if self._cross is None or self._own is None:
            raise ValueError("CKA has seen no batch yet. Call update first.")
        sizes = [own.sqrt() for own in self._own]  # nan where the estimate is negative, 0 where nothing varies
        return torch.where(
            (sizes[0][:, None] > 0) & (sizes[1] > 0), self._cross / (sizes[0][:, None] * sizes[1]), torch.nan
        )


def _layers(activations: Mapping[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """Activations in the order of the names."""
    if not names or set(activations) != set(names):
        raise ValueError(
            f"CKA compares at least one layer of each network, the same in every batch, got {sorted(activations)} after {sorted(names)}. Begin a "
            "MinibatchCKA of its own for other layers."
        )
    return {name: _checked(activations[name], _OF_AN_ARRAY) for name in names}


def _checked(activation: Any, cure: str) -> Tensor:
    """Return the activations of a layer if they are a tensor with a row for each image."""
    if not isinstance(activation, Tensor) or activation.ndim < 2:
        got = f"shape {tuple(activation.shape)}" if isinstance(activation, Tensor) else type(activation).__name__
        raise ValueError(f"A layer to compare must give a tensor (batch, ...), got {got}. {cure}")
    return activation


def _gram(x: Tensor) -> Tensor:
    """Inner products of images, float64 (batch, batch), with a zero diagonal. Centring removes scale from what is left to round."""
    flat = x.detach().flatten(1).double()
    flat = flat - flat.mean(0)
    return (flat @ flat.T).fill_diagonal_(0.0)


def _hsic(k: Tensor, other: Tensor) -> Tensor:
    """The unbiased estimator of the Hilbert-Schmidt independence criterion, from kernels with zero diagonals."""
    n = len(k)
    rows, columns = k.sum(0), other.sum(0)
    inner = (k * other).sum() + rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2.0 * (rows @ columns) / (n - 2)
    return inner / (n * (n - 3))


def svcca(x: Tensor, y: Tensor, keep: float = 0.99) -> float:
    """Mean canonical correlation of the directions that hold most of the variance of two sets of features; nan where one has none.

    It is far above 0 for independent features unless images far outnumber these directions: compare with shuffled images.

    Args:
        x, y: Activations (images, features) of the same images.
        keep: Share of the variance of each side to keep, in (0, 1].

    Raises:
        ValueError: On different images, a share out of range, or what is no tensor.

    Source: Raghu et al. (2017), arXiv 1706.05806.
    """
    x, y = (_checked(side, _OF_AN_ARRAY) for side in (x, y))
    if len(x) != len(y) or x.ndim != 2 or y.ndim != 2:
        raise ValueError(
            f"SVCCA compares (images, features) of the same images, got {tuple(x.shape)} and {tuple(y.shape)}. Pool over space first."
        )
    if not 0.0 < keep <= 1.0:
        raise ValueError(f"`keep` must be a share of the variance in (0, 1], got {keep}.")
    for side in (x.double(), y.double()):  # what is left of equal numbers is rounding
        if not float((side - side.mean(0)).abs().max()) > 1e-12 * float(side.abs().max()):
            return float("nan")
    correlations = torch.linalg.svdvals(_directions(x, keep).T @ _directions(y, keep))
    return float(correlations.clamp(0.0, 1.0).mean())


def _directions(x: Tensor, keep: float) -> Tensor:
    """Orthonormal columns (images, k): the leading left singular vectors that hold this share of the variance."""
    centred = x.detach().double()
    centred = centred - centred.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    share = (s**2).cumsum(0) / (s**2).sum().clamp_min(1e-300)
    count = int((share < keep * (1.0 - 1e-12)).sum()) + 1
    kept: Tensor = u[:, :count]
    return kept


def pooled(activation: Tensor) -> Tensor:
    """(batch, channels): mean over space of a convolution's maps, or over the tokens of a transformer.

    Raises:
        ValueError: If the module gives something else.
    """
    activation = _checked(activation, "Name modules inside it: layers=[...].")
    if activation.ndim == 4:
        return activation.mean((2, 3))
    return activation.mean(1) if activation.ndim == 3 else activation.flatten(1)
