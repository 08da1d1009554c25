-- Hands out events of one shard that are to be sent to one endpoint: first those whose next try is due, then new ones.
--
-- Idle time is the schedule, since Redis keeps it: an entry is due when it has been idle for FULL. Whoever gets one sets
-- it to FULL less the time that a try may take, so what a dead worker held is due by itself. "sending" holds what is
-- being sent, "waiting" what failed: names of states, not of workers, so that none is left over.
--
-- KEYS 1: the stream. ARGV 1: the group  2: FULL (ms)  3: patience (ms)  4: how many  5: how many new ones
--   6: new ones before this (Unix ms) are to be given up  7: the endpoint's name  then: the wanted types.
-- Returns {1 where the group was lost, 1 where more may be there, {{id, tries before, fields, 1 where stale}, …}}.

local key, group, full, patience = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local most, fresh, oldest, own = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local SCANNED = 500
-- Seconds: a group that is made anew begins that long ago, so that what was on its way is told, if told twice.
local BACK = 3600

local wanted = {}
for place = 8, #ARGV do wanted[ARGV[place]] = true end

local function is_wanted(fields)
  local kind, host = '', ''
  for place = 1, #fields, 2 do
    if fields[place] == 'type' then kind = fields[place + 1] end
    if fields[place] == 'webhook.host' then host = fields[place + 1] end
  end
  -- Nobody is told by webhook that webhooks do not reach him.
  return wanted[kind] and not (kind == 'webhook.failed' and host == own)
end

local function hold(id)
  redis.call('XCLAIM', key, group, 'sending', 0, id, 'IDLE', full - patience, 'JUSTID')
end

local taken = {}
local due = redis.pcall('XPENDING', key, group, 'IDLE', full, '-', '+', most)
if due.err then
  if not string.find(due.err, 'NOGROUP', 1, true) then return due end
  local from = string.format('%d-0', math.max(0, math.floor(clock()) - BACK * 1000))
  redis.call('XGROUP', 'CREATE', key, group, from, 'MKSTREAM')
  return {1, 1, {}}
end
for _, entry in ipairs(due) do
  local id, tries = entry[1], entry[4]
  local found = redis.call('XRANGE', key, id, id)
  if found[1] then
    hold(id)
    taken[#taken + 1] = {id, tries, found[1][2], 0}
  else
    -- Somebody has trimmed it away: there is nothing left to be told.
    redis.call('XACK', key, group, id)
  end
end

local room, scanned, more = math.min(fresh, most - #taken), 0, 0
while room > 0 do
  if scanned >= SCANNED then more = 1 break end
  local reply = redis.call('XREADGROUP', 'GROUP', group, 'sending', 'COUNT', room, 'STREAMS', key, '>')
  if not reply then break end
  local passed = {}
  for _, entry in ipairs(reply[1][2]) do
    local id, fields = entry[1], entry[2]
    scanned = scanned + 1
    if not is_wanted(fields) then
      passed[#passed + 1] = id
    else
      hold(id)
      local stale = tonumber(string.match(id, '^%d+')) < oldest
      taken[#taken + 1] = {id, 0, fields, stale and 1 or 0}
      if not stale then room = room - 1 end
    end
  end
  if #passed > 0 then redis.call('XACK', key, group, unpack(passed)) end
end
return {0, more, taken}
