"""Calibration and labelled data: readers, preprocessing, checks and metrics.

Both columns of the program use this package: the build side to calibrate and to make check
vectors, the device side to evaluate. It imports numpy and Pillow only where they are used.
"""

from __future__ import annotations

from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.data.preprocess import Preprocess
from edgesdk.data.values import DataFinding, InputRange

__all__ = ["DataFinding", "Dataset", "InputRange", "Preprocess", "open_dataset"]
