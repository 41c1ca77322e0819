"""Run folders: what was asked (`run.json`) and one line per item that is done (`certificates-<rank>.jsonl`)."""

from hf_smoothing.records.causes import network_differences
from hf_smoothing.records.json_files import differences, read_json, replace_file, write_json
from hf_smoothing.records.keeping import keep_run
from hf_smoothing.records.names import deciding, plain_name
from hf_smoothing.records.reading import (
    FORMAT,
    ROW_PATTERN,
    RUN_FILE,
    Row,
    Run,
    RunError,
    check_method,
    check_settings,
    read_run,
    read_settings,
)
from hf_smoothing.records.shape import METHODS
from hf_smoothing.records.writing import RunWriter, check_writable, lock_folder, write_settings


__all__ = [
    "FORMAT",
    "METHODS",
    "ROW_PATTERN",
    "RUN_FILE",
    "Row",
    "Run",
    "RunError",
    "RunWriter",
    "check_method",
    "check_settings",
    "check_writable",
    "deciding",
    "differences",
    "keep_run",
    "lock_folder",
    "network_differences",
    "plain_name",
    "read_json",
    "read_run",
    "read_settings",
    "replace_file",
    "write_json",
    "write_settings",
]
