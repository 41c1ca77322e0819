"""What runs over data sets are compared with: runs over the same images that nothing disturbed."""

from __future__ import annotations

import pytest

from hf_smoothing.certification import certify_dataset
from tests.support.classifiers import KINDS


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory):
    """A run over the `DATASET` of the test's module that nothing interrupted."""
    classifier, arguments = KINDS["fixed"]
    return certify_dataset(classifier, request.module.DATASET, tmp_path_factory.mktemp("whole"), **arguments)


@pytest.fixture(scope="module")
def whole_sequential(request, tmp_path_factory):
    """The same with draws that stop when the targets are decided, at different times."""
    classifier, arguments = KINDS["targets"]
    run = certify_dataset(classifier, request.module.DATASET, tmp_path_factory.mktemp("whole"), **arguments)
    assert len({row["draws"] for row in run.rows.values()}) > 2
    return run


@pytest.fixture(params=["fixed", "targets"])
def kind(request, whole, whole_sequential):
    """(classifier, arguments, what an undisturbed run finds) of either rule."""
    return *KINDS[request.param], whole if request.param == "fixed" else whole_sequential
