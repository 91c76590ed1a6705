import numpy as np
import pytest
import tensorstore

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import LabelWriter, commit_label, label_attributes, read_label
from spheroidd.acquisition.store.leftovers import sweep_plates
from spheroidd.acquisition.store.shard import halve_mask
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.protocols.errors import StorageError
from spheroidd.testing.store_contract import PLATE_MAP, append_all, pixels_of, plan_of


@pytest.fixture
def plan():
    return plan_of(n_z=19, height=301, width=270, channels=("488",))


@pytest.fixture
def root(tmp_path, plan):
    store = ZarrStackStore(tmp_path, PLATE_MAP, lambda event: None)
    store.open(plan)
    append_all(store, plan, pixels_of(plan))
    store.seal(plan.key)
    store.close()
    return tmp_path


def mask_of(plan, seed=0):
    return np.random.default_rng(seed).random((plan.n_z, plan.height, plan.width)) > 0.7


def write_label(root, plan, mask, steps=(19,), name="live", **attributes):
    with LabelWriter(root, plan.key, plan, name, attributes) as label:
        z = 0
        for step in steps:
            label.append(z, mask[z : z + step])
            z += step
        label.commit()


@pytest.mark.parametrize("steps", [(19,), (1,) * 19, (5, 9, 5), (8, 8, 3), (16, 3)], ids=str)
def test_mask_reads_back_however_it_was_cut(root, plan, steps):
    mask = mask_of(plan)
    write_label(root, plan, mask, steps, model_sha256="abc")
    read = read_label(root, plan.key, "live")
    assert read.dtype == np.bool_
    np.testing.assert_array_equal(read, mask)
    assert label_attributes(root, plan.key, "live") == {"model_sha256": "abc"}


def test_every_level_of_the_image_is_there(root, plan):
    mask = mask_of(plan)
    write_label(root, plan, mask)
    expected = mask.astype(np.uint8)
    for level in range(len(ngff.level_shapes(plan.height, plan.width))):
        path = ngff.label_path(root, plan.key, "live") / str(level)
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        np.testing.assert_array_equal(tensorstore.open(spec, read=True).result().read().result(), expected)
        expected = halve_mask(expected)


def test_newer_label_replaces_the_older(root, plan):
    write_label(root, plan, mask_of(plan, 1), model_sha256="old")
    write_label(root, plan, mask_of(plan, 2), model_sha256="new")
    np.testing.assert_array_equal(read_label(root, plan.key, "live"), mask_of(plan, 2))
    assert label_attributes(root, plan.key, "live") == {"model_sha256": "new"}
    assert list(root.glob("*.labels-in-work")) == []


def test_abandoned_label_leaves_the_older_and_no_trace(root, plan):
    write_label(root, plan, mask_of(plan, 1))
    with LabelWriter(root, plan.key, plan, "live") as label:
        label.append(0, mask_of(plan, 2)[:10])
        np.testing.assert_array_equal(read_label(root, plan.key, "live"), mask_of(plan, 1))
    np.testing.assert_array_equal(read_label(root, plan.key, "live"), mask_of(plan, 1))
    assert list(root.glob("*.labels-in-work")) == []


def test_swap_that_a_stop_interrupted_is_undone(root, plan):
    write_label(root, plan, mask_of(plan, 1))
    target = ngff.label_path(root, plan.key, "live")
    scratch = root / f"{plan.key.plate}.labels-in-work"
    scratch.mkdir()
    target.rename(scratch / "A01-0-live-older")  # stopped between the two renames
    assert list(sweep_plates(root))
    np.testing.assert_array_equal(read_label(root, plan.key, "live"), mask_of(plan, 1))


def test_a_label_that_was_finished_elsewhere_replaces_the_old_one_only_when_it_is_committed(root, plan):
    write_label(root, plan, mask_of(plan, 1))
    with LabelWriter(root, plan.key, plan, "live") as label:
        label.append(0, mask_of(plan, 2))
        finished = label.finish()
    np.testing.assert_array_equal(read_label(root, plan.key, "live"), mask_of(plan, 1))
    commit_label(root, finished)
    np.testing.assert_array_equal(read_label(root, plan.key, "live"), mask_of(plan, 2))
    with pytest.raises(StorageError, match="the finished mask is gone"):
        commit_label(root, finished)
    np.testing.assert_array_equal(read_label(root, plan.key, "live"), mask_of(plan, 2))


@pytest.mark.parametrize(
    ("z_start", "shape"),
    [(1, (2, 301, 270)), (0, (20, 301, 270)), (0, (2, 301, 271))],
    ids=["gap", "too-many", "other-shape"],
)
def test_planes_that_do_not_fit_are_refused(root, plan, z_start, shape):
    with LabelWriter(root, plan.key, plan, "live") as label, pytest.raises(ValueError, match="plane"):
        label.append(z_start, np.zeros(shape, bool))


def test_half_a_mask_cannot_be_committed(root, plan):
    with LabelWriter(root, plan.key, plan, "live") as label:
        label.append(0, mask_of(plan)[:18])
        with pytest.raises(ValueError, match="18 of 19"):
            label.commit()
    with pytest.raises(StorageError):
        read_label(root, plan.key, "live")


def test_damaged_label_is_an_error(root, plan):
    write_label(root, plan, mask_of(plan))
    path = ngff.shard_path(ngff.label_path(root, plan.key, "live") / "0", 1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged"):
        read_label(root, plan.key, "live")
