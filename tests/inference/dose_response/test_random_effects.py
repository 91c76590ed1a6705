"""The random-effects model: worked examples with known answers, censored patients, and what must never change."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spheroidd.inference.dose_response.random_effects import Evidence, RandomEffects, combined, pooled
from spheroidd.protocols.errors import ConfigError

INF = math.inf
# The 13 trials of BCG vaccine against tuberculosis (Colditz et al. 1994): cases and others, vaccinated and not.
BCG = (
    (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619), (33, 5036, 47, 5761),
    (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892), (29, 7470, 45, 7232), (17, 1699, 65, 1600),
    (186, 50448, 141, 27197), (5, 2493, 3, 2338), (27, 16886, 29, 17825),
)  # fmt: skip


def exact(*places: float, sd: float = 1e-4) -> list[list[Evidence]]:
    return [[Evidence(place, sd, sd)] for place in places]


def known(value: float | None) -> float:
    assert value is not None
    return value


class TestPooled:
    def test_log_risk_ratios_of_bcg_have_metafors_reml_answer(self) -> None:
        """R metafor's rma(yi, vi, method="REML"): -0.7145, tau^2 0.3132; with Knapp-Hartung -1.109 to -0.320."""
        patients = []
        for a, b, c, d in BCG:
            effect = math.log(a / (a + b)) - math.log(c / (c + d))
            sd = math.sqrt(1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
            patients.append([Evidence(effect, sd, sd)])
        found = pooled(patients)
        assert found.mu == pytest.approx(-0.7145, abs=5e-5)
        assert known(found.tau) ** 2 == pytest.approx(0.3132, abs=5e-5)
        assert found.low == pytest.approx(-1.109, abs=0.02)
        assert found.high == pytest.approx(-0.320, abs=0.02)

    @pytest.mark.parametrize("places", [(0.1, 0.5), (0.2, 0.3, 0.9), (0.0, 0.1, 0.4, 0.5, 1.3, -0.7)])
    def test_curves_without_error_give_students_interval_and_test(self, places: tuple[float, ...]) -> None:
        found, n = pooled(exact(*places)), len(places)
        mean, sd = float(np.mean(places)), float(np.std(places, ddof=1))
        low, high = stats.t.interval(0.95, n - 1, mean, sd / math.sqrt(n))
        assert found.mu == pytest.approx(mean, abs=1e-4)
        assert found.tau == pytest.approx(sd, rel=1e-3)
        assert (found.low, found.high) == pytest.approx((low, high), abs=2e-3 * (high - low))
        assert found.p_zero == pytest.approx(stats.ttest_1samp(places, 0).pvalue, rel=0.01)

    def test_a_further_patient_is_known_less_well_than_the_mean(self) -> None:
        found, t = pooled(exact(0.0, 0.4, 0.8)), stats.t.ppf(0.975, 2)
        assert known(found.new_high) - known(found.mu) == pytest.approx(t * 0.4 * math.sqrt(1 + 1 / 3), rel=0.01)

    def test_patients_that_agree_do_not_differ(self) -> None:
        assert pooled([[Evidence(0.5, 0.2, 0.2)] for _ in range(4)]).tau == 0

    def test_a_censored_patient_pulls_the_mean_its_way_and_dropping_it_would_not(self) -> None:
        three = exact(0.2, 0.4, 0.6, sd=0.1)
        with_one_above = pooled([*three, [Evidence(1.5, 0.1, INF)]])
        alone = pooled(three)
        assert known(with_one_above.mu) > known(alone.mu) + 0.2
        assert known(with_one_above.tau) > known(alone.tau)

    def test_a_censored_patient_far_from_contradiction_says_little(self) -> None:
        three = exact(0.2, 0.4, 0.6, sd=0.1)
        assert pooled([*three, [Evidence(-1.5, 0.1, INF)]]).mu == pytest.approx(0.4, abs=0.02)

    @pytest.mark.parametrize("others", [[], [Evidence(0.5, 0.1, 0.1)]])
    def test_without_two_patients_with_a_value_nothing_is_said_of_the_mean(self, others: list[Evidence]) -> None:
        censored = [[Evidence(0.0, 0.1, INF)], [Evidence(0.1, 0.1, INF)], [Evidence(1.0, INF, 0.1)]]
        assert pooled([*censored, others]) == RandomEffects(*(None,) * 7, n_patients=3 + len(others))

    @pytest.mark.parametrize("side", [(0.1, INF), (INF, 0.1)])
    def test_where_all_are_censored_to_one_side_there_is_no_number(self, side: tuple[float, float]) -> None:
        found = pooled([[Evidence(place, *side)] for place in (0.1, 0.3, 0.2)])
        assert (found.mu, found.low, found.high, found.p_zero, found.n_patients) == (None, None, None, None, 3)

    def test_one_patient_says_nothing_of_others(self) -> None:
        found = pooled([[Evidence(0.2, 0.1, 0.1), Evidence(0.4, 0.1, 0.1)]])
        assert found == RandomEffects(pytest.approx(0.3), None, None, None, None, None, None, 1)

    def test_nobody_says_nothing(self) -> None:
        assert pooled([[], [Evidence(1.0, INF, INF)]]) == RandomEffects(*(None,) * 7, n_patients=0)

    def test_two_plates_of_one_patient_are_not_two_patients(self) -> None:
        """Two more wells-worth of the same patient must not narrow what is said of patients."""
        once = pooled(exact(0.0, 0.5, 1.0, sd=0.01))
        twice = pooled([[Evidence(place, 0.01, 0.01)] * 2 for place in (0.0, 0.5, 1.0)])
        assert (twice.n_patients, twice.mu) == (3, pytest.approx(once.mu, abs=1e-4))
        assert known(twice.high) - known(twice.low) == pytest.approx(known(once.high) - known(once.low), rel=0.02)

    @settings(deadline=None, max_examples=8)
    @given(
        st.lists(st.tuples(st.floats(-2, 2), st.floats(0.02, 0.6), st.floats(0.02, 0.6)), min_size=2, max_size=6),
        st.floats(-3, 3),
    )
    def test_moving_and_turning_all_patients_moves_and_turns_the_answer(
        self, given: list[tuple[float, float, float]], shift: float
    ) -> None:
        here = pooled([[Evidence(*one)] for one in given])
        moved = pooled([[Evidence(at + shift, below, above)] for at, below, above in given])
        turned = pooled([[Evidence(-at, above, below)] for at, below, above in given])
        assert known(moved.mu) == pytest.approx(known(here.mu) + shift, abs=5e-3)
        assert known(turned.mu) == pytest.approx(-known(here.mu), abs=5e-3)
        assert known(here.low) < known(here.mu) < known(here.high)
        assert known(turned.high) == pytest.approx(-known(here.low), abs=0.05)

    @pytest.mark.slow
    @pytest.mark.parametrize(("n", "tau", "limit"), [(3, 0.35, INF), (6, 0.35, INF), (6, 0.35, 0.3), (6, 0.0, INF)])
    def test_the_interval_holds_the_mean_of_patients_as_often_as_it_says(
        self, n: int, tau: float, limit: float
    ) -> None:
        """With a limit of 0.3 a patient in five is censored; patients that do not differ are covered too often."""
        rng, runs = np.random.default_rng(5), 400
        found = [pooled([[_measured(theta, limit, rng)] for theta in rng.normal(0, tau, n)]) for _ in range(runs)]
        told = [one for one in found if one.mu is not None]
        share = sum((one.low or -INF) <= 0 <= (one.high or INF) for one in told) / len(told)
        print(f"n {n}, tau {tau}, limit {limit}: {share:.3f} of {len(told)}")
        assert 0.93 <= share <= (0.98 if tau else 1.0)  # two standard errors about 0.95 to 0.96


def _measured(theta: float, limit: float, rng: np.random.Generator, sd: float = 0.1) -> Evidence:
    seen = theta + rng.normal(0, sd)
    return Evidence(seen, sd, sd) if seen < limit else Evidence(limit, sd, INF)


class TestCombined:
    def test_numbers_combine_by_precision(self) -> None:
        found = combined([Evidence(0.0, 0.1, 0.1), Evidence(1.0, 0.2, 0.2)])
        assert found.at == pytest.approx(0.2)
        assert found.sd_below == pytest.approx(1 / math.sqrt(125), rel=1e-6)

    def test_one_sided_evidence_stays_one_sided(self) -> None:
        found = combined([Evidence(2.0, 0.1, INF), Evidence(1.0, 0.1, INF)])
        assert (found.at, found.sd_above) == (2.0, INF)

    def test_two_sides_that_leave_a_gap_meet_in_its_middle(self) -> None:
        assert combined([Evidence(0.0, 0.1, INF), Evidence(1.0, INF, 0.1)]).at == pytest.approx(0.5)

    @settings(deadline=None)
    @given(
        st.lists(
            st.builds(Evidence, st.floats(-3, 3), st.floats(0.01, 1) | st.just(INF), st.floats(0.01, 1) | st.just(INF)),
            min_size=1,
            max_size=5,
        )
    )
    def test_the_sum_is_highest_where_it_says(self, curves: list[Evidence]) -> None:
        found = combined(curves)
        top = _sum(curves, found.at)
        assert all(_sum(curves, place) <= top + 1e-6 for place in np.linspace(-4, 4, 161))
        if len(curves) > 1 and math.isfinite(found.sd_above):
            assert _sum(curves, found.at + 1.959964 * found.sd_above) == pytest.approx(top - 1.9207, abs=1e-3)

    def test_nothing_cannot_be_combined(self) -> None:
        with pytest.raises(ConfigError, match="no curve"):
            combined([])


def _sum(curves: Sequence[Evidence], place: float) -> float:
    return -sum(((c.at - place) / (c.sd_below if place < c.at else c.sd_above)) ** 2 for c in curves) / 2


@pytest.mark.parametrize("wrong", [(math.nan, 0.1, 0.1), (0.0, 0.0, 0.1), (0.0, 0.1, -1.0), (0.0, math.nan, 0.1)])
def test_nonsense_is_no_evidence(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="widths"):
        Evidence(*wrong)


def test_a_difference_has_both_errors_and_both_sides() -> None:
    above = Evidence(2.0, 0.3, INF)
    assert above.minus(Evidence(0.5, 0.4, 0.4)) == Evidence(1.5, 0.5, INF)
    assert Evidence(0.5, 0.4, 0.4).minus(above) == Evidence(-1.5, INF, 0.5)
    assert above.minus(above).is_empty
