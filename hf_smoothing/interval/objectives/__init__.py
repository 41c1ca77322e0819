"""Training for deterministic l-infinity certificates: losses of interval bounds and attacks that share one schedule."""

from hf_smoothing.interval.objectives.losses import adaptive_interval, cc_ibp, exp_ibp, mtl_ibp, sabr
from hf_smoothing.interval.objectives.regularisers import warm_up_regularisers
from hf_smoothing.interval.objectives.schedule import cap_schedule


__all__ = ["adaptive_interval", "cap_schedule", "cc_ibp", "exp_ibp", "mtl_ibp", "sabr", "warm_up_regularisers"]
