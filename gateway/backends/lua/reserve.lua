-- Joins or opens a transfer for one request, charges what that costs, and writes download.allowed or
-- download.denied: all of it or none.
--
-- ARGV 1: the ask, as JSON (see redis_ledger.py).   ARGV 2: 'reserve', 'peek' to change no counter, 'attempt' where
-- limit.concurrent is to be tried again and so is no event yet, or 'late' for what was given without asking: no limit
-- refuses that any more.
-- Returns {'allow', transfer id, granted, counted} or {'deny', reason}.

local ask = cjson.decode(ARGV[1])
local peek, late = ARGV[2] == 'peek', ARGV[2] == 'late'

local function deny(reason)
  keep(ask)
  if ARGV[2] == 'attempt' and reason == 'limit.concurrent' then return done({'deny', reason}) end
  write_event(ask.stamp, ask.event, {'type', 'download.denied', 'reason', reason,
    'http.response.status_code', ask.refusals[reason]})
  return done({'deny', reason})
end

if not peek then
  local before, state = load_request()
  if before then return done({'allow', before.transfer, number(before.granted), before.opening}) end
  if state then return done({'deny', 'closed'}) end
end

local id, transfer, window, repeats = find_transfer(ask)
-- What has begun may finish: expiry refuses only what would open a transfer.
if not transfer and ask.expires <= now and not late then return deny('token.expired') end
local look = is_look(ask, id, transfer)
local reason = not late and not look and refused(ask, id, transfer, 0)
if reason then return deny(reason) end
if peek then return done({'allow', '', '0', 0}) end

local counted = 0
if not transfer then
  id, window, repeats = ask.request, ask.window, 0
  transfer = open_transfer(id, ask)
end
if transfer.charged == 0 then counted = enter(ask, id, transfer, look) end
if not look then hold_place(id, ask.lease_ms) end
transfer.repeats = transfer.repeats + repeats
transfer.inflight = transfer.inflight + window
transfer.live = transfer.live + 1
save_transfer(id, transfer, ask)
write('HSET', REQUEST, 'state', 'open', 'ask', ARGV[1], 'asked', number(ask.asked), 'transfer', id,
  'granted', number(window), 'acked', 0, 'counted', 0, 'began', number(now), 'opening', counted,
  'keys', table.concat(KEYS, ' '))
write('ZADD', LEASES, now + ask.lease_ms, ask.request)
keep(ask)
write_event(ask.stamp, ask.event, {'type', 'download.allowed', 'counted', counted, 'transfer.id', id,
  'http.response.status_code', ask.status})
return done({'allow', id, number(window), counted})
