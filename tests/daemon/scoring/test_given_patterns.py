"""A pattern from a calibration slide: read, held against the plate's frames, and missed where it is not in a stack."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from spheroidd.daemon.catalog.sim_rows import given, with_given
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.scoring.given_patterns import check_given, not_there, read_given
from spheroidd.daemon.scoring.messages import PatternsFound
from spheroidd.daemon.scoring.plate_patterns import made_without, plate_patterns
from spheroidd.daemon.scoring.scheduler import ScoringScheduler, ScoringSettings
from spheroidd.inference.viability.regressor import ViabilityRegressor
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.results import Normalisation
from spheroidd.protocols.sim_pattern import (
    AngleEstimate,
    OrderEstimate,
    PatternEstimate,
    SimPattern,
    SliceModulation,
)
from spheroidd.protocols.stack import StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

ORDER = OrderEstimate(1, 0.8, 0.01, 1000.0, True, "found")
ANGLES = tuple(AngleEstimate(n, 1.75, 12.0 + 60 * n, (0, 72, 144, -144, -72), True, (ORDER,)) for n in range(3))
KNOWN = PatternEstimate("raw", 0.25, 6, ANGLES, 0.12, 100.0)
PLAN = StackPlan(StackKey("P1", WellId(0, 0)), ("488", "561"), 2, 64, 64, 0.125, 0.5, raw=SimPattern())


def write(path: Path, found: object) -> Path:
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_estimate_of_a_file_is_that_of_the_channel_it_is_given_for(tmp_path: Path, wrapped: bool) -> None:
    path = write(tmp_path / "p.json", {"estimate": asdict(KNOWN)} if wrapped else asdict(KNOWN))
    assert read_given(path, "561") == replace(KNOWN, channel="561")


def test_of_a_run_s_estimates_the_channel_s_first_usable_one_counts(tmp_path: Path) -> None:
    doubted = replace(KNOWN, channel="488", doubts=("no",))
    entries = [doubted, replace(KNOWN, channel="561"), replace(KNOWN, channel="488", wiener=0.2)]
    path = write(tmp_path / "p.json", [{"estimate": asdict(one)} for one in entries])
    assert read_given(path, "488") == entries[2]


@pytest.mark.parametrize(
    ("found", "what"),
    [
        ({"estimate": asdict(replace(KNOWN, doubts=("the angles are alike",)))}, "the angles are alike"),
        ([{"estimate": asdict(replace(KNOWN, channel="561"))}], "no pattern of channel 488"),
        ({"estimate": {"channel": "488"}}, "pixel_um"),
        ([7], "no estimate"),
    ],
)
def test_what_is_no_pattern_is_refused(tmp_path: Path, found: object, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        read_given(write(tmp_path / "p.json", found), "488")


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (replace(PLAN, raw=None), "no raw frames"),
        (replace(PLAN, pixel_um=0.13), "pixels of 0.25 um"),
        (replace(PLAN, raw=SimPattern(3, 3)), "3 x 5 frames"),
    ],
)
def test_a_pattern_of_other_frames_is_refused(plan: StackPlan, what: str) -> None:
    check_given({"488": KNOWN}, [PLAN])
    with pytest.raises(ConfigError, match=what):
        check_given({"488": KNOWN}, [plan])


def test_a_given_pattern_needs_no_stack_and_stays_with_the_plate() -> None:
    known = given(with_given('{"data": {}}', {"488": KNOWN, "561": KNOWN}))
    assert known == {"488": KNOWN, "561": KNOWN}
    assert given('{"data": {}}') == {}
    assert plate_patterns({}, ("488", "561"), lambda: False, known) == known
    assert plate_patterns({}, ("488", "561"), lambda: False, {"488": KNOWN}) is None


def test_a_given_pattern_that_is_in_no_slice_is_missed() -> None:
    dead = [SliceModulation("488", z, ((0.0,),), ((1.0,),), ((False,),)) for z in range(2)]
    live = [SliceModulation("561", z, ((0.5,),), ((9.0,),), ((z == 1,),)) for z in range(2)]
    assert not_there({"488": KNOWN, "561": KNOWN}, [*dead, *live]) == ["488"]


def estimate(channel: str, peak: float, *, usable: bool = True) -> PatternEstimate:
    order = replace(ORDER, peak_to_median=peak)
    angles = (*ANGLES[:2], replace(ANGLES[2], orders=(order,)))
    return replace(KNOWN, channel=channel, angles=angles, doubts=() if usable else ("no",))


KEYS = [StackKey("P1", WellId(0, n)) for n in range(3)]
STRONG, FAINT, FAINTER = estimate("561", 290.0), estimate("561", 60.0), estimate("561", 40.0)


@pytest.mark.parametrize(
    ("said", "none_left", "decided"),
    [
        ([estimate("561", 301.0)], False, estimate("561", 301.0)),
        ([FAINT], False, "open"),
        ([FAINT], True, FAINT),
        ([FAINT, STRONG], False, "open"),
        ([FAINT, STRONG, FAINTER], False, STRONG),
        ([estimate("561", 900.0, usable=False), FAINTER, FAINT], False, FAINT),
        ([estimate("561", 900.0, usable=False)] * 3, False, None),
    ],
)
def test_the_surest_estimate_is_used_and_a_faint_one_has_more_stacks_asked(said, none_left: bool, decided) -> None:
    asked = {key: {"561": one} for key, one in zip(KEYS, said, strict=False)}
    found = plate_patterns(asked, ("561",), lambda: none_left)
    assert found == (None if decided == "open" else {"561": decided})


def test_stacks_that_were_made_without_a_pattern_are_known_by_their_contrast() -> None:
    def slices(channel: str, contrast: float) -> list[SliceModulation]:
        return [SliceModulation(channel, z, ((0.0,),), ((contrast * z,),), ((False,),)) for z in range(3)]

    made = {KEYS[0]: [*slices("488", 1.0), *slices("561", 0.0)], KEYS[1]: [*slices("488", 1.0), *slices("561", 2.0)]}
    assert made_without(made, {"488": KNOWN, "561": KNOWN}) == {KEYS[0]}
    assert made_without(made, {"488": KNOWN, "561": None}) == set()


def test_a_row_s_judgement_is_of_what_was_made_and_not_of_what_is_known_later(tmp_path: Path) -> None:
    wells = plates.plate_map("P1", {key.well: plates.UNTREATED for key in KEYS})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {key.well: plates.FULL_UM3 for key in KEYS})
    blind = [SliceModulation("561", z, ((0.0,),), ((0.0,),), ((False,),)) for z in range(8)]
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.put_sim_slices(KEYS[0], [*plates.fading(8), *blind])
        catalog.put_sim_slices(KEYS[1], [*plates.fading(8), *plates.fading(8, "561")])
        catalog.put_patterns(KEYS[1], {c: replace(KNOWN, channel=c) for c in ("488", "561")})
        assert [catalog.is_widefield(key) for key in KEYS] == [True, False, False]


def test_a_stack_of_an_earlier_run_is_made_again_once_its_pattern_is_known(tmp_path: Path) -> None:
    wells = plates.plate_map("P1", {key.well: plates.UNTREATED for key in KEYS})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {key.well: plates.FULL_UM3 for key in KEYS})
    blind = [SliceModulation("561", z, ((0.0,),), ((0.0,),), ((False,),)) for z in range(8)]
    settings = ScoringSettings(plates.MODEL, Normalisation.STACK, None, 0.0, 3)
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.put_sim_slices(KEYS[0], [*plates.fading(8), *blind])
        scheduler = ScoringScheduler(catalog, wells, settings, ViabilityRegressor.load())
        assert scheduler._left() == []
        with catalog.transaction():
            found = {channel: replace(KNOWN, channel=channel) for channel in ("488", "561")}
            scheduler.record_patterns(PatternsFound(KEYS[1], found))
        assert [row.key for row in scheduler._left()] == [KEYS[0]]
