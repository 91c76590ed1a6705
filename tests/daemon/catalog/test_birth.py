"""A catalog whose making was interrupted is completed or made anew; one that holds anything is never taken for that."""

import sqlite3
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.audit_trail import events
from spheroidd.daemon.catalog.connection import BLANK_BYTES, CATALOG_NAME, holds_catalog
from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.schema import MIGRATIONS, schema_version
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.launch.demo_directory import holds_demonstration, mark
from spheroidd.daemon.monitoring.preflight import _catalog_check, _clock_check
from spheroidd.protocols.errors import StorageError


def header_only(path: Path) -> None:
    """What a kill leaves that comes before the first step is committed."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    assert path.stat().st_size


def first_steps_only(path: Path) -> None:
    """A kill in the middle of the steps."""
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0] + "PRAGMA user_version = 1")
    connection.close()


BEGUN = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros, as a power cut leaves them": lambda path: path.write_bytes(bytes(4096)),
    "header only": header_only,
}


@pytest.mark.parametrize("begin", [*BEGUN.values(), first_steps_only], ids=[*BEGUN, "first steps only"])
def test_a_catalog_that_was_only_begun_is_completed(tmp_path: Path, begin: object) -> None:
    begin(tmp_path / CATALOG_NAME)  # type: ignore[operator]
    assert holds_catalog(tmp_path) is (begin is first_steps_only)
    assert _catalog_check(tmp_path).exit_code == 0
    assert _clock_check(tmp_path).exit_code == 0
    with Catalog.create_or_open(tmp_path) as catalog:
        assert schema_version(catalog.connection) == len(MIGRATIONS)
        assert catalog.plates() == []
    assert holds_catalog(tmp_path)


@pytest.mark.parametrize("begin", BEGUN.values(), ids=BEGUN)
def test_a_demonstration_that_was_only_begun_is_begun_again(tmp_path: Path, begin: object) -> None:
    begin(tmp_path / CATALOG_NAME)  # type: ignore[operator]
    assert holds_demonstration(tmp_path)  # it may be taken up: nothing else stands there
    mark(tmp_path)
    mark(tmp_path)
    assert holds_demonstration(tmp_path)
    with CatalogReader.read_only(tmp_path) as catalog:
        assert [event.action for event in events(catalog)] == [Action.TRAIL_STARTED, Action.DEMO_STARTED]


@pytest.mark.parametrize("content", [b"hello world" * 500, bytes(BLANK_BYTES + 1)], ids=["no database", "many zeros"])
def test_what_may_have_been_a_catalog_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CATALOG_NAME).write_bytes(content)
    with pytest.raises(StorageError):
        Catalog.create_or_open(tmp_path)
    assert (tmp_path / CATALOG_NAME).read_bytes() == content
