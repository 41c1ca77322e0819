"""Attacks in [0, 1] pixel units, on plain and on smoothed classifiers: what a certificate promises cannot succeed."""

from hf_smoothing.attacks.ascent import ascend
from hf_smoothing.attacks.balls import Norm, distance, round_to_grid
from hf_smoothing.attacks.ddn import ddn
from hf_smoothing.attacks.diversity import diverse_inputs
from hf_smoothing.attacks.features import feature_pgd
from hf_smoothing.attacks.pgd import ATTACKS, bim, di_fgsm, fgsm, mi_fgsm, pgd
from hf_smoothing.attacks.smoothed import smoothed_logits
from hf_smoothing.attacks.universal import fooled, universal_perturbation


__all__ = [
    "ATTACKS",
    "Norm",
    "ascend",
    "bim",
    "ddn",
    "di_fgsm",
    "distance",
    "diverse_inputs",
    "feature_pgd",
    "fgsm",
    "fooled",
    "mi_fgsm",
    "pgd",
    "round_to_grid",
    "smoothed_logits",
    "universal_perturbation",
]
