-- Where the gateways of a shard meet: it finds out that writes may be missing, closes the shard, and opens it again
-- when every gateway that came has handed in what it kept, and all of that is in its place.
--
-- KEYS 1: META   2: MET, hash: worker -> '<ms of its last call> <handed in for this closing: 1 or 0>'
--      3: PUTBACK, zset: what was handed in and is not in its place yet; '<epoch, 12 digits><seq, 12 digits> <entry>'
-- ARGV 1: worker   2: the highest epoch it knows (0: none)   3: the highest seq it knows of that epoch
--      4: 'journal' where it keeps one   5: the closing for which it has handed in, or ''
--      6: how long the others are waited for (ms)   7: how long one that came and is silent is waited for (ms)
-- META also holds: journaled (1 once a gateway with a journal was here), and while it is closed: closing (its name, kept
-- afterwards), closed_at (ms), base_epoch and base_seq (the last write that is there), highest (the highest epoch that
-- anybody knows), applied (the place of the last entry put back), applier and applier_at.
-- Returns {'open' | 'closed' | 'apply', epoch, seq, closing, base_epoch, base_seq, workers of which all is handed in …}; 'apply': the
-- caller is to put back what is in PUTBACK.

local META, MET, PUTBACK = KEYS[1], KEYS[2], KEYS[3]
local now = math.floor(clock())
local function whole(value) return string.format('%.0f', value) end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local known_epoch, known_seq, keeps = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == 'journal'
local row = redis.call('HMGET', META, 'state', 'run', 'epoch', 'seq', 'journaled', 'closing')
local state, epoch, seq, closing = row[1], tonumber(row[3] or '0'), tonumber(row[4] or '0'), row[6] or ''

local function close(again)
  state, closing = 'closed', whole(now) .. '-' .. string.sub(run, 1, 8)
  if not again then
    redis.call('HSET', META, 'base_epoch', whole(epoch), 'base_seq', whole(seq))
    redis.call('HDEL', META, 'applied', 'highest')
    redis.call('DEL', PUTBACK)
  end
  redis.call('HSET', META, 'state', state, 'run', run, 'closing', closing, 'closed_at', whole(now))
  redis.call('HDEL', META, 'applier')
  redis.call('DEL', MET)
end

local function open_as(number)
  -- A second is enough between two openings: later ones sort behind earlier ones, also of a Redis that was emptied.
  state, epoch, seq = 'open', math.max(number, math.floor(now / 1000)), 0
  redis.call('HSET', META, 'state', state, 'run', run, 'epoch', whole(epoch), 'seq', '0')
end

if keeps and not row[5] then redis.call('HSET', META, 'journaled', '1') end
if not state then
  -- Nobody here has ever seen it open: it is new. Else all of it is gone.
  if known_epoch == 0 then open_as(1) else close(false) end
elseif row[2] ~= run then
  if state == 'closed' then close(true)
  elseif keeps or row[5] then close(false)
  else redis.call('HSET', META, 'run', run) end
elseif state == 'open' and closing == '' and known_epoch > 0 and known_epoch ~= epoch then
  -- All was gone, and a newcomer took it for new before anybody who knows had looked.
  epoch, seq = 0, 0
  close(false)
elseif state == 'open' and (known_epoch > epoch or (known_epoch == epoch and known_seq > seq)) then
  close(false)
end
if state == 'open' then return {state, whole(epoch), whole(seq), closing, '0', '0'} end

local meta = redis.call('HMGET', META, 'closed_at', 'base_epoch', 'base_seq', 'highest', 'applier', 'applier_at')
local highest = math.max(tonumber(meta[4] or '0'), known_epoch, epoch)
redis.call('HSET', META, 'highest', whole(highest))
if keeps then redis.call('HSET', MET, ARGV[1], whole(now) .. ' ' .. (ARGV[5] == closing and '1' or '0')) end

local ready = now >= tonumber(meta[1]) + tonumber(ARGV[6])
local met, complete = redis.call('HGETALL', MET), {}
for i = 2, #met, 2 do
  local at, handed_in = string.match(met[i], '(%d+) (%d)')
  if handed_in == '1' then complete[#complete + 1] = met[i - 1]
  elseif tonumber(at) + tonumber(ARGV[7]) > now then ready = false end
end
if ready then
  if redis.call('ZCARD', PUTBACK) == 0 then
    open_as(highest + 1)
    redis.call('HDEL', META, 'closed_at', 'base_epoch', 'base_seq', 'highest', 'applied', 'applier', 'applier_at')
    redis.call('DEL', MET)
  elseif keeps and (not meta[5] or meta[5] == ARGV[1] or tonumber(meta[6]) + tonumber(ARGV[7]) < now) then
    redis.call('HSET', META, 'applier', ARGV[1], 'applier_at', whole(now))
    state = 'apply'
  end
end
return {state, whole(epoch), whole(seq), closing, meta[2] or '0', meta[3] or '0', unpack(complete)}
