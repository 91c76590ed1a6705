"""The catalog's tables, as numbered steps. A step that has shipped is never edited; a change is a new step.

Two things are no steps: the columns of `results` that the list of result columns got since (they are added, NULL, where
they are missing), and the views (they are made anew where their text is another).
Tables are STRICT, so that a wrong type is refused at the door. Times are seconds since 1970.
"""

import re
import sqlite3
from collections.abc import Mapping

from spheroidd.daemon.catalog.sim_rows import SCHEMA as SIM_TABLES
from spheroidd.daemon.catalog.transaction import transaction
from spheroidd.daemon.catalog.views import CURVE_FITS, VIEWS
from spheroidd.protocols.errors import ConfigError
from spheroidd.protocols.result_columns import STORED, Kind, ResultColumn

_PLATES = """
CREATE TABLE plates (
  plate TEXT PRIMARY KEY,
  created_s REAL NOT NULL,
  config_json TEXT NOT NULL,
  limits_json TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE wells (
  plate TEXT NOT NULL REFERENCES plates,
  well TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  role TEXT NOT NULL,
  compound TEXT,
  dose_um REAL,
  patient TEXT,
  paths_json TEXT NOT NULL,
  pixel_um REAL,
  z_step_um REAL,
  PRIMARY KEY (plate, well)
) STRICT, WITHOUT ROWID;
"""

_STACKS = """
CREATE TABLE stacks (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL CHECK (stack >= 0),
  plan_json TEXT NOT NULL,
  n_slices INTEGER NOT NULL CHECK (n_slices > 0),
  state TEXT NOT NULL CHECK (state IN ('queued','acquiring','stored','scoring','scored','failed','incomplete')),
  reason TEXT,
  opened_s REAL,
  last_acked_s REAL,
  sealed_s REAL,
  attempts INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (plate, well, stack),
  FOREIGN KEY (plate, well) REFERENCES wells
) STRICT, WITHOUT ROWID;
CREATE TABLE slices (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  channel TEXT NOT NULL,
  z INTEGER NOT NULL CHECK (z >= 0),
  crc32c INTEGER NOT NULL CHECK (crc32c BETWEEN 0 AND 4294967295),
  acquired_s REAL NOT NULL,
  acked_s REAL NOT NULL,
  metadata_json TEXT NOT NULL,
  PRIMARY KEY (plate, well, stack, channel, z),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
CREATE TABLE blocks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  channel TEXT NOT NULL,
  z_start INTEGER NOT NULL CHECK (z_start >= 0),
  z_stop INTEGER NOT NULL CHECK (z_stop > z_start),
  UNIQUE (plate, well, stack, channel, z_start, z_stop),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT;
"""

_RESULTS = """
CREATE TABLE results (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  model_sha256 TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('provisional','final')),
  reason TEXT,
  live_um3 REAL,
  dead_um3 REAL,
  n_live INTEGER,
  n_dead INTEGER,
  v_count REAL,
  v_control REAL,
  v_score REAL,
  v_score_lo REAL,
  v_score_hi REAL,
  live_um3_by_z_json TEXT NOT NULL,
  limits_json TEXT NOT NULL,
  quantiles_json TEXT NOT NULL,
  normalisation TEXT NOT NULL,
  cpu_s REAL NOT NULL,
  latency_s REAL,
  measured_s REAL NOT NULL,
  PRIMARY KEY (plate, well, stack, model_sha256),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
CREATE TABLE result_changes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  changed_s REAL NOT NULL,
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  model_sha256 TEXT NOT NULL,
  old_json TEXT,
  new_json TEXT NOT NULL,
  reason TEXT NOT NULL,
  FOREIGN KEY (plate, well, stack, model_sha256) REFERENCES results
) STRICT;
CREATE TRIGGER result_changes_keep BEFORE DELETE ON result_changes
  BEGIN SELECT RAISE(ABORT, 'the history of results is append-only'); END;
CREATE TRIGGER result_changes_fixed BEFORE UPDATE ON result_changes
  BEGIN SELECT RAISE(ABORT, 'the history of results is append-only'); END;
CREATE TABLE histograms (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  channel TEXT NOT NULL,
  counts BLOB NOT NULL,
  PRIMARY KEY (plate, well, stack, channel),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT;
"""

_RUN = """
CREATE TABLE faults (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  code TEXT NOT NULL,
  key TEXT NOT NULL,
  kind TEXT NOT NULL,
  what TEXT NOT NULL,
  location TEXT NOT NULL,
  todo TEXT NOT NULL,
  raised_s REAL NOT NULL,
  cleared_s REAL
) STRICT;
CREATE UNIQUE INDEX open_faults ON faults (code, key) WHERE cleared_s IS NULL;
CREATE TABLE run_state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  version TEXT NOT NULL,
  pid INTEGER NOT NULL,
  state TEXT NOT NULL,
  worker TEXT NOT NULL,
  started_s REAL NOT NULL,
  heartbeat_s REAL NOT NULL,
  plate TEXT,
  well TEXT,
  stack INTEGER,
  slices_done INTEGER NOT NULL,
  slices_total INTEGER NOT NULL,
  slices_per_s REAL,
  eta_s REAL
) STRICT;
"""

# Numbers of AUTOINCREMENT are never used twice, so that a tail that was cut off leaves a gap. sha256 is not UNIQUE,
# because INSERT OR REPLACE would then delete the older row, and SQLite fires no trigger for that.
_AUDIT = """
CREATE TABLE audit (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  at_utc TEXT NOT NULL,
  who TEXT NOT NULL CHECK (who <> ''),
  action TEXT NOT NULL CHECK (action <> ''),
  plate TEXT,
  well TEXT,
  old_json TEXT,
  new_json TEXT,
  reason TEXT,
  prev_sha256 TEXT NOT NULL,
  sha256 TEXT NOT NULL CHECK (length(sha256) = 64)
) STRICT;
CREATE INDEX audit_of_well ON audit (plate, well, action);
CREATE TRIGGER audit_keep BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_fixed BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_next BEFORE INSERT ON audit
  WHEN NEW.seq <= (SELECT coalesce(max(seq), 0) FROM audit)
    OR NEW.prev_sha256 <> coalesce((SELECT sha256 FROM audit ORDER BY seq DESC LIMIT 1), '')
  BEGIN SELECT RAISE(ABORT, 'an audit event continues the chain'); END;
CREATE VIEW excluded_wells AS
  SELECT plate, well, at_utc AS excluded_at_utc, who AS excluded_by, reason AS exclusion_reason
  FROM audit AS newest
  WHERE action = 'well excluded' AND seq = (SELECT max(seq) FROM audit
    WHERE plate = newest.plate AND well = newest.well AND action IN ('well excluded', 'well included'));
"""

# What the images say of themselves, without any judgement: what is out of focus or bleached is so beside the plate.
_STACK_QUALITY = """
CREATE TABLE stack_quality (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  drift_um REAL,
  jump_um REAL,
  jump_z INTEGER,
  measured_s REAL NOT NULL,
  PRIMARY KEY (plate, well, stack),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
CREATE TABLE channel_quality (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  channel TEXT NOT NULL,
  floor_adu REAL NOT NULL,
  contrast_adu REAL NOT NULL,
  sharpness REAL,
  saturated_share REAL NOT NULL,
  hot_share REAL NOT NULL,
  mean_adu_by_z_json TEXT NOT NULL,
  PRIMARY KEY (plate, well, stack, channel),
  FOREIGN KEY (plate, well, stack) REFERENCES stack_quality
) STRICT, WITHOUT ROWID;
"""

# What an assay said of a well, beside what the images say: exactly one of the percentage and the reason is known.
_REFERENCES = """
CREATE TABLE mtt_references (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  od REAL,
  viability_percent REAL,
  reason TEXT,
  audit_seq INTEGER NOT NULL,
  PRIMARY KEY (plate, well),
  CHECK ((viability_percent IS NULL) = (reason IS NOT NULL)),
  FOREIGN KEY (plate, well) REFERENCES wells
) STRICT, WITHOUT ROWID;
"""

# Where each stack's focus was found, in the stages' own coordinates; of a search that was repeated, the last.
_FOCUS = """
CREATE TABLE focus (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('found','neighbours','failed')),
  channel TEXT NOT NULL,
  x_um REAL NOT NULL,
  y_um REAL NOT NULL,
  focus_z_um REAL,
  first_z_um REAL,
  predicted_z_um REAL,
  outlier INTEGER NOT NULL CHECK (outlier IN (0, 1)),
  curve_json TEXT NOT NULL,
  reason TEXT NOT NULL,
  measured_s REAL NOT NULL,
  PRIMARY KEY (plate, well, stack),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
"""

# How a stack ended was a sentence, what happened and what to do in one, and was recognised by its first words. This is
# the last time: from here on it is a value, and the sentence may be worded as it likes.
_SAID = """
  SELECT *, CASE WHEN substr(reason, 1, length(name)) = name THEN substr(reason, length(name) + 1) ELSE reason END
    AS said, state IN ('failed', 'incomplete') AS over
  FROM (SELECT *, plate || '/' || well || '/' || stack || ': ' AS name FROM main.stacks)
"""
_ENDED = """CASE WHEN NOT over THEN NULL WHEN state = 'failed' THEN 'failed'
    WHEN said LIKE 'skipped by %' THEN 'skipped' WHEN said LIKE 'the plate was aborted by %' THEN 'aborted'
    WHEN said LIKE 'stopped in the middle%' THEN 'stopped' ELSE 'short' END"""
_WHAT = "CASE WHEN over AND instr(said, '; ') > 0 THEN substr(said, 1, instr(said, '; ') - 1) ELSE said END"
_TODO = "CASE WHEN over AND instr(said, '; ') > 0 THEN substr(said, instr(said, '; ') + 2) END"
_STACK_ENDS = f"""
ALTER TABLE stacks ADD COLUMN ended TEXT CHECK (ended IN ('skipped','aborted','stopped','short','failed'));
ALTER TABLE stacks ADD COLUMN todo TEXT;
UPDATE stacks SET ended = old.ended, reason = old.what, todo = old.todo
FROM (SELECT plate, well, stack, {_ENDED} AS ended, {_WHAT} AS what, {_TODO} AS todo FROM ({_SAID}) WHERE over) AS old
WHERE old.plate = stacks.plate AND old.well = stacks.well AND old.stack = stacks.stack;
"""
_STACKS_BY_END = f"""SELECT plate, well, stack, plan_json, n_slices, state, {_WHAT} AS reason, opened_s, last_acked_s,
  sealed_s, attempts, {_ENDED} AS ended, {_TODO} AS todo FROM ({_SAID})"""

# How many stacks of a well are different places in it, its fields; further stacks are the same places again.
_FIELDS = """
ALTER TABLE plates ADD COLUMN n_fields INTEGER;
"""

# How bright each stack is, for the plate's limits, and what a network's masks of it look like. As JSON: only rules read
# it, all of it at once.
_EVIDENCE = """
CREATE TABLE stack_light (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  light_json TEXT NOT NULL,
  measured_s REAL NOT NULL,
  PRIMARY KEY (plate, well, stack),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
CREATE TABLE mask_evidence (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  model_sha256 TEXT NOT NULL,
  evidence_json TEXT NOT NULL,
  measured_s REAL NOT NULL,
  PRIMARY KEY (plate, well, stack, model_sha256),
  FOREIGN KEY (plate, well, stack) REFERENCES stacks
) STRICT, WITHOUT ROWID;
"""

# A plate map's further columns by their names, as JSON; NULL where it has none.
_ANNOTATIONS = """
ALTER TABLE wells ADD COLUMN annotations_json TEXT;
"""

# What damage would show by: a digest for each row (`row_digests`), and for each result the images and the masks of it.
_DIGESTS = """
CREATE TABLE row_digests (
  "of" TEXT NOT NULL,
  "key" TEXT NOT NULL,
  n INTEGER NOT NULL,
  digest INTEGER NOT NULL,
  PRIMARY KEY ("of", "key")
) STRICT, WITHOUT ROWID;
CREATE TABLE scored_from (
  plate TEXT NOT NULL,
  well TEXT NOT NULL,
  stack INTEGER NOT NULL,
  model_sha256 TEXT NOT NULL,
  images_sha256 TEXT NOT NULL,
  labels_json TEXT NOT NULL,
  PRIMARY KEY (plate, well, stack, model_sha256),
  FOREIGN KEY (plate, well, stack, model_sha256) REFERENCES results
) STRICT, WITHOUT ROWID;
"""

# How many slices of a stack are acknowledged, kept by triggers whoever writes: counted anew, a plate of a million
# slices takes a second each time somebody looks. And persons' few decisions are found among the many events of results.
_COUNTED = """
ALTER TABLE stacks ADD COLUMN n_acked INTEGER NOT NULL DEFAULT 0;
UPDATE stacks SET n_acked = (SELECT count(*) FROM slices
  WHERE slices.plate = stacks.plate AND slices.well = stacks.well AND slices.stack = stacks.stack);
CREATE INDEX audit_by_action ON audit (action, plate, well);
CREATE TRIGGER slice_counted AFTER INSERT ON slices BEGIN
  UPDATE stacks SET n_acked = n_acked + 1,
    last_acked_s = max(coalesce(last_acked_s, NEW.acked_s), NEW.acked_s)
  WHERE plate = NEW.plate AND well = NEW.well AND stack = NEW.stack;
END;
CREATE TRIGGER slice_uncounted AFTER DELETE ON slices BEGIN
  UPDATE stacks SET n_acked = n_acked - 1 WHERE plate = OLD.plate AND well = OLD.well AND stack = OLD.stack;
END;
"""
_N_ACKED = """(SELECT count(*) FROM main.slices AS slice WHERE slice.plate = one.plate AND slice.well = one.well
    AND slice.stack = one.stack) AS n_acked"""
_STACKS_COUNTED = f"SELECT *, {_N_ACKED} FROM main.stacks AS one"

# Plates that wait for their turn, and the outbox of the notices that a plate has ended.
_QUEUE = """
CREATE TABLE plate_queue (
  plate TEXT PRIMARY KEY,
  place INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'finished')),
  held INTEGER NOT NULL DEFAULT 0,
  submitted_s REAL NOT NULL,
  submitted_by TEXT NOT NULL,
  n_wells INTEGER,
  started_s REAL,
  ended_s REAL,
  verdict TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE queue_run (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  goes_on INTEGER NOT NULL,
  why TEXT NOT NULL
) STRICT;
CREATE TABLE plate_ends (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  plate TEXT NOT NULL,
  began_s REAL NOT NULL,
  ended_s REAL NOT NULL,
  verdict TEXT NOT NULL,
  change INTEGER NOT NULL
) STRICT;
"""

_DETAIL = """
ALTER TABLE channel_quality ADD COLUMN detail REAL;
"""

MIGRATIONS: tuple[str, ...] = (
    _PLATES + _STACKS + _RESULTS + _RUN,
    _AUDIT,
    _STACK_QUALITY,
    CURVE_FITS,
    _REFERENCES,
    _FOCUS,
    "",  # the view of frames
    "",  # the column precision; `results` follows the list of columns, which an older program would leave as they were
    _STACK_ENDS,
    _FIELDS,
    _EVIDENCE,
    _ANNOTATIONS,
    _DIGESTS,
    _COUNTED,
    SIM_TABLES,
    _QUEUE,
    _DETAIL,
)
# Tables that a step fills from what was there: how a reader of an older catalog sees them.
_REREAD: Mapping[int, Mapping[str, str]] = {
    MIGRATIONS.index(_COUNTED): {"stacks": _STACKS_COUNTED},
    MIGRATIONS.index(_STACK_ENDS): {"stacks": f"SELECT one.*, {_N_ACKED} FROM ({_STACKS_BY_END}) AS one"},
}
_ADDED = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+)")
_SQL_TYPES: dict[Kind, str] = {
    "text": "TEXT",
    "integer": "INTEGER",
    "number": "REAL",
    "truth": "INTEGER",
    "list": "TEXT",
    "record": "TEXT",
}
# How each row stands, without its volumes by depth: a row is 6 kB, and a look at a plate reads every one.
_INDEXES: Mapping[str, str] = {
    "results_standing": "results (plate, well, stack, measured_s, status, trust, trust_flags, v_control)"
}
_OF_RESULTS = {
    "plate",
    "well",
    "stack",
    "live_um3_by_z_json",
    "limits_json",
    "quantiles_json",
    "cpu_s",
    "measured_s",
}
"""The columns of `results` that are no result columns by themselves."""


def migrate(connection: sqlite3.Connection, where: str) -> None:
    """Bring a catalog up to date, each step in one transaction with its number; ConfigError for a newer catalog."""
    check_version(connection, where)
    for number, script in enumerate(MIGRATIONS, start=1):
        with transaction(connection):
            if schema_version(connection) < number:  # asked inside: another process may have been quicker
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
    if _missing_columns(connection) or _other_views(connection) or _missing_indexes(connection):
        with transaction(connection):
            for column in _missing_columns(connection):
                connection.execute(f"ALTER TABLE results ADD COLUMN {column.name} {_SQL_TYPES[column.kind]}")
            for name, select in _other_views(connection).items():
                connection.execute(f"DROP VIEW IF EXISTS {name}")
                connection.execute(f"CREATE VIEW {name} AS {select}")
            for name in _missing_indexes(connection):
                connection.execute(f"CREATE INDEX {name} ON {_INDEXES[name]}")


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether a catalog's tables are those of this program."""
    return schema_version(connection) == len(MIGRATIONS) and not _missing_columns(connection)


def _missing_columns(connection: sqlite3.Connection) -> list[ResultColumn]:
    """Columns of the list that the table `results` has not got."""
    known = _columns_of_results(connection)
    return [column for column in STORED if column.name not in known]


def _missing_indexes(connection: sqlite3.Connection) -> list[str]:
    """Indexes over the columns of the list that the catalog has not got."""
    found = {row[0] for row in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'index'")}
    return [name for name in _INDEXES if name not in found]


def _columns_of_results(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM pragma_table_info('results', 'main')")}


def _other_views(connection: sqlite3.Connection) -> dict[str, str]:
    """Views that the catalog has not got, or with another text."""
    found = dict(connection.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'view'").fetchall())
    return {name: select for name, select in VIEWS.items() if found.get(name) != f"CREATE VIEW {name} AS {select}"}


def schema_version(connection: sqlite3.Connection) -> int:
    """How many steps a catalog has taken."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_version(connection: sqlite3.Connection, where: str) -> None:
    """ConfigError where the catalog was written by a newer program."""
    found = schema_version(connection)
    if found > len(MIGRATIONS):
        what = f"the catalog has schema {found}, this program knows up to {len(MIGRATIONS)}"
        raise ConfigError(what, where=where, do="use the newer spheroidd that wrote it")
    unknown = _columns_of_results(connection) - _OF_RESULTS - {column.name for column in STORED}
    if unknown:
        what = f"results have columns that this program does not know: {', '.join(sorted(unknown))}"
        raise ConfigError(what, where=where, do="use the newer spheroidd that wrote it")


def make_readable(connection: sqlite3.Connection, where: str) -> None:
    """Give a reader of an older catalog what later steps brought, empty, and for its own connection alone.

    A table that got more columns is hidden behind a view of the same name, in which they are NULL, or what the step
    would make of the older ones.

    ConfigError where its first table is not there yet: a daemon makes it at this moment, or was killed when it did.
    """
    version = schema_version(connection)
    if version == 0:
        do = "ask again in a moment; if no run goes on here, start it again"
        raise ConfigError("the catalog is being made and holds nothing yet", where=where, do=do)
    later = dict(enumerate(MIGRATIONS))
    later = {number: step for number, step in later.items() if number >= version}
    missing, views = _missing_columns(connection), _other_views(connection)
    # The earliest step that is missing says how a table is seen: it brings what the later ones do.
    sources = {t: f"({select})" for n in sorted(later, reverse=True) for t, select in _REREAD.get(n, {}).items()}
    if later or missing or views:
        connection.execute("PRAGMA temp_store = MEMORY")
    added = {"results": [column.name for column in missing]} if missing else {}
    for statement in (statement for step in later.values() for statement in _statements(step)):
        if statement.startswith(("CREATE TABLE", "CREATE VIEW")):
            connection.execute(statement.replace("CREATE ", "CREATE TEMP ", 1))
        elif (column := _ADDED.match(statement)) and column[1] not in sources:
            table = column[1]
            if connection.execute("SELECT 1 FROM main.sqlite_master WHERE name = ?", (table,)).fetchone() is None:
                connection.execute(statement)
            else:
                added.setdefault(table, []).append(column[2])
    for table in added.keys() | sources.keys():
        columns = ", ".join(["*", *(f"NULL AS {name}" for name in added.get(table, ()))])
        source = sources.get(table, f"main.{table}")
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {columns} FROM {source}")
    for name, select in views.items():
        connection.execute(f"CREATE TEMP VIEW {name} AS {select}")


def _statements(script: str) -> list[str]:
    """Split a script at the semicolons that end a statement (a trigger's body has some of its own)."""
    statements, pending = [], ""
    for line in script.strip().splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
