"""A1 to A3: numbers that the images do not support, on plates of an emulator's stacks, spoiled by `bench.spoiled`."""

import csv
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from bench.spoiled import SPOILED, Spoiled
from bench.trust import CROP, Spacing, render, source_of
from spheroidd.protocols.well import WellId
from tests.cases.case import Case, Driven, Plate, PlateWell, Seen, Step, write_map

CLIPPED, SUPPORTED, CURVES = "A1 plate limits", "A2 images without a number", "A3 trust in curves"
DEMO: Mapping[str, Any] = {
    "preset": "demo",
    "seed": 511,
    "compounds": 3,
    "negative_controls": 3,
    "positive_controls": 2,
}
OTHER: Mapping[str, Any] = {**DEMO, "seed": 523, "compounds": 2}
ROLES = {"A01": "negative_control", "A02": "negative_control", "A03": "negative_control", "A04": "positive_control", "A05": "positive_control"}  # fmt: skip
Write = Callable[[Path, str], Mapping[str, object]]


@functools.cache
def emulated(well: str, seed: int = 511) -> tuple[NDArray[np.uint16], Spacing, float]:
    """A whole stack (channel, z, y, x), its voxel (z, y, x), and the true share of living cells in the field."""
    source = source_of(DEMO if seed == 511 else OTHER)
    preset = source.preset
    share = source.truth(WellId.parse(well)).well.v_true_fov
    return render(source, well), (preset.z_step_um, preset.pixel_um, preset.pixel_um), float(share)


def write_stack(folder: Path, name: str, stack: NDArray[np.uint16], own_um: Spacing) -> str:
    """An OME-TIFF; its file's name."""
    metadata = {
        "axes": "ZCYX",
        "PhysicalSizeX": own_um[2],
        "PhysicalSizeY": own_um[1],
        "PhysicalSizeZ": own_um[0],
        "Channel": {"Name": ["Calcein", "PI"]},
    }
    tifffile.imwrite(folder / f"{name}.ome.tif", stack.swapaxes(0, 1), metadata=metadata, photometric="minisblack")
    return f"{name}.ome.tif"


def as_is(well: str, role: str = "", seed: int = 511, spoiled: Spoiled | None = None, dose: float = 1.0) -> Write:
    """A part of an emulated well, as it is or spoiled; the role is its own where none is given."""

    def write(folder: Path, name: str) -> Mapping[str, object]:
        stack, own_um, _ = emulated(well, seed)
        stack = stack[:, :, CROP, CROP]
        if spoiled is not None:
            stack, own_um = spoiled.of(stack, own_um, len(name) + ord(name[-1]))
        said = role or ROLES.get(well, "sample")
        what = {"compound": "X", "dose_um": dose} if said == "sample" else {}
        return {"role": said, "path": write_stack(folder, name, stack, own_um), "patient": "P1", **what}

    return write


def trusted(folder: Path, well: str, row: Mapping[str, Any]) -> tuple[str, bool]:
    """A number without a doubt."""
    said = ", ".join(row["trust_flags"] or ())
    return f"{row['trust']} {said}, V count {_percent(row['v_count'])}", row["trust"] == "ok" and row[
        "v_count"
    ] is not None


def doubted(*flags: str) -> Seen:
    """Not `ok`; no number where it failed. With `flags`, one of them is among the reasons."""

    def seen(folder: Path, well: str, row: Mapping[str, Any]) -> tuple[str, bool]:
        said = row["trust_flags"] or ()
        failed = row["trust"] == "fail"
        ok = failed or row["trust"] == "check"
        numbers = [row[name] for name in ("v_count", "v_control", "v_score")]
        ok &= (not failed or numbers == [None] * 3) and (not flags or bool(set(flags) & set(said)))
        return f"{row['trust']}: {', '.join(said)}; V count {_percent(row['v_count'])}", ok

    return seen


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"


HEALTHY = tuple(
    PlateWell(SUPPORTED, f"healthy {well}", as_is(well), trusted) for well in ("A01", "A02", "A04", "B02", "B03")
)
LOOK = {"results": 1, "status": 1}
SOUND = {"results": 0, "status": 0}


def spoiled_plates() -> Iterator[Plate]:
    """Every kind of spoiled image in one well, at both strengths, six to a plate of healthy ones."""
    wells = [
        PlateWell(SUPPORTED, f"{one.kind}, {one.strength}", as_is(("B02", "B03")[number % 2], spoiled=one), doubted())
        for number, one in enumerate(SPOILED)
    ]
    # Each kind's second strength on another plate, so that no plate has two wells beyond its brightness.
    for at in range(7):
        chosen = wells[2 * at :: 14] + wells[2 * at + 1 :: 14]
        beside = HEALTHY if at == 0 else tuple(replace(one, seen=None) for one in HEALTHY)
        yield Plate(SUPPORTED, f"spoiled wells {at + 1}", (*beside, *chosen), codes=LOOK)


def whole_plates() -> Iterator[Plate]:
    """Plates on which every well is spoiled alike."""
    for one in SPOILED:
        if one.kind in (
            "camera noise only",
            "dyes exchanged",
            "pixel size x 2",
            "pixel size x .5",
            "PI absent",
            "z step x 3",
        ):
            wells = tuple(
                PlateWell(
                    SUPPORTED,
                    f"the whole plate: {one.kind}, {one.strength}: {well}",
                    as_is(well, spoiled=one),
                    doubted(),
                )
                for well in ("A01", "A02", "A04", "B03")
            )
            yield Plate(SUPPORTED, f"the whole plate: {one.kind}, {one.strength}", wells, codes=LOOK)
    for name, roles in (
        ("one of each", {"A01": "positive_control", "A04": "negative_control"}),
        (
            "all",
            {
                "A01": "positive_control",
                "A02": "positive_control",
                "A04": "negative_control",
                "A05": "negative_control",
            },
        ),
    ):
        wells = tuple(
            PlateWell(
                SUPPORTED,
                f"controls mislabelled, {name}: {well}",
                as_is(well, roles.get(well, "")),
                doubted("controls-wrong-side") if well in roles else None,
            )
            for well in ("A01", "A02", "A03", "A04", "A05", "B03")
        )
        yield Plate(SUPPORTED, f"controls mislabelled, {name}", wells, codes=LOOK)


def healthy_plates() -> Iterator[Plate]:
    """Plates on which nothing is wrong."""
    none = tuple(
        PlateWell(
            SUPPORTED,
            f"healthy, no killed well: {well}",
            as_is(well, "" if well in ("A01", "A02") else "sample"),
            trusted,
        )
        for well in ("A01", "A02", "A04", "B02", "B03")
    )
    other = tuple(
        PlateWell(SUPPORTED, f"healthy, another plate: {well}", as_is(well, seed=523), trusted)
        for well in ("A01", "A02", "A04", "B02", "B03")
    )
    copied = (
        *(PlateWell(SUPPORTED, f"beside it: {well}", as_is(well), None) for well in ("A01", "A02", "A04", "B02")),
        PlateWell(SUPPORTED, "a control that was copied to another file", as_is("A02"), doubted("repeated-slice")),
    )
    yield Plate(SUPPORTED, "a control that was copied", copied, codes=LOOK)
    yield Plate(SUPPORTED, "healthy, no killed well", none, codes=SOUND)
    yield Plate(SUPPORTED, "healthy, another plate", other, codes=SOUND)


# -- limits ------------------------------------------------------------------------------------------------------------


def hazy(well: str, share: float, role: str) -> Write:
    """A whole field with a share of its light out of focus."""

    def write(folder: Path, name: str) -> Mapping[str, object]:
        stack, own_um, _ = emulated(well)
        light = stack.astype(np.float32) - 100
        wide = (9 / own_um[0], 5 / own_um[1], 5 / own_um[2])
        haze = np.stack([ndimage.gaussian_filter(one, wide) for one in light])
        mixed = np.clip(np.rint(100 + (1 - share) * light + share * haze), 0, 65535).astype(np.uint16)
        what = {"compound": "K", "dose_um": 1} if role == "sample" else {}
        return {"role": role, "path": write_stack(folder, name, mixed, own_um), "patient": "P1", **what}

    return write


def true(well: str, within: float = 0.06) -> Seen:
    """V count as it is in truth, or a row that says it may not be."""

    def seen(folder: Path, name: str, row: Mapping[str, Any]) -> tuple[str, bool]:
        share = emulated(well)[2]
        ok = row["v_count"] is not None and (abs(row["v_count"] - share) <= within or "clipped" in row["trust_flags"])
        return f"{row['trust']}, V count {_percent(row['v_count'])}, true {_percent(share)}", ok

    return seen


def limit_plates() -> Iterator[Plate]:
    """Dying wells under haze, with killed wells and without, and with one killed well only among the samples."""
    for share in (0.5, 0.25):
        for killed in ("positive_control", "sample"):
            name = f"{100 * share:.0f} % haze, {'killed controls' if killed != 'sample' else 'no killed well'}"
            wells = tuple(
                PlateWell(
                    CLIPPED,
                    f"{name}: {well}",
                    hazy(well, share, killed if well == "A04" else ROLES.get(well, "sample")),
                    true(well),
                )
                for well in ("A01", "A04", "B03", "B04")
            )
            yield Plate(CLIPPED, name, wells)


# -- curves ------------------------------------------------------------------------------------------------------------


TURNED = Spoiled("another well", "seen from the other side", lambda given: given.stack[:, :, ::-1])


def with_blanks(blank: Sequence[str]) -> Callable[[Path], None]:
    """Three untreated and two killed wells, and the doses of a compound twice; some of these hold camera noise."""

    def make(folder: Path) -> None:
        noise, source, rows = SPOILED[0], source_of(DEMO), []
        for number, (well, role) in enumerate(ROLES.items()):
            rows.append({"well": f"A{number + 1:02d}", **as_is(well, role)(folder, f"A{number + 1:02d}")})
        treated = [one for one in source.plate_map.imaged() if one.treatment.compound == "C01"]
        for at, entry in enumerate(treated):
            for row in "BC":
                name = f"{row}{at + 1:02d}"
                spoiled = noise if name in blank else TURNED if row == "C" else None
                said = as_is(str(entry.well), "sample", spoiled=spoiled, dose=entry.treatment.dose_um or 0.0)(
                    folder, name
                )
                rows.append({"well": name, **said})
        write_map(folder / "map.csv", rows)

    return make


def one_curve(n_failed: int, low: float, high: float) -> Callable[[Path, str], str]:
    """The export's curve by V count has an IC50 between these, and says how many wells failed."""

    def check(folder: Path, _: str) -> str:
        with (folder / "x" / "curves.csv").open(encoding="utf-8-sig") as file:
            (found,) = [row for row in csv.DictReader(file) if row["metric"] == "v_control"]
        ic50 = float(found["ic50_rel_um"] or found["ic50_abs_um"] or "nan")
        ok = found["n_failed"] == str(n_failed) and low <= ic50 <= high and bool(found["warnings"]) >= bool(n_failed)
        return (
            ""
            if ok
            else f"IC50 {ic50}, {found['status']}, n_failed {found['n_failed']}, warnings {found['warnings']!r}"
        )

    return check


def curve_cases() -> Iterator[Case]:
    """A curve with blank wells in it."""
    for blank in ((), ("B03", "C03"), ("B04", "C05")):
        name = f"blank wells in a curve: {', '.join(blank) or 'none'}"
        steps = (
            Step("replay map.csv d --name p", int(bool(blank))),
            Step("export d -o x --format csv", check=one_curve(len(blank), 0.5, 30.0)),
            Step("results d", int(bool(blank))),
        )
        yield Case(CURVES, name, with_blanks(blank), steps)


def cases() -> Iterator[Driven]:
    """All of them."""
    yield from limit_plates()
    yield from healthy_plates()
    yield from spoiled_plates()
    yield from whole_plates()
    yield from curve_cases()
    yield Case(
        SUPPORTED,
        "images that cannot be read",
        failing,
        (Step("replay map.csv d", 1), Step("results d", 1), Step("status d", 1)),
        quick=True,
    )


def failing(folder: Path) -> None:
    """A well whose file is cut short."""
    path = write_stack(folder, "A01", np.zeros((2, 4, 16, 16), np.uint16), (2.0, 0.5, 0.5))
    content = (folder / path).read_bytes()
    (folder / path).write_bytes(content[: len(content) // 3])
    write_map(folder / "map.csv", [{"well": "A01", "role": "sample", "path": path}])
