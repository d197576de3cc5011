"""Measure a bundle on a device: latency with its uncertainty, conditions, accuracy, verdict."""

from __future__ import annotations

from edgesdk.bench.assemble import assemble_report, make_baseline
from edgesdk.bench.benchmark import run_benchmark
from edgesdk.bench.compare import compare_bundles
from edgesdk.bench.compare_values import Comparison
from edgesdk.bench.run import take_measurements
from edgesdk.bench.values import BenchmarkReport, BenchSpec

__all__ = [
    "BenchSpec",
    "BenchmarkReport",
    "Comparison",
    "assemble_report",
    "compare_bundles",
    "make_baseline",
    "run_benchmark",
    "take_measurements",
]
