"""The audit trail: every act is in it, and whatever is done to it afterwards is found and named."""

import contextlib
import getpass
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from spheroidd.daemon.catalog import audit_chain as audit
from spheroidd.daemon.catalog.audit_chain import Action, AuditEvent
from spheroidd.daemon.catalog.audit_trail import events, head, record_files
from spheroidd.daemon.catalog.audit_verification import AuditCheck, verify
from spheroidd.daemon.catalog.writer import Catalog
from spheroidd.daemon.cli import console as cli
from spheroidd.protocols.errors import ConfigError, StorageError
from spheroidd.protocols.results import Limits
from spheroidd.protocols.stack import StackKey
from spheroidd.protocols.well import WellId
from tests.daemon.catalog.older import make_older
from tests.daemon.report import plates
from tests.warm_start import talking

A01, A02, A03 = (WellId(0, column) for column in range(3))
TREATMENTS = {A01: plates.UNTREATED, A02: plates.KILLED, A03: plates.sample("drug", 1.5, "pt7")}
LIMITS = {"488": Limits(100.0, 900.0, 300.0, 50.0)}


def spheroidd(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def make(folder: Path) -> Path:
    """A plate from its registration to an export, a dozen events."""
    wells = plates.plate_map("P1", TREATMENTS)
    plates.register(folder, wells)
    with Catalog.create_or_open(folder) as catalog:
        catalog.lock_limits("P1", LIMITS)
    plates.score(folder, wells, {A01: 1000.0, A02: 10.0, A03: 400.0})
    assert spheroidd("exclude", folder, "--well", "A02", "--reason", "a bubble", "--who", "ann").exit_code == 0
    with Catalog.create_or_open(folder) as catalog:
        note = folder / "report.html"
        note.write_text("numbers", encoding="utf-8")
        record_files(catalog, Action.REPORT_WRITTEN, [note], plates=["P1"])
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The catalog of `make`, as bytes to start from."""
    folder = make(tmp_path_factory.mktemp("original"))
    with sqlite3.connect(folder / "catalog.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return (folder / "catalog.sqlite").read_bytes()


@pytest.fixture
def data(original: bytes, tmp_path: Path) -> Path:
    (tmp_path / "catalog.sqlite").write_bytes(original)
    return tmp_path


def trail(folder: Path) -> list[AuditEvent]:
    with Catalog.read_only(folder) as catalog:
        return events(catalog)


def checked(folder: Path, anchor: str | None = None) -> AuditCheck:
    with Catalog.read_only(folder) as catalog:
        return verify(catalog, anchor)


def tamper(folder: Path, *statements: str) -> None:
    """Do with sqlite3 what somebody with a grudge would: the triggers go first, and come back."""
    connection = sqlite3.connect(folder / "catalog.sqlite", isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()


def forge(folder: Path, alter: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> None:
    """Write the whole trail anew, with hashes that fit: what only an anchor can show."""
    rows = alter([{name: getattr(event, name) for name in AuditEvent.__slots__} for event in trail(folder)])
    before, inserts = "", []
    for seq, row in enumerate(rows, start=1):
        row |= {"seq": seq, "prev_sha256": before}
        fields = {name: value for name, value in row.items() if name != "sha256"}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        before = hashlib.sha256(text.encode()).hexdigest()
        values = {**row, "sha256": before}
        cells = ("NULL" if v is None else v if isinstance(v, int) else "'" + str(v).replace("'", "''") + "'"
                 for v in (values[name] for name in AuditEvent.__slots__))  # fmt: skip
        inserts.append(f"INSERT INTO audit ({', '.join(AuditEvent.__slots__)}) VALUES ({', '.join(map(str, cells))})")
    tamper(folder, "DELETE FROM audit", *inserts, f"UPDATE sqlite_sequence SET seq = {len(rows)} WHERE name = 'audit'")


# What goes in


def test_every_act_is_in_the_trail(data: Path) -> None:
    found = [(event.action, event.well) for event in trail(data)]
    assert found == [
        ("trail started", None),
        ("plate registered", None),
        ("limits locked", None),
        *[(action, well) for well in ("A01", "A02", "A03") for action in ("result new", "result changed")],
        ("well excluded", "A02"),
        *[("result changed", well) for well in ("A01", "A02", "A03")],  # they get the score that they lacked
        ("report written", None),
    ]
    assert checked(data).intact


def test_an_event_says_who_when_what_and_why(data: Path) -> None:
    event = next(event for event in trail(data) if event.action == Action.WELL_EXCLUDED)
    assert (event.who, event.plate, event.well, event.reason) == ("ann", "P1", "A02", "a bubble")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.at_utc)
    assert json.loads(event.old_json or "") == {"excluded": False, "reason": None}
    assert json.loads(event.new_json or "") == {"excluded": True, "reason": "a bubble"}


def test_files_that_were_handed_out_are_named_with_their_hash(data: Path) -> None:
    new = json.loads(trail(data)[-1].new_json or "")
    assert new["files"] == [{"name": "report.html", "bytes": 7, "sha256": hashlib.sha256(b"numbers").hexdigest()}]


def test_the_hash_is_what_the_documentation_says(data: Path) -> None:
    before = ""
    for event in trail(data):
        fields = {name: getattr(event, name) for name in AuditEvent.__slots__ if name != "sha256"}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        assert event.prev_sha256 == before
        assert event.sha256 == hashlib.sha256(text.encode("utf-8")).hexdigest()
        before = event.sha256


def test_what_is_rolled_back_leaves_no_event(tmp_path: Path) -> None:
    wells = plates.plate_map("P1", TREATMENTS)
    with Catalog.create_or_open(tmp_path) as catalog:
        before = head(catalog)
        with suppress(ZeroDivisionError), catalog.transaction():
            catalog.register_plate(wells, "{}")
            raise ZeroDivisionError
        assert head(catalog) == before
        catalog.register_plate(wells, "{}")
        assert [event.seq for event in events(catalog)] == [1, 2]


def test_the_same_registration_again_is_no_event_and_another_configuration_is_one(data: Path) -> None:
    wells = plates.plate_map("P1", TREATMENTS)
    with Catalog.create_or_open(data) as catalog:
        config, n = catalog.plate_config("P1"), len(events(catalog))
        catalog.register_plate(wells, config)
        catalog.lock_limits("P1", LIMITS)
        assert len(events(catalog)) == n
        catalog.register_plate(wells, '{"other":1}')
        event = events(catalog)[-1]
    assert event.action == Action.PLATE_CHANGED
    old, new = json.loads(event.old_json or ""), json.loads(event.new_json or "")
    assert old["config_sha256"] == hashlib.sha256(config.encode()).hexdigest() != new["config_sha256"]
    assert old["map_sha256"] == new["map_sha256"]
    assert old["settings"] == {"inference.normalisation": "plate", "other": None, "source.kind": "emulator"}
    assert new["settings"] == {"inference.normalisation": None, "other": 1, "source.kind": None}
    assert checked(data).intact


def test_an_event_needs_the_transaction_of_its_act(tmp_path: Path) -> None:
    with Catalog.create_or_open(tmp_path) as catalog, pytest.raises(RuntimeError, match="transaction"):
        audit.append(catalog.connection, Action.RUN_STARTED, at_s=0.0)


@pytest.mark.parametrize("who", ["", " \n ", "a\x1b[31m", "\ud800"])
def test_a_name_that_says_nothing_or_cannot_be_shown_is_refused(data: Path, who: str) -> None:
    with Catalog.create_or_open(data) as catalog, pytest.raises(ConfigError, match="who"):
        catalog.append_event(Action.RUN_STARTED, who=who)


def test_who_is_the_variable_then_the_account_then_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPHEROIDD_USER", " lab ")
    assert audit.whoami() == "lab"
    monkeypatch.delenv("SPHEROIDD_USER")
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert audit.whoami() == "ann"

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert audit.whoami().startswith(("uid ", "unknown"))


# What SQLite itself refuses


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET who = 'eve' WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit",
        "REPLACE INTO audit SELECT seq, at_utc, 'eve', action, plate, well, old_json, new_json, reason, prev_sha256, "
        "sha256 FROM audit WHERE seq = 3",
        "UPDATE OR REPLACE audit SET seq = 2 WHERE seq = 3",
        "INSERT INTO audit SELECT 99, at_utc, who, action, plate, well, old_json, new_json, reason, prev_sha256, "
        "sha256 FROM audit WHERE seq = 3",
        "INSERT INTO audit (at_utc, who, action, prev_sha256, sha256) VALUES ('', 'eve', 'x', '', '')",
    ],
)
def test_history_cannot_be_changed_through_sql(data: Path, statement: str) -> None:
    before = trail(data)
    connection = sqlite3.connect(data / "catalog.sqlite")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
    assert trail(data) == before


# What is found in spite of all


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_altered_field_of_any_event_is_found_and_named(
    data: st.DataObject, original: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("altered")
    (folder / "catalog.sqlite").write_bytes(original)
    event = data.draw(st.sampled_from(trail(folder)), label="event")
    name = data.draw(st.sampled_from([n for n in AuditEvent.__slots__ if n != "seq"]), label="field")
    text = data.draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), label="value")
    if name == "sha256":
        text = hashlib.sha256(text.encode()).hexdigest()
    if text == getattr(event, name):
        return
    quoted = text.replace("'", "''")
    tamper(folder, f"UPDATE audit SET {name} = '{quoted}' WHERE seq = {event.seq}")
    check = checked(folder)
    assert not check.intact
    assert f"event {event.seq} " in " ".join(check.problems)


@pytest.mark.parametrize("seq", [1, 2, 5])
def test_a_deleted_event_is_named(data: Path, seq: int) -> None:
    tamper(data, f"DELETE FROM audit WHERE seq = {seq}")
    problems = " ".join(checked(data).problems)
    assert f"event {seq} is" in problems
    assert "missing" in problems


def test_a_deleted_event_with_the_gap_closed_is_found(data: Path) -> None:
    last = trail(data)[-1].seq
    tamper(
        data,
        "DELETE FROM audit WHERE seq = 4",
        *(f"UPDATE audit SET seq = {n - 1} WHERE seq = {n}" for n in range(5, last + 1)),
    )
    assert any("event 4 " in problem and "altered" in problem for problem in checked(data).problems)


def test_an_inserted_event_is_found(data: Path) -> None:
    last = trail(data)[-1].seq
    tamper(
        data,
        *(f"UPDATE audit SET seq = {n + 1} WHERE seq = {n}" for n in range(last, 4, -1)),
        "INSERT INTO audit SELECT 5, at_utc, who, action, plate, well, old_json, new_json, reason, prev_sha256, sha256 "
        "FROM audit WHERE seq = 4",
    )
    assert any("event 5 " in problem for problem in checked(data).problems)


def test_a_cut_off_tail_is_found_by_the_numbers_that_are_never_used_again(data: Path) -> None:
    last = trail(data)[-1].seq
    tamper(data, f"DELETE FROM audit WHERE seq > {last - 2}")
    assert any(f"events {last - 1} to {last} are missing at the end" in p for p in checked(data).problems)
    with Catalog.create_or_open(data) as catalog:  # and the gap stays when the daemon goes on
        assert catalog.append_event(Action.RUN_STARTED).seq == last + 1
    assert any(f"events {last - 1} to {last} are missing" in p for p in checked(data).problems)


def test_a_tail_cut_off_without_trace_needs_an_anchor(data: Path) -> None:
    with Catalog.read_only(data) as catalog:
        anchor = str(head(catalog))
    assert checked(data, anchor).intact
    last = int(anchor.split(":")[0])
    tamper(
        data,
        f"DELETE FROM audit WHERE seq = {last}",
        f"UPDATE sqlite_sequence SET seq = {last - 1} WHERE name = 'audit'",
    )
    assert checked(data).intact  # nothing in the file can show it
    for given_head in (anchor, anchor.split(":")[1], anchor[:20]):
        assert any("is not there" in problem for problem in checked(data, given_head).problems), given_head


def test_a_trail_written_anew_needs_an_anchor(data: Path) -> None:
    anchor = f"{trail(data)[-1].seq}:{trail(data)[-1].sha256}"

    def another_reason(rows: list[dict[str, object]]) -> list[dict[str, object]]:
        return [row | ({"reason": "it was too good"} if row["reason"] == "a bubble" else {}) for row in rows]

    forge(data, another_reason)
    assert checked(data).intact
    assert not checked(data, anchor).intact


def test_an_anchor_stays_good_while_the_trail_grows(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        anchor = str(head(catalog))
        catalog.append_event(Action.RUN_STARTED)
    assert checked(data, anchor).intact


@pytest.mark.parametrize("text", ["", "12", "12:xyz", "x:" + "a" * 64, "12:" + "a" * 65, "abc"])
def test_what_is_no_anchor_is_refused(data: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no head"):
        checked(data, text)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE results SET v_control = 99.5 WHERE well = 'A03'", "result P1/A03/0 .* was altered: v_control"),
        ("UPDATE results SET v_control = NULL WHERE well = 'A03'", "result P1/A03/0 .* was altered: v_control"),
        ("DELETE FROM results WHERE well = 'A03'", "result P1/A03/0 .* is missing"),
        ("UPDATE result_changes SET new_json = replace(new_json, '400.0', '900.0')", "result_changes . was altered"),
        ("DELETE FROM result_changes WHERE id = 2", "result_changes 2 is missing"),
        ("INSERT INTO result_changes SELECT 99, changed_s, plate, well, stack, model_sha256, old_json, new_json, "
         "reason FROM result_changes WHERE id = 2", "result_changes 99 has no event"),
        ("UPDATE wells SET role = 'sample' WHERE well = 'A01'", "plate P1: the wells"),
        ("UPDATE wells SET dose_um = 150 WHERE well = 'A03'", "plate P1: the wells"),
        ("UPDATE plates SET config_json = '{}'", "plate P1: the settings"),
        ("UPDATE plates SET limits_json = NULL", "plate P1: its intensity limits"),
        ("DROP TRIGGER audit_keep", "the trigger audit_keep is gone"),
    ],
)  # fmt: skip
def test_a_number_changed_behind_the_trails_back_is_named(data: Path, statement: str, words: str) -> None:
    connection = sqlite3.connect(data / "catalog.sqlite", isolation_level=None)
    if statement.startswith("DROP"):
        connection.execute(statement)
        connection.close()
    else:
        connection.close()
        tamper(data, statement)
    problems = checked(data).problems
    assert any(re.search(words, problem) for problem in problems), problems


# Catalogs from before there was a trail


def older(folder: Path, original: bytes) -> Path:
    """A catalog of the first schema, with a plate and results."""
    (folder / "catalog.sqlite").write_bytes(original)
    make_older(folder, 1)
    return folder


def test_an_older_catalog_is_read_as_it_is(original: bytes, tmp_path: Path) -> None:
    folder = older(tmp_path, original)
    before = (folder / "catalog.sqlite").read_bytes()
    with Catalog.read_only(folder) as catalog:
        assert catalog.excluded_wells("P1") == {}
        assert [row.exclusion for row in catalog.result_rows()] == [None] * 3
        assert [row.result.precision for row in catalog.result_rows()] == [None] * 3
        assert catalog.query("SELECT DISTINCT precision FROM wells_view") == [{"precision": None}]
        assert "no audit trail" in " ".join(verify(catalog).problems)
    assert (folder / "catalog.sqlite").read_bytes() == before


def test_what_an_older_catalog_held_is_sealed_by_the_first_event(original: bytes, tmp_path: Path) -> None:
    folder = older(tmp_path, original)
    Catalog.create_or_open(folder).close()
    assert [event.action for event in trail(folder)] == [Action.TRAIL_STARTED]
    assert checked(folder).intact
    tamper(folder, "UPDATE result_changes SET reason = 'other' WHERE id = 1")
    assert any("from before the trail" in problem for problem in checked(folder).problems)


def test_work_goes_on_over_the_seal(original: bytes, tmp_path: Path) -> None:
    folder = older(tmp_path, original)
    with Catalog.create_or_open(folder) as catalog:
        catalog.record_measurement(StackKey("P1", A03), plates.measurement(500.0), 1.0)
    assert checked(folder).intact


# Several writers


_APPENDER = """
import sys
from pathlib import Path
from spheroidd.daemon.catalog.audit_chain import Action
from spheroidd.daemon.catalog.writer import Catalog
with Catalog.create_or_open(Path(sys.argv[1])) as catalog:
    for _ in range(40):
        catalog.append_event(Action.RUN_STARTED, who=sys.argv[2])
"""


def test_processes_that_append_at_once_make_one_chain(data: Path) -> None:
    before = len(trail(data))
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(talking(_APPENDER, str(data), name))[0] for name in ("ann", "bob", "eve")]
        assert [process.wait(60) for process in running] == [0, 0, 0]
    found = trail(data)[before:]
    assert sorted(event.who for event in found) == ["ann"] * 40 + ["bob"] * 40 + ["eve"] * 40
    assert checked(data).intact


def test_a_full_disk_appends_nothing_and_says_so(data: Path) -> None:
    with Catalog.create_or_open(data) as catalog:
        before = events(catalog)
        pages = catalog.connection.execute("PRAGMA page_count").fetchone()[0]
        catalog.connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match="disk is full"):
            catalog.append_event(Action.RUN_STARTED, reason="x" * 100_000)
        catalog.connection.execute("PRAGMA max_page_count = 1000000")
        assert verify(catalog).intact
        assert events(catalog) == before


# The commands


def test_verify_says_intact_or_what_is_wrong(data: Path) -> None:
    good = spheroidd("audit", "verify", data)
    assert good.exit_code == 0
    assert "intact" in good.stdout
    anchor = json.loads(spheroidd("audit", "verify", data, "--json").stdout)["head"]
    assert spheroidd("audit", "verify", data, "--head", anchor).exit_code == 0
    tamper(data, "UPDATE audit SET who = 'eve' WHERE seq = 3")
    bad = spheroidd("audit", "verify", data)
    assert bad.exit_code == 1
    assert "event 3 (limits locked" in bad.stdout
    assert spheroidd("audit", "verify", data, "--head", "nonsense").exit_code == 2


def test_show_lists_the_events_for_people_and_programs(data: Path) -> None:
    table = spheroidd("audit", "show", data)
    assert table.exit_code == 0
    assert "a bubble" in table.stdout
    found = json.loads(spheroidd("audit", "show", data, "--json", "--well", "a2").stdout)
    assert {event["well"] for event in found} == {"A02"}
    assert found[-1]["seq"] <= trail(data)[-1].seq
    assert len(json.loads(spheroidd("audit", "show", data, "--json", "--last", 2).stdout)) == 2


def test_nothing_was_run_here(tmp_path: Path) -> None:
    for command in (("audit", "show"), ("audit", "verify")):
        done = spheroidd(*command, tmp_path)
        assert done.exit_code == 2
        assert "no plate was ever run here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_whole_plate_is_verified(tmp_path: Path) -> None:
    wells, live = plates.screen_plate("big", 8, 12, {"one": 1.0, "two": 10.0})
    plates.register(tmp_path, wells)
    plates.score(tmp_path, wells, live)
    check = checked(tmp_path)
    assert check.intact
    assert check.events > 2 * len(live)
