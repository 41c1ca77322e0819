"""An image's logits must not depend on its neighbours: networks of which they do are refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_smoothing.interval import UnsupportedOperationError, linf_certificates
from tests.support.bounded_networks import Hidden, attacked, every, pixels


MIXING = {
    "mean": lambda self, h: h - h.mean(0),
    "mean of all": lambda self, h: h - h.mean(),
    "sum": lambda self, h: h / h.exp().sum(0, keepdim=True),
    "amax": lambda self, h: h - h.amax(dim=(0, 1)),
    "roll": lambda self, h: h.roll(1, 0),
    "roll of all": lambda self, h: h.roll(1),
    "flip": lambda self, h: h.flip(0),
    "sort": lambda self, h: h.sort(0).values,
    "cumsum": lambda self, h: h.cumsum(0),
    "first": lambda self, h: h + h[:1],
    "order": lambda self, h: h[torch.arange(len(h) - 1, -1, -1)],
    "some": lambda self, h: h[::2].repeat_interleave(2, 0),
    "reshape": lambda self, h: h.reshape(16, -1).relu().reshape(-1, 16),
    "view": lambda self, h: h.view(-1, 8).roll(1, 1).view(-1, 16),
    "transposed": lambda self, h: (h.T @ torch.ones(len(h), len(h))).T,
    "transposed linear": lambda self, h: F.linear(h.T, torch.ones(len(h), len(h))).T,
    "images as channels": lambda self, h: F.max_pool1d(h[None], 3, 1, 1)[0],
    "convolved": lambda self, h: F.conv1d(h.T[None], torch.ones(16, 16, 3), padding=1)[0].T,
    "repeat": lambda self, h: h.repeat(2, 1)[: len(h)],
    "joined": lambda self, h: torch.cat([h, h])[: len(h)],
    "stacked": lambda self, h: torch.stack([h, h], 1).flatten(0, 1)[: len(h)],
    "split": lambda self, h: torch.cat(h.split(2)[::-1]),
    "place": lambda self, h: h + torch.arange(len(h))[:, None],
    "joined place": lambda self, h: torch.cat([h[:, 1:], torch.arange(float(len(h)))[:, None]], 1),
    "sum of two layouts": lambda self, h: h[:, : len(h)].T + h[:, : len(h)],
    "padded": lambda self, h: F.pad(h, (0, 0, 1, 0))[:-1],
}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_images_is_refused(name, count):
    with pytest.raises(UnsupportedOperationError, match=r"There is no sound bound for '\w+'"):
        linf_certificates(Hidden(MIXING[name]).eval(), pixels(count), largest=0.1, backward="optimised")


@pytest.mark.parametrize("name", ["mean", "reshape", "roll", "transposed", "convolved", "place"])
def test_the_refusal_says_why(name):
    with pytest.raises(UnsupportedOperationError, match="an image's logits must not depend on its neighbours"):
        linf_certificates(Hidden(MIXING[name]).eval(), pixels(3), largest=0.1)


KEEPING = {
    "transposed": lambda self, h: (self.second.weight @ h.T).T.relu(),
    "moved": lambda self, h: h.view(-1, 4, 4).movedim(0, 2).transpose(0, 2).flatten(1).relu(),
    "token": lambda self, h: torch.cat([torch.zeros(1, 4).expand(len(h), -1), h[:, 4:].relu()], 1),
    "stacked": lambda self, h: torch.stack([h, h.relu()], 0).mean(0),
    "whole length": lambda self, h: h.reshape(len(h), 4, 4).amax(2).repeat(1, 4),
    "flipped": lambda self, h: h.flip(1).relu(),
    "one number per image": lambda self, h: h[:, 3].relu().view(-1, 1) * torch.ones(16),
    "places": lambda self, h: h[:, torch.arange(15, -1, -1)].relu(),
}


@every(KEEPING)
def test_what_keeps_images_apart_is_bounded(name, backward):
    model, radii, found = attacked(KEEPING[name], backward)
    assert (radii > 0).any()
    assert found == 0
    alone = [
        linf_certificates(model, pixels()[k : k + 1], largest=0.9, backward=backward, steps=2)[1] for k in range(2)
    ]
    assert torch.allclose(torch.cat(alone), radii[:2], atol=1e-6)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1) * self.calls


def squeezed(self, h):
    return h.relu().squeeze()


@pytest.mark.parametrize(("model", "message"), [
    (Hidden(lambda self, h: h * len(h)), "outside their own bounds"),
    (Hidden(lambda self, h: h + torch.randn(16)), "outside their own bounds"),
    (Hidden(lambda self, h: h if type(h) is torch.Tensor else -h), "outside their own bounds"),
    (Counting(), "outside their own bounds"),
    (Hidden(squeezed), "logits of shape .* squeeze\\(\\) without a dimension"),
    (Hidden(lambda self, h: h.view(7, 16).relu()), "takes a box of 7 images, but .* fail"),
], ids=["number of images", "random", "kind of tensor", "calls", "squeeze", "fixed batch"])  # fmt: skip
def test_runs_beside_the_bounds_find_other_dependence(model, message):
    with pytest.raises(ValueError, match=message):
        linf_certificates(model.eval(), pixels(6), largest=0.1)


def test_batch_norm_in_train_mode_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match="keeps no running statistics"):
        linf_certificates(model, pixels(), largest=0.1)


MOVED = {
    "channel first": lambda x: x.permute(1, 0, 2).mean(0),
    "transposed": lambda x: x.transpose(0, 1).sum(0),
    "moved": lambda x: x.movedim(0, 2).amax(0).T,
    "back and forth": lambda x: x.permute(1, 2, 0).permute(2, 0, 1).flatten(1),
    "a new dimension": lambda x: x[None].mean(0).flatten(1),
    "a new dimension and turned": lambda x: x.unsqueeze(0).transpose(0, 1).flatten(1),
    "squeezed": lambda x: x.permute(1, 0, 2).squeeze(0),
    "there and back": lambda x: F.conv1d(x.transpose(0, 1).transpose(0, 1), torch.ones(2, 1, 3)).flatten(1)[:, :16],
    "there and back, bent between": lambda x: F.max_pool1d(
        x.permute(1, 0, 2).relu().permute(1, 0, 2), 3, 1, 1
    ).flatten(1),
    "in and out": lambda x: F.max_pool1d(x.unsqueeze(0).squeeze(0), 3, 1, 1).flatten(1),
    "to the end and back": lambda x: F.max_pool1d(x.permute(1, 2, 0).permute(2, 0, 1), 3, 1, 1).flatten(1),
    "sizes by name": lambda x: x.permute(1, 0, 2).reshape(1, len(x), -1).mean(0),
}


class Turned(nn.Module):
    """A classifier of grey images, whose pixels (batch, 1, 16) are moved about."""

    def __init__(self, moved):
        super().__init__()
        torch.manual_seed(0)
        self.moved, self.head = moved, nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.moved(x.flatten(2)))


@pytest.mark.parametrize("backward", ["none", "crown"])
@pytest.mark.parametrize("name", MOVED)
def test_one_image_is_followed_among_other_dimensions_of_one(name, backward):
    network, images = Turned(MOVED[name]).eval(), torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    together = linf_certificates(network, images, largest=0.3, backward=backward, steps=2)
    alone = [linf_certificates(network, image[None], largest=0.3, backward=backward, steps=2) for image in images]
    assert [int(classes) for classes, _ in alone] == together[0].tolist()
    assert [float(radii) for _, radii in alone] == pytest.approx(together[1].tolist(), abs=1e-7)
    assert together[1].max() > 0.0
