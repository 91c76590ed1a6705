"""A screen made up of several plates: each compound and patient has one meaning, wherever it stands."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.compound_screen import COMPOUNDS_A_PLATE, FIELDS, plates
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.plate import PLATE_FORMATS, DrugMode, PlateDesign, SpecChoices, well_spec

ROWS, COLUMNS = PLATE_FORMATS[1]


def test_a_plate_begins_with_the_compound_and_the_patient_it_is_told() -> None:
    plate = PlateDesign(compounds=2, first_compound=14, patients=2, first_patient=3).plate_map("p", 0)
    assert {entry.treatment.compound for entry in plate} == {None, "C14", "C15"}
    assert {entry.treatment.patient for entry in plate} == {"P03", "P04"}


def test_a_compound_keeps_its_action_on_whichever_plate_it_stands() -> None:
    """What differs between two plates is their own shift, the same for every compound of one patient."""
    whole = PlateDesign(compounds=14).plate_map("p", 0)
    part = PlateDesign(compounds=2, first_compound=13).plate_map("q", 0)
    choices = SpecChoices(0, 80.0)
    ic50s = [
        {e.treatment.compound: well_spec(plate, e, choices).ic50_um for e in plate if e.treatment.compound}
        for plate in (whole, part)
    ]
    ratios = [ic50s[0][name] / ic50s[1][name] for name in ("C13", "C14")]
    assert ratios[0] == pytest.approx(ratios[1])
    assert ratios[0] != pytest.approx(1)


def test_a_small_spheroid_may_stop_growing_far_below_the_smallest_seeded() -> None:
    plate = PlateDesign(compounds=1, doses=1, top_dose_um=1e6).plate_map("p", 0)
    entry = next(e for e in plate if e.treatment.role is WellRole.SAMPLE)
    spec = well_spec(plate, entry, SpecChoices(0, 80.0, modes=(DrugMode.CYTOSTATIC,)))
    assert 25 <= spec.diameter_um < 60


class TestScreen:
    @settings(deadline=None)
    @given(st.integers(1, 120), st.integers(1, 3))
    def test_every_compound_of_every_patient_stands_on_one_plate(self, compounds: int, patients: int) -> None:
        held = []
        for plate in plates(compounds, patients, FIELDS["whole"]):
            design = plate.settings.design()
            assert 1 <= design.compounds <= COMPOUNDS_A_PLATE[3]
            first = design.first_compound
            held += [(design.first_patient, number) for number in range(first, first + design.compounds)]
        assert sorted(held) == [(p, c) for p in range(1, patients + 1) for c in range(1, compounds + 1)]

    def test_fifty_compounds_need_four_384_well_plates(self) -> None:
        screen = plates(50, 1, FIELDS["whole"])
        sizes = [len(plate.source.plate_map) for plate in screen]
        assert sizes == [348, 348, 324, 324]
        assert all(e.well < WellId(ROWS, 0) and e.well.column < COLUMNS for p in screen for e in p.source.plate_map)

    def test_controls_lie_all_over_the_plate(self) -> None:
        for plate in plates(50, 1, FIELDS["whole"]):
            controls = [e.well for e in plate.source.plate_map if e.treatment.role is WellRole.NEGATIVE_CONTROL]
            edge = [w for w in controls if w.row in (0, ROWS - 1) or w.column in (0, COLUMNS - 1)]
            assert len(controls) == 28
            assert len(edge) < len(controls) / 2
            assert len({(w.row // 4, w.column // 6) for w in controls}) >= 10  # of 16 parts of the plate
