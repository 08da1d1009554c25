-- Puts one entry back in its place, once, and takes it out of PUTBACK. Entries come in the order of their places.
--
-- KEYS: those of the script that wrote it, META last but one, PUTBACK last.
-- ARGV 1: the closing   2: worker   3: the entry's place, 24 digits   4: the entry, as it stands in PUTBACK
--      5: its effects, as JSON
-- Returns {1}; {0} where what came after it is in its place already, so that only its events were put back; {-1} where the shard was closed anew or opened.

local META, PUTBACK = KEYS[#KEYS - 1], KEYS[#KEYS]
local ALLOWED = {HSET = 1, HDEL = 1, ZADD = 1, ZREM = 1, DEL = 1, PEXPIREAT = 1, XADD = 1}
local meta = redis.call('HMGET', META, 'state', 'closing', 'applier', 'applied')
if meta[1] ~= 'closed' or meta[2] ~= ARGV[1] or meta[3] ~= ARGV[2] then return {-1} end
redis.call('HSET', META, 'applier_at', string.format('%.0f', math.floor(clock())))
redis.call('ZREM', PUTBACK, ARGV[4])
local placed = ARGV[3] ~= string.rep('0', 24)  -- an order of the ops is in force wherever it stands

-- Too late for the counters, which have moved on; an event is worth more than its place.
local late = placed and meta[4] and meta[4] >= ARGV[3]

for _, effect in ipairs(cjson.decode(ARGV[5])) do
  local command, key = effect[1], KEYS[effect[2]]
  if not ALLOWED[command] then error('cannot put back a ' .. tostring(command)) end
  if command == 'XADD' then
    if effect[3] == '*' then redis.call('XADD', key, unpack(effect, 3))
    elseif #redis.call('XRANGE', key, effect[3], effect[3]) == 0 then
      -- What was written since then, by a command line say, may have a later id.
      local written = redis.pcall('XADD', key, unpack(effect, 3))
      if type(written) == 'table' and written.err then redis.call('XADD', key, '*', unpack(effect, 4)) end
    end
  elseif not late then
    redis.call(command, key, unpack(effect, 3))
  end
end
if late then return {0} end
if placed then redis.call('HSET', META, 'applied', ARGV[3]) end
return {1}
