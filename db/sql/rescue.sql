-- Claims whose lease is over, or whose owner is known to be dead, to be decided one by one under their locks.
SELECT chunk.job_id, chunk.number, chunk.epoch, chunk.rows, chunk.first_row, chunk.first_line, chunk.crashes,
       chunk.payload, chunk.version_id, job.format, job.delimiter, job.columns, job.key_column, job.as_of, job.endpoint
FROM chunk
JOIN job ON job.id = chunk.job_id
WHERE chunk.state = 'running'
  AND (chunk.lease_until < now() OR chunk.owner = ANY (CAST(:dead_owners AS text[])))
ORDER BY chunk.job_id, chunk.number
LIMIT 100
FOR UPDATE OF chunk SKIP LOCKED
