"""Real LIF, NDTiff and Matrix Screener data, and folders of planes, through the readers that replay and watch share."""

import json
import shutil
import struct
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.images.open_stack import list_stacks, open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.acquisition.sources.watched_folder.settings import MatrixScreenerSettings, WatchSettings
from spheroidd.acquisition.sources.watched_folder.source import MatrixScreenerSource, WatchSource
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import FakeClock, take
from tests.places import REAL_DATA, needs_real_data

LIF = REAL_DATA / "leica" / "LeicaLASX_wavelength-sweep_example.lif"
TREE = REAL_DATA / "leica"
NDTIFF = REAL_DATA / "ndtiff"
LENGTHS = {"pixel_um": 0.5, "z_step_um": 1.0}


def plate(*wells, **paths):
    treatment = Treatment(WellRole.SAMPLE, "C", 1.0)
    files = {well: MappingProxyType({"": path}) for well, path in paths.items()}
    return PlateMap("p", tuple(PlateWell(WellId.parse(w), treatment, files.get(w, {})) for w in wells or paths))


def replayed(path, **settings):
    return ReplaySource(ReplaySettings(**settings), plate(A01=path), "p", FakeClock())


@needs_real_data
@pytest.mark.parametrize(
    ("path", "n_channels", "n_z", "dtype", "pixel_um", "z_step_um"),
    [
        (NDTIFF / "ndtiff3.2_monochrome/time=3", 1, 16, "uint16", 1.0, 0.4),
        (NDTIFF / "ndtiffv2.0_test/time=0", 2, 1, "uint16", 1.0, None),
        (NDTIFF / "ndtiffv3.0_test/time=4", 2, 1, "uint16", 1.0, None),
        (NDTIFF / "12_bit_pycromanager_mda/time=1", 2, 1, "uint16", 1.0, None),
        (
            LIF / "x_y_z_t_lambdaEmi/T=1,λ=3",
            1,
            11,
            "uint8",
            pytest.approx(0.1048, abs=1e-4),
            pytest.approx(0.5002, abs=1e-4),
        ),
        (TREE / "experiment--test/slide--S00/chamber--U00--V00/field--X00--Y01", 2, 1, "uint8", 0.24050019550342, None),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_real_data_are_read(path, n_channels, n_z, dtype, pixel_um, z_step_um):
    with closing(open_file(path)) as file:
        layout = file.layout
        assert (layout.n_channels, layout.n_z, layout.dtype) == (n_channels, n_z, dtype)
        assert (layout.pixel_um, layout.z_step_um) == (pixel_um, z_step_um)
        planes = [file.plane(c, z) for c in range(n_channels) for z in range(n_z)]
        assert {plane.shape for plane in planes} == {(layout.height, layout.width)}
        assert all(plane.max() > 0 for plane in planes)


@needs_real_data
def test_ndtiff_planes_are_those_that_tifffile_reads():
    path = NDTIFF / "ndtiff3.2_monochrome"
    with tifffile.TiffFile(path / "NDTiff3.2_monochrome_NDTiffStack.tif") as tiff:
        theirs = tiff.series[0].asarray()  # TZYX
    with closing(open_file(path / "time=5")) as file:
        for z in range(16):
            np.testing.assert_array_equal(file.plane(0, z), theirs[5, z])


@needs_real_data
@pytest.mark.parametrize(
    ("path", "message"),
    [
        (NDTIFF / "ndtiff3.2_monochrome", "several planes for channel '' z 0, as time=1"),
        (NDTIFF / "ndtiff3.2_monochrome/time=99", "names no plane with time=99"),
        (LIF, "holds 3 series: x_y_lambdaEmi"),
        (LIF / "nope", "0 of its series are called 'nope'"),
        (LIF / "x_y_lambdaEmi", r"axes of series .* name one: .*λ=0"),
        (TREE / "experiment--test", "no file in it is a plane of a stack"),
    ],
)
def test_what_is_not_one_stack_is_refused_with_what_to_write(path, message):
    with pytest.raises(StackError, match=message):
        open_file(path)


@needs_real_data
@pytest.mark.parametrize("kept", [0.001, 0.05, 0.5, 0.9, 0.999])
def test_a_truncated_lif_is_refused(tmp_path, kept):
    path = tmp_path / "a.lif"
    whole = LIF.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(StackError, match=r"a\.lif"):
        open_file(path / "x_y_z_t_lambdaEmi/T=1,λ=9")


@needs_real_data
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("which", ["NDTiff.index", "NDTiff3.2_monochrome_NDTiffStack.tif"])
def test_a_truncated_ndtiff_is_refused(tmp_path, which, kept):
    folder = tmp_path / "set"
    shutil.copytree(NDTIFF / "ndtiff3.2_monochrome", folder)
    (folder / which).chmod(0o644)
    whole = (folder / which).read_bytes()
    (folder / which).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(StackError):
        open_file(folder / "time=7")


@needs_real_data
def test_replay_takes_a_lif_an_ndtiff_and_a_folder_of_planes():
    field = TREE / "experiment--test/slide--S00/chamber--U00--V00/field--X00--Y00"
    series = LIF / "x_y_z_t_lambdaEmi/T=0,λ=0"
    for path, n_slices in ((series, 11), (NDTIFF / "ndtiff3.2_monochrome/time=0", 16), (field, 2)):
        with closing(replayed(path, **LENGTHS, voxel_from="settings")) as source:
            source.check()
            (plan,) = source.plans()
            assert len(take(source, plan, set(plan.indices()))) == n_slices


# -- the real tree of Matrix Screener: nothing invented, its defects told ----------------------------------------------


@needs_real_data
def test_the_real_trees_missing_depth_is_asked_for_by_its_key():
    source = MatrixScreenerSource(MatrixScreenerSettings(folder=TREE), plate("A01"), "p", FakeClock())
    with closing(source), pytest.raises(ConfigError, match=r"source\.z_step_um.*PhysicalSizeZ is 0\.0.*micrometres"):
        source.check()


@needs_real_data
def test_the_real_tree_is_read_and_its_defects_told():
    settings = MatrixScreenerSettings(folder=TREE, z_step_um=2.0, settle_s=5, end_after_s=60)
    faults = []
    with closing(MatrixScreenerSource(settings, plate("A01"), "p", FakeClock())) as source:
        source.check()
        source.set_event_sink(faults.append)
        (plan,) = source.plans()
        frames = {frame.index: frame for frame in source.frames(plan, set(plan.indices()))}
        list(source.plans())
    assert (plan.n_z, plan.dtype, plan.pixel_um) == (1, "uint8", pytest.approx(0.2405, abs=1e-4))
    names = {channel: f"Z00--C{n:02d}.ome.tif" for n, channel in enumerate(("488", "561"))}
    field = TREE / "experiment--test/slide--S00/chamber--U00--V00/field--X00--Y00"
    for index, frame in frames.items():
        (path,) = field.glob(f"*{names[index.channel]}")
        np.testing.assert_array_equal(frame.pixels, tifffile.imread(path, is_ome=False))
        assert "FirstC=1 (SizeC=1)" in frame.metadata["file_defects"]
    told = " ".join(str(fault.error) for fault in faults)
    assert "field X00--Y01 is not among source.fields" in told
    assert ".DS_Store" not in told


@needs_real_data
def test_both_fields_of_the_real_tree_are_two_stacks_of_one_well():
    settings = MatrixScreenerSettings(folder=TREE, z_step_um=2.0, fields=((0, 0), (0, 1)))
    with closing(MatrixScreenerSource(settings, plate("A01"), "p", FakeClock())) as source:
        plans = list(source.plans())
        assert [(str(plan.key.well), plan.key.stack) for plan in plans] == [("A01", 0), ("A01", 1)]
        assert all(len(take(source, plan, set(plan.indices()))) == 2 for plan in plans)


@needs_real_data
def test_watching_finds_lif_and_ndtiff_sets(tmp_path):
    shutil.copy(LIF, tmp_path / "plate.lif")
    shutil.copytree(NDTIFF / "ndtiff3.2_monochrome", tmp_path / "A01_1")
    assert "x_y_z_t_lambdaEmi" in list_stacks(tmp_path / "plate.lif")
    settings = WatchSettings(folder=tmp_path, pattern="{well}_1", settle_s=5, end_after_s=60)
    source = WatchSource(settings, plate("A01", "B01"), "p", FakeClock())
    with closing(source), pytest.raises(InstrumentError, match=r"several planes for channel ''.* as time=1"):
        list(source.plans())
    settings = WatchSettings(folder=tmp_path, pattern="{well}.lif/*", settle_s=5, end_after_s=60)
    (tmp_path / "plate.lif").rename(tmp_path / "B01.lif")
    source = WatchSource(settings, plate("A01", "B01"), "p", FakeClock())
    with closing(source), pytest.raises(InstrumentError, match=r"axes of series"):
        list(source.plans())


def write_ndtiff(folder, positions, planes):
    """A data set of version 3 with a position axis: the pixels, and an index of them."""
    folder.mkdir()
    index, pixels = b"", b"II*\0" + bytes(8)
    for position in positions:
        for (channel, z), plane in planes[position].items():
            said = json.dumps({"position": position, "channel": channel, "z": z}).encode()
            metadata = json.dumps({"PixelSizeUm": 0.5, "ZPosition_um_Intended": 1.5 * z}).encode()
            name = b"stack.tif"
            at = len(pixels)
            pixels += plane.astype("<u2").tobytes()
            index += struct.pack("<I", len(said)) + said + struct.pack("<I", len(name)) + name
            index += struct.pack("<IiiiiIii", at, plane.shape[1], plane.shape[0], 1, 0, len(pixels), len(metadata), 0)
            pixels += metadata
    (folder / "stack.tif").write_bytes(pixels)
    (folder / "NDTiff.index").write_bytes(index)


def test_an_ndtiff_with_a_position_for_each_well_is_a_plate(tmp_path):
    rng = np.random.default_rng(0)
    indices = [(channel, z) for z in range(3) for channel in ("Calcein 488", "PI 561")]
    planes = {w: {i: rng.integers(1, 9999, (6, 5), np.uint16) for i in indices} for w in ("A1-Site_0", "B2-Site_0")}
    write_ndtiff(tmp_path / "screen_1", planes, planes)
    settings = WatchSettings(folder=tmp_path, pattern="*/position={well}-Site_0", settle_s=5)
    with closing(WatchSource(settings, plate("A01", "B02"), "p", FakeClock())) as source:
        for plan, site in zip(source.plans(), planes, strict=True):
            assert (plan.n_z, plan.pixel_um, plan.z_step_um) == (3, 0.5, 1.5)
            got = take(source, plan, set(plan.indices()))
            for (name, z), pixels in planes[site].items():
                np.testing.assert_array_equal(got[SliceIndex(name[-3:], z)], pixels)


def write_planes(folder, name):
    folder.mkdir()
    stack = np.random.default_rng(0).integers(1, 60000, (2, 3, 8, 9)).astype(np.uint16)
    for c in range(2):
        for z in range(3):
            tifffile.imwrite(folder / name.format(c=c, z=z), stack[c, z], metadata=None)
    return stack


@pytest.mark.parametrize(
    "name",
    [
        "img_channel{c:03d}_position000_time000000000_z{z:03d}.tif",
        "a_c{c}_z{z}.tif",
        "image--Z{z:02d}--C{c:02d}.ome.tif",
    ],
)
def test_a_folder_of_planes_is_a_stack(tmp_path, name):
    stack = write_planes(tmp_path / "planes", name)
    (tmp_path / "planes" / ".DS_Store").write_bytes(b"")
    with RecordedStack({"": tmp_path / "planes"}) as recorded:
        assert (recorded.n_z, recorded.channels) == (3, ("488", "561"))
        np.testing.assert_array_equal(recorded.plane(SliceIndex("561", 2)), stack[1, 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "a_c1_z1.tif").unlink(), "1 of its planes are missing: channel 1 z 1"),
        (lambda folder: (folder / "a_c1_z1.tif").write_bytes(b""), r"a_c1_z1\.tif: not a whole TIFF"),
        (lambda folder: shutil.copy(folder / "a_c1_z1.tif", folder / "b_c1_z1.tif"), "are both channel 1 z 1"),
        (lambda folder: tifffile.imwrite(folder / "a_c1_z1.tif", np.zeros((2, 2), np.uint16)), "its planes differ"),
    ],
)
def test_a_damaged_folder_of_planes_is_refused(tmp_path, spoil, message):
    write_planes(tmp_path / "planes", "a_c{c}_z{z}.tif")
    spoil(tmp_path / "planes")
    with pytest.raises(StackError, match=message):
        RecordedStack({"": tmp_path / "planes"})


@pytest.mark.parametrize("content", [b"", b"\x70\0\0\0", b"\x70\0\0\0\x10\0\0\0\x2a\xff\xff\xff\xff<"])
def test_a_damaged_lif_is_refused_without_reading_what_it_claims(tmp_path, content):
    (tmp_path / "a.lif").write_bytes(content)
    with pytest.raises(StackError, match=r"a\.lif: not a whole LIF"):
        open_file(tmp_path / "a.lif")


def test_a_lif_with_entities_is_refused(tmp_path):
    xml = '<!DOCTYPE a [<!ENTITY b "c">]><LMSDataContainerHeader>&b;</LMSDataContainerHeader>'.encode("utf-16-le")
    head = b"\x70\0\0\0" + (5 + len(xml)).to_bytes(4, "little") + b"\x2a" + (len(xml) // 2).to_bytes(4, "little")
    (tmp_path / "a.lif").write_bytes(head + xml)
    with pytest.raises(StackError, match="EntitiesForbidden"):
        open_file(tmp_path / "a.lif")
