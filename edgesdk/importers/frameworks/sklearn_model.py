"""scikit-learn's estimators, and those of XGBoost and LightGBM, as ONNX.

One input, float32, a row of features for each sample, the number of rows free unless a shape
says otherwise. A classifier gives ``label`` (whole numbers; where the classes are words, their
place in ``classes_``, which the notes list) and ``probabilities``, or ``scores`` where it has a
decision only; a regressor gives ``prediction``. The graph is skl2onnx's; the framework answers
the same rows in float64, which is what it computes in.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesdk.importers.frameworks._boosters import BoostedModel, dressed
from edgesdk.importers.frameworks._sklearn_examples import Rows, choose_rows
from edgesdk.importers.frameworks._sklearn_files import load_estimator, refuse_pickle
from edgesdk.importers.frameworks._sklearn_graph import (
    BATCH,
    INPUT,
    Converted,
    convert,
    finish_graph,
    packages_in,
)
from edgesdk.importers.job import CannotExport, Example, Exported, Job, Layer

__all__ = ["export", "refuse_early"]

#: Rows of the examples; the last is another batch.
_EXAMPLES = (16, 16, 5)
_MOST_CLASSES_SHOWN = 40
_MOST_FEATURES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class _Role:
    """What an estimator is asked: the outputs by name, in skl2onnx's order."""

    outputs: tuple[str, ...]
    words: tuple[str, ...] = ()


def export(job: Job) -> Exported:
    """Turn an estimator into an ONNX file with examples of what it answers.

    Raises:
        CannotExport: The source runs code, is damaged, or has a step that ONNX has not.
    """
    job.on_step("load the estimator")
    loaded = load_estimator(job)
    estimator = _prepared(dressed(loaded.estimator, job.name), job)
    width = _width(estimator, job)
    rows = _rows(job, width)
    role = _role(estimator, job)
    job.on_step("write the graph")
    converted = convert(estimator, job, rows, width)
    if len(converted.model.graph.output) < len(role.outputs):
        raise CannotExport(
            f"cannot import {job.name}: its graph has {len(converted.model.graph.output)} "
            f"outputs (expected {', '.join(role.outputs)})",
            hint="please report it with the estimator's class and parameters",
        )
    job.on_step("ask the framework")
    notes = list(loaded.notes)
    examples = _examples(estimator, job, role, converted, shape=(rows, width), notes=notes)
    finish_graph(converted, role.outputs, _shapes(examples, rows), role.words)
    if role.words:
        shown = ", ".join(f"{i} {w!r}" for i, w in enumerate(role.words[:_MOST_CLASSES_SHOWN]))
        notes.append(f"label gives numbers of classes: {shown}")
    layers = _layers(estimator, converted, examples[0].inputs[INPUT]) if job.trace else ()
    path = job.out / "model.onnx"
    path.write_bytes(converted.model.SerializeToString())
    opset = next(e.version for e in converted.model.opset_import if not e.domain)
    if job.opset is not None and opset != job.opset:
        notes.append(f"opset {opset} was written, which is all that its operators need")
    return Exported(
        model=path,
        opset=opset,
        versions=_versions(estimator),
        examples=examples,
        layers=layers,
        notes=tuple(notes),
    )


def refuse_early(job: Job) -> None:
    """Refuse what needs no scikit-learn to be refused.

    Raises:
        CannotExport: A pickle is not trusted.
    """
    if job.kind in ("pickle", "joblib"):
        refuse_pickle(job)


def _prepared(estimator: Any, job: Job) -> Any:
    """Give an estimator that numbers its columns, in a copy where that changes it.

    Raises:
        CannotExport: It is no fitted estimator, or takes words.
    """
    if not hasattr(estimator, "predict") and not hasattr(estimator, "transform"):
        raise CannotExport(
            f"cannot import {job.name}: it holds a {type(estimator).__name__} (expected a "
            "fitted estimator of scikit-learn, XGBoost or LightGBM)",
            hint="save the estimator itself, not what it is part of",
        )
    if isinstance(estimator, BoostedModel):
        return estimator
    _refuse_words(estimator, job)
    columns = getattr(estimator, "feature_names_in_", None)
    inside = list(_inside(estimator))
    has_names = any(
        hasattr(each, "feature_names_in_") and hasattr(each, "transformers_") for each in inside
    )
    flattens = any(hasattr(each, "flatten_transform") for each in inside)
    if not has_names and not flattens:
        return estimator
    prepared = copy.deepcopy(estimator)
    for each in _inside(prepared):
        if hasattr(each, "flatten_transform"):
            each.flatten_transform = False  # skl2onnx asks for it; predictions do not change
        if hasattr(each, "transformers_") and hasattr(each, "feature_names_in_"):
            _number_columns(each, columns, job)
    return prepared


def _inside(estimator: Any) -> list[Any]:
    """List an estimator and the steps and transformers in it, outermost first."""
    found = [estimator]
    for _, step in getattr(estimator, "steps", ()):
        found += _inside(step)
    for entry in getattr(estimator, "transformers_", ()):
        found += _inside(entry[1])
    return found


def _number_columns(transformer: Any, columns: Any, job: Job) -> None:
    """Write a ColumnTransformer's columns as positions, for rows that have no names."""
    known = [str(each) for each in transformer.feature_names_in_]
    if columns is not None and [str(each) for each in columns] != known:
        raise CannotExport(
            f"cannot import {job.name}: a ColumnTransformer behind another step chooses its "
            "columns by name",
            hint="choose them by position there",
        )

    def numbers(chosen: Any) -> Any:
        if isinstance(chosen, str):
            return [known.index(chosen)]
        if isinstance(chosen, (list, tuple, np.ndarray)):
            return [known.index(c) if isinstance(c, str) else c for c in chosen]
        return chosen

    for name in ("transformers_", "transformers"):
        entries = getattr(transformer, name)
        setattr(transformer, name, [(n, t, numbers(chosen)) for n, t, chosen in entries])


def _refuse_words(estimator: Any, job: Job) -> None:
    for each in _inside(estimator):
        for known in getattr(each, "categories_", ()):
            if np.asarray(known).dtype.kind in "OUS":
                raise CannotExport(
                    f"cannot import {job.name}: its {type(each).__name__} reads words, such as "
                    f"{np.asarray(known).ravel()[0]!r} (expected numbers: no device is sent "
                    "words)",
                    hint="number the categories where the data are made, and fit the rest",
                )


def _width(estimator: Any, job: Job) -> int:
    width = getattr(estimator, "n_features_in_", None)
    given = _given_shape(job)
    if width is None and given is not None and len(given) == 2:
        width = given[1]
    if not isinstance(width, (int, np.integer)) or not 0 < width <= _MOST_FEATURES:
        raise CannotExport(
            f"cannot import {job.name}: its {type(estimator).__name__} does not say how many "
            "features it takes",
            hint="is it fitted? else say it: --input-shape 1,64",
        )
    return int(width)


def _given_shape(job: Job) -> tuple[int | None, ...] | None:
    for name in job.shapes:
        if name not in ("", INPUT):
            raise CannotExport(
                f"cannot import {job.name}: it has no input {name!r} (it has {INPUT!r})",
                hint=f"--input-shape {INPUT}=1,64",
            )
    return job.shapes.get(INPUT, job.shapes.get(""))


def _rows(job: Job, width: int) -> int | None:
    """Give the fixed batch, or None: rows are independent, so their number is free."""
    unknown = [name for name in job.dynamic if name not in ("", INPUT)]
    if unknown:
        raise CannotExport(
            f"cannot import {job.name}: it has no input {unknown[0]!r} (it has {INPUT!r})",
            hint=f"--dynamic {INPUT}; it is free unless a shape fixes it",
        )
    shape = _given_shape(job)
    if shape is None:
        return None
    if len(shape) != 2 or shape[1] not in (None, width):
        shown = ",".join("?" if extent is None else str(extent) for extent in shape)
        raise CannotExport(
            f"cannot import {job.name}: the shape {shown} does not fit (expected rows of "
            f"{width} features)",
            hint=f"--input-shape {INPUT}=1,{width}",
        )
    return None if job.dynamic else shape[0]


def _role(estimator: Any, job: Job) -> _Role:
    """Say what is asked of an estimator.

    Raises:
        CannotExport: Its labels are words of several outputs, or it cannot be asked anything.
    """
    if isinstance(estimator, BoostedModel):
        return _Role(
            outputs=("label", "probabilities") if estimator.is_classifier else ("prediction",)
        )
    import sklearn.base

    if sklearn.base.is_classifier(estimator):
        classes = getattr(estimator, "classes_", ())
        several = isinstance(classes, list)
        listed = [each for some in (classes if several else [classes]) for each in some]
        has_words = any(isinstance(each, str) for each in listed)
        if has_words and several:
            raise CannotExport(
                f"cannot import {job.name}: it gives several labels that are words",
                hint="number the classes before it is fitted: LabelEncoder().fit_transform(y)",
            )
        words = tuple(str(each) for each in classes) if has_words else ()
        scores = "probabilities" if hasattr(estimator, "predict_proba") else "scores"
        return _Role(outputs=("label", scores), words=words)
    if sklearn.base.is_regressor(estimator):
        return _Role(outputs=("prediction",))
    if hasattr(estimator, "predict"):
        chances = hasattr(estimator, "predict_proba")
        return _Role(outputs=("label", "probabilities" if chances else "scores"))
    return _Role(outputs=("features",))


def _answer(estimator: Any, role: _Role, rows: Rows, *, two_columns: bool) -> dict[str, Any]:
    """Ask the framework in float64; give what the graph has to, by output."""
    exact = rows.astype(np.float64)
    found: dict[str, NDArray[np.generic]] = {}
    for name in role.outputs:
        if name == "label":
            found[name] = _numbered(np.asarray(estimator.predict(exact)), role)
        elif name == "prediction":
            found[name] = _columns(np.asarray(estimator.predict(exact)))
        elif name == "features":
            value = estimator.transform(exact)
            found[name] = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
        elif name == "probabilities":
            several = estimator.predict_proba(exact)
            found[name] = np.stack(several) if isinstance(several, list) else several
        else:
            found[name] = _scores(estimator, exact, two_columns=two_columns)
    return {
        name: value if name == "label" else np.asarray(value, np.float32)
        for name, value in found.items()
    }


def _numbered(labels: NDArray[Any], role: _Role) -> NDArray[np.int64]:
    if role.words:
        place = {word: number for number, word in enumerate(role.words)}
        return np.array([place[str(each)] for each in labels], np.int64)
    return labels.astype(np.int64)


def _columns(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _scores(estimator: Any, rows: NDArray[np.float64], *, two_columns: bool) -> Any:
    if not hasattr(estimator, "decision_function"):
        return estimator.transform(rows)
    found = _columns(np.asarray(estimator.decision_function(rows)))
    return np.concatenate([-found, found], 1) if two_columns and found.shape[1] == 1 else found


def _examples(
    estimator: Any,
    job: Job,
    role: _Role,
    converted: Converted,
    *,
    shape: tuple[int | None, int],
    notes: list[str],
) -> tuple[Example, ...]:
    fixed, width = shape

    def answer(rows: Rows) -> dict[str, Any]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                return _answer(estimator, role, rows, two_columns=converted.two_columns)
            except Exception as exc:
                raise CannotExport(
                    f"cannot import {job.name}: {type(estimator).__name__} does not answer: "
                    f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}",
                    hint="does it predict on a float array where it was trained?",
                ) from exc

    if job.examples:
        given = [np.asarray(each, np.float32) for each in job.examples]
        wrong = [each for each in given if each.ndim != 2 or each.shape[1] != width]
        if wrong:
            raise CannotExport(
                f"cannot import {job.name}: an example has the shape {list(wrong[0].shape)} "
                f"(expected rows of {width} features)",
                hint="give examples as the estimator was fitted on",
            )
        batches = given if len(given) > 1 else [*given, given[0][:1]]
    else:
        counts = [fixed or count for count in _EXAMPLES]
        rows, left_out, drawn = choose_rows(
            estimator, width, sum(counts), lambda rows: list(answer(rows).values())
        )
        batches = np.split(rows, np.cumsum(counts)[:-1])
        if left_out:
            notes.append(
                f"{left_out} of {drawn} made-up rows were not compared: within a float32's "
                f"rounding of them {_last_name(estimator)} itself answers otherwise, or two "
                "classes are tied"
            )
    return tuple(Example(inputs={INPUT: each}, outputs=answer(each)) for each in batches)


def _last_name(estimator: Any) -> str:
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return type(estimator).__name__


def _shapes(examples: tuple[Example, ...], rows: int | None) -> list[tuple[int | str, ...]]:
    """Give the outputs' shapes; extents that follow the batch are free where it is."""
    first, last = examples[0], examples[-1]
    counts = [each.inputs[INPUT].shape[0] for each in (first, last)]
    return [
        tuple(
            BATCH if rows is None and [one, other] == counts and one != other else one
            for one, other in zip(value.shape, last.outputs[name].shape, strict=True)
        )
        for name, value in first.outputs.items()
    ]


def _layers(estimator: Any, converted: Converted, rows: Any) -> tuple[Layer, ...]:
    """Give what each step of a pipeline makes of the rows, where the graph has it."""
    layers = []
    value = rows.astype(np.float64)
    for name, step in getattr(estimator, "steps", ())[:-1]:
        if step is None or step == "passthrough":
            continue
        value = step.transform(value)
        dense = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
        tensor = converted.tensors.get(id(step), "")
        if tensor:
            layers.append(Layer(name=name, tensor=tensor, value=dense.astype(np.float32)))
    return tuple(layers)


def _versions(estimator: Any) -> dict[str, str]:
    """Give the versions of what took part; a booster's package goes by several names."""
    import sys

    packages = {"sklearn", "skl2onnx", "onnx", *packages_in(estimator)}
    packages |= {"lightgbm"} if isinstance(estimator, BoostedModel) else set()
    packages |= {"onnxmltools"} if packages & {"xgboost", "lightgbm"} else set()
    return {
        "scikit-learn" if name == "sklearn" else name: str(sys.modules[name].__version__)
        for name in sorted(packages)
        if hasattr(sys.modules.get(name), "__version__")
    }
