"""What `spheroidd submit` hands in: the texts of configuration and plate map, of one plate or of each of a table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import check_plate_name
from spheroidd.protocols.toml_text import parse_toml

if TYPE_CHECKING:
    from spheroidd.protocols.plate import WellRole

_COLUMNS = ("name", "map")


def submissions(config: Path, plate_map: Path | None, table: Path | None) -> list[tuple[str, str]]:
    """Configuration and map of each plate, all of them read before the first is handed in.

    `table` (text or workbook) has the columns `name` and `map`: a plate a row, which is the configuration with that
    name. Paths are relative to it. ConfigError names every row that is wrong, and everything that is wrong in its map.
    """
    text = _text(config)
    roles = _roles(text, config)
    if table is None:
        return [(text, _map_text(plate_map, roles) if plate_map else "")]
    return _of_table(table, config, text, roles)


def _of_table(table: Path, config: Path, text: str, roles: "Mapping[str, WellRole]") -> list[tuple[str, str]]:
    from spheroidd.protocols.plate_map.file import read_plate_map

    plates: list[tuple[str, str]] = []
    faults: list[ConfigError] = []
    seen: set[str] = set()
    for where, name, file in _rows(table):
        try:
            if not name or not file:
                raise ConfigError("the row has no name and map", do="write both")
            if check_plate_name(name).casefold() in seen:
                raise ConfigError(f"plate {name} is there twice", do="give each plate a name of its own")
            seen.add(name.casefold())
            path = table.parent / file.replace("\\", "/")
            read_plate_map(path, name, roles)
            plates.append((_named(text, name, config), _map_text(path, roles)))
        except ConfigError as error:
            faults.append(ConfigError(error.what, where=error.where or where, do=error.do))
    if len(faults) == 1:
        raise faults[0]
    if faults:
        told = "".join(f"\n  {fault.where}: {fault.what}; {fault.do}" for fault in faults)
        do = "correct them: no plate of the table was handed in"
        raise ConfigError(f"{len(faults)} plates cannot be handed in:{told}", where=str(table), do=do)
    if not plates:
        raise ConfigError("it names no plate", where=str(table), do="write a row for each plate")
    return plates


def _rows(table: Path) -> Iterator[tuple[str, str, str]]:
    """Where each row stands, its name and its map's path."""
    from spheroidd.protocols.tables.sheets import read_sheets

    sheets = read_sheets(table)
    if len(sheets) != 1:
        raise ConfigError(f"it has {len(sheets)} tables", where=str(table), do="give one with the columns name and map")
    (sheet,) = sheets
    head, *rows = [(n, row) for n, row in enumerate(sheet.rows) if any(row)]
    titles = [title.casefold() for title in head[1]]
    if sorted(filter(None, titles)) != sorted(_COLUMNS):
        listed = ", ".join(filter(None, head[1]))
        raise ConfigError(f"its columns are {listed}", where=str(table), do="write a first line `name,map`")
    for n, row in rows:
        cells = dict(zip(titles, row, strict=False))
        if any(row[len(titles) :]):
            raise ConfigError("the row has more than name and map", where=sheet.where(n), do="write name,map")
        yield sheet.where(n), cells.get("name", ""), cells.get("map", "")


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


def _roles(text: str, config: Path) -> "dict[str, WellRole]":
    """The lab's own words for roles, out of the configuration."""
    import tomllib

    from spheroidd.protocols.plate import WellRole

    try:
        words = dict(parse_toml(text).get("plate", {}).get("roles", {}))
        return {word: WellRole(role) for word, role in words.items()}
    except (tomllib.TOMLDecodeError, AttributeError, TypeError, ValueError) as error:
        do = "see `spheroidd config check`"
        raise ConfigError(f"[plate.roles] cannot be read: {error}", where=str(config), do=do) from error


def _map_text(path: Path, roles: "Mapping[str, WellRole]") -> str:
    """A plate map as the text that is handed in; a workbook, and text of another encoding, is read and written anew."""
    import tempfile

    from spheroidd.protocols.plate_map.file import read_plate_map, write_plate_map
    from spheroidd.protocols.regular_file import read_regular_text

    try:
        return read_regular_text(path)
    except (OSError, UnicodeDecodeError):
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
