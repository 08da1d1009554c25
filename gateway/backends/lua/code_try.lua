-- Counts a try of a code before anybody sees whether it was right, so that tries at once are as many as one by one.
--
-- KEYS 1: the code.   ARGV 1: tries at most.   Returns its hash and the tries that are left, or nothing.

local code = redis.call('HGET', KEYS[1], 'code')
if not code then return {} end
local left = tonumber(ARGV[1]) - redis.call('HINCRBY', KEYS[1], 'tries', 1)
if left < 0 then
  redis.call('DEL', KEYS[1])
  return {}
end
return {code, left}
