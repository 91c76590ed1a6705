"""Recorded plates: a plate of the emulator as files, the way instruments leave them, with its truth beside it.

    OUT/map.csv             the plate map; paths relative to it (none for a Matrix Screener tree: its files name
                            their well themselves, and a stack is many files)
    OUT/A01.ome.tif         layout "ome-tiff": one OME-TIFF a well, axes ZCYX
    OUT/plate.ome.zarr/     layout "ome-zarr": an OME-NGFF 0.5 plate, arrays (c, z, y, x), written with zarr-python
    OUT/experiment--NAME/   layout "matrix-screener": Leica's tree, one plane a file
    OUT/truth/              A01_live.tif, A01_dead.tif (0 or 1), A01_ids.tif, A01_cells.csv for every well; wells.csv

The same plate and seed give the same bytes: nothing holds a date, and every random number is named by the seed.
"""

import csv
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.plate import PlateWell
from spheroidd.protocols.plate_map_file import write_plate_map
from spheroidd.protocols.stack import StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.leica_tree import ScreenerField, resolution
from spheroidd.sim_emulator.ome_xml import ome_xml
from spheroidd.sim_emulator.phantom import CellState
from spheroidd.sim_emulator.scene import Scene
from spheroidd.sim_emulator.source import EmulatorSource
from spheroidd.sim_emulator.stage import taken

Layout = Literal["ome-tiff", "matrix-screener", "ome-zarr"]
Progress = Callable[[WellId, int, int], None]  # well, wells written, wells in all
_CLASSIC_TIFF_BYTES = 2**32 - 2**26


def write_plate(source: EmulatorSource, out: Path, layout: Layout, progress: Progress | None = None) -> None:
    """Write every imaged well, the plate map and the truth into the new or empty folder `out`.

    Paths go into the map for "ome-tiff" and "ome-zarr", with the voxel size. ConfigError where `out` holds anything,
    StorageError where the disk refuses.
    """
    if layout not in _LAYOUTS:
        raise ConfigError(f"no layout is called {layout!r}", do=f"use one of {', '.join(_LAYOUTS)}")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError("the folder is not empty", where=str(out), do="name a new or empty folder")
        (out / "truth").mkdir(parents=True)
        _write(source, out, layout, progress or (lambda well, done, total: None))
    except OSError as error:
        what = f"cannot write the plate: {error.strerror or error}"
        raise StorageError(what, where=str(out), do="check the disk's space and your rights") from error


def _write(source: EmulatorSource, out: Path, layout: Layout, progress: Progress) -> None:
    paths: dict[WellId, Path] = {}
    if layout == "ome-zarr":
        _plate_group(source, out)
    plans = list(source.plans())
    for done, plan in enumerate(plans):
        scene = source.scene(plan.key.well)
        path = _LAYOUTS[layout](scene, plan, out)
        if path is not None:
            paths[plan.key.well] = path
        _write_truth(scene, plan, out / "truth")
        progress(plan.key.well, done + 1, len(plans))
    rows = [_map_row(entry, paths.get(entry.well), source) for entry in source.plate_map]
    write_plate_map(out / "map.csv", rows)
    _write_wells(source, plans, out / "truth" / "wells.csv")


def _map_row(entry: PlateWell, path: Path | None, source: EmulatorSource) -> PlateWell:
    """The well with its file; a map that was given may name other files, which are not this plate's."""
    if path is None:
        return PlateWell(entry.well, entry.treatment)
    files = MappingProxyType({"": path})
    return PlateWell(entry.well, entry.treatment, files, source.preset.pixel_um, source.preset.z_step_um)


def _images(scene: Scene, plan: StackPlan) -> Iterator[tuple[str, int, NDArray[np.uint16]]]:
    return ((index.channel, index.z, scene.image(index.channel, index.z)) for index in plan.indices())


def _write_ome_tiff(scene: Scene, plan: StackPlan, out: Path) -> Path:
    """One file, plane after plane in the order of acquisition: axes ZCYX."""
    path = out / f"{plan.key.well}.ome.tif"
    planes = [taken(scene.preset, plan, index) for index in plan.indices()]
    text = ome_xml(plan, str(plan.key.well), n_z=plan.n_z, channels=plan.channels, planes=planes).encode()
    with tifffile.TiffWriter(path, bigtiff=plan.n_bytes > _CLASSIC_TIFF_BYTES, byteorder="<") as file:
        for _, _, image in _images(scene, plan):
            file.write(image, description=text, metadata=None, contiguous=False, software=False, **resolution(plan))
            text = b""
    return path


def _write_matrix_screener(scene: Scene, plan: StackPlan, out: Path) -> None:
    """One plane a file; C00 is 488 and C01 is 561."""
    field = ScreenerField(out / f"experiment--{plan.key.plate}", plan, scene.preset)
    field.make()
    for channel, z, image in _images(scene, plan):
        field.write(channel, z, image)
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


def _write_ome_zarr(scene: Scene, plan: StackPlan, out: Path) -> Path:
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
    for channel, z, pixels in _images(scene, plan):
        array[plan.channels.index(channel), z] = pixels
    return out / "plate.ome.zarr" / well.row_name / well.column_name / "0"


def _window() -> dict[str, int]:
    return {"min": 0, "max": 65535, "start": 100, "end": 3000}


_LAYOUTS: dict[str, Callable[[Scene, StackPlan, Path], Path | None]] = {
    "ome-tiff": _write_ome_tiff,
    "matrix-screener": _write_matrix_screener,
    "ome-zarr": _write_ome_zarr,
}


def _write_truth(scene: Scene, plan: StackPlan, folder: Path) -> None:
    """Masks and cell numbers plane by plane, and the cells' table."""
    well = plan.key.well
    with ExitStack() as stack:
        files = [
            stack.enter_context(tifffile.TiffWriter(folder / f"{well}_{name}.tif", byteorder="<"))
            for name in ("live", "dead", "ids")
        ]
        rows = scene.cells()
        number = np.uint16 if rows["id"].max(initial=0) < 2**16 else np.uint32
        for plane in scene.planes_truth():
            for file, pixels in zip(files, plane, strict=True):
                page = pixels.astype(np.uint8 if pixels.dtype == bool else number)
                file.write(
                    page, compression="zlib", metadata=None, contiguous=False, software=False, **resolution(plan)
                )
    with (folder / f"{well}_cells.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        names = rows.dtype.names or ()
        writer.writerow(names)
        writer.writerows([_cell(name, row[name]) for name in names] for row in rows)


def _cell(name: str, value: np.generic) -> str:
    if name == "state":
        return CellState(int(value)).name.lower()
    return f"{value:.3f}" if isinstance(value, np.floating) else str(int(value))


def _write_wells(source: EmulatorSource, plans: list[StackPlan], path: Path) -> None:
    rows = [dataclasses.asdict(source.well_truth(plan.key.well)) for plan in plans]
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
