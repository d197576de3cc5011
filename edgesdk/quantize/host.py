"""onnxruntime on this computer, as the quantizer uses it: quiet, and from a graph in memory."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.errors import QuantizeError
from edgesdk.model.save import SINGLE_FILE_BYTES, model_bytes, save_model

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["HostSession", "cpu_flags", "give_memory_back", "sums_saturate"]

#: Graphs with smaller weights are given to a session without a file.
_AS_BYTES = 1 << 20

Arrays = dict[str, "np.ndarray"]


class HostSession:
    """A graph in onnxruntime on this computer.

    Args:
        model: The graph; it stays as it is.
        optimize: ``extended`` fuses Q/DQ pairs into 8-bit kernels; ``all`` changes layouts for
            speed as well; ``off`` computes Q/DQ pairs in float, exactly as the graph says.
        threads: None for one per core.
        optimized: Where to write the graph as the runtime will run it.
        signed: Make kernels for int8 activations as on Arm; on x86 the runtime turns those it
            can to uint8, and computes in float around a tensor that several nodes read.

    Raises:
        QuantizeError: The runtime does not load the graph.
    """

    def __init__(
        self,
        model: onnx_ir.Model,
        *,
        optimize: str = "all",
        threads: int | None = None,
        optimized: Path | None = None,
        signed: bool = False,
    ) -> None:
        import onnxruntime as ort

        levels = {
            "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
            "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
            "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        }
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = levels[optimize]
        options.intra_op_num_threads = threads or _threads()
        # runs are short and far between: spinning threads only disturb what is in between
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        if signed:
            options.add_session_config_entry("session.qdqisint8allowed", "1")
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        with tempfile.TemporaryDirectory(prefix="edgesdk-quantize-") as folder:
            source = _source(model, Path(folder))
            try:
                self._session: Any = ort.InferenceSession(
                    source, options, providers=["CPUExecutionProvider"]
                )
            except Exception as exc:
                raise QuantizeError(
                    f"cannot load {model.graph.name or 'the model'} in onnxruntime "
                    f"{ort.__version__}: {one_line(exc)}",
                    hint="does the model load in onnxruntime as it is?",
                ) from exc
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(
        self, inputs: Mapping[str, np.ndarray], names: Sequence[str] | None = None
    ) -> Arrays:
        """Give outputs by name; all of them unless ``names`` says which.

        Raises:
            QuantizeError: The runtime refuses the inputs.
        """
        wanted = list(self.outputs if names is None else names)
        try:
            values = self._session.run(wanted, dict(inputs))
        except Exception as exc:
            raise QuantizeError(
                f"cannot run the model on this computer: {one_line(exc)}",
                hint="do the calibration data fit the model's inputs?",
            ) from exc
        return dict(zip(wanted, values, strict=True))


def give_memory_back() -> None:
    """Return freed memory to the system, where the C library can (glibc's malloc_trim).

    Sessions come and go here; what they leave behind in the heap would count as ours.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def one_line(exc: BaseException) -> str:
    """Give an exception's text on one line, not longer than a screen's few."""
    return " ".join(str(exc).split())[:400]


def cpu_flags() -> set[str]:
    """Give the CPU's features as /proc/cpuinfo names them; empty without such a file."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("flags", "features"):
                return set(value.split())
    return set()


def sums_saturate() -> bool:
    """Say whether this CPU adds products of 8-bit numbers in 16 bits, which may overflow.

    That is x86 without VNNI (``vpmaddubsw``); see
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
    """
    exact = {"avx512_vnni", "avx_vnni", "amx_int8"}
    return platform.machine() in ("x86_64", "AMD64") and exact.isdisjoint(cpu_flags())


def _source(model: onnx_ir.Model, folder: Path) -> bytes | str:
    """Give a graph to a session: as bytes where it is small, else as a file.

    A session made from bytes holds on to them for as long as it lives
    (onnxruntime_inference_collection.py says so itself).
    """
    size = _weight_bytes(model)
    if size > SINGLE_FILE_BYTES:
        return str(save_model(model, folder, "model")[0])
    data = _bytes(model)
    if size <= _AS_BYTES:
        return data
    path = folder / "model.onnx"
    path.write_bytes(data)
    return str(path)


def _bytes(model: onnx_ir.Model) -> bytes:
    """Serialize without the copy that reading external weights in takes, if there are none."""
    import onnx_ir as ir

    values = model.graph.initializers.values()
    if any(isinstance(value.const_value, ir.ExternalTensor) for value in values):
        return model_bytes(model)
    try:
        data: bytes = ir.serde.serialize_model(model).SerializeToString()
    except ValueError:  # a tensor of a body is external, or the message too large
        return model_bytes(model)
    return data


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _weight_bytes(model: onnx_ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
