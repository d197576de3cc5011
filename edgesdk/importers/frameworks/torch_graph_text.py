"""Check each text of an exported program's graph, and leave out what is not needed of it.

What the checks guard against is told in `torch_program`. The rule for texts is one: a value's
name is an identifier, any other text has no character that could end a string or start a
statement in generated code, and the few keys whose text is free are named here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgesdk.importers.frameworks.torch_archive import WHOLE_HINT
from edgesdk.importers.frameworks.torch_expressions import plain_container, why_no_expression
from edgesdk.importers.job import CannotExport

__all__ = ["checked_graph", "checked_payloads"]

_MAX_DEPTH = 100
_WORDS = re.compile(r"[\w .:+/@=<>,-]*")
_RECORD = re.compile(r"(weight|tensor)_[0-9]{1,9}")
#: Free text: it is only ever quoted by PyTorch, or shown.
_FREE_KEYS = frozenset({"as_string", "stack_trace", "nn_module_stack", "torch_fn"})
_IDENTIFIER_KEYS = frozenset({"name", "as_name", "forward_arg_names"})
#: What is kept of a node's notes; it names the layer and the line of the user's code.
_KEPT_NOTES = ("stack_trace", "nn_module_stack", "torch_fn")
_CPU = {"type": "cpu", "index": None}

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.\w+\.\w+"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|invoke_subgraph"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_"
    r"|getitem|lshift|rshift)"
    r"|math\.(ceil|floor|trunc|sqrt|log|log2|exp|pow|sin|cos|tan)"
    r"|torch\._?sym_\w+",
    re.ASCII,
)
_FILE_OPERATORS = re.compile(r"torch\.ops\.\w+\.(from_file|save|load_tensor)\..*", re.ASCII)


def checked_graph(graph: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Copy the JSON of an ExportedProgram with its texts checked.

    Guards on inputs, notes of users and of passes are left out, devices become the CPU.

    Args:
        graph: As read from ``models/model.json``.
        file: What to call the file in errors.

    Raises:
        CannotExport: A text could run code, or an operator computes nothing.
    """
    copy = _checked({**graph, "guards_code": []}, "", file, _MAX_DEPTH)
    assert isinstance(copy, dict)
    ranges = copy.get("range_constraints")
    for symbol in ranges if isinstance(ranges, dict) else ():
        if (reason := why_no_expression(symbol)) is not None:
            raise _unsafe(f"symbol {symbol!r:.100} is none: {reason}", file)
    return copy


def checked_payloads(config: object, file: str) -> dict[str, Any]:
    """Copy the table of weights or constants with its texts checked.

    Raises:
        CannotExport: It is no such table, or holds an object that is no tensor.
    """
    payloads = config.get("config") if isinstance(config, dict) else None
    if not isinstance(payloads, dict):
        raise CannotExport(
            f"cannot read {file}: its table of weights is spoilt", hint=WHOLE_HINT
        )
    for name, payload in payloads.items():
        record = payload.get("path_name") if isinstance(payload, dict) else None
        if not isinstance(record, str) or not isinstance(payload.get("use_pickle"), bool):
            raise CannotExport(
                f"cannot read {file}: the entry of {name!r:.100} is spoilt", hint=WHOLE_HINT
            )
        if not _RECORD.fullmatch(record):
            raise CannotExport(
                f"cannot read {file} safely: constant {name!r:.100} is no tensor but a Python "
                "object, which runs code when it is loaded",
                hint="keep objects out of the module's forward, and export it again",
                constant=str(name)[:100],
                runs_code=True,
            )
    copy = _checked(payloads, "", file, _MAX_DEPTH)
    assert isinstance(copy, dict)
    return copy


def _checked(value: object, key: str, file: str, depth: int) -> object:
    if depth == 0:
        raise CannotExport(f"cannot read {file}: its graph is nested too deep", hint=WHOLE_HINT)
    if isinstance(value, dict):
        return _checked_object(value, key, file, depth)
    if isinstance(value, list):
        return [_checked(item, key, file, depth - 1) for item in value]
    if isinstance(value, str):
        _check_text(value, key, file)
    return value


def _checked_object(value: dict[Any, Any], key: str, file: str, depth: int) -> object:
    if key in ("device", "as_device"):
        return dict(_CPU)
    if {"target", "inputs", "outputs"} <= value.keys():
        _check_operator(value["target"], file)
        notes = value.get("metadata")
        kept = notes if isinstance(notes, dict) else {}
        notes = {name: kept[name] for name in _KEPT_NOTES if isinstance(kept.get(name), str)}
        value = {**value, "metadata": notes}
    elif key == "graph_module":
        value = {**value, "metadata": {}, "treespec_namedtuple_fields": {}}
    copy: dict[str, object] = {}
    for name, item in value.items():
        _check_text(name, "a key", file)
        if name == "as_custom_obj" or (name == "custom_obj_values" and item):
            raise _custom_object(item, file)
        if name == "target" and "outputs" in value:
            copy[name] = item  # checked as an operator
        elif name in ("in_spec", "out_spec"):
            copy[name] = _container(item, file)
        else:
            copy[name] = _checked(item, name, file, depth - 1)
    return copy


def _check_text(text: object, key: str, file: str) -> None:
    if not isinstance(text, str) or key in _FREE_KEYS:
        return
    if key == "as_operator":
        _check_operator(text, file)
    elif key == "expr_str":
        reason = why_no_expression(text)
        if reason is not None:
            raise _unsafe(f"size {text!r:.100} is no expression: {reason}", file)
    elif key in _IDENTIFIER_KEYS:
        if text and not text.isidentifier():
            raise _unsafe(f"{text!r:.100} is no name of a value", file)
    elif not _WORDS.fullmatch(text):
        raise _unsafe(f"{key or 'a text'} is {text!r:.100}", file)


def _check_operator(target: object, file: str) -> None:
    if not isinstance(target, str):
        raise CannotExport(f"cannot read {file}: a node has no operator", hint=WHOLE_HINT)
    if _FILE_OPERATORS.fullmatch(target):
        raise _unsafe(f"operator {target:.100} reads or writes files", file)
    if _OPERATORS.fullmatch(target):
        return
    name = target.removeprefix("torch.ops.")[:100]
    raise CannotExport(
        f"cannot export {file}: it uses operator {name}, which PyTorch itself does not have",
        hint="express it by PyTorch's own operators, or call "
        "program.run_decompositions() before torch.export.save",
        operator=name,
    )


def _container(text: object, file: str) -> str:
    try:
        return plain_container(text)
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise CannotExport(
            f"cannot read {file}: its description of inputs and outputs is spoilt ({exc})",
            hint=WHOLE_HINT,
        ) from exc


def _custom_object(item: object, file: str) -> CannotExport:
    name = item.get("class_fqn") if isinstance(item, dict) else None
    return CannotExport(
        f"cannot export {file}: it takes an object of class {name or 'of its own'!r:.100}",
        hint="give forward() tensors alone, and export it again",
        runs_code=True,
    )


def _unsafe(seen: str, file: str) -> CannotExport:
    return CannotExport(
        f"cannot read {file} safely: {seen}",
        hint="torch.export.save writes no such thing: somebody changed the file. --trust loads "
        "it as it is, and runs what it brings",
        runs_code=True,
    )
