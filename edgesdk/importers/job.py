"""What an exporter is asked and what it answers, whichever interpreter it runs in.

An exporter is a module of `edgesdk.importers.frameworks` with one function::

    def export(job: Job) -> Exported: ...

It may have ``refuse_early(job: Job) -> None`` too, which is asked in this process before an
environment is made: what can be refused without the framework need not wait for it.

An exporter runs in a toolchain's own interpreter (`edgesdk.importers.child`), where numpy and
the framework are there and neither pydantic nor onnxruntime is, or in the user's process for
`from_torch` and its like. So this module, and every exporter, imports nothing but the standard
library and numpy at its top level, and its framework inside functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

__all__ = ["CannotExport", "Example", "Exported", "Job", "Layer"]


class CannotExport(Exception):
    """An exporter cannot do it: what, what was seen, what to try, and values as data."""

    def __init__(self, problem: str, *, hint: str, **facts: Any) -> None:
        super().__init__(problem)
        self.hint = hint
        self.facts = facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One model to turn into ONNX.

    Attributes:
        source: The file or folder, or the live object in the user's process.
        kind: Which of the exporter's forms it is, as `edgesdk.importers.detect` calls it.
        name: What to call the model, for messages and the graph's name.
        out: A folder that is there and empty; the ONNX file goes there.
        shapes: Shape by input name, ``""`` standing for the only input. An extent of None
            stays free.
        opset: Version of ONNX's operators to write; None leaves it to the exporter.
        dynamic: Names of inputs whose leading extent, the batch, shall stay free.
        trust: Whether the user said that code in the source may run.
        examples: Inputs to trace and compare on, an array per input in the source's order;
            empty has the exporter make them from a fixed seed.
        trace: Whether to give what every layer answers to the first example.
        on_step: Told what is being done, in a few words.
    """

    source: Any
    kind: str
    name: str
    out: Path
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    opset: int | None = None
    dynamic: tuple[str, ...] = ()
    trust: bool = False
    examples: tuple[NDArray[np.generic], ...] = ()
    trace: bool = False
    on_step: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What the framework answers to one set of inputs, by the names of the ONNX graph."""

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one layer of the source answers to the first example.

    ``tensor`` names the value of the ONNX graph that has to equal it.
    """

    name: str
    tensor: str
    value: NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An ONNX file and the proof of what it should compute.

    Attributes:
        model: The ONNX file in the job's folder; its external data, if any, beside it.
        opset: Version of ONNX's own operators in it.
        versions: Version of the framework and of each package that took part.
        examples: At least two sets of inputs with what the framework answered. Random inputs
            come from a fixed seed, so that the same source is proven on the same values.
        layers: In order of execution, where the job asked for a trace.
        notes: What the user should know: parts left out, types changed.
    """

    model: Path
    opset: int
    versions: Mapping[str, str]
    examples: tuple[Example, ...]
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()
