"""How stripes die with the depth: medians over a plate's stacks, and the drawing of them."""

import math
from pathlib import Path

import pytest

from spheroidd.daemon.analysis.sim_depth import depth_of_plate, live_modulation, weakest_contrast
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.report.drawing import Dot, svg
from spheroidd.daemon.report.sim_depth import depth_plot
from spheroidd.protocols.sim_pattern import SliceModulation
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

KEYS = [StackKey("P1", WellId(0, n)) for n in range(3)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three wells; of two the stripes of one colour are known."""
    wells = plates.plate_map("P1", {key.well: plates.UNTREATED for key in KEYS})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {key.well: plates.FULL_UM3 for key in KEYS})
    with Catalog.create_or_open(tmp_path) as catalog, catalog.transaction():
        for key in KEYS[:2]:
            catalog.put_sim_slices(key, plates.fading(8))
    return tmp_path


def test_a_plate_has_the_medians_of_its_stacks(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        (found,) = depth_of_plate(catalog, "P1")
        assert depth_of_plate(catalog, "P1", KEYS[2]) == ()
        assert depth_of_plate(catalog, "P1", KEYS[0])[0].n_stacks == 1
    assert (found.channel, found.n_stacks, found.sim_up_to_um) == ("488", 2, 3.0)
    assert [one.depth_um for one in found.slices] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [one.modulation is None for one in found.slices] == [False] * 6 + [True] * 2
    assert found.slices[2].modulation == pytest.approx(0.8 * math.exp(-2 / 8))
    assert [(one.sim, one.partial, one.widefield) for one in found.slices[3:7:2]] == [(1, 0, 0), (0, 1, 0)]


def test_a_slice_in_half_of_the_stacks_decides(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        dead = SliceModulation("488", 0, ((0.0,),) * 3, ((1.0,),) * 3, ((False,),) * 3)
        catalog.put_sim_slices(KEYS[1], [dead])
    with Catalog.read_only(data) as catalog:
        first = depth_of_plate(catalog, "P1")[0].slices[0]
    assert (first.modulation, first.sim, first.widefield) == (0.8, 0.5, 0.5)
    assert first.contrast == pytest.approx(15.5)


def test_the_strongest_order_of_an_angle_counts_and_the_weakest_angle() -> None:
    one = SliceModulation("488", 0, ((0.2, 0.6), (0.0, 0.4)), ((9.0, 7.0), (3.0, 5.0)), ((True, True), (False, True)))
    assert live_modulation(one) == pytest.approx(0.5)
    assert weakest_contrast(one) == 5.0


def test_a_dead_slice_has_no_mark_of_modulation(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        plot = depth_plot(depth_of_plate(catalog, "P1"))
    assert plot is not None
    tips = [shape.tip for shape in plot.shapes if isinstance(shape, Dot)]
    assert [sum(f" {name} " in tip for tip in tips) for name in ("modulation", "contrast")] == [6, 8]
    assert "488 nm: SIM up to 3.0 µm, of 7.0" in svg(plot)
    assert depth_plot(()) is None
