-- The reservations whose lease has run out, with the keys that closing them needs.
--
-- KEYS 1: leases.   ARGV 1: how many at most.   ARGV 2: prefix of the request hashes.
-- Returns a flat list: request id, its keys with a space between, … ; a lease without its request is dropped.

local lapsed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', math.floor(clock()), 'LIMIT', 0, ARGV[1])) do
  local keys = redis.call('HGET', ARGV[2] .. id, 'keys')
  if keys then
    lapsed[#lapsed + 1] = id; lapsed[#lapsed + 1] = keys
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return lapsed
