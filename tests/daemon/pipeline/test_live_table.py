"""The live table: one line a well in whatever width there is, and the wells under way in view."""

from pathlib import Path

import pytest
from rich.console import Console

from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.pipeline.live_table import Progress
from spheroidd.daemon.pipeline.throughput import Throughput
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.results import Limits, Normalisation, Related, StackMeasurement, WellStatus
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.trust import Trust
from spheroidd.protocols.well import WellId

N_WELLS, N_DONE = 40, 30
PLATE = "plate-of-a-long-name"
LIMITS = {"488": Limits(100.0, 900.0, 200.0, 50.0)}
WELLS = [WellId(n // 12, n % 12) for n in range(N_WELLS)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate of which 30 of 40 wells are scored, one with much to say."""
    folder = tmp_path_factory.mktemp("plate")
    treatments = [Treatment(WellRole.SAMPLE, f"compound {n % 4}", 12.5, patient="P07") for n in range(N_WELLS)]
    with Catalog.create_or_open(folder) as catalog:
        wells = tuple(map(PlateWell, WELLS, treatments))
        catalog.register_plate(PlateMap(PLATE, wells), "{}")
        for n, well in enumerate(WELLS):
            plan = StackPlan(StackKey(PLATE, well), ("488", "561"), 3, 16, 16, 0.1, 0.5)
            catalog.expect(plan)
            if n >= N_DONE:
                continue
            for index in plan.indices():
                catalog.acknowledge(SliceDurable(plan.key, index, 1, 0.0), 1.0)
            catalog.set_stack_state(plan.key, StackState.STORED)
            made = StackMeasurement(1e4, 2e3, 130, 20, (1e4,), LIMITS, Normalisation.PLATE, "ab" * 32, 1.0, {})
            catalog.record_measurement(plan.key, made, 2.0)
            related = Related(WellStatus.PROVISIONAL, "a reason " * 20, 87.5, 91.2, 60.1, 120.3, Trust.CHECK, ())
            catalog.update_related(plan.key, "ab" * 32, related, "related")
    return folder


def lines(data: Path, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, record=True, force_terminal=False)
    with Catalog.read_only(data) as catalog, console.capture() as told:
        progress = Progress(console, catalog, Throughput(240, 120, plate=PLATE), PLATE)
        progress._look()
        console.print(progress._screen())
    return told.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 160])
@pytest.mark.parametrize("height", [24, 50])
def test_every_well_has_one_line_and_the_names_of_columns_one_of_their_own(data: Path, width: int, height: int) -> None:
    drawn = lines(data, width, height)
    (names,) = (number for number, line in enumerate(drawn) if line.startswith("well "))
    assert max(map(len, drawn)) <= width
    assert len(drawn) < height
    wells = [line.split()[0] for line in drawn[names + 1 :]]
    assert wells == [str(well) for well in WELLS if str(well) in wells], "each well once, in order"
    assert len(wells) >= 18
    assert {str(WELLS[N_DONE - 1]), str(WELLS[N_DONE])} <= set(wells), "it follows the well under way"
    assert {"treatment", "slices", "trust", "status"} <= set(drawn[names].split())
    assert "…" not in drawn[names]


def test_a_wider_terminal_shows_more(data: Path) -> None:
    shown = {width: {name for line in lines(data, width, 24) for name in line.split()} for width in (60, 80, 160)}
    assert {"reason", "patient", "dead"} <= shown[160]
    assert not {"reason", "patient", "dead"} & shown[80]
    assert "87.5" in shown[60], "percent of control"
