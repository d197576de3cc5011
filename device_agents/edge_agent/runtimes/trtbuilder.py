"""Building an engine with TensorRT's own Python package, where there is no ``trtexec``.

Up to 10 the builder is told the precisions it may use; from 11 on every network is strongly
typed, and the flags, like calibrators, are gone
(https://docs.nvidia.com/deeplearning/tensorrt/latest/api/migration/tensorrt-10x-to-11x-python-api-reference.html).
"""

from __future__ import annotations

import os
from typing import Any, Optional

from edge_agent.runtimes.base import RuntimeFailed
from edge_agent.runtimes.trtexec import BuildJob

__all__ = ["build_with_package"]

_PRECISION_FLAGS = {"fp16": "FP16", "int8": "INT8"}


def build_with_package(tensorrt: Any, job: BuildJob) -> None:
    """Build; the engine lies at ``job.engine`` afterwards.

    The caller's process is the builder's: whoever wants a time limit ends that.

    Raises:
        RuntimeFailed: The graph is refused, or the build failed.
    """
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    creation = tensorrt.NetworkDefinitionCreationFlag
    # before 10 a network without this flag had no batch axis; later the flag says nothing, then
    # is gone
    explicit = getattr(creation, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(job.model):
        errors = [str(parser.get_error(i)) for i in range(min(parser.num_errors, 3))]
        raise RuntimeFailed(
            "TensorRT cannot read the model: {}".format("; ".join(errors))[:600]
        )
    config = builder.create_builder_config()
    _configure(tensorrt, config, job)
    timings = _with_timings(config, job.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeFailed(
            "TensorRT builds no engine of it; its errors are in the agent's log"
        )
    with open(job.engine, "wb") as stream:
        stream.write(memoryview(plan))
    if timings is not None:
        with open(job.timing_cache, "wb") as stream:
            stream.write(memoryview(config.get_timing_cache().serialize()))


def _configure(tensorrt: Any, config: Any, job: BuildJob) -> None:
    if job.workspace_mib:
        pool = tensorrt.MemoryPoolType.WORKSPACE
        config.set_memory_pool_limit(pool, job.workspace_mib << 20)
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    flags = tensorrt.BuilderFlag
    weakly_typed = hasattr(flags, "FP16")
    if weakly_typed:
        for name in job.flags_of_precision():
            config.set_flag(getattr(flags, _PRECISION_FLAGS[name]))
    if job.calibration is not None:
        if not weakly_typed:
            raise RuntimeFailed(
                "tensorrt {} takes no calibration cache: its types are in the graph".format(
                    tensorrt.__version__
                )
            )
        config.int8_calibrator = _calibrator(tensorrt, job.calibration)
    if job.dla_core is not None:
        config.default_device_type = tensorrt.DeviceType.DLA
        config.DLA_core = job.dla_core
        config.set_flag(flags.GPU_FALLBACK)


def _calibrator(tensorrt: Any, path: str) -> Any:
    """Give a calibrator that has nothing but the scales in a cache file."""

    class Cached(tensorrt.IInt8EntropyCalibrator2):  # type: ignore[name-defined,misc]  # a class found at run time
        """Reads scales, and has no data to measure any."""

        def __init__(self) -> None:
            tensorrt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, _: Any) -> Optional[Any]:
            return None

        def read_calibration_cache(self) -> bytes:
            with open(path, "rb") as stream:
                return stream.read()

        def write_calibration_cache(self, cache: Any) -> None:
            """Keep nothing: the bundle's file stays as it is."""

    return Cached()


def _with_timings(config: Any, path: str) -> Optional[Any]:
    """Let the builder begin with the timings of earlier builds, and add to them."""
    data = b""
    if os.path.isfile(path):
        with open(path, "rb") as stream:
            data = stream.read()
    timings = config.create_timing_cache(data)
    if timings is None or not config.set_timing_cache(timings, False):
        return None
    return timings
