-- Fenced by the epoch: a claim that was rescued in the meantime updates nothing, and its whole transaction is undone.
UPDATE chunk
SET state = 'done', finished_at = now(), lease_until = NULL, rows_errored = done.errored
FROM unnest(CAST(:job_ids AS uuid[]), CAST(:numbers AS integer[]), CAST(:epochs AS integer[]),
            CAST(:errored AS integer[])) AS done (job_id, number, epoch, errored)
WHERE chunk.job_id = done.job_id
  AND chunk.number = done.number
  AND chunk.epoch = done.epoch
  AND chunk.state = 'running'
RETURNING chunk.job_id, chunk.number
