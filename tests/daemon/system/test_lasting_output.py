"""What a run prints may be refused by its file or terminal; the run may not end of it."""

import logging
import os
from pathlib import Path

import pytest

from spheroidd.daemon.system.lasting_output import LastingOutput

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
def test_a_full_disk_below_the_log_refuses_nothing_to_the_run_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = FULL.open("w", buffering=1)
    output = LastingOutput(stream)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert output.write("A01 final\n") == len("A01 final\n")
            output.flush()
    assert len(caplog.records) == 1
    assert "No space left on device" in caplog.text
    with pytest.raises(OSError, match="No space"):
        stream.close()  # which tries once more


@pytest.mark.skipif(os.name != "posix", reason="a pipe without a reader is another error there")
def test_a_pipe_whose_reader_has_gone_does_not_end_the_run() -> None:
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", buffering=1)
    LastingOutput(stream).write("A01 final\n")
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_what_can_be_written_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with path.open("w") as stream:
        output = LastingOutput(stream)
        output.write("A01 final\n")
        output.flush()
        assert path.read_text() == "A01 final\n"
        assert not output.isatty()
        assert output.fileno() == stream.fileno()
        assert output.encoding == stream.encoding
