"""What a report says of a model's origin, whatever a manifest holds."""

from __future__ import annotations

import pytest

from edgesdk.bench.origin_values import read_origin
from edgesdk.report.origin import origin_facts, origin_text

RECORD = {
    "format": "torch-export",
    "sha256": "ab" * 32,
    "versions": {"onnx": "1.2", "onnx-ir": "1.1", "onnxscript": "0.7", "torch": "2.13"},
    "toolchain": "torch 0123",
    "examples": 3,
    "max_abs_error": 6e-8,
    "max_rel_error": 1e-7,
    "trusted": True,
    "notes": ["half became float"],
}


def test_every_package_is_named_the_framework_too() -> None:
    origin = read_origin(RECORD)
    assert origin is not None
    assert origin_text(origin) == (
        "torch-export (onnx 1.2, onnx-ir 1.1, onnxscript 0.7, torch 2.13); within 1e-07 of the "
        "largest value on 3 examples"
    )
    assert dict(origin_facts(origin))["its code"] == "was let run"


def test_what_was_not_compared_says_so() -> None:
    origin = read_origin(
        {**RECORD, "examples": 0, "max_abs_error": None, "max_rel_error": None}
    )
    assert origin is not None
    assert origin_text(origin).endswith("not compared with it")
    assert origin_facts(None) == []


@pytest.mark.parametrize("name", ["format", "sha256", "toolchain"])
def test_text_that_is_none_can_still_be_written(name: str) -> None:
    origin = read_origin({**RECORD, name: "a\ud800\x1b[2J", "notes": ["\ud800"]})
    assert origin is not None
    assert f"{getattr(origin, name)}{origin.notes}".encode()
    assert "\x1b" not in getattr(origin, name)


def test_a_manifest_that_says_nonsense_is_read_as_saying_nothing() -> None:
    origin = read_origin(
        {"format": 1, "versions": [], "examples": 10**400, "max_abs_error": True, "notes": "x"}
    )
    assert origin is not None
    assert (origin.format, origin.versions, origin.examples) == ("", {}, 0)
    assert origin.max_abs_error is None
    assert origin.notes == ()
    many = read_origin({"versions": {str(number): "1" for number in range(99)}})
    assert many is not None
    assert len(many.versions) == 20


def test_no_record_is_no_origin() -> None:
    assert read_origin({}) is None
