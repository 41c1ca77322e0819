"""Every training method with the same network, images and number of passes: which certifies most?

    python -m examples.studies.training_methods run --config examples/studies/training_methods/cpu.json --data path/to/data --output-dir runs/training_methods
    python -m examples.studies.training_methods status --config ... --output-dir ...   # what is done and missing
    python -m examples.studies.training_methods report --config ... --output-dir ...   # records, tables, figures and docs/training_methods.md

`run` does the stages that are not done. It may be stopped at any time, and started several times at once on the same folder: each
process takes the next stage that nobody works on. `report` first gathers the results of the folder, if it is there, into one small
file of records, from which everything else is built.
"""

from examples.studies.command import main


if __name__ == "__main__":
    main(__package__, __doc__)
