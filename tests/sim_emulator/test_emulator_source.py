"""The emulator as a source: the contract, the clock, the faults, and that only names decide the pixels."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.ports import Clock, StackSource
from spheroidd.protocols.stack import SliceIndex, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.presets import PRESETS
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource, Fault
from spheroidd.testing.source_contract import FakeClock, SourceContract, take

A01 = WellId(0, 0)


def make(clock: Clock | None = None, plate: str = "plate", **given: Any) -> EmulatorSource:
    settings = EmulatorSettings(**({"preset": "unit", "pace": "fast", "n_z": 6, "height": 40, "width": 56} | given))
    return EmulatorSource(settings, None, plate, clock or FakeClock())


def every(plan: StackPlan) -> set[SliceIndex]:
    return set(plan.indices())


class TestEmulatorSource(SourceContract):
    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        return make(clock)


class TestEmulatorSourceAtPace(SourceContract):
    def make_source(self, folder: Path, clock: Clock) -> StackSource:
        return make(clock, pace="real", swapped_channels=True)


def test_the_demo_plate_is_three_untreated_two_killed_and_two_dose_series() -> None:
    plate = EmulatorSource(EmulatorSettings(), None, "demo", FakeClock()).plate_map
    roles = [entry.treatment.role for entry in plate]
    assert len(plate) == 15
    assert roles.count(WellRole.NEGATIVE_CONTROL) == 3
    assert roles.count(WellRole.POSITIVE_CONTROL) == 2
    assert len({(e.treatment.compound, e.treatment.dose_um) for e in plate}) == 2 + 10


def test_slices_come_in_the_instruments_order() -> None:
    source = make()
    plan = source.plan(A01)
    assert [frame.index for frame in source.frames(plan, every(plan))] == list(plan.indices())


def test_at_pace_a_slice_is_never_early() -> None:
    clock = FakeClock()
    source = make(clock, pace="real", slice_period_s=1.2)
    plan, start = source.plan(A01), clock.now()
    due = [frame.acquired_s - start for frame in source.frames(plan, every(plan))]
    assert due == pytest.approx([1.2 * k / 2 for k in range(12)])


def test_at_pace_a_stack_taken_up_does_not_wait_for_slices_it_has() -> None:
    clock = FakeClock()
    source = make(clock, pace="real", slice_period_s=100)
    plan = source.plan(A01)
    list(source.frames(plan, {SliceIndex("488", 4), SliceIndex("561", 5)}))
    assert clock.slept_s == pytest.approx(150)


def test_fast_never_sleeps() -> None:
    clock = FakeClock()
    source = make(clock)
    list(source.frames(source.plan(A01), every(source.plan(A01))))
    assert clock.slept_s == 0


def test_same_names_same_bytes() -> None:
    image = make().scene(A01).image("488", 3)
    assert np.array_equal(image, make().scene(A01).image("488", 3))
    assert zlib.crc32(image.tobytes()) == GOLDEN


GOLDEN = 3326563764  # of well A01 of "plate" with seed 0; a change here changes every recorded plate


@pytest.mark.parametrize(
    "other",
    [
        lambda: make().scene(WellId(0, 1)),
        lambda: make(plate="other").scene(A01),
        lambda: make(seed=1).scene(A01),
        lambda: make().scene(A01, stack=1),
    ],
    ids=["well", "plate", "seed", "stack"],
)
def test_another_name_gives_other_pixels(other: Any) -> None:
    assert not np.array_equal(make().scene(A01).image("488", 3), other().image("488", 3))


def test_a_second_stack_of_a_well_shows_the_same_cells() -> None:
    first, second = make().scene(A01).expected_e("488", 3).copy(), make().scene(A01, stack=1).expected_e("488", 3)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


def test_a_plate_map_decides_the_treatments() -> None:
    wells = (
        PlateWell(WellId(3, 3), Treatment(WellRole.POSITIVE_CONTROL)),
        PlateWell(WellId(2, 2), Treatment(WellRole.EMPTY)),
        PlateWell(WellId(1, 1), Treatment(WellRole.SAMPLE, "Paclitaxel", 1e6, "me")),
        PlateWell(WellId(0, 3), Treatment(WellRole.NEGATIVE_CONTROL)),
    )
    source = EmulatorSource(EmulatorSettings(preset="unit"), PlateMap("given", wells), "unused", FakeClock())
    assert [str(plan.key.well) for plan in source.plans()] == ["D04", "A04", "B02"]
    assert source.well_truth("D04").v_true_whole < 0.06
    assert source.well_truth("A04").v_true_whole > 0.85
    assert source.well_truth("B02").compound == "Paclitaxel"
    with pytest.raises(ConfigError, match="no well C07"):
        source.truth("C07")


class TestFaults:
    def run(self, *faults: Fault) -> tuple[list[SliceIndex], FakeClock]:
        clock = FakeClock()
        source = make(clock, faults=faults)
        plan = source.plan(A01)
        return [frame.index for frame in source.frames(plan, every(plan))], clock

    def test_a_dropped_slice_is_missing(self) -> None:
        got, _ = self.run(Fault(kind="drop", well="A01", z=2))
        assert SliceIndex("488", 2) not in got
        assert len(got) == 11

    def test_a_duplicate_comes_twice(self) -> None:
        got, _ = self.run(Fault(kind="duplicate", well="A01", z=2, channel="561"))
        assert got.count(SliceIndex("561", 2)) == 2
        assert len(got) == 13

    def test_a_stall_takes_its_time(self) -> None:
        got, clock = self.run(Fault(kind="stall", well="A01", z=2, seconds=7))
        assert len(got) == 12
        assert clock.slept_s == 7

    def test_a_short_stack_ends_without_a_word(self) -> None:
        got, _ = self.run(Fault(kind="short", well="A01", z=4))
        assert len(got) == 8

    @pytest.mark.parametrize(("kind", "error"), [("fail", StackError), ("lost", InstrumentError)])
    def test_errors_are_raised(self, kind: str, error: type[Exception]) -> None:
        with pytest.raises(error, match="channel 488 z 1"):
            self.run(Fault(kind=kind, well="A01", z=1))

    def test_other_wells_are_well(self) -> None:
        got, _ = self.run(Fault(kind="short", well="A02", z=0))
        assert len(got) == 12

    def test_a_fault_can_pass(self) -> None:
        source = make(faults=(Fault(kind="lost", well="A01", z=0, times=1),))
        plan = source.plan(A01)
        with pytest.raises(InstrumentError):
            take(source, plan, every(plan))
        assert len(take(source, plan, every(plan))) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "huge"},
        {"pace": "slow"},
        {"n_z": 0},
        {"pixel_um": -1},
        {"diameter_um": 5},
        {"modes": ()},
        {"typo": 1},
        {"faults": [{"kind": "drop", "well": "A01", "z": -1}]},
        {"faults": [{"kind": "drop", "well": "somewhere", "z": 1}]},
    ],
    ids=str,
)
def test_settings_refuse_nonsense(wrong: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ConfigError)):
        EmulatorSettings.model_validate(wrong)


def test_settings_replace_the_presets_geometry() -> None:
    settings = EmulatorSettings(preset="screen", n_z=100, height=320, field_z_um=30, diameter_um=250)
    preset = settings.field_preset()
    assert (preset.n_z, preset.height, preset.width) == (100, 320, PRESETS["screen"].width)
    assert (preset.field_z_um, preset.diameter_um) == (30, 250)


def test_the_screen_preset_is_the_studys_stack() -> None:
    plan = EmulatorSource(EmulatorSettings(preset="screen"), None, "plate", FakeClock()).plan(A01)
    assert (plan.n_z, plan.height, plan.width, plan.pixel_um, plan.z_step_um) == (200, 800, 800, 0.125, 0.5)
    assert plan.n_bytes == 512_000_000
    assert plan.slice_period_s == 1.2


def test_a_plate_too_large_is_refused() -> None:
    with pytest.raises(ConfigError, match="1536"):
        make(compounds=200, doses=10)
