-- The reservations whose lease has run out, with the keys that closing them needs.
--
-- KEYS 1: leases.   ARGV 1: how many at most.   ARGV 2: prefix of the request hashes.
-- Returns a flat list: request id, file key, token key, open key, … ; a lease without its request is dropped.

local lapsed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', clock(), 'LIMIT', 0, ARGV[1])) do
  local row = redis.call('HMGET', ARGV[2] .. id, 'file', 'token', 'open')
  if row[1] then
    for _, text in ipairs({id, row[1], row[2], row[3]}) do lapsed[#lapsed + 1] = text end
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return lapsed
