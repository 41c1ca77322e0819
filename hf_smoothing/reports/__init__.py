"""Tables and curves from run folders and from published logs."""

from hf_smoothing.reports.curves import plot
from hf_smoothing.reports.images import PixelsOf
from hf_smoothing.reports.measured import Measured, columns, measure
from hf_smoothing.reports.page import report
from hf_smoothing.reports.published import read_published_log
from hf_smoothing.reports.tables import table


__all__ = ["Measured", "PixelsOf", "columns", "measure", "plot", "read_published_log", "report", "table"]
