"""Balls around images in [0, 1] pixel units: distances, projection, and 8-bit images inside them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hf_smoothing.noise import on_grid
from hf_smoothing.pixels import check_image_batch, grid_to_unit, to_unit_pixels


Norm = Literal["l2", "linf"]

# Relative; far above the rounding of a float64 norm of millions of pixels, far below any radius worth telling apart.
_HAIR = 1e-12


def round_to_grid(adversarial: Tensor, clean: Tensor, epsilon: float | Tensor, norm: Norm) -> Tensor:
    """8-bit images near `adversarial` whose distance to `clean`, measured in whole steps of 1/255, is at most `epsilon`.

    255 * adversarial is rounded to the nearest whole numbers; where that leaves the ball, the perturbation is first scaled down
    by the largest factor (to 1e-9) with which it stays. A perturbation below half a step in every pixel becomes 0.

    Args:
        adversarial, clean: Images (batch, channels, height, width), uint8 or float in [0, 1]; `clean` on the 1/255
            grid.
        epsilon: Radius of the closed ball in [0, 1] pixel units, one for all images or (batch,). A certificate holds in the open
            ball: pass its radius rounded down.
        norm: The norm, "l2" or "linf".

    Returns:
        A float32 tensor of values k / 255, the shape of `clean`. Each pixel is within 3e-8 of the exact k / 255, so
        that `distance`, which measures the float32 values, may come out above `epsilon` by so little.

    Raises:
        TypeError: If images are not uint8 or float tensors.
        ValueError: If `clean` is not on the grid, on pixels outside [0, 1], different shapes, and a radius or norm that makes
            no sense.

    >>> clean = torch.full((1, 1, 1, 2), 100 / 255)
    >>> round_to_grid(clean + 0.011, clean, 2.9 / 255, "l2") * 255 - 100
    tensor([[[[2., 2.]]]])
    """
    adversarial, clean = to_unit_pixels(adversarial, "adversarial"), to_unit_pixels(clean, "clean")
    _check_same_shape(adversarial, clean, "`adversarial` and `clean`")
    if not on_grid(clean):
        steps = clean.double() * 255
        raise ValueError(
            "`clean` must hold multiples of 1/255, as 8-bit images do, got pixels up to "
            f"{float((steps - steps.round()).abs().max()):.3g} of a step away from one. Resize first, round with "
            "(pixels * 255).round() / 255, and attack and certify that image."
        )
    norm, radius = check_norm(norm), per_image(epsilon, clean, "epsilon")
    origin = (clean.detach().double() * 255).round()
    delta = adversarial.detach().double() * 255 - origin

    def fits(factor: Tensor) -> Tensor:
        # Whole numbers: the sum of squares is exact, and one root and one division follow.
        inside: Tensor = grid_to_unit(norms((factor * delta).round(), norm)) <= radius
        return inside

    # The rounded distance never falls as the factor grows, and 0 always fits: bisection finds the largest that does.
    low = fits(torch.ones_like(radius)).double()
    high = torch.ones_like(radius)
    for _ in range(30):
        middle = (low + high) / 2
        inside = fits(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return grid_to_unit((origin + (low * delta).round()).float())


def distance(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """The l2 or l-infinity distance of each image to its counterpart, in [0, 1] pixel units, computed in float64.

    Args:
        a, b: Floating-point tensors (batch, channels, height, width), any values.
        norm: The norm, "l2" or "linf".

    Returns:
        A float64 tensor (batch,).

    Raises:
        TypeError: If they are not floating point tensors.
        ValueError: If their shapes differ or are not those of images, or on an unknown norm.

    >>> distance(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5), "l2")
    tensor([1.], dtype=torch.float64)
    """
    for name, images in (("a", a), ("b", b)):
        if not check_image_batch(images, name).is_floating_point():
            raise TypeError(
                f"`{name}` must be floating point in [0, 1] units, got {images.dtype}. Divide uint8 pixels by 255."
            )
    _check_same_shape(a, b, "`a` and `b`")
    return norms(a.double() - b.double(), check_norm(norm)).flatten()


def norms(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each image: float64 (batch, 1, 1, 1)."""
    order = 2.0 if norm == "l2" else torch.inf
    norms: Tensor = torch.linalg.vector_norm(delta.double(), ord=order, dim=(1, 2, 3), keepdim=True)
    return norms


def clamped_pixels(point: Tensor) -> Tensor:
    """The point clamped to [0, 1], with a gradient at both ends: that of `Tensor.clamp` is 0 there from torch 2.14 on, and a black pixel would stay black."""
    return torch.where((point >= 0.0) & (point <= 1.0), point, point.detach().clamp(0.0, 1.0))


def inside(clean: Tensor, delta: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """clean + delta, projected on the ball and on [0, 1], as float32 that has not been rounded out of the ball."""
    if norm == "l2":
        delta = delta * (radius * (1.0 - _HAIR) / norms(delta, norm).clamp_min(1e-300)).clamp_max(1.0)
    else:
        delta = delta.clamp(-radius, radius)
    exact = clean.double()
    point = (exact + delta).float()
    outwards = (point.double() - exact).abs() > delta.abs()
    point = torch.where(outwards, torch.nextafter(point, clean), point)
    # The clean image is in [0, 1]: clamping moves no pixel away from it.
    return point.clamp(0.0, 1.0)


def random_delta(clean: Tensor, radius: Tensor, norm: Norm, generator: torch.Generator | None) -> Tensor:
    """Uniform in the ball: float64 of the shape of `clean`."""
    device = clean.device if generator is None else generator.device
    if norm == "linf":
        cube = torch.rand(clean.shape, generator=generator, device=device, dtype=torch.float64)
        return radius * (2.0 * cube - 1.0).to(clean.device)
    normal = torch.randn(clean.shape, generator=generator, device=device, dtype=torch.float64)
    u = torch.rand((len(clean), 1, 1, 1), generator=generator, device=device, dtype=torch.float64)
    ball = normal / norms(normal, norm).clamp_min(1e-300) * u ** (1.0 / clean[0].numel())
    return radius * ball.to(clean.device)


def check_norm(norm: Norm) -> Norm:
    """Return `norm` if it is a known one."""
    if norm not in ("l2", "linf"):
        raise ValueError(f"`norm` must be 'l2' or 'linf', got {norm!r}. 'linf' bounds the change of every pixel.")
    return norm


def _check_same_shape(first: Tensor, second: Tensor, names: str) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"{names} must have the same shape, got {tuple(first.shape)} and {tuple(second.shape)}. "
            "Pass one counterpart per image."
        )


def per_image(value: float | Tensor, images: Tensor, name: str) -> Tensor:
    """One length per image: float64 (batch, 1, 1, 1)."""
    try:
        lengths = torch.as_tensor(value, dtype=torch.float64, device=images.device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"`{name}` must be a number, or a tensor of one per image, got {value!r}. Pass a float such as 0.25."
        ) from error
    if lengths.shape not in (torch.Size(), images.shape[:1]):
        raise ValueError(
            f"`{name}` must be one number, or one per image of shape ({len(images)},), got shape {tuple(lengths.shape)}. "
            "Flatten it, or pass a float."
        )
    if not bool((torch.isfinite(lengths) & (lengths >= 0.0)).all()):  # written so that nan fails
        raise ValueError(
            f"`{name}` must be finite and >= 0 in [0, 1] pixel units, got {lengths.tolist()}. "
            "Leave out images without a radius."
        )
    return lengths.expand(len(images))[:, None, None, None]
