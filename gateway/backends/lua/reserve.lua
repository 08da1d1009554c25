-- Joins or opens a transfer for one request, charges what that costs, and writes download.allowed or
-- download.denied: all of it or none.
--
-- ARGV 1: the ask, as JSON (see redis_ledger.py).   ARGV 2: 'reserve', or 'peek' to change no counter.
-- Returns {'allow', transfer id, granted, counted} or {'deny', reason}.

local ask = cjson.decode(ARGV[1])
local peek = ARGV[2] == 'peek'

local function deny(reason)
  write_event(ask.stamp, ask.event, {'type', 'download.denied', 'reason', reason,
    'http.response.status_code', ask.refusals[reason]})
  return {'deny', reason}
end

if not peek then
  local before, state = load_request()
  if before then return {'allow', before.transfer, number(before.granted), before.opening} end
  if state then return {'deny', 'closed'} end
end

local id, transfer, window, repeats = find_transfer(ask)
local counted = 0
if not transfer then
  -- What has begun may finish: expiry and limits refuse only what would open a transfer.
  if ask.expires <= now then return deny('token.expired') end
  local reason = refused(ask)
  if reason then return deny(reason) end
  if peek then return {'allow', '', '0', 0} end
  id, window, repeats, counted = ask.request, ask.window, 0, 1
  transfer = open_transfer(id, ask)
elseif transfer.charged == 0 then
  local reason = refused(ask)
  if reason then return deny(reason) end
  if not peek then
    apply_charges(transfer)
    counted = 1
  end
end
if peek then return {'allow', '', '0', 0} end

transfer.repeats = transfer.repeats + repeats
transfer.inflight = transfer.inflight + window
transfer.live = transfer.live + 1
save_transfer(id, transfer, ask)
redis.call('HSET', REQUEST, 'state', 'open', 'ask', ARGV[1], 'transfer', id, 'granted', number(window),
  'acked', 0, 'counted', 0, 'began', number(now), 'opening', counted,
  'file', FILE, 'token', TOKEN, 'open', OPEN)
redis.call('ZADD', LEASES, now + ask.lease_ms, ask.request)
keep(ask)
write_event(ask.stamp, ask.event, {'type', 'download.allowed', 'counted', counted, 'transfer.id', id,
  'http.response.status_code', ask.status})
return {'allow', id, number(window), counted}
