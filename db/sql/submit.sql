-- A job that is there as a whole, and its chunks, in one statement; without chunks it is over. No row: its idempotency key is taken.
WITH accepted AS (
    INSERT INTO job (id, tenant, version_id, kind, lane, priority, state, format, delimiter, columns, key_column, metadata,
                     idempotency_key, request_hash, created_by, as_of, endpoint, rows_total, chunks_total, chunks_left,
                     bytes_stored, finished_at)
    SELECT :id, :tenant, :version_id, :kind, :lane, :priority, CASE WHEN :chunks > 0 THEN 'queued' ELSE 'succeeded' END,
           :format, :delimiter, CAST(:columns AS text[]), :key_column, CAST(:metadata AS jsonb), :idempotency_key,
           CAST(:request_hash AS bytea), :created_by, CAST(:as_of AS timestamptz), :endpoint, :rows, :chunks, :chunks,
           CAST(:bytes AS bigint), CASE WHEN :chunks = 0 THEN now() END
    ON CONFLICT (tenant, idempotency_key) DO NOTHING
    RETURNING id
), stored AS (
    INSERT INTO chunk (job_id, number, tenant, lane, priority, version_id, first_row, rows, first_line, payload)
    SELECT accepted.id, piece.place - 1, :tenant, :lane, :priority, :version_id, piece.first_row, piece.rows, piece.first_line,
           piece.payload
    FROM accepted
    CROSS JOIN unnest(CAST(:first_rows AS integer[]), CAST(:rows_of AS integer[]), CAST(:first_lines AS bigint[]),
                      CAST(:payloads AS bytea[])) WITH ORDINALITY AS piece (first_row, rows, first_line, payload, place)
)
SELECT id FROM accepted
