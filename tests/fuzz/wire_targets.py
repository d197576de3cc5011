"""What parses bytes of a peer or of a file, as targets."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgesdk.bench.history_lines import LINE_SCHEMA, parse_line
from edgesdk.errors import HistoryError, ReportError
from edgesdk.report.files import encode_report
from edgesdk.report.read import parse_report
from edgesdk.wire.arq import Arq
from edgesdk.wire.delta import (
    DeltaError,
    DeltaHeader,
    apply_delta,
    encode_header,
    put_varint,
    read_header,
)
from edgesdk.wire.frames import Frame, FrameReader, bare_frame_ends, encode_frame
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_META_BYTES
from edgesdk.wire.manifest import ManifestError, bundle_id, canonical_bytes, load_manifest
from edgesdk.wire.statement import StatementError, load_statement, statement_bytes
from edgesdk.wire.tensors import TensorError, check_specs
from tests.agent.agent_driver import EchoBundle
from tests.fuzz.fuzzing import Target
from tests.fuzz.mutate import mutate_bytes, mutate_json
from tests.unit.report.fixtures import make_sample_report
from tests.unit.wire.line_sim import Sim

__all__ = ["wire_targets"]

_BASE = hashlib.sha256(b"base").hexdigest()
_BASE_BYTES = bytes(range(256)) * 4
_MOST_MADE = 1 << 20


def _json_mutate(data: bytes, rng: random.Random, other: bytes) -> bytes:
    """Mostly change values, and now and then the text itself."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng, other)
    try:
        value = json.loads(data)
    except ValueError:
        return mutate_bytes(data, rng, other)
    text = json.dumps(mutate_json(value, rng), sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")[: 1 << 18]


# -- frames ------------------------------------------------------------------------------------


def _frames_seeds() -> list[bytes]:
    one = encode_frame(Frame({"op": "status", "id": 1}))
    two = encode_frame(Frame({"op": "put", "id": 2, "offset": 0}, b"body" * 50))
    head, tail = bare_frame_ends({"op": "put", "id": 3, "offset": 0}, 70_000)
    bare = head + b"body" * 17_500 + tail
    seeds = [one, two, one + two, b"U-Boot 2020.10\r\n" + one, two[:-4] + one, one[:9] + two]
    return [*seeds, bare, bare[:300] + bare, bare + one]


def _frames(data: bytes) -> None:
    """However they are cut, the same frames come out, and nothing is kept but a started one."""
    for takes_bare in (False, True):
        _frames_of(data, takes_bare=takes_bare)


def _frames_of(data: bytes, *, takes_bare: bool) -> None:
    whole = FrameReader(takes_bare=takes_bare)
    frames = whole.feed(data)
    cut = FrameReader(takes_bare=takes_bare)
    piecewise: list[Frame] = []
    step = 1 + len(data) % 13
    for start in range(0, len(data), step):
        piecewise += cut.feed(data[start : start + step])
    assert [(f.meta, f.body) for f in frames] == [(f.meta, f.body) for f in piecewise]
    assert len(whole._buffer) <= MAX_META_BYTES + MAX_BODY_BYTES + 64
    taken = sum(len(encode_frame(f)) for f in frames if _round_trips(f))
    assert taken <= len(data) * 8 + 64
    assert isinstance(whole.noise_tail, str)


def _round_trips(frame: Frame) -> bool:
    try:
        encode_frame(frame)
    except ValueError:  # a lone surrogate, which a peer can write as an escape
        return False
    return True


# -- the line ----------------------------------------------------------------------------------


def _arq_seeds() -> list[bytes]:
    """What both ends write in a short session, frame by frame and all at once."""
    sim = Sim(rates=(1_500_000,), error_rate=1e-4)
    said: dict[str, list[bytes]] = {"down": [], "up": []}

    def note(name: str) -> Callable[[bytes], bytes]:
        def keep(data: bytes) -> bytes:
            said[name].append(data)
            return data

        return keep

    sim.down.keep, sim.up.keep = note("down"), note("up")
    sim.host.arq.connect(sim.now)
    sim.host.to_send = b"question" * 40
    sim.agent.to_send = b"answer" * 400
    sim.run(lambda: len(sim.host.got) >= 2400, 10.0)
    return [b"".join(each)[:2000] for each in said.values()] + said["down"][:6] + said["up"][:6]


def _arq(is_host: bool) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        tokens = random.Random(7)
        seen = bytearray()
        end = Arq(
            is_host=is_host,
            baud=115_200,
            rates=(460_800, 921_600),
            new_token=tokens.randbytes,
            on_text=seen.extend,
        )
        now = 0.0
        if is_host:
            end.connect(now)
            end.put(b"hello")
        for start in range(0, len(data), 61):
            end.feed(data[start : start + 61], now)
            now += 0.05
            end.tick(now)
            out = end.take(now)
            assert len(out) <= 1 << 16
            wake = end.wake_at(now)
            assert wake is None or wake == wake
            end.get()
        assert len(seen) <= len(data)
        assert isinstance(end.noise_tail, str)

    return run


# -- manifest, statement, tensors --------------------------------------------------------------


def _manifest(data: bytes) -> None:
    try:
        manifest = load_manifest(data)
    except ManifestError:
        return
    canonical = canonical_bytes(manifest)
    assert load_manifest(canonical) == manifest
    assert bundle_id(manifest) == hashlib.sha256(canonical).hexdigest()


def _manifest_seeds() -> list[bytes]:
    return [
        EchoBundle(b"part").data,
        EchoBundle(b"part" * 9, name="two", parts=2).data,
    ]


def _statement_seeds() -> list[bytes]:
    plain = statement_bytes(bundle="0" * 64, name="echo", counter=3, made=1_700_000_000)
    return [plain]


def _statement(data: bytes) -> None:
    try:
        load_statement(data)
    except StatementError:
        return


def _tensor_seeds() -> list[bytes]:
    spec = {"name": "x", "dtype": "float32", "shape": [1, 2], "offset": 0, "nbytes": 8}
    other = {"name": "y", "dtype": "uint8", "shape": [8], "offset": 8, "nbytes": 8}
    return [json.dumps([spec]).encode(), json.dumps([spec, other]).encode()]


def _tensors(data: bytes) -> None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        specs = check_specs(value, 16)
    except TensorError:
        return
    for spec in specs:
        assert 0 <= spec["offset"] <= spec["offset"] + spec["nbytes"] <= 16


# -- delta -------------------------------------------------------------------------------------


def _delta_seeds() -> list[bytes]:
    result = _BASE_BYTES[:100] + b"new" + _BASE_BYTES[200:260]
    header = DeltaHeader(hashlib.sha256(result).hexdigest(), len(result), [(_BASE, 1024)])
    steps = bytearray()
    for step in ((0, 0, 0, 100), (1, 3), (0, 0, 200, 60)):
        for number in step:
            put_varint(steps, number)
    out = bytearray(encode_header(header))
    for stream in (bytes(steps), b"", b"new"):
        put_varint(out, len(stream))
        put_varint(out, len(stream))
        out += stream
    return [bytes(out)]


def _delta(data: bytes) -> None:
    stream = io.BytesIO(data)
    made = 0

    def write(piece: bytes) -> None:
        nonlocal made
        made += len(piece)
        if made > _MOST_MADE:
            raise DeltaError("more than this test lets it make")

    def read_base(base: int, offset: int, count: int) -> bytes:
        size = header.bases[base][1]
        assert 0 <= offset <= offset + count <= size, "a base is read past its end"
        assert count <= 1 << 22
        return (_BASE_BYTES * (count // 1024 + 1))[:count]

    try:
        header = read_header(stream.read)
        apply_delta(header, stream.read, read_base, write)
    except DeltaError:
        return
    assert made == header.size


# -- report ------------------------------------------------------------------------------------


def _report_seeds() -> list[bytes]:
    return [encode_report(make_sample_report())]


def _report(data: bytes) -> None:
    try:
        report = parse_report(data, name="report.json")
    except ReportError:
        return
    again = encode_report(report)
    assert encode_report(parse_report(again, name="again")) == again


# -- a line of an exported history -------------------------------------------------------------


def _history_line_seeds() -> list[bytes]:
    report = json.loads(encode_report(make_sample_report()))
    document = {"schema": LINE_SCHEMA, "labels": ["main"], "branch": "b", "commit": "ab" * 20}
    return [json.dumps({**document, "report": report}).encode()]


def _history_line(data: bytes) -> None:
    try:
        run, report = parse_line(data, name="line 1", parse_report=parse_report)
    except HistoryError:
        return
    again = {"schema": LINE_SCHEMA, "labels": list(run.labels), "report": json.loads(report)}
    found, _ = parse_line(json.dumps(again).encode(), name="again", parse_report=parse_report)
    assert (found.id, found.labels) == (run.id, run.labels)


def wire_targets() -> list[Target]:
    """What is framed and read here: the wire's formats, a report, a line of a history."""
    here = str(Path("edgesdk") / "wire")
    line = Target("line-agent", _arq_seeds, _arq(is_host=False), ("edgesdk/wire/arq",))
    found: list[Target] = [
        Target("frames", _frames_seeds, _frames, (f"{here}/frames.py",)),
        line,
        replace(line, name="line-host", run=_arq(is_host=True)),
        Target("manifest", _manifest_seeds, _manifest, (f"{here}/manifest.py",), _json_mutate),
        Target(
            "statement", _statement_seeds, _statement, (f"{here}/statement.py",), _json_mutate
        ),
        Target("tensors", _tensor_seeds, _tensors, (f"{here}/tensors.py",), _json_mutate),
        Target("delta", _delta_seeds, _delta, (f"{here}/delta.py",)),
        Target("report", _report_seeds, _report, ("edgesdk/report/read.py",), _json_mutate, 60),
        Target(
            "history-line",
            _history_line_seeds,
            _history_line,
            ("edgesdk/bench/history_lines.py",),
            _json_mutate,
            60,
        ),
    ]
    return found
