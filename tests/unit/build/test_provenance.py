"""What a bundle records of the computer and the packages it was made with."""

from __future__ import annotations

from edgesdk.build.provenance import tool_versions


def test_openvino_is_recorded_only_where_it_is_the_runtime() -> None:
    assert "openvino" not in tool_versions()
    assert "openvino" not in tool_versions(["onnxruntime"])
    with_it = tool_versions(["openvino"])
    assert {name: with_it[name] for name in tool_versions()} == tool_versions()
    assert with_it["openvino"]
