-- Which of the staged labels have their prediction, and which days (UTC, of what the rows stand for) that changes.
-- Each block is looked at once, however many labels are about its predictions.
WITH placed AS (
    SELECT i.job_id, i.row,
           (SELECT max(b.first_row) FROM prediction_block AS b WHERE b.job_id = i.job_id AND b.first_row <= i.row) AS first_row
    FROM (SELECT DISTINCT job_id, row FROM incoming WHERE job_id IS NOT NULL) AS i
),
single AS MATERIALIZED (
    SELECT job_id, first_row, array_agg(row) AS rows FROM placed GROUP BY job_id, first_row
),
block AS MATERIALIZED (
    SELECT b.job_id, b.first_row, b.version_id, CAST(COALESCE(job.as_of, b.scored_at) AT TIME ZONE 'UTC' AS date) AS day,
           b.rows, b.first_row + cardinality(b.predictions) AS past_row
    FROM (SELECT job_id, first_row FROM hit UNION SELECT job_id, first_row FROM single) AS wanted
    JOIN prediction_block AS b USING (job_id, first_row)
    JOIN job ON job.id = b.job_id AND job.tenant = :tenant AND job.state <> 'receiving'
    WHERE b.version_id = ANY (CAST(:version_ids AS integer[]))
),
matched AS MATERIALIZED (
    SELECT block.version_id, block.day,
           CASE WHEN block.rows IS NULL
                THEN (SELECT count(*) FROM unnest(single.rows) AS row WHERE row < block.past_row)
                ELSE (SELECT count(*) FROM (SELECT unnest(single.rows) INTERSECT SELECT unnest(block.rows)) AS both_have)
           END AS labels
    FROM single
    JOIN block USING (job_id, first_row)
),
marked AS (
    INSERT INTO outcome_window (version_id, day, dirty)
    SELECT version_id, day, true FROM hit JOIN block USING (job_id, first_row)
    UNION
    SELECT version_id, day, true FROM matched WHERE labels > 0
    ORDER BY 1, 2
    ON CONFLICT (version_id, day) DO UPDATE SET dirty = true
    RETURNING 1
)
SELECT (SELECT count(*) FROM (SELECT DISTINCT record_key FROM hit JOIN block USING (job_id, first_row)) AS matched_key)
       + (SELECT COALESCE(sum(labels), 0) FROM matched) AS matched,
       (SELECT count(*) FROM marked) AS dirty
