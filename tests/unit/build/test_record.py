"""What a manifest says of a part: the recipe holds for what serves instead of it, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgesdk.backends.base import CompiledPart, RuleBackend
from edgesdk.build.parts import BuiltPart
from edgesdk.build.record import part_record
from edgesdk.bundle import BundleWriter
from edgesdk.plan import load_recipe
from edgesdk.profiles import find_target


def test_fallbacks_keep_to_the_recipe(tmp_path: Path) -> None:
    target = find_target("jetson-agx-orin-32gb")
    model = tmp_path / "model.onnx"
    model.write_bytes(b"a model")
    part = BuiltPart(
        backend=RuleBackend(profile=target.backends[0], format="onnx", rules=()),
        compiled=CompiledPart(files={"model": model}, format="onnx"),
        precision="fp32",
        inputs=(),
        outputs=(),
        host=None,
    )
    recipe = replace(load_recipe(None), avoid=("ort-cuda",), threads=3)
    with BundleWriter(tmp_path / "out") as writer:
        record = part_record(part, 0, target=target, recipe=recipe, writer=writer)
    assert record["options"]["threads"] == 3
    assert record["fallbacks"] == [
        {
            "backend": "ort-cpu",
            "runtime": "onnxruntime",
            "options": {**target.backends[-1].options, "as_written": True, "threads": 3},
        }
    ]
