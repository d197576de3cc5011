"""The parts of a bundle as they are built: what one is made of, and who makes its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgesdk.backends import Backend, CompiledPart, NodesRefused, PartJob
from edgesdk.backends.fallbacks import ceilings_of
from edgesdk.build.reference import ChainOnHost, HostModel, TfliteOnHost, open_part
from edgesdk.build.split import CutPart
from edgesdk.errors import CompileError
from edgesdk.model.convert import fit_opset
from edgesdk.model.save import save_model
from edgesdk.model.values import Finding
from edgesdk.plan.placing import PlacedPart
from edgesdk.profiles.values import TargetProfile
from edgesdk.progress import OnNote
from edgesdk.tensors import TensorInfo

__all__ = ["BuiltPart", "BuiltParts", "Refused", "Workshop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPart:
    """A part on disk. ``inputs`` and ``outputs`` are what its runtime is given and gives.

    ``unrounded`` answers for `edgesdk.backends.CompiledPart.unrounded`; ``plain`` runs the same
    file in the runtime's other kernel set, where it has two.
    """

    backend: Backend
    compiled: CompiledPart
    precision: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    host: HostModel | None
    unrounded: HostModel | None = None
    plain: HostModel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltParts:
    """All parts in the order of the chain, and what building them found out.

    ``placement`` is plain data for the manifest: where nodes went, and what differs from the
    plan.
    """

    parts: tuple[BuiltPart, ...]
    placement: Mapping[str, Any]
    findings: tuple[Finding, ...]

    def on_host(self, outputs: Sequence[str]) -> HostModel:
        """Give the whole chain on this computer; several parts give ``outputs``, by name.

        Raises:
            CompileError: A part cannot be run here.
        """
        return self._chain([part.host for part in self.parts], outputs)

    def unrounded(self, outputs: Sequence[str]) -> HostModel | None:
        """Give the chain without the rounding that devices choose themselves, if any do."""
        if all(part.unrounded is None for part in self.parts):
            return None
        return self._chain([part.unrounded or part.host for part in self.parts], outputs)

    def plain(self, outputs: Sequence[str]) -> HostModel | None:
        """Give the chain in the other kernel sets of its runtimes, if any has two."""
        if all(part.plain is None for part in self.parts):
            return None
        return self._chain([part.plain or part.host for part in self.parts], outputs)

    def _chain(self, given: Sequence[HostModel | None], outputs: Sequence[str]) -> HostModel:
        hosts = [host for host in given if host is not None]
        if len(hosts) != len(self.parts):
            missing = next(part for part in self.parts if part.host is None)
            raise CompileError(
                f"cannot make check vectors: what is made for {missing.backend.profile.id} "
                "does not run on this computer",
                hint="give the model before it was compiled for that device",
            )
        if len(hosts) == 1:
            return hosts[0]
        return ChainOnHost(
            [
                (host, [value.name for value in part.inputs])
                for host, part in zip(hosts, self.parts, strict=True)
            ],
            outputs,
        )


class Refused(Exception):
    """A compiler turned down nodes of a part."""

    def __init__(self, part: PlacedPart, exc: NodesRefused) -> None:
        super().__init__(str(exc))
        self.part = part
        self.reasons = exc.reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Who builds parts, and what was built: a part that comes again is not compiled again."""

    profile: TargetProfile
    backends: Mapping[str, Backend]
    precision: str
    folder: Path
    on_note: OnNote
    done: dict[tuple[object, ...], CompiledPart] = field(default_factory=dict)

    def build(self, number: int, part: PlacedPart, cut: CutPart, precision: str) -> BuiltPart:
        """Write a part's files.

        Raises:
            Refused: Its compiler turned down nodes.
            CompileError: It cannot be compiled.
        """
        backend = self.backends[part.backend]
        if backend.compiler is None:
            return self.built(backend, cut, precision, self._as_onnx(backend, cut, number))
        # the same nodes may have to give another form of a value to another part
        key = part.backend, part.nodes, cut.inputs, cut.outputs
        if key not in self.done:
            # the number is no name here: it may change with a later try
            room = self.folder / f"try-{len(self.done)}"
            room.mkdir(exist_ok=True)
            try:
                self.done[key] = backend.compiler(self.job(backend, number, room, cut))
            except NodesRefused as exc:
                raise Refused(part, exc) from exc
        return self.built(backend, cut, precision, self.done[key])

    def job(
        self,
        backend: Backend,
        number: int,
        folder: Path,
        cut: CutPart,
        source: Path | None = None,
    ) -> PartJob:
        """Say what a compiler is to do."""
        max_opset, max_ir = ceilings_of(self.profile, backend.profile)
        return PartJob(
            index=number,
            model=cut.model,
            source=source,
            precision=self.precision,
            folder=folder,
            max_opset=max_opset,
            max_ir=max_ir,
            on_note=self.on_note,
        )

    def built(
        self,
        backend: Backend,
        cut: CutPart,
        precision: str,
        compiled: CompiledPart,
        *,
        may_fail_here: bool = False,
    ) -> BuiltPart:
        """Describe a part; what nobody compiled is for the backend that runs the rest.

        Raises:
            CompileError: It does not load on this computer, and ``may_fail_here`` is not set.
        """
        if compiled.is_for_rest:
            kind = backend.rest_kind
            rest = (b for b in self.backends.values() if b.profile.kind == kind)
            backend = next(rest, backend)
        runtime = backend.profile.runtime
        path = compiled.on_host or compiled.files["model"]
        host: HostModel | None = None
        try:
            names = [value.name for value in cut.outputs]
            host = open_part(path, runtime, names)
        except CompileError:
            if not may_fail_here:
                raise
        exact = compiled.unrounded
        has_two = host is not None and path.suffix == ".tflite"
        return BuiltPart(
            backend=backend,
            compiled=compiled,
            precision=precision,
            inputs=cut.inputs,
            outputs=cut.outputs,
            host=host,
            unrounded=None if exact is None else open_part(exact, runtime),
            plain=TfliteOnHost(path, plain=True) if has_two else None,
        )

    def _as_onnx(self, backend: Backend, cut: CutPart, number: int) -> CompiledPart:
        """Write a part for a runtime that reads ONNX, at versions that it loads."""
        profile = backend.profile
        assert cut.model is not None
        # a quantizer writes what it needs, whatever the target reads
        model = fit_opset(cut.model, lowest=1, highest=profile.max_opset, max_ir=profile.max_ir)
        paths = save_model(model, self.folder, f"part-{number}")
        return CompiledPart(
            files=dict(zip(("model", "data"), paths, strict=False)),
            format="onnx",
            requires={"opset": model.opset_imports.get(""), "ir_version": model.ir_version},
        )
