"""Deterministic runs that lose images on the way, or end early."""

import pytest

from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.interval import runner as interval_runner
from hf_smoothing.pixels import UnreadableImageError
from tests.support.bounded_networks import network
from tests.support.tiny import data


class Decaying(list):
    """Images of which some can be read once only: by the look before the folder is made."""

    skip_unreadable = True

    def __init__(self, images, decaying):
        super().__init__(images)
        self.decaying, self.reads, self.unreadable = decaying, {}, {}

    def __getitem__(self, index):
        self.reads[index] = self.reads.get(index, 0) + 1
        if index in self.decaying and self.reads[index] > 1:
            self.unreadable[index] = "gone"
            raise UnreadableImageError(index, None, f"Image {index} is gone.")
        return super().__getitem__(index)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("decaying", [{3}, {4, 5}, {1, 2, 3, 4, 5}])
def test_an_image_that_becomes_unreadable_is_left_out_and_named(decaying, batch_size, tmp_path):
    images, how = [data(6, size=8)[index] for index in range(6)], {"largest": 0.02, "batch_size": batch_size}
    run = certify_dataset_linf(network("mlp"), Decaying(images, decaying), tmp_path, progress=False, **how)
    assert {*run.rows} == {*range(6)} - decaying
    assert run.finished and run.settings["informative"]["unreadable"] == sorted(decaying)
    assert {*certify_dataset_linf(network("mlp"), images, tmp_path, progress=False, **how).rows} == {*range(6)}


@pytest.mark.parametrize(
    ("error", "said"),
    [(KeyboardInterrupt, "Interrupted: 4 of 6"), (UnreadableImageError(4, None, "Gone."), r"Gone\. 4 of 6")],
)
def test_a_run_that_ends_early_says_what_is_kept(error, said, tmp_path, monkeypatch):
    found, left = interval_runner.certificates_of, iter([True, True])

    def ending(*arguments, **how):
        if next(left, None) is None:
            raise error
        return found(*arguments, **how)

    monkeypatch.setattr(interval_runner, "certificates_of", ending)
    with pytest.raises(
        type(error) if isinstance(error, Exception) else error, match=f"{said} images are done and kept in"
    ):
        certify_dataset_linf(network("mlp"), data(6, size=8), tmp_path, largest=0.02, batch_size=2, progress=False)
