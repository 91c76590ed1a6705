"""A plate in a notebook: what is known has its unit, and what is not known or not committed is never a zero."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import spheroidd
from spheroidd.acquisition.store.shard import halve
from spheroidd.acquisition.store.stack_files import read_stack
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.analysis.curves import curves
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.export.tables import CURVE_POINTS, CURVES, WELLS
from spheroidd.daemon.scoring.exclusions import exclude_well
from spheroidd.protocols.errors import ConfigError, SpheroiddError, StackError
from spheroidd.protocols.events import Event, SliceDurable
from spheroidd.protocols.plate import PlateMap, Treatment
from spheroidd.protocols.stack import CHANNELS, Frame, SliceIndex, StackKey, StackPlan
from spheroidd.protocols.well import WellId
from tests.daemon.report import plates

SHOWN, GROWING, WAITING = WellId(0, 0), WellId(0, 3), WellId(0, 4)
N_Z, SIDE = 16, 300  # two shards a channel, and a coarser level


def layout() -> PlateMap:
    treatments: dict[WellId, Treatment] = {SHOWN: plates.UNTREATED, WellId(0, 1): plates.KILLED}
    for column, dose in enumerate((0.1, 1.0, 3.0, 10.0, 100.0)):
        treatments[WellId(0, 2 + column)] = plates.sample("drug", dose, "pt1")
    return plates.plate_map("P1", treatments)


def plan_of(key: StackKey) -> StackPlan:
    return StackPlan(key, CHANNELS, N_Z, SIDE, SIDE, 0.5, 1.0)


def pixels(z: int, channel: str) -> np.ndarray:
    noise = np.random.default_rng(100 * z + int(channel))
    return noise.integers(50, 4000, (SIDE, SIDE)).astype(np.uint16)


def store(folder: Path, wells: PlateMap, key: StackKey, slices: list[SliceIndex]) -> None:
    """Image some slices of a stack, with their ledger."""
    events: list[Event] = []
    images = ZarrStackStore(folder, wells, events.append)
    images.open(plan_of(key))
    for index in slices:
        images.append(Frame(key, index, pixels(index.z, index.channel), 0.0))
    images.seal(key)
    images.close()
    with Catalog.create_or_open(folder) as catalog, catalog.transaction():
        catalog.connection.execute("DELETE FROM slices WHERE well = ?", (str(key.well),))
        for event in events:
            if isinstance(event, SliceDurable):
                catalog.acknowledge(event, event.acquired_s)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole stack with a mask, one that lacks its end and a slice, one that waits, and one that is excluded."""
    folder = tmp_path_factory.mktemp("data")
    wells = layout()
    plates.register(folder, wells, plan=plan_of)
    part = [SliceIndex(channel, z) for z in range(12) for channel in CHANNELS if (channel, z) != ("561", 3)]
    store(folder, wells, StackKey("P1", GROWING), part)
    scored = {WellId(0, c): plates.FULL_UM3 * share for c, share in ((1, 0.02), (2, 0.99), (5, 0.2), (6, 0.05))}
    plates.score(folder, wells, {SHOWN: plates.FULL_UM3, **scored})
    store(folder, wells, StackKey("P1", SHOWN), list(plan_of(StackKey("P1", SHOWN)).indices()))
    exclude_well(folder, "A06", "a bubble", who="ann")
    return folder


@pytest.fixture(scope="module")
def plate(data: Path) -> spheroidd.Plate:
    return spheroidd.open(data)


def test_rows_are_those_that_are_exported_typed_and_with_units(plate: spheroidd.Plate) -> None:
    rows = plate.rows()
    assert tuple(rows.columns) == tuple(column.name for column in WELLS)
    assert rows.attrs["units"]["v_control_percent"] == "percent"
    assert rows.attrs["meanings"]["dose_um"] == "its dose"
    kinds = {column.name: str(rows[column.name].dtype) for column in WELLS}
    assert {kinds[name] for name in ("n_live", "n_slices_acked")} == {"Int64"}
    assert (kinds["v_control_percent"], kinds["excluded"], kinds["compound"]) == ("float64", "boolean", "string")


def test_a_well_without_a_figure_is_missing_and_says_why(plate: spheroidd.Plate) -> None:
    row = plate.rows().set_index("well").loc[str(WAITING)]
    assert math.isnan(row["v_control_percent"])
    assert row["n_live"] is pd.NA
    assert row["reason"] == "not imaged yet"


def test_an_excluded_well_keeps_its_row_with_the_reason(plate: spheroidd.Plate) -> None:
    row = plate.rows().set_index("well").loc["A06"]
    assert (bool(row["excluded"]), row["exclusion_reason"]) == (True, "a bubble")


def test_rows_by_a_named_model_are_those_of_that_model(plate: spheroidd.Plate) -> None:
    assert plate.models == [plates.MODEL]
    assert plate.rows(plates.MODEL[:6]).equals(plate.rows())
    with pytest.raises(ConfigError, match="no model begins with 'abc'; choose of 5f5f5f5f5f5f"):
        plate.rows("abc")


def test_curves_and_their_points_are_those_of_the_analysis(plate: spheroidd.Plate, data: Path) -> None:
    found, points = plate.curves(), plate.curve_points()
    with Catalog.read_only(data) as catalog:
        (expected,) = curves(catalog, "P1")
    assert tuple(found.columns) == tuple(column.name for column in CURVES)
    assert tuple(points.columns) == tuple(column.name for column in CURVE_POINTS)
    assert (found.loc[0, "status"], found.loc[0, "n"]) == (expected.fit.status.value, expected.fit.n)
    assert points.loc[points["well"] == "A06", "in_fit"].tolist() == [False]


def test_the_quality_is_the_plates_verdict(plate: spheroidd.Plate) -> None:
    assert (plate.quality().verdict.value, plate.quality().n_positive) == ("unknown", 1)
    assert plate.quality() is plate.quality()


def test_a_frame_that_is_changed_changes_no_later_one(plate: spheroidd.Plate) -> None:
    rows = plate.rows()
    rows["compound"] = "another"
    assert "another" not in set(plate.rows()["compound"])


def test_an_image_is_lazy_whole_and_in_micrometres(plate: spheroidd.Plate, data: Path) -> None:
    image = plate["a1"].image()
    assert image.dims == ("channel", "z", "y", "x")
    assert image.dtype == np.uint16
    assert list(image.channel.values) == list(CHANNELS)
    assert (image.z.attrs["units"], float(image.z[2]), float(image.x[3])) == ("um", 2.0, 1.5)
    np.testing.assert_array_equal(image.values, read_stack(data, StackKey("P1", SHOWN)))


def test_a_part_of_an_image_is_that_part(plate: spheroidd.Plate) -> None:
    image = plate["A01"].image()
    np.testing.assert_array_equal(image.sel(channel="561")[9].values, pixels(9, "561"))
    np.testing.assert_array_equal(image[0, 6:10:2, 10:20, ::7].values[1], pixels(8, "488")[10:20, ::7])


def test_a_coarser_level_lies_on_the_same_place(plate: spheroidd.Plate) -> None:
    coarse = plate["A01"].image(level=1)
    assert (coarse.attrs["pixel_um"], float(coarse.x[0]), float(coarse.x[1])) == (1.0, 0.25, 1.25)
    np.testing.assert_array_equal(coarse[0, 5].values, halve(pixels(5, "488")[None])[0])


def test_a_mip_is_the_brightest_of_all_slices(plate: spheroidd.Plate) -> None:
    expected = np.stack([np.max([pixels(z, channel) for z in range(N_Z)], axis=0) for channel in CHANNELS])
    np.testing.assert_array_equal(plate["A01"].mip().values, expected)


def test_slices_that_are_not_committed_are_refused_when_they_are_computed(plate: spheroidd.Plate) -> None:
    stack = plate[str(GROWING)]
    assert (stack.committed, stack.complete) == ({"488": 12, "561": 11}, False)
    image = stack.image()
    np.testing.assert_array_equal(image[0, 3].values, pixels(3, "488"))
    with pytest.raises(StackError, match="channel 561: 1 of 1 slices are not committed, the first is z 3"):
        image[1, 3].values  # noqa: B018
    with pytest.raises(StackError, match='or ask for missing="drop"'):
        stack.mip().values  # noqa: B018


def test_slices_that_are_not_committed_can_be_left_out_or_be_nan(plate: spheroidd.Plate) -> None:
    stack = plate[str(GROWING)]
    there = [z for z in range(12) if z != 3]
    dropped, unknown = stack.image(missing="drop"), stack.image(missing="nan")
    assert dropped.z.values.tolist() == [float(z) for z in there]
    np.testing.assert_array_equal(dropped[1, 3].values, pixels(4, "561"))
    assert unknown.dtype == np.float32
    assert [bool(np.isnan(plane).all()) for plane in unknown[1].values] == [z not in there for z in range(N_Z)]
    brightest = np.max([pixels(z, "561") for z in there], axis=0)
    np.testing.assert_array_equal(stack.mip(missing="nan")[1].values, brightest)


def test_a_stack_without_slices_or_masks_says_so(plate: spheroidd.Plate) -> None:
    stack = plate[str(WAITING)]
    assert stack.committed == {"488": 0, "561": 0}
    with pytest.raises(StackError, match="no slice of it was stored yet"):
        stack.image()
    with pytest.raises(StackError, match=r"there is no label 'live'; wait until it is scored"):
        stack.label("live")


def test_a_label_is_a_mask_at_the_images_sampling(tmp_path: Path) -> None:
    wells = layout()
    plates.register(tmp_path, wells)
    plan = plates.plan_of(StackKey("P1", SHOWN))
    plates.score(tmp_path, wells, {SHOWN: 1000.0})
    plates.store_images(tmp_path, wells, plan, 0.8)
    stack = spheroidd.open(tmp_path)["A01"]
    label = stack.label("live")
    assert label.dims == ("z", "y", "x")
    assert label.shape == stack.image().shape[1:]
    image = stack.image().sel(channel="488")
    assert float(image.where(label > 0).mean()) > 3 * float(image.where(label == 0).mean())


def test_a_slice_that_is_another_than_was_acknowledged_is_refused(tmp_path: Path) -> None:
    wells = layout()
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {SHOWN: 1000.0})
    plates.store_images(tmp_path, wells, plates.plan_of(StackKey("P1", SHOWN)), 0.8)
    with Catalog.create_or_open(tmp_path) as catalog, catalog.transaction():
        catalog.connection.execute("UPDATE slices SET crc32c = crc32c + 1 WHERE channel = '561' AND z = 2")
    with pytest.raises(StackError, match="channel 561 z 2 is another image than the one that was acknowledged"):
        spheroidd.open(tmp_path)["A01"].image()


def test_a_plate_stays_as_it_was_read_until_it_is_refreshed(tmp_path: Path) -> None:
    wells = layout()
    plates.register(tmp_path, wells)
    plate = spheroidd.open(tmp_path)
    assert plate.rows()["v_control_percent"].isna().all()
    plates.score(tmp_path, wells, {SHOWN: 1000.0, WellId(0, 2): 500.0})
    assert plate.rows()["v_control_percent"].isna().all()
    assert plate.refresh() == ("A01", "A03")
    assert plate.rows().set_index("well").loc["A03", "v_control_percent"] == 50.0
    assert plate.refresh() == ()


def test_watching_ends_when_no_daemon_runs_and_gives_the_last_state(tmp_path: Path) -> None:
    wells = layout()
    plates.register(tmp_path, wells)
    seen = []
    for plate in spheroidd.watch(tmp_path, interval_s=0.1):
        seen.append(plate.changed)
        plates.score(tmp_path, wells, {SHOWN: 1000.0})
    assert seen == [(), ("A01",)]


def test_watching_a_plate_that_is_over_gives_it_once(data: Path, tmp_path: Path) -> None:
    wells = plates.plate_map("P1", {SHOWN: plates.UNTREATED})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, {SHOWN: 1000.0})
    assert [plate.over for plate in spheroidd.watch(tmp_path)] == [True]
    with pytest.raises(ConfigError, match=r"interval_s is 0.*give 0.1 s or more"):
        spheroidd.watch(data, interval_s=0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (lambda plate: plate["Q77"], "Q77"),
        (lambda plate: plate["A01", 7], "no stack P1/A01/7 was planned"),
        (lambda plate: plate["A01"].image(level=9), "there is no level 9; choose 0 to 1"),
        (lambda plate: plate["A01"].image(missing="zero"), "there is no missing='zero'; use one of refuse, drop, nan"),
        (lambda plate: plate.curves("viability"), "there is no metric 'viability'"),
        (lambda plate: spheroidd.open(plate.data_dir, "P9"), "there is no plate 'P9'"),
        (lambda plate: spheroidd.open(plate.data_dir / "nowhere"), "no plate was ever run here"),
    ],
)
def test_what_there_is_not_is_refused_in_words(plate: spheroidd.Plate, asked: object, words: str) -> None:
    assert callable(asked)
    with pytest.raises(SpheroiddError, match=words):
        asked(plate)


def test_opening_loads_neither_torch_nor_pandas(data: Path) -> None:
    code = "import spheroidd, sys; before = set(sys.modules); spheroidd.open(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(data)], capture_output=True, text=True, check=True)
    heavy = {"torch", "pandas", "xarray", "dask", "scipy", "numba", "zarr", "rich", "pydantic", "numcodecs"}
    assert heavy & set(done.stdout.split()) == set()


def test_a_missing_package_is_named_with_how_to_install_it(
    plate: spheroidd.Plate, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, asked in (("pandas", lambda: plate.curves("v_count")), ("dask.array", lambda: plate["A01"].image())):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ConfigError, match=r'pip install "spheroidd\[notebook\]"'):
            asked()


def test_every_name_that_the_package_says_is_there() -> None:
    assert [name for name in spheroidd.__all__ if not hasattr(spheroidd, name)] == []
    with pytest.raises(AttributeError, match="has no attribute 'fly'"):
        spheroidd.fly  # type: ignore[attr-defined]  # noqa: B018


def test_the_stacks_of_a_plate_come_in_its_maps_order(plate: spheroidd.Plate) -> None:
    assert [str(stack.key) for stack in plate.stacks()][:2] == ["P1/A01/0", "P1/A02/0"]
    assert [str(stack.key) for stack in plate.stacks("a3")] == ["P1/A03/0"]
