"""What a SavedModel holds, read before TensorFlow is let run any of it.

A SavedModel is a program: its graph may call Python, read and write files, open connections.
TensorFlow itself says to treat one as code. Loading runs what restores the variables and fills
the tables, calling a signature runs the rest. So the operators are read from the protobuf
first, and those that reach out of the graph are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.importers.frameworks.tensorflow_source import one_line
from edgesdk.importers.job import CannotExport

__all__ = [
    "SavedModelFile",
    "pick_signature",
    "read_saved_model",
    "refuse_strings",
    "why_not_computed",
    "why_outward",
]

_MOST_BYTES = 2**31 - 1  # protobuf's own limit

# Operators that call out of the graph, by what they reach. Families, so that a further member
# of one is refused too.
_REACHES = (
    ("runs Python code", r"(Eager)?PyFunc(Stateless)?"),
    (
        "runs code that is not in the model",
        r"XlaHostCompute|RemoteCall|TRTEngineOp|.*TRTResource",
    ),
    (
        "reads or writes files",
        r".*File(Name|Pattern|System)?(V\d)?|.*Filename|.*Files|.*Reader(V\d)?|LMDB.*"
        r"|(Save|Restore|Checkpoint|MergeV2Checkpoints)(V\d|Slices?)?|.*FromTextFile(V\d)?"
        r"|ImmutableConst|LoadAndRemapMatrix|GenerateVocabRemapping|(De|En)code(Proto)(V\d)?"
        r"|.*Summary.*|ImportEvent|Debug\w+|PrintV2|Dump\w+",
    ),
    (
        "reads data sets, from files or from another machine",
        r".*Dataset(V\d)?|.*Iterator(V\d)?",
    ),
    ("talks to another machine", r"Rpc\w*|TryRpc|DataService\w*|Collective\w*|_?(Send|Recv)"),
)
_OUTWARD = tuple((why, re.compile(pattern)) for why, pattern in _REACHES)
_SAVER = frozenset(["SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"])
_WRITES = frozenset(["SaveV2", "MergeV2Checkpoints"])
_STRINGS = re.compile(
    r".*String.*|.*Regex.*|Substr|.*Unicode.*|AsString|.*Base64|DecodeRaw|"
    r"Decode(Png|Jpeg|Image|Bmp|Gif|CSV|WAV)\w*|ParseExample\w*|"
    r"ParseSingleExample\w*|SentencePiece\w*|\w*Tokeniz\w*"
)
_TABLES = re.compile(r".*(HashTable|LookupTable|DenseHashTable)\w*")


@dataclass(frozen=True, slots=True)
class SavedModelFile:
    """What was read of a SavedModel.

    Attributes:
        version: Version of TensorFlow that wrote it.
        signatures: Its signatures, those that only restore left out.
    """

    version: str
    signatures: tuple[str, ...]


def read_saved_model(folder: Path, *, trust: bool) -> SavedModelFile:
    """Read a SavedModel's operators and refuse what must not run here.

    Raises:
        CannotExport: It is damaged, names operators that reach out of the graph while the user
            did not say ``--trust``, or works on strings or tables.
    """
    meta = _meta_graph(folder)
    assets = [one.filename for one in meta.asset_file_def]
    if assets and not trust:
        raise CannotExport(
            f"cannot import {folder.name}: it needs the asset {assets[0]!r}",
            hint="assets feed tables of words; export a model that begins with numbers, and do "
            "the look-up in front of it",
            assets=assets[:20],
        )
    if not trust:
        _refuse_outward(folder.name, meta)
    _check_checkpoint(folder)
    signatures = tuple(sorted(key for key in meta.signature_def if not key.startswith("__")))
    return SavedModelFile(str(meta.meta_info_def.tensorflow_version), signatures)


def pick_signature(name: str, signatures: Iterable[str]) -> str:
    """The signature to export: ``serving_default``, or the only one.

    Raises:
        CannotExport: There is none, or nothing says which.
    """
    known = sorted(signatures)
    if "serving_default" in known:
        return "serving_default"
    if len(known) == 1:
        return known[0]
    if not known:
        raise CannotExport(
            f"cannot import {name}: it has no signature, so nothing says what it takes",
            hint="save it with one: tf.saved_model.save(model, folder, signatures=model.call."
            "get_concrete_function(tf.TensorSpec([1, 224, 224, 3])))",
        )
    raise CannotExport(
        f"cannot import {name}: which of its signatures? it has {', '.join(known)}",
        hint="save it again with the one wanted as serving_default",
        signatures=known,
    )


def _meta_graph(folder: Path) -> Any:
    """The graph that serves, of a folder's protobuf."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model.pb"
    if (folder / "saved_model.cpb").exists() or not path.is_file():
        found = sorted(one.name for one in folder.glob("saved_model.*"))
        raise CannotExport(
            f"cannot import {folder.name}: no saved_model.pb alone in the folder",
            hint="text (.pbtxt) and split (.cpb) graphs are not read; save the model again "
            "with model.export(folder) or tf.saved_model.save",
            found=found,
        )
    size = path.stat().st_size
    message = saved_model_pb2.SavedModel()
    try:
        if size > _MOST_BYTES:
            raise ValueError(f"it is {size} bytes long")
        message.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own errors, and those of reading
        raise CannotExport(
            f"cannot read {folder.name}/saved_model.pb: {str(error)[:200]}",
            hint="is the folder whole? copy it again, or export the model again",
        ) from error
    metas = [one for one in message.meta_graphs if "serve" in one.meta_info_def.tags]
    if not metas:
        tags = [sorted(one.meta_info_def.tags) for one in message.meta_graphs]
        raise CannotExport(
            f"cannot import {folder.name}: no graph in it is tagged 'serve'; seen: {tags}",
            hint="export the model again with model.export(folder) or tf.saved_model.save",
        )
    if len(metas) > 1:
        raise CannotExport(
            f"cannot import {folder.name}: {len(metas)} graphs in it are tagged 'serve'",
            hint="export the model again with model.export(folder) or tf.saved_model.save",
        )
    return metas[0]


def _all_nodes(graph: Any, functions: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every node with the function it stands in, "" for the graph itself."""
    for node in graph.node:
        yield "", node
    for name, function in functions.items():
        for node in function.node_def:
            yield name, node


def why_outward(operator: str) -> str | None:
    """What an operator of TensorFlow does outside the graph, None where it only computes."""
    return next((why for why, pattern in _OUTWARD if pattern.fullmatch(operator)), None)


def _refuse_outward(name: str, meta: Any) -> None:
    """Refuse operators that reach out of the graph, wherever they stand.

    Every SavedModel has four of them, in the part that TensorFlow saves and restores with. They
    may stand there, if nothing else calls that part, and restoring writes nothing.
    """
    graph = meta.graph_def
    functions = {one.signature.name: one for one in graph.library.function}

    def closure(names: Iterable[str], called: Iterable[str] = ()) -> set[str]:
        return _closure(_starts(graph, names) | {*called}, graph, functions)

    saver = meta.saver_def
    restoring = closure([saver.restore_op_name])
    saving = closure([saver.save_tensor_name, saver.filename_tensor_name]) | restoring
    running = closure(
        [
            *(
                value.name
                for one in meta.signature_def.values()
                for value in one.outputs.values()
            ),
            *_initializers(meta),
        ],
        _object_functions(meta),
    )
    for where, node in _all_nodes(graph, functions):
        why = why_outward(node.op)
        place = where or f"^{node.name}"
        apart = place in saving and place not in running
        harmless = node.op in _SAVER and not (node.op in _WRITES and place in restoring)
        if why is None or (apart and harmless):
            continue
        inside = f", in function {where}" if where else ""
        raise CannotExport(
            f"cannot import {name}: its operator {node.op} ({node.name}{inside}) {why}",
            hint="leave it out of the exported function; --trust runs what this SavedModel "
            "says as you, so only where you know who made it",
            operator=node.op,
            node=node.name,
        )


def _initializers(meta: Any) -> list[str]:
    """What the older kind of SavedModel runs once it is restored."""
    keys = ("saved_model_main_op", "legacy_init_op", "saved_model_assets")
    return [str(one) for key in keys for one in meta.collection_def[key].node_list.value]


def _starts(graph: Any, names: Iterable[str]) -> set[str]:
    wanted = {one.lstrip("^").split(":")[0] for one in names if one}
    return {f"^{node.name}" for node in graph.node if node.name in wanted}


def _object_functions(meta: Any) -> set[str]:
    """Functions that the objects of the model hold: those a program can call."""
    return {
        str(name)
        for node in meta.object_graph_def.nodes
        for name in (
            *node.function.concrete_functions,
            *(
                [node.bare_concrete_function.concrete_function_name]
                if node.HasField("bare_concrete_function")
                else []
            ),
        )
    }


def _closure(starts: set[str], graph: Any, functions: dict[str, Any]) -> set[str]:
    """All that runs where these run: function names, and nodes of the graph as ``^name``."""
    nodes = {node.name: node for node in graph.node}
    seen: set[str] = set()
    waiting = list(starts)
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if one.startswith("^"):
            node = nodes.get(one[1:])
            if node is None:
                continue
            waiting += [f"^{read.lstrip('^').split(':')[0]}" for read in node.input]
            waiting += _called(node)
        elif one in functions:
            for node in functions[one].node_def:
                waiting += _called(node)
    return seen


def _called(node: Any) -> list[str]:
    found = []
    for value in node.attr.values():
        if value.HasField("func"):
            found.append(value.func.name)
        found += [one.name for one in value.list.func]
    return found


def why_not_computed(operator: str) -> str | None:
    """Whether an operator works on tables or strings, which no board's runtime has."""
    if _TABLES.fullmatch(operator):
        return "tables"
    return "strings" if _STRINGS.fullmatch(operator) else None


def refuse_strings(name: str, graph: Any) -> None:
    """Refuse a `GraphDef` that works on strings or tables.

    Raises:
        CannotExport: With the operator and its node.
    """
    everything = [*graph.node]
    for function in graph.library.function:
        everything += function.node_def
    for node in everything:
        kind = why_not_computed(node.op)
        if kind is not None:
            raise CannotExport(
                f"cannot import {name}: its operator {node.op} ({node.name}) works on {kind}",
                hint="no board's runtime has it; export a model that begins and ends with "
                "numbers, and do that step in front of it or behind it",
                operator=node.op,
                node=node.name,
            )


def _check_checkpoint(folder: Path) -> None:
    """Refuse variables that are larger than the files they are said to lie in."""
    import tensorflow as tf

    prefix = folder / "variables" / "variables"
    data = sorted(prefix.parent.glob("variables.data-*"))
    if not data and not prefix.with_suffix(".index").exists():
        return  # a model without variables; where it has some, loading says they are missing
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        shapes = reader.get_variable_to_shape_map()
    except Exception as error:  # TensorFlow's own tree of errors, and more
        raise CannotExport(
            f"cannot read the variables of {folder.name}: {one_line(error)}",
            hint="is the folder whole? copy it again, or export the model again",
        ) from error
    said = 0
    for key, shape in shapes.items():
        count = 1
        for extent in shape:
            count *= extent
        said += count * (types[key].size if types[key] != tf.string else 0)
    held = sum(one.stat().st_size for one in data)
    if said > held:
        raise CannotExport(
            f"cannot read the variables of {folder.name}: {said} bytes are promised and "
            f"{held} are there",
            hint="is the folder whole? copy it again, or export the model again",
            promised_bytes=said,
            held_bytes=held,
        )
