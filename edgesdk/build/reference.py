"""Run a model on this computer: the float reference, and what a part is expected to answer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgesdk.errors import BuildError, CompileError
from edgesdk.model.save import save_model
from edgesdk.quantize.host import sums_saturate

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "ChainOnHost",
    "HostModel",
    "OnnxOnHost",
    "TfliteOnHost",
    "open_part",
    "open_reference",
]


#: See the agent's runtime module of onnxruntime.
_NOT_AS_WRITTEN = ["WeightBiasQuantization"]


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

    Args:
        path: The file.
        as_written: What the graph leaves in float stays in float, as in the agent's option of
            that name, and what it quantizes is computed in integers, signed ones too; for a
            graph that was laid out for another runtime.
    """

    def __init__(self, path: Path, *, as_written: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        if as_written:
            # on x86 only unsigned activations go to integer kernels unless this is said; sums
            # in float fall on the other side of a rounding now and then, and every layer
            # behind makes more of it
            options.add_session_config_entry("session.qdqisint8allowed", "1")
        if sums_saturate():
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_NOT_AS_WRITTEN if as_written else None,
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
    """OpenVINO IR in this computer's OpenVINO, on the CPU in float32, with one thread.

    Args:
        path: The file; its weights lie beside it.
        outputs: What its outputs are called, in their order. A tensor may go by several names
            there; left out, any of them is given.
    """

    def __init__(self, path: Path, outputs: Sequence[str] = ()) -> None:
        import openvino

        self._names = tuple(outputs)
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
        names = self._names
        if len(names) != len(self._model.outputs):
            names = tuple(output.get_any_name() for output in self._model.outputs)
        return {name: results[number].copy() for number, name in enumerate(names)}


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
        import numpy as np

        interpreter = self._interpreter
        try:
            for detail in interpreter.get_input_details():
                array = inputs[detail["name"]]
                if array.dtype == detail["dtype"]:
                    # numpy has two names for int64 on some systems; LiteRT knows one of them
                    array = array.view(detail["dtype"])
                interpreter.set_tensor(detail["index"], array)
            interpreter.invoke()
        except (ValueError, RuntimeError, KeyError) as exc:
            raise BuildError(
                f"cannot run the model on this computer: {_one_line(exc)}",
                hint="do the data fit the model's inputs?",
            ) from exc
        return {
            # of a tensor without dimensions it gives a bare number
            detail["name"]: np.array(interpreter.get_tensor(detail["index"]))
            for detail in interpreter.get_output_details()
        }


class ChainOnHost:
    """Parts one after the other; values go from part to part by name.

    Args:
        parts: Each with the names of its inputs.
        outputs: Names of what the chain gives; what else goes from part to part is its own.
    """

    def __init__(
        self, parts: Sequence[tuple[HostModel, Sequence[str]]], outputs: Sequence[str]
    ) -> None:
        self._parts = tuple(parts)
        self._outputs = tuple(outputs)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give the outputs by name."""
        values = dict(inputs)
        for part, names in self._parts:
            values.update(part.run({name: values[name] for name in names}))
        return {name: values[name] for name in self._outputs}


def open_part(path: Path, runtime: str, outputs: Sequence[str] = ()) -> HostModel:
    """Open a part in the runtime that will load it, as far as this computer has that.

    Another runtime is expected to give what onnxruntime gives, to a quantization step: the Q/DQ
    graph says what each number is.

    Args:
        path: The file.
        runtime: What will load it.
        outputs: What its outputs are called, in their order, for formats that may rename them.

    Raises:
        CompileError: The runtime cannot load it.
    """
    if path.suffix == ".tflite":
        return TfliteOnHost(path)
    if path.suffix == ".xml":
        return OpenvinoOnHost(path, outputs)
    return OnnxOnHost(path, as_written=runtime != "onnxruntime")


@contextlib.contextmanager
def open_reference(model: ir.Model, *, as_written: bool = False) -> Iterator[HostModel]:
    """Open a graph in one piece on this computer, as the reference for what is built of it.

    Args:
        model: The float model, or the Q/DQ graph of which parts were made.
        as_written: See `OnnxOnHost`.

    Raises:
        CompileError: onnxruntime cannot load it.
    """
    with tempfile.TemporaryDirectory(prefix="edgesdk-reference-") as scratch:
        path = save_model(model, Path(scratch), "reference")[0]
        yield OnnxOnHost(path, as_written=as_written)


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:400]
