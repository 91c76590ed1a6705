"""The [service] table on its own, for a daemon that has no plate yet."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from spheroidd.daemon.config import ServiceConfig
from spheroidd.daemon.config_faults import explain
from spheroidd.protocols.errors import ConfigError


def read_settings(path: Path | None) -> ServiceConfig:
    """The settings of a TOML file with the table [service] and no other; the defaults without a file.

    ConfigError names the key and what to write. Paths are relative to the file.
    """
    if path is None:
        return ServiceConfig()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), do="give a TOML file in UTF-8") from error
    others = [name for name in tables if name != "service"]
    if others or not isinstance(tables.get("service", {}), dict):
        what = f"it has {', '.join(others) or 'no table [service]'}"
        raise ConfigError(what, where=str(path), do="write the table [service] alone; plates are submitted")
    try:
        settings = ServiceConfig.model_validate(tables.get("service", {}))
    except ValidationError as error:
        fault = explain(error, ServiceConfig, tables["service"], ("service",))[0]
        raise ConfigError(f"{fault.key}: {fault.what}", where=str(path), do=fault.do) from error
    files = {name: getattr(settings, name) for name in ("tls_certificate", "tls_key", "tls_client_ca")}
    absolute = {name: path.absolute().parent / file.expanduser() for name, file in files.items() if file}
    return settings.model_copy(update=absolute)
