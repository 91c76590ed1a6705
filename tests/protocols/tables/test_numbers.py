"""Numbers of tables: a whole column decides what a point or a comma means, and what could be both is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spheroidd.daemon.analysis import fit_table
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.plate_map.columns import split_unit
from spheroidd.protocols.plate_map.dose_units import split_dose
from spheroidd.protocols.tables.cells import guarded
from spheroidd.protocols.tables.numbers import ExactNumber, NumberStyle, number_style, proves_points, read_numbers


def read(*cells: str, points: bool = False) -> list[float]:
    return read_numbers(cells, column="od", line=lambda i: f"line {i + 2}", points=points)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["12", "987", "0"], [12, 987, 0]),
        (["0.429", "1.000", "3.147"], [0.429, 1, 3.147]),
        (["0,429", "1,000", "3,147"], [0.429, 1, 3.147]),
        (["1,5", "12,345"], [1.5, 12.345]),
        (["1,234,567", "987,654", "12,345", "987"], [1234567, 987654, 12345, 987]),
        (["1.234.567", "987.654", "987"], [1234567, 987654, 987]),
        (["1,234.5", "12,345"], [1234.5, 12345]),
        (["1.234,5", "12.345"], [1234.5, 12345]),
        (["1 234", "12\u202f345,5", "1\u00a0000"], [1234, 12345.5, 1000]),
        (["1'234.5", "2\u2019000"], [1234.5, 2000]),
        (["12,34,567"], [1234567]),
        (["1.234E3", "1.000"], [1234, 1]),
        (["1,234e-3", "2,000"], [0.001234, 2]),
        (["1E3", "1e-3", "+5", "\u22121.5"], [1000, 0.001, 5, -1.5]),
        (["1234,567", "1,000"], [1234.567, 1]),
        ([".5", "1."], [0.5, 1]),
        ([ExactNumber("1.234"), ExactNumber("1e-05"), "2"], [1.234, 1e-05, 2]),
    ],
    ids=str,
)
def test_a_column_decides_its_signs(cells, values):
    assert read(*cells) == values


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["987", "12,345", "11,980"], "line 3: '12,345' in column 'od' could be 12345 or 12.345"),
        (["1.000", "3.000", "100.000"], "line 2: '1.000' in column 'od' could be 1000 or 1.000"),
        (["-1,234"], "could be -1234 or -1.234"),
        (["1,5", "2.5"], "line 3: '1,5' and '2.5' in column 'od' have two kinds of decimal sign"),
        (["1,234", "2.5"], "'1,234' in column 'od' could be 1234 or 1.234"),
        (["1,5", "1,234,567"], "',' is a decimal sign in one cell and a thousands separator in another"),
        (["1,234,567", "1.234.567"], "two kinds of thousands separator"),
        ([ExactNumber("0.5"), "1.234"], "'1.234' in column 'od' could be 1234 or 1.234"),
        (["1", "1_000"], "line 3: '1_000' in column 'od' is not a number"),
        (["10 uM"], "'10 uM' in column 'od' is not a number; write a number without its unit"),
        (["<5"], "write the value at the limit"),
        (["1,2,3"], "'1,2,3' in column 'od' is not a number"),
        (["1e999"], "is not a number"),
        (["inf"], "is not a number"),
    ],
    ids=str,
)
def test_what_could_be_both_or_is_no_number_is_refused_with_its_place(cells, message):
    with pytest.raises(ConfigError) as refused:
        read(*cells)
    assert message in str(refused.value)
    assert refused.value.do


def test_a_table_that_proves_points_reads_three_decimals():
    assert read("1.000", "3.147", points=True) == [1, 3.147]
    assert read("1.234.567", "1.000", points=True) == [1234567, 1000]
    with pytest.raises(ConfigError, match="could be 1234 or"):
        read("1,234", points=True)
    with pytest.raises(ConfigError, match="two kinds"):
        read("1,5", "1.234", points=True)


@pytest.mark.parametrize(
    ("cells", "proof"),
    [
        (["37.0", "word"], True),
        (["1.000", "2.000"], False),
        (["12", "987"], False),
        (["1.5", "1,5"], False),
        (["1.234.567"], False),
        ([ExactNumber("0.5")], False),
    ],
)
def test_other_columns_may_prove_decimal_points(cells, proof):
    assert proves_points(cells) is proof


def test_missing_words_are_nan_and_decide_nothing():
    found = read("NA", "", " n/a ", "1,5", "-")
    assert [math.isnan(value) for value in found] == [True, True, True, False, True]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8),
    st.sampled_from([(".", ""), (",", ""), (",", "."), (".", ",")]),
)
def test_whatever_style_wrote_it_the_number_comes_back_or_is_refused(values, style):
    decimal, thousands = style
    cells = [f"{value:,.3f}".replace(",", "t").replace(".", decimal).replace("t", thousands) for value in values]
    try:
        found = read(*cells)
    except ConfigError as error:
        told = str(error)
    else:
        told = "could be no other numbers"
        assert found == pytest.approx(values, abs=5e-4)
    assert "could be" in told


@given(st.lists(st.text(max_size=8) | st.text("0123456789.,eE+-' ", max_size=10), max_size=6))
def test_any_cells_are_finite_numbers_or_refused(cells):
    try:
        style = number_style(cells, column="x", line=str)
    except ConfigError as error:
        told = error.do
    else:
        told = "read"
        assert all(value is None or math.isfinite(value) for value in map(style.read, cells))
    assert told


@pytest.mark.timeout(20)
@pytest.mark.parametrize("tail", ["", ",", ".", "x", " x/", ",,", "e", "e5x", " M"])
def test_a_cell_of_a_hundred_thousand_digits_is_judged_at_once(tail: str) -> None:
    cell = "1" * 100_000 + tail
    assert NumberStyle(".").read(cell) in (None, math.inf)
    assert NumberStyle(",", grouped=True).read(cell) in (None, math.inf)
    assert guarded("+" + cell) in ("+" + cell, "'+" + cell)
    assert fit_table._NUMBER.fullmatch(cell) is not None or tail not in ("", ".")
    assert split_dose(cell)[1] is None or tail == " M"
    assert split_unit(cell) is None or tail == " M"
