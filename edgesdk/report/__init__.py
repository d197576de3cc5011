"""Benchmark reports as files: ``report.json`` with a published schema, ``report.html``."""
