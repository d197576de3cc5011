"""The published schema describes what is written, and refuses what is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, get_args

import jsonschema
import pytest

from edgesdk.bench.values import VERDICTS, BenchmarkReport, Verdict
from edgesdk.report.files import encode_report
from edgesdk.report.schema import report_schema
from tests.unit.report.fixtures import make_contest, make_sample_report, vary


def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(report_schema())
    return jsonschema.Draft202012Validator(report_schema())


def document(report: BenchmarkReport | None = None) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(encode_report(report or make_sample_report()))
    return loaded


@pytest.mark.parametrize(
    "report",
    [
        make_sample_report(),
        vary(baseline=None, deployment=None, started=None),
        vary(contest=make_contest()),
    ],
)
def test_a_written_report_keeps_the_schema(report: BenchmarkReport) -> None:
    validator().validate(document(report))


def test_the_contract_of_scripts_is_there() -> None:
    promised = {
        "schema",
        "model",
        "target",
        "device",
        "bundle",
        "parts",
        "deployment",
        "latency",
        "cold_start_ms",
        "load_ms",
        "throughput_per_s",
        "peak_rss_bytes",
        "conditions",
        "placement",
        "accuracy",
        "verdict",
        "spec",
        "baseline",
    }
    schema = report_schema()
    assert promised <= set(schema["required"])
    assert set(schema["required"]) == set(schema["properties"])
    latency = schema["$defs"]["Latency"]["required"]
    assert {"samples_ms", "p50_ms", "p90_ms", "p99_ms", "why", "intervals"} <= set(latency)
    placement = schema["$defs"]["Placement"]["required"]
    assert set(placement) == {"predicted", "as_built", "actual"}


def test_verdicts_are_an_enum_with_meanings() -> None:
    verdict = report_schema()["properties"]["verdict"]
    assert verdict["enum"] == list(get_args(Verdict))
    for code, meaning in VERDICTS.items():
        assert f"{code}: {meaning}" in verdict["description"]


def test_how_a_device_is_reached_and_what_a_model_file_is_are_enums() -> None:
    kinds = report_schema()["$defs"]
    assert kinds["DeploymentRecord"]["properties"]["path"]["enum"] == [
        "local",
        "ssh",
        "serial",
        "virtual",
    ]
    model_format = kinds["ModelRecord"]["properties"]["format"]
    assert model_format["anyOf"][0]["enum"] == ["onnx", "tflite"]


def drop(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda doc: doc.pop(name)


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(doc: Any) -> None:
        for step in path[:-1]:
            doc = doc[step]
        doc[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        drop("verdict"),
        drop("baseline"),
        put("extra", value=1),
        put("verdict", value="fine"),
        put("schema", value="edgesdk.report/2"),
        put("created", value="yesterday"),
        put("throughput_per_s", value=-1),
        put("latency", "samples_ms", value=["1"]),
        put("latency", "samples_ms", value=[-1.0]),
        put("latency", "why", value={"p42_ms": "no"}),
        put("latency", "intervals", "p50_ms", "coverage", value=1.5),
        put("bundle", "id", value="abc"),
        put("bundle", "bytes", value=1.5),
        put("spec", "runs", value=-1),
        put("accuracy", "labelled", "where", value="moon"),
        put("accuracy", "labelled", "kind", value="feeling"),
        put("parts", 0, "detail", value={"a": {"b": 1}}),
        put("conditions", "samples", 0, "temp_c", value={"cpu": "hot"}),
        put("placement", "actual", value=None),
        put("contest", value={}),
    ],
)
def test_what_is_not_a_report_breaks_the_schema(
    change: Callable[[dict[str, Any]], Any],
) -> None:
    broken = copy.deepcopy(document())
    change(broken)
    assert list(validator().iter_errors(broken))


def test_every_field_that_needs_words_has_them() -> None:
    text = json.dumps(report_schema())
    assert "needs no overlap" not in text
    assert "counted runs by their summed" in text
    assert report_schema()["$schema"].startswith("https://json-schema.org/")
