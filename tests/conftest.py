"""What every test shares: reproducible hypothesis runs and one thread a process."""

from __future__ import annotations

import torch
from hypothesis import settings


# Derandomised: a failure on one machine is a failure on every machine.
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("reproducible")
torch.set_num_threads(1)
