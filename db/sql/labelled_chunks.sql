-- labelled_chunks
-- The chunks of some versions that were done on days with labels, and still have inputs, newest first: without them. `at` is the time
-- that their rows stand for, `received` when their job was submitted.
SELECT c.job_id, c.number, c.version_id, c.first_row, c.rows, COALESCE(job.as_of, c.finished_at) AS at,
       job.created_at AS received
FROM chunk AS c
JOIN job ON job.id = c.job_id AND job.state <> 'receiving' AND job.endpoint <> 'validation' AND job.inputs_removed_at IS NULL
JOIN outcome_window AS o
  ON o.version_id = c.version_id
 AND o.day = CAST(COALESCE(job.as_of, c.finished_at) AT TIME ZONE 'UTC' AS date)
 AND (o.dirty OR o.labelled > 0)
WHERE c.version_id = ANY (CAST(:version_ids AS integer[]))
  AND c.state = 'done'
  AND c.finished_at >= now() - make_interval(days => :max_age_days) -- no chunk is done before its job is there
  AND job.created_at >= now() - make_interval(days => :max_age_days)
ORDER BY at DESC, c.job_id DESC, c.number DESC
LIMIT :limit
