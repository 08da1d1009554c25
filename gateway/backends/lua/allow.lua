-- One more of something that may be had so often in so long, counted by all workers of all hosts.
-- KEYS: a counter for each limit. ARGV: what is added (1, or -1 to give back), then the limit and the seconds of each.
-- Returns the seconds until there is one again, 0 where it was taken.

if tonumber(ARGV[1]) < 0 then
  for _, key in ipairs(KEYS) do
    if tonumber(redis.call('GET', key) or '0') > 0 then
      redis.call('DECR', key)
    end
  end
  return 0
end

local wait = 0
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[2 * i]) then
    wait = math.max(wait, redis.call('TTL', key), 1)
  end
end
if wait > 0 then
  return wait
end
for i, key in ipairs(KEYS) do
  if redis.call('INCR', key) == 1 then
    redis.call('EXPIRE', key, ARGV[2 * i + 1])
  end
end
return 0
