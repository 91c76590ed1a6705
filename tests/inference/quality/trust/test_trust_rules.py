"""Every rule finds its kind, at figures that spoiled emulated wells show, and leaves healthy wells alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from spheroidd.inference.quality.trust.evidence import RowEvidence, Seen
from spheroidd.inference.quality.trust.of_cells import mean_aspect
from spheroidd.inference.quality.trust.rules import flags_of, own_flags
from spheroidd.protocols.evidence import ChannelLight, MaskEvidence, MaskShape, StackLight, StackLooks
from spheroidd.protocols.plate import WellRole
from spheroidd.protocols.results import (
    ChannelProfile,
    Limits,
    Normalisation,
    Precision,
    StackMeasurement,
    StackProfile,
)
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.trust import TrustFlag
from spheroidd.protocols.well import WellId

UNTREATED, KILLED, SAMPLE = WellRole.NEGATIVE_CONTROL, WellRole.POSITIVE_CONTROL, WellRole.SAMPLE
LIMITS = {"488": Limits(120.0, 1620.0, 525.0, 441.0), "561": Limits(110.0, 1610.0, 410.0, 333.0)}
OLDER = {"488": None, "561": None}  # a row of a version that did not measure it


def row(well: str = "A01", role: WellRole = SAMPLE, **given: Any) -> RowEvidence:
    """A healthy well of 90 living and 12 dead cells; `given` names what is different."""
    n_live, n_dead = given.pop("n_live", 90), given.pop("n_dead", 12)
    live_um3, dead_um3 = given.pop("live_size", 830.0) * n_live, given.pop("dead_size", 240.0) * n_dead
    live_um3, dead_um3 = given.pop("live_um3", live_um3), given.pop("dead_um3", dead_um3)
    contrast = given.pop("contrast", {"488": 500.0, "561": 200.0})
    noise = given.pop("noise", {"488": 45.0, "561": 16.0})
    high = given.pop("high", {"488": 1500.0, "561": 700.0})
    sharp = given.pop("sharp", {"488": 0.06, "561": 0.05})
    detail = given.pop("detail", {"488": 0.09, "561": 0.08})
    chord, dead_x_um = given.pop("chord_z", 1.08), given.pop("chord_dead", 5.2)
    inside = given.pop("inside", {"488": {"488": 900.0, "561": 220.0}, "561": {"488": 400.0, "561": 900.0}})
    saturated = given.pop("saturated", 0.0)
    drift, jump = given.pop("drift", 1.5), given.pop("jump", 0.3)
    bleed, correlation = given.pop("bleed", 0.13), given.pop("correlation", 0.4)
    z_step_um, lag_um = given.pop("z_step", 1.0), given.pop("lag", 0.4)
    shade, repeated = given.pop("shade", 0.95), given.pop("repeated", 0)
    place = WellId.parse(given.pop("images_of", well))
    correlation += 1e-9 * (place.row + 100 * place.column)  # no two wells have the same to every digit
    low = {channel: used.low for channel, used in LIMITS.items()}
    channels = {
        c: ChannelLight(low[c], high[c], high[c] if noise[c] == 0 else 1.5 * high[c], saturated, noise[c])
        for c in LIMITS
    }
    if noise["488"] == 0:
        channels["488"] = replace(channels["488"], low=500.0, high=500.0, peak=500.0)
    profile = StackProfile(
        {c: ChannelProfile((200.0,), 100.0, contrast[c], sharp[c], saturated, 0.0, detail[c]) for c in LIMITS},
        drift,
        jump,
        None,
    )
    looks: StackLooks | None = given.pop("looks", StackLooks(0.5, 1.04, 0.2))
    measured = StackMeasurement(
        live_um3=live_um3,
        dead_um3=dead_um3,
        n_live=n_live,
        n_dead=n_dead,
        live_um3_by_z=(live_um3,),
        limits=LIMITS,
        normalisation=Normalisation.PLATE,
        precision=Precision.FP32,
        model_sha256="m",
        cpu_s=1.0,
        quantiles={c: {"0.98": high[c]} for c in LIMITS},
        foreign_score=given.pop("foreign", looks.foreign if looks else None),
    )
    shapes = {
        "488": MaskShape(15.0 * chord, 15.0, inside["488"]),
        "561": MaskShape(dead_x_um * chord, dead_x_um, inside["561"]),
    }
    seen = Seen(
        light=StackLight(channels, bleed, correlation, shade, repeated),
        masks=MaskEvidence(shapes, {"488": 150.0, "561": 120.0}, looks),
        profile=profile,
        depth_um=50.0,
        z_step_um=z_step_um,
        lag_um=lag_um,
    )
    assert not given
    return RowEvidence(StackKey("P1", WellId.parse(well)), role, measured, seen)


DEAD: Mapping[str, Any] = {"n_live": 4, "n_dead": 90, "dead_size": 200.0, "bleed": 0.8, "live_size": 700.0}


@pytest.mark.parametrize(
    "different",
    [
        {},
        {**DEAD, "contrast": {"488": 130.0, "561": 450.0}, "high": {"488": 500.0, "561": 1500.0}},
        {"n_live": 344, "n_dead": 0, "correlation": 0.976},  # a large healthy field without one dead cell
        {"n_live": 0, "n_dead": 66, "live_um3": 90.0, "bleed": 0.9},
        {"n_live": 2, "n_dead": 40, "live_size": 466.0, "dead_size": 167.0},
        {"n_live": 35, "n_dead": 1, "dead_size": 450.0},  # of one object nothing is concluded
        {"chord_z": 1.37, "n_live": 2278, "n_dead": 103},
        {"drift": 3.1},
        {"chord_z": 1.95, "z_step": 3.0},  # slices that are as far apart as nuclei are long
        {"lag": 0.8, "sharp": {"488": 0.08, "561": 0.09}, "detail": {"488": 0.18, "561": 0.17}},  # on dark ground
        {"lag": 1.3, "detail": {"488": 0.33, "561": 0.28}},
        {"lag": 1.3, "sharp": {"488": 0.24, "561": 0.2}, "detail": OLDER},
        {**DEAD, "contrast": {"488": 13.0, "561": 200.0}, "noise": {"488": 6.0, "561": 16.0}},  # dead, on a dim plate
        {"n_live": 0, "n_dead": 20, "dead_size": 104.0, "bleed": 1.1, "correlation": 0.5},  # killed, a small field
        {"n_live": 14, "n_dead": 1, "live_size": 380.0},  # the mean of a few says little
        {"n_live": 17, "n_dead": 0, "live_size": 1310.0, "correlation": 0.97},
        {"n_live": 17, "n_dead": 2, "looks": StackLooks(0.8, 0.79, 1.1)},  # how wide so few look is chance
    ],
)
def test_a_healthy_well_has_no_flag(different: dict[str, Any]) -> None:
    assert own_flags(row(**different)) == frozenset()


NOTHING: Mapping[str, Any] = {"n_live": 0, "n_dead": 0}
NO_CONTRAST = {"488": 0.0, "561": 0.0}


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        ({**NOTHING, "contrast": NO_CONTRAST, "noise": {"488": 5.2, "561": 5.2}}, {"camera-noise", "no-cell"}),
        ({"contrast": {"488": 7.0, "561": 1.5}, "noise": {"488": 5.2, "561": 5.2}}, {"too-dim"}),
        (NOTHING, {"no-cell"}),
        ({"looks": StackLooks(2.1, 1.6, 1.9)}, {"foreign-images"}),
        ({"looks": StackLooks(0.8, 0.7, 1.6)}, {"cells-look-small"}),
        ({"looks": StackLooks(1.2, 1.9, 2.8)}, {"cells-look-large"}),
        ({"looks": StackLooks(0.8, 0.7, 1.6), "n_live": 12, "n_dead": 3}, {"cells-look-small"}),
        ({"looks": StackLooks(1.1, 0.7, 1.3), "n_live": 12, "n_dead": 3}, {"foreign-images"}),
        ({"looks": None, "foreign": 1.2}, {"foreign-images"}),  # of a version that did not tell widths
        ({"n_live": 1, "live_um3": 37_400.0}, {"volume-without-objects"}),
        ({"n_live": 0, "n_dead": 0, "live_um3": 9000.0}, {"no-cell", "volume-without-objects"}),
        ({"n_live": 12, "live_um3": 128_000.0}, {"volume-without-objects", "object-size"}),  # saturated
        # HT-29, every nucleus stained, its core a blur: large, and cells
        ({"n_live": 443, "live_size": 5940.0, "n_dead": 146, "dead_size": 13_512.0}, {"object-size"}),
        ({"contrast": {"488": 0.0, "561": 300.0}}, {"live-dye-absent"}),
        ({"contrast": {"488": 4.6, "561": 458.0}, "noise": {"488": 5.2, "561": 27.0}}, {"live-dye-absent"}),
        ({"contrast": {"488": 500.0, "561": 0.0}, "n_dead": 0}, {"dead-dye-absent"}),
        ({"correlation": 0.997, "n_dead": 0, "bleed": 0.08}, {"dead-dye-absent"}),
        (
            {"noise": {"488": 0.0, "561": 16.0}, "contrast": {"488": 0.0, "561": 200.0}},
            {"channel-flat", "live-dye-absent"},
        ),
        ({"correlation": 1.0, "bleed": 0.5, "n_dead": 0}, {"channels-identical", "dead-dye-absent"}),
        ({"correlation": 0.92, "bleed": 0.9, "n_live": 5, "n_dead": 7, "dead_size": 120.0}, {"debris-only"}),
        ({"n_live": 0, "n_dead": 12, "dead_size": 100.0, "correlation": 0.7}, {"debris-only"}),
        ({"n_live": 0, "n_dead": 120, "dead_size": 60.0}, {"object-size"}),  # nuclei that have shrunk, or red debris
        ({"n_live": 0, "n_dead": 14, "dead_size": 100.0, "chord_dead": 3.2}, {"object-size"}),
        ({"n_live": 16, "n_dead": 63, "live_size": 319.0, "dead_size": 971.0}, {"channels-exchanged"}),
        ({"n_live": 80, "n_dead": 4, "live_size": 180.0}, {"channels-exchanged"}),
        ({"n_live": 1, "n_dead": 67, "dead_size": 1060.0}, {"channels-exchanged"}),
        ({"chord_z": 0.57}, {"pixel-size"}),
        ({"chord_z": 0.67}, {"pixel-size"}),
        ({"chord_z": 1.64}, {"pixel-size"}),
        ({"chord_z": 3.2}, {"pixel-size"}),
        ({"chord_z": 3.2, "z_step": 3.75}, {"pixel-size"}),
        ({"lag": 1.3, "detail": {"488": 0.2, "561": 0.18}}, {"out-of-focus"}),
        ({"lag": 1.3, "sharp": {"488": 0.19, "561": 0.12}, "detail": OLDER}, {"out-of-focus"}),
        ({"live_size": 1490.0, "dead_size": 300.0}, {"object-size"}),
        ({"saturated": 0.002}, {"saturated"}),
        ({"detail": {"488": 0.03, "561": 0.04}}, {"out-of-focus"}),
        ({"sharp": {"488": 0.014, "561": 0.03}, "detail": OLDER}, {"out-of-focus"}),
        ({"drift": 5.2}, {"drift"}),
        ({"jump": 2.5}, {"drift"}),
        ({"shade": 0.5}, {"shaded"}),
        ({"repeated": 1}, {"repeated-slice"}),
        ({"high": {"488": 1500.0, "561": 2600.0}}, {"clipped"}),
        (
            {"inside": {"488": {"488": 250.0, "561": 220.0}, "561": {"488": 150.0, "561": 900.0}}},
            {"live-dye-absent"},
        ),
    ],
)
def test_each_kind_is_found_without_another_stack(different: dict[str, Any], expected: set[str]) -> None:
    assert own_flags(row(**different)) == expected


def test_of_a_stack_that_an_older_version_scored_only_its_counts_are_judged() -> None:
    old = replace(row(n_live=16, n_dead=63, live_size=319.0, dead_size=971.0), seen=Seen())
    assert own_flags(old) == frozenset()
    assert own_flags(replace(row(**NOTHING), seen=Seen())) == {TrustFlag.NO_CELL}


PLATE = [
    row("A01", UNTREATED),
    row("A02", UNTREATED, n_live=88),
    row("A03", KILLED, **DEAD),
    row("B01", n_live=60, n_dead=40),
    row("B02", n_live=30, n_dead=80, dead_size=210.0),
]


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        ({}, set()),
        ({"high": {"488": 500.0, "561": 400.0}}, {"too-dim"}),
        ({"contrast": {"488": 10.0, "561": 450.0}, "noise": {"488": 6.0, "561": 20.0}}, {"live-dye-absent"}),
        ({"n_live": 5, "n_dead": 0, "correlation": 0.968}, {"dead-dye-absent"}),
        ({"sharp": {"488": 0.033, "561": 0.02}}, {"out-of-focus"}),
        ({"n_live": 5, "n_dead": 70, "dead_size": 500.0}, {"object-size"}),
    ],
)
def test_what_shows_only_beside_the_plate(different: dict[str, Any], expected: set[str]) -> None:
    odd = row("C01", **different)
    found = flags_of([*PLATE, odd])
    assert found[odd.key] == expected
    assert not any(found[one.key] for one in PLATE)


def relabelled(**roles: WellRole) -> list[RowEvidence]:
    return [replace(one, role=roles.get(str(one.key.well), one.role)) for one in PLATE]


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        (relabelled(), set()),
        (relabelled(A01=KILLED), {"A01"}),
        (relabelled(A03=UNTREATED), {"A03"}),
        (relabelled(A01=KILLED, A02=KILLED, A03=UNTREATED), {"A01", "A02", "A03", "B01", "B02"}),
        (relabelled(A01=SAMPLE, A02=SAMPLE, A03=UNTREATED), {"A01", "A02", "A03", "B01", "B02"}),
    ],
)
def test_controls_lie_on_their_side_from_one_killed_well_on(rows: list[RowEvidence], wrong: set[str]) -> None:
    found = flags_of(rows)
    assert {str(key.well) for key, flags in found.items() if TrustFlag.CONTROLS_WRONG_SIDE in flags} == wrong


def test_an_excluded_control_says_nothing_about_the_others() -> None:
    rows = [replace(one, excluded=str(one.key.well) == "A03") for one in relabelled(A03=UNTREATED)]
    assert not any(flags_of(rows).values())


def test_the_images_of_another_well_are_told_in_both() -> None:
    copied = row("C01", images_of="B02", n_live=30, n_dead=80, dead_size=210.0)
    found = flags_of([*PLATE, copied])
    assert {str(key.well) for key, flags in found.items() if flags == {TrustFlag.REPEATED_SLICE}} == {"B02", "C01"}
    alone = flags_of([*PLATE, replace(copied, excluded=True)])
    assert not any(alone.values())


@pytest.mark.parametrize(("n_live", "n_dead", "known"), [(90, 12, True), (90, 3, True), (4, 90, True), (4, 5, False)])
def test_the_aspect_is_that_of_enough_cells(n_live: int, n_dead: int, known: bool) -> None:
    assert (mean_aspect(row(n_live=n_live, n_dead=n_dead)) is not None) == known
