"""From rows to curves: which wells make a curve, and what becomes of the others."""

from pathlib import Path

import pytest

from spheroidd.daemon.analysis.curves import CurveOfPlate, curve_points, curves
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.protocols.dose import CurveStatus
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.results import Related, WellStatus
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.stack_end import StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

DOSES_UM = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
IC50_UM = {"ann": 2.0, "bob": 20.0}


def layout() -> dict[WellId, Treatment]:
    """Two patients, each with two untreated wells and one compound in duplicate; a killed and an empty well."""
    treatments: dict[WellId, Treatment] = {}
    for row, patient in enumerate(IC50_UM):
        treatments[WellId(2 * row, 0)] = treatments[WellId(2 * row + 1, 0)] = Treatment(
            WellRole.NEGATIVE_CONTROL, patient=patient
        )
        for column, dose in enumerate(DOSES_UM, start=1):
            for replicate in (0, 1):
                treatments[WellId(2 * row + replicate, column)] = plates.sample("drug", dose, patient)
    treatments[WellId(4, 0)] = plates.KILLED
    treatments[WellId(4, 1)] = Treatment(WellRole.EMPTY)
    return treatments


def alive(well: WellId, treatment: Treatment) -> float:
    spread = 1 + 0.01 * ((well.row + well.column) % 3 - 1)
    if treatment.role is WellRole.POSITIVE_CONTROL:
        return 0.01
    if treatment.dose_um is None:
        return spread
    return spread * plates.share_alive(treatment.dose_um, IC50_UM[treatment.patient or ""])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    treatments = layout()
    wells = plates.plate_map("P1", treatments)
    plates.register(tmp_path, wells)
    imaged = {entry.well: entry.treatment for entry in wells.imaged()}
    plates.score(tmp_path, wells, {well: plates.FULL_UM3 * alive(well, of) for well, of in imaged.items()})
    return tmp_path


def found(data: Path, metric: str = "v_control") -> dict[str | None, CurveOfPlate]:
    with Catalog.read_only(data) as catalog:
        return {curve.patient: curve for curve in curves(catalog, "P1", metric)}


def test_each_patient_has_a_curve_with_controls_of_its_own(data: Path) -> None:
    both = found(data)
    assert list(both) == ["ann", "bob"]
    assert both["ann"].control_wells == ("A01", "B01")
    assert both["bob"].control_wells == ("C01", "D01")
    for patient, curve in both.items():
        assert curve.compound == "drug"
        assert curve.name == f"P1 / {patient} / drug"
        assert list(curve.doses_um) == sorted(2 * DOSES_UM)
        assert set(curve.excluded) == {None}
        assert not curve.provisional
        assert curve.missing == ()
        assert curve.fit.status is CurveStatus.OK
        assert curve.fit.ic50_abs == pytest.approx(IC50_UM[patient or ""], rel=0.25)
        assert curve.fit.n == len(curve.doses_um) + 2


def test_an_excluded_well_stays_beside_the_fit(data: Path) -> None:
    before = found(data)["ann"]
    exclude_well(data, "A05", "a bubble")
    after = found(data)["ann"]
    place = after.wells.index("A05")
    assert after.excluded[place] == "a bubble"
    assert after.doses_um == before.doses_um
    assert after.fit.n == before.fit.n - 1
    assert 3.0 in after.fitted()[0]
    assert after.fitted()[0].count(after.doses_um[place]) == 1


def test_an_excluded_control_leaves_the_median_and_the_fit(data: Path) -> None:
    exclude_well(data, "B01", "a bubble")
    curve = found(data)["ann"]
    assert curve.control_wells == ("A01",)
    assert [(well, why) for well, _, why in curve.excluded_controls] == [("B01", "a bubble")]
    assert found(data)["bob"].control_wells == ("C01", "D01")


def test_a_well_without_a_figure_is_named_with_the_reason_and_is_no_zero(data: Path) -> None:
    plates.end_stack(data, "P1", WellId(0, 3), StackEnd.FAILED, "the shutter stuck")
    curve = found(data)["ann"]
    (missing,) = curve.missing
    assert (missing.well, missing.dose_um, missing.excluded) == ("A04", 1.0, None)
    assert missing.reason == "failed: the shutter stuck"
    assert "A04" not in curve.wells
    assert 0.0 not in curve.responses


def test_a_figure_that_may_change_makes_the_curve_provisional(data: Path) -> None:
    plates.set_state(data, "P1", WellId(0, 3), StackState.STORED)
    assert found(data)["ann"].provisional
    assert not found(data)["bob"].provisional


def test_controls_without_a_patient_serve_every_patient_that_has_none(tmp_path: Path) -> None:
    treatments = {well: of for well, of in layout().items() if of.patient is None or of.dose_um is not None}
    treatments[WellId(0, 0)] = plates.UNTREATED
    wells = plates.plate_map("P1", treatments)
    plates.register(tmp_path, wells)
    imaged = {entry.well: entry.treatment for entry in wells.imaged()}
    plates.score(tmp_path, wells, {well: plates.FULL_UM3 * alive(well, of) for well, of in imaged.items()})
    assert {curve.control_wells for curve in found(tmp_path).values()} == {("A01",)}


def test_controls_of_another_patient_are_not_borrowed(tmp_path: Path) -> None:
    treatments = {
        well: of for well, of in layout().items() if not (of.patient == "bob" and of.role is WellRole.NEGATIVE_CONTROL)
    }
    wells = plates.plate_map("P1", treatments)
    plates.register(tmp_path, wells)
    imaged = {entry.well: entry.treatment for entry in wells.imaged()}
    plates.score(tmp_path, wells, {well: plates.FULL_UM3 * alive(well, of) for well, of in imaged.items()})
    assert found(tmp_path)["bob"].control_responses == ()


@pytest.mark.parametrize(("n_fields", "share_of_new"), [(2, 0.5), (1, 1.0)], ids=["fields", "a repeat"])
def test_a_well_is_the_median_of_its_fields_and_a_repeat_replaces(
    data: Path, n_fields: int, share_of_new: float
) -> None:
    key, before = StackKey("P1", WellId(0, 1), 1), found(data)["ann"]
    with Catalog.create_or_open(data) as catalog, catalog.transaction():
        catalog.connection.execute("UPDATE plates SET n_fields = ?", (n_fields,))
        plan = plates.plan_of(key)
        catalog.expect(plan)
        for z, index in enumerate(plan.indices()):
            catalog.acknowledge(SliceDurable(key, index, z, 1000.0), 1000.0)
        catalog.set_stack_state(key, StackState.STORED)
        catalog.record_measurement(key, plates.measurement(1.0), 1.0)
        catalog.update_related(key, plates.MODEL, Related(WellStatus.FINAL, None, 10.0), "controls")
    after = found(data)["ann"]
    place = after.wells.index("A02")
    assert after.wells == before.wells
    assert after.responses[place] == pytest.approx((1 - share_of_new) * before.responses[place] + share_of_new * 10.0)


def test_other_metrics_are_in_their_own_unit(data: Path) -> None:
    curve = found(data, "v_count")["ann"]
    assert all(0 <= value <= 1 for value in (*curve.responses, *curve.control_responses))
    assert curve.fit.ic50_abs == pytest.approx(IC50_UM["ann"], rel=0.3)


def test_a_plate_of_which_nothing_is_known_has_curves_that_say_so(tmp_path: Path) -> None:
    plates.register(tmp_path, plates.plate_map("P1", layout()))
    curve = found(tmp_path)["ann"]
    assert curve.fit.status is CurveStatus.FAILED
    assert curve.doses_um == curve.responses == curve.control_responses == ()
    assert len(curve.missing) == 2 * len(DOSES_UM)
    assert curve.missing[0].reason == "queued: not imaged yet"
    assert curve.provisional


def test_a_plate_without_compounds_has_no_curves(tmp_path: Path) -> None:
    plates.register(tmp_path, plates.plate_map("P1", {WellId(0, 0): plates.UNTREATED}))
    assert found(tmp_path) == {}


def test_what_there_is_not_is_named(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        with pytest.raises(ConfigError, match="no metric 'mood'"):
            curves(catalog, "P1", "mood")
        with pytest.raises(ConfigError, match="no plate 'P9'"):
            curve_points(catalog, ["P1", "P9"])
        assert [curve.plate for curve in curve_points(catalog)] == ["P1", "P1"]
