"""A report as one HTML file that needs no server, no network and no further file.

`Page` is what it says, `write` makes the file, `conclude` the sentences it begins with.
"""

from lgd.report.conclusion import Conclusion, conclude
from lgd.report.content import AXES, Page, Samples, Weights
from lgd.report.page import MAX_BYTES, render, write

__all__ = [
    "AXES",
    "MAX_BYTES",
    "Conclusion",
    "Page",
    "Samples",
    "Weights",
    "conclude",
    "render",
    "write",
]
