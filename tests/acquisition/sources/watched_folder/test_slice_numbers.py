"""Where slices' numbers begin, how many there are and how far apart: seen at the first look, told, never guessed."""

import contextlib
import itertools
from contextlib import closing

import numpy as np
import pytest
import tifffile

from spheroidd.acquisition.sources.watched_folder.settings import MatrixScreenerSettings, WatchSettings
from spheroidd.acquisition.sources.watched_folder.source import MatrixScreenerSource, WatchSource
from spheroidd.protocols.errors import ConfigError, StackError
from spheroidd.testing.source_contract import FakeClock
from tests.acquisition.sources.watched_folder.test_watch_folder import (
    N_Z,
    PIXELS,
    SHAPE,
    assert_exact,
    everything,
    plate,
    slices_source,
    write_stack,
)


def write_numbered(folder, well, channel, z, first=0):
    path = folder / well / f"{channel}_z{z + first:02d}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, PIXELS["A01", channel][z % N_Z], metadata=None)


def write_all(folder, well="A01", first=0, numbers=range(N_Z)):
    for z, channel in itertools.product(numbers, ("488", "561")):
        write_numbered(folder, well, channel, z, first)


@pytest.mark.parametrize(
    ("first", "settings", "message"),
    [
        (1, {}, "well A01: slice 4 lies beyond n_z = 4 and slice 0 never arrived; write first_z = 1 under"),
        (2, {"first_z": 1}, "slice 5 lies beyond n_z = 4 and slice 1 never arrived; write first_z = 2"),
        (0, {"first_z": 1}, "slice 0 arrived, and source.first_z = 1 says that the first is 1; write first_z = 0"),
        (0, {"n_z": 3}, r"slice 3 lies beyond n_z = 3 \(slices 0 to 2\); write n_z = 4"),
    ],
)
def test_wrong_numbers_are_told_before_the_run(tmp_path, first, settings, message):
    write_all(tmp_path, first=first)
    source = slices_source(tmp_path, FakeClock(), "A01", **settings)
    with closing(source), pytest.raises(ConfigError, match=message) as caught:
        source.check()
    assert "nothing needs to be imaged again" in str(caught.value)


@pytest.mark.parametrize("first", [0, 1, 7])
def test_right_numbers_are_taken(tmp_path, first):
    write_all(tmp_path, first=first)
    with closing(slices_source(tmp_path, FakeClock(), "A01", first_z=first)) as source:
        source.check()
        assert_exact(everything(source), ["A01"])


@pytest.mark.parametrize("order", [range(N_Z), reversed(range(N_Z)), (2, 0, 3, 1)], ids=["up", "down", "mixed"])
def test_slices_numbered_from_one_that_come_live_are_never_given_out_one_place_off(tmp_path, order):
    source = slices_source(tmp_path, FakeClock(), "A01")
    order = list(order)
    write_all(tmp_path, first=1, numbers=order[:1])
    with closing(source):
        plan = next(iter(source.plans()))
        frames = source.frames(plan, set(plan.indices()))
        source.set_interrupt(itertools.chain([False] * 2, itertools.repeat(True)).__next__)
        with contextlib.suppress(StackError):  # at once, where the last came first
            assert list(frames) == [], "nothing tells yet where the numbers begin"
        source.set_interrupt(lambda: False)
        write_all(tmp_path, first=1, numbers=order[1:])
        with pytest.raises(StackError, match="slice 4 lies beyond n_z = 4 and slice 0 never arrived; write first_z"):
            list(source.frames(plan, set(plan.indices())))


def test_a_stage_that_goes_down_is_read_when_its_first_slice_is_there(tmp_path):
    write_all(tmp_path, numbers=[N_Z - 1])
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        plan = next(iter(source.plans()))
        source.set_interrupt(itertools.chain([False] * 2, itertools.repeat(True)).__next__)
        assert list(source.frames(plan, set(plan.indices()))) == []
        source.set_interrupt(lambda: False)
        write_all(tmp_path, numbers=range(N_Z - 1))
        assert len(list(source.frames(plan, set(plan.indices())))) == 2 * N_Z


def test_a_first_slice_that_never_came_is_named_and_nothing_is_given_out(tmp_path):
    write_all(tmp_path, numbers=range(1, N_Z))
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        (plan,) = source.plans()
        with pytest.raises(
            StackError, match=r"slice 0 never arrived, slices 1 to 3 of 4 did.*write first_z = 1 .* image the"
        ):
            next(source.frames(plan, set(plan.indices())))


def test_missing_slices_are_named(tmp_path):
    write_all(tmp_path, numbers=(0, 3))
    with closing(slices_source(tmp_path, FakeClock(), "A01")) as source:
        (plan,) = source.plans()
        with pytest.raises(StackError, match=r"4 of 8 slices arrived before .*, missing are 488 z 1-2; 561 z 1-2"):
            list(source.frames(plan, set(plan.indices())))


# -- what the slices' own files say ------------------------------------------------------------------------------------


def write_described(folder, z, n_z=None, pixel_um=0.5, at_um=None):
    """One plane whose own OME-XML says of its stack what it is given."""
    position = (
        f'<Plane TheC="0" TheZ="0" TheT="0" PositionZ="{at_um}" PositionZUnit="µm"/>' if at_um is not None else ""
    )
    said = f'SizeX="{SHAPE[1]}" SizeY="{SHAPE[0]}" SizeZ="{n_z or 1}" SizeC="1" SizeT="1"'
    said += f' PhysicalSizeX="{pixel_um}" PhysicalSizeY="{pixel_um}"'
    data = f'<TiffData FirstZ="{z if n_z else 0}" IFD="0" PlaneCount="1"/>{position}'
    text = f'<OME><Image><Pixels DimensionOrder="XYZCT" Type="uint16" {said}>{data}</Pixels></Image></OME>'
    path = folder / "A01" / f"488_z{z:02d}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, PIXELS["A01", "488"][z], description=text.encode(), metadata=None)


ONE_CHANNEL = {"channels": {"488": "488"}, "pixel_um": None}


def test_another_number_of_slices_in_the_files_than_in_the_settings_is_refused(tmp_path):
    for z in range(N_Z):
        write_described(tmp_path, z, n_z=N_Z)
    source = slices_source(tmp_path, FakeClock(), "A01", **ONE_CHANNEL, n_z=9)
    with closing(source), pytest.raises(ConfigError, match=r"has 9 slices as source\.n_z says, and 4 as its files say"):
        source.check()
    with closing(slices_source(tmp_path, FakeClock(), "A01", **ONE_CHANNEL)) as source:
        source.check()


def test_slices_of_another_pixel_size_are_not_used(tmp_path):
    for z in range(N_Z):
        write_described(tmp_path, z, pixel_um=0.7 if z == 2 else 0.5)
    with closing(slices_source(tmp_path, FakeClock(), "A01", **ONE_CHANNEL)) as source:
        (plan,) = source.plans()
        with pytest.raises(StackError, match=r"3 of 4 .*pixel_um is 0\.7 um in it and 0\.5 um in another slice"):
            list(source.frames(plan, set(plan.indices())))


@pytest.mark.parametrize(
    ("at_um", "message"),
    [
        ((0, 1, 3, 8), "its slices do not stand at equal distances"),
        ((0, 2, 4, 6), "its z-step is 1 um, and its slices' positions are 2 um apart"),
        ((0, 1, 2, 3), None),
    ],
)
def test_positions_that_slices_have_of_their_own_must_fit(tmp_path, at_um, message):
    for z, um in enumerate(at_um):
        write_described(tmp_path, z, at_um=um)
    with closing(slices_source(tmp_path, FakeClock(), "A01", **ONE_CHANNEL)) as source:
        (plan,) = source.plans()
        if message is None:
            assert len(list(source.frames(plan, set(plan.indices())))) == N_Z
            return
        with pytest.raises(StackError, match=message):
            list(source.frames(plan, set(plan.indices())))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pixel_um": 0.65}, r"pixel_um is 0\.5 um in its files and 0\.65 um in the settings.*voxel_from"),
        ({"z_step_um": 3.0}, "z_step_um is 1 um in its files and 3 um in the settings"),
    ],
)
def test_settings_that_a_file_contradicts_are_refused_before_the_run(tmp_path, settings, message):
    write_stack(tmp_path / "A01.ome.tif", "A01")
    source = WatchSource(WatchSettings(folder=tmp_path, **settings), plate("A01"), "p", FakeClock())
    with closing(source), pytest.raises(ConfigError, match=message):
        source.check()
    chosen = WatchSettings(folder=tmp_path, **settings, voxel_from="settings")
    with closing(WatchSource(chosen, plate("A01"), "p", FakeClock())) as source:
        (plan,) = source.plans()
        assert all(getattr(plan, name) == um for name, um in settings.items())


def test_a_later_well_that_contradicts_the_settings_fails_alone(tmp_path):
    write_stack(tmp_path / "A01.ome.tif", "A01")
    write_stack(tmp_path / "B02.ome.tif", "B02")
    text = tifffile.tiffcomment(tmp_path / "B02.ome.tif")
    tifffile.tiffcomment(tmp_path / "B02.ome.tif", text.replace('PhysicalSizeX="0.5"', 'PhysicalSizeX="0.7"').encode())
    text = tifffile.tiffcomment(tmp_path / "B02.ome.tif").replace('PhysicalSizeY="0.5"', 'PhysicalSizeY="0.7"')
    tifffile.tiffcomment(tmp_path / "B02.ome.tif", text.encode())
    settings = WatchSettings(folder=tmp_path, pixel_um=0.5, settle_s=2, end_after_s=9)
    with closing(WatchSource(settings, plate(), "p", FakeClock())) as source:
        ended = {}
        for plan in source.plans():
            try:
                ended[str(plan.key.well)] = len(list(source.frames(plan, set(plan.indices()))))
            except StackError as error:
                ended[str(plan.key.well)] = str(error)
    assert ended["A01"] == 2 * N_Z
    assert "pixel_um is 0.7 um in its files and 0.5 um in the settings" in ended["B02"]


def test_names_that_are_not_understood_are_told_and_an_order_is_taken(tmp_path):
    data = np.stack([PIXELS["A01", "561"], PIXELS["A01", "488"]])
    said = {"axes": "CZYX", "Channel": {"Name": ["alpha", "beta"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    said["PhysicalSizeZ"] = 1.0
    tifffile.imwrite(tmp_path / "A01.ome.tif", data, ome=True, metadata=said, photometric="minisblack")
    faults = []
    with closing(WatchSource(WatchSettings(folder=tmp_path), plate("A01"), "p", FakeClock())) as source:
        source.set_event_sink(faults.append)
        (plan,) = source.plans()
        list(source.frames(plan, set(plan.indices())))
    (doubt,) = (fault for fault in faults if fault.code == "recording-doubts")
    assert "'alpha', 'beta', are not understood" in str(doubt.error)
    settings = WatchSettings(folder=tmp_path, channel_order=("561", "488"))
    with closing(WatchSource(settings, plate("A01"), "p", FakeClock())) as source:
        assert_exact(everything(source), ["A01"])


def test_a_codec_that_is_not_there_is_told_before_the_run(tmp_path):
    (tmp_path / "A01").mkdir()
    for channel in ("488", "561"):
        path = tmp_path / "A01" / f"{channel}_z00.tif"
        tifffile.imwrite(path, PIXELS["A01", channel][0], photometric="minisblack", metadata=None)
        old = b"\x03\x01\x03\x00\x01\x00\x00\x00\x01\x00"  # Compression, SHORT, 1: none
        path.write_bytes(path.read_bytes().replace(old, old[:8] + b"\x39\x30"))
    source = slices_source(tmp_path, FakeClock(), "A01")
    with closing(source), pytest.raises(ConfigError, match="which needs imagecodecs"):
        source.check()


@pytest.mark.parametrize(("first", "ends"), [(0, None), (1, "of the first channel nothing arrived, of 561 slices did")])
def test_channels_of_a_matrix_screener_that_are_numbered_from_one_are_never_exchanged(tmp_path, first, ends):
    for z, c in itertools.product(range(N_Z), range(2)):
        name = f"image--L00--U00--V00--Z{z:02d}--C{c + first:02d}.tif"
        tifffile.imwrite(tmp_path / name, PIXELS["A01", ("488", "561")[c]][z], metadata=None)
    settings = MatrixScreenerSettings(folder=tmp_path, n_z=N_Z, pixel_um=0.5, z_step_um=1)
    with closing(MatrixScreenerSource(settings, plate("A01"), "p", FakeClock())) as source:
        (plan,) = source.plans()
        if ends is None:
            assert len(list(source.frames(plan, set(plan.indices())))) == 2 * N_Z
            return
        with pytest.raises(StackError, match=ends):
            next(source.frames(plan, set(plan.indices())))


def test_planes_of_a_slices_file_whose_names_are_not_understood_are_told_once(tmp_path):
    channels = '<Channel ID="c0" Name="alpha"/><Channel ID="c1" Name="beta"/>'
    said = f'SizeX="{SHAPE[1]}" SizeY="{SHAPE[0]}" SizeZ="1" SizeC="2" SizeT="1"'
    text = f'<OME><Image><Pixels DimensionOrder="XYZCT" {said}>{channels}<TiffData/></Pixels></Image></OME>'
    for z in range(N_Z):
        pair = np.stack([PIXELS["A01", "488"][z], PIXELS["A01", "561"][z]])
        path = tmp_path / f"A01_z{z}.tif"
        tifffile.imwrite(path, pair, description=text.encode(), metadata=None, photometric="minisblack")
    faults = []
    with closing(slices_source(tmp_path, FakeClock(), "A01", pattern="{well}_z{z}.tif")) as source:
        source.set_event_sink(faults.append)
        (plan,) = source.plans()
        list(source.frames(plan, set(plan.indices())))
    assert [fault.code for fault in faults if not fault.cleared] == ["recording-doubts"]
