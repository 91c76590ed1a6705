"""How the system is told to run the daemon: a systemd unit, and for Windows a description for WinSW."""

import getpass
import os
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.regular_file import read_regular_text
from spheroidd.protocols.toml_text import parse_toml

NAME = "spheroidd"
MARK = "# Written by `spheroidd service install`; `spheroidd service uninstall` takes it away."
WATCHDOG_S = 120  # a heartbeat comes each second; a commit may wait long for a disk in trouble
STOP_S = 120  # slices in flight are kept, and alarms told


@dataclass(frozen=True, slots=True)
class Installed:
    """Where a description is written, what it says, and the commands that make the system heed it."""

    path: Path
    text: str
    commands: tuple[str, ...]
    undo: tuple[str, ...]


def describe(data: Path, config: Path | None, *, user: bool, windows: bool | None = None) -> Installed:
    """The description for this system. ConfigError for a configuration that cannot be read, or a path of no use."""
    arguments = _arguments(data.absolute(), config.absolute() if config else None)
    for part in arguments:
        if not part.isprintable():
            raise ConfigError(f"the path {part!r} has a line break in it", do="rename it")
    if sys.platform == "win32" if windows is None else windows:
        return _winsw(data.absolute(), arguments)
    return _systemd(data.absolute(), arguments, user=user)


def install(found: Installed) -> None:
    """Write it. ConfigError where something else stands there, StorageError where one may not write."""
    _check_ours(found.path)
    try:
        found.path.parent.mkdir(parents=True, exist_ok=True)
        found.path.write_text(found.text, encoding="utf-8")
    except OSError as error:
        do = "run it as root, or give --user for a service of your own; --print shows it only"
        raise StorageError(f"cannot be written: {error.strerror}", where=str(found.path), do=do) from error


def uninstall(found: Installed) -> bool:
    """Take it away; whether it was there."""
    if not found.path.exists():
        return False
    _check_ours(found.path)
    try:
        found.path.unlink()
    except OSError as error:
        raise StorageError(
            f"cannot be removed: {error.strerror}", where=str(found.path), do="run it as root"
        ) from error
    return True


def _check_ours(path: Path) -> None:
    if path.exists() and "spheroidd service install" not in path.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError("something else stands there", where=str(path), do="look at it, and move it away yourself")


def _arguments(data: Path, config: Path | None) -> list[str]:
    """The command: a whole configuration is run; one with [service] and [alarms] alone waits for plates."""
    program = _program()
    if config is None:
        return [*program, "serve", str(data)]
    try:
        tables = parse_toml(read_regular_text(config))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(config), do="give a TOML file in UTF-8") from error
    if "source" not in tables:
        return [*program, "serve", str(data), "--config", str(config)]
    return [*program, "run", str(config), "--plain"]


def _program() -> list[str]:
    """The console script beside this Python, else Python with the same entry."""
    name = "spheroidd.exe" if sys.platform == "win32" else "spheroidd"
    script = Path(sys.executable).with_name(name)
    found = str(script) if script.is_file() else shutil.which("spheroidd")
    if found:
        return [os.path.abspath(found)]  # noqa: PTH100 -- resolve() would leave the virtual environment
    return [sys.executable, "-c", "from spheroidd.daemon.cli import main; main()"]


def _systemd(data: Path, arguments: Sequence[str], *, user: bool) -> Installed:
    folder = Path.home() / ".config" / "systemd" / "user" if user else Path("/etc/systemd/system")
    lines = [
        MARK,
        "[Unit]",
        "Description=spheroidd: spheroid imaging and viability",
        "After=network.target local-fs.target",
        f"RequiresMountsFor={_quoted(str(data))}",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(map(_quoted, arguments))}",
        f"WorkingDirectory=-{_escaped(str(data.parent))}",
        *([] if user else [f"User={_account()}"]),
        "Environment=PYTHONUNBUFFERED=1",
        "# secrets of [alarms] stand here, one NAME=value a line, readable by root alone:",
        f"EnvironmentFile=-{_escaped(str(folder / f'{NAME}.env'))}",
        "Restart=on-failure",
        "RestartSec=10",
        "# 1: the plate has ended with wells short, 2: the configuration is wrong; a restart helps neither",
        "RestartPreventExitStatus=1 2",
        f"WatchdogSec={WATCHDOG_S}",
        "TimeoutStartSec=300",
        f"TimeoutStopSec={STOP_S}",
        "KillMode=mixed",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        f"WantedBy={'default.target' if user else 'multi-user.target'}",
        "",
    ]
    control = "systemctl --user" if user else "sudo systemctl"
    return Installed(
        folder / f"{NAME}.service",
        "\n".join(lines),
        (f"{control} daemon-reload", f"{control} enable --now {NAME}"),
        (f"{control} disable --now {NAME}", f"{control} daemon-reload"),
    )


def _account() -> str:
    """Whose service it is: whoever called sudo, else this account."""
    given = os.environ.get("SUDO_USER")
    if given:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, as in a container
        return str(os.getuid()) if hasattr(os, "getuid") else "root"


def _escaped(text: str) -> str:
    """`%` begins a specifier of systemd's."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """One word of a command line, as systemd.service(5) reads it: no specifier, no variable, no blank to split at."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{_escaped(plain)}"'


def _winsw(data: Path, arguments: Sequence[str]) -> Installed:
    program, *rest = arguments
    path = data.parent / f"{NAME}-service.xml"
    command = " ".join(f'"{part}"' if " " in part or not part else part for part in rest)
    text = f"""<!-- Written by `spheroidd service install`; `spheroidd service uninstall` takes it away. -->
<service>
  <id>{NAME}</id>
  <name>spheroidd</name>
  <description>spheroid imaging and viability</description>
  <executable>{escape(program)}</executable>
  <arguments>{escape(command)}</arguments>
  <workingdirectory>{escape(str(data.parent))}</workingdirectory>
  <startmode>Automatic</startmode>
  <onfailure action="restart" delay="10 sec"/>
  <resetfailure>10 min</resetfailure>
  <stoptimeout>{STOP_S} sec</stoptimeout>
  <log mode="roll"/>
</service>
"""
    program_xml = path.with_suffix(".exe").name
    nssm = f'nssm install {NAME} "{program}" {command}'
    return Installed(
        path,
        text,
        (f"put WinSW beside it as {program_xml}, then: {program_xml} install && {program_xml} start", f"or: {nssm}"),
        (f"{program_xml} stop && {program_xml} uninstall", f"or: nssm remove {NAME} confirm"),
    )
