-- Take the next chunks of a lane. The order is the fairness. Between tenants a lot is drawn at each claim: with n of them
-- waiting, whoever they are and however much each has queued, each has the first turn in one claim of n. Within a tenant:
-- by priority, then round robin over jobs, because every job's first chunk comes before any job's second. now() and not
-- clock_timestamp(), which cannot use the index.
-- Suspects, chunks that were in a worker's hands when it died, are claimed alone: if one kills again, nothing else dies.
WITH RECURSIVE queued AS NOT MATERIALIZED (
    SELECT tenant
    FROM chunk
    WHERE lane = :lane AND state = 'queued' AND CASE WHEN :suspects THEN crashes > 0 ELSE crashes = 0 END
),
waiting AS (
    -- From one tenant to the next by the index, however many chunks each has.
    (SELECT tenant FROM queued ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant FROM queued WHERE tenant > waiting.tenant ORDER BY tenant LIMIT 1)
    FROM waiting
    WHERE waiting.tenant IS NOT NULL
),
turn AS MATERIALIZED (
    SELECT tenant FROM waiting WHERE tenant IS NOT NULL ORDER BY random()
),
next AS MATERIALIZED (
    SELECT taken.job_id, taken.number
    FROM turn
    CROSS JOIN LATERAL (
        SELECT job_id, number
        FROM chunk
        WHERE lane = :lane
          AND state = 'queued'
          AND CASE WHEN :suspects THEN crashes > 0 ELSE crashes = 0 END
          AND tenant = turn.tenant
          AND not_before <= now()
          AND version_id <> ALL (CAST(:refused AS integer[]))
        ORDER BY priority, number, job_id
        LIMIT (SELECT ceil(:count / greatest(count(*), 1)::float) FROM turn)
        FOR UPDATE SKIP LOCKED
    ) AS taken
    LIMIT :count
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
