"""Read TorchScript safely, and turn it into a program of torch.export.

**What loading runs.** ``torch.jit.load`` has an unpickler of its own, in C++, which knows the
classes in the archive and those of PyTorch and can import nothing from Python. But TorchScript
is a language: a class's ``__setstate__`` runs while loading and ``forward`` when it is called,
and two of its operators, ``save`` and ``from_file``, touch files. So the source in the archive
is searched for those names first; without them TorchScript computes and does nothing else.

**Why it is traced again.** PyTorch 2.13 has two ways from TorchScript to ONNX, and neither
takes a transformer: ``torch.onnx.export(dynamo=False)``, which is deprecated, stops at its
branches and at the fused layers that tracing leaves behind, and ``TS2EPConverter`` at its
branches. Here TorchScript's interpreter runs the model on an example while the operators that
it calls are recorded, before they are split up, so that an LSTM stays one operator. Branches on
shapes and settings are then gone. A branch on a value cannot be recorded and is an error that
names the line.

**A free batch.** The interpreter computes sizes as plain numbers, so a recording is of one
batch. It is made at two batches: numbers that differ are ``a * batch + b`` for the same ``a``
and ``b``, and a third batch has to agree.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgesdk.importers.frameworks.torch_archive import opened_archive
from edgesdk.importers.frameworks.torch_fused import fused_layers
from edgesdk.importers.frameworks.torch_inputs import InputSpec, first_tensors
from edgesdk.importers.frameworks.torch_words import last_line
from edgesdk.importers.job import CannotExport, Job

__all__ = ["load_script", "record_script", "script_inputs"]

#: Identifiers that reach files, wherever they stand in TorchScript's source.
_FILE_NAMES = re.compile(rb"\b(from_file|save)\b")
_OTHER_LIBRARIES = re.compile(r"\bops\.(\w+)\.(\w+)")
_KNOWN_LIBRARIES = frozenset({"aten", "prim", "prims", "quantized", "prepacked"})
#: What of an archive PyTorch is given to load.
_NEEDED = ("code/", "data", "constants", "version", "byteorder", ".data/")
_BATCHES = (2, 3, 5)
_HERE = re.compile(
    r'File "([^"\n]+)", line (\d+), in (\w+)\n((?:(?!File ")[^\n]*\n)*?)[ ~]*<--- HERE'
)


def load_script(job: Job) -> Any:
    """Load a TorchScript module in inference mode.

    Raises:
        CannotExport: The file is spoilt, touches files, or needs a library that is not here.
    """
    path, clean = Path(job.source), job.out / "script.pt"
    with opened_archive(path) as archive:
        for record in archive.below("code/"):
            if not record.endswith(".py"):
                continue
            source = archive.read(record)
            found = _FILE_NAMES.search(source)
            if found and not job.trust:
                line = source.count(b"\n", 0, found.start()) + 1
                raise CannotExport(
                    f"cannot read {path.name} safely: its code names "
                    f"{found.group().decode()!r} in {record}, line {line}, "
                    "which in TorchScript reads or writes files",
                    hint="export the module without it; --trust runs the code as it is, so do "
                    "that only with files of your own",
                    record=record,
                    line=line,
                )
            _check_libraries(path, source.decode("utf-8", "replace"))
        with zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as out:
            for record in archive.records:
                if record.startswith(_NEEDED):
                    archive.copy(record, out)
    import torch

    try:
        module = torch.jit.load(str(clean), map_location="cpu")
    except (MemoryError, CannotExport):
        raise
    except Exception as exc:
        raise CannotExport(
            f"cannot load {path.name}: {last_line(exc)}",
            hint=f"here is PyTorch {torch.__version__}; save it again with that version, or "
            "better as torch.export.save(torch.export.export(module, inputs), path)",
            here=str(torch.__version__),
        ) from exc
    finally:
        clean.unlink(missing_ok=True)
    return module.eval()


def _check_libraries(path: Path, source: str) -> None:
    for library, operator in _OTHER_LIBRARIES.findall(source):
        if library not in _KNOWN_LIBRARIES:
            raise CannotExport(
                f"cannot export {path.name}: it calls {library}::{operator}, "
                "which PyTorch itself does not have",
                hint="express it by PyTorch's own operators before scripting",
                operator=f"{library}::{operator}",
            )


def script_inputs(module: Any, name: str) -> tuple[str, ...]:
    """Name the tensors that ``forward`` needs, in order.

    Raises:
        CannotExport: It needs something that is no tensor.
    """
    needed: list[str] = []
    for argument in module.forward.schema.arguments[1:]:
        if argument.has_default_value():
            break  # it and those behind it may be left out
        if str(argument.type) != "Tensor":
            raise CannotExport(
                f"cannot export {name}: input {argument.name!r} of its forward() is a "
                f"{argument.type}, not a tensor",
                hint="wrap the module in one whose forward() takes tensors alone and fixes the "
                "rest, and script that",
                input=argument.name,
            )
        needed.append(argument.name)
    return tuple(needed)


def record_script(
    module: Any,
    inputs: Sequence[InputSpec],
    name: str,
) -> Any:
    """Record what a TorchScript module computes, as a program of torch.export.

    Args:
        module: In inference mode, on the CPU.
        inputs: What it is called with; the leading extent of an input may be free.
        name: For messages.

    Raises:
        CannotExport: It does not run on such inputs, or branches on a value.
    """
    import torch

    free = [index for index, spec in enumerate(inputs) if spec.shape and spec.shape[0] is None]
    with _recording():
        if not free:
            graph = _record(module, first_tensors(inputs, batch=1), name)
            shapes = None
        else:
            recorded = [
                _record(module, first_tensors(inputs, batch=batch), name) for batch in _BATCHES
            ]
            graph = _joined(recorded, free[0], name)
            dim = torch.export.Dim.AUTO
            shapes = tuple({0: dim} if index in free else None for index in range(len(inputs)))
    _name_weights(graph, module)
    tensors = first_tensors(inputs, batch=_BATCHES[1])
    try:
        with torch.no_grad():
            return torch.export.export(graph, tensors, dynamic_shapes=shapes)
    except (MemoryError, CannotExport):
        raise
    except Exception as exc:
        raise CannotExport(
            f"cannot export {name}: its recorded operators do not form a program: "
            f"{last_line(exc)}",
            hint="export the Python module instead: torch.export.export(module, inputs)",
        ) from exc


def _record(module: Any, tensors: tuple[Any, ...], name: str) -> Any:
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils import _pytree as pytree

    def call(*given: Any) -> Any:
        # containers of TorchScript's own become tuples of their leaves
        return tuple(pytree.tree_leaves(module(*given)))

    try:
        graph = make_fx(
            call, pre_dispatch=True, tracing_mode="real", decomposition_table=fused_layers()
        )(*tensors)
    except (MemoryError, CannotExport):
        raise
    except Exception as exc:
        raise _translated(exc, name) from exc
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _translated(exc: Exception, name: str) -> CannotExport:
    text = str(exc)
    places = list(_HERE.finditer(text))
    reason = text.rsplit("RuntimeError: ", 1)[-1].strip() if "RuntimeError: " in text else ""
    where, code = "", ""
    if places:
        last = places[-1]
        where = f"{last.group(1)}:{last.group(2)}"
        lines = [line.strip() for line in last.group(4).splitlines() if line.strip(" ~")]
        code = lines[-1] if lines else ""
    if reason and "data-dependent" not in reason:
        return CannotExport(
            f"cannot run {name}: {reason.splitlines()[0][:300]}"
            + (f" (at {where}: {code[:100]})" if where else ""),
            hint="does the shape fit the model? give each input's with "
            "--input-shape NAME=1,3,224,224",
            where=where,
        )
    if not where:
        return CannotExport(
            f"cannot run {name}: {last_line(exc)}",
            hint="does the shape fit the model? give each input's with "
            "--input-shape NAME=1,3,224,224",
        )
    return CannotExport(
        f"cannot trace {name}: {where} takes a value out of a tensor that depends on the "
        f"input ({code[:100]})",
        hint="a branch or a loop on values has no place in a fixed graph: use torch.where, or "
        "export the Python module with torch.cond by torch.export",
        where=where,
        code=code[:200],
    )


@contextmanager
def _recording() -> Iterator[None]:
    """Have the interpreter call every operator as written, and sizes stay numbers.

    Tracing writes sizes as tensors of one number. Operators on those alone are computed, not
    recorded; otherwise the recorder takes them for values that depend on the input.
    """
    import torch
    from torch.fx.experimental import proxy_tensor
    from torch.utils import _pytree as pytree

    original = proxy_tensor.proxy_call

    def call(mode: Any, operator: Any, pre_dispatch: Any, args: Any, kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        random = torch.Tag.nondeterministic_seeded in operator.tags
        if tensors and not random and all(_is_number(each, mode.tracer) for each in tensors):
            return operator(*args, **kwargs)
        return original(mode, operator, pre_dispatch, args, kwargs)

    def _is_number(tensor: Any, tracer: Any) -> bool:
        return tensor.numel() == 1 and not proxy_tensor.has_proxy_slot(tensor, tracer)

    proxy_tensor.proxy_call = call
    try:
        with torch.no_grad(), torch.jit.optimized_execution(False):
            yield
    finally:
        proxy_tensor.proxy_call = original


def _joined(graphs: Sequence[Any], source: int, name: str) -> Any:
    """Make one graph for any batch out of recordings at `_BATCHES`."""
    import torch

    first = graphs[0]
    rows = [list(graph.graph.nodes) for graph in graphs]
    if len({len(row) for row in rows}) > 1:
        raise _fixed_batch(name, "other operators run at another batch")
    placeholder = [node for node in rows[0] if node.op == "placeholder"][source]
    last = [node for node in rows[0] if node.op == "placeholder"][-1]
    with first.graph.inserting_after(last):
        batch = first.graph.call_function(torch.ops.aten.sym_size.int, (placeholder, 0))
    for nodes in zip(*rows, strict=True):
        one = nodes[0]
        if len({(node.op, str(node.target)) for node in nodes}) > 1:
            raise _fixed_batch(name, f"{one.target} is another operator at another batch")
        if one.op == "get_attr":
            _check_constant(graphs, nodes, name)
            continue
        leaves = [_leaves(node) for node in nodes]
        if len({len(each) for each in leaves}) > 1:
            raise _fixed_batch(name, f"{one.target} has other arguments at another batch")
        with first.graph.inserting_before(one):
            new = [
                _in_batch(first.graph, batch, values, str(one.target), name)
                for values in zip(*leaves, strict=True)
            ]
        _put_leaves(one, new)
    first.graph.eliminate_dead_code()
    first.recompile()
    return first


def _leaves(node: Any) -> list[Any]:
    from torch.utils import _pytree as pytree

    return list(pytree.tree_leaves((node.args, node.kwargs)))


def _put_leaves(node: Any, leaves: list[Any]) -> None:
    from torch.utils import _pytree as pytree

    spec = pytree.tree_structure((node.args, node.kwargs))
    node.args, node.kwargs = pytree.tree_unflatten(leaves, spec)


def _in_batch(graph: Any, batch: Any, values: Sequence[Any], operator: str, name: str) -> Any:
    """Give the argument that takes these values at the recorded batches."""
    import operator as arithmetic

    if any(type(value) is not int for value in values) or len(set(values)) == 1:
        same = len({str(value) for value in values}) == 1
        if not same:
            raise _fixed_batch(name, f"{operator} takes {values[0]} and {values[1]}")
        return values[0]
    (one, two, _), (low, high, _) = values, _BATCHES
    factor, left = divmod(two - one, high - low)
    offset = one - factor * low
    if left or any(
        factor * at + offset != value for at, value in zip(_BATCHES, values, strict=True)
    ):
        raise _fixed_batch(name, f"{operator} takes {', '.join(map(str, values))}")
    scaled = batch if factor == 1 else graph.call_function(arithmetic.mul, (batch, factor))
    return scaled if not offset else graph.call_function(arithmetic.add, (scaled, offset))


def _check_constant(graphs: Sequence[Any], nodes: Sequence[Any], name: str) -> None:
    import torch

    held = [getattr(graph, node.target) for graph, node in zip(graphs, nodes, strict=True)]
    if not all(isinstance(each, torch.Tensor) for each in held):
        return
    if any(each.shape != held[0].shape or not torch.equal(each, held[0]) for each in held[1:]):
        raise _fixed_batch(name, "a constant in it was computed for one batch")


def _fixed_batch(name: str, seen: str) -> CannotExport:
    return CannotExport(
        f"cannot leave the batch of {name} free: {seen} at batches "
        f"{', '.join(map(str, _BATCHES))}",
        hint="leave out --dynamic and give the whole shape with --input-shape, or script the "
        "module instead of tracing it",
    )


def _name_weights(graph: Any, module: Any) -> None:
    """Call the recorded constants as the module calls its parameters and buffers."""
    import torch

    names: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.numel():
            key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
            names.setdefault(key, name)
    renamed: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op != "get_attr":
            continue
        tensor = getattr(graph, node.target, None)
        if not isinstance(tensor, torch.Tensor):
            continue
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))
        name = re.sub(r"\W", "_", names.get(key, ""))
        if name and node.target not in renamed and not hasattr(graph, name):
            graph.register_buffer(name, tensor.detach())
            renamed[node.target] = name
        node.target = renamed.get(node.target, node.target)
    for old in renamed:
        delattr(graph, old)
    graph.recompile()
