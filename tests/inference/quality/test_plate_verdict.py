"""Plate quality: what is wrong with a plate is found and named, and nothing is made up where it cannot be known."""

import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.inference.quality.control_statistics import control_figures, robust_sd
from spheroidd.inference.quality.plate_verdict import QualityLimits, WellValue, judge_plate
from spheroidd.inference.quality.position_effects import edge_ratio, is_edge, plate_format, trend
from spheroidd.inference.quality.replicate_outliers import deviants, pair_spread
from spheroidd.protocols.plate import Treatment, WellRole
from spheroidd.protocols.quality import PlateQuality, Verdict
from spheroidd.protocols.well import WellId

NEGATIVE, POSITIVE, SAMPLE = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL, WellRole.SAMPLE
Wells = list[WellValue]


def healthy(seed: int = 0, patients: Sequence[str | None] = (None,), n: int = 8, spread: float = 0.05) -> Wells:
    """A 384-well plate, laid out at random: controls, and two compounds at five doses in triplicate, per patient."""
    draw = np.random.default_rng(seed)
    treatments = []
    for patient in patients:
        treatments += [Treatment(NEGATIVE, None, 0.0, patient)] * n + [Treatment(POSITIVE, None, None, patient)] * n
        for name, dose in itertools.product(("C01", "C02"), (0.5, 1.6, 5.0, 16.0, 50.0)):
            treatments += [Treatment(SAMPLE, name, dose, patient)] * 3
    places = draw.permutation(16 * 24)[: len(treatments)]
    return [
        WellValue(WellId(int(place) // 24, int(place) % 24), treatment, _level(treatment) * math.exp(spread * z), order)
        for order, (place, treatment, z) in enumerate(
            zip(places, treatments, draw.normal(size=len(treatments)), strict=True)
        )
    ]


def _level(treatment: Treatment) -> float:
    if treatment.role is not SAMPLE:
        return 100.0 if treatment.role is NEGATIVE else 4.0
    assert treatment.dose_um is not None
    return 100 / (1 + treatment.dose_um / 5)


def changed(wells: Wells, which: Callable[[WellValue], bool], value: Callable[[float], float | None]) -> Wells:
    return [replace(e, value=value(e.value)) if which(e) and e.value is not None else e for e in wells]


def of_role(wells: Wells, role: WellRole) -> Wells:
    return [entry for entry in wells if entry.treatment.role is role]


def judged(wells: Wells, **options: object) -> PlateQuality:
    return judge_plate("P1", "v_control", wells, **options)  # type: ignore[arg-type]


def codes(quality: PlateQuality, *verdicts: Verdict) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for flag in quality.flags:
        if flag.verdict in (verdicts or (Verdict.WARN, Verdict.FAIL)):
            found[flag.code] = found.get(flag.code, ()) + flag.wells
    return found


# The figures


def test_the_figures_are_the_published_formulas() -> None:
    untreated, killed = [90.0, 95.0, 100.0, 104.0, 110.0], [2.0, 3.0, 4.0, 4.5, 6.0]
    found = control_figures(untreated, killed)
    n_sd, p_sd = 1.4826 * 5.0, 1.4826 * 1.0
    assert found.z_prime == pytest.approx(1 - 3 * (n_sd + p_sd) / 96)
    assert found.ssmd == pytest.approx(96 / math.hypot(n_sd, p_sd))
    assert found.signal_window == pytest.approx((96 - 3 * (n_sd + p_sd)) / n_sd)
    assert found.control_cv == pytest.approx(100 * statistics.stdev(untreated) / statistics.mean(untreated))
    assert (found.negative_median, found.positive_median) == (100, 4)


def test_a_pass_says_what_speaks_for_it() -> None:
    quality = judged(healthy())
    assert quality.verdict is Verdict.PASS
    assert quality.z_prime is not None
    assert quality.z_prime > 0.6
    assert (quality.n_negative, quality.n_positive) == (8, 8)
    assert "Z'" in quality.reasons[0]
    assert "CV" in quality.reasons[0]


@pytest.mark.parametrize(("spread", "verdict"), [(4.0, Verdict.PASS), (6.5, Verdict.WARN), (8.0, Verdict.FAIL)])
def test_z_prime_has_its_three_bands(spread: float, verdict: Verdict) -> None:
    """Half of the controls lie this far from their median, so 1.4826 of it is their robust spread."""
    wells = healthy(3, n=8, spread=0.0)
    offsets = {
        entry.well: spread * offset
        for role in (NEGATIVE, POSITIVE)
        for entry, offset in zip(of_role(wells, role), (-1, 1, -1, 1, -1, 1, 0, 0), strict=True)
    }
    wells = [replace(entry, value=(entry.value or 0) + offsets.get(entry.well, 0.0)) for entry in wells]
    quality = judged(wells, limits=QualityLimits(control_cv=100, control_cv_fail=100))
    assert quality.z_prime == pytest.approx(1 - 6 * 1.4826 * spread / 96)
    assert quality.verdict is verdict
    assert (verdict is Verdict.PASS) == ("z-prime" not in codes(quality))


# What is wrong is found and named


def test_a_bad_control_an_edge_effect_and_an_outlier_are_found_and_named() -> None:
    wells = healthy(1, n=16, spread=0.03)
    plate = plate_format(entry.well for entry in wells)
    wells = changed(wells, lambda e: is_edge(e.well, plate) and e.treatment.role is NEGATIVE, lambda v: 0.75 * v)
    inner = next(e for e in of_role(wells, NEGATIVE) if not is_edge(e.well, plate))
    odd = next(e for e in of_role(wells, SAMPLE) if e.treatment.dose_um == 1.6)
    wells = changed(wells, lambda e: e.well == inner.well, lambda v: 20.0)
    wells = changed(wells, lambda e: e.well == odd.well, lambda v: 20.0)
    quality = judged(wells)
    assert quality.verdict is Verdict.WARN
    found = codes(quality)
    assert found["bad-control"] == (str(inner.well),)
    assert found["outlier"] == (str(odd.well),)
    assert "edge-effect" in found
    assert quality.edge_ratio == pytest.approx(0.75, abs=0.05)
    flag = next(flag for flag in quality.flags if flag.code == "bad-control")
    assert str(inner.well) in flag.what
    assert flag.do
    assert any("edge" in reason for reason in quality.reasons)
    assert flag.what in quality.reasons


@pytest.mark.parametrize(
    ("code", "position"),
    [
        ("acquisition-drift", lambda e: (e.order or 0) / 45),
        ("row-gradient", lambda e: e.well.row / 15),
        ("column-gradient", lambda e: e.well.column / 23),
    ],
)
def test_a_gradient_is_told_from_treatment(code: str, position: Callable[[WellValue], float]) -> None:
    wells = healthy(2, n=16)
    random.Random(0).shuffle(wells)
    wells = [replace(entry, order=order) for order, entry in enumerate(wells)]
    last = len(wells) - 1
    scale = last / 45 if code == "acquisition-drift" else 1.0
    tilted = [replace(e, value=(e.value or 0) * (1 - 0.4 * position(e) / scale)) for e in wells]
    assert codes(judged(tilted)).keys() & {"acquisition-drift", "row-gradient", "column-gradient"} == {code}
    assert not codes(judged(wells))


def test_doses_along_a_row_are_no_gradient() -> None:
    """A tidy layout: every column holds one dose, so position and dose cannot be told apart, and are not."""
    wells = [
        WellValue(WellId(row, column), Treatment(SAMPLE, f"C{row}", 2.0**column), 100 / (1 + 2.0**column / 8), 0)
        for row in range(8)
        for column in range(12)
    ]
    assert not {"row-gradient", "column-gradient", "acquisition-drift"} & codes(judged(wells)).keys()


def test_two_replicates_that_differ_are_both_named() -> None:
    wells = healthy(4)
    gone = {e.well for e in of_role(wells, SAMPLE) if e.well in {w[0].well for w in _triples(wells)}}
    pairs = [entry for entry in wells if entry.well not in gone]
    one, other = _triples(wells)[3][1:]
    pairs = changed(pairs, lambda e: e.well == one.well, lambda v: v + 60)
    found = codes(judged(pairs))
    assert set(found["replicates-differ"]) == {str(one.well), str(other.well)}


def _triples(wells: Wells) -> list[Wells]:
    groups: dict[Treatment, Wells] = {}
    for entry in of_role(wells, SAMPLE):
        groups.setdefault(entry.treatment, []).append(entry)
    return list(groups.values())


def test_three_points_close_together_make_no_outlier_of_one_not_quite_as_close() -> None:
    """50, 51, 60 has z = 6 by its own MAD; beside what replicates of this plate do it is nothing."""
    draw = np.random.default_rng(5)
    groups = [{f"{g}{i}": 50 + 5 * z for i, z in enumerate(draw.normal(size=3))} for g in range(10)]
    groups.append({"x": 50.0, "y": 51.0, "z": 60.0})
    assert deviants(groups, 1.0) == []
    groups[-1]["z"] = 100.0
    assert [one.well for one in deviants(groups, 1.0) or ()] == ["z"]


def test_healthy_replicates_are_rarely_flagged() -> None:
    flagged = wells = 0
    for seed in range(40):
        plate = healthy(seed, spread=0.1)
        wells += len(plate)
        found = codes(judged(plate))
        flagged += sum(len(found.get(code, ())) for code in ("outlier", "bad-control", "replicates-differ"))
    assert flagged / wells < 0.01


def test_pairs_spread_as_the_standard_deviation_does() -> None:
    draw = np.random.default_rng(0)
    assert pair_spread(draw.normal(0, 7, (4000, 3)).tolist()) == pytest.approx(7, rel=0.1)
    assert pair_spread(draw.normal(0, 7, (4000, 2)).tolist()) == pytest.approx(7, rel=0.1)
    assert pair_spread([[1.0], []]) == 0


def test_many_flags_on_wells_put_the_plate_in_doubt() -> None:
    wells = healthy(6)
    quality = judged(wells)
    flags = tuple(replace(_some_flag(), wells=(str(entry.well),)) for entry in wells[:10])
    doubted = judge_plate("P1", "v_control", wells, stack_flags=flags)
    assert quality.verdict is Verdict.PASS
    assert doubted.verdict is Verdict.WARN
    assert len(codes(doubted)["many-flagged-wells"]) == 10
    assert set(flags) <= set(doubted.flags)


def test_wells_whose_images_fail_are_said_of_the_plate() -> None:
    """An empty field reads as dead: a plate that has one does not pass in silence."""
    wells = healthy(6)
    lost = str(of_role(wells, SAMPLE)[0].well)
    flag = replace(_some_flag(), code="empty-field", verdict=Verdict.FAIL, wells=(lost,))
    quality = judge_plate("P1", "v_control", wells, stack_flags=(flag,))
    assert quality.verdict is Verdict.WARN
    assert codes(quality)["lost-wells"] == (lost,)
    left_out = judge_plate("P1", "v_control", wells, stack_flags=(flag,), excluded=frozenset({lost}))
    assert left_out.verdict is Verdict.PASS
    assert flag in left_out.flags


def _some_flag():  # type: ignore[no-untyped-def]
    from spheroidd.protocols.quality import QualityFlag

    return QualityFlag("out-of-focus", Verdict.WARN, ("A01",), "blurred", "image it again")


# Wells that are missing, excluded or of several patients


def test_excluded_wells_stay_visible_and_enter_no_figure() -> None:
    wells = healthy(7)
    bad = of_role(wells, NEGATIVE)[0].well
    spoilt = changed(wells, lambda e: e.well == bad, lambda v: 5.0)
    without = [entry for entry in wells if entry.well != bad]
    quality = judged(spoilt, excluded=frozenset({str(bad)}))
    assert quality.n_negative == 7
    assert quality.z_prime == judged(without).z_prime
    assert [flag.wells for flag in quality.flags if flag.code == "excluded"] == [(str(bad),)]
    assert judged(spoilt).control_cv > 20  # type: ignore[operator]


def test_a_control_without_a_value_is_named_with_its_reason() -> None:
    wells = healthy(8)
    lost = of_role(wells, POSITIVE)[0]
    wells = [replace(e, value=None, reason="187 of 200 slices came") if e is lost else e for e in wells]
    flag = next(flag for flag in judged(wells).flags if flag.code == "control-lost")
    assert flag.wells == (str(lost.well),)
    assert "187 of 200" in flag.what


def test_a_control_that_is_still_to_be_scored_is_not_lost() -> None:
    wells = healthy(8)
    waiting = of_role(wells, POSITIVE)[0]
    wells = [replace(e, value=None, reason="waits for the model", pending=True) if e is waiting else e for e in wells]
    assert "control-lost" not in {flag.code for flag in judged(wells).flags}


def test_each_patient_is_judged_by_its_own_controls() -> None:
    """One patient shines twice as bright: pooled controls would spread and fail, each alone is fine."""
    wells = healthy(9, ("P01", "P02"))
    wells = changed(wells, lambda e: e.treatment.patient == "P02", lambda v: 2 * v)
    quality = judged(wells)
    assert quality.control_cv is not None
    assert quality.control_cv < 10
    assert quality.z_prime is not None
    assert quality.z_prime > 0.6
    assert {flag.what.split(":")[0] for flag in quality.flags if flag.code == "patient-level"} == {
        "patient P01",
        "patient P02",
    }


def test_the_plate_is_as_good_as_its_worst_patient() -> None:
    wells = healthy(10, ("P01", "P02"))
    wells = changed(wells, lambda e: e.treatment.patient == "P02" and e.treatment.role is POSITIVE, lambda v: 75.0)
    quality = judged(wells)
    assert quality.verdict is Verdict.FAIL
    assert quality.positive_median == 75
    assert any(reason.startswith("patient P02") for reason in quality.reasons)
    assert not any(reason.startswith("patient P01") for reason in quality.reasons)


def test_a_patient_without_controls_of_its_own_is_said() -> None:
    wells = healthy(11, ("P01", "P02", "P03"))
    wells = [e for e in wells if not (e.treatment.patient == "P03" and e.treatment.role is not SAMPLE)]
    quality = judged(wells)
    names = {str(entry.well) for entry in wells if entry.treatment.patient == "P03"}
    assert set(codes(quality)["patient-without-controls"]) == names


# What cannot be known is not made up


@pytest.mark.parametrize(("n_negative", "n_positive"), [(0, 0), (1, 0), (0, 8), (1, 8), (2, 2), (8, 2)])
def test_too_few_controls_are_unknown_with_a_reason(n_negative: int, n_positive: int) -> None:
    wells = healthy(12)
    kept = of_role(wells, NEGATIVE)[:n_negative] + of_role(wells, POSITIVE)[:n_positive] + of_role(wells, SAMPLE)
    quality = judged(kept)
    assert quality.verdict is Verdict.UNKNOWN
    assert (quality.z_prime, quality.ssmd, quality.signal_window) == (None, None, None)
    assert f"{n_negative} untreated and {n_positive} killed" in quality.reasons[0]


def test_few_controls_warn_because_their_z_prime_is_uncertain() -> None:
    wells = healthy(13, spread=0.02)
    kept = of_role(wells, NEGATIVE)[:4] + of_role(wells, POSITIVE)[:4] + of_role(wells, SAMPLE)
    quality = judged(kept)
    assert quality.z_prime is not None
    assert quality.verdict is Verdict.WARN
    assert "few-controls" in codes(quality)


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_a_plate_of_one_value_fails(value: float) -> None:
    quality = judged([replace(entry, value=value) for entry in healthy(14)])
    assert quality.verdict is Verdict.FAIL
    assert quality.z_prime is None
    assert {"controls-not-separated", "constant-controls"} <= codes(quality).keys()


def test_killed_controls_above_untreated_ones_fail() -> None:
    swapped = [
        replace(e, value=4.0 if e.treatment.role is NEGATIVE else 100.0) if e.treatment.role is not SAMPLE else e
        for e in healthy(15)
    ]
    quality = judged(swapped)
    assert quality.verdict is Verdict.FAIL
    assert "controls-not-separated" in codes(quality)


def test_controls_that_do_not_spread_at_all_part_perfectly() -> None:
    found = control_figures([100.0] * 4, [0.0] * 4)
    assert found.z_prime == 1
    assert (found.ssmd, found.signal_window, found.control_cv) == (None, None, 0)


def test_an_edge_that_chance_explains_is_no_effect() -> None:
    plate = (8, 12)
    edge = {WellId(0, 1): 0.7, WellId(0, 2): 1.0}
    inner = {WellId(3, 3): 1.3, WellId(3, 4): 0.8}
    found = edge_ratio(edge | inner, plate)
    assert found is not None
    assert not found.beyond_chance
    assert edge_ratio({WellId(0, 1): 0.7} | inner, plate) is None
    steady = edge_ratio({WellId(0, 1): 0.7, WellId(0, 2): 0.71, WellId(3, 3): 1.0, WellId(3, 4): 1.01}, plate)
    assert steady is not None
    assert steady.beyond_chance


@pytest.mark.parametrize(
    ("last", "plate"), [("H12", (8, 12)), ("A13", (16, 24)), ("P24", (16, 24)), ("AF48", (32, 48))]
)
def test_the_plate_is_the_smallest_that_holds_its_wells(last: str, plate: tuple[int, int]) -> None:
    assert plate_format([WellId(0, 0), WellId.parse(last)]) == plate
    assert plate_format([]) == (8, 12)


def test_a_trend_needs_pairs_of_wells_treated_alike() -> None:
    assert trend([]) is None
    assert trend([[(0.0, 1.0)], [(1.0, 2.0)]]) is None
    assert trend([[(3.0, 1.0)] * 8]) is None
    rising = trend([[(float(x), 1 + 0.01 * x) for x in range(10)]])
    assert rising is not None
    assert rising.change == pytest.approx(0.09)
    assert rising.z > 3


# Anything at all

numbers = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([0.0, -0.0, 100.0, 1e-300, 1e300, math.nan, math.inf, -math.inf]),
    st.floats(0, 200),
)
treatments = st.sampled_from(
    [
        Treatment(NEGATIVE),
        Treatment(NEGATIVE, None, 0.0, "P01"),
        Treatment(POSITIVE),
        Treatment(POSITIVE, None, None, "P01"),
        Treatment(SAMPLE),
        Treatment(SAMPLE, "C01", 1.0, "P01"),
        Treatment(SAMPLE, "C01", 0.0, "P02"),
        Treatment(WellRole.EMPTY),
    ]
)


@st.composite
def wild_plates(draw: st.DrawFn) -> Wells:
    places = draw(st.sets(st.tuples(st.integers(0, 15), st.integers(0, 23)), max_size=24))
    one = draw(numbers)
    values = st.just(one) if draw(st.booleans()) else numbers
    orders = st.none() | st.integers(0, 400)
    return [WellValue(WellId(*place), draw(treatments), draw(values), draw(orders)) for place in places]


@settings(deadline=None, max_examples=300)
@given(wells=wild_plates(), excluded=st.sets(st.sampled_from(["A01", "B02", "P24"])), data=st.data())
def test_any_plate_has_a_verdict_with_reasons_and_no_figure_that_is_not_a_number(
    wells: Wells, excluded: set[str], data: st.DataObject
) -> None:
    """And the order in which wells are given does not matter."""
    quality = judged(wells, excluded=frozenset(excluded))
    figures = [quality.negative_median, quality.positive_median, quality.z_prime, quality.ssmd, quality.signal_window]
    figures += [quality.control_cv, quality.edge_ratio]
    assert all(figure is None or math.isfinite(figure) for figure in figures)
    assert quality.z_prime is None or quality.z_prime <= 1
    assert quality.verdict is Verdict.PASS or quality.reasons
    if quality.z_prime is None:
        assert quality.verdict in (Verdict.UNKNOWN, Verdict.FAIL)
    known_wells = {str(entry.well) for entry in wells}
    assert all(set(flag.wells) <= known_wells and flag.what and flag.do for flag in quality.flags)
    assert judged(data.draw(st.permutations(wells)), excluded=frozenset(excluded)) == quality


@settings(deadline=None)
@given(
    values=st.lists(st.floats(1, 200), min_size=3, max_size=12), factor=st.floats(0.1, 10), killed=st.floats(0.0, 0.9)
)
def test_the_figures_do_not_depend_on_the_unit(values: list[float], factor: float, killed: float) -> None:
    """Percent or fraction, or another median of the controls after one was excluded: the same verdict."""
    dead = [killed * value for value in values]
    one, other = (
        control_figures(values, dead),
        control_figures([factor * v for v in values], [factor * v for v in dead]),
    )
    for name in ("z_prime", "ssmd", "signal_window", "control_cv"):
        first, second = getattr(one, name), getattr(other, name)
        if first is not None and second is not None and robust_sd(values) > 1e-6:
            assert second == pytest.approx(first, rel=1e-6, abs=1e-6)
