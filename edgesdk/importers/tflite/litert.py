"""Ask LiteRT for its answers to a TFLite file, for every tensor if need be.

The only module here that imports the runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.errors import CompileError
from edgesdk.importers.tflite.held import content_of, grid_of, real_numbers

if TYPE_CHECKING:
    from edgesdk.model.tflite_graph import TfliteGraph

__all__ = ["LiteRT", "litert_version", "made_float"]


def litert_version() -> str | None:
    """Give the version of this computer's LiteRT; None where there is none."""
    import importlib.metadata
    import importlib.util

    if importlib.util.find_spec("ai_edge_litert") is None:
        return None
    try:
        return importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError:
        return ""


class LiteRT:
    """A file in LiteRT, one thread.

    Args:
        data: The file.
        keeps: Keep what every operator gives, for `tensor`; without a delegate.
        shapes: Of the inputs, where others than the file states.

    Raises:
        CompileError: LiteRT does not load it.
    """

    def __init__(
        self,
        data: bytes,
        *,
        keeps: bool = False,
        shapes: Sequence[tuple[int, ...]] = (),
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kernels = OpResolverType.AUTO
        if keeps:
            kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            self._interpreter: Any = Interpreter(
                model_content=data,
                num_threads=1,
                experimental_op_resolver_type=kernels,
                experimental_preserve_all_tensors=keeps,
            )
            details = self._interpreter.get_input_details()
            for detail, shape in zip(details, shapes, strict=bool(shapes)):
                if tuple(detail["shape"]) != tuple(shape):
                    self._interpreter.resize_tensor_input(detail["index"], list(shape))
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as exc:
            raise CompileError(
                f"cannot prove the import: LiteRT does not load the file: {_one_line(exc)}",
                hint="does it run anywhere? convert it again with a current converter",
            ) from exc

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Give the outputs in the file's order, from a state of zeros.

        Raises:
            CompileError: A kernel fails.
        """
        interpreter = self._interpreter
        try:
            interpreter.reset_all_variables()
            for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
                # numpy has two names for int64 on some systems; LiteRT knows one of them
                interpreter.set_tensor(detail["index"], array.view(detail["dtype"]))
            interpreter.invoke()
            return [
                np.array(interpreter.get_tensor(detail["index"]))
                for detail in interpreter.get_output_details()
            ]
        except (ValueError, RuntimeError) as exc:
            raise CompileError(
                f"cannot prove the import: LiteRT does not run the file: {_one_line(exc)}"
            ) from exc

    def shapes(self) -> dict[int, tuple[int, ...]]:
        """Give the shape of every tensor, by index, after a run on zeros.

        Raises:
            CompileError: A kernel fails.
        """
        details = self._interpreter.get_input_details()
        self.run([np.zeros(detail["shape"], detail["dtype"]) for detail in details])
        return {
            int(detail["index"]): tuple(map(int, detail["shape"]))
            for detail in self._interpreter.get_tensor_details()
        }

    def tensor(self, index: int) -> np.ndarray | None:
        """Give what tensor ``index`` held after the last run; None where it is not kept."""
        try:
            return np.array(self._interpreter.get_tensor(index))
        except (ValueError, RuntimeError):
            return None


def made_float(graph: TfliteGraph, operators: Collection[int]) -> bytes:
    """Give the file with the 8-bit weights of some operators stored in float32.

    LiteRT then computes them in float, on the very same weights.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(graph.data, 0)
    body = model.subgraphs[0]
    constants = {
        index
        for at in operators
        for index in graph.ops[at].inputs
        if index >= 0 and graph.tensors[index].constant is not None
    }
    for index in sorted(constants):
        grid, data = grid_of(graph.tensors[index]), content_of(graph, index)
        if grid is None or data is None:
            continue
        content = np.frombuffer(real_numbers(data, grid).astype("<f4").tobytes(), np.uint8)
        tensor = body.tensors[index]
        tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
        tensor.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT(data=content))
    builder = flatbuffers.Builder(len(graph.data) * 5)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:400]
