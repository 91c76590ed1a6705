"""A number in a label image and a row of a table for each counted object, of every plate that is run."""

import csv
from pathlib import Path

import numpy as np
import pytest
import zarr

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import read_label
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.protocols.stack import StackKey
from tests.faults.plate_runs import run, spheroidd, write_config

KINDS = {"live": "n_live", "dead": "n_dead"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    source = {"doses": 1, "negative_controls": 1}
    assert run(write_config(folder, source=source, model="default")) == 0
    return folder / "data"


def stacks(data: Path) -> dict[StackKey, dict[str, int]]:
    """What each row counts."""
    with Catalog.read_only(data) as catalog:
        rows = catalog.result_rows()
    return {row.key: {kind: getattr(row.result, column) for kind, column in KINDS.items()} for row in rows}


def features(data: Path, key: StackKey, kind: str) -> list[dict[str, str]]:
    """The rows of the table of a stack's living or dead objects."""
    path = ngff.label_path(data, key, f"{kind}_features") / "table.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_counted_object_has_a_number_and_a_row(data: Path) -> None:
    counted = stacks(data)
    assert sum(n for counts in counted.values() for n in counts.values()) > 10
    for key, counts in counted.items():
        image = zarr.open_group(ngff.image_path(data, key), mode="r")
        assert image["labels"].attrs["ome"]["labels"] == ["dead", "dead_objects", "live", "live_objects"]
        assert image["tables"].attrs["tables"] == ["dead_features", "live_features"]
        for kind, n in counts.items():
            ids = image[f"labels/{kind}_objects/0"][...]
            rows = features(data, key, kind)
            colours = image[f"labels/{kind}_objects"].attrs["ome"]["image-label"]["colors"]
            assert [colour["label-value"] for colour in colours] == list(range(1, max(n, 1) + 1))
            assert len({tuple(colour["rgba"]) for colour in colours}) == len(colours), "neighbours can be told apart"
            assert sorted(set(ids.ravel().tolist()) - {0}) == list(range(1, n + 1))
            assert [int(row["label"]) for row in rows] == list(range(1, n + 1))


def test_the_objects_lie_where_the_mask_is_and_are_brighter_than_what_is_around(data: Path) -> None:
    key = max(stacks(data), key=lambda key: stacks(data)[key]["live"])
    image = zarr.open_group(ngff.image_path(data, key), mode="r")
    steps = image["labels/live_objects"].attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    scale, shift = np.array(steps[0]["scale"]), np.array(steps[1]["translation"])
    fine = image.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"][1:]
    mask, ids = read_label(data, key, "live"), image["labels/live_objects/0"][...]
    places = np.argwhere(ids > 0)
    on_image = np.round((places * scale + shift) / np.array(fine)).astype(int)
    inside = mask[tuple(np.minimum(on_image, np.array(mask.shape) - 1).T)]
    assert inside.mean() > 0.9
    rows = features(data, key, "live")
    volume = sum(float(row["volume_um3"]) for row in rows)
    with Catalog.read_only(data) as catalog:
        (row,) = [row.result for row in catalog.result_rows() if row.key == key]
    assert row.live_um3 is not None
    assert volume == pytest.approx(row.live_um3, rel=0.2)  # pieces of mask too small for a cell are no object
    pixels = image["0"]
    assert isinstance(pixels, zarr.Array)
    around = float(np.median(pixels[0][...][~mask]))
    assert min(float(row["mean_488"]) for row in rows) > around


def test_verify_counts_the_objects_again(data: Path) -> None:
    assert spheroidd("verify", str(data)).returncode == 0
    key = max(stacks(data), key=lambda key: stacks(data)[key]["live"])
    array = zarr.open_array(ngff.label_path(data, key, "live_objects") / "0", mode="r+")
    whole = array[...]
    array[...] = np.where(whole == 1, 0, whole)
    try:
        said = spheroidd("verify", str(data))
        assert said.returncode != 0
        assert "the label image holds" in said.stdout
    finally:
        array[...] = whole


def test_masks_that_are_replaced_take_their_objects_with_them(data: Path) -> None:
    """Last: it scores the plate again, by another model, without objects."""
    assert spheroidd("score", str(data), "--model", "threshold", "--no-objects").returncode in (0, 1)
    for key in stacks(data):
        image = zarr.open_group(ngff.image_path(data, key), mode="r")
        assert image["labels"].attrs["ome"]["labels"] == ["dead", "live"]
        assert image["tables"].attrs["tables"] == []
