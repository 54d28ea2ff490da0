-- Which of the staged labels have their prediction, and which days (UTC, of what the rows stand for) that changes.
WITH found AS MATERIALIZED (
    SELECT DISTINCT hit.record_key, CAST(NULL AS uuid) AS job_id, CAST(NULL AS integer) AS row, b.version_id,
           CAST(COALESCE(job.as_of, b.scored_at) AT TIME ZONE 'UTC' AS date) AS day
    FROM hit
    JOIN prediction_block AS b USING (job_id, first_row)
    JOIN job ON job.id = b.job_id AND job.state <> 'receiving'
    UNION ALL
    SELECT DISTINCT CAST(NULL AS text), i.job_id, i.row, b.version_id,
           CAST(COALESCE(job.as_of, b.scored_at) AT TIME ZONE 'UTC' AS date)
    FROM (SELECT DISTINCT job_id, row FROM incoming WHERE job_id IS NOT NULL) AS i
    JOIN job ON job.id = i.job_id AND job.tenant = :tenant AND job.state <> 'receiving'
    JOIN LATERAL (
        SELECT * FROM prediction_block AS b
        WHERE b.job_id = i.job_id AND b.first_row <= i.row AND b.version_id = ANY (CAST(:version_ids AS integer[]))
        ORDER BY b.first_row DESC
        LIMIT 1
    ) AS b ON CASE WHEN b.rows IS NULL THEN i.row < b.first_row + cardinality(b.predictions) ELSE i.row = ANY (b.rows) END
),
marked AS (
    INSERT INTO outcome_window (version_id, day, dirty)
    SELECT DISTINCT version_id, day, true FROM found ORDER BY 1, 2
    ON CONFLICT (version_id, day) DO UPDATE SET dirty = true
    RETURNING 1
),
targets AS (
    SELECT DISTINCT record_key, job_id, row FROM found
)
SELECT (SELECT count(*) FROM targets) AS matched, (SELECT count(*) FROM marked) AS dirty
