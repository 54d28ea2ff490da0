-- find_key
-- The blocks that hold a record key, as in predictions_of_key.sql, added to `hit`. Filters are asked in a step of their own,
-- and the keys of a block that passed in another: else the planner has all keys read first where most blocks are short.
WITH passed AS MATERIALIZED (
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
INSERT INTO hit (record_key, job_id, first_row)
SELECT CAST(:key AS text), job_id, first_row
FROM prediction_block
WHERE version_id = ANY (CAST(:version_ids AS integer[]))
  AND key_filter IS NULL
  AND record_keys @> ARRAY[CAST(:key AS text)]
UNION ALL
SELECT CAST(:key AS text), job_id, first_row
FROM passed
CROSS JOIN LATERAL (
    SELECT b.record_keys
    FROM prediction_block AS b
    WHERE b.job_id = passed.job_id AND b.first_row = passed.first_row
    OFFSET 0
) AS block
WHERE CAST(:key AS text) = ANY (block.record_keys)
