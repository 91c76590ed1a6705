import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spheroidd.inference.agreement.overlap_metrics import Agreement, agreement, read_truth
from spheroidd.protocols.errors import ConfigError


def bools(*values: int) -> NDArray[np.bool_]:
    return np.array(values, bool).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("mask", "truth", "expected"),
    [
        (bools(1, 1, 0, 0), bools(1, 1, 0, 0), Agreement(1, 1, 1, 1)),
        (bools(1, 1, 1, 0), bools(1, 0, 0, 0), Agreement(0.5, 1 / 3, 1 / 3, 1)),
        (bools(1, 0, 0, 0), bools(1, 1, 1, 0), Agreement(0.5, 1 / 3, 1, 1 / 3)),
        (bools(1, 0), bools(0, 1), Agreement(0, 0, 0, 0)),
        (bools(0, 0), bools(0, 0), Agreement(1, 1, 1, 1)),
        (bools(1, 0), bools(0, 0), Agreement(0, 0, 0, 1)),
        (bools(0, 0), bools(0, 1), Agreement(0, 0, 1, 0)),
    ],
    ids=["equal", "too much", "too little", "apart", "both empty", "empty truth", "empty mask"],
)
def test_agreement_by_hand(mask: NDArray[np.bool_], truth: NDArray[np.bool_], expected: Agreement) -> None:
    assert agreement(mask, truth) == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None)
def test_dice_follows_from_iou_and_from_precision_and_recall(pairs: list[tuple[bool, bool]]) -> None:
    mask, truth = (np.array(side).reshape(-1, 1, 1) for side in zip(*pairs, strict=True))
    found, turned = agreement(mask, truth), agreement(truth, mask)
    assert found.dice == pytest.approx(2 * found.iou / (1 + found.iou))
    if found.precision + found.recall:
        assert found.dice == pytest.approx(
            2 * found.precision * found.recall / (found.precision + found.recall), abs=1e-12
        )
    assert (turned.dice, turned.precision, turned.recall) == (found.dice, found.recall, found.precision)


@pytest.mark.parametrize("truth", [np.zeros((1, 1, 3), bool), np.zeros((1, 1, 2), np.uint8)], ids=["shape", "dtype"])
def test_volumes_that_do_not_match_are_refused(truth: NDArray[np.bool_]) -> None:
    with pytest.raises(ConfigError, match="cannot be compared"):
        agreement(bools(1, 0), truth)


TRUTH = np.random.default_rng(0).random((3, 4, 5)) > 0.5


def _npy(path: Path) -> Path:
    np.save(path / "t.npy", TRUTH)
    return path / "t.npy"


def _npz(path: Path) -> Path:
    np.savez(path / "t.npz", live=TRUTH, dead=~TRUTH)
    return path / "t.npz"


def _npz_alone(path: Path) -> Path:
    np.savez(path / "t.npz", anything=TRUTH)
    return path / "t.npz"


def _tif(path: Path) -> Path:
    tifffile.imwrite(path / "t.tif", TRUTH.astype(np.uint8) * 255, photometric="minisblack")
    return path / "t.tif"


def _zarr_array(path: Path) -> Path:
    zarr.create_array(path / "t.zarr", data=TRUTH)
    return path / "t.zarr"


def _zarr_levels(path: Path) -> Path:
    group = zarr.open_group(path / "t.zarr", mode="w")
    group.create_array("0", data=TRUTH[np.newaxis].astype(np.uint8))
    group.create_array("1", data=TRUTH[np.newaxis, ::2].astype(np.uint8))
    return path / "t.zarr"


@pytest.mark.parametrize("write", [_npy, _npz, _npz_alone, _tif, _zarr_array, _zarr_levels])
def test_a_truth_is_read_from_each_kind_of_file(tmp_path: Path, write) -> None:
    found = read_truth(write(tmp_path))
    assert found.dtype == bool
    assert np.array_equal(found, TRUTH)


HUGE = (64, 60_000, 60_000)  # 230 GB of bytes


def _huge_npy(path: Path) -> None:
    (path / "t.npy").write_bytes(_header() + bytes(64))


def _huge_npz(path: Path) -> None:
    with zipfile.ZipFile(path / "t.npz", "w") as archive:
        archive.writestr("live.npy", _header() + bytes(64))


def _huge_npz_of_another_version(path: Path) -> None:
    with zipfile.ZipFile(path / "t.npz", "w") as archive:
        archive.writestr("live.npy", b"\x93NUMPY\x09\x00" + _header()[8:] + bytes(64))


def _huge_zarr(path: Path) -> None:
    zarr.create_array(path / "t.zarr", shape=HUGE, chunks=(1, 1000, 1000), dtype="u1")


def _huge_chunk(path: Path) -> None:
    zarr.create_array(path / "t.zarr", shape=(1, 10, 10), chunks=HUGE, dtype="u1")


def _huge_tif(path: Path) -> None:
    tifffile.imwrite(path / "t.tif", np.zeros((8, 8), np.uint8), bigtiff=True)
    with tifffile.TiffFile(path / "t.tif", mode="r+") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[tag].overwrite(HUGE[1])


def _header() -> bytes:
    text = repr({"descr": "|u1", "fortran_order": False, "shape": HUGE}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "write", [_huge_npy, _huge_npz, _huge_npz_of_another_version, _huge_zarr, _huge_chunk, _huge_tif]
)
def test_a_size_that_a_file_only_declares_is_given_no_memory(tmp_path: Path, write) -> None:
    write(tmp_path)
    (path,) = tmp_path.iterdir()
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="cannot be read as a truth"):
            read_truth(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def _missing(path: Path) -> Path:
    return path / "none.npy"


def _pickle(path: Path) -> Path:
    np.save(path / "p.npy", np.array([{}], dtype=object))
    return path / "p.npy"


def _noise(path: Path) -> Path:
    (path / "t.tif").write_bytes(b"not a tiff")
    return path / "t.tif"


def _torn(path: Path) -> Path:
    data = _npz(path).read_bytes()
    (path / "t.npz").write_bytes(data[: len(data) // 2])
    return path / "t.npz"


def _flat(path: Path) -> Path:
    np.save(path / "f.npy", TRUTH[0])
    return path / "f.npy"


def _other(path: Path) -> Path:
    (path / "t.csv").write_text("1,2")
    return path / "t.csv"


@pytest.mark.parametrize("write", [_missing, _pickle, _noise, _torn, _flat, _other])
def test_files_that_hold_no_truth_are_refused_by_name(tmp_path: Path, write) -> None:
    path = write(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_truth(path)
    assert path.name in str(caught.value)
