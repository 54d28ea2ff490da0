-- The blocks that hold a record key, as in predictions_of_key.sql, added to `hit`.
INSERT INTO hit (record_key, job_id, first_row)
SELECT CAST(:key AS text), job_id, first_row
FROM prediction_block
WHERE version_id = ANY (CAST(:version_ids AS integer[]))
  AND key_filter IS NULL
  AND record_keys @> ARRAY[CAST(:key AS text)]
UNION ALL
SELECT CAST(:key AS text), job_id, first_row
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
  AND CAST(:key AS text) = ANY (record_keys)
