"""Run a converted graph in onnxruntime, as it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.errors import CompileError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["OnnxRuns"]


class OnnxRuns:
    """A graph in onnxruntime, its optimizer off: pairs of quantizers round in float.

    Args:
        model: The graph.
        change: Changes what is loaded.

    Raises:
        CompileError: onnxruntime does not load it.
    """

    def __init__(
        self, model: ir.Model, *, change: Callable[[onnx.ModelProto], None] | None = None
    ) -> None:
        import onnx
        import onnxruntime

        from edgesdk.model.save import model_bytes

        data = model_bytes(model)
        if change is not None:
            proto = onnx.ModelProto.FromString(data)
            change(proto)
            data = proto.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
        try:
            self._session: Any = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            raise _not_run(exc) from exc

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Give the values called ``names``.

        Raises:
            CompileError: onnxruntime fails.
        """
        try:
            values: list[np.ndarray] = self._session.run(list(names), dict(inputs))
        except Exception as exc:
            raise _not_run(exc) from exc
        return values


def _not_run(exc: Exception) -> CompileError:
    return CompileError(
        "cannot prove the import: onnxruntime does not run the converted graph: "
        f"{' '.join(str(exc).split())[:400]}",
        hint="please report it",
    )
