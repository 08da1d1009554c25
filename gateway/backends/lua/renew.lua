-- A live request reports its acknowledged bytes, keeps its lease, and asks for its next window.
--
-- ARGV 1: request id   2: bytes acknowledged (absolute)   3: bytes it wants granted (absolute)   4: lease (ms)
-- Returns {'granted', bytes, reason}, or {'gone'} where it was closed before. A reason means: cut, and why.
-- All numbers are absolute, so a repeated call changes nothing.

local request = load_request()
if not request then return done({'gone'}) end
local ask = request.ask
local acked, wanted, lease_ms = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), ask.asked), tonumber(ARGV[4])

redis.call('ZADD', LEASES, now + lease_ms, ARGV[1])
local transfer = load_transfer(request.transfer)
if not transfer then return done({'gone'}) end
local acked_before, granted_before = request.acked, request.granted
acknowledge(request, transfer, ask, acked)

local more, reason = wanted - request.granted, nil
if holds_place(request.transfer) then
  keep_place(request.transfer, lease_ms)
elseif transfer.charged == 1 then  -- a look has no place
  -- It lapsed while its worker could not renew, and others may have taken what was free.
  reason = refused(ask, request.transfer, transfer, 0)
  keep(ask)
  if not reason then hold_place(request.transfer, lease_ms) end
end
if more > 0 and not reason then
  local grant = room(transfer, ask, more, 0)
  if not grant then
    -- The budget of this download is used up: the rest of the answer, with what is still on its way, goes on in
    -- another open transfer of this device, or opens the next one.
    local outstanding = request.granted - request.acked
    local rest = setmetatable({full = false, start = 0, window = outstanding + more}, {__index = ask})
    local id, other = find_transfer(rest)
    local leaving = transfer.live == 1 and 1 or 0
    local look = is_look(ask, id, other)
    if not other and ask.expires <= now then reason = 'token.expired'
    elseif not look then reason = refused(ask, id, other, leaving) end
    if not reason then
      transfer.inflight = transfer.inflight - outstanding
      transfer.live = transfer.live - 1
      if transfer.live == 0 then leave_place(request.transfer) end
      save_transfer(request.transfer, transfer, ask)
      if not other then
        id = ARGV[1] .. '.' .. (request.counted + 1)
        other = open_transfer(id, ask)
      end
      if other.charged == 0 then request.counted = request.counted + enter(ask, id, other, look) end
      request.transfer, transfer = id, other
      if not look then hold_place(id, lease_ms) end
      transfer.inflight = transfer.inflight + outstanding
      transfer.live = transfer.live + 1
      grant = more
    end
  end
  if grant then
    transfer.inflight = transfer.inflight + grant
    request.granted = request.granted + grant
  end
end
if request.acked > acked_before or request.granted > granted_before then
  save_transfer(request.transfer, transfer, ask)
  save_request(request)
end
return done({'granted', number(request.granted), reason or ''})
