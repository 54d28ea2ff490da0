-- The job's counters and, when its last chunk is done, its terminal state. A counter and not NOT EXISTS (unfinished):
-- two last chunks that commit together would each still see the other as unfinished.
-- Whoever waits for one that ended is told.
WITH counted AS (
    UPDATE job
    SET rows_succeeded = job.rows_succeeded + done.succeeded,
        rows_errored = job.rows_errored + done.errored,
        chunks_left = job.chunks_left - done.chunks,
        started_at = COALESCE(job.started_at, now()),
        state = CASE
            WHEN job.state = 'receiving' OR job.chunks_left > done.chunks THEN job.state
            WHEN job.rows_errored + done.errored = 0 THEN 'succeeded'
            WHEN job.rows_succeeded + done.succeeded = 0 THEN 'failed'
            ELSE 'completed_with_errors'
        END,
        error = CASE
            WHEN job.state <> 'receiving' AND job.chunks_left <= done.chunks AND job.rows_succeeded + done.succeeded = 0
            THEN 'every row errored; see the job''s errors'
        END,
        finished_at = CASE WHEN job.state <> 'receiving' AND job.chunks_left <= done.chunks THEN now() END
    FROM unnest(CAST(:job_ids AS uuid[]), CAST(:succeeded AS bigint[]), CAST(:errored AS bigint[]),
                CAST(:chunks AS integer[])) AS done (job_id, succeeded, errored, chunks)
    WHERE job.id = done.job_id
    RETURNING job.id, job.state, job.tenant, job.bytes_stored, job.finished_at
)
SELECT id, state, tenant, bytes_stored, CASE WHEN finished_at IS NOT NULL THEN pg_notify(:channel, CAST(id AS text)) END AS told
FROM counted
