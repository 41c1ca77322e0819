"""The public log format of randomized-smoothing papers, read as a run: a table with the columns `idx label predict radius`.

A log says neither alpha nor the number of draws nor the data set, so its figures stand in tables of their own.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hf_smoothing.records import Row, Run, RunError
from hf_smoothing.records.shape import MOST_SIGMAS
from hf_smoothing.reports.grouping import PUBLISHED_LOG
from hf_smoothing.statistics import ABSTAIN
from hf_smoothing.units import MAX_SIGMA


COLUMNS = ("idx", "label", "predict", "radius")
"""What is read; where there is a column `correct`, it is compared, and all others are passed over."""


def read_published_log(path: str | os.PathLike[str]) -> Run:
    r"""Read a published log: a line with the names of the columns, then one line per image.

    Columns are found by their names, idx, label, predict and radius, in any order and among others; tabs, commas or semicolons stand
    between them. Empty lines, and headers repeated where logs were joined, are passed over.

    Args:
        path: Path of the file. Sigma is taken from it where it says so with a decimal point, as in
            `noise_0.25/test/sigma_0.50`: the innermost `sigma_...` counts, without one the innermost `noise_...`.
            A number without a point is not taken: `sigma_25` is 0.25 to some and 25/255 to others.

    Returns:
        The run, its rows keyed by `idx`. Its settings say what a log says; alpha is None (not stated), and so is sigma
        where the path is silent. A torn last line is dropped.

    Raises:
        RunError: The message names file and line, if the file cannot be read, is no such log, has no finished line, or
            contradicts itself or the sigma of its path.

    >>> from pathlib import Path; from tempfile import mkdtemp
    >>> log = Path(mkdtemp()) / "sigma_0.50"
    >>> _ = log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t1.87\t1\t0:00:17.123456\n")
    >>> run = read_published_log(log)
    >>> run.settings["sigma"], run.rows[0]["radius"]
    (0.5, 1.87)
    """
    file = Path(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{file} cannot be read ({error.strerror}). Pass the path of a published log.") from error
    return published_log_of(file, content)


def published_log_of(file: Path, content: bytes) -> Run:
    """The run in the bytes of a published log, as `read_published_log`."""
    sigma = sigma_of_path(file)
    rows: dict[int, Row] = {}
    for where, fields in _records(file, _text(file, content)):
        row = _parse(fields, where)
        if row["index"] in rows:
            raise RunError(
                f"{where}: every image must have one line, got idx {row['index']} a second time. "
                "Remove one of the two, or split logs that were joined."
            )
        if row["radius"] > MOST_SIGMAS * (sigma or MAX_SIGMA):
            of = f"sigma {sigma}, which the path names," if sigma else f"any sigma up to {MAX_SIGMA:g}"
            raise RunError(
                f"{where}: radius {row['radius']} is larger than {of} can certify. Radii must be in [0, 1] pixel units: divide grey levels of 0..255 by 255; "
                "if the path names another sigma than the log has, rename it."
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
            "rule": {"name": PUBLISHED_LOG},
            "alpha": None,
            "sigma": sigma,
            "num_images": len(rows),
            "rounding": _rounding([row["radius"] for row in rows.values()]),
            "model": {"id": file.as_posix()},
            "dataset": {"id": None},
        },
        rows,
    )


def sigma_of_path(path: str | os.PathLike[str]) -> float | None:
    """The noise level that a path names, or None.

    Args:
        path: Path of a log; made absolute first, so that a bare file name inside `sigma_0.50` will do.

    >>> sigma_of_path("cifar10/noise_0.25/test/sigma_0.50"), sigma_of_path("/logs/noise_1.00.tsv")
    (0.5, 1.0)
    >>> sigma_of_path("/logs/sigma_50") is None, sigma_of_path("/logs/sigma_1.0e-1")
    (True, 0.1)
    """
    text = Path(path).absolute().as_posix()
    for word in ("sigma", "noise"):
        # noise_0.00 names a network that was trained without noise, never the noise of a certificate.
        found = [float(n) for n in re.findall(rf"(?<![A-Za-z0-9]){word}_([0-9]+\.[0-9]+(?:[eE][+-][0-9]+)?)", text)]
        if word == "sigma" and found and found[-1] > MAX_SIGMA:
            raise RunError(
                f"{path}: a path must name sigma in [0, 1] pixel units, at most {MAX_SIGMA:g}, got {found[-1]:g}. Radii and sigma of this log are "
                "in 0..255 grey levels: divide them by 255."
            )
        found = [level for level in found if 0.0 < level <= MAX_SIGMA]
        if found:
            return found[-1]
    return None


def logs_in(folder: Path) -> list[Path]:
    """The published logs directly in a folder, by their first lines."""
    files = sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
    return [file for file in files if _begins_as_log(file)]


def _begins_as_log(file: Path) -> bool:
    try:
        with open(file, "rb") as stream:
            start = stream.readline(1000)
    except OSError:
        return False
    return _is_header(start.decode("utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8", "ignore"))


def _records(file: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line number, its fields by lower-case column name) of each line that has any, without a torn last one."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    whole = lines[-1].strip() == ""  # every line ends with a newline, so nothing was cut off
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise RunError(f"{file} is empty. A published log has a header line, then one line per image.")
    names: list[str] = []
    separator = ""
    for place, (number, line) in enumerate(numbered):
        where = f"{file}, line {number}"
        if not names or _is_header(line):
            separator = next((mark for mark in "\t,;" if mark in line), "\t")
            names = _header(_split(line, separator, where), file, number)
            continue
        fields = _split(line, separator, where)
        last = place == len(numbered) - 1 and not whole
        if last and (len(fields) < len(names) or (names[-1] == "correct" and not fields[-1])):
            return
        if len(fields) != len(names):
            raise RunError(
                f"{where}: {len(names)} columns are required, as in the header, got {len(fields)} in {line[:80]!r}. "
                "Only a torn last line is expected; repair or remove this one."
            )
        if last and names[-1] in COLUMNS:
            raise RunError(
                f"{where} may be cut off in its last column, {names[-1]}: it has no newline at its end. Add one if the line is whole, or remove the line."
            )
        yield where, dict(zip(names, fields, strict=True))


def _text(file: Path, content: bytes) -> str:
    try:
        # What PowerShell writes when output is redirected.
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(
            f"{file} must be a text file, got bytes that are not UTF-8 ({error.reason}). Pass a run folder or a log."
        ) from error


def _split(line: str, separator: str, where: str) -> list[str]:
    try:
        (fields,) = csv.reader([line], delimiter=separator)
    except (csv.Error, ValueError) as error:
        raise RunError(
            f"{where}: its columns are not clear ({error}), got {line[:80]!r}. Repair or remove this line."
        ) from error
    return [field.strip() for field in fields]


def _is_header(line: str) -> bool:
    """Whether a line names columns."""
    words = {word.strip('"').lower() for word in re.split(r"[\t,; ]+", line.lstrip("\ufeff").strip())}
    return words >= set(COLUMNS)


def _header(names: list[str], file: Path, number: int) -> list[str]:
    """The names of the columns in lower case.

    Raises:
        RunError: If those that are read are not there, each once.
    """
    found = [name.lstrip("\ufeff").lower() for name in names]
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise RunError(
            f"{file} is not a run folder, and the header of a published log must name the columns {', '.join(COLUMNS)}; line {number} lacks "
            f"{', '.join(missing)}: {str(names)[:120]}. For a run of this library pass its folder, not a file in it."
        )
    twice = [name for name in COLUMNS if found.count(name) > 1]
    if twice:
        raise RunError(
            f"{file}, line {number}: the column {twice[0]} must be there once, got it {found.count(twice[0])} times."
        )
    return found


TRUTHS = {"true": "1", "false": "0"}
"""Some logs write truth values."""


def _parse(fields: Mapping[str, str], where: str) -> Row:
    index = _integer(fields["idx"], "idx", 0, where)
    label = _integer(fields["label"], "label", 0, where)
    prediction = _integer(fields["predict"], "predict", ABSTAIN, where)
    radius = _radius(fields["radius"], where)
    if prediction == ABSTAIN and radius > 0:
        raise RunError(
            f"{where}: an abstention ({ABSTAIN} under predict) must have radius 0.0, got {radius}. "
            "Correct whichever of the two is wrong."
        )
    expected = str(int(prediction == label))  # an abstention is never equal to a label
    said = fields.get("correct", expected)
    if TRUTHS.get(said.lower(), said) != expected:
        raise RunError(
            f"{where}: correct must be {expected} for label {label} and predict {prediction}, got {fields['correct']!r}. "
            "The log was edited, or its columns are not what the header says: take it from its source again."
        )
    return {"index": index, "label": label, "prediction": prediction, "radius": radius}


def _integer(text: str, name: str, least: int, where: str) -> int:
    # int() alone would also take 1_0 for 10 and 3 in any script of the world.
    if re.fullmatch(r"-?[0-9]{1,18}", text.strip()) is None or int(text) < least:
        raise RunError(
            f"{where}: {name} must be a whole number of at least {least}, got {text!r}. "
            "Check that the columns are what the header says."
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
