"""From a model in a program's memory: exported by the framework that has it, in its process."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.errors import ModelError, ToolchainError
from edgesdk.importers.importing import Imported, open_imported, prove_origin
from edgesdk.importers.job import CannotExport, Exported, Job
from edgesdk.model.values import Origin

if TYPE_CHECKING:
    from edgesdk.model.open import OpenedModel

__all__ = ["from_keras", "from_sklearn", "from_torch"]


def from_torch(
    module: Any,
    example_inputs: Any,
    *,
    name: str = "model",
    dynamic: Sequence[str] = (),
    opset: int | None = None,
) -> OpenedModel:
    """Turn a `torch.nn.Module` into a model that `edgesdk.plan_build` and the others take.

    The module is traced in evaluation mode, and left in the mode it was in.

    Args:
        module: The module.
        example_inputs: A tensor or array, or a tuple of them, as ``module(*inputs)`` takes.
        name: What to call the model.
        dynamic: Names of inputs, as in ``forward``, whose leading extent (the batch) is free.
        opset: Version of ONNX's operators to write.

    Raises:
        ModelError: The module cannot be exported; the text says where and what to change.
        ToolchainError: A package that exporting needs is not installed.
        ProofMismatch: The exported graph gives other numbers; the first layer is named.
    """
    given = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    return _import_live(
        "torch_model",
        module,
        kind="torch-live",
        name=name,
        dynamic=dynamic,
        opset=opset,
        examples=tuple(_as_array(each) for each in given),
    )


def from_keras(
    model: Any,
    *,
    name: str = "",
    shapes: Mapping[str, tuple[int | None, ...]] | None = None,
    dynamic: Sequence[str] = (),
    opset: int | None = None,
) -> OpenedModel:
    """Turn a `keras.Model` into a model that `edgesdk.plan_build` and the others take.

    Args:
        model: The model, built: its input shapes are known.
        name: What to call it; its own name unless given.
        shapes: Shape by input name, where the model leaves one open.
        dynamic: Names of inputs whose leading extent, the batch, stays free.
        opset: Version of ONNX's operators to write.

    Raises:
        ModelError: The model cannot be exported; the text says which layer and what to change.
        ToolchainError: A package that exporting needs is not installed.
        ProofMismatch: The exported graph gives other numbers; the first layer is named.
    """
    return _import_live(
        "tensorflow_model",
        model,
        kind="keras-live",
        name=name or str(getattr(model, "name", "model")),
        shapes=shapes,
        dynamic=dynamic,
        opset=opset,
    )


def from_sklearn(estimator: Any, *, name: str = "", opset: int | None = None) -> OpenedModel:
    """Turn a fitted estimator or pipeline into a model that `edgesdk.plan_build` takes.

    Args:
        estimator: Of scikit-learn, XGBoost or LightGBM; its input is ``[N, features]``.
        name: What to call it; its class's name unless given.
        opset: Version of ONNX's operators to write.

    Raises:
        ModelError: It is not fitted, or a step of it cannot be exported; the step is named.
        ToolchainError: A package that exporting needs is not installed.
        ProofMismatch: The exported graph gives other numbers.
    """
    return _import_live(
        "sklearn_model",
        estimator,
        kind="sklearn-live",
        name=name or type(estimator).__name__,
        opset=opset,
    )


def _import_live(
    exporter: str,
    source: Any,
    *,
    kind: str,
    name: str,
    shapes: Mapping[str, tuple[int | None, ...]] | None = None,
    dynamic: Sequence[str] = (),
    opset: int | None = None,
    examples: tuple[Any, ...] = (),
) -> OpenedModel:
    with tempfile.TemporaryDirectory(prefix="edgesdk-import-") as scratch:

        def export(part: str, *, trace: bool) -> Exported:
            out = Path(scratch) / part
            out.mkdir()
            return _export(exporter, dataclasses.replace(job, out=out, trace=trace))

        job = Job(
            source=source,
            kind=kind,
            name=name,
            out=Path(scratch),
            shapes=shapes or {},
            dynamic=tuple(dynamic),
            opset=opset,
            examples=examples,
            trust=True,  # it is in this process already
        )
        exported = export("model", trace=False)
        origin = Origin(
            format=kind,
            sha256="",
            versions=dict(sorted(exported.versions.items())),
            notes=exported.notes,
        )
        proven = prove_origin(
            exported, origin, name=name, again=lambda: export("traced", trace=True)
        )
        opened = open_imported(Imported(path=exported.model, origin=proven))
        return _apart_from_files(opened, name)


def _apart_from_files(opened: OpenedModel, name: str) -> OpenedModel:
    """Read external data into memory, for the file goes away, and name the model."""
    import onnx_ir as ir

    ir.external_data.load_to_model(opened.ir)
    source = dataclasses.replace(opened.source, name=name, path=Path(f"{name}.onnx"))
    return dataclasses.replace(opened, source=source)


def _export(exporter: str, job: Job) -> Exported:
    module = importlib.import_module(f"edgesdk.importers.frameworks.{exporter}")
    try:
        exported: Exported = module.export(job)
    except CannotExport as exc:
        raise ModelError(str(exc), hint=exc.hint, **exc.facts) from exc
    except ImportError as exc:
        missing = exc.name or str(exc)
        raise ToolchainError(
            f"cannot import {job.name}: the package {missing} is not installed here",
            hint=f"pip install {missing}, or save the model to a file and give that to "
            "`edgesdk import`, which brings its own packages",
            package=missing,
        ) from exc
    return exported


def _as_array(value: Any) -> Any:
    """Give an array of a tensor or array, wherever it lives."""
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()  # NumPy has no such type
    for step in ("detach", "cpu", "numpy"):
        with contextlib.suppress(AttributeError):
            value = getattr(value, step)()
    return value
