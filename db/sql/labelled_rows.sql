-- labelled_rows
-- The rows of some chunks that have a label: that of the prediction itself before that of its record key. Rows that were not
-- scored have no prediction and do not occur. A chunk that a rescue cut in two has one block for each half.
SELECT wanted.job_id, wanted.number, predicted.row, predicted.record_key, labelled.label
FROM unnest(
    CAST(:job_ids AS uuid[]), CAST(:numbers AS integer[]), CAST(:first_rows AS integer[]), CAST(:ends AS integer[])
) AS wanted (job_id, number, first_row, "end")
JOIN prediction_block AS b
  ON b.job_id = wanted.job_id AND b.first_row >= wanted.first_row AND b.first_row < wanted."end"
CROSS JOIN LATERAL (
    SELECT COALESCE(element.row, b.first_row + CAST(element.place AS integer) - 1) AS row, element.record_key
    FROM unnest(b.rows, b.record_keys, b.predictions) WITH ORDINALITY AS element (row, record_key, prediction, place)
) AS predicted
CROSS JOIN LATERAL (
    SELECT COALESCE(
        (SELECT own.label FROM label AS own
         WHERE own.model_id = :model_id AND own.job_id = b.job_id AND own.row = predicted.row),
        (SELECT keyed.label FROM label AS keyed
         WHERE keyed.model_id = :model_id AND keyed.record_key = predicted.record_key)
    ) AS label
) AS labelled
WHERE labelled.label IS NOT NULL
ORDER BY wanted.job_id, wanted.number, predicted.row
