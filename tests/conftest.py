"""What every test shares: no network, reproducible hypothesis runs and one thread per process."""

import os

import torch
from hypothesis import settings


# Here, since huggingface_hub reads it once, when it is imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_EVALUATE_OFFLINE="1")

# Derandomised: a failure on one machine is a failure on every machine.
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("reproducible")
torch.set_num_threads(1)
