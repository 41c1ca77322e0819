"""Does smoothing transfer? Pretraining x finetuning x certification noise, from scratch to tables.

    python -m examples.studies.smoothing_transfer run --config examples/studies/smoothing_transfer/cpu.json --data path/to/data --output-dir runs/smoothing_transfer
    python -m examples.studies.smoothing_transfer status --config ... --output-dir ...   # what is done and missing
    python -m examples.studies.smoothing_transfer report --config ... --output-dir ...   # records, tables, figures and docs/smoothing_transfer.md

`run` does the stages that are not done. It may be stopped at any time, and started several times at once on the same folder: each
process takes the next stage that nobody works on. `report` first gathers the results of the folder, if it is there, into one small
file of records, from which everything else is built.
"""

from examples.studies.command import main


if __name__ == "__main__":
    main(__package__, __doc__)
