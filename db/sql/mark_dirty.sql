INSERT INTO outcome_window (version_id, day, dirty)
VALUES (:version_id, :day, true)
ON CONFLICT (version_id, day) DO UPDATE SET dirty = true
