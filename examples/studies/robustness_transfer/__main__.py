"""Does pretraining make a finetuned network brittle, and what mitigates it? From scratch to tables.

    python -m examples.studies.robustness_transfer run --config examples/studies/robustness_transfer/cpu.json --data path/to/data --output-dir runs/robustness_transfer
    python -m examples.studies.robustness_transfer status --config ... --output-dir ...   # what is done and missing
    python -m examples.studies.robustness_transfer report --config ... --output-dir ...   # records, tables, figures and docs/robustness_transfer.md

`run` does the stages that are not done. It may be stopped at any time, and started several times at once on the same folder: each
process takes the next stage that nobody works on. `report` first gathers the results of the folder, if it is there, into one small
file of records, from which everything else is built.
"""

from examples.studies.command import main


if __name__ == "__main__":
    main(__package__, __doc__)
