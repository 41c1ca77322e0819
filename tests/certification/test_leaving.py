"""Ranks part when their interpreter ends: else a thread of gloo aborts, now and then, a process that has done its work.

Started as a script by torchrun, this file is what a rank does.
"""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.support.processes import run_ranks


def worker(kind: str, folder: Path) -> None:
    """A script as users write it: nothing in it parts from the other rank."""

    held = None

    def look() -> None:
        together = torch.distributed.is_initialized()
        wrapped = held is not None and isinstance(held.model_wrapped, DistributedDataParallel)
        (folder / f"rank-{rank}").write_text(f"together: {together}, wrapped: {wrapped}")

    atexit.register(look)  # what is registered first is called last
    if kind == "certify":
        from hf_smoothing.certification import certify_dataset
        from tests.support.classifiers import KINDS, random_dataset

        classifier, arguments = KINDS["targets"]
        certify_dataset(classifier, random_dataset(2), folder / "run", **arguments)
    else:
        from tests.support.tiny import any_model, data, trainer

        held = trainer(
            any_model("vit"), folder / "run", train_dataset=data(4), per_device_train_batch_size=2, max_steps=1
        )
        held.train()
        assert isinstance(held.model_wrapped, DistributedDataParallel)
    rank = torch.distributed.get_rank()


@pytest.mark.parametrize("kind", ["certify", "train"])
def test_two_ranks_part_at_the_end_of_a_script(tmp_path, kind):
    done = run_ranks(2, Path(__file__), kind, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == ["together: False, wrapped: False"] * 2


if __name__ == "__main__":
    worker(sys.argv[1], Path(sys.argv[2]))
