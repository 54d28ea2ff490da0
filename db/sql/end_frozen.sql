-- Of these sessions, end those of our own user that are in the middle of a command and whose next word the server waits for.
SELECT pid
FROM (
    SELECT pid
    FROM pg_stat_activity
    WHERE pid = ANY (CAST(:pids AS integer[]))
      AND usename = session_user
      AND state = 'active'
      AND wait_event = 'ClientRead'
      AND xact_start < now() - make_interval(secs => :seconds)
) AS frozen
WHERE pg_terminate_backend(pid)
