"""B5: numbers read from image files. Every stack says where it is from: pixels are 1000 x its number + 100 x channel + z
(`LIVE_FIRST`), so that another file's, another channel's or another slice's pixels are seen in what was stored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from tests.acquisition.images import test_file_sets as sets
from tests.acquisition.images.metadata.test_voxel_axes import write_ndtiff_at, write_ome_at
from tests.acquisition.images.test_recorded_formats import write_ndtiff
from tests.cases.case import Case, Driven, Plate, PlateWell, Seen, Step, one_line, spheroidd, write_map

KIND = "B5 image files"
N_Z, SIDE = 4, 24
Write = Callable[[Path, str], Mapping[str, object]]


def stack(number: int, live: int = 0) -> NDArray[np.uint16]:
    """(z, channel, y, x); the channel `live` holds the values of 488."""
    values = [[1000 * number + 100 * int(c != live) + z for c in range(2)] for z in range(N_Z)]
    return np.broadcast_to(np.array(values, np.uint16)[..., None, None], (N_Z, 2, SIDE, SIDE)).copy()


def number(well: str) -> int:
    """1 for A01."""
    return 12 * (ord(well[0]) - ord("A")) + int(well[1:])


# -- what is looked at -------------------------------------------------------------------------------------------------


def stored(folder: Path, well: str) -> tuple[list[list[int]], float, float]:
    """The first pixel of each (channel, z) as Zarr has it, the pixel and the z-step; not by our own reader."""
    group = zarr.open_group(folder / "d" / "p.ome.zarr" / well[0] / well[1:] / "0", mode="r")
    ((scale,),) = (
        [each["scale"] for each in one["coordinateTransformations"]]
        for one in group.attrs["ome"]["multiscales"][0]["datasets"][:1]  # type: ignore[index,call-overload]
    )
    array = np.asarray(group["0"])
    return array[:, :, 0, 0].astype(int).tolist(), float(scale[-1]), float(scale[-3])


def read(first: int | None = None, z_um: float = 2.0, pixel_um: float = 0.5, n_z: int = N_Z) -> Seen:
    """The pixels of the named stack, 488 first, with these lengths. `first` is the value at 488, slice 0."""

    def seen(folder: Path, well: str, row: Mapping[str, Any]) -> tuple[str, bool]:
        if row["status"] == "failed":
            return f"refused: {one_line(row['reason'])[-160:]}", False
        values, own_um, step_um = stored(folder, well)
        start = 1000 * number(well) if first is None else first
        right = [[start + 100 * c + z for z in range(n_z)] for c in range(2)]
        ok = values == right and np.isclose(own_um, pixel_um) and np.isclose(step_um, z_um)
        firsts = ", ".join(str(one[0]) for one in values)
        return f"read: {firsts}; {len(values[0])} slices; {own_um:g} and {step_um:g} um", bool(ok)

    return seen


def refused(*words: str) -> Seen:
    """No pixel is stored, and the reason says these words."""

    def seen(folder: Path, well: str, row: Mapping[str, Any]) -> tuple[str, bool]:
        reason = one_line(row["reason"] or "")
        ok = row["status"] == "failed" and all(word in reason for word in words) and row["v_count"] is None
        return (f"refused: {words[0]}" if ok else f"{row['status']}: {reason[-200:]}"), ok

    return seen


def told(words: str, then: Seen) -> Seen:
    """It is read, and an alarm says these words."""

    def seen(folder: Path, well: str, row: Mapping[str, Any]) -> tuple[str, bool]:
        happened, ok = then(folder, well, row)
        said = words in one_line(spheroidd(folder, "alarms d").stdout)
        return f"{happened}; told: {words}" if said else f"{happened}; nothing was told", ok and said

    return seen


# -- what is written ---------------------------------------------------------------------------------------------------

UM: Mapping[str, object] = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}


def ome(
    names: Sequence[str] | None = ("Calcein", "PI"), live: int = 0, lengths: Mapping[str, object] = UM, **how: object
) -> Write:
    """An OME-TIFF of one stack."""

    def write(folder: Path, well: str) -> Mapping[str, object]:
        metadata = {"axes": "ZCYX", **lengths, **({"Channel": {"Name": list(names)}} if names else {})}
        pixels = stack(number(well), live)
        tifffile.imwrite(folder / f"{well}.ome.tif", pixels, metadata=metadata, photometric="minisblack", **how)
        return {"path": f"{well}.ome.tif"}

    return write


def imagej(
    units: Mapping[str, object], spacing: float, resolution: float = 2.0, live: int = 0, **more: object
) -> Write:
    """An ImageJ hyperstack."""

    def write(folder: Path, well: str) -> Mapping[str, object]:
        metadata = {"axes": "ZCYX", "spacing": spacing, **units, **more}
        pixels = stack(number(well), live)
        tifffile.imwrite(
            folder / f"{well}.tif", pixels, imagej=True, resolution=(resolution, resolution), metadata=metadata
        )
        return {"path": f"{well}.tif"}

    return write


def ngff(names: Sequence[str], live: int = 0, units: Sequence[str] = ("micrometer",) * 3, z: float = 2.0) -> Write:
    """An OME-Zarr 0.5 image."""

    def write(folder: Path, well: str) -> Mapping[str, object]:
        pixels = stack(number(well), live).swapaxes(0, 1)
        group = zarr.create_group(folder / f"{well}.zarr")
        array = group.create_array("0", shape=pixels.shape, dtype="uint16", chunks=(1, 1, SIDE, SIDE))
        array[:] = pixels
        axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}]
        axes += [{"name": name, "type": "space", "unit": unit} for name, unit in zip("zyx", units, strict=True)]
        scale = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, z, 0.5, 0.5]}]}
        labels = {"channels": [{"label": name, "color": "FFFFFF"} for name in names]}
        said = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [scale]}], "omero": labels}
        group.attrs["ome"] = said
        return {"path": f"{well}.zarr"}

    return write


def planes(name: str, where: str, omit: Sequence[int] = (), first: int = 0, words: tuple[str, str] = ("", "")) -> Write:
    """A folder with a file for each plane, for a well of row `where`."""

    def write(folder: Path, well: str) -> Mapping[str, object]:
        inside, pixels = folder / f"planes-{well}", stack(number(well))
        inside.mkdir()
        row = f"{ord(where[-1]) - 64 + 26 * (len(where) - 1):02d}"
        for z in range(N_Z):
            for c in range(2):
                if z in omit:
                    continue
                said = name.format(well=f"{where}03", row=row, z=z + first, c=c, c1=c + 1, word=words[c])
                tifffile.imwrite(inside / said, pixels[z, c], photometric="minisblack", metadata=None)
        return {"path": inside.name, "pixel_um": 0.5, "z_step_um": 2}

    return write


def one_of(writer: Callable[[Path], object], path: str, **columns: object) -> Write:
    """A member of a set that `writer` makes in a folder of its own."""

    def write(folder: Path, well: str) -> Mapping[str, object]:
        inside = folder / f"set-{well}"
        inside.mkdir()
        writer(inside)
        return {"path": f"{inside.name}/{path}", **columns}

    return write


def micromanager(folder: Path) -> None:
    """One position of a set of Micro-Manager's, copied without the others."""
    sets.write_micromanager(folder / "scr_1_MMStack_A02-Site_0.ome.tif", "A02", "scr_1_MMStack_A01-Site_0.ome.tif")


def datasets(folder: Path) -> None:
    """An NDTiff data set of two positions, the second exposed alike but 1000 counts brighter."""
    indices = [(channel, z) for z in range(N_Z) for channel in ("Calcein", "PI")]
    dark, bright = (
        {(c, z): np.full((6, 5), 1000 * n + 100 * (c == "PI") + z, np.uint16) for c, z in indices} for n in (1, 2)
    )
    write_ndtiff(folder / "screen_1", ["A1", "B1"], {"A1": dark, "B1": bright})


def of_second(well: str) -> Seen:
    """The values that `test_file_sets` gives a well."""
    return read(1000 * (sets.WELLS.index(well) + 1), n_z=sets.N_Z)


def packed(how: str) -> PlateWell:
    """A TIFF packed with a codec."""
    return PlateWell(KIND, f"codec: {how}", ome(compression=how), read())


def named(names: Sequence[str], live: int) -> PlateWell:
    """Channels by what their names say."""
    return PlateWell(KIND, f"channels {', '.join(names)}", ome(names, live), read())


def labels(*names: str) -> list[str]:
    """ImageJ's labels of slices."""
    return [f"c:{c + 1}/2 z:{z + 1}/{N_Z} - {name}" for z in range(N_Z) for c, name in enumerate(names)]


SETS = Plate(
    KIND,
    "sets",
    (
        PlateWell(KIND, "the second file of an OME-TIFF set", one_of(sets.write_set, "plate_A02.ome.tif"), of_second("A02")),
        PlateWell(KIND, "the third of a set with a companion", one_of(sets.write_companion, "plate_B07.ome.tif"), of_second("B07")),
        PlateWell(KIND, "a file that names the first as its master", one_of(sets.write_master, "plate_A02.ome.tif"), of_second("A02")),
        PlateWell(KIND, "Micro-Manager's second position alone", one_of(micromanager, "scr_1_MMStack_A02-Site_0.ome.tif"), of_second("A02")),
        PlateWell(KIND, "NDTiff, the second position", one_of(datasets, "screen_1/position=B1"), read(2000, z_um=1.5)),
        PlateWell(KIND, "NDTiff, no position named", one_of(datasets, "screen_1"), refused("position")),
        PlateWell(KIND, "several images in a file, none named", one_of(lambda f: sets.write_several(f / "a.ome.tif"), "a.ome.tif"), refused("a.ome.tif")),
        *(PlateWell(KIND, f"row {row}: {name}", planes(name, row, words=words), read())
          for row, name, words in (
              ("C", "{well}_z{z:03d}_ch{c:02d}.tif", ("", "")),
              ("Z", "{well}_z{z:03d}_ch{c:02d}.tif", ("", "")),
              ("C", "Plate1_{well}_T0001F001L01A01Z{z:02d}C{c1:02d}.tif", ("", "")),
              ("AC", "p_{well}_{word}_z{z}.tif", ("GFP", "PI")),
              ("Z", "{well}-C{c}-Z{z}.tif", ("", "")),
              ("F", "r{row}c03f01p{z:02d}-ch{c1}sk1fk1fl1.tiff", ("", "")),
              ("T", "{well}_t0_c{c}_z{z}.tif", ("", "")),
              ("S", "{well}_s1_w{c1}_z{z}.tif", ("", "")),
          )),
        PlateWell(KIND, "planes, slice 2 of 4 is not there", planes("{well}_z{z}_c{c}.tif", "B", omit=(2,)), refused("channel 0 z 2")),
    ),
)  # fmt: skip

CHANNELS = Plate(
    KIND,
    "channels and lengths",
    (
        *(named(names, live) for names, live in (
            (("EthD-1", "Calcein AM"), 1), (("PI", "conf488"), 1), (("mCherry", "ch2"), 1), (("Fluo 1", "FITC"), 1),
            (("568", "Alexa 488"), 1), (("dead", "w2"), 1), (("w1conf561-488dual", "w2conf488-488dual"), 1),
            (("SYTOX Orange", "something"), 1),
        )),
        PlateWell(KIND, "OME-Zarr TRITC, Calcein", ngff(("TRITC", "Calcein"), 1), read()),
        PlateWell(KIND, "ImageJ's labels PI, GFP", imagej({"unit": "um"}, 2.0, live=1, Labels=labels("PI", "GFP")), read()),
        PlateWell(KIND, "DAPI, GFP", ome(("DAPI", "GFP")), refused("DAPI")),
        PlateWell(KIND, "PI, EthD-1", ome(("PI", "EthD-1")), refused("561")),
        PlateWell(KIND, "alpha, beta", ome(("alpha", "beta")), told("are not understood", read())),
        PlateWell(KIND, "ImageJ, zunit nm", imagej({"unit": "um", "zunit": "nm"}, 2000.0), read()),
        PlateWell(KIND, "ImageJ, all in mm but z in um", imagej({"unit": "mm", "yunit": "mm", "zunit": "um"}, 2.0, 2000.0), read()),
        PlateWell(KIND, "ImageJ, inches", imagej({"unit": "inch"}, 0.0000787401575, 50800.0), read()),
        PlateWell(KIND, "OME, x in nm and z in um", ome(lengths={"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}), read()),
        PlateWell(KIND, "OME, z in mm", ome(lengths={**UM, "PhysicalSizeZ": 0.002, "PhysicalSizeZUnit": "mm"}), read()),
        PlateWell(KIND, "NGFF, z in nanometer", ngff(("Calcein", "PI"), 0, ("nanometer", "micrometer", "micrometer"), 2000.0), read()),
        packed("lzw"), packed("zstd"), packed("packbits"), packed("zlib"), packed("lzma"),
    ),
)  # fmt: skip


def with_slope(header: Mapping[str, object]) -> Write:
    """ImageJ's calibration of pixel values."""
    return imagej({"unit": "um"}, 2.0, **header)


def slope_read(scale: int, offset: int) -> Seen:
    """The stored values are the file's times the scale, plus the offset."""

    def seen(folder: Path, well: str, row: Mapping[str, Any]) -> tuple[str, bool]:
        if row["status"] == "failed":
            return f"refused: {one_line(row['reason'])[-160:]}", False
        values, *_ = stored(folder, well)
        right = [[(1000 * number(well) + 100 * c + z) * scale + offset for z in range(N_Z)] for c in range(2)]
        return f"read: {values[0][0]}", values == right

    return seen


AXES = Plate(
    KIND,
    "axes and calibrations",
    (
        PlateWell(KIND, "NDTiff, slice 3 lost", one_of(lambda f: write_ndtiff_at(f / "s", {0: 0.0, 1: 1.5, 2: 3.0, 4: 6.0}), "s"), refused("slice 3")),
        PlateWell(KIND, "NDTiff at 0, 1, 3, 8 um", one_of(lambda f: write_ndtiff_at(f / "s", {0: 0.0, 1: 1.0, 2: 3.0, 3: 8.0}), "s"), refused("do not stand at equal distances")),
        PlateWell(KIND, "OME-TIFF at 0, 2, 4, 8 um", one_of(lambda f: write_ome_at(f / "a.ome.tif", (0, 2, 4, 8)), "a.ome.tif"), refused("do not stand at equal distances")),
        PlateWell(KIND, "OME-TIFF at 0, .002, .004, .009 mm", one_of(lambda f: write_ome_at(f / "a.ome.tif", (0, 0.002, 0.004, 0.009), "mm"), "a.ome.tif"), refused("do not stand at equal distances")),
        PlateWell(KIND, "z-step 2 um, slices .5 um apart", one_of(lambda f: write_ome_at(f / "a.ome.tif", (0, 0.5, 1.0, 1.5)), "a.ome.tif"), refused("2 um", "0.5 um")),
        PlateWell(KIND, "pixel values = 10 + 2 x", with_slope({"cf": 0, "c0": 10, "c1": 2}), slope_read(2, 10)),
        PlateWell(KIND, "pixel values = 3 x", with_slope({"cf": 0, "c0": 0, "c1": 3}), slope_read(3, 0)),
        PlateWell(KIND, "pixel values = .25 x photons", with_slope({"cf": 0, "c0": 0, "c1": 0.25, "vunit": "photons"}), refused("calibrated")),
        PlateWell(KIND, "pixel values by a curve", with_slope({"cf": 4, "c0": 1, "c1": 2}), refused("calibrated")),
    ),
)  # fmt: skip


def one_stack(
    columns: Mapping[str, object] | None = None, lengths: Mapping[str, object] = UM
) -> Callable[[Path], None]:
    """A plate of one well."""

    def make(folder: Path) -> None:
        said = ome(lengths=lengths)(folder, "A01")
        write_map(folder / "map.csv", [{"well": "A01", "role": "sample", **said, **(columns or {})}])

    return make


# Their pixels are noise: the row stands, with the size that holds, its images failed, and the run ends with 1.
REPLAY = "replay map.csv d --name p"


def kept(pixel_um: float, z_um: float) -> Callable[[Path, str], str]:
    """These lengths stand in the store."""

    def check(folder: Path, _: str) -> str:
        found = stored(folder, "A01")[1:]
        return "" if np.allclose(found, (pixel_um, z_um)) else f"{found[0]:g} and {found[1]:g} um are stored"

    return check


def watched(first: int, name: str = "{word}_z{z}.tif", n_z: int = N_Z) -> Callable[[Path], None]:
    """A watched folder with two wells whose slices are numbered from `first`."""

    def make(folder: Path) -> None:
        write_map(folder / "m.csv", [{"well": "A01", "role": "negative_control"}, {"well": "A02", "role": "sample"}])
        pattern = "{well}/" + name.replace("{word}", "{channel}").replace(":03d", "")
        (folder / "c.toml").write_text(
            f'[data]\ndir = "d"\n[plate]\nname = "p"\nmap = "m.csv"\n[source]\nkind = "watch"\nfolder = "in"\n'
            f'pattern = "{pattern}"\nchannels = {{ "488" = "GFP", "561" = "PI" }}\nn_z = {n_z}\npixel_um = 0.5\n'
            "z_step_um = 2.0\nsettle_s = 2\nend_after_s = 4\n"
        )
        for well in ("A01", "A02"):
            (folder / "in" / well).mkdir(parents=True)
            for z in range(N_Z):
                for c, word in enumerate(("GFP", "PI")):
                    tifffile.imwrite(folder / "in" / well / name.format(word=word, z=z + first), stack(1)[z, c])

    return make


ALONE: tuple[Case, ...] = (
    Case(KIND, "map .65 um, file .5 um", one_stack({"pixel_um": 0.65}), (Step(REPLAY, 2, ("0.65", "0.5", "voxel")),)),
    Case(KIND, "the same, the file's word", one_stack({"pixel_um": 0.65}), (
        Step(f"{REPLAY} --voxel-from file", 1, (), (), kept(0.5, 2.0)),)),
    Case(KIND, "the same, the map's word", one_stack({"pixel_um": 0.65}), (
        Step(f"{REPLAY} --voxel-from map", 1, (), (), kept(0.65, 2.0)),)),
    Case(KIND, "option 1 um, file 2 um", one_stack(), (Step(f"{REPLAY} --z-step-um 1", 2, ("1 um", "2 um")),)),
    Case(KIND, "a pixel of 65 um", one_stack(lengths={**UM, "PhysicalSizeX": 65.0, "PhysicalSizeY": 65.0}), (
        Step(REPLAY, 2, ("65 um",)),)),
    Case(KIND, "a z-step of 2 nm", one_stack(lengths={**UM, "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "nm"}), (
        Step(REPLAY, 2, ("0.002 um",)),)),
    *(Case(KIND, f"watched slices from {first}", watched(first), (
        Step("run c.toml", 2, (f"first_z = {first}", "nothing needs to be imaged again")),)) for first in (1, 2)),
    Case(KIND, "watched slices from 001 in long names", watched(1, "plate7 {word} z{z:03d}.tif"), (
        Step("run c.toml", 2, ("first_z = 1",)),)),
    Case(KIND, "watched slices from 0", watched(0), (Step("run c.toml", 1, ("2 of 2 wells have a row",)),)),
)  # fmt: skip


def cases() -> Iterator[Driven]:
    """All of them."""
    yield from (SETS, CHANNELS, AXES)
    yield from ALONE
