"""What a candidate lost: on labelled data by their metric, without labels by distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgesdk.errors import CalibrationError, DataError, QuantizeError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.quantize.compare import noise_by_output
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.observe import Kept

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Judge", "LabelledJudge", "Metric", "NoiseJudge", "Score", "ScoreJudge"]

Sample = dict[str, "np.ndarray"]
#: From outputs by name (rows first) and labels to a number of which more is better.
Metric = Callable[[Sample, "np.ndarray"], float]
#: From a function that runs one sample, by name, to a number of which more is better.
Score = Callable[[Callable[[Sample], Sample]], float]

_MAX_OUTPUT_BYTES = 1 << 30


class Judge(Protocol):
    """Measures candidates against the float graph, whose reference is set first."""

    def set_reference(self, model: onnx_ir.Model) -> None:
        """Measure the float graph."""

    @property
    def metric(self) -> str:
        """What is measured."""

    @property
    def reference(self) -> float:
        """The float graph's value; 0 for a distance."""

    def drop(self, session: HostSession) -> float:
        """Give what a candidate lost, in the unit of a limit; infinite if it is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseJudge:
    """Power of the error over that of the float answer, at the worst output."""

    kept: Sequence[Kept]
    metric: str = "noise"
    reference: float = 0.0

    def set_reference(self, model: onnx_ir.Model) -> None:
        """Do nothing: the float answers were kept."""

    def drop(self, session: HostSession) -> float:
        """Give the noise ratio at the worst output."""
        noise = noise_by_output(session, self.kept)
        if not noise:
            raise QuantizeError(
                "cannot measure the loss: none of the model's outputs can be compared",
                hint="give labels, or leave --max-drop out",
            )
        return max(noise.values())


class ScoreJudge:
    """Whatever the caller measures."""

    metric = "score"

    def __init__(self, score: Score) -> None:
        self._score = score
        self.reference = math.nan

    def set_reference(self, model: onnx_ir.Model) -> None:
        """Measure the float graph."""
        self.reference = float(self._score(HostSession(model).run))
        if not math.isfinite(self.reference):
            raise QuantizeError(
                f"cannot measure the float model: its score is {self.reference}",
                hint="does the score function work on the float model?",
            )

    def drop(self, session: HostSession) -> float:
        """Give the float graph's score less the candidate's."""
        value = float(self._score(session.run))
        return self.reference - value if math.isfinite(value) else math.inf


class LabelledJudge:
    """A metric on labelled data; the drop is in its own unit, relative where it is an error.

    Args:
        samples: Gives the samples anew at every call.
        labels: In their order, ``batch`` rows for each.
        batch: Rows of the model's batch that one sample fills.
        metric: Of outputs and labels; None chooses one by their shapes
            (`edgesdk.data.metrics.score_outputs`).
        total: How many samples there are, if known.
    """

    def __init__(
        self,
        samples: Callable[[], Iterable[Sample]],
        labels: np.ndarray,
        *,
        batch: int = 1,
        metric: Metric | None = None,
        total: int | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        self._samples, self._labels, self._batch = samples, labels, batch
        self._metric, self._total, self._on_progress = metric, total, on_progress
        self.metric = "metric" if metric is not None else ""
        self.reference = math.nan
        self.count = 0

    def set_reference(self, model: onnx_ir.Model) -> None:
        """Measure the float graph.

        Raises:
            QuantizeError: The labels do not go with its outputs.
        """
        self.reference, self.metric = self._value(HostSession(model), "measure the float model")
        if not math.isfinite(self.reference):
            raise QuantizeError(
                "cannot measure the float model on the labelled data: its outputs hold NaN or "
                "infinity",
                hint="do the data fit the model?",
            )

    def drop(self, session: HostSession) -> float:
        """Give the float graph's value less the candidate's; relative for errors."""
        self.count += 1
        value, _ = self._value(session, f"measure candidate {self.count}")
        if not math.isfinite(value):
            return math.inf
        if self.metric.endswith("error"):
            return (value - self.reference) / max(abs(self.reference), 1e-12)
        return self.reference - value

    def _value(self, session: HostSession, step: str) -> tuple[float, str]:
        outputs = self._outputs(session, step)
        if self._metric is not None:
            return float(self._metric(outputs, self._labels)), self.metric
        import numpy as np

        from edgesdk.data.metrics import score_outputs

        try:
            name, score = score_outputs(outputs, self._labels)
        except DataError as exc:
            raise QuantizeError(
                f"cannot measure the model on the labelled data: {exc}",
                hint=exc.hint or "leave --max-drop out, or give labels that fit an output",
            ) from exc
        # a class can be read off numbers that are none, too
        scored = outputs[name]
        lost = scored.dtype.kind == "f" and not np.isfinite(scored).all()
        return (math.nan if lost else score.value), score.metric

    def _outputs(self, session: HostSession, step: str) -> dict[str, np.ndarray]:
        import numpy as np

        pieces: dict[str, list[np.ndarray]] = {}
        size = 0
        done = 0
        for done, sample in enumerate(self._samples(), start=1):
            for name, output in session.run(sample).items():
                if not isinstance(output, np.ndarray):
                    continue  # a sequence: nothing is scored on one
                has_rows = output.ndim > 0 and output.shape[0] == self._batch
                rows = output if has_rows or self._batch != 1 else output[np.newaxis]
                pieces.setdefault(name, []).append(np.array(rows))
                size += rows.nbytes
            if size > _MAX_OUTPUT_BYTES:
                raise CalibrationError(
                    f"cannot measure on the labelled data: outputs of {done} samples exceed "
                    f"{_MAX_OUTPUT_BYTES >> 20} MiB",
                    hint="give fewer labelled samples",
                )
            self._on_progress(Progress(step=step, done=done, total=self._total, unit="samples"))
        if not done:
            raise CalibrationError(
                "cannot measure on the labelled data: there are no samples",
                hint="give data with at least one sample",
            )
        return {
            name: np.concatenate(group)
            for name, group in pieces.items()
            if len(group) == done and len({(one.shape[1:], one.dtype) for one in group}) == 1
        }
