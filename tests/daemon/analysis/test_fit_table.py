"""`spheroidd fit`: any table in, one answer a curve out; what cannot be read is refused with line and column."""

import json
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from spheroidd.daemon.analysis.fit_table import TableColumns, read_fit_table, table_curves
from spheroidd.daemon.cli import console as cli
from spheroidd.protocols.errors import ConfigError

FIELDS = (
    *("name", "status", "reason", "ic50_rel", "ic50_rel_lo", "ic50_rel_hi", "ic50_abs", "ic50_abs_lo", "ic50_abs_hi"),
    *("hill", "top", "bottom", "auc", "e_max", "n", "p_effect"),
)
DOSES = (0, 0, 0, 0.1, 0.1, 1, 1, 10, 10, 100, 100)
RESPONSES = (101, 99, 100, 97, 99, 90, 92, 51, 49, 9, 12)
WANTED = TableColumns("dose", "viability")


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def wells(delimiter: str = ",", decimal: str = ".", header: str = "dose{0}viability", end: str = "\n") -> str:
    lines = [header.format(delimiter)]
    lines += [f"{d}{delimiter}{r}".replace(".", decimal) for d, r in zip(DOSES, RESPONSES, strict=True)]
    return end.join(lines) + end


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def fitted(path: Path, *arguments: object) -> list[dict[str, object]]:
    done = spheroidd("fit", path, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return list(json.loads(done.stdout))


# Reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_same_numbers_however_they_are_written(tmp_path, encoding, delimiter, end):
    path = written(tmp_path, wells(delimiter, header='"Dosis µM"{0}Viabilität', end=end), encoding)
    (curve,) = table_curves(read_fit_table(path), TableColumns("Dosis µM", "viabilität"))
    assert (tuple(curve.doses), tuple(curve.responses)) == (DOSES, RESPONSES)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas(tmp_path, delimiter):
    (curve,) = table_curves(read_fit_table(written(tmp_path, wells(delimiter, decimal=","))), WANTED)
    assert tuple(curve.doses) == DOSES


@pytest.mark.parametrize("cell", ["", "NA", "nan", "N/A", " - "])
def test_an_empty_response_is_missing_not_zero(tmp_path, cell):
    (curve,) = table_curves(read_fit_table(written(tmp_path, f"dose,viability\n1,{cell}\n2,3\n")), WANTED)
    assert math.isnan(curve.responses[0])


@pytest.mark.parametrize(
    "rows",
    ["1,2,\n3,4,\n", "1,1,2\n2,3,4\n", "x,1,2\ny,3,4\n", "\n1,2\n,\n3,4\n\n"],
    ids=["end", "numbers", "names", "blank"],
)
def test_a_delimiter_at_the_end_row_names_and_blank_lines(tmp_path, rows):
    (curve,) = table_curves(read_fit_table(written(tmp_path, "dose,viability\n" + rows)), WANTED)
    assert (curve.doses, curve.responses) == ([1, 3], [2, 4])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        (",,\n", "no cells"),
        ("dose,viability\n", "no rows"),
        ("1,2\n3,4\n", "the first line is numbers"),
        ("dose,dose\n1,2\n", "stands twice"),
        ("dose,viability\n1,2\n1\n", "line 3: 1 cells where the header has 2"),
        ("dose,viability\n0,1,99\n0,2,98\n", "line 2: 3 cells"),
        ("dose,viability\n1,2\n\n1 cup,3\n", "line 4: '1 cup' in column 'dose' is not a number"),
        ("dose,viability\n1,<5\n", "at the limit"),
        ("dose,viability\n1,1_000\n", "'1_000'"),
        ("dose,viability\n1,infinity\n", "'infinity'"),
        ("dose,viability\nDMSO,5\n", '--control "DMSO"'),
        ('dose,viability\n"1,000",5\n', "could be 1000 or 1.000"),
        ("dose;viability\n0,5;5\n0.5;5\n", "two kinds of decimal sign"),
        ("dosis,viability\n1,2\n", "did you mean 'dosis'"),
        ('dose,viability\n1,"2\n', "line"),
        ("PK\x03\x04xx", "Excel"),
        ("a\x00b", "binary"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        table_curves(read_fit_table(path), WANTED)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)
    assert refused.value.do


@settings(deadline=None, max_examples=200)
@given(
    raw=st.one_of(st.binary(max_size=80), st.text("dose,viability;\t\"'\n\r10.eE-+µ\x00", max_size=60).map(str.encode))
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(raw)
    with suppress(ConfigError):
        assert table_curves(read_fit_table(path), WANTED)


@pytest.mark.parametrize(("name", "words"), [(".", "folder"), ("nothing.csv", "No such file")])
def test_a_path_that_is_no_table(tmp_path, name, words):
    done = spheroidd("fit", tmp_path / name, "--dose", "a", "--response", "b")
    assert done.exit_code == 2
    assert words in done.stderr


# Units of doses


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("dose_uM", "uM"),
        ("dose_um", "uM"),
        ("Dosis [µM]", "uM"),
        ("conc (nM)", "nM"),
        ("Concentration mol/L", "M"),
        ("dose ng/mL", "ng/mL"),
        ("dose_ng_per_ml", "ng/mL"),
        ("dose in pM", "pM"),
        ("Dose (Gy)", "Gy"),
        ("dose", None),
        ("medium", None),
        ("dose (day 3)", None),
    ],
)
def test_the_unit_of_the_doses_is_their_headers(tmp_path, header, unit):
    path = written(tmp_path, wells(";").replace("dose;", f"{header};", 1))
    (answer,) = fitted(path, "--dose", header, "--response", "viability", "--full-scale", "100")
    assert answer["dose_unit"] == unit
    assert answer["ic50_abs"] == pytest.approx(10, rel=0.1)
    assert (f" {unit}, 95 % limits" if unit else ", 95 % limits") in answer["reason"]
    assert ("uM" in answer["reason"]) == (unit == "uM")
    screen = spheroidd("fit", path, "--dose", header, "--response", "viability").stdout
    assert ("names no unit" in " ".join(screen.split())) == (unit is None)


@pytest.mark.parametrize(
    ("text", "unit", "doses"),
    [
        ("dose,viability\n0,9\n10 nM,8\n1 µM,7\n0.1uM,6\n", "nM", [0, 10, 1000, 100]),
        ("dose (uM),viability\n0,9\n10 nM,8\n1,7\n1e-6 M,6\n", "uM", [0, 0.01, 1, 1]),
        ("dose,dose_unit,viability\n0,,9\n10,ng/mL,8\n1,ug/mL,7\n2,mg/L,6\n", "ng/mL", [0, 10, 1000, 2000]),
        ("dose,unit,viability\n0,,9\n10,nM,8\n1,uM,7\n", "nM", [0, 10, 1000]),
        ("dose,Conc. units,viability\n0,,9\n10,nM,8\n1,uM,7\n", "nM", [0, 10, 1000]),
        ("dose,unit,viability\n0,RLU,9\n10,RLU,8\n1,RLU,7\n", None, [0, 10, 1]),
    ],
    ids=["in the cells", "cells and header", "a column", "called unit", "of the concentration", "of the response"],
)
def test_units_of_one_kind_are_converted(tmp_path, text, unit, doses):
    (curve,) = table_curves(read_fit_table(written(tmp_path, text)), TableColumns(text[: text.index(",")], "viability"))
    assert (curve.dose_unit, curve.doses) == (unit, doses)


@pytest.mark.parametrize(
    ("text", "option", "words"),
    [
        ("dose,viability\n10 nM,8\n1 ug/mL,7\n", None, "line 3.*ug/mL.*nM"),
        ("dose,viability\n10 nM,8\n1,7\n", None, "line 3.*has no unit"),
        ("dose,dose_unit,viability\n1,nM,8\n1,cups,7\n", None, "line 3.*'cups'"),
        ("dose,dose_unit,viability\n1 uM,nM,8\n", None, "line 2.*beside the unit nM"),
        ("dose_uM,unit,viability\n1,nM,8\n", None, "line 2.*'dose_uM' is in uM and column 'unit' says nM"),
        ("dose_uM,viability\n1,8\n", "nM", "in uM and --dose-unit says nM"),
        ("dose,viability\n1,8\n", "cups", "'cups' is no unit"),
        ("log10_dose,viability\n1,8\n", None, "logarithms"),
        ("LogConc,viability\n1,8\n", None, "logarithms"),
        ("log[M],viability\n-6,8\n", None, "logarithms"),
        ("ln dose,viability\n1,8\n", None, "logarithms"),
    ],
)
def test_units_that_contradict_each_other_and_logarithms_are_refused(tmp_path, text, option, words):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=words):
        table_curves(read_fit_table(path), TableColumns(text[: text.index(",")], "viability", dose_unit=option))


def test_the_unit_of_the_doses_by_an_option_or_the_column_it_names(tmp_path):
    path = written(tmp_path, "dose,u,viability\n1,nM,8\n1,uM,7\n")
    (by_column,) = table_curves(read_fit_table(path), TableColumns("dose", "viability", dose_unit="u"))
    (by_option,) = table_curves(read_fit_table(path), TableColumns("dose", "viability", dose_unit="µM"))
    assert (by_column.doses, by_column.dose_unit) == ([1, 1000], "nM")
    assert (by_option.doses, by_option.dose_unit) == ([1, 1], "uM")


def test_a_catalogue_is_no_logarithm(tmp_path):
    path = written(tmp_path, "catalog dose,viability\n1,8\n")
    assert table_curves(read_fit_table(path), TableColumns("catalog dose", "viability"))[0].doses == [1]


@pytest.mark.parametrize("doses", [("1,000", "3,000", "10,000"), ("1.000", "3.000", "10.000")])
def test_thousands_that_could_be_decimals_are_refused(tmp_path, doses):
    path = written(tmp_path, "dose;viability\n" + "".join(f"{dose};5\n" for dose in doses))
    with pytest.raises(ConfigError, match=r"could be 1000 or 1\.000"):
        table_curves(read_fit_table(path), WANTED)


def test_thousands_that_can_only_be_thousands_are_read(tmp_path):
    path = written(tmp_path, "dose;viability\n1,000,000;5\n3,000;6\n")
    assert table_curves(read_fit_table(path), WANTED)[0].doses == [1_000_000, 3000]


# Grouping


def test_a_curve_for_every_value_in_the_order_of_the_table(tmp_path):
    text = "dose,viability,cmp,patient\n1,1,b,p1\n1,2,a,p1\n1,3,b,p2\n2,4,b,p1\n"
    for by in (("cmp", "patient"), ("cmp,patient",)):
        curves = table_curves(read_fit_table(written(tmp_path, text)), TableColumns("dose", "viability", by))
        assert [(c.name, c.by, c.responses) for c in curves] == [
            ("b / p1", {"cmp": "b", "patient": "p1"}, [1, 4]),
            ("a / p1", {"cmp": "a", "patient": "p1"}, [2]),
            ("b / p2", {"cmp": "b", "patient": "p2"}, [3]),
        ]


def test_controls_belong_to_every_curve_of_their_patient(tmp_path):
    text = "dose,viability,cmp,patient\n1,1,a,p1\n2,2,b,p1\n1,3,a,p2\n,100,DMSO,p1\n5,90,dmso,p2\nuntreated,80,a,p1\n"
    wanted = TableColumns("dose", "viability", ("cmp", "patient"), controls=("dmso", "Untreated"))
    curves = table_curves(read_fit_table(written(tmp_path, text)), wanted)
    assert [(c.name, c.doses, c.responses) for c in curves] == [
        ("a / p1", [1, 0, 0], [1, 80, 100]),
        ("b / p1", [2, 0], [2, 100]),
        ("a / p2", [1, 0], [3, 90]),
    ]


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (("vehicle",), "'vehicle'"),
        (("2",), "not 0.*full-scale 2"),
        (("100",), "full-scale 100"),
        (("a", "b"), "all rows are controls"),
    ],
)
def test_controls_that_are_not_there(tmp_path, controls, words):
    path = written(tmp_path, "dose,viability,cmp\n1,1,a\n2,2,b\n")
    with pytest.raises(ConfigError, match=words):
        table_curves(read_fit_table(path), TableColumns("dose", "viability", ("cmp",), controls=controls))


# The command


def test_one_object_for_every_curve(tmp_path):
    rows = [f"{d},{r},live\n" for d, r in zip(DOSES, RESPONSES, strict=True)]
    rows += [f"{d},{100 + (-1) ** i},flat\n" for i, d in enumerate(DOSES)]
    path = written(tmp_path, "dose,viability,cmp\n" + "".join(rows))
    answers = fitted(path, "--dose", "dose", "--response", "viability", "--by", "cmp")
    assert [(a["name"], a["status"]) for a in answers] == [("live", "ok"), ("flat", "inactive")]
    assert all(set(FIELDS) <= set(answer) for answer in answers)
    live, flat = answers
    assert live["ic50_abs_lo"] < 10 < live["ic50_abs_hi"]
    assert [flat[name] for name in FIELDS if name.startswith("ic50")] == [None] * 6
    assert (flat["n"], flat["hill"]) == (11, None)


def test_people_see_status_and_reason(tmp_path):
    done = spheroidd("fit", written(tmp_path, wells()), "--dose", "dose", "--response", "viability")
    assert done.exit_code == 0
    assert "table" in done.stdout
    assert "95 % limits" in done.stdout


def test_names_are_text_not_markup(tmp_path):
    path = written(tmp_path, "dose,viability,cmp\n1,2,[bold]x[/]\n")
    done = spheroidd("fit", path, "--dose", "dose", "--response", "viability", "--by", "cmp")
    assert "[bold]x[/]" in done.stdout
    assert "failed" in done.stdout


def test_counts_of_affected_with_their_totals(tmp_path):
    path = written(tmp_path, "dose,n,dead\n0,20,0\n1,20,2\n2,20,7\n4,20,15\n8,20,19\n")
    arguments = ("--dose", "dose", "--response", "dead", "--total", "n")
    (answer,) = fitted(path, *arguments, "--increasing")
    assert (answer["status"], answer["model"]) == ("ok", "LL.2")
    assert "rises" in fitted(path, *arguments)[0]["reason"]
    assert fitted(path, *arguments, "--increasing", "--model", "LL.4")[0]["model"] == "LL.4"
    refused = spheroidd("fit", path, *arguments, "--increasing", "--model", "LL.5")
    assert (refused.exit_code, "LL.2, LL.3, LL.4" in refused.stderr) == (2, True)
    shares = written(tmp_path, "dose,n,dead\n0,20,0\n1,20,2.5\n2,20,7\n4,20,15\n")
    refused = spheroidd("fit", shares, *arguments)
    assert (refused.exit_code, "2.5 of 20 affected" in refused.stderr) == (2, True)
    refused = spheroidd("fit", path, *arguments, "--increasing", "--robust")
    assert (refused.exit_code, "--robust" in refused.stderr) == (2, True)


def test_counts_at_time_zero_make_growth_rates(tmp_path):
    rows = [f"{d},{100 * 4 ** np.log2(r / 100 + 1):.1f},100\n" for d, r in zip(DOSES, RESPONSES, strict=True)]
    path = written(tmp_path, "dose,cells,start\n" + "".join(rows))
    (answer,) = fitted(path, "--dose", "dose", "--response", "cells", "--time-zero", "start")
    assert answer["top"] == 1.0
    assert answer["ic50_abs"] == pytest.approx(10, rel=0.1)


def test_options_reach_the_fit(tmp_path):
    path = written(tmp_path, wells())
    arguments = ("--dose", "dose", "--response", "viability")
    assert fitted(path, *arguments, "--model", "LL.3")[0]["bottom"] == 0.0
    assert fitted(path, *arguments, "--full-scale", "150")[0]["ic50_abs"] < 5
    assert fitted(path, *arguments, "--increasing")[0]["status"] == "inactive"
    assert "LL.7" in spheroidd("fit", path, *arguments, "--model", "LL.7").stderr


def test_a_mistake_of_a_dose_names_table_and_curve(tmp_path):
    done = spheroidd("fit", written(tmp_path, "dose,viability\n-3,2\n"), "--dose", "dose", "--response", "viability")
    assert done.exit_code == 2
    assert "table.csv" in done.stderr
    assert "logarithms" in done.stderr


# Slips


FALLING = {0.0025: 101, 0.008: 97, 0.025: 94, 0.08: 80, 0.25: 52, 0.8: 24, 2.53: 9, 8.0: 4}


def of_responses(shown, names=lambda at: "X", times: int = 1) -> str:
    """A table of the falling curve; `shown` turns each percent into what is written."""
    rows = [f"{names(at)},{dose},{shown(v)}" for at, (dose, v) in enumerate(FALLING.items())] * times
    return "\n".join(["drug,dose_um,v", *rows, ""])


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        (of_responses(lambda v: v / 100), ("--full-scale", "100"), "of shares it is --full-scale 1"),
        (of_responses(float, times=2), (), "every observation stands twice"),
        (
            of_responses(float, lambda at: "Dox" if at % 2 else "dox ", times=2),
            (),
            "'dox' and 'Dox' differ only in case",
        ),
    ],
    ids=["shares beside a full scale of 100", "rows pasted twice", "two spellings"],
)
def test_what_looks_like_a_slip_is_said_beside_the_fit(tmp_path, table, options, said):
    answers = fitted(
        written(tmp_path, table),
        "--dose",
        "dose_um",
        "--response",
        "v",
        "--by",
        "drug",
        "--full-scale",
        "100",
        *options,
    )
    assert all(said in "; ".join(one["warnings"]) for one in answers)


def test_replicates_that_happen_to_agree_are_no_slip(tmp_path):
    rows = "\n".join(f"{d},{r}" for d, r in zip(DOSES, RESPONSES, strict=True))
    path = written(tmp_path, f"dose,viability\n{rows}\n0,101\n")
    (answer,) = fitted(path, "--dose", "dose", "--response", "viability", "--full-scale", "100")
    assert answer["warnings"] == []


def test_a_full_scale_that_cannot_be_the_responses_is_refused(tmp_path):
    path = written(tmp_path, of_responses(float))
    refused = spheroidd("fit", path, "--dose", "dose_um", "--response", "v", "--full-scale", "1")
    assert (refused.exit_code, "more than 20 times the full scale of 1" in refused.stderr) == (2, True)


@pytest.mark.parametrize(("shown", "option"), [(lambda v: 100 - v, ()), (float, ("--increasing",))])
@pytest.mark.parametrize("scale", [(), ("--full-scale", "100")], ids=["", "full scale"])
def test_a_response_that_goes_the_other_way_is_told_and_has_no_ic50(tmp_path, shown, option, scale):
    path = written(tmp_path, of_responses(shown))
    (answer,) = fitted(path, "--dose", "dose_um", "--response", "v", *scale, *option)
    assert (answer["status"], answer["ic50_rel"], answer["ic50_abs"]) == ("inactive", None, None)
    assert "with the dose; fit it" in answer["reason"]


def test_a_header_of_fifty_thousand_columns_is_judged_at_once(tmp_path):
    names = [f"c{i}" for i in range(50_000)]
    table = tmp_path / "wide.csv"
    table.write_text(";".join(names) + "\n" + ";".join("1" * 50_000) + "\n")
    assert read_fit_table(table).columns == tuple(names)
    table.write_text(";".join([*names, "c7"]) + "\n" + ";".join("1" * 50_001) + "\n")
    with pytest.raises(ConfigError, match="'c7' stands twice"):
        read_fit_table(table)


def test_a_line_that_is_longer_than_any_table_is_refused(tmp_path):
    table = tmp_path / "minified.csv"
    table.write_text('{"a": "' + "x" * 200_000 + '"}\n')
    with pytest.raises(ConfigError, match=r"not a table: field larger than field limit"):
        read_fit_table(table)
