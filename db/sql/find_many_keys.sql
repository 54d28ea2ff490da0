-- The blocks that hold any of the staged keys: each block of the model is read once, and joined by hash.
INSERT INTO hit (record_key, job_id, first_row)
SELECT element.record_key, b.job_id, b.first_row
FROM prediction_block AS b
CROSS JOIN LATERAL unnest(b.record_keys) AS element (record_key)
WHERE b.version_id = ANY (CAST(:version_ids AS integer[]))
  AND element.record_key IN (SELECT record_key FROM incoming)
