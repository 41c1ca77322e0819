"""Audit the certificates of ART's randomized smoothing. Runs in an environment of its own: guarantee.py makes it."""

import dataclasses
import json
import sys

import numpy as np
import torch
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

from hf_smoothing.audit import audit_certifier


SELECTION = 100
"""Copies by which the class is chosen."""

sigma, alpha, draws, explore, confirm = sys.argv[1:]


def certifier(classifier, images, *, sigma, alpha, seed):
    """ART's certificates, one image after another."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    smoothed = PyTorchRandomizedSmoothing(
        model=classifier, loss=torch.nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=len(classifier.thresholds) + 1,
        clip_values=(0.0, 1.0), sample_size=SELECTION, scale=sigma, alpha=alpha, device_type="cpu",
    )  # fmt: skip
    return smoothed.certify(images.numpy(), n=int(draws), batch_size=1_000)


found = audit_certifier(
    certifier, sigma=float(sigma), alpha=float(alpha), explore=int(explore), confirm=int(confirm),
    progress=lambda tally: print(tally, file=sys.stderr, flush=True),
)  # fmt: skip
print(json.dumps(dataclasses.asdict(found)))
