-- Count what a job takes of its tenant's quotas, and say what is used now. The tenant's row is the lock: whoever comes
-- second waits for the first to commit or to roll back, so what is returned is exact. It is the last lock of its
-- transaction, held for no longer than a commit takes; the row of the day is only reached through it.
WITH one AS (
    SELECT tenant, (created_at AT TIME ZONE 'UTC')::date AS day FROM job WHERE id = :job_id
),
total AS (
    INSERT INTO tenant_usage AS usage (tenant, jobs_open, bytes_stored)
    SELECT tenant, :jobs, :bytes FROM one
    ON CONFLICT (tenant) DO UPDATE
    SET jobs_open = usage.jobs_open + :jobs, bytes_stored = usage.bytes_stored + :bytes
    RETURNING jobs_open, bytes_stored
),
today AS (
    INSERT INTO tenant_day AS counted (tenant, day, rows)
    SELECT one.tenant, one.day, :rows FROM one, total
    ON CONFLICT (tenant, day) DO UPDATE SET rows = counted.rows + :rows
    RETURNING rows
)
SELECT total.jobs_open, total.bytes_stored, today.rows AS rows_per_day FROM total, today
