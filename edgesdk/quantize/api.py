"""``edgesdk.quantize``: the quantizer on its own, from a model to a graph that can be saved."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import EdgeError, ModelError, ProfileError, QuantizeError
from edgesdk.model.open import OpenedModel, open_model
from edgesdk.model.simplify import simplify
from edgesdk.near import suggest
from edgesdk.profiles.values import BackendProfile, QuantScheme
from edgesdk.progress import OnProgress, ignore_progress
from edgesdk.quantize.judge import Judge, LabelledJudge, Metric, Score, ScoreJudge
from edgesdk.quantize.keep import why_not_kept
from edgesdk.quantize.means import ALL_MEANS, MEANS
from edgesdk.quantize.modes import Wanted, convert
from edgesdk.quantize.prune_spec import parse_prune
from edgesdk.quantize.samples import Calibration, Sample, take_samples
from edgesdk.quantize.state import State
from edgesdk.quantize.values import Quantized

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir

__all__ = ["quantize"]

#: What cannot be done without calibration data; ``auto`` takes another precision then.
_NEED_DATA = ("int8", "int16x8")


def quantize(
    model: str | Path | OpenedModel | onnx.ModelProto | ir.Model,
    data: Calibration | None,
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
            per input (the array itself where there is one input), or an iterable of dicts with
            the batch dimension in each array. It is gone through more than once where it has
            to, so an iterator is read into memory.
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
    means = _known_means(means)
    _refuse_odd_judging(labels, metric, score, data)
    opened = _opened(model)
    backend, here = _backend(scheme)
    chosen = scheme if isinstance(scheme, QuantScheme) else backend.scheme if backend else None
    samples, total, found_labels, batch = take_samples(data, opened.source.inputs)
    digest, graph = opened.source.sha256, simplify(opened.ir)
    _refuse_unknown_names(keep_float, opened.ir, graph)
    del opened, model  # a file's weights need not lie beside those of the simplified graph
    labels = found_labels if labels is None else labels
    if samples is None and precision in _NEED_DATA:
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
    elif metric is not None:
        raise QuantizeError(
            "cannot measure by metric=: there are no labels",
            hint="give labels=, or a score= that needs none",
        )
    wanted = Wanted(
        precision=precision,
        scheme=chosen,
        precisions=backend.precisions if backend else ("int8", "int8-dynamic", "fp16", "fp32"),
        runtime=backend.runtime if backend else "onnxruntime",
        kind=backend.kind if backend else "onnxruntime",
        max_opset=backend.max_opset if backend else None,
        max_ir=backend.max_ir if backend else None,
        keep_float=tuple(sorted(set(keep_float))),
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


def _known_means(means: Collection[str]) -> tuple[str, ...]:
    """Give the means in the order in which they are tried, whatever order they came in."""
    if isinstance(means, str):
        raise QuantizeError(
            f"cannot try the means {means!r}: it is one text (expected a list of names)",
            hint=f"write means=[{means!r}]",
        )
    for name in means:
        if name not in ALL_MEANS:
            raise QuantizeError(
                f"cannot try {name!r}: there is no such accuracy means",
                hint=suggest(name, ALL_MEANS) or f"there are {', '.join(ALL_MEANS)}",
            )
    return tuple(name for name in ALL_MEANS if name in means)


def _refuse_odd_judging(
    labels: object | None, metric: object | None, score: object | None, data: object | None
) -> None:
    """Refuse arguments that would be left aside in silence."""
    for name, given in (("labels", labels), ("metric", metric)):
        if score is not None and given is not None:
            raise QuantizeError(
                f"cannot use score= and {name}= together: score= measures without {name}",
                hint=f"leave out {name}= or score=",
            )
    if labels is not None and data is None:
        raise QuantizeError(
            "cannot use labels= without data: they are the labels of its samples",
            hint="give the samples as data, or leave out labels=",
        )


def _refuse_unknown_names(keep_float: Collection[str], *models: ir.Model) -> None:
    """Refuse names to keep in float that neither the model nor its simplified form has."""
    names = {node.name or "" for model in models for node in model.graph.all_nodes()} - {""}
    ops = {node.op_type for model in models for node in model.graph.all_nodes()}
    wrong = why_not_kept(keep_float, names, ops)
    if wrong is not None:
        raise QuantizeError(f"cannot use keep_float=: {wrong[0]}", hint=wrong[1])


def _opened(model: str | Path | OpenedModel | onnx.ModelProto | ir.Model) -> OpenedModel:
    if isinstance(model, OpenedModel):
        return model
    if isinstance(model, str | Path):
        return open_model(Path(model))
    import tempfile

    import onnx
    import onnx_ir as ir

    from edgesdk.model.save import save_model

    if not isinstance(model, onnx.ModelProto | ir.Model):
        raise ModelError(
            f"cannot quantize an object of type {type(model).__name__} (expected the path of "
            "an ONNX file, an OpenedModel, an onnx.ModelProto or an onnx_ir.Model)",
            hint="bytes become a model by onnx.load_from_string(data)",
        )
    graph = ir.serde.deserialize_model(model) if isinstance(model, onnx.ModelProto) else model
    if not graph.graph.name:  # a file has to name its graph, one in memory often does not
        graph = graph.clone()
        graph.graph.name = "main"
    # one way in for every model: what checks a file checks this one too
    with tempfile.TemporaryDirectory(prefix="edgesdk-quantize-") as folder, _unnamed(folder):
        opened = open_model(save_model(graph, Path(folder), "model")[0])
        ir.external_data.load_to_model(opened.ir)
        return opened


@contextlib.contextmanager
def _unnamed(folder: str) -> Iterator[None]:
    """Let errors name the model in memory, not the file that it was put in for a moment."""

    def plain(text: object) -> object:
        if not isinstance(text, str):
            return text
        for path in (str(Path(folder) / "model.onnx"), folder):
            text = text.replace(path, "the model in memory")
        return text

    try:
        yield
    except EdgeError as exc:
        exc.args = tuple(plain(one) for one in exc.args)
        exc.hint = str(plain(exc.hint))
        exc.facts = {name: plain(value) for name, value in exc.facts.items()}
        raise


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
    known = [one.id for one in with_scheme]
    asked = f"backend {backend_id!r}" if backend_id else "backend"
    raise ProfileError(
        f"cannot quantize for {scheme or target.name}: {target.name} has no {asked} with a "
        "scheme of whole numbers",
        hint=suggest(backend_id, known) or f"it has {', '.join(known) or 'none at all'}",
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
