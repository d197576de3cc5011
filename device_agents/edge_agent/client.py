"""For applications on the device: send tensors to the agent, get the model's answers.

    import sys
    sys.path.insert(0, "/path/to/edge-agent.pyz")
    from edge_agent.client import Client

    with Client() as client:
        answer = client.infer({"input": array})

or print it as one file of its own: ``edge-agent.pyz client > edge_client.py``. It needs Python
3.7 and nothing else; numpy is used where the application does. An application talks to the same
name whatever is deployed: the current release answers, and a switch of releases, a crash of the
model's runtime or a restart of the agent costs time but no request.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from edgesdk.wire.frames import Frame, FrameReader, encode_frame
from edgesdk.wire.limits import MAX_TENSOR_BYTES
from edgesdk.wire.tensors import DTYPE_BYTES, TensorError, check_specs
from edgesdk.wire.values import flatten, nest, pack_values, shape_for, unpack_values

__all__ = [
    "AgentError",
    "Busy",
    "Client",
    "Tensor",
    "Unreachable",
    "default_state",
    "pack_input",
]

_SOCKET = "agent.sock"
#: sun_path holds 108 bytes; a longer path is reached through the folder's descriptor.
_MAX_SOCKET_PATH = 100
_PAUSE_S = 0.05
#: The agent answers a request by its time-out; this much more is for the way.
_GRACE_S = 5.0
#: What the buffer protocol calls an element, with its size, as a dtype.
_FORMATS = {"?": "bool", "e": "float16", "f": "float32", "d": "float64"}
_SIGNED, _UNSIGNED = "hilq", "HILQ"


def default_state() -> str:
    """The agent's state folder where nobody names another."""
    given = os.environ.get("EDGE_AGENT_STATE")
    base = os.environ.get("XDG_STATE_HOME")
    base = base or os.path.join(os.path.expanduser("~"), ".local", "state")
    return given or os.path.join(base, "edgesdk", "agent")


class AgentError(Exception):
    """The agent refused a request; ``code`` says why in one word, ``facts`` has the values."""

    def __init__(self, code: str, detail: str, facts: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(detail)
        self.code = code
        self.facts = facts or {}


class Busy(AgentError):
    """Too many requests wait, or a host is measuring: try again."""


class Unreachable(AgentError):
    """No agent answers on the socket."""


class Tensor:
    """An output, for applications without numpy: dtype name, shape, little-endian bytes."""

    __slots__ = ("data", "dtype", "name", "shape")

    def __init__(self, name: str, dtype: str, shape: Sequence[int], data: bytes) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = tuple(shape)
        self.data = data

    def __repr__(self) -> str:
        return "Tensor({!r}, {}, {})".format(self.name, self.dtype, list(self.shape))

    def tolist(self) -> Any:
        """Give nested lists of numbers; a scalar is the number itself."""
        return nest(unpack_values(self.dtype, self.data), self.shape)

    def numpy(self) -> Any:
        """Give a numpy array that owns its memory."""
        import numpy as np

        flat = np.frombuffer(self.data, np.dtype(self.dtype).newbyteorder("<"))
        return flat.astype(self.dtype).reshape(self.shape)


class Client:
    """Talks to the agent on this device; may be shared by threads, which then take turns.

    Args:
        state: The agent's state folder, by default that of this user.
        path: The agent's socket, where that lies elsewhere (``run --app-socket``).
        timeout_s: How long an inference may take, with the wait for its turn.
        connect_s: How long to wait for an agent that is not there, or went away.

    Attributes:
        bundle: Id of the release that gave the last answer.
    """

    def __init__(
        self,
        state: Optional[str] = None,
        *,
        path: Optional[str] = None,
        timeout_s: float = 30.0,
        connect_s: float = 5.0,
    ) -> None:
        self.bundle = None  # type: Optional[str]
        self._state = state or default_state()
        self._path = path
        self._timeout_s = timeout_s
        self._connect_s = connect_s
        self._lock = threading.Lock()
        self._link = None  # type: Optional[socket.socket]
        self._reader = FrameReader()
        self._last_id = 0
        self._known = None  # type: Optional[Dict[str, Any]]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the next request connects again."""
        with self._lock:
            self._hang_up()

    def describe(self) -> Dict[str, Any]:
        """Say what serves: ``bundle``, ``name``, ``inputs``, ``outputs``, ``ready``, ...

        Raises:
            AgentError: There is no current release, or no agent.
        """
        with self._lock:
            return self._describe(time.monotonic() + self._timeout_s)

    def infer(
        self, inputs: Dict[str, Any], *, timeout_s: Optional[float] = None
    ) -> Dict[str, Any]:
        """Run the current release once.

        Args:
            inputs: By name: numpy arrays; or bytes, buffers such as `array.array`, or nested
                lists of numbers, which take the dtype, and where they have none the shape,
                of the model's input.
            timeout_s: How long it may take, instead of the client's.

        Returns:
            Outputs by name: numpy arrays if an input was one, else `Tensor`.

        Raises:
            Busy: Too many requests wait already, or its turn did not come in time.
            Unreachable: There is no agent.
            AgentError: The agent refused, or the model failed.
            TensorError: An input cannot be made a tensor.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        with self._lock:
            deadline = time.monotonic() + timeout_s
            for last in (False, True):
                known = self._known
                specs, body = self._pack(inputs, deadline)
                left_s = max(0.001, deadline - time.monotonic())
                meta = {"op": "infer", "tensors": specs, "timeout_s": left_s}
                try:
                    reply = self._ask(meta, body, deadline)
                    break
                except AgentError as exc:
                    # made for a release that took other inputs: look again, once
                    if last or exc.code != "bad-data" or known is None:
                        raise
                    self._known = None
            self.bundle = str(reply.meta.get("bundle"))
            if self._known is not None and self._known["bundle"] != self.bundle:
                self._known = None
        with_numpy = any(_is_array(value) for value in inputs.values())
        return _unpack(reply, with_numpy=with_numpy)

    def _describe(self, deadline: float) -> Dict[str, Any]:
        reply = self._ask({"op": "served"}, b"", deadline)
        return {k: v for k, v in reply.meta.items() if k not in ("id", "ok")}

    def _pack(
        self, inputs: Dict[str, Any], deadline: float
    ) -> Tuple[List[Dict[str, Any]], bytes]:
        specs, pieces, offset = [], [], 0
        for name, value in inputs.items():
            if _is_array(value):
                dtype, shape, data = _from_array(value)
            else:
                if self._known is None:
                    self._known = self._describe(deadline)
                dtype, shape, data = pack_input(name, value, self._known["inputs"])
            specs.append(
                {
                    "name": name,
                    "dtype": dtype,
                    "shape": shape,
                    "offset": offset,
                    "nbytes": len(data),
                }
            )
            pieces.append(data)
            offset += len(data)
        if offset > MAX_TENSOR_BYTES:
            text = "the inputs have {} bytes (at most {})"
            raise TensorError(text.format(offset, MAX_TENSOR_BYTES))
        return specs, b"".join(pieces)

    # -- the link ----------------------------------------------------------------------------

    def _ask(self, meta: Dict[str, Any], body: bytes, deadline: float) -> Frame:
        """Ask and wait; what changes nothing on the device is asked again after a break."""
        again_until = None  # type: Optional[float]
        while True:
            link = self._connected(again_until)
            try:
                return self._ask_once(link, meta, body, deadline + _GRACE_S)
            except AgentError:
                raise
            except OSError as exc:
                self._hang_up()
                if time.monotonic() > deadline:
                    text = "cannot hear from the agent at {}: {}"
                    raise Unreachable(
                        "unreachable", text.format(self._where(), exc.strerror or exc)
                    ) from exc
                again_until = min(deadline, time.monotonic() + self._connect_s)
            except BaseException:
                self._hang_up()  # an answer may be on its way, to nobody
                raise

    def _ask_once(
        self, link: socket.socket, meta: Dict[str, Any], body: bytes, deadline: float
    ) -> Frame:
        self._last_id += 1
        view = memoryview(encode_frame(Frame(dict(meta, id=self._last_id), body)))
        while view:
            self._wait(link, deadline, writing=True)
            try:
                view = view[link.send(view) :]
            except BlockingIOError:
                continue
        while True:
            self._wait(link, deadline, writing=False)
            data = link.recv(1 << 18)
            if not data:
                raise ConnectionResetError("the agent hung up")
            for frame in self._reader.feed(data):
                if "event" in frame.meta or frame.meta.get("id") != self._last_id:
                    continue
                if frame.meta.get("ok") is not True:
                    raise _refusal(frame.meta)
                return frame

    def _wait(self, link: socket.socket, deadline: float, *, writing: bool) -> None:
        poll = select.poll()
        poll.register(link, select.POLLOUT if writing else select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("no answer in time")

    def _connected(self, again_until: Optional[float]) -> socket.socket:
        if self._link is not None:
            return self._link
        until = time.monotonic() + self._connect_s if again_until is None else again_until
        while True:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._connect(link)
            except OSError as exc:
                link.close()
                if time.monotonic() >= until:
                    text = (
                        "cannot reach an agent at {}: {}: is its daemon running "
                        "(edge-agent.pyz run)?"
                    )
                    raise Unreachable(
                        "unreachable", text.format(self._where(), exc.strerror or exc)
                    ) from exc
                time.sleep(_PAUSE_S)
                continue
            link.setblocking(False)
            self._reader = FrameReader()
            self._link = link
            return link

    def _where(self) -> str:
        return self._path or os.path.join(self._state, _SOCKET)

    def _connect(self, link: socket.socket) -> None:
        path = self._where()
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            link.connect(path)
            return
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            link.connect("/proc/self/fd/{}/{}".format(folder, os.path.basename(path)))
        finally:
            os.close(folder)

    def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _refusal(meta: Dict[str, Any]) -> AgentError:
    code, facts = str(meta.get("code")), meta.get("facts")
    kind = Busy if code == "busy" else AgentError
    return kind(code, str(meta.get("detail")), facts if isinstance(facts, dict) else {})


def _unpack(reply: Frame, *, with_numpy: bool) -> Dict[str, Any]:
    try:
        specs = check_specs(reply.meta.get("tensors"), len(reply.body))
    except TensorError as exc:
        text = "cannot read the agent's answer: {}".format(exc)
        raise AgentError("agent-bug", text) from exc
    found = {}  # type: Dict[str, Any]
    for spec in specs:
        data = reply.body[spec["offset"] : spec["offset"] + spec["nbytes"]]
        tensor = Tensor(spec["name"], spec["dtype"], spec["shape"], data)
        found[tensor.name] = tensor.numpy() if with_numpy else tensor
    return found


def _is_array(value: Any) -> bool:
    """Say whether a value is a numpy array or scalar, without importing numpy."""
    return hasattr(value, "__array_interface__") and hasattr(value, "astype")


def _from_array(value: Any) -> Tuple[str, List[int], bytes]:
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    return str(value.dtype.name), [int(n) for n in value.shape], little.tobytes()


def _element(view: memoryview) -> Optional[str]:
    """The dtype of a buffer's elements; None where they are plain bytes."""
    if view.format in _FORMATS:
        return _FORMATS[view.format]
    if view.format in _SIGNED or view.format in _UNSIGNED:
        sign = "int" if view.format in _SIGNED else "uint"
        return "{}{}".format(sign, 8 * view.itemsize)
    return None


def pack_input(
    name: str, value: Any, declared: List[Dict[str, Any]]
) -> Tuple[str, List[int], bytes]:
    """Make a tensor of bytes, a buffer or numbers, as the input that a model declares."""
    known = [spec for spec in declared if spec["name"] == name]
    if not known:
        names = ", ".join(repr(spec["name"]) for spec in declared)
        raise TensorError("the model has no input {!r} (it has {})".format(name, names))
    dtype, shape = known[0]["dtype"], None  # type: Tuple[str, Optional[List[int]]]
    if dtype not in DTYPE_BYTES:
        raise TensorError("input {!r} is of type {}, which cannot be sent".format(name, dtype))
    try:
        view = memoryview(value)
    except TypeError:
        values, shape = flatten(value)
        data = pack_values(dtype, values)
        expected = shape_for(known[0]["shape"], dtype, len(data))
        if len(shape) != len(known[0]["shape"]) and expected is not None:
            shape = expected  # a flat list, or one without the batch
    else:
        data = view.tobytes()
        dtype = _element(view) or dtype
        if sys.byteorder == "big" and view.itemsize > 1:
            data = pack_values(dtype, view.cast("B").cast(view.format).tolist())
        shape = list(view.shape or ()) if view.ndim > 1 else None
        if shape is None:
            shape = shape_for(known[0]["shape"], dtype, len(data))
    if shape is None:
        text = "input {!r} has {} bytes, the model takes {} of shape {}"
        raise TensorError(text.format(name, len(data), dtype, known[0]["shape"]))
    return dtype, shape, data
