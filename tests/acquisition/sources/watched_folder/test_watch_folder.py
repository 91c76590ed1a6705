"""Watching a folder: what is whole comes at once and exactly, what is not is named, and no file is touched."""

import itertools
import os
import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from spheroidd.acquisition.sources.watched_folder.settings import MatrixScreenerSettings, WatchSettings
from spheroidd.acquisition.sources.watched_folder.source import MatrixScreenerSource, WatchSource
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import ConfigError, InstrumentError, StackError
from spheroidd.protocols.faults import FaultCode
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.sim_emulator.folder_writer import write_plate
from spheroidd.sim_emulator.source import EmulatorSettings, EmulatorSource
from spheroidd.testing.source_contract import FakeClock, SourceContract, take

N_Z, SHAPE = 4, (12, 10)
WELLS = ("A01", "B02")
PIXELS = {
    (well, channel): np.random.default_rng(n).integers(1, 60000, (N_Z, *SHAPE)).astype(np.uint16)
    for n, (well, channel) in enumerate(itertools.product(WELLS, ("488", "561")))
}
LENGTHS = {"pixel_um": 0.5, "z_step_um": 1.0}
PATIENT = {"poll_s": 0.05, "settle_s": 30.0, "end_after_s": 60.0}  # whatever else the machine does while a test writes


def plate(*wells):
    treatment = Treatment(WellRole.SAMPLE, "C", 1.0)
    return PlateMap("plate", tuple(PlateWell(WellId.parse(well), treatment) for well in wells or WELLS))


def write_slice(folder, well, channel, z, name="{well}/{channel}_z{z:02d}.tif"):
    path = folder / name.format(well=well, channel=channel, z=z)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, PIXELS[well, channel][z], metadata=None)
    return path


def write_slices(folder, *wells, name="{well}/{channel}_z{z:02d}.tif"):
    for well, z, channel in itertools.product(wells or WELLS, range(N_Z), ("488", "561")):
        write_slice(folder, well, channel, z, name)


def slices_source(folder, clock, *wells, **settings):
    told = {"pattern": "{well}/{channel}_z{z}.tif", "n_z": N_Z, **LENGTHS, **settings}
    return WatchSource(WatchSettings(folder=folder, **told), plate(*wells), "plate", clock)


def write_stack(path, well):
    data = np.stack([PIXELS[well, "488"], PIXELS[well, "561"]])
    channels = {"Name": ["live 488", "dead 561"]}
    said = {"axes": "CZYX", "Channel": channels, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 1.0}
    tifffile.imwrite(path, data, ome=True, metadata=said, photometric="minisblack")


def everything(source):
    """Each stack that came whole: its planes by well, channel and z."""
    got = {}
    for plan in source.plans():
        frames = take(source, plan, set(plan.indices()))
        got |= {(str(plan.key.well), *index): pixels for index, pixels in frames.items()}
    return got


def assert_exact(got, wells=WELLS):
    assert len(got) == len(wells) * N_Z * 2
    for (well, channel, z), pixels in got.items():
        np.testing.assert_array_equal(pixels, PIXELS[well, channel][z])


class TestSliceFiles(SourceContract):
    def make_source(self, folder, clock):
        if not (folder / "A01").exists():
            write_slices(folder)
        return slices_source(folder, clock)


class TestStackFiles(SourceContract):
    def make_source(self, folder, clock):
        for well in WELLS:
            if not (folder / f"{well}.ome.tif").exists():
                write_stack(folder / f"{well}.ome.tif", well)
        return WatchSource(WatchSettings(folder=folder), plate(), "plate", clock)


SMALL = {"preset": "unit", "n_z": 3, "height": 16, "width": 16, "compounds": 0, "negative_controls": 1}
EMULATOR = EmulatorSource(EmulatorSettings(pace="fast", positive_controls=1, **SMALL), None, "plate", FakeClock())


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """The emulator's plate in each layout, written once."""
    root = tmp_path_factory.mktemp("trees")
    for layout in ("matrix-screener", "ome-tiff", "ome-zarr"):
        write_plate(EMULATOR, root / layout, layout)
    return root


class OfTheEmulator(SourceContract):
    @pytest.fixture(autouse=True)
    def _of_trees(self, trees):
        self.trees = trees


class TestMatrixScreener(OfTheEmulator):
    def make_source(self, folder, clock):
        settings = MatrixScreenerSettings(folder=self.trees / "matrix-screener")
        return MatrixScreenerSource(settings, EMULATOR.plate_map, "plate", clock)


class TestZarrPlate(OfTheEmulator):
    def make_source(self, folder, clock):
        settings = WatchSettings(folder=self.trees / "ome-zarr", pattern="plate.ome.zarr/{row}/{column}/0")
        return WatchSource(settings, EMULATOR.plate_map, "plate", clock)


del OfTheEmulator  # a base class is no test


@pytest.mark.parametrize(
    ("layout", "source", "settings"),
    [
        ("matrix-screener", MatrixScreenerSource, MatrixScreenerSettings),
        ("ome-tiff", WatchSource, WatchSettings),
    ],
)
def test_an_emulated_plate_comes_as_it_was_written(trees, layout, source, settings):
    watch = source(settings(folder=trees / layout), EMULATOR.plate_map, "plate", FakeClock())
    with closing(watch):
        for plan, theirs in zip(watch.plans(), EMULATOR.plans(), strict=True):
            assert (plan.pixel_um, plan.z_step_um, plan.n_z) == (theirs.pixel_um, theirs.z_step_um, theirs.n_z)
            got = take(watch, plan, set(plan.indices()))
            for frame in EMULATOR.frames(theirs, set(theirs.indices())):
                np.testing.assert_array_equal(got[frame.index], frame.pixels)


# -- misbehaviour, as data: each writes the plate live, and says what is then expected ---------------------------------


def shuffled_slices(seed=0):
    slices = list(itertools.product(WELLS, ("488", "561"), range(N_Z)))
    np.random.default_rng(seed).shuffle(slices)
    return [(str(well), str(channel), int(z)) for well, channel, z in slices]


def in_order(folder):
    write_slices(folder)


def in_one_burst_out_of_order(folder):
    for well, channel, z in shuffled_slices():
        write_slice(folder, well, channel, z)


def slowly(folder):
    for well, channel, z in itertools.product(WELLS, ("488", "561"), range(N_Z)):
        write_slice(folder, well, channel, z)
        time.sleep(0.03)


def one_file_late(folder):
    (late, *others) = shuffled_slices(1)
    for well, channel, z in others:
        write_slice(folder, well, channel, z)
    time.sleep(0.5)
    write_slice(folder, *late)


def every_file_twice(folder):
    write_slices(folder)
    time.sleep(0.2)
    write_slices(folder)


def renamed_into_place(folder):
    for well, channel, z in shuffled_slices(2):
        path = write_slice(folder, well, channel, z, "{well}/{channel}_z{z:02d}.tif.part")
        path.rename(path.with_suffix(""))


def a_folder_renamed_into_place(folder):
    write_slices(folder / "hidden")
    for well in WELLS:
        (folder / "hidden" / well).rename(folder / well)


def in_parts(folder):
    """Each file stands half written for longer than it takes to be looked at."""
    for well, channel, z in shuffled_slices(3):
        path = write_slice(folder.with_name("aside"), well, channel, z)
        whole = path.read_bytes()
        target = folder / path.relative_to(folder.with_name("aside"))
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(whole[: len(whole) // 2])
            file.flush()
            time.sleep(0.15 if z == 1 else 0)
            file.write(whole[len(whole) // 2 :])


def with_litter(folder):
    (folder / "A01").mkdir()
    for name in (".DS_Store", "Thumbs.db", "A01/notes.txt", "A01/._488_z00.tif", "~lock"):
        (folder / name).write_bytes(b"litter")
    write_slices(folder)


@pytest.mark.parametrize("file_system", ["local", "network"])
@pytest.mark.parametrize(
    "write",
    [
        in_order, in_one_burst_out_of_order, slowly, one_file_late, every_file_twice, renamed_into_place,
        a_folder_renamed_into_place, in_parts, with_litter,
    ],
)  # fmt: skip
def test_slices_written_live_come_exactly(tmp_path, write, file_system):
    folder = tmp_path / "watched"
    folder.mkdir()
    writer = threading.Thread(target=write, args=(folder,))
    with closing(slices_source(folder, SystemClock(), file_system=file_system, **PATIENT)) as source:
        source.check()
        writer.start()
        assert_exact(everything(source))
    writer.join()


def test_a_slice_flows_before_the_next_is_written(tmp_path):
    """The stack is live: nothing waits for its end."""
    with closing(slices_source(tmp_path, SystemClock(), "A01", **PATIENT)) as source:
        write_slice(tmp_path, "A01", "488", 0)
        plan = next(source.plans())
        wanted = list(plan.indices())
        frames = source.frames(plan, set(wanted))
        assert next(frames).index == wanted[0]
        for index in wanted[1:]:
            write_slice(tmp_path, "A01", *index)
            assert next(frames).index == index


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path: path.unlink(),
            "7 of 8 slices arrived before the folder went quiet, missing are 488 z 2; raise source.settle_s",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "7 of 8 slices.*488_z02.tif.*beyond its end"),
        (lambda path: path.write_bytes(b""), "7 of 8 slices.*488_z02.tif: not a whole TIFF"),
        (lambda path: tifffile.imwrite(path, np.zeros((5, 5), np.uint16)), r"7 of 8.*\(5, 5, 'uint16'\)"),
        (lambda path: tifffile.imwrite(path, np.zeros(SHAPE, np.float32)), "7 of 8.*float32"),
        (
            lambda path: tifffile.imwrite(path, np.zeros((2, *SHAPE), np.uint16), photometric="minisblack"),
            "7 of 8.*holds 2 planes",
        ),
    ],
    ids=["missing", "cut off", "empty", "other size", "other kind", "several planes"],
)
def test_a_lost_slice_is_told_and_the_plate_goes_on(tmp_path, spoil, message):
    write_slices(tmp_path)
    spoil(tmp_path / "A01" / "488_z02.tif")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.tif")}
    faults = []
    with closing(slices_source(tmp_path, FakeClock())) as source:
        source.set_event_sink(faults.append)
        first, second = source.plans()
        came = []
        with pytest.raises(StackError, match=message):
            came.extend(source.frames(first, set(first.indices())))
        assert SliceIndex("488", 2) not in {frame.index for frame in came}
        assert len(take(source, second, set(second.indices()))) == 2 * N_Z
    quarantined = [fault for fault in faults if fault.code == "quarantine" and not fault.cleared]
    assert [fault.key for fault in quarantined] == ([first.key] if (tmp_path / "A01/488_z02.tif").exists() else [])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.tif")} == before


def test_a_file_that_is_put_right_later_is_taken_by_the_next_run(tmp_path):
    write_slices(tmp_path)
    path = tmp_path / "A01" / "488_z02.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        plan = next(iter(source.plans()))
        with pytest.raises(StackError):
            list(source.frames(plan, set(plan.indices())))
    path.write_bytes(whole)
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        assert [frame.index for frame in source.frames(plan, {SliceIndex("488", 2)})] == [SliceIndex("488", 2)]


def test_what_the_store_has_is_not_opened_again(tmp_path):
    write_slices(tmp_path, "A01")
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        plan = next(iter(source.plans()))
        for path in tmp_path.rglob("*.tif"):
            path.write_bytes(b"no one reads me")
        assert list(source.frames(plan, set())) == []


def test_a_writer_that_stops_in_the_middle_leaves_a_row_for_every_well(tmp_path):
    write_slices(tmp_path, "A01")
    (tmp_path / "B02").mkdir()
    with closing(slices_source(tmp_path, FakeClock(), end_after_s=60)) as source:
        first, second = source.plans()
        assert (first.n_z, first.height, first.width) == (second.n_z, second.height, second.width)
        with pytest.raises(StackError, match="B02: 0 of 8 slices arrived"):
            take(source, second, set(second.indices()))


def test_nothing_at_all_is_the_instruments_fault(tmp_path):
    (tmp_path / "snap.tif").write_bytes(b"")
    source = slices_source(tmp_path, FakeClock(), end_after_s=60)
    with closing(source), pytest.raises(InstrumentError, match=r"snap\.tif"):
        list(source.plans())


def test_a_folder_that_goes_away_is_the_instruments_fault_and_may_come_back(tmp_path):
    folder = tmp_path / "share"
    write_slices(folder, "A01")
    with closing(slices_source(folder, FakeClock(), "A01", file_system="network")) as source:
        plan = next(iter(source.plans()))
        folder.rename(tmp_path / "gone")
        with pytest.raises(InstrumentError, match="watched folder cannot be read"):
            list(source.frames(plan, set(plan.indices())))
        (tmp_path / "gone").rename(folder)
        assert set(take(source, plan, set(plan.indices()))) == set(plan.indices())


def test_whoever_waits_can_be_interrupted(tmp_path):
    write_slice(tmp_path, "A01", "488", 0)
    asked = itertools.count()
    with closing(slices_source(tmp_path, FakeClock(), end_after_s=None)) as source:
        plan = next(iter(source.plans()))
        source.set_interrupt(lambda: next(asked) > 50)
        assert len(list(source.frames(plan, set(plan.indices())))) == 1
        assert list(source.plans()) == []


# -- what must be said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"n_z": None}, "source.n_z"), ({"z_step_um": None}, "source.z_step_um"), ({"pixel_um": None}, "source.pixel_um")],
)
def test_what_no_file_says_is_asked_for_by_its_key(tmp_path, settings, key):
    write_slices(tmp_path)
    with closing(slices_source(tmp_path, FakeClock(), **settings)) as source, pytest.raises(ConfigError, match=key):
        list(source.plans())


def test_a_missing_voxel_size_is_found_before_the_run_starts(tmp_path):
    write_slices(tmp_path)
    with (
        closing(slices_source(tmp_path, FakeClock(), z_step_um=None)) as source,
        pytest.raises(ConfigError, match=r"source\.z_step_um: z_step_um of well A01 is unknown"),
    ):
        source.check()


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    source = slices_source(tmp_path / "typo", FakeClock())
    with pytest.raises(ConfigError, match=r"source\.folder.*typo.*no such folder"):
        source.check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "*.tif"}, r"\{well\}"),
        ({"pattern": "{well}_{time}.tif"}, r"\{time\}"),
        ({"pattern": "{well}{well}.tif"}, "at most once"),
        ({"pattern": "{well}_{field}.tif"}, r"source\.fields"),
        ({"settle_s": 60, "end_after_s": 5}, "below settle_s"),
        ({"n_z": 0}, "n_z"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(tmp_path, settings, message):
    with pytest.raises(ValidationError, match=message):
        WatchSettings(folder=tmp_path, **settings)


@pytest.mark.parametrize(
    ("name", "said"),
    [("C03/488_z00.tif", "well C03 is not in the plate map"), ("A01/405_z00.tif", "channel '405'"),
     ("A01.png", "not as source.pattern says")],
)  # fmt: skip
def test_images_that_are_not_used_are_told_with_the_reason(tmp_path, name, said):
    write_slices(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    faults = []
    with closing(slices_source(tmp_path, FakeClock())) as source:
        source.set_event_sink(faults.append)
        everything(source)
    told = [str(fault.error) for fault in faults if fault.code == "watch-folder"]
    assert len(told) == 1
    assert said in told[0]
    assert name in told[0]


def test_a_share_that_is_unmounted_leaves_an_empty_folder_and_is_no_loss_of_wells(tmp_path):
    folder = tmp_path / "share"
    write_slices(folder, "A01")
    with closing(slices_source(folder, FakeClock(), "A01", file_system="network")) as source:
        plan = next(iter(source.plans()))
        folder.rename(tmp_path / "gone")
        folder.mkdir()
        with pytest.raises(InstrumentError, match="has become empty"):
            list(source.frames(plan, set(plan.indices())))


def test_a_file_changed_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    from spheroidd.acquisition.sources.watched_folder import source as watch_folder

    write_slices(tmp_path, "A01")
    victim, read = tmp_path / "A01" / "488_z01.tif", watch_folder.read_slice
    reads = []

    def meanwhile(path, *said):
        slices = read(path, *said)
        if path == victim:
            reads.append(path)
            if len(reads) == 1:
                tifffile.imwrite(path, PIXELS["A01", "488"][1], metadata=None, software="another")
        return slices

    monkeypatch.setattr(watch_folder, "read_slice", meanwhile)
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        assert_exact(everything(source), ["A01"])
    assert len(reads) == 2


def test_a_file_its_writer_holds_is_tried_again(tmp_path, monkeypatch):
    """As on Windows, where a file that is open elsewhere may not be opened."""
    from spheroidd.acquisition.sources.watched_folder import source as watch_folder

    write_slices(tmp_path, "A01")
    victim, read, held = tmp_path / "A01" / "561_z03.tif", watch_folder.read_slice, itertools.count()

    def refused(path, *said):
        if path == victim and next(held) < 3:
            raise PermissionError(13, "used by another process", str(path))
        return read(path, *said)

    monkeypatch.setattr(watch_folder, "read_slice", refused)
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        assert_exact(everything(source), ["A01"])


def test_a_zarr_that_grows_gives_its_slices_as_their_chunks_come(tmp_path, trees):
    whole = trees / "ome-zarr" / "plate.ome.zarr"
    growing = tmp_path / "plate.ome.zarr"
    chunks = sorted(path for path in whole.rglob("*") if path.is_file() and path.name != "zarr.json")
    shutil.copytree(whole, growing, ignore=lambda folder, names: {n for n in names if Path(folder, n) in set(chunks)})
    settings = WatchSettings(folder=tmp_path, pattern="plate.ome.zarr/{row}/{column}/0", **PATIENT)
    with closing(WatchSource(settings, EMULATOR.plate_map, "plate", SystemClock())) as source:
        plan = next(iter(source.plans()))
        place = growing / plan.key.well.row_name / plan.key.well.column_name
        frames = source.frames(plan, set(plan.indices()))
        came = set()
        for chunk in chunks:
            target = growing / chunk.relative_to(whole)
            if place not in target.parents:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(chunk, target.with_suffix(".partial"))
            target.with_suffix(".partial").rename(target)
            came.add(next(frames).index)
        assert came == set(plan.indices())


def write_set(folder, well):
    """A multi-file OME-TIFF: each file names the planes of both."""
    tiff_data = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" FirstT="0" IFD="{z}" PlaneCount="1">'
        f'<UUID FileName="{well}_{c}.ome.tif">urn:uuid:00000000-0000-0000-0000-00000000000{c}</UUID></TiffData>'
        for c in range(2)
        for z in range(N_Z)
    )
    for c, channel in enumerate(("488", "561")):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:00000000-0000-0000-0000-00000000000{c}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="XYZCT" Type="uint16" SizeX="{SHAPE[1]}" SizeY="{SHAPE[0]}" SizeZ="{N_Z}" SizeC="2" '
            'SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeZ="1.0"><Channel ID="Channel:0:0" '
            'Name="488"/><Channel ID="Channel:0:1" Name="561"/>' + tiff_data + "</Pixels></Image></OME>"
        )
        with tifffile.TiffWriter(folder / f"{well}_{c}.ome.tif") as file:
            for z in range(N_Z):
                text = xml if z == 0 else ""
                file.write(PIXELS[well, channel][z], description=text, metadata=None, contiguous=False)
        time.sleep(0.2)


def write_file_a_channel(folder, well):
    for channel in ("488", "561"):
        tifffile.imwrite(folder / f"{well}_{channel}.tif", PIXELS[well, channel], photometric="minisblack")
        time.sleep(0.2)


def write_npy(folder, well):
    np.save(folder / f"{well}.npy", np.stack([PIXELS[well, "488"], PIXELS[well, "561"]]))


def write_two_planes_a_file(folder, well):
    for z in range(N_Z):
        both = np.stack([PIXELS[well, "488"][z], PIXELS[well, "561"][z]])
        tifffile.imwrite(folder / f"{well}_z{z + 1}.tif", both, photometric="minisblack")


@pytest.mark.parametrize(
    ("write", "settings"),
    [
        (write_set, {"pattern": "{well}_?.ome.tif"}),
        (write_file_a_channel, {"pattern": "{well}_{channel}.tif", **LENGTHS}),
        (write_npy, LENGTHS),
        (write_two_planes_a_file, {"pattern": "{well}_z{z}.tif", "first_z": 1, "n_z": N_Z, **LENGTHS}),
    ],
)
def test_stacks_in_other_forms_come_live_and_exactly(tmp_path, write, settings):
    writer = threading.Thread(target=lambda: [write(tmp_path, well) for well in WELLS])
    with closing(
        WatchSource(WatchSettings(folder=tmp_path, **PATIENT, **settings), plate(), "plate", SystemClock())
    ) as s:
        writer.start()
        assert_exact(everything(s))
    writer.join()


def test_a_damaged_stack_file_fails_its_well_alone_and_is_named(tmp_path):
    for well in WELLS:
        write_stack(tmp_path / f"{well}.ome.tif", well)
    path = tmp_path / "A01.ome.tif"
    path.write_bytes(path.read_bytes()[:-700])
    with closing(WatchSource(WatchSettings(folder=tmp_path), plate(), "plate", FakeClock())) as source:
        plans = {str(plan.key.well): plan for plan in source.plans()}
        with pytest.raises(StackError, match=r"A01: 0 of 8 slices arrived .*A01\.ome\.tif"):
            take(source, plans["A01"], set(plans["A01"].indices()))
        assert len(take(source, plans["B02"], set(plans["B02"].indices()))) == 2 * N_Z


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe is what a reader hangs at")
def test_a_well_with_a_pipe_among_its_files_fails_and_the_others_are_read(trees, tmp_path):
    """A chunk that is a pipe: whoever opened it would wait for ever."""
    shutil.copytree(trees / "ome-zarr" / "plate.ome.zarr", tmp_path / "plate.ome.zarr")
    image = tmp_path / "plate.ome.zarr" / "A" / "01" / "0"
    chunk = next(path for path in sorted((image / "0" / "c").rglob("*")) if path.is_file())
    chunk.unlink()
    os.mkfifo(chunk)
    patient = {"poll_s": 0.05, "settle_s": 1.0, "end_after_s": 2.0}
    settings = WatchSettings(folder=tmp_path, pattern="plate.ome.zarr/{row}/{column}/0", **patient)
    imaged = EMULATOR.plate_map
    others = [entry.well for entry in imaged.imaged() if str(entry.well) != "A01"]
    got, failed = [], []
    with closing(WatchSource(settings, imaged, "plate", SystemClock())) as source:
        for plan in source.plans():
            try:
                take(source, plan, set(plan.indices()))
                got.append(str(plan.key.well))
            except StackError:
                failed.append(str(plan.key.well))
    assert (got, failed) == ([str(well) for well in others], ["A01"])


# -- what never ends, and what comes twice -----------------------------------------------------------------------------


class WritingClock(FakeClock):
    """Somebody writes to a file whenever time passes."""

    path = None

    def sleep(self, seconds):
        super().sleep(seconds)
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(b"0")


@pytest.mark.timeout(120)
def test_a_file_that_is_written_to_without_end_is_told_and_holds_no_plate_up_for_ever(tmp_path):
    clock, told = WritingClock(), []
    write_stack(tmp_path / "A01.ome.tif", "A01")
    (tmp_path / "B02.ome.tif").write_bytes(b"II*\0")
    clock.path = tmp_path / "B02.ome.tif"
    settings = WatchSettings(folder=tmp_path, end_after_s=2, settle_s=1, file_system="network")
    watch = WatchSource(settings, plate(), "plate", clock)
    watch.set_event_sink(told.append)
    with closing(watch):
        first, second = watch.plans()
        assert (str(first.key.well), str(second.key.well)) == WELLS
        with pytest.raises(StackError, match="0 of 8 slices arrived"):
            take(watch, second, set(second.indices()))
    said = [fault.error.what for fault in told if fault.code is FaultCode.WATCH_FOLDER]
    assert "1 files did not become whole within 2 s, such as B02.ome.tif" in said
    assert 24 * 2 <= clock.elapsed() < 60


def test_a_well_that_came_in_two_files_is_told_with_the_one_that_was_taken(tmp_path):
    told = []
    for folder, well in (("first", "A01"), ("second", "B02")):
        (tmp_path / folder).mkdir()
        write_stack(tmp_path / folder / "A01.ome.tif", well)
    settings = WatchSettings(folder=tmp_path, end_after_s=4, settle_s=2)
    watch = WatchSource(settings, plate("A01"), "plate", FakeClock())
    watch.set_event_sink(told.append)
    with closing(watch):
        got = everything(watch)
    assert_exact(got, ("A01",))
    (fault,) = [fault for fault in told if fault.code is FaultCode.RECORDING_DOUBTS]
    assert fault.error.what == ("second/A01.ome.tif is named as first/A01.ome.tif is, which was taken in its place")
