-- The upload is complete: from here on the job is visible. Its chunks may have been scored already, even all of them.
-- An upload whose lease is over may be in the hands of the sweep, which would remove chunks of a job that is sealed here.
UPDATE job
SET rows_total = :rows,
    chunks_total = chunks_total + :chunks,
    chunks_left = chunks_left + :chunks,
    request_hash = COALESCE(CAST(:request_hash AS bytea), request_hash),
    upload_lease_until = NULL,
    state = CASE
        WHEN chunks_left + :chunks > 0 THEN CASE WHEN started_at IS NULL THEN 'queued' ELSE 'running' END
        WHEN rows_errored = 0 THEN 'succeeded'
        WHEN rows_succeeded = 0 THEN 'failed'
        ELSE 'completed_with_errors'
    END,
    error = CASE WHEN chunks_left + :chunks = 0 AND rows_succeeded = 0 AND rows_errored > 0
                 THEN 'every row errored; see the job''s errors' END,
    finished_at = CASE WHEN chunks_left + :chunks = 0 THEN now() END
WHERE id = :job_id AND state = 'receiving' AND upload_lease_until > now()
RETURNING state, tenant, bytes_stored
