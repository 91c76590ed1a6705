"""Lengths and positions: each with its own unit, the same from every source, slices at equal distances."""

from contextlib import closing

import numpy as np
import pytest
import tifffile
import zarr

from spheroidd.acquisition.images.lif import _scan_range, _step_um
from spheroidd.acquisition.images.metadata.units import length_um
from spheroidd.acquisition.images.metadata.z_axis import measured_step_um
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.protocols.errors import StackError
from spheroidd.testing.source_contract import FakeClock
from tests.acquisition.images.test_recorded_formats import plate, write_ndtiff

PLANES = np.random.default_rng(0).integers(1, 60000, (5, 6, 7)).astype(np.uint16)


def lengths(path):
    with RecordedStack({"": path}) as stack:
        return stack.pixel_um, stack.z_step_um


@pytest.mark.parametrize(
    ("units", "spacing", "um"),
    [
        ({"unit": "um"}, 0.25, (0.5, 0.25)),
        ({"unit": "um", "zunit": "nm"}, 250, (0.5, 0.25)),
        ({"unit": "um", "yunit": "um", "zunit": "mm"}, 0.002, (0.5, 2.0)),
        ({"unit": "micron", "zunit": "\\u00B5m"}, 2, (0.5, 2.0)),
        ({"unit": "\\u00B5m"}, 2, (0.5, 2.0)),
        ({"unit": "mm", "zunit": "um"}, 2, (500.0, 2.0)),
        ({"unit": "pixel", "zunit": "um"}, 2, (None, 2.0)),
        ({"unit": "um", "zunit": "pixel"}, 2, (0.5, None)),
    ],
)
def test_imagejs_axes_have_units_of_their_own(tmp_path, units, spacing, um):
    metadata = {"axes": "ZYX", "spacing": spacing, **units}
    tifffile.imwrite(tmp_path / "a.tif", PLANES, imagej=True, resolution=(2, 2), metadata=metadata)
    assert lengths(tmp_path / "a.tif") == (pytest.approx(um[0]), pytest.approx(um[1]))


def test_imagejs_height_in_another_unit_is_no_square_pixel(tmp_path):
    metadata = {"axes": "ZYX", "spacing": 1, "unit": "um", "yunit": "nm"}
    tifffile.imwrite(tmp_path / "a.tif", PLANES, imagej=True, resolution=(2, 2), metadata=metadata)
    with pytest.raises(StackError, match=r"its pixels are 0\.5 um wide and 0\.0005 um high"):
        open_file(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("x", "z", "um"),
    [
        ((500, "nm"), (0.002, "mm"), (0.5, 2.0)),
        ((0.5, "µm"), (20000, "Å"), (0.5, 2.0)),
        ((0.00005, "cm"), (2, "µm"), (0.5, 2.0)),
        ((0.5, "µm"), (2, "pixel"), (0.5, None)),
        ((0.5, "Mm"), (2, "µm"), (None, 2.0)),
    ],
)
def test_ome_axes_have_units_of_their_own(tmp_path, x, z, um):
    metadata = {"axes": "ZYX", "PhysicalSizeX": x[0], "PhysicalSizeXUnit": x[1], "PhysicalSizeY": x[0]}
    metadata |= {"PhysicalSizeYUnit": x[1], "PhysicalSizeZ": z[0], "PhysicalSizeZUnit": z[1]}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANES, photometric="minisblack", metadata=metadata)
    assert lengths(tmp_path / "a.ome.tif") == (pytest.approx(um[0]), pytest.approx(um[1]))


@pytest.mark.parametrize(
    ("units", "scale", "um"),
    [
        ({"z": "nanometer", "y": "micrometer", "x": "micrometer"}, (250, 0.5, 0.5), (0.5, 0.25)),
        ({"z": "micrometer", "y": "nanometer", "x": "millimeter"}, (2, 500, 0.0005), (0.5, 2.0)),
        ({"z": None, "y": "micrometer", "x": "micrometer"}, (2, 0.5, 0.5), (0.5, None)),
        ({"z": "angstrom", "y": "centimeter", "x": "centimeter"}, (20000, 5e-5, 5e-5), (0.5, 2.0)),
    ],
)
def test_ngff_axes_have_units_of_their_own(tmp_path, units, scale, um):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("0", shape=PLANES.shape, dtype="uint16", chunks=(1, 6, 7))[:] = PLANES
    axes = [{"name": axis, "type": "space"} | ({"unit": unit} if unit else {}) for axis, unit in units.items()]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [dataset]}]}
    assert lengths(tmp_path / "a.zarr") == (pytest.approx(um[0]), pytest.approx(um[1]))


def series(z_length, z_unit, n_z, scan=""):
    from defusedxml import ElementTree

    return ElementTree.fromstring(
        f'<Element><DimensionDescription DimID="1" NumberOfElements="11" Length="5e-6" Unit="m"/>'
        f'<DimensionDescription DimID="3" NumberOfElements="{n_z}" Length="{z_length}" Unit="{z_unit}"/>'
        f"{scan}</Element>"
    )


@pytest.mark.parametrize(
    ("length", "unit", "um"),
    [("8e-6", "m", 2.0), ("-8e-6", "m", 2.0), ("8", "µm", 2.0), ("8e-6", "", 2.0), ("0", "m", None)],
)
def test_leicas_axes_have_units_of_their_own(length, unit, um):
    found = series(length, unit, 5)
    assert _step_um(found, "X") == pytest.approx(0.5)
    assert _step_um(found, "Z") == (None if um is None else pytest.approx(um))


def test_a_leica_scan_that_was_set_otherwise_than_the_series_says_is_seen():
    scan = '<ATLConfocalSettingDefinition Sections="{}" ValidBeginStack="1" ValidEndStack="1" Begin="{}" End="1e-5"/>'
    agreeing, other, short = scan.format(5, "2e-6"), scan.format(5, "6e-6"), scan.format(9, "2e-6")
    assert _scan_range(series("8e-6", "m", 5, agreeing), 5, 2.0) == ({}, ())
    assert (
        "2 um, and its slices' positions are 1 um" in _scan_range(series("8e-6", "m", 5, other), 5, 2.0)[0]["z_step_um"]
    )
    assert _scan_range(series("8e-6", "m", 5, short), 5, 2.0)[1] == ("its scan was set to 9 slices, and it holds 5",)


@pytest.mark.parametrize("unit", ["Mm", "MM", "Pm", "light-year", "pixel"])
def test_a_unit_that_is_none_of_ours_gives_no_length(unit):
    assert length_um(1, unit) is None


# -- slices at equal distances -----------------------------------------------------------------------------------------


def write_ndtiff_at(folder, positions_um, name="ZPosition_um_Intended"):
    """One channel with a slice at each of (number -> position)."""
    planes = {"p": {("488", z): PLANES[0] for z in positions_um}}
    write_ndtiff(folder, ["p"], planes)
    index, pixels = (folder / "NDTiff.index").read_bytes(), (folder / "stack.tif").read_bytes()
    for z, um in positions_um.items():
        old = f'"ZPosition_um_Intended": {1.5 * z}'.encode()
        new = f'"{name}": {um}'.encode().ljust(len(old))
        assert len(new) == len(old)
        pixels = pixels.replace(old, new)
    (folder / "stack.tif").write_bytes(pixels)
    (folder / "NDTiff.index").write_bytes(index)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (
            {0: 0.0, 1: 1.0, 2: 3.0, 3: 4.0, 4: 9.0},
            "do not stand at equal distances: 1 from slice 0 to 1, 2 from slice 1 to 2",
        ),
        ({0: 0.0, 1: 2.0, 2: 4.0, 3: 7.0}, "3 from slice 2 to 3"),
        ({0: 0.0, 1: 1.5, 2: 3.0, 4: 6.0, 5: 7.5}, "1 of 6 planes are missing or cut off: channel '488' slice 3"),
        ({0: 0.0, 1: 1.5, 9: 9.0}, "7 of 10 planes are missing or cut off: channel '488' slice 2, .*slice 6, ..."),
    ],
)
def test_an_ndtiffs_gap_and_uneven_slices_are_named(tmp_path, positions, message):
    write_ndtiff_at(tmp_path / "set", positions)
    with pytest.raises(StackError, match=message):
        open_file(tmp_path / "set")


@pytest.mark.parametrize(
    ("positions", "um"),
    [
        ({0: 0.0, 1: 2.0, 2: 4.0, 3: 6.0}, 2.0),
        ({0: 6.0, 1: 4.0, 2: 2.0, 3: 0.0}, 2.0),
        ({-1: -1.0, 0: 0.0, 1: 1.0}, 1.0),
        ({0: 5.0, 1: 5.0}, None),
    ],
)
def test_an_ndtiffs_step_is_that_of_all_its_slices(tmp_path, positions, um):
    write_ndtiff_at(tmp_path / "set", positions)
    with closing(open_file(tmp_path / "set")) as file:
        assert file.layout.z_step_um == um


def write_ome_at(path, positions, unit="µm", step_um=2.0):
    own = f' PositionZUnit="{unit}"' if unit else ""
    said = "".join(f'<Plane TheC="0" TheZ="{z}" TheT="0" PositionZ="{at}"{own}/>' for z, at in enumerate(positions))
    tiff_data = f'<TiffData IFD="0" PlaneCount="{len(positions)}"/>'
    sizes = f'SizeX="7" SizeY="6" SizeZ="{len(positions)}" SizeC="1" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5"'
    text = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
        f'DimensionOrder="XYZCT" Type="uint16" {sizes} PhysicalSizeZ="{step_um}">{tiff_data}{said}'
        f"</Pixels></Image></OME>"
    )
    pixels = np.broadcast_to(PLANES[:1], (len(positions), 6, 7))
    tifffile.imwrite(path, pixels, description=text.encode(), metadata=None, photometric="minisblack")


@pytest.mark.parametrize(
    ("positions", "unit"),
    [
        ((0, 2, 4, 8, 10), "µm"),
        ((0, 1, 3, 8, 20), "µm"),
        ((0, -1, -3, -8, -20), "µm"),
        ((0, 0.002, 0.004, 0.008), "mm"),
        ((0, 1, 3, 8, 20), "reference frame"),
        ((0, 1, 3, 8, 20), ""),
    ],
)
def test_an_ome_tiffs_uneven_slices_are_refused(tmp_path, positions, unit):
    write_ome_at(tmp_path / "a.ome.tif", positions, unit)
    with pytest.raises(StackError, match=r"a\.ome\.tif, channel 488: its slices do not stand at equal distances"):
        RecordedStack({"": tmp_path / "a.ome.tif"})


@pytest.mark.parametrize(
    ("positions", "unit"),
    [
        ((10, 12, 14, 16), "µm"),
        ((16, 14.1, 12.05, 9.9), "µm"),
        ((5, 5, 5, 5), "µm"),
        ((5, 5.01, 4.99, 5.0), "µm"),
        ((5, 5.01, 5.02, 5.06), "µm"),
        ((0.01, 0.012, 0.014, 0.016), "mm"),
        ((1, 2, 3, 4), "reference frame"),
    ],
)
def test_positions_that_fit_or_of_a_drive_that_stood_still_are_no_fault(tmp_path, positions, unit):
    write_ome_at(tmp_path / "a.ome.tif", positions, unit)
    with RecordedStack({"": tmp_path / "a.ome.tif"}) as stack:
        assert (stack.z_step_um, stack.conflicts) == (2.0, {})


def test_a_step_that_the_slices_positions_contradict_is_asked_about_with_both_numbers(tmp_path):
    write_ome_at(tmp_path / "a.ome.tif", (0, 0.5, 1.0, 1.5))
    wells = plate(A01=tmp_path / "a.ome.tif")
    replay = ReplaySource(ReplaySettings(), wells, "p", FakeClock())
    (plan,) = replay.plans()
    with pytest.raises(
        StackError, match=r"z_step_um is not sure: its z-step is 2 um, and its slices' positions are 0\.5 um"
    ):
        next(replay.frames(plan, set(plan.indices())))
    chosen = ReplaySource(ReplaySettings(z_step_um=0.5, voxel_from="settings"), wells, "p", FakeClock())
    assert next(iter(chosen.plans())).z_step_um == 0.5


def test_two_files_of_one_stack_that_differ_are_asked_about_with_both_numbers(tmp_path):
    write_ome_at(tmp_path / "live.ome.tif", (0, 2, 4))
    write_ome_at(tmp_path / "dead.ome.tif", (0, 3, 6), step_um=3.0)
    with RecordedStack({"488": tmp_path / "live.ome.tif", "561": tmp_path / "dead.ome.tif"}) as stack:
        assert "2 um" in stack.conflicts["z_step_um"]
        assert "3 um" in stack.conflicts["z_step_um"]


def test_a_step_that_only_the_positions_say_is_taken():
    facts = {z: {"z_um": 10.0 - 1.5 * z} for z in range(6)}
    assert measured_step_um(facts, None, "a") == 1.5
    assert measured_step_um({z: {"stage_z": 3.0 * z} for z in range(6)}, None, "a") is None, "it has no unit of length"
    assert measured_step_um({0: {"z_um": 1.0}}, None, "a") is None


def test_of_an_images_resolutions_the_full_one_is_read_whichever_stands_first(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("full", shape=PLANES.shape, dtype="uint16", chunks=(1, 6, 7))[:] = PLANES
    group.create_array("half", shape=(len(PLANES), 3, 3), dtype="uint16", chunks=(1, 3, 3))[:] = 9
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    levels = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for path, scale in (("half", [2, 1.0, 1.0]), ("full", [2, 0.5, 0.5]))
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    assert lengths(tmp_path / "a.zarr") == (0.5, 2.0)
    with closing(open_file(tmp_path / "a.zarr")) as file:
        assert (file.plane(0, 1) == PLANES[1]).all()
