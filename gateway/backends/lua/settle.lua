-- Closes one reservation: credits its last bytes, gives back a charge (or a look) that bought next to nothing, frees its
-- lease and its place, and writes the closing event. The first closing wins.
--
-- ARGV 1: request id   2: bytes acknowledged (absolute), or -1 for the last ones reported
--      3: 'lapsed' to close only when the lease has run out; 'origin' where the store failed, which costs no refund;
--         else ''
--      4: the closing event's own fields, flat, as JSON   5: the status that was sent, where it was not the planned one
-- Returns {1}, or {0} where it was closed before (or its lease still holds).

local request = load_request()
if not request then return done({0}) end
if ARGV[3] == 'lapsed' then
  local lease = redis.call('ZSCORE', LEASES, ARGV[1])
  if lease and tonumber(lease) > now then return done({0}) end
end
local ask = request.ask

local transfer = load_transfer(request.transfer)
if transfer then
  if tonumber(ARGV[2]) >= 0 then acknowledge(request, transfer, ask, tonumber(ARGV[2])) end
  transfer.inflight = transfer.inflight - (request.granted - request.acked)
  transfer.live = transfer.live - 1
  local free = ARGV[3] == 'origin' and transfer.acked == 0
  local look = transfer.charged == 0 and look_of_file() == request.transfer
  if not ask.elsewhere and transfer.live == 0 and (transfer.charged == 1 or look) and (free or
    (transfer.acked < ask.refund_below
    and tonumber(redis.call('HGET', TOKEN, 'refunds') or '0') < ask.refunds_max)) then
    if look then
      write('HDEL', FILE, 'look')
    else
      give_back(transfer)
      request.counted = request.counted - 1
    end
    if not free then increase(TOKEN, 'refunds', 1) end
  end
  save_transfer(request.transfer, transfer, ask)
  keep(ask)
end

if not transfer or transfer.live == 0 then leave_place(request.transfer) end
redis.call('ZREM', STREAMS, ARGV[1])
write('ZREM', LEASES, ARGV[1])
write('DEL', REQUEST)
-- A closed request stays known for a while, so that a late replay of it opens nothing.
write('HSET', REQUEST, 'state', 'closed')
write('PEXPIREAT', REQUEST, number(now + 3600000))

local own = cjson.decode(ARGV[4])
local known = {'transfer.id', request.transfer, 'bytes.delivered', number(request.acked), 'counted', request.counted,
  'http.response.status_code', ARGV[5] ~= '' and ARGV[5] or ask.status}
if ARGV[3] == 'lapsed' then known[#known + 1] = 'duration.ms'; known[#known + 1] = number(now - request.began) end
write_event(own, ask.event, known)
return done({1})
