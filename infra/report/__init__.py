"""The report of one run of the main job: its model, its figures drawn and written down, its files."""

from infra.report.files import load, save
from infra.report.memory import MemorySampler, memory_of
from infra.report.model import Report, ReportUnreadable, from_json, to_json
from infra.report.table import print_report

__all__ = [
    "MemorySampler",
    "Report",
    "ReportUnreadable",
    "from_json",
    "load",
    "memory_of",
    "print_report",
    "save",
    "to_json",
]
