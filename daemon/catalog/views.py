"""What people and programs read with plain SQL (Datasette, DB Browser, R): units in the names, NULL for the unknown.

docs/schema.md explains every column. `curve_fits` is the only table here: SQL cannot fit a curve, so each export keeps
what it fitted, and `curves_view` says where a later result or exclusion has made that outdated. A view is no step of
the schema: it is made anew wherever a catalog has another text of it.
"""

from spheroidd.daemon.catalog.current_stacks import VIEWS as CURRENT_STACKS
from spheroidd.protocols.result_columns import COLUMNS, STORED, ResultColumn

CURVE_FITS = """
CREATE TABLE curve_fits (
  plate TEXT NOT NULL REFERENCES plates,
  patient TEXT,
  compound TEXT NOT NULL,
  metric TEXT NOT NULL,
  status TEXT NOT NULL,
  reason TEXT NOT NULL,
  model TEXT NOT NULL,
  ic50_rel_um REAL,
  ic50_rel_lo_um REAL,
  ic50_rel_hi_um REAL,
  ic50_abs_um REAL,
  ic50_abs_lo_um REAL,
  ic50_abs_hi_um REAL,
  hill REAL,
  top REAL,
  bottom REAL,
  auc REAL,
  e_max REAL,
  n INTEGER NOT NULL,
  p_effect REAL,
  audit_seq INTEGER NOT NULL
) STRICT;
CREATE INDEX curve_fits_of_plate ON curve_fits (plate, metric);
"""

_EXPRESSIONS = {
    "stack": "coalesce(stacks.stack, 0)",
    "status": """coalesce(results.status, CASE stacks.ended WHEN 'short' THEN 'incomplete' ELSE stacks.ended END,
      stacks.state, 'queued')""",
    "reason": """CASE WHEN results.status IS NOT NULL THEN results.reason
      ELSE coalesce(stacks.reason || coalesce('; ' || stacks.todo, ''),
      CASE coalesce(stacks.state, 'queued') WHEN 'queued' THEN 'not imaged yet'
        WHEN 'acquiring' THEN 'its slices are arriving' WHEN 'stored' THEN 'waits for the model'
        WHEN 'scoring' THEN 'the model is at work' END) END""",
    "annotations": "wells.annotations_json",
    "excluded": "excluded_wells.plate IS NOT NULL OR excluded_stacks.plate IS NOT NULL",
    "exclusion_reason": """coalesce(excluded_wells.exclusion_reason,
      'stack ' || excluded_stacks.stack || ': ' || excluded_stacks.exclusion_reason)""",
    "excluded_by": "coalesce(excluded_wells.excluded_by, excluded_stacks.excluded_by)",
    "excluded_at_utc": "coalesce(excluded_wells.excluded_at_utc, excluded_stacks.excluded_at_utc)",
    "n_slices_expected": "coalesce(stacks.n_slices, 0)",
    "n_slices_acked": "coalesce(stacks.n_acked, 0)",
    "n_z": "json_extract(stacks.plan_json, '$.n_z')",
    "height_px": "json_extract(stacks.plan_json, '$.height')",
    "width_px": "json_extract(stacks.plan_json, '$.width')",
    "pixel_um": "json_extract(stacks.plan_json, '$.pixel_um')",
    "z_step_um": "json_extract(stacks.plan_json, '$.z_step_um')",
    "opened_at_utc": "strftime('%Y-%m-%dT%H:%M:%fZ', stacks.opened_s, 'unixepoch')",
    "last_slice_at_utc": "strftime('%Y-%m-%dT%H:%M:%fZ', stacks.last_acked_s, 'unixepoch')",
    "measured_at_utc": "strftime('%Y-%m-%dT%H:%M:%fZ', results.measured_s, 'unixepoch')",
}


def _selected(column: ResultColumn) -> str:
    """A column of the list in `wells_view`: its own expression, or what the table of its origin holds by its name."""
    table = "results" if column in STORED else "wells"
    return f"{_EXPRESSIONS.get(column.name, f'{table}.{column.name}')} AS {column.export_name}"


VIEWS: dict[str, str] = {
    "curves_view": """
  SELECT curve_fits.plate, patient, compound, metric, status, curve_fits.reason, model,
    ic50_rel_um, ic50_rel_lo_um, ic50_rel_hi_um, ic50_abs_um, ic50_abs_lo_um, ic50_abs_hi_um, hill, top, bottom, auc,
    e_max, n, p_effect, audit.at_utc AS fitted_at_utc,
    EXISTS (SELECT 1 FROM audit AS later WHERE later.plate = curve_fits.plate AND later.seq > curve_fits.audit_seq
      AND later.action IN ('result new', 'result changed', 'well excluded', 'well included',
        'stack excluded', 'stack included', 'stack chosen', 'plate relabelled')) AS outdated
  FROM curve_fits LEFT JOIN audit ON audit.seq = curve_fits.audit_seq""",
    "wells_view": f"""
  SELECT {", ".join(map(_selected, COLUMNS))}
  FROM plates JOIN wells USING (plate)
  LEFT JOIN (SELECT stacks.* FROM stacks JOIN current_stacks USING (plate, well, stack)) AS stacks USING (plate, well)
  LEFT JOIN results ON results.plate = stacks.plate AND results.well = stacks.well AND results.stack = stacks.stack
    AND stacks.state = 'scored' AND results.model_sha256 = (SELECT latest.model_sha256 FROM results AS latest
      WHERE latest.plate = stacks.plate AND latest.well = stacks.well AND latest.stack = stacks.stack
      ORDER BY latest.measured_s DESC, latest.model_sha256 LIMIT 1)
  LEFT JOIN excluded_wells ON excluded_wells.plate = wells.plate AND excluded_wells.well = wells.well
  LEFT JOIN excluded_stacks ON excluded_stacks.plate = stacks.plate AND excluded_stacks.well = stacks.well
    AND excluded_stacks.stack = stacks.stack
  WHERE wells.role <> 'empty'
  ORDER BY plates.created_s, wells.plate, wells.ordinal, stacks.stack""",
    "doses_view": """
  SELECT plate, patient, compound, dose_um, count(v_control_percent) AS n_with_v_control,
    avg(v_control_percent) AS mean_v_control_percent, min(v_control_percent) AS min_v_control_percent,
    max(v_control_percent) AS max_v_control_percent, avg(v_count_fraction) AS mean_v_count_fraction
  FROM wells_view WHERE role = 'sample' AND NOT excluded
  GROUP BY plate, patient, compound, dose_um""",
    "plates_view": """
  SELECT plate, strftime('%Y-%m-%dT%H:%M:%fZ', created_s, 'unixepoch') AS registered_at_utc,
    (SELECT count(*) FROM wells WHERE wells.plate = plates.plate AND role <> 'empty') AS n_wells,
    (SELECT count(DISTINCT well) FROM results WHERE results.plate = plates.plate) AS n_wells_measured,
    (SELECT count(*) FROM excluded_wells WHERE excluded_wells.plate = plates.plate) AS n_wells_excluded,
    limits_json IS NOT NULL AS limits_locked
  FROM plates ORDER BY created_s, plate""",
    "audit_view": """
  SELECT seq, at_utc, who, action, plate, well, reason, old_json, new_json, sha256 FROM audit ORDER BY seq""",
    # One row an image, as the instrument said it was taken. Each key of the metadata is kept in metadata_json; those
    # that most sources give have a column.
    "frames_view": """
  SELECT plate, well, stack, channel,
    z / coalesce(json_extract(plan_json, '$.raw.n_angles') * json_extract(plan_json, '$.raw.n_phases'), 1) AS z,
    z / json_extract(plan_json, '$.raw.n_phases') % json_extract(plan_json, '$.raw.n_angles') AS angle,
    z % json_extract(plan_json, '$.raw.n_phases') AS phase,
    json_extract(metadata_json, '$.x_um') AS x_um, json_extract(metadata_json, '$.y_um') AS y_um,
    json_extract(metadata_json, '$.z_um') AS z_um, json_extract(metadata_json, '$.z_planned_um') AS z_planned_um,
    json_extract(metadata_json, '$.exposure_ms') AS exposure_ms, json_extract(metadata_json, '$.preset') AS preset,
    json_extract(metadata_json, '$.camera') AS camera,
    json_extract(metadata_json, '$.instrument_time') AS instrument_time,
    json_extract(metadata_json, '$.instrument_elapsed_s') AS instrument_elapsed_s,
    strftime('%Y-%m-%dT%H:%M:%fZ', acquired_s, 'unixepoch') AS acquired_at_utc,
    strftime('%Y-%m-%dT%H:%M:%fZ', json_extract(metadata_json, '$.host_time_s'), 'unixepoch') AS received_at_utc,
    strftime('%Y-%m-%dT%H:%M:%fZ', acked_s, 'unixepoch') AS acked_at_utc,
    crc32c, metadata_json
  FROM slices JOIN stacks USING (plate, well, stack)""",
}
VIEWS |= CURRENT_STACKS
"""Each view's SELECT by its name."""
