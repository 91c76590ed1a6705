"""From the catalog to a plate's quality: the right rows, the exclusions, the images, the command."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spheroidd.daemon.analysis.plate_quality import plate_quality, stack_flags
from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.connection import CATALOG_NAME
from spheroidd.daemon.catalog.writer import Catalog, StackState
from spheroidd.daemon.cli.console import app
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.quality import Verdict
from spheroidd.protocols.results import (
    ChannelProfile,
    Limits,
    Normalisation,
    Related,
    StackMeasurement,
    StackProfile,
    WellStatus,
)
from spheroidd.protocols.stack import CHANNELS, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.stack_end import Ending, StackEnd
from spheroidd.protocols.well import WellId
from tests.daemon.catalog.older import make_older
from tests.faults.plate_runs import N_Z as N_Z_OF_RUN
from tests.faults.plate_runs import run, spheroidd, write_config

NEGATIVE, POSITIVE, SAMPLE = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL, WellRole.SAMPLE
N_Z = 3
TREATMENTS = [Treatment(NEGATIVE)] * 8 + [Treatment(POSITIVE)] * 8 + [Treatment(SAMPLE, "C01", 5.0)] * 8
MAP = PlateMap("P1", tuple(PlateWell(WellId(1 + k // 10, 1 + k % 10), t) for k, t in enumerate(TREATMENTS)))
LEVELS = {NEGATIVE: 100.0, POSITIVE: 4.0, SAMPLE: 50.0}
SHARP = ChannelProfile((110.0, 120.5, 130.25), 98.0, 200.0, 0.05, 0.0, 1e-5)
PROFILE = StackProfile({"488": SHARP, "561": replace(SHARP, contrast_adu=90.0)}, 0.5, 0.1, 2)


def measured(live_um3: float, n_live: int = 90) -> StackMeasurement:
    limits = {"488": Limits(100.0, 900.0, 300.0, 50.0)}
    profile = (live_um3 / N_Z,) * N_Z
    return StackMeasurement(live_um3, 10.0, n_live, 10, profile, limits, Normalisation.PLATE, "ab" * 32, 1.0, {})


def put_stack(
    catalog: Catalog, entry: PlateWell, percent: float, stack: int = 0, crc: Mapping[SliceIndex, int] = {}
) -> StackKey:
    """One scored stack, its slices' checksums all different unless given."""
    key = StackKey(MAP.name, entry.well, stack)
    plan = StackPlan(key, CHANNELS, N_Z, 8, 8, 0.4, 1.25)
    catalog.expect(plan)
    catalog.set_stack_state(key, StackState.ACQUIRING)
    with catalog.transaction():
        for number, index in enumerate(plan.indices()):
            catalog.acknowledge(SliceDurable(key, index, crc.get(index, 1000 + number), 0.0), 1.0)
    catalog.set_stack_state(key, StackState.STORED)
    measurement = measured(10 * percent, round(percent))
    catalog.record_measurement(key, measurement, 1.0)
    related = Related(WellStatus.FINAL, None, percent, percent + 1, percent - 5, percent + 5)
    catalog.update_related(key, measurement.model_sha256, related, "test")
    return key


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A plate that passes: three levels with a little spread."""
    with Catalog.create_or_open(tmp_path) as found:
        found.register_plate(MAP, "{}")
        for number, entry in enumerate(MAP):
            percent = LEVELS[entry.treatment.role] * (1 + 0.02 * (number % 5 - 2))
            found.put_stack_profile(put_stack(found, entry, percent), PROFILE)
        yield found


# Rows


@pytest.mark.parametrize(("metric", "untreated"), [("v_control", 100.0), ("v_score", 101.0), ("v_count", 10 / 11)])
def test_a_plate_is_judged_by_any_metric_in_its_own_unit(catalog: Catalog, metric: str, untreated: float) -> None:
    quality = plate_quality(catalog, "P1", metric)
    assert quality.metric == metric
    assert quality.verdict is Verdict.PASS
    assert quality.negative_median == pytest.approx(untreated, rel=0.02)
    assert (quality.n_negative, quality.n_positive) == (8, 8)
    assert quality.flags == ()


def test_a_well_with_several_fields_counts_once_by_their_median(catalog: Catalog) -> None:
    catalog.register_plate(MAP, "{}", n_fields=3)
    first = next(iter(MAP))
    before = plate_quality(catalog, "P1")
    for stack, percent in ((1, 101.0), (2, 300.0)):
        put_stack(catalog, first, percent, stack)
    after = plate_quality(catalog, "P1")
    assert (after.n_negative, after.n_positive) == (before.n_negative, before.n_positive)
    assert after.control_cv is not None
    assert after.control_cv < 5


def test_wells_that_a_person_excluded_enter_no_figure(catalog: Catalog) -> None:
    bad = next(iter(MAP))
    put_stack(catalog, bad, 0.5, stack=1)
    put_stack(catalog, bad, 0.6, stack=2)
    assert "bad-control" in {flag.code for flag in plate_quality(catalog, "P1").flags}
    with catalog.transaction():
        catalog.append_event(Action.WELL_EXCLUDED, plate="P1", well=str(bad.well), reason="cracked well")
    found = plate_quality(catalog, "P1")
    assert found.n_negative == 7
    assert [flag.wells for flag in found.flags if flag.code == "excluded"] == [(str(bad.well),)]
    assert plate_quality(catalog, "P1", excluded=frozenset({"c02"})).n_negative == 8  # C02 is another well
    assert plate_quality(catalog, "P1", excluded=frozenset({"b2"})).n_negative == 7


def test_a_metric_or_a_plate_there_is_not_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ConfigError, match="v_control, v_count, v_score"):
        plate_quality(catalog, "P1", "v_norm")
    with pytest.raises(ConfigError, match="there is no plate 'P2'"):
        plate_quality(catalog, "P2")


def test_a_plate_that_was_only_registered_is_unknown(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as found:
        found.register_plate(MAP, "{}")
        quality = plate_quality(found, "P1")
    assert quality.verdict is Verdict.UNKNOWN
    assert quality.reasons
    assert quality.negative_median is None


# Images


def test_controls_that_a_run_has_still_to_reach_are_not_lost(tmp_path: Path) -> None:
    """Neither one that is to come nor one under way is to be imaged again."""
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(MAP, "{}")
        coming, begun, broken = (StackKey(MAP.name, entry.well) for entry in list(MAP)[:3])
        for key in (coming, begun, broken):
            catalog.expect(StackPlan(key, CHANNELS, N_Z, 8, 8, 0.4, 1.25))
        catalog.set_stack_state(begun, StackState.ACQUIRING)
        catalog.end_stack(broken, Ending(StackEnd.FAILED, "the camera went"))
        lost = [flag.wells for flag in plate_quality(catalog, MAP.name).flags if flag.code == "control-lost"]
    assert lost == [(str(broken.well),)]


def test_profiles_are_kept_as_they_were(catalog: Catalog) -> None:
    key = StackKey("P1", next(iter(MAP)).well)
    other = StackProfile({"561": replace(SHARP, sharpness=None)}, None, None, None)
    catalog.put_stack_profile(key, PROFILE)
    assert catalog.stack_profiles("P1")[key] == PROFILE
    assert len(catalog.stack_profiles("P1")) == len(MAP)
    catalog.put_stack_profile(StackKey("P1", next(iter(MAP)).well), replace(PROFILE, channels=other.channels))
    assert catalog.stack_profiles("P1")[key].channels["561"].sharpness is None
    assert catalog.stack_profiles("P2") == {}
    with pytest.raises(ConfigError, match="no stack"):
        catalog.put_stack_profile(StackKey("P1", WellId(7, 11)), PROFILE)


def test_a_frozen_camera_is_found_in_the_ledger(catalog: Catalog) -> None:
    entry = list(MAP)[20]
    crc = {SliceIndex("488", 1): 7, SliceIndex("488", 2): 7, SliceIndex("561", 0): 9, SliceIndex("488", 0): 9}
    key = put_stack(catalog, entry, 50.0, stack=1, crc=crc)
    catalog.put_stack_profile(key, PROFILE)
    assert catalog.repeated_slices("P1") == {key: (SliceIndex("561", 0), SliceIndex("488", 2))}
    (flag,) = stack_flags(catalog, "P1")
    assert (flag.code, flag.verdict, flag.wells) == ("repeated-slices", Verdict.FAIL, (str(entry.well),))
    assert flag.what.startswith(f"{entry.well}, stack 1: ")


def test_stacks_that_nobody_looked_at_are_said(catalog: Catalog) -> None:
    entry = list(MAP)[20]
    put_stack(catalog, entry, 50.0, stack=1)
    (flag,) = stack_flags(catalog, "P1")
    assert (flag.code, flag.verdict, flag.wells) == ("images-not-measured", Verdict.UNKNOWN, (str(entry.well),))
    assert "spheroidd score" in flag.do


def test_a_catalog_of_before_is_read_as_one_without_profiles(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as found:
        found.register_plate(MAP, "{}")
        put_stack(found, next(iter(MAP)), 100.0)
    make_older(tmp_path, 2)
    with Catalog.read_only(tmp_path) as found:
        assert [flag.code for flag in stack_flags(found, "P1")] == ["images-not-measured"]
    with Catalog.create_or_open(tmp_path) as found:
        found.put_stack_profile(StackKey("P1", next(iter(MAP)).well), PROFILE)
    with Catalog.read_only(tmp_path) as found:
        assert len(found.stack_profiles("P1")) == 1


# The command


def quality(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["quality", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_exit_code_is_the_verdict(catalog: Catalog) -> None:
    data = catalog.path.parent
    code, text = quality(data)
    assert code == 0
    assert "plate P1, by v_control: pass" in text
    for entry in [entry for entry in MAP if entry.treatment.role is NEGATIVE][:2]:
        for stack in (1, 2):
            put_stack(catalog, entry, 30.0, stack)
    code, text = quality(data)
    assert code == 1
    assert "control-cv" in text
    for entry in [entry for entry in MAP if entry.treatment.role is POSITIVE]:
        for stack in (1, 2):
            put_stack(catalog, entry, 95.0, stack)
    code, text = quality(data, "--json")
    assert code == 3
    (plate,) = json.loads(text)
    assert plate["verdict"] == "fail"
    assert plate["reasons"]
    assert {"code", "verdict", "wells", "what", "do"} == plate["flags"][0].keys()
    assert plate["z_prime"] < 0.3


def test_what_cannot_be_judged_exits_as_something_to_look_at(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as found:
        found.register_plate(MAP, "{}")
    code, text = quality(tmp_path)
    assert code == 1
    assert "unknown" in text
    assert "—" in text


def test_an_empty_directory_and_an_empty_catalog_are_refused(tmp_path: Path) -> None:
    for _ in range(2):
        code, text = quality(tmp_path)
        assert code == 2
        assert str(tmp_path) in text
        Catalog.create_or_open(tmp_path).close()


# The whole way


def test_a_run_looks_at_every_stack(tmp_path: Path) -> None:
    """In a real process: a short plate, its killed controls first seen as histograms only."""
    config = write_config(tmp_path, source={"compounds": 0, "negative_controls": 1, "positive_controls": 1})
    assert run(config) == 0, config.with_suffix(".log").read_text()
    data = tmp_path / "data"
    with Catalog.read_only(data) as found:
        profiles = found.stack_profiles("P1")
        assert {str(key.well) for key in profiles} == {"A01", "A02"}
        assert found.repeated_slices("P1") == {}
    for one in profiles.values():
        assert {len(seen.mean_adu_by_z) for seen in one.channels.values()} == {N_Z_OF_RUN}
        assert all(seen.sharpness is None or 0 < seen.sharpness < 1 for seen in one.channels.values())
        assert all(90 < seen.floor_adu < np.mean(seen.mean_adu_by_z) for seen in one.channels.values())
    connection = sqlite3.connect(data / CATALOG_NAME)
    assert connection.execute("SELECT count(*) FROM channel_quality").fetchone() == (4,)
    connection.close()
    done = spheroidd("quality", str(data), "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)[0]["verdict"] == "unknown"
