"""Whole files: the old one or the new one, never half of one, and nothing left beside it."""

import ast
import os
import stat
import threading
from pathlib import Path

import pytest

from spheroidd.protocols import durable
from spheroidd.protocols.durable import replacing, write_atomically
from tests.places import ROOT

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no owner's bits")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("data", [b"", b"x", b"\x00\r\n" * 100_000], ids=["empty", "one", "large"])
def test_the_bytes_are_those_that_were_given(tmp_path: Path, data: bytes) -> None:
    for _ in range(2):  # new, and over an old one
        write_atomically(tmp_path / "f.bin", data)
        assert (tmp_path / "f.bin").read_bytes() == data
    assert names(tmp_path) == ["f.bin"]


def fail_half_way(path: Path, error: BaseException) -> None:
    with replacing(path) as partial:
        partial.write_bytes(b"half")
        raise error


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()], ids=repr
)
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        fail_half_way(path, error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["f"]


@pytest.mark.parametrize("place", ["missing/f", "folder"])
def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / place, b"x")
    assert str(tmp_path / place) in (caught.value.filename, caught.value.filename2)
    assert names(tmp_path) == ["folder"]


@POSIX
def test_a_private_file_is_its_owners_from_the_first_byte_on(tmp_path: Path) -> None:
    with replacing(tmp_path / "f", private=True) as partial:
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


@POSIX
def test_another_file_has_the_rights_that_the_account_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "f", b"x")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_two_writers_of_one_file_leave_one_of_both_whole(tmp_path: Path) -> None:
    contents = [bytes([n]) * 50_000 for n in range(4)]
    writers = [threading.Thread(target=write_atomically, args=(tmp_path / "f", data)) for data in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert (tmp_path / "f").read_bytes() in contents
    assert names(tmp_path) == ["f"]


def test_content_is_durable_before_its_name_and_its_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("sync_file", "replace_path", "sync_directory"):
        monkeypatch.setattr(durable, name, _noting(steps, name, getattr(durable, name)))
    write_atomically(tmp_path / "f", b"x")
    assert steps == ["sync_file", "replace_path", "sync_directory"]


def _noting(steps: list[str], name: str, call):
    def noted(*arguments: Path) -> None:
        steps.append(name)
        call(*arguments)

    return noted


def test_a_reader_on_windows_that_holds_the_old_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([PermissionError(13, "held")] * 3)
    real = Path.replace

    def held(self: Path, target: Path) -> Path:
        for refusal in refusals:
            raise refusal
        return real(self, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr(durable, "_ON_WINDOWS", True)
    write_atomically(tmp_path / "f", b"x")
    assert (tmp_path / "f").read_bytes() == b"x"


def test_nothing_else_renames_a_file_over_another() -> None:
    """One way to replace a file: a `path.replace(target)` elsewhere is a copy of it without the sync or the retry."""
    found = []
    for room in ("acquisition", "inference", "daemon", "sim_emulator", "protocols"):
        for source in sorted((ROOT / room).rglob("*.py")):
            text = source.read_text(encoding="utf-8")
            for node in ast.walk(ast.parse(text)) if ".replace(" in text else ():
                match node:
                    case ast.Call(func=ast.Attribute(attr="replace"), args=[_], keywords=[]):
                        found.append(f"{source.relative_to(ROOT).as_posix()}: {ast.unparse(node)}")
    assert found == ["protocols/durable.py: source.replace(target)"]
