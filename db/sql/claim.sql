-- Take the next chunks of a lane. The order is the fairness: by priority, then round robin over jobs, because every
-- job's first chunk comes before any job's second. now() and not clock_timestamp(), which cannot use the index.
-- Suspects, chunks that were in a worker's hands when it died, are claimed alone: if one kills again, nothing else dies.
WITH next AS MATERIALIZED (
    SELECT job_id, number
    FROM chunk
    WHERE lane = :lane
      AND state = 'queued'
      AND not_before <= now()
      AND version_id <> ALL (CAST(:refused AS integer[]))
      AND CASE WHEN :suspects THEN crashes > 0 ELSE crashes = 0 END
    ORDER BY priority, number, job_id
    LIMIT :count
    FOR UPDATE SKIP LOCKED
)
UPDATE chunk
SET state = 'running',
    epoch = chunk.epoch + 1,
    owner = :owner,
    started_at = now(),
    lease_until = now() + make_interval(secs => :lease_seconds)
FROM next
JOIN job ON job.id = next.job_id
WHERE chunk.job_id = next.job_id
  AND chunk.number = next.number
RETURNING chunk.job_id, chunk.number, chunk.epoch, chunk.version_id, chunk.first_row, chunk.rows, chunk.first_line,
          chunk.payload, chunk.crashes, job.tenant, job.format, job.delimiter, job.columns, job.key_column, job.state,
          job.as_of, job.endpoint, EXTRACT(epoch FROM now() - job.created_at) AS waited
