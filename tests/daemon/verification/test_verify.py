"""`spheroidd verify` finds each kind of damage, names its place, and says nothing where there is none."""

import io
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from spheroidd.acquisition.store.stack_files import read_block
from spheroidd.acquisition.store.zarr_store import ZarrStackStore
from spheroidd.daemon.catalog.rows import StackState
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.export.writer import Format, export
from spheroidd.daemon.report.provenance import plate_facts
from spheroidd.daemon.verification import verifier
from spheroidd.daemon.verification.catalog_check import check_catalog
from spheroidd.daemon.verification.findings import DAMAGED, INTACT, LOOK, Kind
from spheroidd.daemon.verification.last_verified import last_verified, record_beside
from spheroidd.daemon.verification.read_check import rows_read
from spheroidd.daemon.verification.report_text import to_screen
from spheroidd.daemon.verification.verifier import STATE_NAME, verify
from spheroidd.protocols.errors import ConfigError, StackError, StorageError
from spheroidd.protocols.events import Event, SliceDurable
from spheroidd.protocols.stack import Block, Frame
from tests.daemon.verification import damage, findings_document
from tests.daemon.verification.plates import MAP, MODEL, PLATE, image, make_plate, plan_of
from tests.faults.plate_runs import spheroidd

AT_A01 = "P1/A01/0"
DAMAGES = [
    (damage.swapped_wells, {Kind.SWAPPED}, "P1/A01/0: its folder holds the images of P1/B01/0"),
    (damage.well_copied_over, {Kind.SWAPPED}, "P1/A02/0: its folder holds the images of P1/A01/0"),
    (damage.deleted_stack, {Kind.MISSING_SHARD}, f"{AT_A01}: the stack's folder is gone, with 24 acknowledged slices"),
    (
        damage.deleted_shard,
        {Kind.MISSING_SHARD},
        f"{AT_A01} channel 488 z 8-11 level 0: 4 acknowledged slices are gone",
    ),
    (damage.zeroed_shard, {Kind.DAMAGED_SHARD}, f"{AT_A01} channel 488 z 0-7 level 0"),
    (damage.cut_shard, {Kind.DAMAGED_SHARD}, f"{AT_A01} channel 488 z 0-7 level 0"),
    (damage.flipped_bit, {Kind.DAMAGED_SHARD}, f"{AT_A01} channel 488 z"),
    (damage.rewritten_slice, {Kind.OTHER_PIXELS}, f"{AT_A01} channel 488 z 3 level 0: other pixels"),
    (damage.shards_exchanged, {Kind.OTHER_PIXELS}, "in a file of another stack"),
    (damage.edited_ledger, {Kind.ROW, Kind.ORIGIN, Kind.OTHER_PIXELS}, f"{AT_A01}: ledger of slices: other values"),
    (damage.deleted_ledger_row, {Kind.ROW, Kind.ORIGIN, Kind.LEDGER}, f"{AT_A01}: ledger of slices: 23 rows where 24"),
    (damage.edited_time, {Kind.ROW}, f"{AT_A01}: ledger of slices: other values"),
    (damage.voxel_size_on_disk, {Kind.METADATA}, f"{AT_A01}: pixel_um is 0.5, the catalog says 0.25"),
    (damage.voxel_size_of_multiscales, {Kind.METADATA}, f"{AT_A01}: the voxel size or the axes"),
    (damage.voxel_size_in_catalog, {Kind.ROW, Kind.METADATA, Kind.ORIGIN}, f"{AT_A01}: stack's plan and state"),
    (damage.array_shape, {Kind.METADATA}, f"{AT_A01} level 0: shape of the array"),
    (damage.metadata_gone, {Kind.METADATA}, f"{AT_A01}: the stack's metadata"),
    (damage.treatment_on_disk, {Kind.METADATA}, "P1/B01: what the well holds"),
    (damage.treatment_in_catalog, {Kind.ROW, Kind.AUDIT, Kind.METADATA}, "P1/B01: plate map: other values"),
    (damage.edited_result, {Kind.ROW, Kind.AUDIT}, f"{AT_A01}: result of model {MODEL}: other values"),
    (damage.deleted_result, {Kind.ROW, Kind.AUDIT, Kind.CATALOG, Kind.LEDGER, Kind.LABEL}, "the row is missing"),
    (damage.edited_limits, {Kind.ROW, Kind.AUDIT}, f"{AT_A01}: result of model"),
    (
        damage.edited_origin,
        {Kind.ROW, Kind.ORIGIN},
        f"{AT_A01}: the result of model {MODEL[:12]} was measured from other",
    ),
    (damage.flipped_label, {Kind.DAMAGED_SHARD}, f"{AT_A01} channel live z 0-7 level 0"),
    (damage.deleted_label, {Kind.MISSING_SHARD}, f"{AT_A01}: the label 'live' has no metadata"),
    (damage.other_label, {Kind.LABEL}, f"{AT_A01} channel live: the masks 'live' are not those"),
    (damage.label_of_another_model, {Kind.LABEL}, f"{AT_A01} channel live: the masks 'live' are of model cdcd"),
    (damage.coarser_label, {Kind.PYRAMID}, f"{AT_A01} channel live z 0-7 level 1"),
    (damage.changed_pyramid, {Kind.PYRAMID}, f"{AT_A01} channel 488 z 0-7 level 1"),
    (damage.flipped_pyramid, {Kind.PYRAMID, Kind.DAMAGED_SHARD}, f"{AT_A01} channel 488 z 0-7 level 1"),
    (damage.deleted_pyramid, {Kind.MISSING_SHARD}, f"{AT_A01} channel 488 z 0-7 level 1: the file is gone"),
    (damage.audit_event_changed, {Kind.AUDIT, Kind.ROW}, "event 3"),
    (damage.history_deleted, {Kind.AUDIT, Kind.ROW}, "result_changes 1 is missing"),
    (damage.dropped_table, {Kind.CATALOG, Kind.ROW}, "blocks"),
    (damage.dropped_trigger, {Kind.AUDIT, Kind.ROW}, "the trigger audit_keep is gone"),
    (damage.cut_catalog, {Kind.CATALOG}, "catalog.sqlite"),
    (damage.empty_catalog, {Kind.CATALOG}, "catalog.sqlite: it is empty"),
    (damage.catalog_gone, {Kind.CATALOG}, "there is no catalog"),
    (damage.catalog_is_noise, {Kind.CATALOG}, "no SQLite database"),
]


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plate that nothing befell; to be read only."""
    return make_plate(tmp_path_factory.mktemp("plate") / "data")


@pytest.fixture
def copied(plate: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plate, tmp_path / "data"))


def test_a_plate_as_it_was_written_is_intact(plate: Path) -> None:
    report = verify(plate)
    assert report.findings == ()
    assert report.exit_code == INTACT
    assert (report.stacks, report.slices, report.deep) == (3, 72, False)
    assert report.shards == 3 * (2 * 2 * 2 + 2 * 2 * 2)  # channels, shards, levels of images; the same of two labels
    assert report.pixel_bytes == 72 * 300 * 300 * 2
    assert report.rows > 72
    assert not (plate / STATE_NAME).exists()


def test_a_deep_pass_reads_as_other_programs_do(plate: Path) -> None:
    assert verify(plate, deep=True).findings == ()


@pytest.mark.parametrize(("befall", "kinds", "told"), DAMAGES, ids=lambda value: getattr(value, "__name__", None))
def test_damage_is_found_and_named(copied: Path, befall, kinds: set[Kind], told: str) -> None:
    befall(copied)
    report = verify(copied)
    said = [str(finding) for finding in report.findings]
    assert report.exit_code == DAMAGED
    assert report.findings
    assert {finding.kind for finding in report.findings} <= kinds, said
    assert any(told in line for line in said), said
    assert all(finding.kind.do and finding.kind.meaning for finding in report.findings)


@pytest.mark.parametrize("text", [b'"exposure_ms":20.0', b"P1A02", b'"0.5":120.0', b'"plate":"P1"'], ids=repr)
def test_bytes_that_are_flipped_within_the_catalog_are_found(copied: Path, text: bytes) -> None:
    damage.cell_flipped(copied, text)
    assert verify(copied).exit_code == DAMAGED


def test_texts_that_are_none_are_told_as_damage_of_the_catalog(copied: Path) -> None:
    damage.sql(copied, "UPDATE slices SET metadata_json = CAST(x'ffe41b' AS TEXT) WHERE well = 'A01' AND z = 5")
    with Catalog.read_only(copied) as catalog, pytest.raises(StorageError, match="the catalog is damaged"):
        rows_read(catalog, PLATE)


def test_every_number_of_the_catalog_is_vouched_for(copied: Path) -> None:
    """A copy of each row of each table with its first number changed is found, whatever the table."""
    connection = sqlite3.connect(copied / "catalog.sqlite")
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    numbers = [
        (table, column[1])
        for table in tables
        if not table.startswith("sqlite_")
        for column in connection.execute(f"PRAGMA table_info({table})").fetchall()
        if column[2] in ("REAL", "INTEGER") and not column[5]
        if connection.execute(f'SELECT 1 FROM "{table}" WHERE "{column[1]}" NOT NULL').fetchone()
    ]
    connection.execute("PRAGMA foreign_keys = OFF")
    assert len(numbers) > 20
    with Catalog.read_only(copied) as catalog:
        for table, column in numbers:
            connection.execute("SAVEPOINT one")
            connection.execute("PRAGMA ignore_check_constraints = ON")
            for trigger in ("result_changes_fixed", "audit_fixed"):
                connection.execute(f"DROP TRIGGER {trigger}")
            connection.execute(f'UPDATE "{table}" SET "{column}" = "{column}" + 1 WHERE "{column}" NOT NULL')
            connection.commit()
            assert check_catalog(catalog).damaged, f"{table}.{column}"
            connection.execute(f'UPDATE "{table}" SET "{column}" = "{column}" - 1 WHERE "{column}" NOT NULL')
            for trigger, of in (("result_changes_fixed", "result_changes"), ("audit_fixed", "audit")):
                words = "the history of results" if of == "result_changes" else "the audit trail"
                connection.execute(
                    f"CREATE TRIGGER {trigger} BEFORE UPDATE ON {of}\n"
                    f"  BEGIN SELECT RAISE(ABORT, '{words} is append-only'); END"
                )
            connection.commit()
    connection.close()


def test_a_pass_goes_on_where_it_was_interrupted(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "SAVE_S", 0.0)
    damage.flipped_bit(copied)

    def interrupt(done: int, total: int, where: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(copied, progress=interrupt, threads=1)
    assert (copied / STATE_NAME).exists()
    report = verify(copied, resume=True)
    assert report.resumed == 1
    assert (report.stacks, report.slices) == (3, 72)
    assert {finding.kind for finding in report.findings} == {Kind.DAMAGED_SHARD}  # found before the interruption
    assert not (copied / STATE_NAME).exists()
    assert verify(copied).resumed == 0


def test_a_resumed_pass_does_a_stack_again_whose_ledger_has_changed(copied: Path) -> None:
    kept = {str(image(copied)): 1}
    (copied / STATE_NAME).write_text(json.dumps({"deep": False, "done": {AT_A01: {"ledger": "other", **kept}}}))
    assert verify(copied, resume=True).resumed == 0


def test_the_pass_stands_in_the_audit_trail(copied: Path) -> None:
    with Catalog.read_only(copied) as catalog:
        assert last_verified(catalog, PLATE) is None
    assert record_beside(copied, verify(copied), "Ada") == ""
    with Catalog.read_only(copied) as catalog:
        found = last_verified(catalog, PLATE)
    assert found is not None
    assert (found.who, found.by, found.slices, found.damage, found.findings) == ("Ada", "verify", 72, 0, 0)
    assert verify(copied).findings == ()  # the event itself is none


def test_nothing_is_written_into_a_catalog_that_is_damaged(copied: Path) -> None:
    damage.edited_result(copied)
    before = (copied / "catalog.sqlite").read_bytes()
    assert "left as it is" in record_beside(copied, verify(copied))
    assert (copied / "catalog.sqlite").read_bytes() == before


def test_a_stack_that_grows_is_no_damage(tmp_path: Path) -> None:
    """Slices that are in the ring alone are waited for; without the ring they are lost."""
    events: list[Event] = []
    plan = plan_of("A01")
    store = ZarrStackStore(tmp_path, MAP, events.append, ring_slots=32)
    store.open(plan)
    for number, index in enumerate(list(plan.indices())[:6]):
        store.append(Frame(plan.key, index, np.full((300, 300), number, np.uint16), 1.0, {}))
    store.close()
    with Catalog.create_or_open(tmp_path) as catalog:
        catalog.register_plate(MAP, "{}")
        catalog.expect(plan)
        catalog.set_stack_state(plan.key, StackState.ACQUIRING)
        for event in events:
            if isinstance(event, SliceDurable):
                catalog.acknowledge(event, 2.0)
    report = verify(tmp_path)
    assert {finding.kind for finding in report.findings} == {Kind.WAITING}, report.findings
    assert report.exit_code == LOOK
    shutil.rmtree(tmp_path / f"{PLATE}.ring")
    assert {finding.kind for finding in verify(tmp_path).findings} == {Kind.MISSING_SHARD}


def test_a_directory_where_nothing_was_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no plate was ever run"):
        verify(tmp_path)


def test_the_report_says_where_what_and_what_to_do(copied: Path) -> None:
    damage.deleted_shard(copied)
    screen = Console(width=200, file=io.StringIO())
    with screen.capture() as captured:
        screen.print(to_screen(verify(copied)))
    text = captured.get()
    assert "P1/A01/0 channel 488 z 8-11 level 0" in text
    assert "To do: restore the file from a backup" in text
    assert "DAMAGED: 1 findings" in text


def test_the_document_shows_every_kind() -> None:
    assert findings_document.DOCUMENT.read_text(encoding="utf-8") == findings_document.written()


def test_the_command_says_it_with_its_exit_code(copied: Path) -> None:
    done = spheroidd("verify", str(copied), "--json")
    assert done.returncode == INTACT, done.stderr
    damage.swapped_wells(copied)
    done = spheroidd("verify", str(copied), "--json")
    assert done.returncode == DAMAGED
    found = json.loads(done.stdout)
    assert found["verdict"] == "damaged"
    assert found["kinds"] == {"swapped": 2}
    assert found["findings"][0]["do"].startswith("move the folder back")


@pytest.mark.parametrize("befall", [None, damage.edited_result], ids=["intact", "altered"])
def test_an_export_and_a_report_say_whether_their_rows_are_as_written(copied: Path, tmp_path: Path, befall) -> None:
    record_beside(copied, verify(copied))
    if befall is not None:
        befall(copied)
    done = export(copied, tmp_path / "out", formats=[Format.CSV])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    with Catalog.read_only(copied) as catalog, catalog.snapshot():
        facts = dict(plate_facts(catalog, PLATE))
    for words in (manifest["rows_checked"], facts["Rows of the catalog"]):
        assert words.startswith("as they were written" if befall is None else "NOT as they were written: P1/A01/0")
    for words in (manifest["images_verified"], facts["Images and masks verified"]):
        assert "(verify): 72 slices, intact" in words
    assert bool(done.altered) is (befall is not None)


def test_a_slice_that_is_not_the_one_in_the_ledger_is_not_scored(copied: Path) -> None:
    """Whole files of another stack: their own checksums fit."""
    damage.shards_exchanged(copied)
    with Catalog.read_only(copied) as catalog:
        ledger = {
            index.z: crc for index, crc in catalog.acknowledged(plan_of("A01").key).items() if index.channel == "488"
        }
    block = Block(plan_of("A01").key, "488", 0, 8)
    assert read_block(copied, block).shape == (8, 300, 300)
    with pytest.raises(StackError, match="slice 0 is another image than the one that was acknowledged"):
        read_block(copied, block, ledger)


def test_results_says_where_a_row_is_not_as_it_was_written(copied: Path) -> None:
    before = spheroidd("results", str(copied), "--json")
    assert "NOT as they were written" not in before.stderr
    damage.edited_result(copied)
    after = spheroidd("results", str(copied), "--json")
    assert after.returncode == 1
    assert f"NOT as they were written: {AT_A01}: result of model {MODEL}: other values" in after.stderr
    assert json.loads(after.stdout)  # a program gets its rows, and the exit code


@pytest.mark.parametrize("command", ["report", "quality"])
def test_bytes_in_the_ledger_that_are_no_text_are_damage_and_no_traceback(
    copied: Path, tmp_path: Path, command: str
) -> None:
    damage.sql(
        copied, "UPDATE slices SET channel = CAST(X'FFFE80' AS TEXT) WHERE well = 'A01' AND z = 1 AND channel = '488'"
    )
    options = ("-o", str(tmp_path / "out.html")) if command == "report" else ()
    done = spheroidd(command, str(copied), *options)
    assert "Traceback" not in done.stderr + done.stdout
    if command == "report":
        assert done.returncode == 4, done.stderr
