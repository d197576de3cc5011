"""Latency of several files of one model, side by side in one process.

    python quantize_latency.py MODEL_NAME THREADS BLOCKS NAME=FILE.onnx ...

Threads 0 is the runtime's own choice. Prints one JSON line: the median of each block in ms, by
name. The arms take turns in an order drawn anew for each block, so what else the machine does
falls on all of them alike.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from quantize_models import feeds, load_case
from quantize_stats import open_session

#: How long one arm of one block lasts, and the fewest runs in it.
BLOCK_S = 0.02
LEAST_RUNS = 3


def measure(
    arms: dict[str, Any], feed: dict[str, Any], *, blocks: int
) -> dict[str, list[float]]:
    """Give the block medians of each session, in ms."""
    clock = time.perf_counter
    runs = {}
    for name, session in arms.items():
        session.run(None, feed)
        begun = clock()
        session.run(None, feed)
        runs[name] = max(LEAST_RUNS, min(200, round(BLOCK_S / (clock() - begun))))
    medians: dict[str, list[float]] = {name: [] for name in arms}
    dice = random.Random(1)
    gc.disable()
    for _ in range(blocks):
        for name in dice.sample(list(arms), len(arms)):
            run, seconds = arms[name].run, []
            run(None, feed)  # finds the caches as the arm before left them; not counted
            for _ in range(runs[name]):
                begun = clock()
                run(None, feed)
                seconds.append(clock() - begun)
            medians[name].append(statistics.median(seconds) * 1e3)
    return medians


def main() -> None:
    """Open all, then measure."""
    model, threads, blocks, *files = sys.argv[1:]
    case = load_case(model)
    arms = {}
    for item in files:
        name, _, path = item.partition("=")
        arms[name] = open_session(Path(path), threads=int(threads))
    feed = next(feeds(case, "test.npz"))
    print(json.dumps(measure(arms, feed, blocks=int(blocks))))


if __name__ == "__main__":
    main()
