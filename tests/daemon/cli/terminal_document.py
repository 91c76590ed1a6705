"""Writes docs/terminal.md: what a terminal shows while a plate runs, `python -m tests.daemon.cli.terminal_document`.

Both screens are drawn by the code that draws them for a person, of a catalog that says the same each time.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console, RenderableType

from spheroidd.daemon.catalog.reader import CatalogReader
from spheroidd.daemon.catalog.rows import RunState
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.monitoring import status
from spheroidd.daemon.pipeline.live_table import Progress
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.daemon.system.lock import acquire_lock
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Limits, Normalisation, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.trust import Trust, TrustFlag
from spheroidd.protocols.well import WellId
from tests.places import DOCS

PATH = DOCS / "terminal.md"
WIDTHS = (80, 160)
LINES = 24
PLATE, NOW_S, N_Z, N_SCORED = "plate-7", 1_800_000_000.0, 40, 9
LIMITS = {"488": Limits(110.0, 910.0, 260.0, 90.0), "561": Limits(105.0, 640.0, 210.0, 70.0)}
DOSES_UM = (0.05, 0.5, 5.0, 50.0)
V_CONTROL = (101.4, 98.6, 2.1, 96.0, 71.3, 22.8, 4.4, 99.2, 88.0)

_HEAD = """# The terminal while a plate runs

This page is drawn by the commands' own code, of a plate that is imaged and scored (`make docs`). The table follows the
well under way, has one line for each well and fits the terminal: a wider one shows more columns.
"""


def terminal_page() -> str:
    """The whole page: the live table of `spheroidd run` and `spheroidd status`, in each width."""
    with TemporaryDirectory() as folder, acquire_lock(Path(folder)):
        _plate(Path(folder))
        with CatalogReader.read_only(Path(folder)) as catalog:
            found = replace(status.look(Path(folder), catalog, NOW_S), data_dir=PLATE, disk_free_gb=412.0, service=None)
        parts = [_HEAD]
        for width in WIDTHS:
            parts.append(
                f"\n## `spheroidd run plate-7.toml` in {width} columns\n\n{_drawn(_table(Path(folder), width))}"
            )
        for width in WIDTHS:
            shown = _shown(status.to_screen(found), width)
            parts.append(f"\n## `spheroidd status plate-7` in {width} columns\n\n{_drawn(shown)}")
    return "".join(parts)


def _drawn(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```"]) + "\n"


def _shown(what: RenderableType, width: int) -> list[str]:
    console = Console(width=width, height=LINES, force_terminal=False)
    with console.capture() as told:
        console.print(what)
    return [line.rstrip() for line in told.get().splitlines()]


class _AtThatTime(Throughput):
    """A pace that says the same whenever it is asked."""

    def run_state(self, now_s: float, steady_s: float | None = None) -> RunState:
        return replace(super().run_state(NOW_S, 60.0), pid=4711)


def _pace() -> Throughput:
    pace = _AtThatTime(12 * N_Z * 2, 0, "running", "idle", plate=PLATE, _started_s=NOW_S - 700.0)
    done = N_SCORED * N_Z * 2 + 21
    pace.current = StackKey(PLATE, WellId(1, 3))
    pace.acknowledged(done - 80, 20.0)
    for n in range(80):
        pace.acknowledged(1, 20.5 + n / 2)
    return pace


def _table(folder: Path, width: int) -> list[str]:
    console = Console(width=width, height=LINES, force_terminal=False)
    with Catalog.read_only(folder) as catalog:
        progress = Progress(console, catalog, _pace(), PLATE)
        progress._look()
        return _shown(progress._screen(), width)


def _treatments() -> list[Treatment]:
    untreated, killed = Treatment(WellRole.NEGATIVE_CONTROL), Treatment(WellRole.POSITIVE_CONTROL)
    drug = [
        Treatment(WellRole.SAMPLE, name, dose, patient="P01") for name in ("5-FU", "oxaliplatin") for dose in DOSES_UM
    ]
    return [untreated, untreated, killed, *drug, untreated]


def _plate(folder: Path) -> None:
    """Twelve wells: seven final, one to look at, one failed, one at work, two to come."""
    wells = [PlateWell(WellId(n // 6, n % 6), treatment) for n, treatment in enumerate(_treatments())]
    with Catalog.create_or_open(folder, now=lambda: NOW_S) as catalog:
        catalog.register_plate(PlateMap(PLATE, tuple(wells)), "{}")
        for n, well in enumerate(wells):
            plan = StackPlan(StackKey(PLATE, well.well), ("488", "561"), N_Z, 16, 16, 0.25, 0.5)
            catalog.expect(plan)
            promised = list(plan.indices())
            for index in promised if n < N_SCORED else promised[:21] if n == N_SCORED else ():
                catalog.acknowledge(SliceDurable(plan.key, index, 1, NOW_S - 60.0), NOW_S - 59.0)
            if n < N_SCORED:
                _score(catalog, plan, n)
            elif n == N_SCORED:
                catalog.set_stack_state(plan.key, StackState.ACQUIRING)
        catalog.set_run_state(_pace().run_state(NOW_S))


def _score(catalog: Catalog, plan: StackPlan, n: int) -> None:
    catalog.set_stack_state(plan.key, StackState.STORED)
    if n == 5:
        do = "open the shutter and repeat the well"
        catalog.end_stack(plan.key, Ending(StackEnd.FAILED, "every slice of 488 is black", do))
        return
    share = V_CONTROL[n] / 100
    live, dead = round(140 * share) + 2, round(140 * (1 - min(share, 1.0))) + 6
    sha256 = "ab" * 32
    made = StackMeasurement(
        2.4e5 * share, 9e3 * dead / 6, live, dead, (2.4e5 * share,), LIMITS, Normalisation.PLATE, sha256, 3.1, {}
    )
    catalog.record_measurement(plan.key, made, 2.0)
    trust, flags = (Trust.CHECK, (TrustFlag.SHADED,)) if n == 4 else (Trust.OK, ())
    v, score = V_CONTROL[n], V_CONTROL[n] * 0.97
    related = Related(WellStatus.FINAL, None, v, score, max(score - 14, 0.0), score + 14, trust, flags)
    catalog.update_related(plan.key, sha256, related, "related")


if __name__ == "__main__":
    PATH.write_text(terminal_page(), encoding="utf-8")
