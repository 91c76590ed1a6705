"""IC50s across plates and patients: what each kind of curve contributes, and what is said of compounds."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.inference.dose_response.across_patients import between_plate_sd, compare, holm, pool, rank
from spheroidd.inference.dose_response.fit import fit_curve
from spheroidd.inference.dose_response.patient_curve import EDGE_SD, PatientCurve, evidence_of
from spheroidd.protocols.dose import CurveStatus, DoseResponseFit
from spheroidd.protocols.errors import ConfigError

DOSES = tuple(100 / 10 ** (k / 2) for k in reversed(range(8)))
INF = math.inf


def fit(ic50_um: float | None = None, sd: float = 0.1, status: str = "ok", **changed: Any) -> DoseResponseFit:
    """A fit of `ic50_um` known to `sd` (log10) on either side."""
    fold = 10 ** (1.959964 * sd)
    lo, hi = (None, None) if ic50_um is None else (ic50_um / fold, ic50_um * fold)
    told = {f"ic50_{kind}{end}": v for kind in ("rel", "abs") for end, v in (("", ic50_um), ("_lo", lo), ("_hi", hi))}
    given: dict[str, Any] = {
        "name": "x", "status": CurveStatus(status), "reason": "", "model": "LL.4", "hill": 1.0, "top": 100.0,
        "bottom": 5.0, "auc": None, "e_max": 6.0, "n": 30, "p_effect": 1e-9, "parameters": {},
    }  # fmt: skip
    return DoseResponseFit(**(given | told | changed))


def curve(
    ic50_um: float | None = None, patient: str = "P1", compound: str = "C", plate: str = "A", **of_fit: Any
) -> PatientCurve:
    return PatientCurve(compound, patient, plate, DOSES[0], DOSES[-1], fit(ic50_um, **of_fit))


def drawn(b: float, c: float, e: float, noise: float = 4.0, seed: int = 0) -> PatientCurve:
    """A real fit of simulated wells."""
    doses = np.repeat([0.0, *DOSES], 3)
    safe = np.maximum(doses, 1e-12)
    responses = c + (100 - c) / (1 + (safe / e) ** b) + np.random.default_rng(seed).normal(0, noise, len(doses))
    return PatientCurve("C", "P1", "A", DOSES[0], DOSES[-1], fit_curve(doses, responses, control=100))


class TestEvidence:
    def test_a_number_comes_with_its_limits(self) -> None:
        found = evidence_of(curve(10.0, sd=0.2))
        assert found is not None
        assert (found.at, found.sd_below, found.sd_above) == pytest.approx((1.0, 0.2, 0.2))

    def test_an_open_limit_is_a_flat_side(self) -> None:
        found = evidence_of(curve(10.0, ic50_rel_hi=None))
        assert found is not None
        assert found.sd_above == INF

    @pytest.mark.parametrize(
        ("status", "at", "flat"),
        [("all_dead", DOSES[0], "below"), ("censored_high", DOSES[-1], "above"), ("inactive", DOSES[-1], "above")],
    )
    def test_a_censored_curve_ends_at_its_outermost_dose(self, status: str, at: float, flat: str) -> None:
        found = evidence_of(curve(status=status, p_effect=0.9))
        assert found is not None
        assert found.at == pytest.approx(math.log10(at))
        assert (found.sd_below, found.sd_above) == ((INF, EDGE_SD) if flat == "below" else (EDGE_SD, INF))

    def test_a_failed_curve_and_an_effect_without_a_place_say_nothing(self) -> None:
        assert evidence_of(curve(status="failed")) is None
        assert evidence_of(curve(status="inactive", p_effect=1e-4, e_max=40.0)) is None

    @pytest.mark.parametrize(
        ("b", "c", "e", "sides"),
        [
            (1.2, 5.0, 3.0, (True, True)),
            (1.2, 5.0, 900.0, (True, False)),
            (2.0, 5.0, 0.012, (False, True)),
            (1.0, 0.0, 60.0, None),
        ],
    )
    @pytest.mark.parametrize("which", ["rel", "abs"])
    def test_what_a_real_fit_says_never_contradicts_the_truth(
        self, b: float, c: float, e: float, sides: tuple[bool, bool] | None, which: Any
    ) -> None:
        for seed in range(5):
            found = evidence_of(drawn(b, c, e, seed=seed), which)
            if found is None:
                continue
            sd = found.sd_below if math.log10(e) < found.at else found.sd_above
            assert abs(math.log10(e) - found.at) < 4 * sd + 0.12
            if sides is not None:
                assert (math.isfinite(found.sd_below), math.isfinite(found.sd_above)) == sides

    def test_a_partial_effect_has_its_absolute_ic50_above_the_doses(self) -> None:
        found = evidence_of(drawn(2.0, 60.0, 1.0, noise=2.0), "abs")
        assert found is not None
        assert (found.at, found.sd_above) == (pytest.approx(2.0), INF)

    @pytest.mark.parametrize("doses", [(0.0, 1.0), (1.0, 0.5), (1.0, INF), (math.nan, 1.0)])
    def test_doses_that_cannot_be(self, doses: tuple[float, float]) -> None:
        with pytest.raises(ConfigError, match=r"C, P1, plate A: doses reach"):
            PatientCurve("C", "P1", "A", *doses, fit(1.0))


class TestPool:
    def test_a_compound_is_the_geometric_mean_of_its_patients(self) -> None:
        (found,) = pool([curve(value, f"P{n}", sd=0.01) for n, value in enumerate((1.0, 4.0, 16.0))])
        assert found.ic50_um == pytest.approx(4.0, rel=1e-3)
        assert found.between_patient_sd == pytest.approx(math.log10(4), rel=0.01)
        assert found.lo_um is not None
        assert found.new_patient_lo_um is not None
        assert found.new_patient_lo_um < found.lo_um < 1.0
        assert (found.n_patients, found.n_curves, found.status) == (3, 3, CurveStatus.APPROXIMATE)

    def test_patients_who_agree_have_a_narrow_interval_and_say_ok(self) -> None:
        (found,) = pool([curve(value, f"P{n}") for n, value in enumerate((3.0, 3.3, 2.8, 3.1))])
        assert found.status is CurveStatus.OK
        assert found.hi_um is not None
        assert found.hi_um < 6

    def test_resistant_patients_are_not_dropped(self) -> None:
        answering = [curve(value, f"P{n}") for n, value in enumerate((1.0, 2.0, 1.5))]
        resistant = curve(None, "P9", status="censored_high")
        (without,), (with_them,) = pool(answering), pool([*answering, resistant])
        assert with_them.ic50_um is not None
        assert without.ic50_um is not None
        assert with_them.ic50_um > 2 * without.ic50_um
        assert (with_them.n_patients, with_them.n_censored) == (4, 1)
        assert "1 censored_high" in with_them.reason

    def test_failed_curves_are_left_out_and_named(self) -> None:
        (found,) = pool([curve(1.0, "P1"), curve(2.0, "P2"), curve(None, "P3", status="failed")])
        assert (found.n_patients, found.n_failed, found.n_curves) == (2, 1, 3)
        assert "1 without information" in found.reason
        assert found.patients[2].ic50_um is None

    @pytest.mark.parametrize(
        ("statuses", "said"),
        [
            (["censored_high", "inactive"], CurveStatus.CENSORED_HIGH),
            (["inactive", "inactive"], CurveStatus.INACTIVE),
            (["all_dead", "censored_low"], CurveStatus.CENSORED_LOW),
            (["failed", "failed"], CurveStatus.FAILED),
            (["censored_high", "all_dead"], CurveStatus.FAILED),
        ],
    )
    def test_without_a_number_the_status_says_why(self, statuses: list[str], said: CurveStatus) -> None:
        (found,) = pool([curve(None, f"P{n}", status=s, p_effect=0.9) for n, s in enumerate(statuses)])
        assert (found.status, found.ic50_um, found.lo_um, found.hi_um) == (said, None, None, None)

    def test_one_number_among_censored_patients_is_no_mean(self) -> None:
        many = [curve(None, f"P{n}", status="censored_high") for n in range(3)]
        (found,) = pool([*many, curve(3.0, "P9")])
        assert (found.status, found.ic50_um) == (CurveStatus.CENSORED_HIGH, None)
        assert "too few patients have a number" in found.reason

    def test_a_mean_beyond_the_doses_is_no_number(self) -> None:
        """Two patients of eight answer at the highest doses; the other six do not answer at all."""
        resistant = [curve(None, f"P{n}", status="censored_high") for n in range(6)]
        (found,) = pool([*resistant, curve(60.0, "P8"), curve(90.0, "P9")])
        assert (found.status, found.ic50_um, found.hi_um) == (CurveStatus.CENSORED_HIGH, None, None)
        assert found.lo_um is not None
        assert "above the doses; too few patients have a number, or most are censored" in found.reason

    def test_plates_of_one_patient_count_once(self) -> None:
        plates = [curve(value, f"P{n}", plate=plate) for n, value in enumerate((1.0, 4.0, 9.0)) for plate in "AB"]
        (found,) = pool(plates)
        assert (found.n_patients, found.n_curves) == (3, 6)
        assert found.patients[0].plates == ("A", "B")
        assert found.patients[0].hi_um == pytest.approx(10 ** (1.959964 * 0.1 / math.sqrt(2)), rel=1e-3)

    def test_compounds_keep_their_order_and_do_not_mix(self) -> None:
        found = pool([curve(1.0, compound="Z"), curve(5.0, compound="A")])
        assert [(one.compound, one.ic50_um) for one in found] == [("Z", pytest.approx(1.0)), ("A", pytest.approx(5.0))]

    def test_nothing_gives_nothing(self) -> None:
        assert pool([]) == ()


class TestPlates:
    def test_one_plate_a_patient_cannot_tell(self) -> None:
        assert between_plate_sd([curve(1.0, "P1"), curve(2.0, "P2")]) is None

    def test_the_spread_beyond_the_curves_own_errors(self) -> None:
        rng = np.random.default_rng(1)
        curves = [
            curve(10 ** rng.normal(n % 3, math.hypot(0.2, 0.1)), f"P{n}", plate=plate)
            for n in range(200)
            for plate in "AB"
        ]
        assert between_plate_sd(curves) == pytest.approx(0.2, rel=0.15)

    def test_a_plate_sd_widens_what_is_said(self) -> None:
        curves = [curve(value, f"P{n}") for n, value in enumerate((3.0, 3.1, 2.9))]
        (narrow,), (wide,) = pool(curves), pool(curves, plate_sd=0.3)
        assert narrow.hi_um is not None
        assert wide.hi_um is not None
        assert wide.hi_um > 1.5 * narrow.hi_um


class TestCompare:
    def test_what_makes_a_patient_tough_drops_out(self) -> None:
        """Patients differ a hundredfold, and yet the one compound is three times as potent in each."""
        curves = []
        for n, level in enumerate((0.3, 3.0, 30.0)):
            curves += [curve(level, f"P{n}", "C1", sd=0.02), curve(3 * level, f"P{n}", "C2", sd=0.02)]
        (found,) = compare(curves, [("C2", "C1")])
        assert found.fold == pytest.approx(3, rel=1e-3)
        assert found.lo is not None
        assert found.lo > 2
        assert found.p is not None
        assert found.p < 0.01
        (turned,) = compare(curves, [("C1", "C2")])
        assert turned.fold == pytest.approx(1 / 3, rel=1e-3)
        assert turned.p == pytest.approx(found.p, rel=0.05)

    def test_a_plates_shift_drops_out_where_both_stand_on_it(self) -> None:
        curves = []
        for n in range(3):
            for plate, shift in (("A", 1.0), ("B", 5.0)):
                curves += [curve(shift, f"P{n}", "C1", plate, sd=0.05), curve(2 * shift, f"P{n}", "C2", plate, sd=0.05)]
        assert compare(curves, [("C2", "C1")])[0].fold == pytest.approx(2, rel=1e-3)

    def test_who_says_nothing_is_counted(self) -> None:
        both_resist = [curve(None, "P3", name, status="censored_high") for name in ("C1", "C2")]
        told = [curve(value, f"P{n}", name) for n in (1, 2) for name, value in (("C1", 1.0), ("C2", 2.0))]
        (found,) = compare([*told, *both_resist, curve(1.0, "P4", "C1")], [("C1", "C2")])
        assert (found.n_patients, found.n_unpaired, found.n_uninformative) == (2, 1, 1)
        assert "1 with only one" in found.reason

    def test_one_patient_has_no_test(self) -> None:
        (found,) = compare([curve(1.0, compound="C1"), curve(2.0, compound="C2")], [("C2", "C1")])
        assert (found.fold, found.p, found.p_holm, found.lo) == (pytest.approx(2.0), None, None, None)
        assert "one patient" in found.reason

    def test_an_unknown_compound_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no curve of 'X'; choose from C"):
            compare([curve(1.0)], [("C", "X")])
        with pytest.raises(ConfigError, match="'C' is compared with itself"):
            compare([curve(1.0)], [("C", "C")])

    def test_many_comparisons_are_adjusted_together(self) -> None:
        rng = np.random.default_rng(2)
        names = ("C1", "C2", "C3")
        curves = [curve(10 ** rng.normal(0, 0.1), f"P{n}", name) for n in range(4) for name in names]
        found = compare(curves, [("C1", "C2"), ("C1", "C3"), ("C2", "C3")])
        assert [one.p_holm for one in found] == holm([one.p for one in found])

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1) | st.none(), max_size=8))
    def test_holm_keeps_order_and_never_helps(self, p_values: list[float | None]) -> None:
        adjusted = holm(p_values)
        told = [(p, a) for p, a in zip(p_values, adjusted, strict=True) if p is not None and a is not None]
        assert [a is None for a in adjusted] == [p is None for p in p_values]
        assert all(p <= a <= 1 for p, a in told)
        assert [a for _, a in sorted(told)] == sorted(a for _, a in told)
        if told:
            assert min(a for _, a in told) == min(min(told)[0] * len(told), 1)


class TestRank:
    def test_potent_ones_come_first_and_the_unknown_last(self) -> None:
        levels = {"weak": 30.0, "strong": 0.3, "middle": 3.0}
        curves = [curve(v, f"P{n}", name, sd=0.01) for name, v in levels.items() for n in range(4)]
        curves += [curve(None, "P1", "none", status="inactive", p_effect=0.9)]
        curves += [curve(None, "P1", "deadly", status="all_dead"), curve(None, "P1", "lost", status="failed")]
        found = rank(pool(curves))
        assert [one.compound for one in found] == ["deadly", "strong", "middle", "weak", "none", "lost"]
        assert [one.rank for one in found] == [1, 2, 3, 4, 5, None]
        assert [(one.best, one.worst) for one in found[:5]] == [(n, n) for n in range(1, 6)]

    def test_intervals_that_overlap_leave_ranks_open(self) -> None:
        curves = [curve(v, f"P{n}", name) for name, v in (("A", 1.0), ("B", 1.1), ("C", 90.0)) for n in range(4)]
        found = {one.compound: (one.rank, one.best, one.worst) for one in rank(pool(curves))}
        assert found == {"A": (1, 1, 2), "B": (2, 1, 2), "C": (3, 3, 3)}

    def test_one_patient_alone_leaves_every_rank_open(self) -> None:
        found = rank(pool([curve(1.0, compound="A"), curve(90.0, compound="B")]))
        assert [(one.rank, one.best, one.worst) for one in found] == [(1, 1, 2), (2, 1, 2)]
