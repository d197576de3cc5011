"""The parts of a bundle in their order, as one thing to run and to measure. Worker only."""

from __future__ import annotations

import array
import gc
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent import runtimes
from edge_agent.runtimes.base import Part, RawTensor, RuntimeFailed

__all__ = ["Chain", "Measurement", "RuntimeGone"]

_BLOCK = 1 << 16
_REPORT_NS = 500_000_000
#: One reply holds eight bytes for each run.
MAX_SAMPLES = 4 << 20


class RuntimeGone(Exception):
    """A runtime that a part needs cannot be imported here."""

    def __init__(self, runtime: str, why: str) -> None:
        super().__init__(why)
        self.runtime = runtime


class Measurement:
    """What one benchmark collected: nanoseconds per run, and per run and part."""

    def __init__(self, limit: int, parts: int) -> None:
        first = min(limit, _BLOCK) if limit else _BLOCK
        self.samples = array.array("Q", bytes(8 * first))
        self.parts = [array.array("Q", bytes(8 * first)) for _ in range(parts)]
        self.runs = 0
        self.wall_ns = 0

    def grow(self) -> None:
        """Make room for another block."""
        for samples in [self.samples] + self.parts:
            samples.frombytes(bytes(8 * _BLOCK))

    def cut(self) -> None:
        """Drop what was not used."""
        for samples in [self.samples] + self.parts:
            del samples[self.runs :]


class Chain:
    """Loaded parts. Values go from part to part by tensor name."""

    def __init__(self, inputs: List[str], outputs: List[str]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.parts = []  # type: List[Part]
        self.records = []  # type: List[Dict[str, Any]]
        self.module_files = []  # type: List[str]

    def load(self, record: Dict[str, Any], files: List[str], threads: Optional[int]) -> None:
        """Load the next part.

        Raises:
            RuntimeGone: Its runtime is not installed for this Python.
            RuntimeFailed: The runtime refuses it.
        """
        name = record["runtime"]
        module = runtimes.find(name)
        if module is None:
            raise RuntimeGone(name, "this agent knows no runtime {!r}".format(name))
        why = module.why_missing()
        if why is not None:
            raise RuntimeGone(name, why)
        options = dict(record["options"])
        if threads is not None:
            options["threads"] = threads
        part = module.load(files, record, options)
        self.parts.append(part)
        self.module_files.append(module.module_file())
        self.records.append(
            {
                "part": len(self.records),
                "runtime": name,
                "version": module.version(),
                "detail": part.describe(),
            }
        )

    def _feeds(self, part: Part, values: Dict[str, Any]) -> Any:
        missing = [name for name in part.input_names if name not in values]
        if missing:
            raise RuntimeFailed("nothing gives the tensor {!r}".format(missing[0]))
        return part.prepare(values)

    def run(self, inputs: Dict[str, RawTensor]) -> Tuple[Dict[str, Any], List[int]]:
        """Run every part once; give the bundle's outputs and nanoseconds per part."""
        values = dict(inputs)  # type: Dict[str, Any]
        spent = []
        for part in self.parts:
            feeds = self._feeds(part, values)
            function, arguments = part.bind(feeds)
            start = time.perf_counter_ns()
            result = function(*arguments)
            spent.append(time.perf_counter_ns() - start)
            values.update(part.named(result))
        missing = [name for name in self.outputs if name not in values]
        if missing:
            raise RuntimeFailed("no part gives the output {!r}".format(missing[0]))
        return {name: values[name] for name in self.outputs}, spent

    def measure(
        self,
        vectors: List[Dict[str, RawTensor]],
        *,
        warmup_runs: int,
        runs: int,
        duration_s: float,
        report: Callable[[str, int, Optional[int]], None],
    ) -> Measurement:
        """Run the vectors in turn until ``runs`` or ``duration_s`` is reached.

        The clock is read right before and right after the runtime's own call (one part), or
        around all parts with their hand-over (several). Garbage collection is off meanwhile.
        """
        loop = self._measure_one if len(self.parts) == 1 else self._measure_all
        gc.collect()
        gc.disable()
        try:
            if warmup_runs:
                warm = Measurement(warmup_runs, len(self.parts))
                loop(vectors, warm, warmup_runs, 0, report=report, step="warm up")
            found = Measurement(runs, len(self.parts))
            stop_ns = int(duration_s * 1e9)
            limit = min(runs or MAX_SAMPLES, MAX_SAMPLES)
            loop(vectors, found, limit, stop_ns, report=report, step="run")
        finally:
            gc.enable()
        found.cut()
        if len(self.parts) == 1:
            found.parts = [found.samples]
        return found

    def _measure_one(
        self,
        vectors: List[Dict[str, RawTensor]],
        found: Measurement,
        limit: int,
        duration_ns: int,
        *,
        report: Callable[[str, int, Optional[int]], None],
        step: str,
    ) -> None:
        part = self.parts[0]
        bound = [part.bind(self._feeds(part, values)) for values in vectors]
        count = len(bound)
        clock = time.perf_counter_ns
        samples = found.samples
        total = limit if not duration_ns else None
        index = 0
        began = clock()
        stop = began + duration_ns if duration_ns else began + (1 << 62)
        tick = min(stop, began + _REPORT_NS)
        while index < limit:
            function, arguments = bound[index % count]
            if index == len(samples):
                found.grow()
            start = clock()
            function(*arguments)
            end = clock()
            samples[index] = end - start
            index += 1
            if end >= tick:
                if end >= stop:
                    break
                report(step, index, total)
                tick = min(stop, clock() + _REPORT_NS)
        found.runs = index
        found.wall_ns = clock() - began

    def _measure_all(
        self,
        vectors: List[Dict[str, RawTensor]],
        found: Measurement,
        limit: int,
        duration_ns: int,
        *,
        report: Callable[[str, int, Optional[int]], None],
        step: str,
    ) -> None:
        parts = self.parts
        first = [self._feeds(parts[0], values) for values in vectors]
        count = len(vectors)
        clock = time.perf_counter_ns
        total = limit if not duration_ns else None
        index = 0
        began = clock()
        stop = began + duration_ns if duration_ns else began + (1 << 62)
        tick = min(stop, began + _REPORT_NS)
        while index < limit:
            if index == len(found.samples):
                found.grow()
            values = dict(vectors[index % count])  # type: Dict[str, Any]
            feeds = first[index % count]
            start = last = clock()
            for number, part in enumerate(parts):
                if number:
                    feeds = part.prepare(values)
                function, arguments = part.bind(feeds)
                values.update(part.named(function(*arguments)))
                now = clock()
                found.parts[number][index] = now - last
                last = now
            found.samples[index] = last - start
            index += 1
            if last >= tick:
                if last >= stop:
                    break
                report(step, index, total)
                tick = min(stop, clock() + _REPORT_NS)
        found.runs = index
        found.wall_ns = clock() - began
