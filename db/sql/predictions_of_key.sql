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
SELECT prediction.*
FROM block
JOIN LATERAL (
    SELECT b.job_id, COALESCE(u.row, b.first_row + CAST(u.place AS integer) - 1) AS row, b.version_id, u.record_key,
           u.prediction, u.probability, b.scored_at
    FROM prediction_block AS b,
         unnest(b.rows, b.record_keys, b.predictions, b.probability)
             WITH ORDINALITY AS u (row, record_key, prediction, probability, place)
    WHERE b.job_id = block.job_id AND b.first_row = block.first_row AND u.record_key = :key
) AS prediction ON true
ORDER BY job_id DESC, row DESC
LIMIT :limit
