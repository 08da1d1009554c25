-- Writes an event that several workers have to tell, once.
--
-- KEYS 1: that it was told   2: the stream   3: META.
-- ARGV 1: for how long that is remembered (s), then the event, flat, then shard.lua's.
-- Returns {1} where this call wrote it, else {0}.

if redis.call('GET', KEYS[1]) then return done({0}) end
add_event(KEYS[2], unpack(ARGV, 2, #ARGV - 2))
-- Last: an event that could not be written is not told.
redis.call('SET', KEYS[1], '1', 'EX', ARGV[1])
return done({1})
