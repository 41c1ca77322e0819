"""Does pretraining make a finetuned network brittle, and what mitigates it? From scratch to tables."""
