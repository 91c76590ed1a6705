"""Software autofocus: the measure, the curve, the map of the plate, and a tilted plate through Micro-Manager's core."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spheroidd.acquisition.focus.autofocus import Autofocus, AutofocusSettings
from spheroidd.acquisition.focus.focus_curve import FocusCurve, PlaneSeen, focus_measure, look_at, vertex_um
from spheroidd.acquisition.focus.focus_map import FocusMap
from spheroidd.acquisition.sources.micromanager.source import MicroManagerSource
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.emulation.emulated_camera import (
    EmulatedCamera,
    MicroManagerRun,
    MicroManagerRunSettings,
    emulated_plate,
)
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import InstrumentError, StackError
from spheroidd.protocols.focus import FocusFound, FocusStatus
from spheroidd.protocols.pixels import Pixels
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.ports import FaultTelling, FocusRecalling, Interruptible
from spheroidd.protocols.stack import RawIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.scene import Scene
from tests.acquisition.sources.micromanager.rig import DEMO_CFG, SEQUENCED, needs_core, plate, warm_cores
from tests.acquisition.sources.micromanager.rig import settings as rig_settings
from tests.faults.plate_runs import spheroidd

pytestmark = warm_cores
KEY = StackKey("P1", WellId(0, 0))
TEXTURE = np.random.default_rng(1).gamma(0.3, 300.0, (64, 64))


class Sample:
    """Something with cells above `bottom_um`; remembers where it was looked at."""

    def __init__(self, bottom_um: float, light: float = 1.0, *, noisy: bool = True) -> None:
        self.bottom_um, self.light, self.asked = bottom_um, light, list[float]()
        self._noise = np.random.default_rng(2) if noisy else None

    def take(self, positions_um: Sequence[float]) -> Iterator[Pixels]:
        for z_um in positions_um:
            self.asked.append(z_um)
            inside = 1 / (1 + np.exp(-(z_um - self.bottom_um) / 1.5)) * np.exp(-max(0, z_um - self.bottom_um) / 60)
            light = 100 + self.light * TEXTURE.repeat(2, 0).repeat(2, 1) * inside
            yield (self._noise.poisson(light) if self._noise else light).astype(np.uint16)


def autofocus(limits_um: tuple[float, float] = (0.0, 200.0), start_um: float = 100.0, **given: Any) -> Autofocus:
    return Autofocus(AutofocusSettings(**given), start_um=start_um, depth_um=20.0, limits_um=limits_um)


def found_at(well: str, z_um: float | None, **given: Any) -> FocusFound:
    at = WellId.parse(well)
    status = FocusStatus.FOUND if z_um is not None else FocusStatus.FAILED
    row = FocusFound(
        StackKey("P1", at), status, "488", 9000.0 * at.column, 9000.0 * at.row, z_um, z_um, None, False, ()
    )
    return replace(row, **given)


# -- the measure and the curve


def test_the_measure_does_not_depend_on_light() -> None:
    plane = TEXTURE.astype(np.float32)
    assert focus_measure(plane * 7) == pytest.approx(focus_measure(plane), rel=1e-5)
    assert focus_measure(np.zeros((4, 4), np.float32)) == 0.0


def test_a_hot_pixel_is_no_sharpness_and_a_clipped_one_is_counted() -> None:
    dark = np.full((32, 32), 100, np.uint16)
    hot = dark.copy()
    hot[9, 9] = 65535
    assert look_at(0.0, hot).measure == look_at(0.0, dark).measure == 0.0
    assert look_at(0.0, hot).saturated_share == 1 / 1024


@given(
    vertex=st.floats(-5, 5),
    bend=st.floats(0.01, 100),
    height=st.floats(-100, 100),
    offset=st.floats(-0.49, 0.49),
    step=st.floats(0.1, 10),
)
def test_the_vertex_of_a_parabola_is_found(
    vertex: float, bend: float, height: float, offset: float, step: float
) -> None:
    z_um = vertex + step * (offset + np.array([-1.0, 0.0, 1.0]))
    assert vertex_um(z_um, height - bend * (z_um - vertex) ** 2) == pytest.approx(vertex, abs=1e-3 * step)


def test_three_points_without_a_bend_give_the_middle_one() -> None:
    assert vertex_um(np.array([0.0, 1.0, 2.0]), np.array([3.0, 3.0, 3.0])) == 1.0


def curve(measures: Sequence[float], **given: Any) -> FocusCurve:
    usual = {"signal_adu": 500.0, "saturated_share": 0.0}
    return FocusCurve.of([PlaneSeen(4.0 * n, measure, **(usual | given)) for n, measure in enumerate(measures)])


LIMITS = {"min_signal_adu": 20.0, "min_contrast": 5.0}
RISING = [0.01, 0.01, 0.02, 0.5, 2.0, 2.2, 2.0, 1.8]


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (curve(RISING[:4]), "only 4 images fit into the range; widen"),
        (curve(RISING, signal_adu=3.0), "too dark: nothing stands out by more than 3 counts; check lamp"),
        (curve(RISING, saturated_share=0.2), "too bright: 20 % of the pixels are saturated; lower"),
        (curve([1.0, 1.1, 1.2, 1.1, 1.0]), "the curve is flat: the sharpest plane has 1.2 times"),
        (curve([0.0] * 6), "the curve is flat"),
    ],
)
def test_a_curve_without_a_focus_says_why(measured: FocusCurve, message: str) -> None:
    with pytest.raises(StackError, match="no focus was found") as told:
        measured.check(**LIMITS)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("measures", "target", "edge"),
    [
        ([5.0, 4.0, 3.0, 2.0, 0.1], "peak", "lower edge of the range 0 to 16 um"),
        ([0.1, 1.0, 2.0, 3.0, 4.0], "peak", "upper edge of the range 0 to 16 um"),
        ([0.01, 2.0, 2.0, 2.0, 2.0, 1.5], "bottom", "lower edge"),
        ([0.01, 0.01, 0.01, 0.01, 0.01, 2.0], "bottom", "upper edge"),
        ([1.0, 0.4, 0.3, 0.1, 0.5, 2.0, 2.2, 2.0], "bottom", "lower edge"),  # begins within the sample
    ],
)
def test_a_focus_at_the_edge_is_none(measures: list[float], target: Any, edge: str) -> None:
    with pytest.raises(StackError, match=edge):
        curve(measures).bracket(target)
    with pytest.raises(StackError, match=edge):
        curve(measures).focus_um(target)


def test_where_cells_are_few_the_lowest_rise_is_the_bottom() -> None:
    low, high = curve([0.01, 0.01, 0.01, 0.3, 0.4, 0.02, 0.02, 2.0, 2.0, 2.0]).bracket("bottom")
    assert low < 10.0 < high


# -- looking for it


@pytest.mark.parametrize("bottom_um", [70.3, 96.0, 100.0, 118.7, 131.0])
@pytest.mark.parametrize("light", [0.3, 3.0])
def test_the_bottom_is_found_within_a_step(bottom_um: float, light: float) -> None:
    sample = Sample(bottom_um, light)
    found = autofocus(offset_um=-5.0, expected_um=100.0).seek(KEY, 0.0, 0.0, sample.take)
    reference = autofocus(fine_um=0.5).seek(KEY, 0.0, 0.0, Sample(bottom_um, light, noisy=False).take)
    assert (found.status, found.outlier, found.predicted_z_um) == (FocusStatus.FOUND, False, None)
    assert found.focus_z_um is not None
    assert reference.focus_z_um is not None
    assert abs(found.focus_z_um - reference.focus_z_um) < (1.0 if light > 1 else 2.0)
    assert abs(found.focus_z_um - bottom_um) < 5.0
    assert found.first_z_um == found.focus_z_um - 5.0
    assert [z for z, _ in found.curve] == sorted(set(sample.asked))


def test_the_sharpest_plane_of_what_is_thin_is_found() -> None:
    def take(positions_um: Sequence[float]) -> Iterator[Pixels]:
        for z_um in positions_um:
            yield (100 + TEXTURE.repeat(2, 0) * np.exp(-(((z_um - 103.4) / 6) ** 2))).astype(np.uint16)

    found = autofocus(target="peak").seek(KEY, 0.0, 0.0, take)
    assert found.focus_z_um == pytest.approx(103.4, abs=0.3)


@hypothesis_settings(deadline=None, max_examples=30)
@given(
    limits=st.tuples(st.floats(0, 150), st.floats(1, 150)),
    start=st.floats(-50, 250),
    bottom=st.floats(-50, 250),
    range_um=st.floats(1, 200),
)
def test_nothing_outside_the_limits_is_ever_asked_for(
    limits: tuple[float, float], start: float, bottom: float, range_um: float
) -> None:
    low, high = limits[0], limits[0] + limits[1]
    sample, looking = Sample(bottom), autofocus((low, high), start, range_um=range_um)
    found = looking.seek(KEY, 0.0, 0.0, sample.take)
    assert all(low <= z_um <= high for z_um in sample.asked)
    assert (found.status is FocusStatus.FAILED) == bool(found.reason)
    with contextlib.suppress(StackError):
        first_um = looking.check(found)
        assert low <= first_um <= first_um + 20.0 <= high


def test_wells_around_say_where_to_look_and_save_light() -> None:
    looking = autofocus()
    asked = []
    for n, well in enumerate(("A01", "A02", "B01", "B02", "B03")):
        at = WellId.parse(well)
        sample = Sample(100.0 + 6.0 * at.column - 4.0 * at.row)
        found = looking.seek(StackKey("P1", at), 9000.0 * at.column, 9000.0 * at.row, sample.take)
        assert found.status is FocusStatus.FOUND
        asked.append(len(sample.asked))
        if n >= 3:
            assert found.predicted_z_um is not None
            assert found.focus_z_um == pytest.approx(found.predicted_z_um, abs=1.0)
    assert max(asked[3:]) < min(asked[:3])


def test_a_well_that_does_not_fit_is_looked_for_further_and_marked() -> None:
    looking = autofocus()
    looking.map.restore(found_at(well, 100.0) for well in ("A01", "A02", "B01", "B02"))
    found = looking.seek(StackKey("P1", WellId(2, 2)), 18000.0, 18000.0, Sample(125.0).take)
    assert (found.status, found.outlier) == (FocusStatus.FOUND, True)
    assert found.focus_z_um == pytest.approx(125.0, abs=5.0)


def test_a_well_without_a_focus_is_skipped_or_taken_as_its_neighbours_are() -> None:
    dark = Sample(100.0, light=0.0)
    skipping = autofocus()
    skipping.map.restore([found_at("A01", 100.0)])
    lost = skipping.seek(StackKey("P1", WellId(0, 1)), 9000.0, 0.0, dark.take)
    assert (lost.status, lost.focus_z_um) == (FocusStatus.FAILED, None)
    with pytest.raises(StackError, match=r"P1/A02/0: no focus was found: it is too dark.*; check lamp"):
        skipping.check(lost)
    using = autofocus(on_failure="neighbours")
    assert using.seek(KEY, 0.0, 0.0, dark.take).status is FocusStatus.FAILED  # nobody knows anything yet
    using.map.restore([found_at("A02", 104.0), found_at("B01", None)])
    taken = using.seek(KEY, 0.0, 0.0, dark.take)
    assert (taken.status, taken.focus_z_um) == (FocusStatus.NEIGHBOURS, pytest.approx(104.0))
    assert "too dark" in taken.reason
    assert using.check(taken) == pytest.approx(104.0)


def test_too_many_wells_without_a_focus_are_the_instruments_fault() -> None:
    looking = autofocus(give_up_after=3)
    for _ in range(2):
        with pytest.raises(StackError):
            looking.check(found_at("A01", None, reason="it is dark; check the lamp"))
    with pytest.raises(InstrumentError, match="3 stacks one after the other: it is dark"):
        looking.check(found_at("A01", None, reason="it is dark; check the lamp"))
    assert looking.check(found_at("A01", 100.0)) == 100.0


def test_a_stack_that_would_leave_the_limits_is_not_begun() -> None:
    with pytest.raises(StackError, match=r"would leave z_limits_um \[0, 200\]; correct source.autofocus.offset_um"):
        autofocus().check(found_at("A01", 185.0))


# -- the map of the plate


@given(
    slopes=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    height=st.floats(-1000, 1000),
    odd=st.integers(0, 11),
    off=st.floats(-60, 60),
)
def test_a_tilted_plate_is_predicted_whatever_one_well_says(
    slopes: tuple[float, float], height: float, odd: int, off: float
) -> None:
    def z_um(well: WellId) -> float:
        return height + 9 * (slopes[0] * well.column + slopes[1] * well.row)

    known = FocusMap()
    for n, well in enumerate(WellId(row, column) for row in range(3) for column in range(4)):
        known.add(found_at(str(well), z_um(well) + (off if n == odd else 0.0)))
    target = WellId(1, 4)
    predicted = known.predict_um(StackKey("P1", target), 36000.0, 9000.0)
    assert predicted == pytest.approx(z_um(target), abs=1.0)


def test_a_single_row_says_nothing_of_the_tilt_across_it() -> None:
    known = FocusMap()
    known.restore(found_at(f"A0{n}", 100.0 + 2 * n) for n in (1, 2, 3, 4))
    assert known.predict_um(StackKey("P1", WellId(0, 4)), 36000.0, 0.0) == pytest.approx(110.0, abs=0.1)
    assert known.predict_um(StackKey("P1", WellId(7, 4)), 36000.0, 63000.0) == pytest.approx(110.0, abs=0.5)


def test_what_was_not_found_predicts_nothing() -> None:
    known = FocusMap()
    known.restore([found_at("A01", None), found_at("A02", 7.0, status=FocusStatus.NEIGHBOURS), found_at("A03", 9.0)])
    assert known.predict_um(KEY, 0.0, 0.0) == pytest.approx(9.0)
    assert known.predict_um(StackKey("P1", WellId(0, 2)), 18000.0, 0.0) is None  # not from itself


# -- the emulator


@pytest.fixture(scope="module")
def tilted() -> MicroManagerRunSettings:
    """A rig over an emulated plate that lies askew and uneven."""
    camera = {"preset": "unit", "seed": 3, "tilt_um": (5.3, -4.1), "uneven_um": 2.0}
    given = rig_settings(n_z=24, first_frame_s=60, min_stall_s=5.0).model_dump()
    return MicroManagerRunSettings.model_validate(
        given | {"emulated_camera": camera, "autofocus": {"range_um": 60.0, "on_failure": "skip"}}
    )


WELLS = ("A01", "A02", "B01", "B02", "A03", "B03")


def seen_without_noise(rig: MicroManagerRunSettings, wells: PlateMap, well: WellId) -> float:
    """How far above the stack's nominal start the bottom of an emulated well is seen, of every plane and no noise."""
    assert rig.emulated_camera is not None
    emulated = emulated_plate(rig, rig.emulated_camera, wells)
    low, n = 20, 60
    field = replace(emulated.preset, field_z_um=emulated.preset.field_z_um - low, n_z=n)
    scene = Scene.of(emulated.spec(well), field)

    def seen(z: int) -> PlaneSeen:
        return look_at(float(z - low), (scene.expected_e("488", z) * 2 + 100).astype(np.uint16))

    middle = sum(FocusCurve.of([seen(z) for z in range(0, n, 4)]).bracket("bottom")) / 2
    return FocusCurve.of([seen(z) for z in range(n) if abs(z - low - middle) <= 8]).focus_um("bottom")


@needs_core
def test_a_tilted_plate_is_focused_within_a_z_step(tilted: MicroManagerRunSettings) -> None:
    wells, told = plate(*WELLS), list[FocusFound]()
    camera = tilted.emulated_camera
    assert camera is not None
    with closing(MicroManagerRun(tilted, wells, "rig", SystemClock())) as source:
        assert isinstance(source, FaultTelling)
        assert isinstance(source, FocusRecalling)
        assert isinstance(source, Interruptible)
        source.set_event_sink(lambda found: told.append(found) if isinstance(found, FocusFound) else None)
        source.check()
        for plan in source.plans():
            frames = list(source.frames(plan, set(plan.indices())))
            found = told[-1]
            bottom_um = tilted.z_start_um + camera.lift_um(plan.key.well)
            wanted_um = bottom_um + seen_without_noise(tilted, wells, plan.key.well)
            assert found.first_z_um is not None
            assert abs(found.first_z_um - wanted_um) < tilted.z_step_um
            assert abs(found.first_z_um - bottom_um) < 5.0
            assert len(frames) == plan.n_slices
            for frame in frames:
                z_um = found.first_z_um + frame.index.z * tilted.z_step_um
                assert frame.metadata["z_planned_um"] == pytest.approx(z_um)
                assert frame.metadata["z_um"] == pytest.approx(z_um, abs=tilted.z_tolerance_um)
                assert (frame.metadata["focus"], frame.metadata["focus_z_um"]) == ("found", found.focus_z_um)
            assert frames[len(frames) // 2].pixels.std() > 50  # the spheroid is in it
        first = source.plans()[0]
        some = set(list(first.indices())[10:12])
        again = list(source.frames(first, some))  # completed where it was begun, without a search
        assert len(told) == len(WELLS)
        assert [f.metadata["focus_z_um"] for f in again] == [told[0].focus_z_um] * 2
    assert all(one.status is FocusStatus.FOUND for one in told)


@needs_core
@pytest.mark.parametrize("sequenced", [False, True], ids=["slice by slice", "z by hardware"])
def test_a_tilted_plate_is_focused_by_raw_frames(tmp_path: Path, sequenced: bool) -> None:
    """A search sees single frames with stripes in them, of one phase, or of one after the other where z is stepped."""
    rig, wells, told = striped_rig(tmp_path, sequenced=sequenced), plate(), list[FocusFound]()
    camera = rig.emulated_camera
    assert camera is not None
    with closing(MicroManagerRun(rig, wells, "rig", SystemClock())) as source:
        source.set_event_sink(lambda found: told.append(found) if isinstance(found, FocusFound) else None)
        source.check()
        for plan in source.plans():
            frames = list(source.frames(plan, set(plan.indices())))
            first_um = told[-1].first_z_um
            assert first_um is not None
            bottom_um = rig.z_start_um + camera.lift_um(plan.key.well)
            wanted_um = bottom_um + seen_without_noise(rig, wells, plan.key.well) + 2.0
            assert abs(first_um - wanted_um) < 1.5 * rig.z_step_um
            assert {frame.index for frame in frames} == set(plan.indices())
            assert all(frame.pixels.shape == plan.frame_shape for frame in frames)
            assert {frame.metadata["z_planned_um"] for frame in frames} == {
                first_um + z * rig.z_step_um for z in range(plan.n_z)
            }
            bright = [frame.pixels.mean() for frame in frames if frame.index.channel == "488"]
            assert min(bright) > 110  # of 100 without light
        first = source.plans()[0]
        lost = {RawIndex("488", 1, 2, 1)}
        again = list(source.frames(first, lost))  # completed where it was begun, without a search
        assert {frame.index for frame in again} == lost
        assert [frame.metadata["focus_z_um"] for frame in again] == [told[0].focus_z_um]
    assert [one.status for one in told] == [FocusStatus.FOUND] * 2


def striped_rig(folder: Path, *, sequenced: bool) -> MicroManagerRunSettings:
    """A rig over a plate that lies askew, whose camera of 96 pixels takes raw frames of three slices."""
    config = folder / "rig.cfg"
    text = DEMO_CFG.read_text(encoding="utf-8").replace("PixelSize_um,unit,0.5", "PixelSize_um,unit,0.25")
    config.write_text(text + SEQUENCED * sequenced, encoding="utf-8")
    given = rig_settings(
        config=config,
        z_sequencing=sequenced,
        n_z=3,
        height=192,
        width=192,
        pixel_um=0.125,
        first_frame_s=60,
        min_stall_s=5.0,
        raw={"phases": 3, "na": 0.5, "emission_nm": {"488": 515, "561": 617}, "offset_adu": 100},
        autofocus={"range_um": 60.0, "offset_um": 2.0},
    )
    camera = {"preset": "unit", "seed": 3, "tilt_um": (5.3, -4.1)}
    return MicroManagerRunSettings.model_validate(given.model_dump() | {"emulated_camera": camera})


@needs_core
def test_a_search_that_is_interrupted_ends_without_an_error(tilted: MicroManagerRunSettings) -> None:
    told: list[FocusFound] = []
    with closing(MicroManagerRun(tilted, plate(), "rig", SystemClock())) as source:
        source.set_event_sink(lambda found: told.append(found) if isinstance(found, FocusFound) else None)
        plan = source.plans()[0]
        left = iter([False, False, True])
        source.set_interrupt(lambda: next(left, True))
        assert list(source.frames(plan, set(plan.indices()))) == []
        assert told == []
        source.set_interrupt(lambda: False)
        assert len(list(source.frames(plan, set(plan.indices())))) == plan.n_slices


@needs_core
def test_a_well_without_a_focus_is_a_stack_error_and_the_next_well_works(tilted: MicroManagerRunSettings) -> None:
    """No treatment empties a well, so the first is asked for where its spheroid is not: far above the range."""
    high = MicroManagerRunSettings.model_validate(
        tilted.model_dump() | {"emulated_camera": {"preset": "unit", "tilt_um": (-55.0, 0.0)}}
    )
    told: list[FocusFound] = []
    with closing(MicroManagerRun(high, plate("A01", "A02"), "rig", SystemClock())) as source:
        source.set_event_sink(lambda found: told.append(found) if isinstance(found, FocusFound) else None)
        near, far = source.plans()
        with pytest.raises(StackError, match=r"rig/A02/0: no focus was found: .*; .*autofocus"):
            list(source.frames(far, set(far.indices())))
        assert len(list(source.frames(near, set(near.indices())))) == near.n_slices
    assert [one.status for one in told] == [FocusStatus.FAILED, FocusStatus.FOUND]


def test_the_camera_without_a_tilt_shows_slices_of_the_stack_only() -> None:
    assert EmulatedCamera().lift_um(WellId(3, 4)) == 0.0
    assert EmulatedCamera(tilt_um=(1.0, -2.0)).lift_um(WellId(3, 4)) == -2.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channel": "561"}, "autofocus.channel is 561"),
        ({"coarse_um": 0}, "coarse_um"),
        ({"on_failure": "guess"}, "on_failure"),
        ({"rangeum": 3}, "rangeum"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        rig_settings(channels={"488": {"preset": "488", "exposure_ms": 1}}, autofocus=given)


# -- the catalog and the command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    treatment = Treatment(WellRole.SAMPLE, "C", 1.0)
    wells = tuple(PlateWell(WellId.parse(name), treatment) for name in ("A01", "A02", "A03"))
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(PlateMap("P1", wells), "{}")
        for entry in wells:
            catalog.expect(StackPlan(StackKey("P1", entry.well), ("488",), 2, 4, 4, 0.5, 1.0))
    return tmp_path


ROWS = (
    found_at("A02", 104.25, predicted_z_um=103.0, curve=((100.0, 0.1), (104.0, 0.5))),
    found_at("A01", None, reason="it is too dark; check the lamp"),
)


def test_the_focus_map_comes_back_as_it_was_written(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        assert catalog.focus_map("P1") == []
        for row in ROWS:
            catalog.put_focus(row)
        assert catalog.focus_map("P1") == list(ROWS)
        later = found_at("A01", 99.0)
        catalog.put_focus(later)
        assert later in catalog.focus_map("P1")
        assert len(catalog.focus_map("P1")) == 2
        assert catalog.stack(StackKey("P1", WellId(0, 0))).state is StackState.QUEUED


def test_the_command_shows_the_map_and_says_where_to_look(data: Path) -> None:
    nothing = spheroidd("focus-map", str(data))
    assert (nothing.returncode, "no focus was looked for here" in nothing.stderr) == (2, True)
    with Catalog.create_or_open(data) as catalog:
        catalog.put_focus(ROWS[0])
    found = spheroidd("focus-map", str(data))
    assert found.returncode == 0, found.stderr
    assert "104.2" in found.stdout
    assert "+1.2" in found.stdout
    with Catalog.create_or_open(data) as catalog:
        catalog.put_focus(ROWS[1])
    shown = spheroidd("focus-map", str(data), "--json")
    assert shown.returncode == 1
    rows = json.loads(shown.stdout)
    assert [(row["well"], row["status"]) for row in rows] == [("A02", "found"), ("A01", "failed")]
    assert rows[0]["curve"] == [[100.0, 0.1], [104.0, 0.5]]


def test_a_source_without_autofocus_recalls_nothing() -> None:
    with closing(MicroManagerSource(rig_settings(), plate(), "rig", SystemClock())) as source:
        source.restore_focus_map(ROWS)
        assert source.plans()
