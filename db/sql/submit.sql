-- Jobs of a tenant that are there as a whole, and their chunks, in one statement; a job without chunks is over. Jobs whose
-- idempotency key is taken are left out, and their ids are not returned.
WITH wanted AS MATERIALIZED (
    SELECT *
    FROM json_to_recordset(CAST(:jobs AS json)) AS wanted (
        id uuid, version_id integer, kind text, lane text, priority smallint, format text, delimiter text, columns text[],
        key_column text, metadata jsonb, idempotency_key text, request_hash bytea, created_by text, as_of timestamptz,
        endpoint text, rows integer, chunks integer, bytes bigint
    )
), accepted AS (
    INSERT INTO job (id, tenant, version_id, kind, lane, priority, state, format, delimiter, columns, key_column, metadata,
                     idempotency_key, request_hash, created_by, as_of, endpoint, rows_total, chunks_total, chunks_left,
                     bytes_stored, finished_at)
    SELECT id, :tenant, version_id, kind, lane, priority, CASE WHEN chunks > 0 THEN 'queued' ELSE 'succeeded' END, format,
           delimiter, columns, key_column, metadata, idempotency_key, request_hash, created_by, as_of, endpoint, rows, chunks,
           chunks, bytes, CASE WHEN chunks = 0 THEN now() END
    FROM wanted
    ON CONFLICT (tenant, idempotency_key) DO NOTHING
    RETURNING id, lane, priority, version_id
), stored AS (
    INSERT INTO chunk (job_id, number, tenant, lane, priority, version_id, first_row, rows, first_line, payload)
    SELECT accepted.id, piece.number, :tenant, accepted.lane, accepted.priority, accepted.version_id, piece.first_row,
           piece.rows, piece.first_line, piece.payload
    FROM accepted
    JOIN unnest(CAST(:job_ids AS uuid[]), CAST(:numbers AS integer[]), CAST(:first_rows AS integer[]),
                CAST(:rows AS integer[]), CAST(:first_lines AS bigint[]), CAST(:payloads AS bytea[]))
         AS piece (job_id, number, first_row, rows, first_line, payload) ON piece.job_id = accepted.id
)
SELECT id FROM accepted
