-- The predictions of a version whose rows stand for a day (UTC), with their labels: that of the prediction itself before
-- that of its record key. Jobs that say what time they stand for are found by it, the others by when they were scored.
-- The labels are looked up one by one on purpose: the planner cannot know how many elements the arrays hold, and whatever
-- join it chooses for the ten that it expects may take hours for a million.
SELECT element.prediction, element.probability,
       COALESCE(
           (SELECT own.label FROM label AS own
            WHERE own.job_id = b.job_id
              AND own.row = COALESCE(element.row, b.first_row + CAST(element.place AS integer) - 1)),
           (SELECT keyed.label FROM label AS keyed
            WHERE keyed.model_id = :model_id AND keyed.record_key = element.record_key)
       ) AS label,
       COALESCE(job.as_of, b.scored_at) AS at
FROM prediction_block AS b
JOIN job ON job.id = b.job_id AND job.state <> 'receiving'
CROSS JOIN LATERAL unnest(b.rows, b.record_keys, b.predictions, b.probability)
    WITH ORDINALITY AS element (row, record_key, prediction, probability, place)
WHERE b.version_id = :version_id
  AND COALESCE(job.as_of, b.scored_at) >= CAST(:day AS date) AT TIME ZONE 'UTC'
  AND COALESCE(job.as_of, b.scored_at) < (CAST(:day AS date) + 1) AT TIME ZONE 'UTC'
