-- An event is given up: it is told, and is no longer in the way of what trims the stream.
--
-- KEYS 1: the stream. ARGV 1: the group  2: the entry, then the event that tells it, flat.

if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 1 then
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3, #ARGV))
end
return 1
