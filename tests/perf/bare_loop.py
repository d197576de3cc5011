"""The peer of the latency test: nothing but onnxruntime in a loop, in a process of its own.

    python bare_loop.py MODEL INPUTS.npz THREADS

Reads a number of runs a line, answers with that many samples in ns as one JSON line.
"""

from __future__ import annotations

import gc
import json
import sys
import time

import numpy as np
import onnxruntime


def main() -> None:
    """Load, then answer until the input ends."""
    model, inputs, threads = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    with np.load(inputs) as arrays:
        feeds = {name: arrays[name] for name in arrays.files}
    run, clock = session.run, time.perf_counter_ns
    gc.disable()
    for line in sys.stdin:
        samples = [0] * int(line)
        for index in range(len(samples)):
            start = clock()
            run(names, feeds)
            samples[index] = clock() - start
        sys.stdout.write(json.dumps(samples) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
