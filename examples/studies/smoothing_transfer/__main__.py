"""Does smoothing transfer? Pretraining x finetuning x certification noise, from scratch to tables."""

from examples.studies.command import main


if __name__ == "__main__":
    main(__package__, __doc__)
