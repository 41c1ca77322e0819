"""Several checkpoints as one base classifier."""

from __future__ import annotations

import pytest
import torch

from hf_smoothing import EnsembleForImageClassification, SmoothedClassifier, smoothed_ensemble
from tests.support.tiny import KINDS, any_model, label_maps, note, smoothed


PIXELS = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255


@pytest.fixture
def members():
    return [smoothed("resnet", 0), smoothed("vit", 1), smoothed("resnet", 2, model_size=24, image_mean=[0.1] * 3)]


def test_it_is_the_mean_of_its_members_each_with_its_own_pixels(members):
    ensemble = smoothed_ensemble(members, sigma=0.5)
    noisy = PIXELS + 0.5 * torch.randn(PIXELS.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = sum(member.classify(noisy) for member in members) / 3
        torch.testing.assert_close(ensemble.classify(noisy), expected)
    assert ensemble.config.sigma == 0.5
    assert ensemble.config.id2label == members[0].config.id2label


def test_it_is_saved_and_loaded_and_certifies(members, tmp_path):
    ensemble = smoothed_ensemble(members, sigma=0.25)
    ensemble.save_pretrained(tmp_path / "ensemble")
    again = SmoothedClassifier.from_pretrained(tmp_path / "ensemble").eval()
    assert isinstance(again.base_network, EnsembleForImageClassification)
    with torch.no_grad():
        torch.testing.assert_close(again.classify(PIXELS), ensemble.classify(PIXELS))
    first, second = (model.certify(PIXELS[:2], n=50, n0=10, seed=0) for model in (ensemble, again))
    assert [c.radius for c in first] == [c.radius for c in second]


@pytest.mark.parametrize(
    "dtypes", [("float16", "float32"), ("float32", "float16"), ("bfloat16", "float16"), ("float64", "float32")]
)
def test_each_member_runs_in_its_own_dtype(dtypes):
    parts = [smoothed("resnet", number).to(getattr(torch, dtype)) for number, dtype in enumerate(dtypes)]
    with torch.no_grad():
        found = smoothed_ensemble(parts, sigma=0.25).classify(PIXELS)
        expected = sum(member.classify(PIXELS).double() for member in parts) / 2
    assert found.dtype == torch.promote_types(*(member.dtype for member in parts))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_members_are_checkpoints_of_either_kind(tmp_path):
    paths = []
    for number, kind in enumerate(KINDS):
        model = any_model(kind, number)
        if "-" not in kind:
            model.config.hf_smoothing = note()
        model.save_pretrained(tmp_path / kind)
        paths.append(tmp_path / kind)
    assert len(smoothed_ensemble(paths, sigma=0.25).base_network.members) == len(KINDS)


def test_the_members_stay_as_they_are(members):
    ensemble = smoothed_ensemble(members, sigma=0.25)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.zero_()
    assert any(parameter.abs().sum() > 0 for member in members for parameter in member.parameters())


def test_what_is_refused(members):
    with pytest.raises(ValueError, match="at least one member"):
        smoothed_ensemble([], sigma=0.25)
    other = smoothed("resnet", 3, base=label_maps(("dog", "cat", "eel")))
    with pytest.raises(ValueError, match=r"the same classes in the same order, but member 1 has \['dog'"):
        smoothed_ensemble([members[0], other], sigma=0.25)
    with pytest.raises(ValueError, match=r"same pixels of an image, got .*size=\(16, 16\).* and .*size=\(20, 20\)"):
        smoothed_ensemble([members[0], smoothed("resnet", 0, size=20)], sigma=0.25)
    grey = smoothed("resnet", 0, base={"num_channels": 1}, image_mean=[0.5], image_std=[0.5])
    with pytest.raises(ValueError, match=r"same pixels of an image, got .*channels=3\) and .*channels=1\)"):
        smoothed_ensemble([members[0], grey], sigma=0.25)
    with pytest.raises(TypeError, match=r"must be a list of classifiers, got str\. Write \[\.\.\.\] around it"):
        smoothed_ensemble("runs/one", sigma=0.25)
    with pytest.raises(ValueError, match="EnsembleConfig needs `members`"):
        type(smoothed_ensemble(members, sigma=0.25).base_network.config)()
