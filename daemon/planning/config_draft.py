"""A configuration made of another program's plan, with what that plan does not hold left to fill in."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spheroidd.protocols.errors import ConfigError

Words = dict[str, Any]
TO_FILL_IN = {
    "micromanager_dir": "Micro-Manager's folder",
    "config": "its hardware configuration (.cfg)",
    "height": "the image's rows",
    "width": "the image's columns",
    "pixel_um": "a pixel's side",
    "x_limits_um": "[low, high]: where the stage may go",
    "y_limits_um": "[low, high]",
    "z_limits_um": "[low, high]",
    "retract_z_um": "where the focus waits while the XY stage moves",
}


def draft_files(out: Path) -> tuple[Path, Path]:
    """The configuration and, beside it, the plate map; ConfigError where one of them is there already."""
    if out.suffix.lower() != ".toml":  # the plate map is written beside it, by the same name
        raise ConfigError("a configuration ends in .toml", where=str(out), do=f"write -o {out.stem}.toml")
    plate_map = out.with_suffix(".csv")
    for there in (out, plate_map):
        if there.exists():
            raise ConfigError("there is such a file already", where=str(there), do="choose another name by -o")
    return out, plate_map


def plain_name(stem: str) -> str:
    """A file's name as far as a plate may be called that."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in stem).strip("_-")[:64] or "plate"


def draft(made_of: str, plate: Words, source: Words, tables: Mapping[str, Words], fill_in: Mapping[str, str]) -> str:
    """The file's text. `fill_in` are the keys of [source] that a person writes, each with what it means."""
    return "\n".join(_lines(made_of, plate, source, tables, fill_in)) + "\n"


def _lines(
    made_of: str, plate: Words, source: Words, tables: Mapping[str, Words], fill_in: Mapping[str, str]
) -> Iterator[str]:
    yield f"# From {made_of}. Fill in what it does not hold, then: spheroidd plan check"
    for name, table in {"plate": plate, "source": source, **tables}.items():
        yield ""
        yield f"[{name}]"
        # JSON's texts, numbers, booleans and lists are TOML's as well.
        yield from (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
        if name == "source":
            yield from (f"# {key} =   # {meaning}" for key, meaning in fill_in.items())
