"""What every test shares: no network, a cache of data sets of its own, reproducible hypothesis runs and one thread per process."""

import atexit
import gc
import os
import shutil
import tempfile

import pytest
import torch
from hypothesis import settings


CACHE = tempfile.mkdtemp(prefix="hf-smoothing-tests-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
# Here, since huggingface_hub and datasets read it once, when they are imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_EVALUATE_OFFLINE="1", HF_DATASETS_CACHE=CACHE)

# Derandomised: a failure on one machine is a failure on every machine.
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("reproducible")
torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _little_garbage():
    """Keep the libraries and thousands of tests out of garbage collections: each training ends in a full one, which takes longer than its steps."""
    gc.collect()
    gc.freeze()
