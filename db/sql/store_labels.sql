-- The newest label of each target that was staged, put in where nothing newer is known.
WITH newest AS (
    SELECT DISTINCT ON (record_key, job_id, row) *
    FROM incoming
    ORDER BY record_key, job_id, row, observed_at DESC, place DESC
),
by_key AS (
    INSERT INTO label AS l (model_id, record_key, label, observed_at)
    SELECT :model_id, record_key, label, observed_at FROM newest WHERE record_key IS NOT NULL
    ORDER BY record_key
    ON CONFLICT (model_id, record_key) WHERE record_key IS NOT NULL
    DO UPDATE SET label = EXCLUDED.label, observed_at = EXCLUDED.observed_at, received_at = now()
    WHERE EXCLUDED.observed_at >= l.observed_at
    RETURNING xmax <> 0 AS replaced
),
by_prediction AS (
    INSERT INTO label AS l (model_id, job_id, row, label, observed_at)
    SELECT :model_id, newest.job_id, newest.row, label, observed_at
    FROM newest
    WHERE job_id IS NOT NULL
    ORDER BY job_id, row
    ON CONFLICT (job_id, row) WHERE job_id IS NOT NULL
    DO UPDATE SET label = EXCLUDED.label, observed_at = EXCLUDED.observed_at, received_at = now()
    WHERE EXCLUDED.observed_at >= l.observed_at AND l.model_id = EXCLUDED.model_id
    RETURNING xmax <> 0 AS replaced
),
kept AS (
    SELECT * FROM by_key UNION ALL SELECT * FROM by_prediction
)
SELECT (SELECT count(*) FROM newest) AS targets, count(*) AS kept, count(*) FILTER (WHERE replaced) AS replaced FROM kept
