-- A person removes a device of a link: its slot is free again. What it has begun may finish.
--
-- ARGV 1: the set   2: the slot   3: how many may be freed in the span   4: the span (ms)   5: the event, flat, as JSON
-- Returns {'freed'}, {'unknown'} where the slot is free already, or {'limit'}.

local set, slot, most, span = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local text = redis.call('HGET', TOKEN, 's:' .. set .. ':' .. slot)
if not text then return done({'unknown'}) end

local freed = {}
for _, at in ipairs(cjson.decode(redis.call('HGET', TOKEN, 'freed:' .. set) or '[]')) do
  if at > now - span then freed[#freed + 1] = at end
end
-- Else two people could take turns for ever in one place.
if #freed >= most then return done({'limit'}) end

freed[#freed + 1] = now
write('HSET', TOKEN, 'freed:' .. set, cjson.encode(freed))
drop_slot(set, slot, cjson.decode(text))
write_event(cjson.decode(ARGV[5]))
return done({'freed'})
