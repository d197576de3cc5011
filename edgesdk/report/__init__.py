"""Benchmark reports as files: JSON with a published schema, HTML, Markdown, JUnit."""

from __future__ import annotations

from edgesdk.report.files import WrittenReport, write_report
from edgesdk.report.html import render_html
from edgesdk.report.read import read_report
from edgesdk.report.schema import report_schema

__all__ = ["WrittenReport", "read_report", "render_html", "report_schema", "write_report"]
