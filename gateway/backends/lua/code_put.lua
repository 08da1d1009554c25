-- Keeps the code of a device, unless too many were made of late.
--
-- KEYS 1: the code, then counters.   ARGV 1: its hash   2: its life (s), then of each counter: how many at most, in how
-- many seconds.   Returns 1 where it is kept, else 0.

for place = 2, #KEYS do
  if tonumber(redis.call('GET', KEYS[place]) or '0') >= tonumber(ARGV[2 * place - 1]) then return 0 end
end
for place = 2, #KEYS do
  if redis.call('INCR', KEYS[place]) == 1 then redis.call('EXPIRE', KEYS[place], ARGV[2 * place]) end
end
redis.call('HSET', KEYS[1], 'code', ARGV[1], 'tries', 0)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
