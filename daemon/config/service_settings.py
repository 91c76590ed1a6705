"""The tables [service], [alarms], [verification] and [data] on their own, for a daemon that has no plate yet."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from spheroidd.daemon.config.alarm_settings import AlarmsConfig
from spheroidd.daemon.config.errors import explain
from spheroidd.daemon.config.model import DataRightsConfig, ServiceConfig
from spheroidd.daemon.config.verification_settings import VerificationConfig
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.toml_text import parse_toml

Table = TypeVar("Table", ServiceConfig, AlarmsConfig, VerificationConfig, DataRightsConfig)
_TABLES = ("service", "alarms", "verification", "data")


def read_settings(path: Path | None) -> ServiceConfig:
    """The table [service] of a TOML file that has at most those of above; the defaults without a file.

    ConfigError names the key and what to write. Paths are relative to the file.
    """
    if path is None:
        return ServiceConfig()
    settings = _table(path, "service", ServiceConfig)
    files = {name: getattr(settings, name) for name in ("tls_certificate", "tls_key", "tls_client_ca", "http_words")}
    absolute = {name: path.absolute().parent / file.expanduser() for name, file in files.items() if file}
    return settings.model_copy(update=absolute)


def read_alarms(path: Path | None) -> AlarmsConfig:
    """The table [alarms] of the same file; the defaults where it has none. ConfigError as above."""
    return AlarmsConfig() if path is None else _table(path, "alarms", AlarmsConfig)


def read_verification(path: Path | None) -> VerificationConfig:
    """The table [verification] of the same file; the defaults where it has none. ConfigError as above."""
    return VerificationConfig() if path is None else _table(path, "verification", VerificationConfig)


def read_rights(path: Path | None) -> DataRightsConfig:
    """The table [data] of the same file, which says who may read what is written; the directory is not its to say."""
    return DataRightsConfig() if path is None else _table(path, "data", DataRightsConfig)


def _table(path: Path, name: str, kind: type[Table]) -> Table:
    try:
        tables = parse_toml(read_regular_text(path))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), do="give a TOML file in UTF-8") from error
    others = [key for key in tables if key not in _TABLES]
    if others or not isinstance(tables.get(name, {}), dict):
        what = f"it has {', '.join(others) or f'no table [{name}]'}"
        do = "write the tables [service], [alarms], [verification] and [data] alone; plates are submitted"
        raise ConfigError(what, where=str(path), do=do)
    given = tables.get(name, {})
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        fault = explain(error, kind, given, (name,))[0]
        raise ConfigError(f"{fault.key}: {fault.what}", where=str(path), do=fault.do) from error
