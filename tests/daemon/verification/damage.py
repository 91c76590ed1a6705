"""What befalls a data directory, as functions of it: each returns nothing and is found by `spheroidd verify`."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np

from spheroidd.acquisition.store import ngff
from spheroidd.acquisition.store.labels import LabelWriter
from spheroidd.acquisition.store.shard import IMAGE_CODEC, ShardHeader, crc32c, encode_shard, rows_of
from spheroidd.acquisition.store.stack_files import StackFiles
from spheroidd.daemon.verification.stack_check import StackOnDisk
from tests.daemon.verification.plates import MODEL, image, plan_of


def shard(data: Path, well: str = "A01", level: int = 0, channel: int = 0, number: int = 0) -> Path:
    return ngff.shard_path(image(data, well) / str(level), channel, number)


def label_shard(data: Path, well: str = "A01", level: int = 0) -> Path:
    return ngff.shard_path(image(data, well) / "labels" / "live" / str(level), 0)


def flip(path: Path, at: float = 0.5, n_bytes: int = 1) -> None:
    raw = bytearray(path.read_bytes())
    start = int(len(raw) * at)
    for place in range(start, start + n_bytes):
        raw[place] ^= 0x10
    path.write_bytes(raw)


def edit_json(path: Path, change) -> None:
    node = json.loads(path.read_text())
    change(node)
    path.write_text(json.dumps(node, indent=2))


def sql(data: Path, statement: str) -> None:
    connection = sqlite3.connect(data / "catalog.sqlite")
    with connection:
        connection.execute(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def swapped_wells(data: Path) -> None:
    one, other = image(data, "A01"), image(data, "B01")
    aside = data / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def well_copied_over(data: Path) -> None:
    shutil.rmtree(image(data, "A02"))
    shutil.copytree(image(data, "A01"), image(data, "A02"))


def deleted_stack(data: Path) -> None:
    shutil.rmtree(image(data))


def deleted_shard(data: Path) -> None:
    shard(data, number=1).unlink()


def zeroed_shard(data: Path) -> None:
    shard(data).write_bytes(bytes(shard(data).stat().st_size))


def cut_shard(data: Path) -> None:
    raw = shard(data).read_bytes()
    shard(data).write_bytes(raw[: len(raw) // 2])


def flipped_bit(data: Path) -> None:
    flip(shard(data))


def _files(data: Path) -> StackFiles:
    return StackOnDisk(data, plan_of("A01")).files


def rewritten_slice(data: Path) -> None:
    """A shard with other pixels and checksums that fit: nothing beside the data shows it."""
    files = _files(data)
    header, planes = files.read_shard(0, 0)
    planes = planes.copy()
    planes[3, 10, 10] += 1
    files.write_shard(0, 0, {**header.crcs, 3: crc32c(planes[3])}, rows_of(planes))


def shards_exchanged(data: Path) -> None:
    one, other = shard(data, "A01"), shard(data, "A02")
    raw = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(raw)


def edited_ledger(data: Path) -> None:
    sql(data, "UPDATE slices SET crc32c = crc32c + 1 WHERE well = 'A01' AND channel = '488' AND z = 5")


def deleted_ledger_row(data: Path) -> None:
    sql(data, "DELETE FROM slices WHERE well = 'A01' AND channel = '488' AND z = 5")


def edited_time(data: Path) -> None:
    sql(data, "UPDATE slices SET acquired_s = acquired_s + 1 WHERE well = 'A01' AND channel = '488' AND z = 5")


def voxel_size_on_disk(data: Path) -> None:
    edit_json(image(data) / "zarr.json", lambda node: node["attributes"]["spheroidd"].update(pixel_um=0.5))


def voxel_size_of_multiscales(data: Path) -> None:
    def change(node) -> None:
        dataset = node["attributes"]["ome"]["multiscales"][0]["datasets"][0]
        dataset["coordinateTransformations"][0]["scale"][-1] = 0.5

    edit_json(image(data) / "zarr.json", change)


def voxel_size_in_catalog(data: Path) -> None:
    sql(
        data,
        "UPDATE stacks SET plan_json = replace(plan_json, '\"pixel_um\":0.25', '\"pixel_um\":0.5') WHERE well = 'A01'",
    )


def array_shape(data: Path) -> None:
    edit_json(image(data) / "0" / "zarr.json", lambda node: node["shape"].__setitem__(1, 11))


def metadata_gone(data: Path) -> None:
    (image(data) / "zarr.json").unlink()


def treatment_on_disk(data: Path) -> None:
    plate = image(data).parents[2] / "zarr.json"
    edit_json(plate, lambda node: node["attributes"]["spheroidd"]["wells"]["B01"].update(dose_um=50.0))


def treatment_in_catalog(data: Path) -> None:
    sql(data, "UPDATE wells SET dose_um = 50.0 WHERE well = 'B01'")


def edited_result(data: Path) -> None:
    sql(data, "UPDATE results SET v_control = 10.0 WHERE well = 'A01'")


def deleted_result(data: Path) -> None:
    sql(data, "DELETE FROM results WHERE well = 'A01'")


def edited_limits(data: Path) -> None:
    sql(data, "UPDATE results SET quantiles_json = '{}' WHERE well = 'A01'")


def edited_origin(data: Path) -> None:
    sql(data, "UPDATE scored_from SET images_sha256 = 'ff' WHERE well = 'A01'")


def flipped_label(data: Path) -> None:
    flip(label_shard(data))


def deleted_label(data: Path) -> None:
    shutil.rmtree(image(data) / "labels" / "live")


def other_label(data: Path) -> None:
    """Masks that somebody painted, written as the program writes them."""
    plan = plan_of("A01")
    masks = np.zeros((plan.n_z, plan.height, plan.width), bool)
    masks[:, :50] = True
    with LabelWriter(data, plan.key, plan, "live", {"model_sha256": MODEL}) as label:
        label.append(0, masks)
        label.commit()


def label_of_another_model(data: Path) -> None:
    edit_json(
        image(data) / "labels" / "live" / "zarr.json",
        lambda node: node["attributes"]["spheroidd"].update(model_sha256="cd" * 32),
    )


def coarser_label(data: Path) -> None:
    label_shard(data, level=1).write_bytes(label_shard(data, "A02", level=1).read_bytes())


def changed_pyramid(data: Path) -> None:
    files = _files(data)
    path = files.shard(1, 0, 0)
    planes = np.full((files.depth, files.grids[1].height, files.grids[1].width), 7, np.uint16)
    header = ShardHeader(files.stack_id, 0, files.depth, dict.fromkeys(range(files.depth), 1))
    path.write_bytes(b"".join(encode_shard(files.grids[1], IMAGE_CODEC, header, rows_of(planes))))


def flipped_pyramid(data: Path) -> None:
    flip(shard(data, level=1))


def deleted_pyramid(data: Path) -> None:
    shard(data, level=1).unlink()


def audit_event_changed(data: Path) -> None:
    connection = sqlite3.connect(data / "catalog.sqlite")
    with connection:
        connection.execute("DROP TRIGGER audit_fixed")
        connection.execute("UPDATE audit SET reason = 'another' WHERE seq = 3")
    connection.close()


def history_deleted(data: Path) -> None:
    connection = sqlite3.connect(data / "catalog.sqlite")
    with connection:
        connection.execute("DROP TRIGGER result_changes_keep")
        connection.execute("DELETE FROM result_changes WHERE id = 1")
    connection.close()


def cut_catalog(data: Path) -> None:
    _checkpoint(data)
    raw = (data / "catalog.sqlite").read_bytes()
    (data / "catalog.sqlite").write_bytes(raw[: len(raw) // 2])


def empty_catalog(data: Path) -> None:
    _checkpoint(data)
    (data / "catalog.sqlite").write_bytes(b"")


def catalog_gone(data: Path) -> None:
    _checkpoint(data)
    (data / "catalog.sqlite").unlink()


def catalog_is_noise(data: Path) -> None:
    _checkpoint(data)
    (data / "catalog.sqlite").write_bytes(np.random.default_rng(0).bytes(40000))


def dropped_table(data: Path) -> None:
    sql(data, "DROP TABLE blocks")


def dropped_trigger(data: Path) -> None:
    sql(data, "DROP TRIGGER audit_keep")


def _checkpoint(data: Path) -> None:
    connection = sqlite3.connect(data / "catalog.sqlite")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for name in ("catalog.sqlite-wal", "catalog.sqlite-shm"):
        (data / name).unlink(missing_ok=True)


def cell_flipped(data: Path, text: bytes) -> None:
    """64 bytes of a page that holds this text, flipped behind SQLite's back."""
    _checkpoint(data)
    path = data / "catalog.sqlite"
    raw = bytearray(path.read_bytes())
    at = raw.rindex(text)
    for place in range(at, at + min(64, len(text))):
        raw[place] ^= 0x01
    path.write_bytes(raw)
