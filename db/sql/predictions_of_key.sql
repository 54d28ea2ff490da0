-- What a record was ever scored as, newest first. Small blocks have an entry per key in an index; of the others those
-- are opened whose filter does not rule the key out: 64 bytes of each are read (records/key_filter.py).
WITH block AS MATERIALIZED (
    SELECT job_id, first_row
    FROM prediction_block
    WHERE version_id = ANY (CAST(:version_ids AS integer[]))
      AND key_filter IS NULL
      AND record_keys @> ARRAY[CAST(:key AS text)]
    UNION ALL
    SELECT job_id, first_row
    FROM prediction_block,
         LATERAL substring(
             key_filter
             FROM CAST(CAST(:place AS bigint) % (octet_length(key_filter) / 64) AS integer) * 64 + 1
             FOR 64
         ) AS part
    WHERE version_id = ANY (CAST(:version_ids AS integer[]))
      AND key_filter IS NOT NULL
      AND get_bit(part, (CAST(:bits AS integer[]))[1]) = 1
      AND get_bit(part, (CAST(:bits AS integer[]))[2]) = 1
      AND get_bit(part, (CAST(:bits AS integer[]))[3]) = 1
      AND get_bit(part, (CAST(:bits AS integer[]))[4]) = 1
      AND get_bit(part, (CAST(:bits AS integer[]))[5]) = 1
      AND get_bit(part, (CAST(:bits AS integer[]))[6]) = 1
      AND get_bit(part, (CAST(:bits AS integer[]))[7]) = 1
)
SELECT b.job_id, COALESCE(b.rows[place], b.first_row + place - 1) AS row, b.version_id, b.record_keys[place] AS record_key,
       b.predictions[place] AS prediction, b.probability[place] AS probability, b.scored_at
FROM block
CROSS JOIN LATERAL (
    -- OFFSET: the planner expects more blocks than there are, and would rather read all than look up these.
    SELECT * FROM prediction_block AS b WHERE b.job_id = block.job_id AND b.first_row = block.first_row OFFSET 0
) AS b,
     unnest(array_positions(b.record_keys, CAST(:key AS text))) AS place
ORDER BY job_id DESC, row DESC
LIMIT :limit
