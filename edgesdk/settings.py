"""Settings: one record per option, merged once from flag, environment, file and default.

A setting is what a person would otherwise repeat on every command (where the inventory lies,
the usual device). What belongs to one build stands in a recipe, what belongs to one device in
the inventory. The command line resolves all settings once, with their origin, and passes the
object down; the library reads none of this by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgesdk.errors import SettingsError
from edgesdk.near import suggest
from edgesdk.yaml_file import read_yaml

__all__ = [
    "OPTIONS",
    "Option",
    "Settings",
    "resolve_settings",
    "settings_file",
]

Value = str | int | float | bool | Path | None

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_SIZE = re.compile(r"([0-9]{1,15}) ?(KiB|MiB|GiB|)")
_SHIFTS = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}
_PREFIX = "EDGESDK_"
#: Variables with our prefix that are no setting: they say where settings or test files lie.
_RESERVED = frozenset({"EDGESDK_SETTINGS", "EDGESDK_ASSETS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting: its name, type, default and a line of help.

    ``default`` is text as it would stand in the file; ``{config}``, ``{cache}`` and ``{data}``
    are the user's folders. ``choices`` are the only texts that are taken, where there are any.
    ``secret`` values are never shown.
    """

    name: str
    kind: Literal["text", "path", "seconds", "bool", "size"]
    default: str | None
    help: str
    secret: bool = False
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return _PREFIX + self.name.upper()


OPTIONS: tuple[Option, ...] = (
    Option(
        name="inventory",
        kind="path",
        default="{config}/devices.yaml",
        help="file that lists your devices",
    ),
    Option(
        name="targets_dir",
        kind="path",
        default="{config}/targets",
        help="folder with target profiles of your own",
    ),
    Option(
        name="device",
        kind="text",
        default="local:",
        help="device that is used when a command names none",
    ),
    Option(
        name="runs_dir",
        kind="path",
        default="edgesdk-runs",
        help="folder under which deploy writes bundles and reports",
    ),
    Option(
        name="cache_dir",
        kind="path",
        default="{cache}/blobs",
        help="folder with copies of what was deployed, to send only what changed",
    ),
    Option(
        name="cache_size",
        kind="size",
        default="2GiB",
        help="how much that folder may hold, as in 500MiB; 0 keeps nothing",
    ),
    Option(
        name="toolchains_dir",
        kind="path",
        default="{cache}/toolchains",
        help="folder with the environments that importers run in",
    ),
    Option(
        name="imports_dir",
        kind="path",
        default="{cache}/imports",
        help="folder with the ONNX files that importers made, to make each once",
    ),
    Option(
        name="history",
        kind="path",
        default="{data}/history.sqlite",
        help="file that remembers every measurement, for edgesdk history and gate",
    ),
    Option(
        name="keep_history",
        kind="bool",
        default="yes",
        help="whether deploy and bench write what they measured there",
    ),
    Option(
        name="connect_timeout_s",
        kind="seconds",
        default="30",
        help="how long reaching a device may take",
    ),
    Option(
        name="request_timeout_s",
        kind="seconds",
        default="600",
        help="how long one inference, or a bundle's check, may take on a device",
    ),
    Option(
        name="ssh_client",
        kind="text",
        default="auto",
        help="what carries SSH: openssh (its client), paramiko, or auto (what can)",
        choices=("auto", "openssh", "paramiko"),
    ),
    Option(
        name="ssh_password",
        kind="text",
        default=None,
        help="password for SSH devices that accept no key",
        secret=True,
    ),
    Option(
        name="console_password",
        kind="text",
        default=None,
        help="password for logging in on a serial console",
        secret=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, resolved. ``origins`` says per name where its value came from."""

    inventory: Path
    targets_dir: Path
    device: str
    runs_dir: Path
    cache_dir: Path
    cache_size: int
    toolchains_dir: Path
    imports_dir: Path
    history: Path
    keep_history: bool
    connect_timeout_s: float
    request_timeout_s: float
    ssh_client: str
    ssh_password: str | None = field(default=None, repr=False)
    console_password: str | None = field(default=None, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict)

    def shown(self, option: Option) -> str | float | bool | None:
        """Give the value of ``option`` for a screen or a log; secrets are masked."""
        value = getattr(self, option.name)
        if option.secret and value is not None:
            return "********"
        return str(value) if isinstance(value, Path) else value


def settings_file(environ: Mapping[str, str] | None = None) -> Path:
    """Find where the settings file is, or would be: EDGESDK_SETTINGS or the user's folder."""
    environ = os.environ if environ is None else environ
    named = environ.get("EDGESDK_SETTINGS")
    return Path(named).expanduser() if named else _config_dir() / "settings.yaml"


def resolve_settings(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Merge flags, environment, file and defaults, in this order of precedence.

    Args:
        flags: Values from the command line by setting name; None counts as not given.
        environ: The environment, ``os.environ`` unless given.
        file: The settings file; `settings_file` unless given. A missing file is an empty one,
            except where EDGESDK_SETTINGS names it.

    Raises:
        SettingsError: An unknown key, or a value that is not of the option's type.
    """
    environ = os.environ if environ is None else environ
    path = settings_file(environ) if file is None else file
    must_exist = file is None and bool(environ.get("EDGESDK_SETTINGS"))
    from_file = _read_file(path, must_exist=must_exist)
    values: dict[str, Value] = {}
    origins: dict[str, str] = {}
    for option in OPTIONS:
        raw, origin = _pick(option, flags or {}, environ, from_file, path)
        values[option.name] = _convert(option, raw, origin)
        origins[option.name] = origin
    return Settings(**values, origins=origins)  # type: ignore[arg-type]  # types follow OPTIONS


def unknown_variables(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Name the EDGESDK_ variables that set nothing, usually because of a typo."""
    environ = os.environ if environ is None else environ
    known = {option.variable for option in OPTIONS} | _RESERVED
    return tuple(
        sorted(name for name in environ if name.startswith(_PREFIX) and name not in known)
    )


def _config_dir() -> Path:
    from platformdirs import user_config_dir

    return Path(user_config_dir("edgesdk", appauthor=False))


def _cache_dir() -> Path:
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("edgesdk", appauthor=False))


def _data_dir() -> Path:
    from platformdirs import user_data_dir

    return Path(user_data_dir("edgesdk", appauthor=False))


def _pick(
    option: Option,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    from_file: Mapping[str, object],
    path: Path,
) -> tuple[object, str]:
    if flags.get(option.name) is not None:
        return flags[option.name], "flag --" + option.name.replace("_", "-")
    if environ.get(option.variable):
        return environ[option.variable], f"environment {option.variable}"
    if from_file.get(option.name) is not None:
        return from_file[option.name], f"file {path}"
    default = option.default
    folders = (("{config}", _config_dir), ("{cache}", _cache_dir), ("{data}", _data_dir))
    for name, folder in folders:
        if default is not None and name in default:
            default = default.replace(name, str(folder()))
    return default, "default"


def _convert(option: Option, raw: object, origin: str) -> Value:
    if raw is None:
        return None
    shown = "a secret value" if option.secret else repr(raw)
    expected = {
        "text": "text",
        "path": "a path",
        "seconds": "a positive number of seconds",
        "bool": "yes or no",
        "size": "a number of bytes, or one with KiB, MiB or GiB",
    }[option.kind]
    if option.choices:
        expected = f"{', '.join(option.choices[:-1])} or {option.choices[-1]}"
    refusal = SettingsError(
        f"cannot use setting {option.name} from {origin}: {shown} (expected {expected})",
        hint=f"{option.name}: {option.help}",
        setting=option.name,
        origin=origin,
    )
    if option.kind == "path":
        if not isinstance(raw, str | Path) or not str(raw) or "\0" in str(raw):
            raise refusal
        return Path(raw).expanduser()
    if option.kind == "seconds":
        try:
            number = float(raw) if isinstance(raw, str | int | float) else -1.0
        except ValueError:
            raise refusal from None
        if isinstance(raw, bool) or not 0 < number < 1e7:
            raise refusal
        return number
    if option.kind == "size":
        size = _SIZE.fullmatch(str(raw))
        if isinstance(raw, bool) or size is None:
            raise refusal
        return int(size[1]) << _SHIFTS[size[2]]
    if option.kind == "bool":
        word = str(raw).lower()
        if word not in _TRUE | _FALSE:
            raise refusal
        return word in _TRUE
    if not isinstance(raw, str) or not raw or raw not in (option.choices or (raw,)):
        raise refusal
    return raw


def _read_file(path: Path, *, must_exist: bool) -> Mapping[str, object]:
    if not must_exist and not path.exists():
        return {}
    content = read_yaml(
        path,
        what="settings",
        error=SettingsError,
        hint="write one 'name: value' a line; edgesdk settings lists the names, and "
        "EDGESDK_SETTINGS can name another file",
        expected="one 'name: value' a line",
    )
    names = [option.name for option in OPTIONS]
    for key in content:
        if key not in names:
            raise SettingsError(
                f"cannot read settings {path}: unknown key {key!r}",
                hint=f"{suggest(key, names)} settings are {', '.join(names)}".strip(),
                path=str(path),
                key=key,
            )
    return content
