"""What a benchmark gives: one frozen tree that is ``report.json``, and the words it uses.

These classes are the contract of ``report.json``: `edgesdk.report.schema` derives the JSON
Schema from them and `edgesdk.report.read` checks files against it, so a field, its type, its
limits and its sentence of documentation are written once, here (and all here, which is why the
module is long; what each runtime ran where, what was asked for and how it went are in modules
beside this one). Every field is always present; what was not measured is null, never left out
and never zero. Nothing here computes or does I/O, and the module imports nothing heavy:
pydantic only looks at it when a file is read or the schema is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias, get_args

from edgesdk.bench.compare_values import Comparison
from edgesdk.bench.fields import (
    CONFIG,
    Amount,
    Count,
    Degrees,
    Fraction,
    Limits,
    Scalar,
    Sha256,
    Text,
    UtcTime,
)
from edgesdk.bench.offload_values import Offload
from edgesdk.bench.origin_values import OriginRecord
from edgesdk.bench.procedure_values import Procedure
from edgesdk.bench.spec_values import MAX_SAMPLES, BenchSpec
from edgesdk.bench.trust_values import Trust

__all__ = [
    "MAX_SAMPLES",
    "PERCENTILES",
    "REPORT_SCHEMA",
    "VERDICTS",
    "Accuracy",
    "AccuracyResult",
    "Baseline",
    "BenchSpec",
    "BenchmarkReport",
    "BundleRecord",
    "CheckedOutput",
    "ConditionSample",
    "Conditions",
    "Contest",
    "Contestant",
    "DecidedBy",
    "DeploymentRecord",
    "DevicePath",
    "DeviceRecord",
    "HostCheck",
    "Interval",
    "Latency",
    "ModelFormat",
    "ModelRecord",
    "PartRecord",
    "PercentileName",
    "Placement",
    "PlacementRow",
    "Ratio",
    "ReferenceOutput",
    "Scalar",
    "TargetRecord",
    "TensorRecord",
    "Verdict",
    "contestant_name",
]

#: The only schema this version writes.
REPORT_SCHEMA = "edgesdk.report/1"

Verdict: TypeAlias = Literal[
    "accelerated",
    "cpu-as-planned",
    "partly-fell-back",
    "fell-back-to-cpu",
    "placement-unknown",
    "accuracy-suspect",
    "not-measured",
]
#: What each verdict means, in the order in which the first that applies is given.
VERDICTS: dict[Verdict, str] = {
    "accuracy-suspect": "outputs on the device differ too much from the host or the reference",
    "not-measured": "no latency sample was taken",
    "fell-back-to-cpu": "planned for an accelerator, but everything ran on the CPU",
    "partly-fell-back": "some of what was planned for an accelerator ran on the CPU",
    "placement-unknown": "planned for an accelerator; the runtime does not tell where it ran",
    "accelerated": "what was planned for an accelerator ran there",
    "cpu-as-planned": "planned for the CPU and ran there",
}

#: What a contest was decided by: a clear difference in time; the order of the profile, as there
#: was none; a faster one's loss of accuracy; or one alone was left. Refused: the bundle that
#: was asked for lost, so nothing was kept.
DecidedBy: TypeAlias = Literal["time", "order", "accuracy", "alone", "refused"]
DevicePath: TypeAlias = Literal["local", "ssh", "serial", "virtual"]
ModelFormat: TypeAlias = Literal["onnx", "tflite"]
PercentileName: TypeAlias = Literal["p50_ms", "p90_ms", "p99_ms"]
#: The percentiles a report may hold, as (name, quantile).
PERCENTILES: tuple[tuple[PercentileName, float], ...] = (
    ("p50_ms", 0.5),
    ("p90_ms", 0.9),
    ("p99_ms", 0.99),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % confidence interval between two order statistics of the samples."""

    __pydantic_config__ = CONFIG

    lower_ms: Amount
    upper_ms: Amount
    coverage: Fraction
    """The exact coverage of these two order statistics, at least 0.95."""

    def __post_init__(self) -> None:
        if self.lower_ms > self.upper_ms:
            raise ValueError("lower_ms is above upper_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """End-to-end time of single inferences, one after the other, with all hand-over.

    Percentiles are linear interpolations between the two nearest samples (Hyndman and Fan's
    type 7, numpy's default). One is given only where its interval exists.
    """

    __pydantic_config__ = CONFIG

    samples_ms: tuple[Amount, ...]
    """Every counted run, in the order in which they were made."""
    min_ms: Amount | None
    max_ms: Amount | None
    mean_ms: Amount | None
    p50_ms: Amount | None
    p90_ms: Amount | None
    p99_ms: Amount | None
    why: dict[PercentileName, Text]
    """For each percentile that is null, the reason."""
    intervals: dict[PercentileName, Interval]
    """For each percentile that is not null, its 95 % order-statistic interval."""

    def __post_init__(self) -> None:
        if len(self.samples_ms) > MAX_SAMPLES:
            raise ValueError(f"there are more than {MAX_SAMPLES} samples")
        for name, _ in PERCENTILES:
            given = getattr(self, name) is not None
            if given != (name in self.intervals) or given == (name in self.why):
                raise ValueError(
                    f"{name} needs a value and an interval, or null and a reason in why"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRecord:
    """One input or output of the model."""

    __pydantic_config__ = CONFIG

    name: Text
    dtype: Text
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """The model file that the bundle was built from."""

    __pydantic_config__ = CONFIG

    name: Text
    format: ModelFormat | None
    sha256: Sha256 | None
    bytes: Count | None
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    origin: OriginRecord | None = None
    """What the file was imported from; null where it is the user's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRecord:
    """The kind of device that the bundle was built for."""

    __pydantic_config__ = CONFIG

    name: Text
    family: Text | None
    digest: Text | None
    """Hash of the target profile that was used."""
    assumed: tuple[Text, ...]
    """Figures of the profile that nobody has measured or documented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """The unit that was measured, as it describes itself."""

    __pydantic_config__ = CONFIG

    name: Text
    url: Text | None
    """Its address, without secrets."""
    machine: Text | None
    cpu_model: Text | None
    cpu_count: Count | None
    device_tree_model: Text | None
    ram_bytes: Count | None
    system: Text | None
    kernel: Text | None
    os: Text | None
    python: Text | None
    agent_version: Text | None
    agent_sha256: Text | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRecord:
    """The bundle that ran."""

    __pydantic_config__ = CONFIG

    id: Sha256
    name: Text
    precision: Text
    bytes: Count
    """Bytes of its parts: what a runtime loads."""
    as_built: tuple[Text, ...] = ()
    """What measuring decided while it was built, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """One part of the bundle: where it was built to run, and how long it took there."""

    __pydantic_config__ = CONFIG

    index: Count
    backend: Text
    runtime: Text
    format: Text
    precision: Text | None
    bytes: Count
    runtime_version: Text | None
    detail: dict[str, Scalar | tuple[Scalar, ...]]
    """What the runtime said of itself on the device."""
    median_ms: Amount | None
    share: Fraction | None
    """What the runtime's own call takes of all the time; what is missing is hand-over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """The receipt of the deployment that put the bundle on the device."""

    __pydantic_config__ = CONFIG

    bundle_id: Sha256
    device: Text
    device_url: Text
    path: DevicePath
    """How it was reached."""
    started: UtcTime
    seconds: Amount
    blobs_sent: Count
    bytes_sent: Count
    bytes_skipped: Count
    slot: Text
    previous: Text | None
    self_check_passed: bool
    self_check_reused: bool
    """The check had passed here before, with the same agent and runtimes."""
    target_mismatch: tuple[Text, ...]
    """Why the device is not the target, where that was overridden."""
    noise_bytes: Count
    """Bytes on the link that were no frames; a bad cable shows here."""
    delta_bytes: Count = 0
    """Of the bytes sent, those of deltas against what the device held."""
    delta_made_bytes: Count = 0
    """What the device made of them."""
    outcome: Text = "active"
    """How the release stood in the end: ``active``, ``on-probation``, or ``returned``, where
    the device went back to the one before by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionSample:
    """What the device said of itself at one moment of the measurement."""

    __pydantic_config__ = CONFIG

    t_s: Amount
    """Seconds since the first counted run began."""
    cpu_mhz: tuple[Amount, ...]
    temp_c: dict[str, Degrees]
    """Degrees by name of the thermal zone."""
    load1: Amount | None
    throttled: tuple[Text, ...] | None
    """What limits the clock; empty where nothing does, null where nothing tells."""
    mem_available_bytes: Count | None
    governor: Text | None = None
    others_cpu: Amount | None = None
    """Cores that other processes took since the sample before."""
    swap_used_bytes: Count | None = None
    engine_mhz: dict[str, Amount] = field(default_factory=dict)
    """Clocks of what is no CPU, by the kernel's name of it."""
    power_w: dict[str, Amount] = field(default_factory=dict)
    """Watts by sensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Circumstances of the measurement: without them a latency cannot be compared."""

    __pydantic_config__ = CONFIG

    static: dict[str, Scalar | tuple[Scalar, ...]]
    """What did not change: governor, clock limits, thread counts, ..."""
    samples: tuple[ConditionSample, ...]
    throttled: bool | None
    """Whether any sample said so; null where the device cannot tell."""
    notes: tuple[Text, ...]
    """What a reader should know before trusting the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRow:
    """Some of the work and who was to do it, or did."""

    __pydantic_config__ = CONFIG

    backend: Text
    accelerator: bool | None
    nodes: Count | None
    """Graph nodes; null where the runtime does not tell."""
    share: Fraction | None
    """Share of the time: predicted by the profile's figures, or measured; null if unknown."""
    detail: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the work was meant to go, where the build put it, and where it ran."""

    __pydantic_config__ = CONFIG

    predicted: tuple[PlacementRow, ...]
    as_built: tuple[PlacementRow, ...]
    actual: tuple[PlacementRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedOutput:
    """The worst difference of one output over all check vectors, device against host."""

    __pydantic_config__ = CONFIG

    name: Text
    within: bool
    max_abs_error: Amount | None
    """Null where the outputs held NaN or infinities."""
    allowed: Amount | None
    mismatches: Count
    """Elements outside the tolerance."""
    elements: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCheck:
    """The same parts on the same inputs, on this device and on the host that built them."""

    __pydantic_config__ = CONFIG

    passed: bool
    vectors: Count
    outputs: tuple[CheckedOutput, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOutput:
    """One output on the device against the unquantized model, over all check vectors."""

    __pydantic_config__ = CONFIG

    name: Text
    vectors: Count
    cosine: Annotated[float, Limits(ge=-1.0, le=1.0)] | None
    """The lowest cosine similarity; null where it is undefined."""
    max_abs_error: Amount | None
    top1_agreement: Fraction | None
    """Share of vectors with the same largest elements; null where there are no classes."""
    rows: Count
    """Check vectors that top1_agreement was taken over; 0 where it is null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyResult:
    """A metric over labelled data."""

    __pydantic_config__ = CONFIG

    metric: Text
    kind: Literal["rate", "error"]
    """A rate lies from 0 to 1 and should be large; an error has a unit and should be small."""
    value: Amount
    lower: Amount | None
    """Lower end of the 95 % interval (Wilson's for a rate); null where none can be stated."""
    upper: Amount | None
    samples: Annotated[int, Limits(ge=1)]
    where: Literal["device", "host"]
    """Which of the two ran the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How far the outputs can be trusted; null or empty where nobody looked."""

    __pydantic_config__ = CONFIG

    host_check: HostCheck | None
    reference: tuple[ReferenceOutput, ...]
    labelled: AccuracyResult | None
    labelled_reference: AccuracyResult | None
    """The same metric and data with the unquantized model, if that was run too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A float bundle of the same model, measured on the same device in the same session."""

    __pydantic_config__ = CONFIG

    bundle: BundleRecord
    latency: Latency
    cold_start_ms: Amount | None
    load_ms: Amount | None
    first_run_ms: Amount | None
    throughput_per_s: Amount | None
    peak_rss_bytes: Count | None
    accuracy: Accuracy
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as long as the winner one took, over pairs of rounds in turns."""

    __pydantic_config__ = CONFIG

    value: Amount
    """The median over the rounds of the ratio of the two medians of a round."""
    lower: Amount | None
    """Lower end of its 95 % order-statistic interval; null with fewer than 6 rounds."""
    upper: Amount | None
    coverage: Fraction | None
    """The exact coverage of that interval, at least 0.95."""
    rounds: Annotated[int, Limits(ge=1)]

    def __post_init__(self) -> None:
        ends = (self.lower, self.upper, self.coverage)
        if any(end is None for end in ends) and any(end is not None for end in ends):
            raise ValueError("an interval needs lower, upper and coverage, or none of them")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError("lower is above upper")


def contestant_name(backend: str, precision: str) -> str:
    """Say what a contestant is called: its backend, and the precision if several compete."""
    return f"{backend} {precision}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A backend of a contest, or a backend in one of several precisions, measured.

    In its bundle the backend goes before the others.
    """

    __pydantic_config__ = CONFIG

    backend: Text
    bundle: BundleRecord | None
    """Null where nothing was built."""
    nodes: dict[str, Count]
    """Graph nodes by backend, as planned."""
    runtimes: tuple[Text, ...]
    """What ran the parts on the device, with versions."""
    latency: Latency | None
    """Of all its rounds, one after the other; null where nothing was measured."""
    p95_ms: Amount | None
    """The 95th percentile; null with fewer than 72 runs."""
    rounds: tuple[Count, ...]
    """Runs in each round."""
    cold_start_ms: Amount | None
    """The median of its rounds: each starts a worker of its own."""
    load_ms: Amount | None
    peak_rss_bytes: Count | None
    """The largest of its rounds."""
    ratio: Ratio | None
    """Its time by the winner's; null for the winner and where one was not measured."""
    labelled: AccuracyResult | None
    """What labelled data gave, where that was looked at to choose."""
    why_out: Text
    """Why it dropped out; empty where it did not."""
    precision: Text = ""
    """What it competes in; empty where all have the same precision."""
    cosine: float | None = None
    """To the unquantized model, at the worst output of the check vectors on the device."""

    @property
    def name(self) -> str:
        """What it is called in the contest."""
        return contestant_name(self.backend, self.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """Bundles of the same model measured in turns on the device, of which one was kept."""

    __pydantic_config__ = CONFIG

    contestants: Annotated[tuple[Contestant, ...], Limits(min_length=1)]
    """In the order in which a tie goes: that of the profile; the most exact precision first."""
    winner: Text
    """The backend whose bundle was kept, with its precision where several competed."""
    decided_by: DecidedBy
    why: Text
    """The decision in words."""
    throttled: bool | None
    """Whether any round said that the clock was limited; null where the device cannot tell."""
    emulated: Text | None
    """What emulated the device: who is faster there may be slower on a board."""

    def __post_init__(self) -> None:
        if self.winner not in {each.name for each in self.contestants}:
            raise ValueError("the winner is no contestant")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """One model, built for one target, measured on one device: the content of report.json."""

    __pydantic_config__ = CONFIG

    schema: Literal["edgesdk.report/1"]
    created: UtcTime
    edgesdk: Text
    """Version of edgesdk that wrote this."""
    verdict: Verdict
    verdict_reasons: tuple[Text, ...]
    """What the verdict rests on."""
    model: ModelRecord
    target: TargetRecord
    device: DeviceRecord
    bundle: BundleRecord
    parts: tuple[PartRecord, ...]
    deployment: DeploymentRecord | None
    spec: BenchSpec
    started: UtcTime | None
    """When the device began to measure, by its own clock."""
    wall_s: Amount | None
    latency: Latency
    cold_start_ms: Amount | None
    """From starting a worker process to its first result."""
    load_ms: Amount | None
    """The runtime loading all parts."""
    first_run_ms: Amount | None
    throughput_per_s: Amount | None
    """Inferences per second: in a single stream without batches counted runs by their summed
    time, else inferences by the time from the first run to the last."""
    peak_rss_bytes: Count | None
    """Largest resident memory of the worker process, runtime included."""
    conditions: Conditions
    placement: Placement
    accuracy: Accuracy
    baseline: Baseline | None
    contest: Contest | None = None
    """How this bundle was chosen, where the target's profile left that to a measurement."""
    repeat: tuple[Text, ...]
    """Commands that make this measurement again."""
    offload: Offload | None = None
    """What each runtime said it ran where, op by op; null where nobody asked."""
    procedure: Procedure | None = None
    """How the counted runs came about; null where nothing was measured."""
    trust: Trust | None = None
    """How far the latency can be trusted, and why; null where none was measured."""
    comparisons: tuple[Comparison, ...] = ()
    """Against other releases on the same device, measured in turns."""


assert set(get_args(Verdict)) == set(VERDICTS)
