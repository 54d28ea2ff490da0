-- Which of the staged labels have their prediction, and which days (UTC, of what the rows stand for) that changes. A block is
-- unfolded once, however many labels of single predictions are about it.
WITH placed AS MATERIALIZED (
    SELECT i.job_id, i.row,
           (SELECT max(b.first_row) FROM prediction_block AS b WHERE b.job_id = i.job_id AND b.first_row <= i.row) AS first_row
    FROM (SELECT DISTINCT job_id, row FROM incoming WHERE job_id IS NOT NULL) AS i
),
hit_block AS MATERIALIZED (
    SELECT DISTINCT job_id, first_row FROM hit
),
placed_block AS MATERIALIZED (
    SELECT DISTINCT job_id, first_row FROM placed
),
block AS MATERIALIZED (
    SELECT b.job_id, b.first_row, b.version_id, CAST(COALESCE(job.as_of, b.scored_at) AT TIME ZONE 'UTC' AS date) AS day
    FROM (TABLE hit_block UNION TABLE placed_block) AS wanted
    JOIN prediction_block AS b USING (job_id, first_row)
    JOIN job ON job.id = b.job_id AND job.tenant = :tenant AND job.state <> 'receiving'
    WHERE b.version_id = ANY (CAST(:version_ids AS integer[]))
),
single AS MATERIALIZED (
    SELECT placed.job_id, placed.first_row
    FROM placed
    JOIN (
        SELECT b.job_id, b.first_row, COALESCE(element.row, b.first_row + CAST(element.place AS integer) - 1) AS row
        FROM placed_block
        JOIN block USING (job_id, first_row)
        JOIN prediction_block AS b USING (job_id, first_row)
        CROSS JOIN LATERAL unnest(b.rows, b.predictions) WITH ORDINALITY AS element (row, prediction, place)
    ) AS predicted USING (job_id, first_row, row)
),
marked AS (
    INSERT INTO outcome_window (version_id, day, dirty)
    SELECT DISTINCT version_id, day, true
    FROM (TABLE hit_block UNION SELECT job_id, first_row FROM single) AS changed
    JOIN block USING (job_id, first_row)
    ORDER BY 1, 2
    ON CONFLICT (version_id, day) DO UPDATE SET dirty = true
    RETURNING 1
)
SELECT (SELECT count(*) FROM (SELECT DISTINCT record_key FROM hit JOIN block USING (job_id, first_row)) AS matched_key)
       + (SELECT count(*) FROM single) AS matched,
       (SELECT count(*) FROM marked) AS dirty
