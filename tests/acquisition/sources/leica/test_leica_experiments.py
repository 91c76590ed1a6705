"""XLEF projects, written here as Leica describes them: an experiment, a file for each series, files with the pixels.

No project of a real microscope was at hand; the structure is that which liffile reads (Leica Image File Formats 3.2).
"""

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
from spheroidd.acquisition.sources.watched_folder.settings import WatchSettings
from spheroidd.acquisition.sources.watched_folder.source import WatchSource
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import SliceIndex
from spheroidd.protocols.well import WellId
from spheroidd.testing.source_contract import FakeClock, take

N_Z, HEIGHT, WIDTH = 3, 20, 24
PLANE = HEIGHT * WIDTH * 2
CHANNELS = ("488", "561")
TREATMENT = Treatment(WellRole.SAMPLE, "C", 1.0)


def pixels(well: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """(z, channel, y, x), as Leica stores it."""
    drawn = np.random.default_rng([ord(letter) for letter in well])
    return drawn.integers(0, 65536, (N_Z, len(CHANNELS), HEIGHT, WIDTH), np.uint16)


def image_xml() -> str:
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
        f'Max="65535" Unit="" LUTName="Green" IsLUTInverted="0" BytesInc="{n * PLANE}" BitInc="0"/>'
        for n in range(len(CHANNELS))
    )
    sizes = ((1, WIDTH, 2, 0.5), (2, HEIGHT, 2 * WIDTH, 0.5), (3, N_Z, len(CHANNELS) * PLANE, 1.5))
    dimensions = "".join(
        f'<DimensionDescription DimID="{axis}" NumberOfElements="{n}" Origin="0" Length="{(n - 1) * step * 1e-6}" '
        f'Unit="m" BitInc="0" BytesInc="{inc}"/>'
        for axis, n, inc, step in sizes
    )
    described = f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions>"
    return f'<Data><Image TextDescription=""><ImageDescription>{described}</ImageDescription></Image></Data>'


def header(inside: str, name: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<LMSDataContainerHeader Version="2"><Element Name="{name}" UniqueID="{name}-id">{inside}'
        "</Element></LMSDataContainerHeader>"
    )


def write_lof(path: Path, well: str) -> None:
    words, data = "LMS_Object_File", pixels(well).tobytes()
    xml = header(image_xml() + f'<Memory Size="{len(data)}" MemoryBlockID="MemBlock_1"/>', well).partition("?>")[2]
    head = struct.pack("<IIBI", 0x70, 2 * len(words) + 5, 0x2A, len(words)) + words.encode("utf-16-le")
    head += struct.pack("<BIBI", 0x2A, 2, 0x2A, 0) + struct.pack("<BQ", 0x2A, len(data)) + data
    path.write_bytes(head + struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le"))


def write_project(folder: Path, *wells: str, lof: bool = False) -> Path:
    """A project with a series a well; the pixels in a LOF, or in a TIFF for each plane."""
    (folder / "pixels").mkdir(parents=True)
    for well in wells:
        blocks = []
        if lof:
            write_lof(folder / "pixels" / f"{well}.lof", well)
            blocks.append((f"pixels/{well}.lof", 0, pixels(well).nbytes))
        else:
            for n, plane in enumerate(pixels(well).reshape(-1, HEIGHT, WIDTH)):
                name = f"pixels/{well} {n:03d}.tif"
                tifffile.imwrite(folder / name, plane, metadata=None)
                blocks.append((name.replace(" ", "%20"), n * PLANE, PLANE))
        frames = "".join(f'<Frame File="{name}" Offset="{at}" Size="{size}" UUID=""/>' for name, at, size in blocks)
        memory = f'<Memory Size="{pixels(well).nbytes}" MemoryBlockID="MemBlock_{well}">{frames}</Memory>'
        (folder / f"{well}.xlif").write_text(header(image_xml() + memory, well), encoding="utf-8")
    listed = "".join(f'<Reference File="{well}.xlif" UUID="{well}-id"/>' for well in wells)
    experiment = '<Data><Experiment><TimeStamp HighInteger="30864971" LowInteger="36306201"/></Experiment></Data>'
    project = folder / "plate.xlef"
    project.write_text(header(f"{experiment}<Children>{listed}</Children>", "plate"), encoding="utf-8")
    return project


@pytest.fixture(params=[False, True], ids=["a TIFF for each plane", "a LOF"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_project(tmp_path / "project", "A01", "B02", lof=request.param)


def assert_read(project: Path, well: str) -> None:
    with RecordedStack({"": project / well}) as stack:
        assert (stack.channels, stack.n_z, stack.height, stack.width) == (CHANNELS, N_Z, HEIGHT, WIDTH)
        assert stack.pixel_um == pytest.approx(0.5)
        assert stack.z_step_um == pytest.approx(1.5)
        for z in range(N_Z):
            for number, channel in enumerate(CHANNELS):
                np.testing.assert_array_equal(stack.plane(SliceIndex(channel, z)), pixels(well)[z, number])


def test_every_plane_of_a_project_is_read(project: Path) -> None:
    assert list_stacks(project) == ["A01", "B02"]
    for well in ("A01", "B02"):
        assert_read(project, well)


def test_a_series_that_is_not_named_is_asked_for(project: Path) -> None:
    with pytest.raises(StackError, match="it holds 2 series: A01, B02; write one"):
        open_file(project)


def test_a_series_can_be_read_by_itself(project: Path) -> None:
    assert open_file(project.with_name("A01.xlif")).layout.n_z == N_Z


def test_a_project_is_replayed(project: Path) -> None:
    wells = (PlateWell(WellId.parse("A01"), TREATMENT, MappingProxyType({"": project / "A01"})),)
    source = ReplaySource(ReplaySettings(), PlateMap("p", wells), "p", FakeClock())
    (plan,) = source.plans()
    frames = take(source, plan, set(plan.indices()))
    assert len(frames) == plan.n_slices == N_Z * len(CHANNELS)


def test_a_watched_project_is_taken_when_it_is_finished(project: Path) -> None:
    settings = WatchSettings(folder=project.parent, pattern="plate.xlef/{well}", settle_s=5, end_after_s=60)
    wells = tuple(PlateWell(WellId.parse(well), TREATMENT) for well in ("A01", "B02"))
    with closing(WatchSource(settings, PlateMap("p", wells), "p", FakeClock())) as source:
        plans = []
        for plan in source.plans():
            plans.append(str(plan.key.well))
            for frame in source.frames(plan, set(plan.indices())):
                number = CHANNELS.index(frame.index.channel)
                np.testing.assert_array_equal(frame.pixels, pixels(plans[-1])[frame.index.z, number])
        assert plans == ["A01", "B02"]


@pytest.mark.parametrize("gone", ["A01.xlif", "pixels"])
def test_a_project_that_lacks_a_file_is_refused_by_its_name(project: Path, gone: str) -> None:
    path = project.with_name(gone)
    missing = path if path.is_file() else sorted(path.glob("A01*"))[0]
    missing.unlink()
    with pytest.raises(StackError, match=f"it names {missing.name}, which is not there; copy the whole project"):
        open_file(project / "A01")


def test_pixels_that_are_cut_off_are_refused(project: Path) -> None:
    pixels_file = sorted(project.parent.glob("pixels/A01*"))[-1]
    whole = pixels_file.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        pixels_file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(StackError, match="A01"):
            open_file(project / "A01")
    assert_read(project, "B02")


def test_names_are_found_whatever_their_case(project: Path) -> None:
    """Windows, where they come from, does not tell."""
    project.with_name("A01.xlif").rename(project.with_name("a01.XLIF"))
    assert_read(project, "A01")


@pytest.mark.parametrize("file", ["plate.xlef", "A01.xlif"])
def test_a_description_with_entities_is_refused(project: Path, file: str) -> None:
    path = project.with_name(file)
    bomb = path.read_text(encoding="utf-8").replace("?>", '?><!DOCTYPE a [<!ENTITY b "bb">]>', 1)
    path.write_text(bomb, encoding="utf-8")
    with pytest.raises(StackError, match="do not use this file"):
        open_file(project / "A01")
    with pytest.raises(StackError, match="do not use this file"):
        list_stacks(project)


def test_a_project_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", "A01")
    text = project.read_text(encoding="utf-8").replace("A01.xlif", "plate.xlef")
    project.write_text(text, encoding="utf-8")
    with pytest.raises(StackError, match="it refers to itself"):
        list_stacks(project)


@pytest.mark.parametrize("end", range(0, 1000, 97))
def test_a_description_that_is_cut_off_is_refused(tmp_path: Path, end: int) -> None:
    project = write_project(tmp_path / "project", "A01")
    series = project.with_name("A01.xlif")
    series.write_bytes(series.read_bytes()[:end])
    with pytest.raises(StackError, match=r"A01\.xlif"):
        open_file(project / "A01")
