-- Count what a submission takes of its tenant's quotas, and say what is used now. The tenant's row is the lock: whoever
-- comes second waits for the first to commit or to roll back, so what is returned is exact. It is the last lock of its
-- transaction, held for no longer than a commit takes; the row of the day is only reached through it.
WITH total AS (
    INSERT INTO tenant_usage AS usage (tenant, jobs_open, bytes_stored)
    VALUES (:tenant, :jobs, :bytes)
    ON CONFLICT (tenant) DO UPDATE
    SET jobs_open = usage.jobs_open + :jobs, bytes_stored = usage.bytes_stored + :bytes
    RETURNING jobs_open, bytes_stored
)
INSERT INTO tenant_day AS counted (tenant, day, rows)
SELECT :tenant, COALESCE(CAST(:day AS date), current_date), :rows FROM total
ON CONFLICT (tenant, day) DO UPDATE SET rows = counted.rows + :rows
RETURNING
    day,
    rows AS rows_per_day,
    (SELECT jobs_open FROM total) AS jobs_open,
    (SELECT bytes_stored FROM total) AS bytes_stored
