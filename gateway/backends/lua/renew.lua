-- A live request reports its acknowledged bytes, keeps its lease, and asks for its next window.
--
-- ARGV 1: request id   2: bytes acknowledged (absolute)   3: bytes it wants granted (absolute)   4: lease (ms)
-- Returns {'granted', bytes} (less than wanted means: cut), or {'gone'} where it was closed before.
-- All numbers are absolute, so a repeated call changes nothing.

local request = load_request()
if not request then return {'gone'} end
local ask = request.ask
local acked, wanted, lease_ms = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), ask.asked), tonumber(ARGV[4])

redis.call('ZADD', LEASES, now + lease_ms, ARGV[1])
local transfer = load_transfer(request.transfer)
if not transfer then return {'gone'} end
acknowledge(request, transfer, ask, acked)

local more = wanted - request.granted
if more > 0 then
  if transfer.acked + transfer.inflight + more > budget_of(transfer, ask) then
    local reason = ask.expires <= now and 'token.expired' or refused(ask)
    if reason then
      save_transfer(request.transfer, transfer, ask)
      save_request(request)
      return {'granted', number(request.granted)}
    end
    -- The budget of one download is used up: the rest of this answer opens the next transfer.
    local outstanding = request.granted - request.acked
    transfer.inflight = transfer.inflight - outstanding
    transfer.live = transfer.live - 1
    save_transfer(request.transfer, transfer, ask)
    request.counted = request.counted + 1
    request.transfer = ARGV[1] .. '.' .. request.counted
    transfer = open_transfer(request.transfer, ask)
    transfer.inflight = outstanding
    transfer.live = 1
  end
  transfer.inflight = transfer.inflight + more
  request.granted = wanted
end
save_transfer(request.transfer, transfer, ask)
save_request(request)
return {'granted', number(request.granted)}
