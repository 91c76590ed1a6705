"""The report as a file to take away: made by `spheroidd report` in a process of its own, one at a time.

A report of a large plate computes for seconds, which the daemon's own threads must not wait for.
"""

import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from spheroidd.protocols.errors import BusyError, ConfigError, StorageError

PATIENCE_S = 900.0  # 1536 wells, each compound on a page with its doses in pictures, take three minutes
KINDS = {"html": "text/html; charset=utf-8", "pdf": "application/pdf"}
_COMMAND = (sys.executable, "-c", "from spheroidd.daemon.cli import main; main()")
_ALTERED = 1  # the report was written, and says that rows are not as they were written


@dataclass(frozen=True, slots=True)
class ReportFile:
    """What is sent: a name for it, its bytes and their kind."""

    name: str
    data: bytes
    media_type: str


class ReportFiles:
    """Makes reports of one data directory's plates."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir, self._turn = data_dir.absolute(), threading.Lock()

    def of(self, plate: str, kind: str, who: str) -> ReportFile:
        """The report of a plate, "html" or "pdf", entered in the audit trail as `who`'s.

        ConfigError for a kind or a plate there is not; BusyError while another one is made.
        """
        if kind not in KINDS:
            raise ConfigError(f"there is no report as {kind[:20]!r}", do=f"ask for one of {', '.join(KINDS)}")
        if not self._turn.acquire(blocking=False):
            raise BusyError("a report is being made", do="wait for it, and ask again")
        try:
            with tempfile.TemporaryDirectory(prefix="spheroidd-report-") as folder:
                return self._written(Path(folder), plate, kind, who)
        finally:
            self._turn.release()

    def _written(self, folder: Path, plate: str, kind: str, who: str) -> ReportFile:
        html, pdf = folder / f"{plate}.html", folder / f"{plate}.pdf"
        command = [*_COMMAND, "report", str(self._data_dir), f"--plate={plate}", f"--who={who}", f"--out={html}"]
        try:
            done = subprocess.run(
                [*command, f"--pdf={pdf}"] if kind == "pdf" else command,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            do = "`spheroidd report` has as long as it takes"
            raise BusyError(f"the report was not made within {PATIENCE_S:.0f} s", do=do) from None
        except OSError as error:
            raise StorageError(f"the report cannot be made: {error.strerror}", do="see to memory and disk") from error
        file = pdf if kind == "pdf" else html
        if done.returncode not in (0, _ALTERED) or not file.is_file():
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            do = f"try `spheroidd report {self._data_dir} --plate {plate}`"
            raise ConfigError(f"the report could not be made: {said[0][:300]}", where=f"plate {plate}", do=do)
        return ReportFile(file.name, file.read_bytes(), KINDS[kind])
