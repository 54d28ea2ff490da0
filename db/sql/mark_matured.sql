-- mark_matured
-- Days that were over a horizon ago and were not counted since: a row without a label now means the negative one.
INSERT INTO outcome_window (version_id, day, dirty)
SELECT DISTINCT version_id, CAST(start AT TIME ZONE 'UTC' AS date) AS day, true
FROM profile_window
WHERE version_id = :version_id
  AND CAST(start AT TIME ZONE 'UTC' AS date) + 1 + CAST(:horizon_days AS integer) <= now() AT TIME ZONE 'UTC'
ORDER BY day
ON CONFLICT (version_id, day) DO UPDATE SET dirty = true
WHERE NOT outcome_window.dirty
  AND (outcome_window.computed_at IS NULL
       OR outcome_window.computed_at AT TIME ZONE 'UTC' < outcome_window.day + 1 + CAST(:horizon_days AS integer))
