"""The public log format of randomized-smoothing papers, read as a run: `idx label predict radius correct time`.

A log says neither alpha nor the number of draws nor the data set, so its figures stand in tables of their own.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from hf_smoothing.records import Row, Run, RunError
from hf_smoothing.statistics import ABSTAIN


HEADER = ("idx", "label", "predict", "radius", "correct", "time")


def read_published_log(path: str | os.PathLike[str]) -> Run:
    r"""Read a published log: a header line, then a line an image, with tabs between the columns.

    Args:
        path: of the file. Sigma is taken from it where it says so with a decimal point, as in
            `noise_0.25/test/sigma_0.50`: the innermost `sigma_...` counts, without one the innermost `noise_...`.
            A number without a point is not taken: `sigma_25` is 0.25 to some and 25/255 to others.

    Returns:
        the run, its rows keyed by `idx`. Its settings say what a log says; alpha is None (not stated), and so is sigma
        where the path is silent. The time column is not read. A torn last line is dropped.

    Raises:
        RunError: if the file cannot be read, is no such log, has no finished line, or contradicts itself.

    >>> from pathlib import Path; from tempfile import mkdtemp
    >>> log = Path(mkdtemp()) / "sigma_0.50"
    >>> _ = log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t1.87\t1\t0:00:17.123456\n")
    >>> run = read_published_log(log)
    >>> run.settings["sigma"], run.rows[0]["radius"]
    (0.5, 1.87)
    """
    file = Path(path)
    rows: dict[int, Row] = {}
    for number, line in _body(file):
        row = _parse(line, f"{file}, line {number}")
        if row["index"] in rows:
            raise RunError(
                f"{file}, line {number}: every image must have one line, got idx {row['index']} a second time. "
                "Remove one of the two, or split logs that were joined."
            )
        rows[row["index"]] = row
    if not rows:
        raise RunError(
            f"{file} must hold at least one finished line under its header, got none. Was the run that wrote it cut off?"
        )
    return Run(
        file,
        {
            "method": "randomized-smoothing",
            "norm": "l2",
            "bound": "one-sided",
            "rule": {"name": "published log"},
            "alpha": None,
            "sigma": sigma_of_path(file),
            "num_images": len(rows),
            "rounding": _rounding([row["radius"] for row in rows.values()]),
            "model": {"id": file.as_posix()},
            # The same images with the same labels: all that can be known of the data, and enough to tell sets apart.
            "dataset": {"id": None, "labels_sha256": _hash_labels(rows)},
        },
        rows,
    )


def sigma_of_path(path: str | os.PathLike[str]) -> float | None:
    """The noise level that a path names, or None.

    Args:
        path: of a log; made absolute first, so that a bare file name inside `sigma_0.50` will do.

    >>> sigma_of_path("cifar10/noise_0.25/test/sigma_0.50"), sigma_of_path("/logs/noise_1.00.tsv")
    (0.5, 1.0)
    >>> sigma_of_path("/logs/sigma_50") is None
    True
    """
    text = Path(path).absolute().as_posix()
    for word in ("sigma", "noise"):
        # noise_0.00 names a network that was trained without noise, never the noise of a certificate.
        found = [float(n) for n in re.findall(rf"(?<![A-Za-z0-9]){word}_([0-9]+\.[0-9]+)", text) if float(n) > 0]
        if found:
            return found[-1]
    return None


def _body(file: Path) -> Iterable[tuple[int, str]]:
    """The numbered lines under the header, without a torn last one."""
    try:
        header, *lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise RunError(
            f"{file} must be a text file, got bytes that are not UTF-8 ({error.reason}). Pass a run folder or a log."
        ) from error
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror}). Pass the path of a published log.") from error
    if tuple(header.split("\t")) != HEADER:
        raise RunError(
            f"{file} is not a run folder, and a published log must begin with the header {_quote(HEADER)}, got {header[:80]!r}. "
            "For a run of this library pass its folder, not a file in it."
        )
    # Empty after a whole last line. Otherwise it counts once it has reached the last column: that is only the time.
    if lines and len(lines[-1].split("\t")) < len(HEADER):
        lines.pop()
    return enumerate(lines, start=2)


def _parse(line: str, where: str) -> Row:
    fields = line.split("\t")
    if len(fields) != len(HEADER):
        raise RunError(
            f"{where}: {len(HEADER)} columns with tabs between them are required, got {len(fields)} in {line[:80]!r}. "
            "Only a torn last line is expected; mend or remove this one."
        )
    index = _integer(fields[0], "idx", 0, where)
    label = _integer(fields[1], "label", 0, where)
    prediction = _integer(fields[2], "predict", ABSTAIN, where)
    radius = _radius(fields[3], where)
    correct = fields[4].strip()
    if prediction == ABSTAIN and radius > 0:
        raise RunError(
            f"{where}: an abstention ({ABSTAIN} under predict) must have radius 0.0, got {radius}. "
            "Correct whichever of the two is wrong."
        )
    expected = str(int(prediction == label))  # an abstention is never equal to a label
    if correct != expected:
        raise RunError(
            f"{where}: correct must be {expected} for label {label} and predict {prediction}, got {correct!r}. "
            "Columns may be in another order, or the log was edited: take it from its source again."
        )
    return {"index": index, "label": label, "prediction": prediction, "radius": radius}


def _integer(text: str, name: str, least: int, where: str) -> int:
    # int() alone would also take 1_0 for 10 and 3 in any script of the world.
    if re.fullmatch(r"-?[0-9]{1,18}", text.strip()) is None or int(text) < least:
        raise RunError(
            f"{where}: {name} must be a whole number of at least {least}, got {text!r}. "
            "Check that the columns are in the order of the header."
        )
    return int(text)


def _radius(text: str, where: str) -> float:
    try:
        radius = math.nan if "_" in text else float(text)
    except ValueError:
        radius = math.nan
    if not 0 <= radius < math.inf:
        raise RunError(
            f"{where}: radius must be a finite number of at least 0, got {text!r}. An abstention has 0.0; "
            "remove the line if its image was never certified."
        )
    return radius


def _rounding(radii: list[float]) -> str:
    # "{:.3}" and "{:.3f}" are both in use. A log with more digits must not be said to be coarser than it is.
    coarse = all(float(f"{r:.3}") == r for r in radii) or all(round(r, 3) == r for r in radii)
    return "rounded to 3 digits as published" if coarse else "with the digits that were published"


def _hash_labels(rows: dict[int, Row]) -> str:
    pairs = "\n".join(f"{index} {rows[index]['label']}" for index in sorted(rows))
    return hashlib.sha256(pairs.encode()).hexdigest()


def _quote(names: Iterable[str]) -> str:
    return repr("\t".join(names))
