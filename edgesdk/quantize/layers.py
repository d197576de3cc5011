"""How far each layer of a quantization is from float: by itself, and with all before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.quantize.branches import Layer, LayerGraphs, Tapped
from edgesdk.quantize.compare import open_candidate
from edgesdk.quantize.host import HostSession, give_memory_back

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "GROUP_BYTES",
    "Distance",
    "Gap",
    "Group",
    "compare",
    "groups_of",
    "measure_on_host",
    "run_tapped",
]

Sample = dict[str, "np.ndarray"]

#: Tensors of a group of layers, of one sample: what a run of it gives at most.
GROUP_BYTES = 16 << 20
_MOST_LAYERS = 64
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far a layer's results are from float.

    Attributes:
        sqnr_db: Power of the float answer over that of the error; None where it is exact or
            lost.
        cosine: Between both; None where it is lost or one of them is 0.
        state: ``exact``, ``lost`` (an error that is no number, or another shape), or empty.
    """

    sqnr_db: float | None
    cosine: float | None
    state: str = ""

    @property
    def rank(self) -> float:
        """What to sort by: the worst is the least."""
        if self.sqnr_db is not None:
            return self.sqnr_db
        return math.inf if self.state == "exact" else -math.inf


@dataclass(slots=True)
class Gap:
    """Gathers a `Distance` over results and samples."""

    error: float = 0.0
    power: float = 0.0
    dot: float = 0.0
    other: float = 0.0
    is_lost: bool = False

    def add(self, wanted: np.ndarray, got: np.ndarray) -> None:
        """Count one tensor; where float itself is no finite number nothing is compared."""
        import numpy as np

        if got.shape != wanted.shape:
            self.is_lost = True
            return
        known = np.isfinite(wanted)
        true, given = wanted[known].astype(np.float64), got[known].astype(np.float64)
        if not np.isfinite(given).all():
            self.is_lost = True
            return
        self.error += float(((given - true) ** 2).sum())
        self.power += float((true**2).sum())
        self.other += float((given**2).sum())
        self.dot += float((given * true).sum())

    def distance(self) -> Distance:
        """Give what was gathered."""
        if self.is_lost or not math.isfinite(self.error):
            return Distance(sqnr_db=None, cosine=None, state="lost")
        lengths = math.sqrt(self.power * self.other)
        cosine = round(min(self.dot / lengths, 1.0), 7) if lengths else None
        if not self.error:
            return Distance(sqnr_db=None, cosine=cosine, state="exact")
        if not self.power:
            return Distance(sqnr_db=None, cosine=cosine, state="lost")
        sqnr_db = round(10 * math.log10(self.power / self.error), 2)
        return Distance(sqnr_db=sqnr_db, cosine=cosine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers that are looked at together, and the distances of each by its name.

    ``accumulated`` is with the errors of all layers before it, ``local`` with float inputs.
    """

    layers: tuple[Layer, ...]
    accumulated: Mapping[str, Distance]
    local: Mapping[str, Distance]


def groups_of(layers: Sequence[Layer], *, most_bytes: int = GROUP_BYTES) -> list[list[Layer]]:
    """Part layers into groups whose results take at most so many bytes, or have one layer."""
    groups: list[list[Layer]] = []
    held = 0
    for one in layers:
        size = one.elements * _FLOAT_BYTES
        if not groups or held + size > most_bytes or len(groups[-1]) >= _MOST_LAYERS:
            groups.append([])
            held = 0
        groups[-1].append(one)
        held += size
    return groups


def measure_on_host(
    graphs: LayerGraphs,
    samples: Callable[[], Iterable[Sample]],
    *,
    groups: Sequence[Sequence[Layer]] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[Group]:
    """Measure the layers in onnxruntime on this computer, group by group.

    Args:
        graphs: What shows the layers.
        samples: Gives the same samples at every call.
        groups: The layers by group; None parts them by size.
        on_progress: Told of groups.

    Raises:
        QuantizeError: A graph does not load or run here.
    """
    parted = groups_of(graphs.layers) if groups is None else groups
    for number, layers in enumerate(parted):
        accumulated, local = compare(
            layers,
            run_tapped(graphs.float_results(layers), samples(), exact=True),
            run_tapped(graphs.accumulated(layers), samples()),
            run_tapped(graphs.local(layers), samples()),
        )
        yield Group(layers=tuple(layers), accumulated=accumulated, local=local)
        give_memory_back()
        on_progress(
            Progress(step="compare layers", done=number + 1, total=len(parted), unit="groups")
        )


def run_tapped(
    tapped: Tapped, samples: Iterable[Sample], *, exact: bool = False
) -> Iterator[Sample]:
    """Run a tapped graph here; ``exact`` for float graphs, which are not optimized."""
    if exact:
        session = HostSession(tapped.model, optimize="off")
    else:
        session = open_candidate(tapped.model)
    inputs = {value.name for value in tapped.model.graph.inputs}
    for sample in samples:
        given = {name: array for name, array in sample.items() if name in inputs}
        answers = session.run(given)
        yield {result: answers[output] for output, result in tapped.outputs.items()}


def compare(
    layers: Sequence[Layer], floats: Iterable[Sample], *answers: Iterable[Sample]
) -> tuple[dict[str, Distance], ...]:
    """Compare results of layers with float ones, a sample at a time.

    Returns:
        The distances by layer, for each of ``answers``.
    """
    gaps = [{one.name: Gap() for one in layers} for _ in answers]
    for wanted, *given in zip(floats, *answers, strict=True):
        for found, got in zip(gaps, given, strict=True):
            for one in layers:
                for result in one.results:
                    found[one.name].add(wanted[result], got[result])
    return tuple({name: gap.distance() for name, gap in each.items()} for each in gaps)
