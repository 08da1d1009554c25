-- Writes an event that several workers have to tell, once.
--
-- KEYS 1: what was told last of this subject   2: the stream.
-- ARGV 1: what is told now   2: for how long that is remembered (s), then the event, flat.
-- Returns 1 where this call wrote it.

if redis.call('GET', KEYS[1]) == ARGV[1] then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
-- Last: an event that could not be written is not told.
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
