"""What files say of each image: read in every schema and format, in our units or none, and kept to the ledger."""

import json
import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.images.metadata.image_metadata import (
    elapsed,
    exposure,
    fraction,
    of_micromanager,
    position,
    text,
    wavelength,
)
from spheroidd.acquisition.images.ome.description import read_ome
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.images.tiff.validation import MICROMANAGER_TAG
from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.acquisition.sources.watched_folder.settings import MatrixScreenerSettings, WatchSettings
from spheroidd.acquisition.sources.watched_folder.source import MatrixScreenerSource, WatchSource
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.events import SliceDurable
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.plate_map.file import read_plate_map
from spheroidd.protocols.stack import SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.folder_writer import write_plate
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.sim_emulator.stage import taken
from spheroidd.testing.source_contract import FakeClock
from tests.acquisition.images.test_recorded_formats import LIF, NDTIFF, TREE, write_ndtiff
from tests.acquisition.sources.test_replay import write_imagej, write_ngff_05
from tests.acquisition.sources.test_restream import image, store
from tests.places import needs_real_data


@pytest.mark.parametrize(
    ("value", "unit", "facts"),
    [
        ("12.5", "µm", {"x_um": 12.5}),
        ("12.5", "\u03bcm", {"x_um": 12.5}),
        ("-0.25", "mm", {"x_um": -250.0}),
        ("1500", "nm", {"x_um": 1.5}),
        ("0.0427", "m", {"x_um": 42700.0}),
        ("0", "µm", {"x_um": 0.0}),
        ("0.0427", None, {"stage_x": 0.0427}),
        ("0.0427", "", {"stage_x": 0.0427}),
        ("0.4270212657400E-1", "reference frame", {"stage_x": 0.042702126574}),
        ("3", "pixel", {"stage_x": "3.0 pixel"}),
        ("3", "y" * 1000, {"stage_x": "3.0 " + "y" * 196}),
        ("1e308", "m", {"stage_x": "1e+308 m"}),
        ("left", "µm", {}),
        ("nan", "µm", {}),
        ("inf", None, {}),
        (None, "µm", {}),
        ("", None, {}),
    ],
)
def test_a_position_is_in_micrometres_or_has_another_name(value, unit, facts):
    assert position("x", value, unit) == facts


@pytest.mark.parametrize(
    ("found", "facts"),
    [
        (exposure("0.05"), {"exposure_ms": 50.0}),
        (exposure("50", "ms"), {"exposure_ms": 50.0}),
        (exposure("250", "µs"), {"exposure_ms": 0.25}),
        (exposure("0"), {}),
        (exposure("-1"), {}),
        (exposure("nan"), {}),
        (exposure("5", "lines"), {}),
        (exposure(None), {}),
        (elapsed("0"), {"instrument_elapsed_s": 0.0}),
        (elapsed("1.5", "min"), {"instrument_elapsed_s": 90.0}),
        (elapsed("1.5", "moons"), {}),
        (elapsed("soon"), {}),
        (wavelength("laser_nm", "488"), {"laser_nm": 488.0}),
        (wavelength("laser_nm", "0.561", "µm"), {"laser_nm": 561.0}),
        (wavelength("laser_nm", "0"), {}),
        (wavelength("laser_nm", "488", "inches of rain"), {}),
        (fraction("light_attenuation", "0.8"), {"light_attenuation": 0.8}),
        (fraction("light_attenuation", "80"), {}),
        (text("instrument_time", "2022-12-28 17:04:24 -"), {"instrument_time": "2022-12-28 17:04:24"}),
        (text("instrument_time", " - "), {}),
        (text("instrument_time", "y" * 1000), {"instrument_time": "y" * 200}),
    ],
    ids=str,
)
def test_what_has_no_unit_that_is_one_is_not_said(found, facts):
    assert found == facts


def ome(of_pixels="", of_image="", of_root="", *, sizes='SizeC="2" SizeZ="2" SizeT="1"', schema="2016-06"):
    return (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/{schema}">{of_root}<Image ID="Image:0">{of_image}'
        f'<Pixels DimensionOrder="XYCZT" SizeX="6" SizeY="4" {sizes}>{of_pixels}</Pixels></Image></OME>'
    )


SINCE_2015 = ome(
    '<Channel ID="c0"><LightSourceSettings ID="LightSource:0" Attenuation="0.8"/></Channel><Channel ID="c1"/>'
    '<Plane TheC="1" TheZ="1" TheT="0" PositionX="1.5" PositionXUnit="mm" PositionY="7" PositionZ="3" '
    'PositionZUnit="&#181;m" ExposureTime="20" ExposureTimeUnit="ms" DeltaT="1.5"/>'
    '<Plane TheC="0" TheZ="0" TheT="0" ExposureTime="0.01"/>'
    '<Plane TheC="0" TheZ="1" TheT="1" ExposureTime="9"/><Plane TheC="nought" TheZ="0" TheT="0" ExposureTime="9"/>',
    "<AcquisitionDate>2024-05-06T07:08:09</AcquisitionDate>",
    '<Instrument ID="i"><Laser ID="LightSource:0" Wavelength="488"/></Instrument>',
)
DAY = {"instrument_time": "2024-05-06T07:08:09"}
LIGHT = {"laser_nm": 488.0, "light_attenuation": 0.8}


@pytest.mark.parametrize(
    ("plane", "facts"),
    [
        ((0, 0), {**DAY, **LIGHT, "exposure_ms": 10.0}),
        ((0, 1), {**DAY, **LIGHT}),
        ((1, 0), DAY),
        (
            (1, 1),
            {**DAY, "x_um": 1500.0, "stage_y": 7.0, "z_um": 3.0, "exposure_ms": 20.0, "instrument_elapsed_s": 1.5},
        ),
    ],
)
def test_the_schema_of_2016_is_read_plane_by_plane(plane, facts):
    assert read_ome(SINCE_2015, Path("a")).planes.facts(*plane) == facts


ONE = 'SizeC="1" SizeZ="1" SizeT="1"'
OLD_PLANE = (
    '<Plane TheZ="0" TheT="4" TheC="1"><PlaneTiming DeltaT="2" ExposureTime="0.03"/>'
    '<StagePosition PositionX="0.427E-1" PositionY="0.321E-1" PositionZ="-0.2E-9"/></Plane>'
)
OLD_FACTS = {
    "instrument_time": "2014-11-20T10:22:49.811",
    "stage_x": 0.0427,
    "stage_y": 0.0321,
    "stage_z": -2e-10,
    "exposure_ms": 30.0,
    "instrument_elapsed_s": 2.0,
}


@pytest.mark.parametrize("date", ["CreationDate", "AcquiredDate", "AcquisitionDate"])
def test_the_old_schema_is_read_and_its_position_is_no_length(date):
    said = ome(OLD_PLANE, f"<{date}>2014-11-20T10:22:49.811</{date}>", sizes=ONE, schema="2008-09")
    found = read_ome(said, Path("a"))
    assert found.planes.facts(0, 0) == found.facts_of(0) == OLD_FACTS


def test_of_several_descriptions_of_one_plane_none_is_believed():
    assert read_ome(ome(OLD_PLANE * 2, sizes=ONE), Path("a")).facts_of(0) == {}


def test_a_plane_of_a_set_is_the_one_that_its_file_is_said_to_hold():
    where = '<TiffData FirstC="{c}" FirstZ="{z}" IFD="0"><UUID FileName="{name}">u</UUID></TiffData>'
    planes = where.format(c=0, z=0, name="other.tif") + where.format(c=1, z=1, name="a.tif")
    said = ome(planes + '<Plane TheC="1" TheZ="1" TheT="0" ExposureTime="1"/>')
    assert read_ome(said, Path("a.tif")).facts_of(0) == {"exposure_ms": 1000.0}
    assert read_ome(said, Path("b.tif")).facts_of(0) == {}


TAGS = {
    "XPositionUm": 1.0,
    "YPositionUm": -2.0,
    "ZPositionUm": 3.5,
    "ZPosition_um_Intended": 3.0,
    "Exposure-ms": 20,
    "Core-Camera": "sCMOS",
    "ElapsedTime-ms": 1500,
    "TimeReceivedByCore": "2024-05-06 07:08:09.123",
    "Time": "another",
}
OF_TAGS = {
    "x_um": 1.0,
    "y_um": -2.0,
    "z_um": 3.5,
    "z_planned_um": 3.0,
    "exposure_ms": 20.0,
    "camera": "sCMOS",
    "instrument_elapsed_s": 1.5,
    "instrument_time": "2024-05-06 07:08:09.123",
}


@pytest.mark.parametrize(
    ("tags", "facts"),
    [(TAGS, OF_TAGS), ({}, {}), ({"Exposure": "10", "XPositionUm": None, "ZPositionUm": "up"}, {"exposure_ms": 10.0})],
    ids=["all", "none", "garbage"],
)
def test_micromanagers_tags_are_read(tags, facts):
    assert of_micromanager(tags) == facts


# -- every format ------------------------------------------------------------------------------------------------------

EMULATED = EmulatorSettings(
    preset="unit", n_z=3, height=16, width=24, compounds=0, negative_controls=1, positive_controls=1, pace="fast"
)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    source = EmulatorSource(EMULATED, None, "plate", FakeClock())
    for layout in ("ome-tiff", "matrix-screener", "ome-zarr"):
        write_plate(source, folder / layout, layout)
    return source, folder


def as_taken(source, plan, index):
    """What a file should say of an image of the emulated microscope."""
    how = taken(source.preset, plan, index)
    return {
        "x_um": how.x_um,
        "y_um": how.y_um,
        "z_um": how.z_um,
        "exposure_ms": how.exposure_ms,
        "instrument_elapsed_s": how.elapsed_s,
    }


def _tagged(folder):
    for z in range(2):
        tag = (MICROMANAGER_TAG, 2, 0, json.dumps(TAGS), True)
        path = folder / f"img_channel000_position000_time000000000_z{z:03d}.tif"
        tifffile.imwrite(path, np.ones((4, 6), np.uint16), metadata=None, extratags=[tag])
    return folder


def _npy(folder):
    np.save(folder / "a.npy", np.ones((2, 4, 6), np.uint16))
    return folder / "a.npy"


def _in(folder, name, write):
    write(folder / name)
    return folder / name


FORMS = {
    "npy": (_npy, {}),
    "imagej": (lambda folder: _in(folder, "a.tif", write_imagej), {}),
    "ome-zarr": (lambda folder: _in(folder, "a.ome.zarr", write_ngff_05), {}),
    "micro-manager's files": (_tagged, OF_TAGS),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_says_what_it_knows_and_no_more(tmp_path, form):
    write, facts = FORMS[form]
    with closing(open_file(write(tmp_path))) as file:
        assert {json.dumps(dict(file.metadata(0, z))) for z in range(file.layout.n_z)} == {json.dumps(facts)}


def test_an_ome_tiff_and_a_field_of_planes_say_where_each_was_taken(emulated):
    source, folder = emulated
    plan = next(iter(source.plans()))
    field = next((folder / "matrix-screener").glob("**/chamber--U00--V00/field--*"))
    for path in (folder / "ome-tiff" / f"{plan.key.well}.ome.tif", field):
        with closing(open_file(path)) as file:
            for index in plan.indices():
                said = file.metadata(plan.channels.index(index.channel), index.z)
                assert said == as_taken(source, plan, index)


def test_the_field_reads_an_emulated_exposure_and_position_in_numbers(emulated):
    _, folder = emulated
    with closing(open_file(folder / "ome-tiff" / "A01.ome.tif")) as file:
        said = file.metadata(1, 2)
    assert said == {"x_um": 0.0, "y_um": 0.0, "z_um": 2.0, "exposure_ms": 5.0, "instrument_elapsed_s": 0.05}


def test_an_ndtiff_says_where_the_focus_was_sent(tmp_path):
    write_ndtiff(tmp_path / "set", ["A01"], {"A01": {("488", 0): np.ones((4, 6), np.uint16)}})
    with closing(open_file(tmp_path / "set" / "position=A01")) as file:
        assert file.metadata(0, 0) == {"z_planned_um": 0.0}


@needs_real_data
@pytest.mark.parametrize(
    ("path", "facts"),
    [
        (
            NDTIFF / "ndtiff3.2_monochrome/time=3",
            {
                "z_planned_um": 0.0,
                "exposure_ms": 10.0,
                "camera": "Camera",
                "instrument_elapsed_s": 0.642,
                "instrument_time": "2022-12-26 16:26:31",
            },
        ),
        (
            LIF / "x_y_z_t_lambdaEmi/T=1,λ=3",
            {
                "stage_x": 0.03534347799788,
                "stage_y": 0.01008460909449,
                "instrument_time": "2021-01-29T14:45:24.372",
                "instrument_elapsed_s": 104.98,
            },
        ),
        (
            TREE / "experiment--test/slide--S00/chamber--U00--V00/field--X00--Y01",
            {
                "stage_x": 0.042702126574,
                "stage_y": 0.03214992494548,
                "stage_z": -2.3842e-10,
                "instrument_time": "2014-11-20T10:22:49.811",
            },
        ),
    ],
    ids=["ndtiff", "lif", "matrix-screener"],
)
def test_real_files_say_what_they_say(path, facts):
    with closing(open_file(path)) as file:
        assert file.metadata(0, 0) == facts


# -- through the sources ----------------------------------------------------------------------------------------------


def watched(folder, plate, layout):
    common = {"end_after_s": 4.0, "settle_s": 2.0, "poll_s": 1.0, "stable_polls": 1}
    if layout == "matrix-screener":
        settings = MatrixScreenerSettings(folder=folder / layout, n_z=EMULATED.n_z, **common)
        return MatrixScreenerSource(settings, plate, "plate", FakeClock())
    return WatchSource(WatchSettings(folder=folder / layout, **common), plate, "plate", FakeClock())


def replayed(folder, plate, layout):
    recorded = read_plate_map(folder / layout / "map.csv", "plate")
    return ReplaySource(ReplaySettings(), recorded, "plate", FakeClock())


@pytest.mark.parametrize(
    ("make", "layout"),
    [(watched, "ome-tiff"), (watched, "matrix-screener"), (replayed, "ome-tiff")],
    ids=["watch-files", "watch-slices", "replay"],
)
def test_every_frame_carries_what_its_file_says_of_it(emulated, make, layout):
    emulator, folder = emulated
    with closing(make(folder, emulator.plate_map, layout)) as source:
        frames = [frame for plan in source.plans() for frame in source.frames(plan, set(plan.indices()))]
    assert len(frames) == 2 * 2 * EMULATED.n_z
    for frame in frames:
        said = as_taken(emulator, emulator.plan(frame.key.well), frame.index)
        assert {name: frame.metadata.get(name) for name in said} == said
        assert all(not isinstance(value, float) or math.isfinite(value) for value in frame.metadata.values())


@needs_real_data
def test_a_real_tree_that_is_watched_says_where_it_was_taken_without_inventing_a_unit(tmp_path, emulated):
    shutil.copytree(TREE / "experiment--test", tmp_path / "experiment--test")
    settings = MatrixScreenerSettings(
        folder=tmp_path, fields=((0, 1),), n_z=1, z_step_um=1.0, end_after_s=4.0, settle_s=2.0
    )
    with closing(MatrixScreenerSource(settings, emulated[0].plate_map, "plate", FakeClock())) as source:
        plan = next(iter(source.plans()))
        frames = list(source.frames(plan, set(plan.indices())))
    assert [frame.metadata["stage_x"] for frame in frames] == [0.042702126574] * 2
    assert not {"x_um", "exposure_ms"} & frames[0].metadata.keys()


# -- a recording of ours -----------------------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path):
    """Three wells as a run leaves them, with what it knew of one image."""
    plate_map = store(tmp_path)
    said = {"x_um": 1.5, "preset": "FITC", "host_time_s": 5.0, "file": "a.tif"}
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(plate_map, "{}")
        plan = StackPlan(StackKey("P1", WellId(0, 0)), ("488", "561"), 20, 32, 40, 0.5, 1.0)
        catalog.expect(plan)
        catalog.acknowledge(SliceDurable(plan.key, SliceIndex("561", 3), 7, 1.0, said), 2.0)
    return tmp_path


def of_image(data, z=3):
    with closing(open_file(image(data))) as file:
        return dict(file.metadata(1, z))


def test_a_run_of_ours_is_replayed_with_what_was_known_of_its_images(recording):
    assert of_image(recording) == {"x_um": 1.5, "preset": "FITC"}
    assert of_image(recording, z=4) == {}


def without_ledger(data):
    (data / "catalog.sqlite").unlink()


def with_a_damaged_ledger(data):
    (data / "catalog.sqlite").write_bytes(b"SQLite format 3\0" + bytes(5000))


def with_another_ledger(data):
    (data / "catalog.sqlite").unlink()
    with closing(sqlite3.connect(data / "catalog.sqlite")) as other:
        other.execute("CREATE TABLE frames_view (plate, well, stack, channel, z, metadata_json)")
        other.execute("""INSERT INTO frames_view VALUES ('P1', 'A01', 0, '561', 3, '["x_um"]')""")
        other.commit()


def with_a_ledger_of_no_run(data):
    (data / "catalog.sqlite").write_bytes(b"")


def with_a_folder_for_a_ledger(data):
    (data / "catalog.sqlite").unlink()
    (data / "catalog.sqlite").mkdir()


UNREADABLE = {
    with_a_damaged_ledger: "file is not a database",
    with_another_ledger: "an image's metadata are '[\"x_um\"]'",
    with_a_ledger_of_no_run: "no such table: frames_view",
    with_a_folder_for_a_ledger: "the catalog cannot be read",
}


@pytest.mark.parametrize("spoil", [without_ledger, *UNREADABLE])
def test_a_recording_whose_ledger_says_nothing_is_still_read(recording, spoil):
    spoil(recording)
    assert of_image(recording) == {}


def replay_of(data, wells=("A01", "A02", "B01")):
    """A replay's frames of one channel, and what it told."""
    told = []
    treatment = Treatment(WellRole.SAMPLE, "C", 1.0)
    entries = tuple(PlateWell(WellId.parse(well), treatment, paths={"": image(data, well)}) for well in wells)
    with closing(ReplaySource(ReplaySettings(), PlateMap("P2", entries), "P2", FakeClock())) as source:
        source.set_event_sink(told.append)
        frames = [f for plan in source.plans() for f in source.frames(plan, {SliceIndex("561", z) for z in (3, 4)})]
    return frames, told


@pytest.mark.parametrize(("spoil", "why"), UNREADABLE.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_a_ledger_that_is_there_and_cannot_be_read_is_told_once_and_stands_with_each_image(recording, spoil, why):
    spoil(recording)
    frames, told = replay_of(recording)
    assert len(frames) == 3 * 2
    (fault,) = told
    assert (fault.code, fault.key, fault.cleared) == ("recorded-facts", None, False)
    assert why in fault.error.what
    assert "stage position, exposure and time" in fault.error.what
    assert fault.error.where == str(recording / "catalog.sqlite")
    assert "replay into a new data directory" in fault.error.do
    said = [frame.metadata["facts_unread"] for frame in frames if frame.key.well == WellId(0, 0)]
    assert said == [fault.error.what[:200]] * 2


def test_a_ledger_that_can_be_read_or_was_never_there_is_nothing_to_tell_of(recording):
    frames, told = replay_of(recording)
    assert told == []
    assert {"x_um": 1.5, "preset": "FITC"}.items() <= frames[0].metadata.items()
    without_ledger(recording)
    frames, told = replay_of(recording)
    assert told == []
    assert all("facts_unread" not in frame.metadata for frame in frames)


def test_a_ledger_in_a_folder_that_nobody_may_write_is_read(recording, monkeypatch):
    real = sqlite3.connect

    def connect(place, **options):
        """What SQLite does where it cannot make its shared memory beside the file."""
        return real(place if "immutable" in place else f"file:{recording}/none/x?mode=ro", **options)

    monkeypatch.setattr("spheroidd.acquisition.images.stored_ledger.sqlite3.connect", connect)
    assert of_image(recording) == {"x_um": 1.5, "preset": "FITC"}
    (recording / "catalog.sqlite-wal").write_bytes(b"not yet in the file")
    with RecordedStack({"": image(recording)}) as stack:
        assert "unable to open" in stack.unread().what
