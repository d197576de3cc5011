"""Running a TensorRT engine: memory on the device, a stream, and what each layer took."""

from __future__ import annotations

import json
import statistics
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.engines import fingerprint_id
from edge_agent.runtimes import cuda
from edge_agent.runtimes.base import OpRecord, Part, Profiling, RuntimeFailed, op_record

__all__ = ["TensorrtPart", "deserialize", "package", "read_file"]


def package() -> Any:
    """Import TensorRT's own package.

    Raises:
        RuntimeFailed: It is not here, or too old to be asked by tensor names.
    """
    try:
        import tensorrt
    except Exception as exc:
        raise RuntimeFailed("{}: {}".format(type(exc).__name__, exc)) from exc
    if not hasattr(getattr(tensorrt, "ICudaEngine", None), "get_tensor_name"):
        raise RuntimeFailed(
            "tensorrt {} is older than 8.5".format(getattr(tensorrt, "__version__", "?"))
        )
    return tensorrt


def read_file(path: str) -> bytes:
    """All bytes of a file."""
    with open(path, "rb") as stream:
        return stream.read()


def deserialize(tensorrt: Any, data: bytes, dla_core: Optional[int]) -> Tuple[Any, Any]:
    """Make an engine out of its bytes; what comes with it has to live as long.

    Raises:
        RuntimeFailed: TensorRT refuses it.
    """
    said = []  # type: List[str]

    class Listener(tensorrt.ILogger):  # type: ignore[name-defined,misc]  # a class found at run time
        """Keeps what TensorRT complains of, which it says to its logger only."""

        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                said.append(str(message))

    logger = Listener()
    runtime = tensorrt.Runtime(logger)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        why = "; ".join(said[-2:]) or "it does not say why"
        raise RuntimeFailed("TensorRT refuses the engine: {}".format(why)[:600])
    return engine, (runtime, logger)


class _Binding:
    """One input or output: its name, type and memory on the device."""

    def __init__(self, name: str, dtype: Any, shape: Tuple[int, ...], address: int) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.address = address


class TensorrtPart(Part):
    """An engine with a context, a stream, and device memory for every input and output."""

    def __init__(self, record: Dict[str, Any], part: Dict[str, Any], device: cuda.Cuda) -> None:
        super().__init__(part)
        self._package = package()
        self._device = device
        self._record = record
        wanted = record["fingerprint"]
        self._dla = wanted["dla_core"]
        # the runtime and its logger have to live as long as the engine
        self._engine, self._kept = deserialize(
            self._package, read_file(record["path"]), self._dla
        )
        self._context = self._new_context()
        self._stream = device.stream()
        self._manifest = {value["name"]: value for value in part["inputs"] + part["outputs"]}
        self._inputs, self._outputs = self._bind_all()

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            raise RuntimeFailed("TensorRT gives no context for the engine: is memory short?")
        return context

    def _bind_all(self) -> Tuple[List[_Binding], List[_Binding]]:
        import numpy as np

        engine, package = self._engine, self._package
        offered = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        found = []
        for names in (self.input_names, self.output_names):
            group = []
            for name in names:
                if name not in offered:
                    raise RuntimeFailed("the engine has no tensor {!r}".format(name))
                shape = tuple(int(n) for n in engine.get_tensor_shape(name))
                if any(n < 0 for n in shape):
                    raise RuntimeFailed("the shape of {!r} is not fixed".format(name))
                dtype = np.dtype(package.nptype(engine.get_tensor_dtype(name)))
                count = 1
                for n in shape:
                    count *= n
                address = self._device.allocate(count * dtype.itemsize)
                self._context.set_tensor_address(name, address)
                group.append(_Binding(name, dtype, shape, address))
            found.append(group)
        return found[0], found[1]

    def prepare(self, values: Dict[str, Any]) -> List[Any]:
        """Arrays in the engine's own types: before TensorRT 9 it has no int64."""
        import numpy as np

        from edge_agent.runtimes.arrays import to_array

        arrays = []
        for binding in self._inputs:
            array = np.ascontiguousarray(to_array(values[binding.name]))
            if array.shape != binding.shape:
                raise RuntimeFailed(
                    "input {!r} has the shape {} (the engine takes {})".format(
                        binding.name, list(array.shape), list(binding.shape)
                    )
                )
            arrays.append(_as_type(array, binding.dtype, binding.name))
        return arrays

    def bind(self, feeds: Any) -> Tuple[Callable[..., Any], Tuple[Any, ...]]:
        """Copy in, execute, copy out, wait."""
        return self._call, (feeds,)

    def _call(self, arrays: List[Any]) -> List[Any]:
        return self._run(self._context, arrays)

    def _run(self, context: Any, arrays: List[Any]) -> List[Any]:
        import numpy as np

        device, stream = self._device, self._stream
        for binding, array in zip(self._inputs, arrays):
            device.copy_in(binding.address, array.ctypes.data, array.nbytes, stream)
        if not context.execute_async_v3(stream):
            raise RuntimeFailed("TensorRT did not execute the engine")
        results = []
        for binding in self._outputs:
            array = np.empty(binding.shape, binding.dtype)
            device.copy_out(array.ctypes.data, binding.address, array.nbytes, stream)
            results.append(array)
        device.wait(stream)
        return results

    def named(self, result: Any) -> Dict[str, Any]:
        """Outputs in the types of the manifest."""
        import numpy as np

        values = {}
        for binding, array in zip(self._outputs, result):
            dtype = np.dtype(self._manifest[binding.name]["dtype"])
            values[binding.name] = array.astype(dtype, copy=False)
        return values

    def describe(self) -> Dict[str, Any]:
        """GPU or DLA, the engine's fingerprint and who built it."""
        wanted = self._record["fingerprint"]
        where = "GPU" if self._dla is None else "DLA{}".format(self._dla)
        return {
            "device": where,
            "accelerator": True,  # TensorRT has no kernels for the CPU
            "gpu": wanted["gpu"],
            "compute_capability": wanted["compute_capability"],
            "precision": wanted["precision"],
            "engine": fingerprint_id(wanted),
            "builder": self._record.get("builder"),
        }

    def profile(self, asked: Profiling) -> Tuple[List[OpRecord], str]:
        """Ask TensorRT's own profiler, in a context of its own, for the time of every layer."""
        package = self._package
        times = {}  # type: Dict[str, List[float]]

        class Listener(package.IProfiler):  # type: ignore[name-defined,misc]  # a class found at run time
            """Takes what each layer of each run took, in milliseconds."""

            def __init__(self) -> None:
                package.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                times.setdefault(str(layer_name), []).append(float(ms) * 1e3)

        context = self._new_context()
        for binding in self._inputs + self._outputs:
            context.set_tensor_address(binding.name, binding.address)
        listener = context.profiler = Listener()
        for _ in range(max(1, asked.runs)):
            self._run(context, asked.feeds)
            if time.monotonic() > asked.deadline:
                break
        del listener
        types = self._layer_types(context)
        records = []
        for name, taken in times.items():
            kind = types.get(name, "")
            records.append(
                op_record(
                    kind or "layer",
                    name,
                    self._where(kind, name),
                    accelerator=True,
                    us=statistics.median(taken),
                )
            )
        if not records:
            raise RuntimeFailed("TensorRT's profiler named no layer")
        return records, "TensorRT's profiler, median of each layer"

    def _where(self, kind: str, name: str) -> str:
        """Say whether a layer runs on the DLA: there it is one node that holds many."""
        if self._dla is None:
            return "GPU"
        if "dla" in kind.lower() or (not kind and name.startswith("{ForeignNode[")):
            return "DLA{}".format(self._dla)
        return "GPU"

    def _layer_types(self, context: Any) -> Dict[str, str]:
        """The types of layers by name, where the engine was built to tell."""
        try:
            inspector = self._engine.create_engine_inspector()
            inspector.execution_context = context
            text = inspector.get_engine_information(self._package.LayerInformationFormat.JSON)
            layers = json.loads(text)["Layers"]
            return {
                str(layer["Name"]): str(layer.get("LayerType", ""))
                for layer in layers
                if isinstance(layer, dict) and "Name" in layer
            }
        except Exception:  # noqa: BLE001 - names without types are as much as some versions give
            return {}


def _as_type(array: Any, dtype: Any, name: str) -> Any:
    """Give an array in another type, where that loses nothing.

    Raises:
        RuntimeFailed: A number does not fit.
    """
    if array.dtype == dtype:
        return array
    cast = array.astype(dtype)
    if array.dtype.kind not in "iub" or not (cast == array).all():
        raise RuntimeFailed(
            "input {!r} is {} (the engine takes {})".format(name, array.dtype, dtype)
        )
    return cast
