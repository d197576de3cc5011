"""An exporter that does what its source says, to see what becomes of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from edgesdk.importers.job import CannotExport, Example, Exported, Job, Layer


def write_model(path: Path, slope: float, opset: int = 17) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "slope"], ["scaled"]),
            helper.make_node("Add", ["scaled", "one"], ["y"]),
        ],
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [
            helper.make_tensor("slope", TensorProto.FLOAT, [], [slope]),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)


def refuse_early(job: Job) -> None:
    if Path(job.source).read_text() == "early":
        raise CannotExport("cannot import it: refused early", hint="no framework", path="other")


def export(job: Job) -> Exported:
    does, _, word = Path(job.source).read_text().partition(" ")
    job.on_step("as told")
    if does == "cannot":
        raise CannotExport(
            f"cannot import {job.name}: told so",
            hint="tell it else",
            why=word,
            path="elsewhere",
        )
    if does == "bug":
        raise ValueError("never thought of it")
    if does == "exit":
        os._exit(int(word))
    if does == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if does == "hang":
        time.sleep(600)
    if does == "eat":
        held = []
        while True:
            held.append(np.ones(1 << 24))
    if does == "fork" and os.fork() == 0:
        time.sleep(600)  # with our stdout open
    if does == "rewritten":
        Path(job.source).write_text("fine")
    if does == "noise":
        print('{"step": "not ours"}\n' + "x" * 100_000)
    model = job.out / "made.onnx"
    if does == "linked":
        write_model(Path(job.source).with_name("elsewhere.onnx"), 2.0)
        model.symlink_to(Path(job.source).with_name("elsewhere.onnx"))
    elif does != "gone":
        write_model(model, 2.0, job.opset or 17)
    xs = [np.full((1, 3), each, np.float32) for each in (1.0, -2.0)]
    slope = 2.5 if does == "wrong" else 2.0
    layers: tuple[Layer, ...] = ()
    if job.trace:
        layers = (
            Layer(name="gone", tensor="fused away", value=xs[0]),
            Layer(name="scale", tensor="scaled", value=slope * xs[0]),
            Layer(name="shift", tensor="y", value=slope * xs[0] + 1),
        )
    return Exported(
        model=model,
        opset=job.opset or 17,
        versions={"told": "1.0"},
        examples=tuple(
            Example(inputs={"x": x}, outputs={"y": slope * x + np.float32(1)})
            for x in xs[: 0 if does == "unproven" else 2]
        ),
        layers=layers,
        notes=("shapes " + repr(dict(job.shapes)),) if does == "noted" else (),
    )
