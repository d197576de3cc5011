"""The peers of the latency test: nothing but a runtime in a loop, in a process of its own.

    python bare_loop.py RUNTIME MODEL INPUTS.npz THREADS

Reads a number of runs a line, answers with that many samples in ns as one JSON line. A run is
what somebody would write by hand: give the inputs, run, have the outputs.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def onnxruntime_loop(model: str, feeds: dict[str, Any], threads: int) -> Callable[[], Any]:
    """A session of the CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    run = session.run
    return lambda: run(names, feeds)


def openvino_loop(model: str, feeds: dict[str, Any], threads: int) -> Callable[[], Any]:
    """A request of a model compiled for latency, which takes and gives memory as it lies."""
    import openvino

    core = openvino.Core()
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(core.read_model(model), "CPU", hints).create_infer_request()
    infer = request.infer
    return lambda: infer(feeds, share_inputs=True, share_outputs=True)


def litert_loop(model: str, feeds: dict[str, Any], threads: int) -> Callable[[], Any]:
    """An interpreter; the model has one input and one output."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=model, num_threads=threads)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    (value,) = feeds.values()
    index, output = taken["index"], given["index"]

    def run() -> Any:
        interpreter.set_tensor(index, value)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


LOOPS = {"onnxruntime": onnxruntime_loop, "openvino": openvino_loop, "litert": litert_loop}


def main() -> None:
    """Load, then answer until the input ends."""
    runtime, model, inputs, threads = sys.argv[1:]
    with np.load(inputs) as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    run, clock = LOOPS[runtime](model, feeds, int(threads)), time.perf_counter_ns
    gc.collect()
    gc.disable()
    for line in sys.stdin:
        samples = [0] * int(line)
        for index in range(len(samples)):
            start = clock()
            run()
            samples[index] = clock() - start
        sys.stdout.write(json.dumps(samples) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
