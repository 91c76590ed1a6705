"""What `spheroidd submit` hands in: the texts of configuration and plate map, of one plate or of each of a table."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import check_plate_name
from spheroidd.protocols.toml_text import parse_toml

_COLUMNS = {"name", "map"}


def submissions(config: Path, plate_map: Path | None, table: Path | None) -> list[tuple[str, str]]:
    """Configuration and map of each plate, all of them read before the first is handed in.

    `table` is a CSV with the columns `name` and `map`: a plate a row, which is the configuration with that name. Paths
    are relative to it. ConfigError names the file, the row, and what to write.
    """
    text = _text(config)
    if table is None:
        return [(text, _map_text(plate_map, config) if plate_map else "")]
    return list(_of_table(table, config, text))


def _of_table(table: Path, config: Path, text: str) -> Iterator[tuple[str, str]]:
    reader = csv.DictReader(io.StringIO(_text(table)))
    found = {name.strip() for name in reader.fieldnames or () if name}
    if found != _COLUMNS:
        do = "write a first line `name,map`"
        raise ConfigError(f"its columns are {', '.join(sorted(found)) or 'none'}", where=str(table), do=do)
    names: set[str] = set()
    for row in reader:
        where = f"{table}, line {reader.line_num}"
        name, file = ((row.get(column) or "").strip() for column in ("name", "map"))
        if not name or not file or None in row:
            raise ConfigError("the row has no name and map, or more than that", where=where, do="write name,map")
        if check_plate_name(name).casefold() in names:
            raise ConfigError(f"plate {name} is there twice", where=where, do="give each plate a name of its own")
        names.add(name.casefold())
        yield _named(text, name, config), _map_text(table.parent / file, config)
    if not names:
        raise ConfigError("it names no plate", where=str(table), do="write a row for each plate")


def _named(text: str, name: str, config: Path) -> str:
    """The configuration with another plate's name; its comments are lost."""
    import tomllib

    from spheroidd.daemon.config.model import toml_of

    try:
        tables = parse_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", where=str(config), do="see `spheroidd config check`") from error
    plate = tables.get("plate", {})
    if not isinstance(plate, dict):
        raise ConfigError("plate is no table", where=str(config), do="write [plate]")
    return toml_of({**tables, "plate": {**plate, "name": name}})


def _map_text(path: Path, config: Path) -> str:
    """A plate map as the text that is handed in; a workbook, and text of another encoding, is read and written anew."""
    import tempfile
    import tomllib

    from spheroidd.protocols.plate import WellRole
    from spheroidd.protocols.plate_map_file import read_plate_map, write_plate_map
    from spheroidd.protocols.regular_file import read_regular_text

    try:
        return read_regular_text(path)
    except (OSError, UnicodeDecodeError):
        try:
            words = dict(parse_toml(_text(config)).get("plate", {}).get("roles", {}))
            roles = {word: WellRole(role) for word, role in words.items()}
        except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
            do = "see `spheroidd config check`"
            raise ConfigError(f"[plate.roles] cannot be read: {error}", where=str(config), do=do) from error
        wells = read_plate_map(path, roles=roles)  # says what is wrong with it
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "map.csv"
        write_plate_map(written, wells)
        return written.read_text(encoding="utf-8")


def _text(path: Path) -> str:
    from spheroidd.protocols.regular_file import read_regular_text

    try:
        return read_regular_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path), do="check path and encoding (UTF-8)") from error
