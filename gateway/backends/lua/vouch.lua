-- Everything of a dead worker has been handed in, for this closing.
--
-- KEYS 1: META   2: MET (see meet.lua).   ARGV 1: worker   2: the closing.   Returns 1, or 0 where it is another by now.

if redis.call('HGET', KEYS[1], 'closing') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f 1', math.floor(clock())))
return 1
