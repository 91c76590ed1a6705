"""The emulated microscope outside a run."""

from dataclasses import replace

import numpy as np
import pytest

from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate import PlateMap
from spheroidd.protocols.ports import Snapping
from spheroidd.protocols.snapshot import SnapOrder
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.protocols.well_imaging import WellImaging
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource


@pytest.fixture(scope="module")
def source() -> EmulatorSource:
    settings = EmulatorSettings(preset="unit", pace="fast", compounds=1, doses=1, replicates=1, negative_controls=1)
    return EmulatorSource(settings, None, "P1", SystemClock())


WELL = WellId.parse("A01")


def test_it_is_the_very_image_of_a_run(source: EmulatorSource) -> None:
    assert isinstance(source, Snapping)
    plan, index = source.plan(WELL), SliceIndex("561", 7)
    (frame,) = source.frames(plan, {index})
    taken = source.snap(SnapOrder("561", well=WELL, z_um=float(frame.metadata["z_um"])))
    np.testing.assert_array_equal(taken.pixels, frame.pixels)
    assert (taken.exposure_ms, taken.x_um) == (frame.metadata["exposure_ms"], frame.metadata["x_um"])
    assert (taken.well, taken.pixel_um, taken.ceiling_adu) == (WELL, plan.pixel_um, 65535)


def test_it_stays_where_it_was_sent_until_it_is_put_back(source: EmulatorSource) -> None:
    source.put_back()
    before = source.snap(SnapOrder("488"))
    sent = source.snap(SnapOrder("488", well=source.plate_map.imaged()[-1].well, z_um=3.0))
    assert source.snap(SnapOrder("488")).z_um == sent.z_um == 3.0
    assert sent.well != before.well
    source.put_back()
    assert (source.snap(SnapOrder("488")).well, source.snap(SnapOrder("488")).z_um) == (before.well, before.z_um)


def test_more_light_is_brighter_and_saturates(source: EmulatorSource) -> None:
    planned = source.snap(SnapOrder("488", well=WELL))
    assert planned.exposure_ms is not None
    longer, flooded = (
        source.snap(SnapOrder("488", exposure_ms=factor * planned.exposure_ms, well=WELL)) for factor in (2, 500)
    )
    bright = [float(np.percentile(one.pixels, 99)) - 100 for one in (planned, longer)]
    assert bright[1] == pytest.approx(2 * bright[0], rel=0.1)
    assert (flooded.pixels == flooded.ceiling_adu).mean() > 0.05


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"channel": "405"}, "no channel '405'"),
        ({"channel": "488", "z_um": 500.0}, "no image at z = 500 um"),
        ({"channel": "488", "well": WellId.parse("H12")}, "no well H12"),
    ],
)
def test_what_it_cannot_do_is_refused(source: EmulatorSource, order: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        source.snap(SnapOrder(**order))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"exposure_ms": 0.0}, {"exposure_ms": 1e9}, {"z_um": float("nan")}, {"field": -1}])
def test_an_order_that_no_instrument_can_carry_out_is_none(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(given))} is "):
        SnapOrder("488", **given)  # type: ignore[arg-type]


def test_a_well_of_its_own_exposure_is_as_bright_in_a_run(source: EmulatorSource) -> None:
    wells = [
        replace(entry, imaging=WellImaging({"488": 40.0})) if entry.well == WELL else entry
        for entry in source.plate_map
    ]
    settings = source.settings
    own = EmulatorSource(settings, PlateMap("P1", tuple(wells)), "P1", SystemClock())
    index = SliceIndex("488", 7)
    (plain,), (bright,) = (list(one.frames(one.plan(WELL), {index})) for one in (source, own))
    assert bright.metadata["exposure_ms"] == 40.0
    factor = 40.0 / float(plain.metadata["exposure_ms"])
    seen = [float(np.percentile(frame.pixels, 99)) - 100 for frame in (plain, bright)]
    assert seen[1] == pytest.approx(factor * seen[0], rel=0.1)
    taken = own.snap(SnapOrder("488", well=WELL, z_um=float(bright.metadata["z_um"])))
    np.testing.assert_array_equal(taken.pixels, bright.pixels)
