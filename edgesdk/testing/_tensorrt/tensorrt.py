"""A stand-in for NVIDIA's ``tensorrt`` package: engines hold the model, onnxruntime runs it.

Only what an agent uses, with the names of the documented Python interface and what it says no
to: an engine for another GPU or version, a damaged one, types that no flag allows before 11,
flags that are gone from 11 on. It stands alone, because it is copied to where a device would
have the real one. FAKE_TENSORRT_VERSION, FAKE_GPU_NAME and FAKE_GPU_COMPUTE say what it is.
"""

from __future__ import annotations

import ctypes
import enum
import json
import sys
import time
from typing import Any

import numpy as np

try:
    from edgesdk.testing._tensorrt.fake_plans import __version__, pack_engine, unpack_engine
except ImportError:  # on a device there is only the file beside this one
    from fake_plans import (  # type: ignore[import-not-found,no-redef]  # see above
        __version__,
        pack_engine,
        unpack_engine,
    )

__all__ = ["__version__", "pack_engine"]

_MAJOR = int(__version__.split(".")[0])


class ILogger:
    """Takes messages, with a severity; the lower the worse."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        """Begin."""

    def log(self, severity: int, message: str) -> None:
        """Take one."""


class Logger(ILogger):
    """Writes what is bad enough to stderr."""

    def __init__(self, min_severity: int = ILogger.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: int, message: str) -> None:
        """Write it."""
        if severity <= self.min_severity:
            sys.stderr.write(f"[TRT] {message}\n")


class IProfiler:
    """Is told the time of every layer."""

    def __init__(self) -> None:
        """Begin."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Take one."""


class DataType(enum.Enum):
    """Types of tensors."""

    FLOAT = "float32"
    HALF = "float16"
    INT8 = "int8"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"
    UINT8 = "uint8"


class TensorIOMode(enum.Enum):
    """Which way a tensor goes."""

    NONE, INPUT, OUTPUT = range(3)


class LayerInformationFormat(enum.Enum):
    """How an inspector writes."""

    ONELINE, JSON = range(2)


class DeviceType(enum.Enum):
    """Where layers may run."""

    GPU, DLA = range(2)


class MemoryPoolType(enum.Enum):
    """What a limit is for."""

    WORKSPACE = 0


class ProfilingVerbosity(enum.Enum):
    """What an engine tells of its layers."""

    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


_FLAGS = ["GPU_FALLBACK"] + (["FP16", "INT8"] if _MAJOR < 11 else [])
BuilderFlag = enum.Enum("BuilderFlag", _FLAGS)  # type: ignore[misc]  # members depend on the version


class NetworkDefinitionCreationFlag(enum.IntEnum):
    """How a network is made."""

    if _MAJOR < 11:
        EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


def nptype(dtype: DataType) -> Any:
    """Give the numpy type."""
    return np.dtype(dtype.value).type


class ICudaEngine:
    """An engine; its tensors are found by name."""

    def __init__(self, header: dict[str, Any], body: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.header = header
        self.body = body
        self.session = onnxruntime.InferenceSession(
            body,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["WeightBiasQuantization"],  # TensorRT keeps to the graph
        )
        self._values = [*self.session.get_inputs(), *self.session.get_outputs()]
        self._taken = len(self.session.get_inputs())

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs."""
        return len(self._values)

    def get_tensor_name(self, index: int) -> str:
        """Name one."""
        return str(self._values[index].name)

    def _index(self, name: str) -> int:
        return [value.name for value in self._values].index(name)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Say whether it goes in or out."""
        given = self._index(name) >= self._taken
        return TensorIOMode.OUTPUT if given else TensorIOMode.INPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Give its extents, -1 where one is not fixed."""
        shape = self._values[self._index(name)].shape
        return tuple(n if isinstance(n, int) else -1 for n in shape)

    def own_dtype(self, name: str) -> str:
        """Give the type that the model has."""
        text = self._values[self._index(name)].type.removeprefix("tensor(").removesuffix(")")
        return str({"float": "float32", "double": "float64"}.get(text, text))

    def get_tensor_dtype(self, name: str) -> DataType:
        """Give the type of its memory: before 9 an int64 is an int32 there."""
        dtype = self.own_dtype(name)
        return DataType("int32" if dtype == "int64" and _MAJOR < 9 else dtype)

    def create_execution_context(self) -> IExecutionContext:
        """Make what runs it."""
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        """Make what describes it."""
        return EngineInspector(self)

    def layers(self) -> list[dict[str, str]]:
        """Name the layers with their types."""
        import onnx

        nodes = onnx.load_from_string(self.body).graph.node
        if self.header["dla"] is not None:
            first, last = nodes[0].output[0], nodes[-1].output[0]
            return [{"Name": f"{{ForeignNode[{first}...{last}]}}", "LayerType": "DLA"}]
        return [{"Name": n.name or n.output[0], "LayerType": n.op_type} for n in nodes]


class EngineInspector:
    """Describes an engine."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: object = None

    def get_engine_information(self, form: LayerInformationFormat) -> str:
        """Give all layers as JSON."""
        assert form is LayerInformationFormat.JSON
        return json.dumps({"Layers": self._engine.layers(), "Bindings": []})


class IExecutionContext:
    """Runs an engine on memory that it is shown."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self.profiler: IProfiler | None = None

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Show it the memory of a tensor."""
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Run once."""
        del stream
        engine, feeds, given = self._engine, {}, []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = np.dtype(nptype(engine.get_tensor_dtype(name)))
            shape = engine.get_tensor_shape(name)
            if engine.get_tensor_mode(name) is TensorIOMode.OUTPUT:
                given.append((name, dtype))
                continue
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            data = ctypes.string_at(self._addresses[name], nbytes)
            array = np.frombuffer(data, dtype).reshape(shape)
            feeds[name] = array.astype(engine.own_dtype(name))
        began = time.perf_counter()
        results = engine.session.run([name for name, _ in given], feeds)
        spent_ms = (time.perf_counter() - began) * 1e3
        for (name, dtype), result in zip(given, results, strict=True):
            data = np.ascontiguousarray(result.astype(dtype)).tobytes()
            ctypes.memmove(self._addresses[name], data, len(data))
        if self.profiler is not None:
            layers = engine.layers()
            for layer in layers:
                self.profiler.report_layer_time(layer["Name"], spent_ms / len(layers))
        return True


class Runtime:
    """Reads engines."""

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self.DLA_core = -1

    def deserialize_cuda_engine(self, data: bytes) -> ICudaEngine | None:
        """Read one; None, and a message to the logger, where it cannot be used."""
        try:
            return ICudaEngine(*unpack_engine(data))
        except (ValueError, KeyError) as exc:
            self._logger.log(ILogger.ERROR, f"IRuntime::deserializeCudaEngine: Error: {exc}")
            return None


class IInt8EntropyCalibrator2:
    """Gives scales to a builder."""

    def __init__(self) -> None:
        """Begin."""

    def read_calibration_cache(self) -> bytes:
        """Give a cache."""
        return b""


class _Timings:
    def serialize(self) -> bytes:
        return b"timings"


class IBuilderConfig:
    """What a builder is told."""

    def __init__(self) -> None:
        self.flags: set[Any] = set()
        self.int8_calibrator: IInt8EntropyCalibrator2 | None = None
        self.default_device_type = DeviceType.GPU
        self.DLA_core = -1
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self._timings: _Timings | None = None

    def set_flag(self, flag: Any) -> None:
        """Allow something."""
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        """Bound a pool."""
        assert pool is MemoryPoolType.WORKSPACE
        assert size > 0

    def create_timing_cache(self, data: bytes) -> _Timings:
        """Read timings."""
        del data
        return _Timings()

    def set_timing_cache(self, timings: _Timings, ignore_mismatch: bool) -> bool:  # noqa: FBT001 - as NVIDIA has it
        """Begin with timings."""
        del ignore_mismatch
        self._timings = timings
        return True

    def get_timing_cache(self) -> _Timings | None:
        """Give them back."""
        return self._timings


class INetworkDefinition:
    """A network; here the path of its model."""

    path = ""


class OnnxParser:
    """Reads a model into a network."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._logger = logger
        self._errors: list[str] = []

    @property
    def num_errors(self) -> int:
        """How many errors there are."""
        return len(self._errors)

    def get_error(self, index: int) -> str:
        """Give one."""
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        """Read a file."""
        import onnx

        try:
            onnx.checker.check_model(onnx.load(path))
        except Exception as exc:  # noqa: BLE001 - whatever is wrong with it, it is refused
            self._errors.append(" ".join(str(exc).split())[:200])
            return False
        self._network.path = path
        return True


class Builder:
    """Builds engines."""

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        """Make an empty network."""
        del flags
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        """Make what the builder is told with."""
        return IBuilderConfig()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes | None:
        """Build; None, and a message to the logger, where it cannot be done."""
        calibrator = config.int8_calibrator
        on_dla = config.default_device_type is DeviceType.DLA
        try:
            plan: bytes = pack_engine(
                network.path,
                flags={flag.name.lower() for flag in config.flags},
                dla_core=config.DLA_core if on_dla else None,
                calibration=None if calibrator is None else calibrator.read_calibration_cache(),
            )
        except ValueError as exc:
            self._logger.log(ILogger.ERROR, str(exc))
            return None
        return plan
