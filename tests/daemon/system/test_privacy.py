"""Who may read what a daemon writes."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spheroidd.daemon.config.model import ServiceConfig, build_config
from spheroidd.daemon.config.service_settings import read_rights
from spheroidd.daemon.system.privacy import Readers, readable_by, readers_of
from spheroidd.protocols.errors import ConfigError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows: files take the rights of their folder")


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """The rights of a folder and of all that is in it."""
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize(
    ("readers", "umask", "folder", "file"),
    [
        (Readers.OWNER, 0o022, 0o700, 0o600),
        (Readers.GROUP, 0o022, 0o750, 0o640),
        (Readers.GROUP, 0o077, 0o700, 0o600),  # what the user withholds stays withheld
        (Readers.EVERYBODY, 0o022, 0o755, 0o644),
        (Readers.EVERYBODY, 0o027, 0o750, 0o640),
    ],
)
def test_new_files_and_folders_are_for_whom_they_are_said_to_be(
    tmp_path: Path, readers: Readers, umask: int, folder: int, file: int
) -> None:
    os.umask(umask)
    with readable_by(readers):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "b").touch()
        subprocess.run([sys.executable, "-c", f"open({str(tmp_path / 'a' / 'c')!r}, 'w').close()"], check=True)
    assert modes(tmp_path / "a") == {
        str(tmp_path / "a"): folder,
        str(tmp_path / "a" / "b"): file,
        str(tmp_path / "a" / "c"): file,
    }
    assert readers_of(folder) in (readers, Readers.GROUP, Readers.OWNER)
    assert os.umask(umask) == umask


@pytest.mark.parametrize(
    ("mode", "readers"), [(0o700, "owner"), (0o750, "group"), (0o2770, "group"), (0o755, "everybody")]
)
def test_a_folder_says_whom_it_is_for(mode: int, readers: str) -> None:
    assert readers_of(mode) == readers


def test_the_configuration_says_it_and_owner_is_the_default() -> None:
    tables = {"source": {"kind": "emulator"}, "data": {"readable_by": "group"}}
    assert build_config(tables, base=Path.cwd()).data.readable_by is Readers.GROUP
    assert build_config({"source": {"kind": "emulator"}}, base=Path.cwd()).data.readable_by is Readers.OWNER
    with pytest.raises(ConfigError, match="readable_by"):
        build_config({**tables, "data": {"readable_by": "world"}}, base=Path.cwd())


def test_the_file_of_a_waiting_daemon_says_it_too(tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    path.write_text('[service]\nhttp = false\n[data]\nreadable_by = "everybody"\n')
    assert read_rights(path).readable_by is Readers.EVERYBODY
    assert read_rights(None).readable_by is Readers.OWNER
    path.write_text('[data]\ndir = "elsewhere"\n')
    with pytest.raises(ConfigError, match="dir"):
        read_rights(path)
    assert ServiceConfig().http


def test_everything_that_a_run_leaves_is_its_owners_alone(undisturbed: Path) -> None:
    found = modes(undisturbed.parent / "data")
    assert len(found) > 50
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}
