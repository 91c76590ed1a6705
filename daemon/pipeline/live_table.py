"""The live table of wells that a run draws while it goes; plain lines where the output is not a terminal."""

import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.text import Text

from spheroidd.daemon.analysis.results_table import results_table
from spheroidd.daemon.catalog.rows import RowStanding
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.protocols.results import WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId

REFRESH_S = 0.5  # reading the whole plate's rows takes milliseconds; more often would only flicker
MAX_ROWS = 28  # what a laboratory screen shows at once; the rows that move are the ones that matter
LEAST_ROWS = 4
OTHER_LINES = 6  # plate, pace, worker, bar, the columns' names, and the cursor's own


class Progress:
    """Draws the plate at most twice a second. A context manager; call it as often as you like."""

    def __init__(self, console: Console, catalog: Catalog, pace: Throughput, plate: str, *, live: bool = True) -> None:
        self._console, self._catalog, self._pace, self._plate = console, catalog, pace, plate
        self._live = Live(console=console, auto_refresh=False, transient=True) if live and console.is_terminal else None
        self._next_s = 0.0
        self._said: dict[StackKey, WellStatus] = {}
        self._standings: dict[StackKey, RowStanding] = {}
        self._in_well: Counter[WellId] = Counter()
        self._cursor, self._change, self._rollbacks = 0, 0, -1

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self._next_s = time.monotonic() + REFRESH_S  # to read a large plate takes longer than to take its first slice
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next_s = 0.0
        self()
        if self._live:
            self._live.stop()

    def __call__(self) -> None:
        """Draw, unless it was drawn just now."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + REFRESH_S
        changed = self._look()
        if self._live:
            self._live.update(self._screen(), refresh=True)
        else:
            self._say_changes(changed)

    def _look(self) -> list[RowStanding]:
        """The standings that may have changed since: a whole plate is read only where that cannot be told."""
        catalog, rollbacks = self._catalog, self._catalog.rollbacks
        self._cursor, moved = catalog.stacks_changed(self._cursor)
        self._change, related = catalog.results_changed(self._plate, self._change)
        keys = {key for key in (*moved, *related) if key.plate == self._plate}
        known = all(key in self._standings and self._in_well[key.well] == 1 for key in keys)
        if rollbacks != self._rollbacks or not known:  # a repeat changes which stack of its well is shown
            self._rollbacks = rollbacks
            self._standings = {one.key: one for one in catalog.standings(self._plate)}
            self._in_well = Counter(key.well for key in self._standings)
            return list(self._standings.values())
        found = catalog.standings(self._plate, keys) if keys else []
        self._standings |= {one.key: one for one in found}
        return found

    def _screen(self) -> Group:
        state = self._pace.run_state(time.time())
        rate = f"{state.slices_per_s:.1f} slices/s" if state.slices_per_s else "no slice yet"
        left = f", {state.eta_s / 60:.1f} min left" if state.eta_s else ""
        done = f"{state.slices_done} of {state.slices_total} slices, {rate}{left}"
        head = Text(self._plate, style="bold", no_wrap=True, overflow="ellipsis")
        pace = Text(done, no_wrap=True, overflow="ellipsis")
        worker = Text(f"worker: {state.worker}", style="magenta", no_wrap=True, overflow="ellipsis")
        width = self._console.width
        bar = ProgressBar(total=max(state.slices_total, 1), completed=state.slices_done, width=min(60, width))
        faults = [Text(f"! {fault.where}: {fault.what}; {fault.do}", style="red") for fault in self._catalog.faults()]
        n_rows = min(MAX_ROWS, max(LEAST_ROWS, self._console.height - OTHER_LINES - 2 * len(faults)))
        rows = self._catalog.rows_of([one.key for one in _window(list(self._standings.values()), n_rows)])
        table = results_table(rows, width=width, one_line=True)
        return Group(head, pace, worker, Padding(bar), table, *faults)

    def _say_changes(self, standings: list[RowStanding]) -> None:
        lines = []
        for one in standings:
            before = self._said.get(one.key)
            if before is not one.status and not (before is None and one.status is WellStatus.QUEUED):
                self._said[one.key] = one.status
                figures = f", {one.v_control:.1f} % of control" if one.v_control is not None else ""
                lines.append(f"{one.key.well} {one.status}{figures}")
        if lines:  # a whole plate may have changed: nothing is wrapped, marked up or told line by line
            self._console.out("\n".join(lines), highlight=False)


def _window(rows: list[RowStanding], n_rows: int) -> list[RowStanding]:
    """The rows around the first well that is not done, where the plate is longer than the screen."""
    states = [row.status for row in rows]
    done = [state.is_over or state is WellStatus.PROVISIONAL for state in states]
    at = done.index(False) if False in done else len(rows)
    start = max(0, min(at - n_rows // 2, len(rows) - n_rows))
    return rows[start : start + n_rows]
