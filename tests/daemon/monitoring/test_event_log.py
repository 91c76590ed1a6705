"""The log: lines that programs can read, turned over, read back, followed, and never a reason to stop."""

import json
import logging
from pathlib import Path

import pytest

from spheroidd.daemon.monitoring import log_reader as log_lines
from spheroidd.daemon.monitoring.event_log import FOLDER, NAME, OLD_FILES, LogFile, logging_to, tell, tell_event
from spheroidd.daemon.monitoring.log_reader import Asked
from spheroidd.daemon.scoring.pool import WorkerLost
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.events import SliceDurable, StackRejected
from spheroidd.protocols.stack import SliceIndex
from tests.daemon.monitoring.alarm_rig import A01, A02

EVERYTHING = Asked()


def read(data_dir: Path, asked: Asked = EVERYTHING) -> list[dict[str, object]]:
    return list(log_lines.lines(data_dir, asked))


def test_a_line_says_when_what_and_where(tmp_path: Path) -> None:
    with logging_to(tmp_path):
        tell("stack-opened", A01, slices=8, found=None)
        tell_event(StackRejected(A02, StackError("black\n", do="open it")))
        tell_event(SliceDurable(A01, SliceIndex("488", 0), 1, 0.0))
        tell_event(WorkerLost(None, -9))
    first, second, third = read(tmp_path)
    assert first["time"].endswith("Z")  # type: ignore[attr-defined]
    assert {key: first[key] for key in first if key != "time"} == {
        "level": "info",
        "event": "stack-opened",
        "plate": "P1",
        "well": "A01",
        "stack": 0,
        "slices": 8,
    }
    assert (second["level"], second["what"], second["do"]) == ("error", "black\n", "open it")
    assert (third["event"], third["exit_code"]) == ("worker-lost", -9)


def test_what_any_part_warns_of_is_logged_with_its_trace(tmp_path: Path) -> None:
    with logging_to(tmp_path):
        try:
            raise ValueError("100 %s")
        except ValueError:
            logging.getLogger("spheroidd.daemon.web.server").exception("the page %s", "ended")
    [line] = read(tmp_path)
    assert (line["event"], line["message"], line["level"]) == ("message", "the page ended", "error")
    assert "ValueError: 100 %s" in str(line["trace"])


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    logger = logging.getLogger("spheroidd")
    before = (list(logger.handlers), logger.level)
    with logging_to(tmp_path):
        tell("x")
    assert (list(logger.handlers), logger.level) == before


def written(folder: Path, n: int, file_bytes: int = 2000) -> None:
    handler = LogFile(folder, file_bytes)
    for number in range(n):
        record = logging.LogRecord("x", logging.INFO, "", 0, "line", None, None)
        record.fields = {"number": number}
        handler.handle(record)
    handler.close()


def test_old_lines_make_room_for_new_ones(tmp_path: Path) -> None:
    written(tmp_path, 300)
    files = log_lines.log_files(tmp_path)
    assert len(files) == 1 + OLD_FILES
    assert all(path.stat().st_size <= 2000 for path in files)
    numbers = [line["number"] for line in read(tmp_path)]
    assert numbers == list(range(numbers[0], 300))  # type: ignore[call-overload]


def test_a_file_that_a_reader_holds_is_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(source: str, target: str) -> None:
        raise PermissionError(13, "another program uses it", source)

    monkeypatch.setattr("os.rename", held)
    written(tmp_path, 100)
    assert [line["number"] for line in read(tmp_path)] == list(range(100))


def test_lines_lost_to_a_full_disk_are_counted(tmp_path: Path) -> None:
    handler = LogFile(tmp_path)
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "before", None, None))
    real = handler.stream

    class Full:
        def write(self, text: str) -> None:
            raise OSError(28, "no space")

    handler.stream = Full()  # type: ignore[assignment]
    handler.maxBytes = 0
    for _ in range(3):
        handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "lost", None, None))
    handler.stream = real
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "after", None, None))
    handler.close()
    assert [(line["event"], line.get("message"), line.get("lines")) for line in read(tmp_path)] == [
        ("message", "before", None),
        ("lines-lost", None, 3),
        ("message", "after", None),
    ]


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    with logging_to(tmp_path):
        tell("x")
    assert (tmp_path / FOLDER).read_text() == "in the way"


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / NAME).write_bytes(b'{"event": "a"}\n[1]\n{"event": "b\n\xff\n{"event": "c"}\n{"ev')
    assert [line["event"] for line in read(tmp_path)] == ["a", "c"]


@pytest.mark.parametrize(
    ("since", "n"),
    [("90s", 1), ("2 m", 1), ("3h", 2), ("2026-01-01T09:59:00", 2), ("2026-01-01T11:00+01:00", 2), ("9d", 3)],
)
def test_lines_since(tmp_path: Path, since: str, n: int) -> None:
    times = ("2026-01-01T00:00:00Z", "2026-01-01T10:00:00.000Z", "2026-01-01T11:59:00.000Z")
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / NAME).write_text("".join(json.dumps({"time": time, "well": "A01"}) + "\n" for time in times))
    noon_s = 1_767_268_800.0
    assert len(read(tmp_path, Asked.of(None, since, noon_s))) == n
    assert len(read(tmp_path, Asked.of("a1", since, noon_s))) == n
    assert read(tmp_path, Asked.of("A02", since, noon_s)) == []


@pytest.mark.parametrize("since", ["yesterday", "", "-5m", "1e400d", "5 parsecs"])
def test_a_time_that_is_none(since: str) -> None:
    with pytest.raises(ConfigError, match="is no time"):
        Asked.of(None, since, 0.0)


def test_following_goes_on_when_the_file_is_turned_over(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / NAME
    path.parent.mkdir()
    path.write_text('{"n": 0}\n')

    class EnoughError(Exception):
        pass

    def first() -> None:
        with path.open("a") as file:
            file.write('{"n": 1}\n{"n":')

    def second() -> None:
        with path.open("a") as file:
            file.write(' 2}\n{"n": 3}\n')
        path.rename(path.with_name(f"{NAME}.1"))
        path.write_text('{"n": 4}\n')

    def third() -> None:
        raise EnoughError

    steps = iter((first, second, third))
    seen = []
    with pytest.raises(EnoughError):
        seen += list(_gathered(tmp_path, seen, lambda _: next(steps)()))
    assert seen == [1, 2, 3, 4]


def _gathered(data_dir: Path, seen: list[object], wait):  # type: ignore[no-untyped-def]
    for line in log_lines.follow(data_dir, EVERYTHING, wait=wait):
        seen.append(line["n"])
    return ()


def test_a_line_in_words() -> None:
    line = {"time": "t", "level": "info", "event": "stack-opened", "plate": "P1", "well": "A01", "stack": 0, "found": 0}
    assert log_lines.in_words(line) == "t  info      stack-opened  P1/A01/0  found=0"
