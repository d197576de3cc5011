"""Run a model on this computer: the float reference, and what a part is expected to answer."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgesdk.errors import BuildError, CompileError
from edgesdk.model.save import save_model
from edgesdk.quantize.host import sums_saturate

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["HostModel", "OnnxOnHost", "TfliteOnHost", "open_part", "open_reference"]


class HostModel(Protocol):
    """A model that answers on this computer."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give every output by name.

        Raises:
            BuildError: The runtime refuses the inputs.
        """


class OnnxOnHost:
    """An ONNX file in this computer's onnxruntime.

    One thread, so that what is written into a bundle does not depend on the core count. Where
    this CPU's 8-bit sums saturate, the optimizer is off: Q/DQ nodes then compute in float,
    which is exact to a quantization step on any CPU. (onnxruntime's own precise mode for such
    CPUs, ``session.x64quantprecision``, fails in 1.32 on weights that two nodes share.)
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if sums_saturate():
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:
            raise CompileError(
                f"cannot load {path.name} in onnxruntime {onnxruntime.__version__}: "
                f"{_one_line(exc)}",
                hint="does the model load in onnxruntime as it is? with --shape, do all its "
                "branches take these extents?",
            ) from exc
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give every output by name."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as exc:
            raise BuildError(
                f"cannot run the model on this computer: {_one_line(exc)}",
                hint="do the calibration data fit the model's inputs?",
            ) from exc
        return dict(zip(self._outputs, values, strict=True))


class OpenvinoOnHost:
    """An ONNX file in this computer's OpenVINO, on the CPU in float32, with one thread."""

    def __init__(self, path: Path) -> None:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        try:
            self._model = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as exc:
            raise CompileError(
                f"cannot load {path.name} in OpenVINO {openvino.__version__}: {_one_line(exc)}",
                hint="leave this backend out with `avoid` in a recipe",
            ) from exc

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give every output by name."""
        try:
            results = self._model(dict(inputs))
        except RuntimeError as exc:
            raise BuildError(
                f"cannot run the model on this computer: {_one_line(exc)}",
                hint="do the calibration data fit the model's inputs?",
            ) from exc
        return {output.get_any_name(): results[output].copy() for output in self._model.outputs}


class TfliteOnHost:
    """A TFLite file in this computer's LiteRT, ``plain`` without the XNNPACK delegate."""

    def __init__(self, path: Path, *, plain: bool = False) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as exc:
            raise CompileError(
                "cannot run a TFLite model on this computer: ai-edge-litert is not installed",
                hint="install it: python3 -m pip install 'edgesdk[litert]'",
            ) from exc
        try:
            kernels = OpResolverType.AUTO
            if plain:
                kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            self._interpreter: Any = Interpreter(
                model_path=str(path), num_threads=1, experimental_op_resolver_type=kernels
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as exc:
            raise CompileError(f"cannot load {path.name} in LiteRT: {_one_line(exc)}") from exc

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give every output by name."""
        interpreter = self._interpreter
        try:
            for detail in interpreter.get_input_details():
                interpreter.set_tensor(detail["index"], inputs[detail["name"]])
            interpreter.invoke()
        except (ValueError, RuntimeError, KeyError) as exc:
            raise BuildError(
                f"cannot run the model on this computer: {_one_line(exc)}",
                hint="do the data fit the model's inputs?",
            ) from exc
        return {
            detail["name"]: interpreter.get_tensor(detail["index"]).copy()
            for detail in interpreter.get_output_details()
        }


def open_part(path: Path, runtime: str) -> HostModel:
    """Open an ONNX part in the runtime that will load it, as far as this computer has that.

    Another runtime is expected to give what onnxruntime gives, to a quantization step: the Q/DQ
    graph says what each number is.

    Raises:
        CompileError: The runtime cannot load it.
    """
    if runtime == "openvino" and importlib.util.find_spec("openvino") is not None:
        return OpenvinoOnHost(path)
    return OnnxOnHost(path)


@contextlib.contextmanager
def open_reference(model: ir.Model) -> Iterator[HostModel]:
    """Open the float model itself on this computer, as the reference for everything built.

    Raises:
        CompileError: onnxruntime cannot load it.
    """
    with tempfile.TemporaryDirectory(prefix="edgesdk-reference-") as scratch:
        yield OnnxOnHost(save_model(model, Path(scratch), "reference")[0])


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:400]
