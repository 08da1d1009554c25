-- What a token has taken so far. KEYS 1: token   2: live.   ARGV: the sets whose slots are counted.
-- Returns the ms of its first charged transfer ('' for none), how many of its transfers are live, and each set's slots.

local standing = {redis.call('HGET', KEYS[1], 'first') or '',
                  redis.call('ZCOUNT', KEYS[2], '(' .. string.format('%.0f', math.floor(clock())), '+inf')}
for _, set in ipairs(ARGV) do
  standing[#standing + 1] = tonumber(redis.call('HGET', KEYS[1], 'n:' .. set) or '0')
end
return standing
