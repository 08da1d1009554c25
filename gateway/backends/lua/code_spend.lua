-- Forgets a code that was right, once.   KEYS 1: the code.   ARGV 1: its hash.   Returns 1 for who was first, else 0.

if redis.call('HGET', KEYS[1], 'code') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
