"""Does pretraining make a finetuned network brittle, and what mitigates it? From scratch to tables."""

from examples.studies.command import main


if __name__ == "__main__":
    main(__package__, __doc__)
