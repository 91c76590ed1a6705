"""A file that a person names is read whole and soon, or refused: a device never ends, and a pipe may never begin."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from spheroidd.acquisition.plates.labware_formats import read_plate_format
from spheroidd.daemon.analysis.fit_table import read_fit_table
from spheroidd.daemon.config.model import load_config
from spheroidd.daemon.config.service_settings import read_rights
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.regular_file import read_regular, read_regular_text

READERS = (load_config, read_rights, read_plate_map, read_fit_table, read_plate_format)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path, read: Callable[[Path], object], kind: str) -> None:
    path = tmp_path / "given.csv"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
        if not stat.S_ISCHR(path.stat().st_mode):
            pytest.skip("there is no such device")
    with pytest.raises(ConfigError, match="it is a pipe, a device or a socket, and no file"):
        read(path)


def test_a_file_that_is_larger_than_anything_a_person_writes_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(OSError, match="it is larger than 64 MB"):
        read_regular(tmp_path / "large.csv")
    with pytest.raises(ConfigError, match="it is larger than 64 MB; give a table of one plate"):
        read_plate_map(tmp_path / "large.csv")


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="this system does not name what is open")
def test_what_a_shell_pipes_in_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"\xef\xbb\xbfa\r\nb")
    os.close(writing)
    try:
        assert read_regular_text(Path(f"/dev/fd/{reading}")) == "a\nb"
    finally:
        os.close(reading)


def test_a_plate_map_of_a_hundred_thousand_columns_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("well,role," + ",".join(f"c{i}" for i in range(100_000)) + "\nA01,sample\n")
    with pytest.raises(ConfigError, match="100002 columns stand in it, and a plate map has 1000 at most"):
        read_plate_map(tmp_path / "map.csv")
