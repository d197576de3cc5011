"""Write a prepared program as ONNX, with examples and a trace of its layers.

PyTorch's exporter names a value of the ONNX graph as the node of the (decomposed) program that
makes it, which is how a trace finds its tensors. It also notes on each node where in the user's
files it came from; nodes get the name of their module from that, and the notes are taken out,
for the same model has to give the same file on every computer.

Opset 18 is what the exporter's functions are written for; other versions are converted from it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgesdk.importers.frameworks.torch_inputs import InputSpec, example_arrays, to_tensors
from edgesdk.importers.frameworks.torch_prepare import Prepared, run_program
from edgesdk.importers.frameworks.torch_words import last_line, quiet
from edgesdk.importers.job import CannotExport, Example, Exported, Job, Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["write_onnx"]

_OPSET = 18
_MAX_LAYERS = 2000
_MAX_LAYER_VALUES = 1 << 24
_MISSING = re.compile(
    r"No ONNX function found for (?:<OpOverload\(op='([\w.]+)', overload='(\w*)'\)>|(\S+))"
)
_SAFE_NAME = re.compile(r"[^A-Za-z0-9_.]")
#: How the packages that take part are called.
_PACKAGES = ("torch", "onnxscript", "onnx", "onnx-ir")


def write_onnx(
    prepared: Prepared,
    job: Job,
    *,
    output_names: Sequence[str] | None = None,
    examples: Sequence[tuple[NDArray[np.generic], ...]] = (),
) -> Exported:
    """Write ``model.onnx`` into the job's folder.

    Args:
        prepared: The program.
        job: For the opset, the names and whether a trace is wanted.
        output_names: As the source calls its outputs; made up where it does not.
        examples: Inputs to use before those made from a seed.

    Raises:
        CannotExport: An operator has no counterpart in ONNX, or not in that opset, or the
            program keeps state between calls.
    """
    job.on_step("writing ONNX")
    names = [spec.name for spec in prepared.inputs]
    outputs = _output_names(prepared, output_names, names)
    exported = _convert(prepared, job, names, outputs)
    _check_state(exported.exported_program, job)
    model = exported.model
    path = job.out / "model.onnx"
    opset = int(model.opset_imports[""])
    _check_complete(model, opset, job)
    rows = _traced_rows(exported.exported_program)
    _name_dimensions(model, prepared.inputs)
    _name_nodes(model)
    model.graph.name = _SAFE_NAME.sub("_", job.name) or "model"
    tensors = {value.name for node in model.graph for value in node.outputs}
    exported.save(path)
    job.on_step("asking PyTorch for examples")
    sets = [*examples, *example_arrays(prepared.inputs)][:3]
    answered, loss = _examples(prepared, exported.exported_program, sets, names, outputs)
    layers: tuple[Layer, ...] = ()
    if job.trace:
        job.on_step("asking PyTorch for its layers")
        layers = _layers(exported.exported_program, rows, sets[0], tensors, outputs)
    return Exported(
        model=path,
        opset=opset,
        versions=_versions(),
        examples=answered,
        layers=layers,
        notes=(*prepared.notes, *loss),
    )


def _convert(prepared: Prepared, job: Job, names: list[str], outputs: list[str]) -> Any:
    import torch

    try:
        with quiet("torch.onnx"):  # it tells of libraries that are not there
            return torch.onnx.export(
                prepared.program,
                input_names=names,
                output_names=outputs,
                opset_version=job.opset or _OPSET,
                dynamo=True,
                verbose=False,
            )
    except (MemoryError, ImportError):
        raise
    except Exception as exc:
        raise _explained(exc, prepared.program, job) from exc


def _explained(exc: Exception, program: Any, job: Job) -> CannotExport:
    chain: list[BaseException] = []
    seen: BaseException | None = exc
    while seen is not None:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    text = "\n".join(map(str, chain))
    missing = _MISSING.search(text)
    if missing:
        operator = (missing.group(1) or missing.group(3) or "").rstrip(".")
        where = _where_used(program, operator.replace("::", "."))
        return CannotExport(
            f"cannot export {job.name}: PyTorch's exporter has no ONNX for {operator}"
            + (f" (at {where})" if where else ""),
            hint="compute it by other operators of PyTorch there",
            operator=operator,
            where=where,
        )
    if job.opset is not None and "opset" in text.lower():
        return CannotExport(
            f"cannot write {job.name} in opset {job.opset}: {last_line(chain[-1])}",
            hint=f"leave out --opset; PyTorch writes {_OPSET} best",
            opset=job.opset,
        )
    return CannotExport(
        f"cannot export {job.name} to ONNX: {last_line(chain[-1])}",
        hint="torch.onnx.export(program, dynamo=True, report=True) writes a report that says "
        "more",
    )


def _where_used(program: Any, operator: str) -> str:
    """Find the user's line behind an operator."""
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target).startswith(operator):
            return _users_line(node)
    return ""


def _users_line(node: Any) -> str:
    import torch

    inside = torch.__file__.rpartition("/")[0]
    frames = re.findall(r'File "([^"]+)", line (\d+)', str(node.meta.get("stack_trace", "")))
    # a file in angle brackets is code that PyTorch made
    own = [f"{file}:{line}" for file, line in frames if not file.startswith((inside, "<"))]
    own = [each for each in own if "site-packages/torch/" not in each]
    return own[-1] if own else ""


def _check_state(program: Any, job: Job) -> None:
    """Refuse a program that changes its buffers or inputs; only decomposed ones say so."""
    changed = [
        str(spec.target)
        for spec in program.graph_signature.output_specs
        if spec.kind.name in ("BUFFER_MUTATION", "PARAMETER_MUTATION", "USER_INPUT_MUTATION")
    ]
    if changed:
        raise CannotExport(
            f"cannot export {job.name}: a call changes {', '.join(changed[:5])}, and an ONNX "
            "graph keeps nothing between calls",
            hint="make the state an input and an output of forward()",
            state=", ".join(changed[:20]),
        )


def _check_complete(model: Any, opset: int, job: Job) -> None:
    if job.opset is not None and opset != job.opset:
        raise CannotExport(
            f"cannot write {job.name} in opset {job.opset}: its operators could not be "
            f"converted from opset {opset}",
            hint=f"leave out --opset, or ask for {opset}",
            opset=job.opset,
        )
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in model.graph if node.domain})
    if foreign:
        raise CannotExport(
            f"cannot export {job.name}: the exporter left {', '.join(foreign[:5])}, which "
            "is no operator of ONNX",
            hint="compute it by other operators of PyTorch",
            operator=foreign[0],
        )
    for domain in [domain for domain in model.opset_imports if domain]:
        del model.opset_imports[domain]


def _output_names(
    prepared: Prepared, asked: Sequence[str] | None, inputs: Sequence[str]
) -> list[str]:
    specs = prepared.program.graph_signature.output_specs
    count = sum(
        spec.kind.name == "USER_OUTPUT" and type(spec.arg).__name__ == "TensorArgument"
        for spec in specs
    )
    if asked is not None and len(asked) == count and len(set(asked)) == count:
        names = [_SAFE_NAME.sub("_", name) for name in asked]
    else:
        names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    return [f"{name}_out" if name in inputs else name for name in names]


def _name_dimensions(model: Any, inputs: Sequence[InputSpec]) -> None:
    """Call the leading free extent of the inputs ``batch`` and the others by their place."""
    import onnx_ir

    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, inputs, strict=True):
        for axis, extent in enumerate(value.shape or ()):
            symbol = getattr(extent, "value", None)
            if isinstance(symbol, str) and re.fullmatch(r"\w+", symbol):
                leads = axis == 0 and "batch" not in names.values()
                names.setdefault(symbol, "batch" if leads else f"{spec.name}_{axis}")
    if not names:
        return
    words = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")

    def renamed(extent: Any) -> Any:
        symbol = getattr(extent, "value", None)
        if not isinstance(symbol, str):
            return extent
        return words.sub(lambda match: names[match.group()], symbol)

    values = [*model.graph.inputs, *(out for node in model.graph for out in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = onnx_ir.Shape([renamed(extent) for extent in value.shape])


def _name_nodes(model: Any) -> None:
    """Name nodes by the module they came from, and take out what says where that was."""
    used: dict[str, int] = {}
    for node in model.graph.all_nodes():
        scopes: Any = ()
        try:
            scopes = ast.literal_eval(
                node.metadata_props.get("pkg.torch.onnx.name_scopes", "()")
            )
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            scopes = ()
        path = str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""
        own = f"{path}/{node.op_type}" if path else str(node.name or node.op_type)
        used[own] = used.get(own, 0) + 1
        node.name = own if used[own] == 1 else f"{own}_{used[own]}"
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def _examples(
    prepared: Prepared,
    program: Any,
    sets: Sequence[tuple[NDArray[np.generic], ...]],
    names: Sequence[str],
    outputs: Sequence[str],
) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Ask the source; where it computes in half precision, ask the program in float32.

    Half precision differs from float32 by more than a proof may let through, so there the
    proof is of the program, and a note says how far the source itself is from it.
    """
    half = [each for each in prepared.from_types if each != "float64"]
    module = program.module(check_guards=False) if half else None
    made, furthest, largest = [], 0.0, 0.0
    for arrays in sets:
        tensors = to_tensors(arrays)
        answers = _as_float32(prepared.original(tensors))
        if half:
            own = _as_float32(run_program(module, program, tensors))
            for ours, theirs in zip(own, answers, strict=True):
                if ours.size:
                    apart = ours.astype("float64") - theirs.astype("float64")
                    furthest = max(furthest, float(abs(apart).max()))
                    largest = max(largest, float(abs(ours.astype("float64")).max()))
            answers = own
        made.append(
            Example(
                inputs=dict(zip(names, arrays, strict=True)),
                outputs=dict(zip(outputs, answers, strict=True)),
            )
        )
    notes: tuple[str, ...] = ()
    if half:
        notes = (
            f"in {' and '.join(half)} the source's answers differ from the float32 ones by up "
            f"to {furthest:.2g} (largest answer {largest:.3g})",
        )
    return tuple(made), notes


def _as_float32(tensors: Sequence[Any]) -> list[NDArray[np.generic]]:
    import torch

    return [
        (each.to(torch.float32) if each.dtype.is_floating_point else each)
        .detach()
        .cpu()
        .numpy()
        for each in tensors
    ]


def _traced_rows(program: Any) -> dict[str, str]:
    """Give each computed value of a program by name, with what to call its layer."""
    rows = {}
    signature = program.graph_signature
    weights = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    for node in program.graph.nodes:
        if node.op == "call_function":
            stack = node.meta.get("nn_module_stack") or {}
            paths = [str(path) for path, _ in stack.values() if path]
            where = _users_line(node)
            target = getattr(node.target, "__name__", str(node.target)).removeprefix("aten.")
            held = [weights[each.name] for each in node.all_input_nodes if each.name in weights]
            layer = (paths[-1:] or held[:1] or [""])[0]
            rows[node.name] = (
                (f"{layer} " if layer else "")
                + f"({target})"
                + (f" at {where}" if where else "")
            )
    return rows


def _layers(
    program: Any,
    rows: dict[str, str],
    arrays: tuple[NDArray[np.generic], ...],
    tensors: set[str],
    outputs: Sequence[str],
) -> tuple[Layer, ...]:
    import torch

    module = program.module(check_guards=False)
    kept: list[Layer] = []
    returned = _returned(program, outputs)
    budget = _MAX_LAYER_VALUES

    class Recorder(torch.fx.Interpreter):  # type: ignore[misc]  # torch has no types here
        def run_node(self, node: Any) -> Any:
            nonlocal budget
            value = super().run_node(node)
            tensor = returned.get(node.name, node.name)
            wanted = node.name in rows and tensor in tensors and len(kept) < _MAX_LAYERS
            if wanted and isinstance(value, torch.Tensor) and value.numel() <= budget:
                budget -= value.numel()
                array = _as_float32([value])[0].copy()
                kept.append(Layer(name=rows[node.name], tensor=tensor, value=array))
            return value

    def call(*args: Any, **kwargs: Any) -> Any:
        flat = [*args, *kwargs.values()]
        from torch.utils import _pytree as pytree

        return Recorder(module).run(*pytree.tree_leaves(flat), enable_io_processing=False)

    run_program(call, program, to_tensors(arrays))
    return tuple(kept)


def _returned(program: Any, outputs: Sequence[str]) -> dict[str, str]:
    """Give the ONNX name of each value that a program returns."""
    specs = [
        spec.arg.name
        for spec in program.graph_signature.output_specs
        if spec.kind.name == "USER_OUTPUT" and type(spec.arg).__name__ == "TensorArgument"
    ]
    return dict(zip(specs, outputs, strict=True))


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
