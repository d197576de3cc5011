"""Every error edgesdk raises on purpose, in one tree.

    EdgeError                      70  our bug, or an error nobody classified
    ├── FindingsError               1  a gate or a lint says no
    ├── InputError                  2  what the user gave cannot be used
    │   ├── ModelError                 the model file
    │   ├── DataError                  calibration or labelled data, preprocessing
    │   ├── ProfileError               a target profile; an unknown target
    │   ├── RecipeError                a recipe file or option
    │   ├── InventoryError             the device inventory, a device URL or name
    │   ├── BundleError                a bundle folder
    │   ├── ReportError                a report file
    │   ├── HistoryError               the history of measurements, or an export of it
    │   ├── SettingsError              a setting from flag, environment or file
    │   └── OutputError                a place we were told to write to
    ├── BuildError                  3  the build cannot be done
    │   ├── PlacementError             no backend takes a node
    │   ├── QuantizeError              the quantizer cannot do what was asked
    │   │   └── CalibrationError       calibration data that it cannot work with
    │   ├── CompileError               a backend's compiler or a conversion failed
    │   ├── ToolchainError             an importer's environment cannot be made or used
    │   └── ProofMismatch              an imported model gives other numbers than its source
    ├── LinkError                   4  between host and agent
    │   ├── ChannelError               bytes do not get through
    │   │   ├── ChannelTimeout         nothing arrived in time
    │   │   └── ChannelClosed          the other end went away
    │   ├── HostKeyError               unknown or changed SSH host key
    │   ├── AuthError                  the device does not let us in
    │   ├── BootstrapError             the agent cannot be started over there
    │   └── ProtocolError              the ends do not understand each other
    └── DeviceError                 5  the device says no
        ├── RolledBackError         6  it went back to the release before by itself
        ├── TargetMismatch             the device is not what the target describes
        ├── RuntimeMissing             a runtime the bundle needs is not there
        ├── SpaceError                 no room, or nothing may be written
        ├── TrustError                 the device does not trust this bundle
        ├── WorkerError                the worker died, hung or ran out of memory
        └── SelfCheckError             check vectors give other numbers there

Exit codes: 0 fine, 1 findings, 2 bad input or usage, 3 the build cannot be done, 4 link,
5 device, 6 the device took the release back by itself, 70 our bug, 130 interrupted. The CLI
turns an error into its ``exit_code``; the library only raises. Messages read *cannot* verb
object: what was seen (what was expected); lower case, no full stop. ``hint`` is the next thing
a person should try, ``facts`` the same values as data.
"""

from __future__ import annotations

__all__ = [
    "AuthError",
    "BootstrapError",
    "BuildError",
    "BundleError",
    "CalibrationError",
    "ChannelClosed",
    "ChannelError",
    "ChannelTimeout",
    "CompileError",
    "DataError",
    "DeviceError",
    "EdgeError",
    "FindingsError",
    "HistoryError",
    "HostKeyError",
    "InputError",
    "InventoryError",
    "LinkError",
    "ModelError",
    "OutputError",
    "PlacementError",
    "ProfileError",
    "ProofMismatch",
    "ProtocolError",
    "QuantizeError",
    "RecipeError",
    "ReportError",
    "RolledBackError",
    "RuntimeMissing",
    "SelfCheckError",
    "SettingsError",
    "SpaceError",
    "TargetMismatch",
    "ToolchainError",
    "TrustError",
    "WorkerError",
]

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class EdgeError(Exception):
    """Root of the tree. The CLI prints it without a traceback.

    Args:
        problem: What could not be done, to what, and what was seen instead.
        hint: The next thing a person should try; empty if we do not know.
        facts: The values named in ``problem``, as data for logs and reports.
    """

    exit_code = EXIT_BUG

    def __init__(self, problem: str, *, hint: str = "", **facts: object) -> None:
        super().__init__(problem)
        self.hint = hint
        self.facts = facts


class FindingsError(EdgeError):
    """A gate or a lint that was asked for says no."""

    exit_code = EXIT_FINDINGS


class InputError(EdgeError):
    """Something the user gave cannot be used."""

    exit_code = 2


class ModelError(InputError):
    """The model file cannot be used."""


class DataError(InputError):
    """Calibration or labelled data cannot be used."""


class ProfileError(InputError):
    """A target profile cannot be used, or no target has that name."""


class RecipeError(InputError):
    """A recipe file or option cannot be used."""


class InventoryError(InputError):
    """The device inventory, a device URL or a device name cannot be used."""


class BundleError(InputError):
    """A bundle folder is incomplete, altered or not a bundle."""


class ReportError(InputError):
    """A report file cannot be used."""


class HistoryError(InputError):
    """The history of measurements, or an export of it, cannot be used."""


class SettingsError(InputError):
    """A setting from flag, environment or file cannot be used."""


class OutputError(InputError):
    """A place we were told to write to cannot be written."""


class BuildError(EdgeError):
    """The build cannot be done."""

    exit_code = 3


class PlacementError(BuildError):
    """No backend of the target takes a node."""


class QuantizeError(BuildError):
    """The quantizer cannot do what the recipe asks."""


class CalibrationError(QuantizeError):
    """Calibration or labelled data cannot be used, whatever the precision."""


class CompileError(BuildError):
    """A backend's compiler, or a conversion the target needs, failed."""


class ToolchainError(BuildError):
    """The environment that an importer runs in cannot be made, or its exporter died in it."""


class ProofMismatch(BuildError):
    """An imported model gives other numbers than the framework it came from."""


class LinkError(EdgeError):
    """Host and agent cannot talk."""

    exit_code = 4


class ChannelError(LinkError):
    """Bytes do not get through."""


class ChannelTimeout(ChannelError):
    """Nothing arrived, or nothing was accepted, in time."""


class ChannelClosed(ChannelError):
    """The other end went away."""


class HostKeyError(LinkError):
    """The SSH host key is unknown or has changed."""


class AuthError(LinkError):
    """The device does not let us in."""


class BootstrapError(LinkError):
    """The agent cannot be started on the device."""


class ProtocolError(LinkError):
    """Host and agent do not understand each other."""


class DeviceError(EdgeError):
    """The device says no."""

    exit_code = 5


class RolledBackError(DeviceError):
    """A release failed on probation, and the device returned to the one before by itself."""

    exit_code = 6


class TargetMismatch(DeviceError):
    """The device is not what the target profile describes."""


class RuntimeMissing(DeviceError):
    """A runtime that the bundle needs is not installed on the device."""


class SpaceError(DeviceError):
    """The device has no room, or nothing may be written there."""


class TrustError(DeviceError):
    """The device demands a signature, and what it was given does not count."""


class WorkerError(DeviceError):
    """The worker process died, hung or ran out of memory."""


class SelfCheckError(DeviceError):
    """The check vectors give other numbers on the device."""
