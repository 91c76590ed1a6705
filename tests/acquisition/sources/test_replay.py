"""Recorded stacks: every form of file gives the same planes, and no damaged one gives any."""

import numpy as np
import pytest
import tifffile
import zarr
from pydantic import ValidationError

from spheroidd.acquisition.images.metadata.units import length_um
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.stack import SliceIndex
from spheroidd.testing.source_contract import FakeClock, SourceContract
from tests.places import REAL_DATA, needs_real_data

STACK = np.random.default_rng(0).integers(1, 60000, (2, 7, 12, 10)).astype(np.uint16)  # c, z, y, x
OME = {
    "PhysicalSizeX": 125, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 125, "PhysicalSizeYUnit": "nm",
    "PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm",
}  # fmt: skip


def write_ome(path, data=STACK, axes="CZYX", names=("calcein 488", "PI 561"), **more):
    metadata = {"axes": axes, "Channel": {"Name": list(names)}, **OME}
    tifffile.imwrite(path, data, ome=True, metadata=metadata, photometric="minisblack", **more)


def write_ome_zcyx(path):
    write_ome(path, STACK.swapaxes(0, 1), "ZCYX")


def write_ome_big_endian(path):
    write_ome(path, STACK.astype(">u2"), byteorder=">")


def write_ome_zlib(path):
    write_ome(path, compression="zlib", rowsperstrip=5)


def write_ome_dead_first(path):
    write_ome(path, STACK[::-1], names=("561 nm", "488 nm"))


def write_imagej(path):
    tifffile.imwrite(
        path,
        STACK.swapaxes(0, 1),
        imagej=True,
        resolution=(8, 8),
        metadata={"axes": "ZCYX", "spacing": 0.5, "unit": "um"},
    )


def write_ngff(path, version, axes="czyx", data=STACK, **array):
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    chunks = (1,) * (data.ndim - 2) + (6, 10)
    stored = group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=chunks, **array)
    stored[:] = data
    kinds = {"t": "time", "c": "channel"}
    units = {"t": None, "c": None}
    named = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": "micrometer"} if a not in units else {}) for a in axes
    ]
    scale = [{"t": 1, "c": 1, "z": 0.5}.get(a, 0.125) for a in axes]
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    said = {
        "multiscales": [{"version": version, "axes": named, "datasets": [dataset]}],
        "omero": {"channels": [{"label": "live 488"}, {"label": "dead 561"}]},
    }
    group.attrs.update({"ome": said} if version == "0.5" else said)


def write_ngff_04(path):
    write_ngff(path, "0.4", "tczyx", STACK[np.newaxis], chunk_key_encoding={"name": "v2", "separator": "/"})


def write_ngff_05(path):
    write_ngff(path, "0.5")


FORMS = {
    "a.ome.tif": [write_ome, write_ome_zcyx, write_ome_big_endian, write_ome_zlib, write_ome_dead_first],
    "a.tif": [write_imagej],
    "a.ome.zarr": [write_ngff_04, write_ngff_05],
}


@pytest.mark.parametrize(
    ("name", "write"), [pytest.param(n, w, id=w.__name__) for n, forms in FORMS.items() for w in forms]
)
def test_every_form_gives_its_planes_and_voxel_size(tmp_path, name, write):
    write(tmp_path / name)
    with RecordedStack({"": tmp_path / name}) as stack:
        assert (stack.channels, stack.n_z, stack.height, stack.width) == (("488", "561"), 7, 12, 10)
        assert (stack.dtype, stack.pixel_um, stack.z_step_um) == ("uint16", pytest.approx(0.125), pytest.approx(0.5))
        assert stack.assignment.startswith("by the channels' names") == (name != "a.tif")
        for c, channel in enumerate(stack.channels):
            for z in range(stack.n_z):
                plane = stack.plane(SliceIndex(channel, z))
                assert plane.dtype == np.dtype("=u2")
                np.testing.assert_array_equal(plane, STACK[c, z])


@pytest.mark.parametrize("array", [STACK, STACK.swapaxes(0, 1)], ids=["czyx", "zcyx"])
def test_npy_with_both_channels_is_taken_live_first(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with RecordedStack({"": tmp_path / "a.npy"}) as stack:
        assert "order" in stack.assignment
        assert (stack.pixel_um, stack.z_step_um) == (None, None)
        np.testing.assert_array_equal(stack.plane(SliceIndex("561", 3)), STACK[1, 3])


def test_a_file_for_each_channel_and_a_lone_channel(tmp_path):
    tifffile.imwrite(tmp_path / "live.tif", STACK[0], photometric="minisblack")
    write_ome(tmp_path / "both.ome.tif")
    with RecordedStack({"488": tmp_path / "live.tif", "561": tmp_path / "both.ome.tif"}) as stack:
        assert (stack.channels, stack.pixel_um) == (("488", "561"), pytest.approx(0.125))
        np.testing.assert_array_equal(stack.plane(SliceIndex("561", 2)), STACK[1, 2])
    with RecordedStack({"488": tmp_path / "live.tif"}) as stack:
        assert (stack.channels, stack.n_z) == (("488",), 7)


def _spoil_array(change):
    def write(path):
        tifffile.imwrite(path, change(STACK[0]), photometric="minisblack")

    return write


def _mixed_sizes(path):
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(STACK[0], metadata={"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.3})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_spoil_array(lambda a: a.astype(np.float32)), "float32.*uint16"),
        (_spoil_array(lambda a: a.astype(np.int16)), "int16"),
        (lambda path: path.write_bytes(b""), "not a whole TIFF"),
        (lambda path: path.write_bytes(b"II*\0" + b"\xff" * 40), "breaks off after 0"),
        (lambda path: path.write_text("well,role"), "not a whole TIFF"),
        (lambda path: path.mkdir(), "OME-Zarr|directory|Zarr"),
        (_mixed_sizes, "0.1 um wide and 0.3 um high"),
        (
            lambda path: tifffile.imwrite(path, STACK.reshape(2, 7, 12, 10), imagej=True, metadata={"axes": "TZYX"}),
            "TZYX",
        ),
        (lambda path: write_ome(path, np.tile(STACK[:1], (3, 1, 1, 1)), names=("a", "b", "c")), "3 channels"),
    ],
)
def test_an_unusable_file_is_refused_with_its_name(tmp_path, write, message):
    path = tmp_path / "bad.tif"
    write(path)
    with pytest.raises(StackError, match=message) as caught:
        RecordedStack({"": path})
    assert "bad.tif" in str(caught.value)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("write", [write_ome, write_ome_zlib, write_imagej, _spoil_array(lambda a: a)])
def test_a_truncated_tiff_is_refused_before_its_first_plane(tmp_path, write, kept):
    path = tmp_path / "short.tif"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(StackError, match=r"short\.tif"):
        open_file(path)


def test_a_single_plane_with_half_its_strip_is_refused(tmp_path):
    """The IFD stands first and is whole; only the pixels are cut, which tifffile reads as valid."""
    path = tmp_path / "plane.tif"
    tifffile.imwrite(path, STACK[0, 0], metadata=None)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(StackError, match="1 of 1 planes"):
        open_file(path)


def test_one_ifd_for_many_planes_is_read_and_its_length_checked(tmp_path):
    """ImageJ writes large stacks with a single IFD."""
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, STACK[0], metadata={"axes": "ZYX"}, truncate=True, photometric="minisblack")
    file = open_file(path)
    assert file.layout.n_z == 7
    np.testing.assert_array_equal(file.plane(0, 5), STACK[0, 5])
    file.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(StackError, match="2 of 7 planes lie beyond"):
        open_file(path)


def test_ome_xml_that_promises_more_planes_than_there_are_is_refused(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_ome(path)
    xml = tifffile.tiffcomment(path).replace('SizeZ="7"', 'SizeZ="9"')
    tifffile.tiffcomment(path, xml.encode())
    with pytest.raises(StackError, match=r"4 of 18|18 planes"):
        open_file(path)


def test_a_damaged_plane_is_a_stack_error(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_ome_zlib(path)
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[3].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\0" * 8)
    with RecordedStack({"": path}) as stack:
        stack.plane(SliceIndex("488", 2))
        with pytest.raises(StackError, match="488 z 3 cannot be decoded"):
            stack.plane(SliceIndex("488", 3))


@pytest.mark.parametrize("write", [write_ngff_04, write_ngff_05])
def test_a_lost_chunk_is_refused_not_read_as_zeros(tmp_path, write):
    path = tmp_path / "a.ome.zarr"
    write(path)
    chunk = max((p for p in (path / "0").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr"))), key=str)
    chunk.unlink()
    with pytest.raises(StackError, match="1 of 28 chunks are missing"):
        open_file(path)


def test_a_short_npy_and_a_pickle_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, STACK)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StackError, match="whole"):
        open_file(path)
    np.save(path, np.array([{}], object), allow_pickle=True)
    with pytest.raises(StackError, match="whole"):
        open_file(path)


@pytest.mark.parametrize(
    ("size", "unit", "um"),
    [
        ("125", "nm", 0.125),
        (2, "µm", 2.0),
        (0.0, "µm", None),
        ("nan", "µm", None),
        (1, "pixel", None),
        (None, "um", None),
    ],
)
def test_lengths(size, unit, um):
    assert length_um(size, unit) == (None if um is None else pytest.approx(um))


def plate(tmp_path, rows, columns="well,path,role,pixel_um,z_step_um"):
    path = tmp_path / "map.csv"
    path.write_text("\n".join([columns, *rows]))
    return read_plate_map(path, "plate")


def source(plate_map, clock=None, **settings) -> ReplaySource:
    return ReplaySource(ReplaySettings(**settings), plate_map, "plate", clock or FakeClock())


class TestReplaySource(SourceContract):
    def make_source(self, folder, clock):
        if not (folder / "a.ome.tif").exists():
            write_ome(folder / "a.ome.tif")
            np.save(folder / "b.npy", STACK[:, ::-1])
        rows = ["A01,a.ome.tif,sample,,", "A02,b.npy,negative_control,0.5,2", "A03,,empty,,"]
        return source(plate(folder, rows), clock, pace="real")


class TestReplay:
    def test_a_plate_is_given_in_order_controls_first(self, tmp_path):
        write_ome(tmp_path / "a.ome.tif")
        np.save(tmp_path / "b.npy", STACK[:, ::-1])
        replay = source(plate(tmp_path, ["A01,a.ome.tif,sample,,", "A02,b.npy,negative_control,0.5,2", "A03,,empty,,"]))
        replay.check()
        plans = list(replay.plans())
        assert [str(plan.key) for plan in plans] == ["plate/A02/0", "plate/A01/0"]
        assert [(plan.pixel_um, plan.z_step_um) for plan in plans] == [(0.5, 2.0), (0.125, 0.5)]
        frames = list(replay.frames(plans[1], set(plans[1].indices())))
        assert [frame.index for frame in frames] == list(plans[1].indices())
        for frame in frames:
            frame.check(plans[1])
            np.testing.assert_array_equal(frame.pixels, STACK[["488", "561"].index(frame.index.channel), frame.index.z])
        replay.close()
        replay.close()

    def test_only_wanted_slices_are_read(self, tmp_path):
        write_ome(tmp_path / "a.ome.tif")
        replay = source(plate(tmp_path, ["A01,a.ome.tif,sample,,"]))
        (plan,) = replay.plans()
        wanted = {SliceIndex("561", 6), SliceIndex("488", 2)}
        assert [f.index for f in replay.frames(plan, wanted)] == [SliceIndex("488", 2), SliceIndex("561", 6)]
        assert list(replay.frames(plan, set())) == []

    def test_real_pace_waits_one_period_a_step_and_fast_not_at_all(self, tmp_path):
        write_ome(tmp_path / "a.ome.tif")
        plate_map = plate(tmp_path, ["A01,a.ome.tif,sample,,"])
        clock = FakeClock()
        start_s = clock.now()
        replay = source(plate_map, clock, pace="real", slice_period_s=3)
        (plan,) = replay.plans()
        assert plan.slice_period_s == 3
        times = [frame.acquired_s for frame in replay.frames(plan, set(plan.indices()))]
        assert times == [start_s + 3.0 * (z + 1) for z in range(7) for _ in range(2)]
        fast = source(plate_map, clock := FakeClock(), pace="fast")
        list(fast.frames(plan, set(plan.indices())))
        assert clock.slept_s == 0

    @pytest.mark.parametrize(
        "spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:900])]
    )
    @pytest.mark.parametrize("others", [True, False])
    def test_a_bad_file_fails_its_well_alone(self, tmp_path, spoil, others):
        rows = ["A01,bad.ome.tif,negative_control,,"] + ["A02,good.ome.tif,sample,,"] * others
        write_ome(tmp_path / "bad.ome.tif")
        write_ome(tmp_path / "good.ome.tif")
        spoil(tmp_path / "bad.ome.tif")
        replay = source(plate(tmp_path, rows))
        replay.check()
        plans = list(replay.plans())
        assert [str(plan.key.well) for plan in plans] == ["A01", "A02"][: 1 + others]
        with pytest.raises(StackError, match=r"bad\.ome\.tif"):
            next(replay.frames(plans[0], set(plans[0].indices())))
        if others:
            assert plans[0].n_slices == 14
            assert len(list(replay.frames(plans[1], set(plans[1].indices())))) == 14

    def test_a_file_that_changed_since_it_was_planned_is_refused(self, tmp_path):
        write_ome(tmp_path / "a.ome.tif")
        replay = source(plate(tmp_path, ["A01,a.ome.tif,sample,,"]))
        (plan,) = replay.plans()
        write_ome(tmp_path / "a.ome.tif", STACK[:, :5])
        with pytest.raises(StackError, match="was planned"):
            next(replay.frames(plan, set(plan.indices())))

    def test_closing_the_iterator_midway_lets_the_file_go(self, tmp_path):
        write_ome(tmp_path / "a.ome.tif")
        replay = source(plate(tmp_path, ["A01,a.ome.tif,sample,,"]))
        (plan,) = replay.plans()
        frames = replay.frames(plan, set(plan.indices()))
        first = next(frames)
        frames.close()
        np.testing.assert_array_equal(first.pixels, STACK[0, 0])

    @pytest.mark.parametrize(
        ("row", "settings", "size"),
        [
            ("A01,a.npy,sample,0.3,1.5", {}, (0.3, 1.5)),
            ("A01,a.npy,sample,,", {"pixel_um": 0.4, "z_step_um": 2}, (0.4, 2.0)),
            ("A01,a.npy,sample,0.3,", {"pixel_um": 0.301, "z_step_um": 2}, (0.3, 2.0)),
            ("A01,a.npy,sample,0.3,", {"pixel_um": 9, "z_step_um": 2, "voxel_from": "settings"}, (9, 2.0)),
            ("A01,a.ome.tif,sample,7,7", {"voxel_from": "file"}, (0.125, 0.5)),
            ("A01,a.ome.tif,sample,7,6", {"voxel_from": "map"}, (7.0, 6.0)),
            ("A01,a.ome.tif,sample,,", {"pixel_um": 9, "z_step_um": 8, "voxel_from": "settings"}, (9.0, 8.0)),
            ("A01,flat.ome.tif,sample,,6", {}, (0.125, 6.0)),
            ("A01,a.npy,sample,0.3,25", {"voxel_from": "map"}, (0.3, 25.0)),
        ],
    )
    def test_voxel_sizes_are_what_every_source_says_or_the_one_that_was_chosen(self, tmp_path, row, settings, size):
        self.write_three(tmp_path)
        (plan,) = source(plate(tmp_path, [row]), **settings).plans()
        assert (plan.pixel_um, plan.z_step_um) == (pytest.approx(size[0]), pytest.approx(size[1]))

    @pytest.mark.parametrize(
        ("row", "settings", "message"),
        [
            (
                "A01,a.npy,sample,0.3,1",
                {"pixel_um": 9},
                "well A01: pixel_um is 0.3 um in the plate map and 9 um in the set",
            ),
            ("A01,a.ome.tif,sample,7,", {}, "pixel_um is 0.125 um in its files and 7 um in the plate map.*voxel_from"),
            (
                "A01,a.ome.tif,sample,,",
                {"z_step_um": 0.51},
                "z_step_um is 0.5 um in its files and 0.51 um in the settings",
            ),
            (
                "A01,a.npy,sample,325,1",
                {},
                "pixel_um is 325 um in the plate map, which can hardly be; look for a wrong",
            ),
            ("A01,a.npy,sample,0.3,0.001", {}, "z_step_um is 0.001 um in the plate map, which can hardly be"),
        ],
    )
    def test_two_sources_that_differ_and_what_can_hardly_be_are_refused(self, tmp_path, row, settings, message):
        self.write_three(tmp_path)
        with pytest.raises(ConfigError, match=message):
            source(plate(tmp_path, [row]), **settings).check()

    @staticmethod
    def write_three(folder):
        np.save(folder / "a.npy", STACK)
        write_ome(folder / "a.ome.tif")
        metadata = {"axes": "CZYX", **OME, "PhysicalSizeZ": 0.0}
        tifffile.imwrite(folder / "flat.ome.tif", STACK, ome=True, photometric="minisblack", metadata=metadata)

    @pytest.mark.parametrize(
        ("row", "key"), [("A01,a.npy,sample,,1", "pixel_um"), ("A01,a.npy,sample,1,", "z_step_um")]
    )
    def test_an_unknown_voxel_size_names_the_key(self, tmp_path, row, key):
        np.save(tmp_path / "a.npy", STACK)
        with pytest.raises(ConfigError, match=rf"well A01: {key} is unknown.*write {key}"):
            source(plate(tmp_path, [row])).check()

    def test_a_well_without_a_file_is_a_fault_of_the_map(self, tmp_path):
        with pytest.raises(ConfigError, match="well A01: the plate map names no file"):
            source(plate(tmp_path, ["A01,,sample,1,1"])).check()

    def test_the_map_comes_from_the_settings_where_the_run_has_none(self, tmp_path):
        write_ome(tmp_path / "a.ome.tif")
        plate(tmp_path, ["A01,a.ome.tif,sample,,"])
        replay = ReplaySource(ReplaySettings(map=tmp_path / "map.csv"), None, "named", FakeClock())
        assert replay.plate_map.name == "named"
        with pytest.raises(ConfigError, match=r"source\.map"):
            source(None)
        with pytest.raises(ValidationError):
            ReplaySettings(speed=2)


@needs_real_data
def test_a_real_two_colour_spheroid(tmp_path):
    folder = (REAL_DATA / "spheroid_2colour").resolve()
    row = f"B01,{folder / 'B01_488.tif'},{folder / 'B01_405.tif'},sample,1.3,1.3"
    replay = source(plate(tmp_path, [row], "well,path_488,path_561,role,pixel_um,z_step_um"))
    replay.check()
    (plan,) = replay.plans()
    assert (plan.channels, plan.n_z, plan.height, plan.width, plan.dtype) == (("488", "561"), 129, 124, 128, "uint16")
    frames = list(replay.frames(plan, {SliceIndex("561", 60), SliceIndex("488", 60)}))
    np.testing.assert_array_equal(frames[1].pixels, tifffile.imread(folder / "B01_405.tif", key=60))
    lone = source(
        plate(tmp_path, [f"B01,{folder / 'B01_488.tif'},sample,1,1"], "well,path_488,role,pixel_um,z_step_um")
    )
    assert next(iter(lone.plans())).channels == ("488",)


@needs_real_data
@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("nuclei_gt/embryo8_raw.tif", (1, 51, 120, 122, "uint16")),
        ("nuclei_gt/embryo8_nsn.tif", (1, 51, 120, 122, "uint8")),
        ("nuclei_gt/stardist_img3d.tif", (1, 31, 61, 57, "uint16")),
    ],
)
def test_real_stacks_give_the_planes_that_tifffile_reads(name, layout):
    file = open_file(REAL_DATA / name)
    assert (file.layout.n_channels, file.layout.n_z, file.layout.height, file.layout.width, file.layout.dtype) == layout
    for z in (0, layout[1] - 1):
        np.testing.assert_array_equal(file.plane(0, z), tifffile.imread(REAL_DATA / name, key=z))
    file.close()


@needs_real_data
def test_a_real_leica_plane_says_its_pixel_but_not_its_step():
    (path, *_) = sorted((REAL_DATA / "leica").rglob("*C01.ome.tif"))
    file = open_file(path)
    assert (file.layout.n_z, file.layout.pixel_um, file.layout.z_step_um) == (1, pytest.approx(0.2405, abs=1e-4), None)
    file.close()


@needs_real_data
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_a_truncated_copy_of_a_real_stack_is_refused(tmp_path, kept):
    whole = (REAL_DATA / "nuclei_gt/embryo8_raw.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(StackError, match=r"cut\.tif"):
        open_file(tmp_path / "cut.tif")
