"""Does smoothing transfer? Pretraining x finetuning x certification noise, from scratch to tables."""
