"""Recorded plates: a plate of the emulator as files, the way instruments leave them, with its truth beside it.

    OUT/map.csv             the plate map; paths relative to it (none for a Matrix Screener tree: its files name
                            their well themselves, and a stack is many files)
    OUT/A01.ome.tif         layout "ome-tiff": one OME-TIFF a well, axes ZCYX
    OUT/plate.ome.zarr/     layout "ome-zarr": an OME-NGFF 0.5 plate, arrays (c, z, y, x), written with zarr-python
    OUT/experiment--NAME/   layout "matrix-screener": Leica's tree, one plane a file
    OUT/truth/              A01_live.tif, A01_dead.tif (0 or 1), A01_ids.tif, A01_cells.csv for every well; wells.csv

The same plate and seed give the same bytes: nothing holds a date, and every random number is named by the seed. At the
instrument's pace the tree grows as an instrument's does: plane after plane, well after well, with what goes wrong.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import tifffile
import zarr
from zarr.codecs import BloscCodec

from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate import PlateWell
from spheroidd.protocols.plate_map.file import write_plate_map
from spheroidd.protocols.stack import StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.faults import halve
from spheroidd.sim_emulator.leica.tree import ScreenerField, resolution
from spheroidd.sim_emulator.ome_xml import ome_xml
from spheroidd.sim_emulator.source import Delivery, EmulatorSource
from spheroidd.sim_emulator.truth_files import PhantomTruth, PlateTruth

Layout = Literal["ome-tiff", "matrix-screener", "ome-zarr"]
Progress = Callable[[WellId, int, int], None]  # well, wells written, wells in all
_CLASSIC_TIFF_BYTES = 2**32 - 2**26


def write_plate(
    source: EmulatorSource, out: Path, layout: Layout, progress: Progress | None = None, truth: PlateTruth | None = None
) -> None:
    """Write every imaged well, the plate map and the truth into the new or empty folder `out`, at the source's pace.

    Paths go into the map for "ome-tiff" and "ome-zarr", with the voxel size. `truth` is that of a recorded plate; a
    phantom knows its own. ConfigError where `out` holds anything, StorageError where the disk refuses; InstrumentError
    or StackError where the source's faults have the connection or the stack lost: the writing ends there.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"no layout is called {layout!r}", do=f"use one of {', '.join(_LAYOUTS)}")
    if source.recording is None:
        truth = PhantomTruth(source)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError("the folder is not empty", where=str(out), do="name a new or empty folder")
        out.mkdir(parents=True, exist_ok=True)
        if truth is not None:
            (out / "truth").mkdir()
        _write(source, out, layout, progress or (lambda well, done, total: None), truth)
    except OSError as error:
        what = f"cannot write the plate: {error.strerror or error}"
        raise StorageError(what, where=str(out), do="check the disk's space and your rights") from error


def _write(source: EmulatorSource, out: Path, layout: Layout, progress: Progress, truth: PlateTruth | None) -> None:
    plans, written = list(source.plans()), _LAYOUTS[layout]
    paths = {plan.key.well: written.path(plan.key.well, out) for plan in plans}
    rows = [_map_row(entry, paths.get(entry.well), source) for entry in source.plate_map]
    write_plate_map(out / "map.csv", rows)  # first: a plate that grows is run while it does
    if layout == "ome-zarr":
        _plate_group(source, out)
    for done, plan in enumerate(plans):
        written.write(source, plan, out)
        if truth is not None:
            truth.write_well(plan, out / "truth")
        progress(plan.key.well, done + 1, len(plans))
    if truth is not None:
        truth.write_wells(plans, out / "truth" / "wells.csv")


def _map_row(entry: PlateWell, path: Path | None, source: EmulatorSource) -> PlateWell:
    """The well with its file; a map that was given may name other files, which are not this plate's."""
    if path is None:
        return PlateWell(entry.well, entry.treatment)
    files = MappingProxyType({"": path})
    return PlateWell(entry.well, entry.treatment, files, source.preset.pixel_um, source.preset.z_step_um)


def _arriving(source: EmulatorSource, plan: StackPlan) -> Iterator[Delivery]:
    """The stack's slices that are written, each when the instrument has it; one that comes twice is written twice."""
    for delivery in source.deliveries(plan, set(plan.indices())):
        for _ in range(delivery.copies):
            yield delivery


def _write_ome_tiff(source: EmulatorSource, plan: StackPlan, out: Path) -> None:
    """One file, plane after plane in the order of acquisition: axes ZCYX."""
    path = out / f"{plan.key.well}.ome.tif"
    planes = [source.taken(plan, index) for index in plan.indices()]
    text = ome_xml(plan, str(plan.key.well), n_z=plan.n_z, channels=plan.channels, planes=planes).encode()
    cut = False
    with tifffile.TiffWriter(path, bigtiff=plan.n_bytes > _CLASSIC_TIFF_BYTES, byteorder="<") as file:
        for delivery in _arriving(source, plan):
            cut = cut or "cut" in delivery.kinds
            file.write(
                delivery.pixels,
                description=text,
                metadata=None,
                contiguous=False,
                software=False,
                **resolution(plan),
            )
            text = b""
    if cut:
        halve(path)


def _write_matrix_screener(source: EmulatorSource, plan: StackPlan, out: Path) -> None:
    """One plane a file; C00 is 488 and C01 is 561."""
    field = ScreenerField(out / f"experiment--{plan.key.plate}", plan, partial(source.taken, plan))
    field.make()
    for delivery in _arriving(source, plan):
        path = field.write(*delivery.index, delivery.pixels)
        if "cut" in delivery.kinds:
            halve(path)
    field.write_metadata()


def _plate_group(source: EmulatorSource, out: Path) -> None:
    wells = [plan.key.well for plan in source.plans()]
    rows = sorted({well.row for well in wells})
    columns = sorted({well.column for well in wells})
    first = {row: WellId(row, 0).row_name for row in rows}
    second = {column: WellId(0, column).column_name for column in columns}
    plate: dict[str, Any] = {
        "name": source.plate_map.name,
        "field_count": 1,
        "rows": [{"name": first[row]} for row in rows],
        "columns": [{"name": second[column]} for column in columns],
        "wells": [
            {
                "path": f"{first[well.row]}/{second[well.column]}",
                "rowIndex": rows.index(well.row),
                "columnIndex": columns.index(well.column),
            }
            for well in sorted(wells)
        ],
    }
    root = zarr.open_group(out / "plate.ome.zarr", mode="w-", zarr_format=3)
    root.attrs["ome"] = {"version": "0.5", "plate": {"version": "0.5", **plate}}
    for row in rows:
        root.create_group(first[row])


def _write_ome_zarr(source: EmulatorSource, plan: StackPlan, out: Path) -> None:
    """One field "0" with one resolution; a chunk is a plane."""
    well = plan.key.well
    root = zarr.open_group(out / "plate.ome.zarr", mode="r+", zarr_format=3)
    group = root.create_group(f"{well.row_name}/{well.column_name}")
    group.attrs["ome"] = {"version": "0.5", "well": {"version": "0.5", "images": [{"path": "0"}]}}
    image = group.create_group("0")
    space: list[dict[str, Any]] = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    scale = [1.0, plan.z_step_um, plan.pixel_um, plan.pixel_um]
    level: Any = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    axes: list[Any] = [{"name": "c", "type": "channel"}, *space]
    colours: list[Any] = [
        {"label": c, "color": {"488": "00FF00", "561": "FF0000"}[c], "window": _window(), "active": True}
        for c in plan.channels
    ]
    image.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": str(well), "axes": axes, "datasets": [level]}],
        "omero": {"channels": colours},
    }
    array = image.create_array(
        "0",
        shape=(len(plan.channels), plan.n_z, plan.height, plan.width),
        chunks=(1, 1, plan.height, plan.width),
        dtype=plan.dtype,
        compressors=BloscCodec(typesize=2, cname="lz4", clevel=5, shuffle="bitshuffle"),
        dimension_names=("c", "z", "y", "x"),
    )
    for delivery in _arriving(source, plan):
        channel, z = delivery.index
        array[plan.channels.index(channel), z] = delivery.pixels
        if "cut" in delivery.kinds:
            halve(_zarr_image(well, out) / "0" / "c" / str(plan.channels.index(channel)) / str(z) / "0" / "0")


def _zarr_image(well: WellId, out: Path) -> Path:
    return out / "plate.ome.zarr" / well.row_name / well.column_name / "0"


def _window() -> dict[str, int]:
    return {"min": 0, "max": 65535, "start": 100, "end": 3000}


@dataclass(frozen=True, slots=True)
class _Written:
    """A layout: how a stack is written, and the path that the map has for it."""

    write: Callable[[EmulatorSource, StackPlan, Path], None]
    path: Callable[[WellId, Path], Path | None]


_LAYOUTS: dict[str, _Written] = {
    "ome-tiff": _Written(_write_ome_tiff, lambda well, out: out / f"{well}.ome.tif"),
    "matrix-screener": _Written(_write_matrix_screener, lambda well, out: None),
    "ome-zarr": _Written(_write_ome_zarr, _zarr_image),
}
