"""From the records to the report: tables between the markers of its page, figures, and the JSON file."""

from __future__ import annotations

from typing import Any

import numpy as np

from examples.studies.command import Command
from examples.studies.pages import publish
from examples.studies.smoothing_transfer import figures, gallery
from examples.studies.smoothing_transfer.cells import Records, collect
from examples.studies.smoothing_transfer.tables import Tables
from hf_smoothing.records import read_json


def build(given: Command) -> None:
    """Gather the results into one file of records, if their folder is there, and rebuild everything from it.

    What the networks see in the images of the gallery is measured where both results and data are given.
    """
    config, scale = given.config, given.scale
    file = given.docs / "results" / f"smoothing_transfer-{scale}.jsonl"
    pictures = given.docs / "figures" / "smoothing_transfer" / scale
    collect(given.stages, given.output, file)
    records = Records(file)
    tables = Tables(config, records)
    made = tables.all()
    texts = {
        name: table if name.startswith("compute") else f"*{tables.scale(name)}*\n\n{table}"
        for name, (table, _) in made.items()
    }
    texts["summary"] = tables.verdicts.summary()
    values = _plain({"scale": tables.scale("")} | {name: value for name, (_, value) in made.items()})
    page, summary = given.docs / "smoothing_transfer.md", given.docs / "results" / "smoothing_transfer.json"
    publish(scale, texts, values, page, summary, given.output)
    floor = 100 * tables.compare.one_class(config["sigmas"][0], "")
    for architecture, about in config["architectures"].items():
        if about["grid"] == "full":  # the others are a few rows of a table
            figures.curves(config, records, architecture, floor, pictures / f"curves-{architecture}.png")
            figures.heat_map(config, records, architecture, floor, pictures / f"grid-{architecture}.png")
    if given.data is not None and any(given.output.glob("certify/*")):
        gallery.measure(config, given.output, given.data, scale, given.docs)
    seen = (read_json(gallery.file_of(given.docs)) or {}).get(scale)
    if seen is not None:
        gallery.draw(seen, pictures / "gallery.png")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 5) if np.isfinite(value) else None
    return value
