"""What a workshop keeps from one placement to the next: a part that comes again as it was."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx import parser

from edgesdk.backends.base import CompiledPart, PartJob, RuleBackend
from edgesdk.build.parts import Workshop
from edgesdk.build.split import CutPart
from edgesdk.model.save import save_model
from edgesdk.plan.placing import PlacedPart
from edgesdk.profiles import find_target
from edgesdk.tensors import TensorInfo

PART = PlacedPart(backend="first", nodes=(0, 1), reads=("x",), gives=("y",), boundary_bytes=0)


def cut(*outputs: str) -> CutPart:
    """The same nodes, of whose values others read ``outputs``."""
    given = ", ".join(f"float[4] {name}" for name in outputs)
    text = f'<ir_version: 8, opset_import: ["": 17]> m (float[4] x) => ({given}) '
    model = parser.parse_model(text + "{ y = Relu (x)  z = Abs (y) }")
    return CutPart(
        model=ir.from_proto(model),
        inputs=(TensorInfo(name="x", dtype="float32", shape=(4,)),),
        outputs=tuple(TensorInfo(name=name, dtype="float32", shape=(4,)) for name in outputs),
    )


def test_a_part_that_has_to_give_more_than_before_is_compiled_again(tmp_path: Path) -> None:
    rooms: list[Path] = []

    def compiler(job: PartJob) -> CompiledPart:
        assert job.model is not None
        rooms.append(job.folder)
        return CompiledPart(
            files={"model": save_model(job.model, job.folder, "part")[0]}, format="onnx"
        )

    profile = find_target("host")
    backend = RuleBackend(
        profile=profile.backends[0], format="onnx", rules=(), compiler=compiler
    )
    shop = Workshop(
        profile=profile,
        backends={"first": backend},
        precision="fp32",
        folder=tmp_path,
        on_note=lambda _: None,
    )
    built = [shop.build(0, PART, each, "fp32") for each in (cut("y"), cut("y"), cut("y", "z"))]
    assert len(set(rooms)) == len(rooms) == 2, "what comes again as it was is not compiled"
    sample = {"x": ir.tensor([1.0, -2.0, 3.0, 4.0], dtype=ir.DataType.FLOAT).numpy()}
    assert [[] if part.host is None else sorted(part.host.run(sample)) for part in built] == [
        ["y"],
        ["y"],
        ["y", "z"],
    ]
