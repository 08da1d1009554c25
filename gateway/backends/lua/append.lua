-- Writes an event that no other script writes.   KEYS 1: the stream   2: META.   ARGV: the event, flat, then shard.lua's.

add_event(KEYS[1], unpack(ARGV, 1, #ARGV - 2))
return done({'ok'})
