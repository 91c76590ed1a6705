"""A plate that was run, streamed again through the same pipeline, whole and with faults as data."""

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from spheroidd.acquisition.images.ome.zarr import ZarrFile
from spheroidd.acquisition.images.open_stack import open_file
from spheroidd.acquisition.images.recorded_stack import RecordedStack
from spheroidd.acquisition.images.stored_stack import OwnZarrFile, is_own
from spheroidd.acquisition.sources.replay import ReplaySettings, ReplaySource
from spheroidd.acquisition.sources.replay_faults import FaultyReel, ReplayFault
from spheroidd.acquisition.store.ngff import image_path
from spheroidd.acquisition.store.shard import crc32c
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.emulation.replayed_plate import map_of_run
from spheroidd.daemon.system.clock import SystemClock
from spheroidd.protocols.errors import StackError
from spheroidd.protocols.plate import PlateMap, PlateWell, Treatment, WellRole
from spheroidd.protocols.stack import Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.faults.plate_runs import spheroidd

WELLS = ("A01", "A02", "B01")
N_Z = 20
SHAPE = (32, 40)
TREATMENT = Treatment(WellRole.SAMPLE, "C", 1.0)


def pixels_of(well: str, index: SliceIndex) -> np.ndarray[Any, Any]:
    seed = (ord(well[0]), int(well[1:]), int(index.channel), index.z)
    return np.random.default_rng(seed).integers(0, 4096, SHAPE, np.uint16)


def store(folder: Path, *, lacking: Mapping[str, set[SliceIndex]] | None = None) -> PlateMap:
    """A plate as a run leaves it; `lacking` slices never arrived."""
    plate_map = PlateMap("P1", tuple(PlateWell(WellId.parse(well), TREATMENT) for well in WELLS))
    with closing(ZarrStackStore(folder, plate_map, lambda event: None)) as kept:
        for well in WELLS:
            plan = StackPlan(StackKey("P1", WellId.parse(well)), ("488", "561"), N_Z, *SHAPE, 0.5, 1.0)
            kept.open(plan)
            for index in plan.indices():
                if index not in (lacking or {}).get(well, ()):
                    kept.append(Frame(plan.key, index, pixels_of(well, index), 1.0))
            kept.seal(plan.key)
    return plate_map


def image(folder: Path, well: str = "A01") -> Path:
    return image_path(folder, StackKey("P1", WellId.parse(well)))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    store(folder)
    return folder


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "copy"))


# -- what this program stored


def test_a_stack_of_ours_is_read_with_its_checksums(stored: Path) -> None:
    path = image(stored)
    assert is_own(path)
    with RecordedStack({"": path}) as stack:
        assert (stack.channels, stack.n_z, stack.height, stack.width) == (("488", "561"), N_Z, *SHAPE)
        assert (stack.pixel_um, stack.z_step_um, stack.dtype) == (0.5, 1.0, "uint16")
        for index in (SliceIndex("488", 0), SliceIndex("561", 13), SliceIndex("488", N_Z - 1)):
            wanted = pixels_of("A01", index)
            np.testing.assert_array_equal(stack.plane(index), wanted)
            assert stack.crc32c(index) == crc32c(wanted)


def test_who_watches_it_grow_reads_it_as_any_zarr(stored: Path) -> None:
    assert isinstance(open_file(image(stored)), OwnZarrFile)
    assert isinstance(open_file(image(stored), growing=True), ZarrFile)


def test_bytes_that_rotted_on_the_disk_are_no_pixels(copy: Path) -> None:
    shard = max(image(copy).glob("0/c/*/*/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    with RecordedStack({"": image(copy)}) as stack, pytest.raises(StackError, match="restore the recording"):
        _ = [stack.plane(SliceIndex(channel, z)) for z in range(N_Z) for channel in stack.channels]


def test_a_stack_that_was_not_stored_whole_is_refused_with_its_first_gap(tmp_path: Path) -> None:
    store(tmp_path, lacking={"A01": {SliceIndex("561", z) for z in (5, 6, 17)}})
    with pytest.raises(StackError, match="3 of 40 slices were never stored, the first is channel 561 z 5"):
        open_file(image(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"attributes": {"spheroidd": {"stack_id": "zz"}}}'])
def test_damaged_metadata_are_a_stack_error(copy: Path, text: str) -> None:
    (image(copy) / "zarr.json").write_text(text, encoding="utf-8")
    with pytest.raises(StackError):
        open_file(image(copy))


# -- faults as data

KEY = StackKey("P1", WellId(0, 0))
ORDER = [SliceIndex(channel, z) for z in range(6) for channel in ("488", "561")]
PLANES = {index: np.full((12, 4), n, np.uint16) for n, index in enumerate(ORDER)}


class Sleepless:
    def __init__(self) -> None:
        self.slept_s = 0.0

    def now(self) -> float:
        return self.slept_s

    def elapsed(self) -> float:
        return self.slept_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


def played(*faults: ReplayFault) -> list[SliceIndex]:
    return [index for index, _ in FaultyReel(faults, Sleepless()).play(KEY, ORDER, PLANES.__getitem__)]


AT = {"well": "A01", "channel": "561", "z": 2}
THERE = SliceIndex("561", 2)


def test_without_faults_it_is_as_it_was() -> None:
    assert played() == ORDER
    assert played(ReplayFault(kind="drop", well="B07")) == ORDER


def test_each_fault_does_what_its_name_says() -> None:
    place = ORDER.index(THERE)
    assert played(ReplayFault(kind="drop", **AT)) == ORDER[:place] + ORDER[place + 1 :]
    assert played(ReplayFault(kind="duplicate", **AT)) == [*ORDER[:place], THERE, THERE, *ORDER[place + 1 :]]
    assert played(ReplayFault(kind="short", **AT)) == ORDER[:place]
    moved = played(ReplayFault(kind="reorder", later=2, **AT))
    assert moved == [*ORDER[:place], *ORDER[place + 1 : place + 3], THERE, *ORDER[place + 3 :]]
    assert played(ReplayFault(kind="drop")) == []
    assert played(ReplayFault(kind="drop", channel="488")) == [SliceIndex("561", z) for z in range(6)]
    assert played(ReplayFault(kind="reorder", later=99)) == ORDER
    assert len(played(ReplayFault(kind="drop", times=3))) == len(ORDER) - 3


def test_a_stall_waits_and_a_corrupted_slice_has_other_bytes() -> None:
    clock = Sleepless()
    list(FaultyReel([ReplayFault(kind="stall", seconds=7.0, **AT)], clock).play(KEY, ORDER, PLANES.__getitem__))
    assert clock.slept_s == 7.0
    came = dict(FaultyReel([ReplayFault(kind="corrupt", **AT)], clock).play(KEY, ORDER, PLANES.__getitem__))
    changed = [index for index in ORDER if crc32c(came[index]) != crc32c(PLANES[index])]
    assert changed == [THERE]


@settings(deadline=None, max_examples=100)
@given(
    faults=st.lists(
        st.builds(
            ReplayFault,
            kind=st.sampled_from(["duplicate", "reorder", "stall", "corrupt"]),
            channel=st.sampled_from([None, "488", "561"]),
            z=st.one_of(st.none(), st.integers(0, 7)),
            later=st.integers(1, 20),
        ),
        max_size=6,
    )
)
def test_no_slice_is_lost_by_a_fault_that_is_not_to_lose_one(faults: list[ReplayFault]) -> None:
    assert set(played(*faults)) == set(ORDER)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"kind": "explode"}, "kind"), ({"kind": "drop", "well": "somewhere"}, "well"), ({"kind": "drop", "z": -1}, "z")],
)
def test_a_fault_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ReplaySettings(faults=(given,))  # type: ignore[arg-type]


def replayed(folder: Path, *faults: ReplayFault) -> tuple[list[SliceIndex], StackError | None]:
    wells = (PlateWell(WellId(0, 0), TREATMENT, {"": image(folder)}),)
    source = ReplaySource(ReplaySettings(faults=faults), PlateMap("P2", wells), "P2", SystemClock())
    (plan,) = source.plans()
    came: list[SliceIndex] = []
    try:
        for frame in source.frames(plan, set(plan.indices())):
            came.append(frame.index)
            np.testing.assert_array_equal(frame.pixels, pixels_of("A01", frame.index))
    except StackError as error:
        return came, error
    return came, None


def test_what_was_damaged_on_its_way_is_not_given_out_and_named(stored: Path) -> None:
    came, error = replayed(
        stored, *(ReplayFault(kind="corrupt", channel=c, z=z) for c, z in (("488", 3), ("488", 4), ("561", 9)))
    )
    assert len(came) == 2 * N_Z - 3
    assert "3 slices are not as they were recorded (crc32c): 488 z 3-4; 561 z 9" in str(error)


def test_a_recording_without_checksums_cannot_tell(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.zeros((4, 12, 12), np.uint16))
    wells = (PlateWell(WellId(0, 0), TREATMENT, {"488": tmp_path / "stack.npy"}, 1.0, 1.0),)
    given = ReplaySettings(faults=(ReplayFault(kind="corrupt", z=1),))
    source = ReplaySource(given, PlateMap("P2", wells), "P2", SystemClock())
    (plan,) = source.plans()
    assert [int(frame.pixels.max()) for frame in source.frames(plan, set(plan.indices()))] == [0, 1, 0, 0]


# -- `spheroidd replay`, a real process: each fault ends as it must

RUN = """
[plate]
name = "P1"
[data]
dir = '{data}'
[service]
enabled = false
[store]
min_free_gb = 0.0
[source]
kind = "emulator"
preset = "unit"
pace = "fast"
compounds = 1
doses = 3
negative_controls = 1
positive_controls = 0
n_z = {n_z}
[inference]
model = "threshold"
normalisation = "stack"
threads = 1
"""
FAULTS = """
[[faults]]
kind = "drop"
well = "A01"
channel = "561"
z = 7

[[faults]]
kind = "duplicate"
well = "B01"
z = 3

[[faults]]
kind = "reorder"
well = "B01"
channel = "488"
later = 5

[[faults]]
kind = "short"
well = "B02"
z = 11

[[faults]]
kind = "corrupt"
well = "B03"
channel = "488"
z = 2
"""
STALL = """
[[source.faults]]
kind = "stall"
well = "B03"
channel = "488"
z = 10
seconds = 6.0
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate of four wells that was run."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "run.toml").write_text(RUN.format(data=(folder / "data").as_posix(), n_z=N_Z), encoding="utf-8")
    done = spheroidd("run", str(folder / "run.toml"), "--plain")
    assert done.returncode == 0, done.stderr
    return folder / "data"


def catalog(data: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(data / "catalog.sqlite")) as connection:
        return connection.execute(sql).fetchall()


def states(data: Path) -> dict[str, tuple[str, str]]:
    return {well: (state, reason) for well, state, reason in catalog(data, "SELECT well, state, reason FROM stacks")}


FIGURES = "SELECT well, n_live, n_dead, live_um3, dead_um3 FROM results ORDER BY well"
LEDGER = "SELECT well, channel, z, crc32c FROM slices ORDER BY well, channel, z"


def test_each_fault_ends_as_it_must(recorded: Path, tmp_path: Path) -> None:
    data, faults = tmp_path / "data", tmp_path / "faults.toml"
    faults.write_text(FAULTS, encoding="utf-8")
    words = (str(data), "--faults", str(faults), "--model", "threshold", "--normalisation", "stack", "--plain")
    done = spheroidd("replay", str(recorded), *words)
    assert done.returncode == 1, done.stderr
    ends = {
        "A01": ("incomplete", "39 of 40 slices arrived, the first missing is channel 561 z 7"),
        "B02": ("incomplete", "22 of 40 slices arrived, the first missing is channel 488 z 11"),
        "B03": ("failed", "1 slices are not as they were recorded (crc32c): 488 z 2"),
    }
    found = states(data)
    assert found.keys() == {*ends, "B01"}
    for well, (state, reason) in ends.items():
        assert found[well][0] == state
        assert reason in found[well][1]
    assert catalog(data, "SELECT count(*) FROM slices WHERE well = 'B03'") == [(39,)]
    # What came twice and out of order did no harm, and is told.
    assert found["B01"][0] == "scored"
    of_well = "SELECT channel, z, crc32c FROM slices WHERE well = 'B01' ORDER BY channel, z"
    assert catalog(data, of_well) == catalog(recorded, of_well)
    assert catalog(data, FIGURES) == [row for row in catalog(recorded, FIGURES) if row[0] == "B01"]
    lines = [json.loads(line) for line in (data / "logs" / "spheroidd.jsonl").read_text(encoding="utf-8").splitlines()]
    (twice,) = [line for line in lines if line["event"] == "slices-came-twice"]
    assert (twice["well"], twice["slices"], twice["channel"], twice["z"]) == ("B01", 1, "561", 3)  # 488 only came late
    assert catalog(data, "SELECT code FROM faults WHERE code = 'duplicate-slice'") == []


def test_a_stalled_replay_raises_the_alarm_and_ends_as_the_run_it_repeats(recorded: Path, tmp_path: Path) -> None:
    """The alarm ends when slices come again; ledger and figures are those of the run."""
    data = tmp_path / "data"
    plate_map = map_of_run(recorded, tmp_path / "map")
    text = RUN.format(data=data.as_posix(), n_z=N_Z)
    head, _, _ = text.partition("[source]")
    head += "[alarms]\nstall_s = 1.0\n"
    head += "[inference]\nmodel = 'threshold'\nnormalisation = 'stack'\nthreads = 1\n[source]\nkind = 'replay'\n"
    text = head.replace('name = "P1"', f'name = "P1"\nmap = "{plate_map.as_posix()}"') + STALL
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    done = spheroidd("run", str(tmp_path / "run.toml"), "--plain")
    assert done.returncode == 0, done.stderr
    ((raised_s, cleared_s),) = catalog(data, "SELECT raised_s, cleared_s FROM faults WHERE code = 'stalled'")
    assert cleared_s is not None
    assert cleared_s > raised_s
    assert catalog(data, LEDGER) == catalog(recorded, LEDGER)
    assert catalog(data, FIGURES) == catalog(recorded, FIGURES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[fault]]\nkind = 'drop'", "it holds ['fault']"),
        ("[[faults]]\nkind = 'explode'", "it is 'explode'"),
        ("faults = ", "cannot be read"),
    ],
)
def test_faults_that_cannot_be_read_are_refused(recorded: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "faults.toml").write_text(text, encoding="utf-8")
    words = (str(tmp_path / "data"), "--faults", str(tmp_path / "faults.toml"))
    done = spheroidd("replay", str(recorded), *words)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_run_is_not_replayed_into_itself(recorded: Path) -> None:
    done = spheroidd("replay", str(recorded), str(recorded))
    assert (done.returncode, "into its own data directory" in done.stderr) == (2, True)
