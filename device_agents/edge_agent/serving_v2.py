"""The Open Inference Protocol (v2) over HTTP: what a request means, and its answer.

Sources: "Open Inference Protocol", the REST part of its specification, and the "Binary Tensor
Data Extension" of KServe. One model is served, the current release: its name is the bundle's
(or ``current``, whatever is deployed), its one version the bundle's id. Strings (BYTES),
classes and sequences are not offered, and asking for them is an error.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, Dict, List, Match, Optional, Tuple

import edge_agent
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, load_json
from edgesdk.wire.limits import MAX_TENSOR_BYTES
from edgesdk.wire.tensors import DTYPE_BYTES, TensorError, element_count
from edgesdk.wire.values import flatten, pack_values, unpack_values

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["Api", "Response", "error"]

_DATATYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_PATH = re.compile(
    r"/v2(?:/health/(?P<health>live|ready)"
    r"|/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?)?\Z"
)
_NAMES = {dtype: name for name, dtype in _DATATYPES.items()}
_ALIAS = "current"
_TIMEOUT_S = 30.0
_MOST_TENSORS = 256
_MAX_RANK = 32
#: A number as JSON text, and what surrounds the numbers.
_TEXT_BYTES_PER_ELEMENT = 32
_TEXT_BYTES = 64 << 10
_STATUS = {
    codes.BAD_REQUEST: 400,
    codes.BAD_DATA: 400,
    codes.NOT_FOUND: 503,
    codes.BUSY: 503,
    codes.NO_RUNTIME: 503,
    codes.WORKER_TIMEOUT: 504,
}
#: Parameters of a request that ask for what this server does not do.
_NOT_OFFERED = ("sequence_id", "sequence_start", "sequence_end", "classification")


class Response:
    """An answer: status, JSON text, tensors behind it, headers beside the length."""

    def __init__(
        self,
        status: int,
        document: Any,
        *,
        binary: bytes = b"",
        more: Tuple[Tuple[str, str], ...] = (),
    ) -> None:
        self.status = status
        self.text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode("utf-8")
        self.binary = binary
        kind = "application/octet-stream" if binary else "application/json"
        self.headers = [("Content-Type", kind)]  # type: List[Tuple[str, str]]
        if binary:
            length = str(len(self.text))
            self.headers.append(("Inference-Header-Content-Length", length))
        self.headers += more


def error(status: int, text: str) -> Response:
    """Give the answer of the protocol to a request that is not done."""
    more = (("Retry-After", "1"),) if status == 503 else ()
    return Response(status, {"error": text[:2000]}, more=more)


class _NotFound(Exception):
    """There is no such model, version or path."""


class Api:
    """Answers requests of the protocol with an agent's current release."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def most_body_bytes(self, path: str) -> int:
        """How long the body of a POST may be: what the model's inputs need, as text."""
        if not path.endswith("/infer"):
            return _TEXT_BYTES
        try:
            inputs = self._agent.serving.describe()["inputs"]
        except Refused:
            return _TEXT_BYTES
        total = _TEXT_BYTES
        for value in inputs:
            if any(type(n) is not int for n in value["shape"]):
                return MAX_TENSOR_BYTES + _TEXT_BYTES
            total += element_count(value["shape"]) * _TEXT_BYTES_PER_ELEMENT
        return min(total, MAX_TENSOR_BYTES + _TEXT_BYTES)

    def answer(self, method: str, path: str, headers: Dict[str, str], body: bytes) -> Response:
        """Answer one request; every failure is an answer too."""
        found = _PATH.match(path)
        if found is None:
            return error(404, "there is no {}".format(path[:200]))
        try:
            return self._routed(method, found, headers, body)
        except _NotFound as exc:
            return error(404, str(exc))
        except TensorError as exc:
            return error(400, "cannot read the request: {}".format(exc))
        except Refused as exc:
            return error(_STATUS.get(exc.code, 500), str(exc))

    def _routed(
        self, method: str, found: Match[str], headers: Dict[str, str], body: bytes
    ) -> Response:
        verb = found.group("verb")
        wanted = "POST" if verb == "infer" else "GET"
        if method != wanted:
            text = "this path takes {}".format(wanted)
            return Response(405, {"error": text}, more=(("Allow", wanted),))
        name, version = found.group("model"), found.group("version")
        if verb == "infer":
            return self._infer(name, version, headers, body)
        return self._tell(found.group("health"), name, version, verb)

    def _tell(
        self,
        health: Optional[str],
        name: Optional[str],
        version: Optional[str],
        verb: Optional[str],
    ) -> Response:
        if health == "live":
            return Response(200, {"live": True})
        if health == "ready":
            return self._ready()
        if name is None:
            return self._server()
        return self._model_ready(name, version) if verb else self._metadata(name, version)

    # -- what is here ------------------------------------------------------------------------

    def _server(self) -> Response:
        return Response(
            200,
            {
                "name": "edge-agent",
                "version": edge_agent.__version__,
                "extensions": ["binary_tensor_data"],
            },
        )

    def _is_ready(self) -> bool:
        try:
            return bool(self._agent.serving.describe()["ready"])
        except Refused:
            return False

    def _ready(self) -> Response:
        ready = self._is_ready()
        return Response(200 if ready else 503, {"live": True, "ready": ready})

    def _model(self, name: str, version: Optional[str]) -> Dict[str, Any]:
        try:
            known = self._agent.serving.describe()
        except Refused as exc:
            raise _NotFound("there is no model: {}".format(exc)) from None
        _require(name, version, known["bundle"], known["name"])
        return known

    def _metadata(self, name: str, version: Optional[str]) -> Response:
        known = self._model(name, version)
        return Response(
            200,
            {
                "name": known["name"],
                "versions": [known["bundle"]],
                "platform": "edgesdk_" + "_".join(dict.fromkeys(known["runtimes"])),
                "inputs": [_described(value) for value in known["inputs"]],
                "outputs": [_described(value) for value in known["outputs"]],
            },
        )

    def _model_ready(self, name: str, version: Optional[str]) -> Response:
        known = self._model(name, version)
        ready = bool(known["ready"])
        return Response(200 if ready else 503, {"name": known["name"], "ready": ready})

    # -- inference ---------------------------------------------------------------------------

    def _infer(
        self, name: str, version: Optional[str], headers: Dict[str, str], body: bytes
    ) -> Response:
        self._model(name, version)
        text, binary = _split(headers, body)
        try:
            request = load_json(text)
        except ValueError as exc:
            raise TensorError("it is not JSON: {}".format(exc)) from None
        if not isinstance(request, dict):
            raise TensorError("it is not a JSON object")
        if not isinstance(request.get("id", ""), str):
            raise TensorError("id is no string")
        parameters = _parameters(request, "the request")
        timeout = parameters.get("timeout", int(_TIMEOUT_S * 1e6))
        if type(timeout) is not int or not 0 < timeout <= 3600 * 10**6:
            raise TensorError("the time-out is no number of microseconds up to an hour")
        specs, data = _inputs(request.get("inputs"), binary)
        wanted = _outputs(request, as_binary=parameters.get("binary_data_output", False))
        served = {}  # type: Dict[str, Any]

        def check(bundle: str, manifest: Dict[str, Any]) -> None:
            _require(name, version, bundle, manifest["name"])
            unknown = set(wanted or ()) - {value["name"] for value in manifest["outputs"]}
            if unknown:
                text = "the model has no output {!r}".format(sorted(unknown)[0])
                raise TensorError(text[:300])
            served["name"] = manifest["name"]

        bundle, reply = self._agent.serving.infer(
            specs, data, timeout_s=timeout / 1e6, check=check
        )
        answer = {"model_name": served["name"], "model_version": bundle}
        if "id" in request:
            answer["id"] = request["id"]
        as_binary = parameters.get("binary_data_output", False)
        outputs, pieces = _answered(reply, wanted, as_binary=as_binary)
        return Response(200, dict(answer, outputs=outputs), binary=b"".join(pieces))


def _require(name: str, version: Optional[str], bundle: str, served: str) -> None:
    if name not in (served, _ALIAS):
        text = "there is no model {!r} here (there is {})"
        raise _NotFound(text.format(name[:128], served))
    if version is not None and version != bundle:
        text = "model {} has no version {!r} here (it has {})"
        raise _NotFound(text.format(served, version[:80], bundle))


def _described(value: Dict[str, Any]) -> Dict[str, Any]:
    shape = [extent if type(extent) is int else -1 for extent in value["shape"]]
    datatype = _NAMES.get(value["dtype"], str(value["dtype"]).upper())
    return {"name": value["name"], "datatype": datatype, "shape": shape}


def _split(headers: Dict[str, str], body: bytes) -> Tuple[bytes, bytes]:
    """Cut a body into its JSON and the tensors behind it."""
    text = headers.get("inference-header-content-length")
    if text is None:
        return body, b""
    if not text.isdigit() or len(text) > 15 or int(text) > len(body):
        raise TensorError("Inference-Header-Content-Length does not lie within the body")
    return body[: int(text)], body[int(text) :]


def _parameters(record: Dict[str, Any], where: str) -> Dict[str, Any]:
    found = record.get("parameters", {})
    if not isinstance(found, dict):
        raise TensorError("the parameters of {} are no object".format(where)[:300])
    for name in _NOT_OFFERED:
        if found.get(name):
            raise TensorError("this server does not offer {}".format(name))
    for name in ("binary_data", "binary_data_output"):
        if not isinstance(found.get(name, False), bool):
            raise TensorError("{} is neither true nor false".format(name))
    return found


def _inputs(records: Any, binary: bytes) -> Tuple[List[Dict[str, Any]], bytes]:
    if not isinstance(records, list) or len(records) > _MOST_TENSORS:
        raise TensorError("inputs is no list of up to {} tensors".format(_MOST_TENSORS))
    specs, pieces, offset, taken = [], [], 0, 0
    for record in records:
        if not isinstance(record, dict) or not isinstance(record.get("name"), str):
            raise TensorError("an input has no name")
        name, shape = record["name"], record.get("shape")
        dtype = _DATATYPES.get(str(record.get("datatype")))
        if dtype is None:
            text = "input {!r} has the datatype {!r} (expected one of {})"
            known = ", ".join(_DATATYPES)
            raise TensorError(text.format(name, record.get("datatype"), known)[:500])
        if (
            not isinstance(shape, list)
            or len(shape) > _MAX_RANK
            or any(type(n) is not int or not 0 <= n < 1 << 48 for n in shape)
        ):
            raise TensorError("input {!r} has the shape {!r}".format(name, shape)[:300])
        nbytes = element_count(shape) * DTYPE_BYTES[dtype]
        size = _parameters(record, "input {!r}".format(name)).get("binary_data_size")
        if size is not None:
            if type(size) is not int or size != nbytes or taken + size > len(binary):
                text = (
                    "input {!r} has {!r} bytes of binary data (its shape and datatype make {})"
                )
                raise TensorError(text.format(name, size, nbytes)[:400])
            data = binary[taken : taken + size]
            taken += size
        else:
            values, _ = flatten(record.get("data"))
            if len(values) != element_count(shape):
                text = "input {!r} has {} elements (its shape makes {})"
                raise TensorError(text.format(name, len(values), element_count(shape))[:400])
            data = pack_values(dtype, values)
        spec = {"name": name, "dtype": dtype, "shape": shape, "offset": offset}
        specs.append(dict(spec, nbytes=nbytes))
        pieces.append(data)
        offset += nbytes
    if taken != len(binary):
        text = "{} bytes of binary data belong to no input"
        raise TensorError(text.format(len(binary) - taken))
    return specs, b"".join(pieces)


def _outputs(request: Dict[str, Any], *, as_binary: bool) -> Optional[Dict[str, bool]]:
    """Give the outputs that are asked for, and whether as binary; None means all."""
    records = request.get("outputs")
    if records is None or records == []:
        return None
    if not isinstance(records, list) or len(records) > _MOST_TENSORS:
        raise TensorError("outputs is no list of up to {} names".format(_MOST_TENSORS))
    wanted = {}  # type: Dict[str, bool]
    for record in records:
        name = record.get("name") if isinstance(record, dict) else None
        if not isinstance(name, str) or name in wanted:
            raise TensorError("an output has no name, or one is asked for twice")
        parameters = _parameters(record, "output {!r}".format(name))
        wanted[name] = parameters.get("binary_data", as_binary)
    return wanted


def _answered(
    reply: Frame, wanted: Optional[Dict[str, bool]], *, as_binary: bool
) -> Tuple[List[Dict[str, Any]], List[bytes]]:
    specs = {spec["name"]: spec for spec in reply.meta["tensors"]}
    outputs, pieces = [], []
    for name in specs if wanted is None else wanted:
        spec = specs[name]
        data = reply.body[spec["offset"] : spec["offset"] + spec["nbytes"]]
        output = {
            "name": name,
            "datatype": _NAMES[spec["dtype"]],
            "shape": spec["shape"],
        }  # type: Dict[str, Any]
        if as_binary if wanted is None else wanted[name]:
            output["parameters"] = {"binary_data_size": len(data)}
            pieces.append(data)
        else:
            values = unpack_values(spec["dtype"], data)
            if spec["dtype"].startswith("float") and not all(map(math.isfinite, values)):
                text = (
                    "output {!r} has values that JSON does not know (NaN, infinity): ask for "
                )
                raise TensorError((text + "binary data").format(name)[:300])
            output["data"] = values
        outputs.append(output)
    return outputs, pieces
