-- Whose transactions have locked chunks that could be rescued: the xmax of such a row is the transaction that holds it.
SELECT DISTINCT held.pid
FROM chunk
JOIN pg_locks AS held ON held.locktype = 'transactionid' AND held.transactionid = chunk.xmax AND held.granted
WHERE chunk.state = 'running'
  AND chunk.lease_until < now()
