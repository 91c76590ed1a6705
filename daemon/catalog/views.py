"""What people and programs read with plain SQL (Datasette, DB Browser, R): units in the names, NULL for the unknown.

docs/schema.md explains every column. `curve_fits` is the only table here: SQL cannot fit a curve, so each export keeps
what it fitted, and `curves_view` says where a later result or exclusion has made that outdated.
"""


def _wells_view(more: str = "") -> str:
    """The view of wells, with `more` columns after those of its first version."""
    return f"""
CREATE VIEW wells_view AS
  SELECT wells.plate, wells.well, coalesce(stacks.stack, 0) AS stack, wells.role, wells.compound, wells.dose_um,
    wells.patient, coalesce(results.status, stacks.state, 'queued') AS status,
    CASE WHEN results.status IS NOT NULL THEN results.reason ELSE coalesce(stacks.reason,
      CASE coalesce(stacks.state, 'queued') WHEN 'queued' THEN 'not imaged yet'
        WHEN 'acquiring' THEN 'its slices are arriving' WHEN 'stored' THEN 'waits for the model'
        WHEN 'scoring' THEN 'the model is at work' END) END AS reason,
    excluded_wells.plate IS NOT NULL AS excluded, excluded_wells.exclusion_reason, excluded_wells.excluded_by,
    excluded_wells.excluded_at_utc, coalesce(stacks.n_slices, 0) AS n_slices_expected,
    (SELECT count(*) FROM slices WHERE slices.plate = stacks.plate AND slices.well = stacks.well
      AND slices.stack = stacks.stack) AS n_slices_acked,
    results.live_um3, results.dead_um3, results.n_live, results.n_dead, results.v_count AS v_count_fraction,
    results.v_control AS v_control_percent, results.v_score AS v_score_percent,
    results.v_score_lo AS v_score_lo_percent, results.v_score_hi AS v_score_hi_percent,
    results.normalisation, {more}results.model_sha256, results.latency_s,
    json_extract(stacks.plan_json, '$.n_z') AS n_z, json_extract(stacks.plan_json, '$.height') AS height_px,
    json_extract(stacks.plan_json, '$.width') AS width_px, json_extract(stacks.plan_json, '$.pixel_um') AS pixel_um,
    json_extract(stacks.plan_json, '$.z_step_um') AS z_step_um,
    strftime('%Y-%m-%dT%H:%M:%fZ', stacks.opened_s, 'unixepoch') AS opened_at_utc,
    strftime('%Y-%m-%dT%H:%M:%fZ', stacks.last_acked_s, 'unixepoch') AS last_slice_at_utc,
    strftime('%Y-%m-%dT%H:%M:%fZ', results.measured_s, 'unixepoch') AS measured_at_utc
  FROM plates JOIN wells USING (plate) LEFT JOIN stacks USING (plate, well)
  LEFT JOIN results ON results.plate = stacks.plate AND results.well = stacks.well AND results.stack = stacks.stack
    AND stacks.state = 'scored' AND results.model_sha256 = (SELECT latest.model_sha256 FROM results AS latest
      WHERE latest.plate = stacks.plate AND latest.well = stacks.well AND latest.stack = stacks.stack
      ORDER BY latest.measured_s DESC, latest.model_sha256 LIMIT 1)
  LEFT JOIN excluded_wells ON excluded_wells.plate = wells.plate AND excluded_wells.well = wells.well
  WHERE wells.role <> 'empty'
  ORDER BY plates.created_s, wells.plate, wells.ordinal, stacks.stack;
"""


VIEWS = f"""
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
CREATE VIEW curves_view AS
  SELECT curve_fits.plate, patient, compound, metric, status, curve_fits.reason, model,
    ic50_rel_um, ic50_rel_lo_um, ic50_rel_hi_um, ic50_abs_um, ic50_abs_lo_um, ic50_abs_hi_um, hill, top, bottom, auc,
    e_max, n, p_effect, audit.at_utc AS fitted_at_utc,
    EXISTS (SELECT 1 FROM audit AS later WHERE later.plate = curve_fits.plate AND later.seq > curve_fits.audit_seq
      AND later.action IN ('result new', 'result changed', 'well excluded', 'well included')) AS outdated
  FROM curve_fits LEFT JOIN audit ON audit.seq = curve_fits.audit_seq;
{_wells_view().strip()}
CREATE VIEW doses_view AS
  SELECT plate, patient, compound, dose_um, count(v_control_percent) AS n_with_v_control,
    avg(v_control_percent) AS mean_v_control_percent, min(v_control_percent) AS min_v_control_percent,
    max(v_control_percent) AS max_v_control_percent, avg(v_count_fraction) AS mean_v_count_fraction
  FROM wells_view WHERE role = 'sample' AND NOT excluded GROUP BY plate, patient, compound, dose_um;
CREATE VIEW plates_view AS
  SELECT plate, strftime('%Y-%m-%dT%H:%M:%fZ', created_s, 'unixepoch') AS registered_at_utc,
    (SELECT count(*) FROM wells WHERE wells.plate = plates.plate AND role <> 'empty') AS n_wells,
    (SELECT count(DISTINCT well) FROM results WHERE results.plate = plates.plate) AS n_wells_measured,
    (SELECT count(*) FROM excluded_wells WHERE excluded_wells.plate = plates.plate) AS n_wells_excluded,
    limits_json IS NOT NULL AS limits_locked
  FROM plates ORDER BY created_s, plate;
CREATE VIEW audit_view AS
  SELECT seq, at_utc, who, action, plate, well, reason, old_json, new_json, sha256 FROM audit ORDER BY seq;
"""

# One row an image, as the instrument said it was taken. Each key of the metadata is kept in metadata_json; those that
# most sources give have a column.
FRAMES_VIEW = """
CREATE VIEW frames_view AS
  SELECT plate, well, stack, channel, z,
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
  FROM slices;
"""

# What the network computed in; NULL in rows of before, which did not note it.
PRECISION = f"""
ALTER TABLE results ADD COLUMN precision TEXT;
DROP VIEW wells_view;
{_wells_view("results.precision, ").strip()}
"""
