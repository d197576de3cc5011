"""``edgesdk.quantize``: the quantizer on its own, from a model to a graph that can be saved."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import DataError, ProfileError, QuantizeError
from edgesdk.model.open import OpenedModel, open_model
from edgesdk.model.simplify import simplify
from edgesdk.near import suggest
from edgesdk.profiles.values import BackendProfile, QuantScheme
from edgesdk.progress import OnProgress, ignore_progress
from edgesdk.quantize.judge import Judge, LabelledJudge, Metric, Score, ScoreJudge
from edgesdk.quantize.means import ALL_MEANS, MEANS
from edgesdk.quantize.modes import CALIBRATED, Wanted, convert
from edgesdk.quantize.prune_spec import parse_prune
from edgesdk.quantize.state import State
from edgesdk.quantize.values import Quantized
from edgesdk.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir

    from edgesdk.data.dataset import Dataset

__all__ = ["quantize"]

Sample = dict[str, "np.ndarray"]

_WHERE = "the data"


def quantize(
    model: str | Path | OpenedModel | onnx.ModelProto | ir.Model,
    data: str | Path | Dataset | Mapping[str, np.ndarray] | Iterable[Sample] | None,
    *,
    scheme: QuantScheme | str | None = None,
    precision: str = "int8",
    labels: np.ndarray | None = None,
    metric: Metric | None = None,
    score: Score | None = None,
    max_drop: float | None = None,
    keep_float: Collection[str] = (),
    means: Collection[str] = MEANS,
    prune: str | None = None,
    requantize: bool = False,
    state_dir: Path | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Quantized:
    """Quantize a model; the result has the graph, what was decided, and ``save(path)``.

    Args:
        model: An ONNX file, or a graph in memory; it stays as it is.
        data: Calibration samples: what ``--calib`` takes, a `Dataset`, one array ``[N, ...]``
            per input, or an iterable of dicts with the batch dimension in each array. It is
            gone through more than once where it has to, so an iterator is read into memory.
        scheme: Numbers and rules, or where they stand: ``"TARGET"`` or ``"TARGET/BACKEND"`` of
            the target profiles. None: the default target's first backend with a scheme.
        precision: ``int8``, ``int16x8``, ``fp16``, ``int8-dynamic``, ``int4-weights`` or
            ``auto``.
        labels: For the samples in ``data``, in their order; a `Dataset` brings its own.
        metric: From outputs by name (rows first) and labels to a number of which more is
            better; None chooses one by their shapes.
        score: Instead of labels and metric: from a function that runs one sample to a number of
            which more is better.
        max_drop: The largest loss allowed: of the metric, or of power of the error over that of
            the answer without labels. None: 0.01 where there are labels.
        keep_float: Node names and operator types that stay in float.
        means: Accuracy means that may be tried, of `edgesdk.quantize.means.ALL_MEANS`.
        prune: ``2:4``, ``unstructured:0.5`` or ``channels:0.3``.
        requantize: Take a quantized model apart and quantize it anew.
        state_dir: A folder to keep what a stopped run with the same model, data and options can
            go on from; not used with a ``metric`` or ``score``, which might have changed.
        on_progress: Told of samples and candidates.

    Raises:
        QuantizeError: It cannot be done, or only with a larger loss.
        ModelError: The model file cannot be used.
        DataError: The data cannot be used.
        ProfileError: There is no such target or backend.
    """
    unknown = [name for name in means if name not in ALL_MEANS]
    if unknown:
        raise QuantizeError(
            f"cannot try {unknown[0]!r}: there is no such accuracy means",
            hint=suggest(unknown[0], ALL_MEANS) or f"there are {', '.join(ALL_MEANS)}",
        )
    opened = _opened(model)
    backend, here = _backend(scheme)
    chosen = scheme if isinstance(scheme, QuantScheme) else backend.scheme if backend else None
    samples, total, found_labels, batch = _samples(data, opened.source.inputs)
    digest, graph = opened.source.sha256, simplify(opened.ir)
    del opened, model  # a file's weights need not lie beside those of the simplified graph
    labels = found_labels if labels is None else labels
    if samples is None and precision in CALIBRATED:
        raise QuantizeError(
            f"cannot quantize to {precision}: there is no calibration data",
            hint="give some 100 typical inputs",
        )
    judge: Judge | None = None
    if score is not None:
        judge = ScoreJudge(score)
    elif labels is not None and samples is not None:
        judge = LabelledJudge(
            samples,
            labels,
            batch=batch,
            metric=metric,
            total=total,
            on_progress=on_progress,
        )
    wanted = Wanted(
        precision=precision,
        scheme=chosen,
        precisions=backend.precisions if backend else ("int8", "int8-dynamic", "fp16", "fp32"),
        runtime=backend.runtime if backend else "onnxruntime",
        kind=backend.kind if backend else "onnxruntime",
        max_opset=backend.max_opset if backend else None,
        max_ir=backend.max_ir if backend else None,
        keep_float=tuple(keep_float),
        means=means,
        max_drop=max_drop,
        prune=None if prune is None else parse_prune(prune),
        requantize=requantize,
        same_machine=here,
    )
    if state_dir is None or samples is None or metric is not None or score is not None:
        state = State(None)
    else:
        state = State(state_dir, digest, repr(wanted), _digest(samples, labels))
    done = convert(
        graph,
        samples,
        wanted,
        total=total,
        judge=judge,
        state=state,
        on_progress=on_progress,
    )
    state.clear()
    return done


def _opened(model: str | Path | OpenedModel | onnx.ModelProto | ir.Model) -> OpenedModel:
    if isinstance(model, OpenedModel):
        return model
    if isinstance(model, str | Path):
        return open_model(Path(model))
    import tempfile

    import onnx
    import onnx_ir as ir

    from edgesdk.model.save import save_model

    graph = ir.serde.deserialize_model(model) if isinstance(model, onnx.ModelProto) else model
    if not graph.graph.name:  # a file has to name its graph, one in memory often does not
        graph = graph.clone()
        graph.graph.name = "main"
    # one way in for every model: what checks a file checks this one too
    with tempfile.TemporaryDirectory(prefix="edgesdk-quantize-") as folder:
        opened = open_model(save_model(graph, Path(folder), "model")[0])
        ir.external_data.load_to_model(opened.ir)
        return opened


def _backend(scheme: QuantScheme | str | None) -> tuple[BackendProfile | None, bool]:
    """Find the backend whose scheme is meant, and say whether this computer stands for it.

    None where the numbers themselves were given; they are then taken to be for this computer.
    """
    if isinstance(scheme, QuantScheme):
        return None, scheme.rules.placement == "operators"
    from edgesdk.profiles.catalog import default_target, find_target

    name, _, backend_id = (scheme or "").partition("/")
    target = find_target(name) if name else default_target()
    with_scheme = [one for one in target.backends if one.scheme is not None]
    for one in with_scheme:
        if backend_id in ("", one.id):
            return one, target.default and one.runtime == "onnxruntime"
    raise ProfileError(
        f"cannot quantize for {scheme}: {target.name} has no backend {backend_id!r} with a "
        "scheme of whole numbers",
        hint=f"it has {', '.join(one.id for one in with_scheme) or 'none at all'}",
    )


def _digest(samples: Callable[[], Iterable[Sample]], labels: np.ndarray | None) -> str:
    """Tell samples and labels from others."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    first = {} if labels is None else {"labels": np.asarray(labels)}
    for arrays in itertools.chain([first], samples()):
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _samples(
    data: str | Path | Dataset | Mapping[str, np.ndarray] | Iterable[Sample] | None,
    inputs: Sequence[TensorInfo],
) -> tuple[Callable[[], Iterable[Sample]] | None, int | None, np.ndarray | None, int]:
    """Give a function that starts the samples anew, their number, labels, rows of a batch."""
    from edgesdk.data.dataset import Dataset, open_dataset

    if data is None:
        return None, None, None, 1
    if isinstance(data, str | Path):
        data = open_dataset(data, inputs)
    if isinstance(data, Dataset):
        return data.samples, data.count, data.labels, data.batch
    if isinstance(data, Mapping):
        return _slices(data, inputs)
    # what starts anew by itself need not fit into memory; an iterator is read into it
    again = list(data) if iter(data) is data else data
    total = len(again) if isinstance(again, Sized) else None
    return (lambda: _fitted(again, inputs)), total, None, 1


def _slices(
    arrays: Mapping[str, np.ndarray], inputs: Sequence[TensorInfo]
) -> tuple[Callable[[], Iterable[Sample]], int, np.ndarray | None, int]:
    """Take samples along the first axis of one array per input."""
    import numpy as np

    from edgesdk.data.fit import cast_to, fit_array, match_names

    names, _ = match_names(inputs, list(arrays), _WHERE)
    plain = {info.name: np.asarray(arrays[names[info.name]]) for info in inputs}
    fits = {
        info.name: fit_array(
            info, names[info.name], plain[info.name].dtype, plain[info.name].shape, _WHERE
        )
        for info in inputs
    }
    counts = {name: fit.count for name, fit in fits.items()}
    if len(set(counts.values())) != 1:
        shown = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise DataError(
            f"cannot calibrate: the arrays have different numbers of samples ({shown})",
            hint="give one array per input, samples along the first axis",
        )
    count = next(iter(counts.values()))

    def slices() -> Iterable[Sample]:
        for index in range(count):
            sample = {}
            for info in inputs:
                fit = fits[info.name]
                rows = plain[info.name][index * fit.rows : (index + 1) * fit.rows]
                sample[info.name] = cast_to(info, rows[0] if fit.whole else rows, _WHERE)
            yield sample

    labels = None
    if "labels" in arrays and all(info.name != "labels" for info in inputs):
        labels = np.asarray(arrays["labels"])
    rows = fits[inputs[0].name].rows if inputs else 1
    return slices, count, labels, rows


def _fitted(samples: Iterable[Sample], inputs: Sequence[TensorInfo]) -> Iterable[Sample]:
    """Check each sample against the model's inputs as it goes by."""
    import numpy as np

    from edgesdk.data.fit import fit_sample

    for number, sample in enumerate(samples):
        where = f"sample {number}"
        missing = [info.name for info in inputs if info.name not in sample]
        if missing:
            raise DataError(
                f"cannot calibrate with {where}: it has no {missing[0]!r} (it has "
                f"{', '.join(map(repr, sample)) or 'nothing'})",
                hint="give a dict with one array per input of the model",
            )
        yield {
            info.name: fit_sample(info, np.asarray(sample[info.name]), where) for info in inputs
        }
