-- The endpoint answers again: what waits for its next try is due now, oldest first.
--
-- KEYS 1: the stream. ARGV 1: the group  2: how long an entry that is due is idle (ms)  3: how many at most.

local waiting = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3], 'waiting')
if waiting.err then return 0 end
for _, entry in ipairs(waiting) do
  redis.call('XCLAIM', KEYS[1], ARGV[1], 'waiting', 0, entry[1], 'IDLE', ARGV[2], 'JUSTID')
end
return #waiting
