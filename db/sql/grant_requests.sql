-- Take up to :wanted requests out of a tenant's bucket, which fills at :rate per second up to :burst. One row, one lock,
-- the database's clock: what all processes are granted together never exceeds :burst + :rate x seconds.
-- Not flushed to disk: after a crash a bucket is full, and that is all.
SET LOCAL synchronous_commit = off;
INSERT INTO tenant_rate AS bucket (tenant, tokens, granted, at)
VALUES (:tenant, :burst - LEAST(:wanted, :burst), LEAST(:wanted, :burst), clock_timestamp())
ON CONFLICT (tenant) DO UPDATE
SET (tokens, granted, at) = (
    SELECT filled.tokens - granting.number, granting.number, clock_timestamp()
    FROM (
        SELECT LEAST(
            CAST(:burst AS double precision),
            bucket.tokens + :rate * GREATEST(EXTRACT(epoch FROM clock_timestamp() - bucket.at), 0)
        ) AS tokens
    ) AS filled,
    LATERAL (SELECT CAST(LEAST(:wanted, GREATEST(floor(filled.tokens), 0)) AS integer) AS number) AS granting
)
RETURNING granted, tokens
