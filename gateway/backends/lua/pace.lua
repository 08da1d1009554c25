-- Gives one request its next turn of the rate that all transfers of its token share: one schedule in time (GCRA's
-- virtual scheduling), in which each turn takes as long as its bytes are worth. It is asked again when it has sent
-- them, so a slow reader's turns fall to the others.
--
-- What it writes is worth nothing after a second, so none of it is kept.
--
-- KEYS as in ledger.lua.   ARGV 1: request id   2: rate (bytes/s, at least 1)
-- Returns {bytes, wait in microseconds}, or {'gone'} where the request was closed before.

local TOKEN, STREAMS, REQUEST = KEYS[2], KEYS[5], KEYS[6]
local ROUND = 200        -- ms: one turn of every stream, and what the token may at most be ahead of its rate
local SMALLEST = 4096    -- bytes: below this a turn costs more than it moves …
local LONGEST = 2000     -- ms: … unless they would take so long
local CROWD = 8          -- the first turn is as small as if there were so many: those who come together share at once
local SILENCE = 2000     -- ms after the beginning of its last turn that a stream is taken to want another

local row = redis.call('HMGET', REQUEST, 'state', 'asked', 'paced')
if row[1] ~= 'open' then return done({'gone'}) end
local now, rate = clock(), tonumber(ARGV[2])

redis.call('ZREMRANGEBYSCORE', STREAMS, '-inf', now - SILENCE)
redis.call('ZADD', STREAMS, now, ARGV[1])
local streams = redis.call('ZCARD', STREAMS)

local sharers = row[3] and streams or math.max(streams, CROWD)
local size = math.max(math.min(SMALLEST, rate * LONGEST / 1000), math.floor(rate * ROUND / 1000 / sharers))
local left = tonumber(row[2]) - tonumber(row[3] or '0')
if left > 0 then size = math.min(size, left) end
local takes = size * 1000 / rate

-- Who comes late finds what the last half round left unused, and a turn of more than half a round is sent when half a
-- round of it is earned: in any stretch of time the token is ahead by a round at most, or by one turn of the smallest
-- size. What lies further ahead than the streams that are here can have been given belongs to some that left (or to a
-- clock that was set back).
local free = tonumber(redis.call('HGET', TOKEN, 'paced') or '0')
local start = math.max(now - ROUND / 2, math.min(free, now + streams * LONGEST))
local earned = start + math.min(math.max(takes - ROUND / 2, 0), ROUND / 2)
local wait = math.max(earned - now, 0)
redis.call('HSET', TOKEN, 'paced', string.format('%.3f', start + takes))
redis.call('HINCRBY', REQUEST, 'paced', string.format('%.0f', size))
redis.call('ZADD', STREAMS, now + wait, ARGV[1])
redis.call('PEXPIRE', STREAMS, math.ceil(wait) + SILENCE)
return done({size, math.ceil(wait * 1000)})
