"""Calibration and labelled data: readers, preprocessing, checks and metrics.

Both columns of the program use this package: the build side to calibrate and to make check
vectors, the device side to evaluate. It imports numpy and Pillow only where they are used.
"""

from __future__ import annotations

from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.data.metrics import Difference, Score, compare, score_outputs
from edgesdk.data.preprocess import Preprocess
from edgesdk.data.range_check import lint_range, lint_ranges, measure_ranges
from edgesdk.data.values import DataFinding, InputRange

__all__ = [
    "DataFinding",
    "Dataset",
    "Difference",
    "InputRange",
    "Preprocess",
    "Score",
    "compare",
    "lint_range",
    "lint_ranges",
    "measure_ranges",
    "open_dataset",
    "score_outputs",
]
