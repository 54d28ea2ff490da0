-- labelled_predictions
-- The predictions of a version whose rows stand for a day (UTC), with their labels: that of the prediction itself before
-- that of its record key. Jobs that say what time they stand for are found by it, the others by when they were scored.
-- The labels are looked up one by one on purpose: the planner cannot know how many elements the arrays hold, and the join
-- that it would choose for the few that it expects may take hours for a million.
-- `before` bounds the ids of jobs that can have been scored by then, so that younger partitions are not read.
-- `db.labels` puts in what the probability is: of the positive class, or of the label where there are more than two classes.
SELECT element.prediction, {probability} AS probability, truth.label, b.at
FROM (
    SELECT b.job_id, b.first_row, b.rows, b.record_keys, b.predictions, b.probability, b.probabilities, job.as_of AS at
    FROM job
    JOIN prediction_block AS b ON b.job_id = job.id
    WHERE job.version_id = :version_id
      AND job.as_of >= CAST(:day AS date) AT TIME ZONE 'UTC'
      AND job.as_of < (CAST(:day AS date) + 1) AT TIME ZONE 'UTC'
      AND job.state <> 'receiving'
    UNION ALL
    SELECT b.job_id, b.first_row, b.rows, b.record_keys, b.predictions, b.probability, b.probabilities, b.scored_at
    FROM prediction_block AS b
    JOIN job ON job.id = b.job_id AND job.as_of IS NULL AND job.state <> 'receiving' AND job.endpoint <> 'validation'
    WHERE b.version_id = :version_id
      AND b.scored_at >= CAST(:day AS date) AT TIME ZONE 'UTC'
      AND b.scored_at < (CAST(:day AS date) + 1) AT TIME ZONE 'UTC'
      AND b.job_id < CAST(:before AS uuid)
) AS b
CROSS JOIN LATERAL unnest(b.rows, b.record_keys, b.predictions, {arrays})
    WITH ORDINALITY AS element (row, record_key, prediction, {names}, place)
CROSS JOIN LATERAL (
    SELECT COALESCE(
        (SELECT own.label FROM label AS own
         WHERE own.model_id = :model_id
           AND own.job_id = b.job_id
           AND own.row = COALESCE(element.row, b.first_row + CAST(element.place AS integer) - 1)),
        (SELECT keyed.label FROM label AS keyed
         WHERE keyed.model_id = :model_id AND keyed.record_key = element.record_key)
    ) AS label
    OFFSET 0
) AS truth
