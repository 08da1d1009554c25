-- Whether a transfer of a file may still be joined by its device. KEYS 1: file   2: open.   ARGV 1: repeat window, ms.
-- Changes nothing. One that sent its client elsewhere has no bytes of ours, so only the repeat window counts for it.

local now = math.floor(clock())
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], string.format('%.0f', now), '+inf')) do
  local text = redis.call('HGET', KEYS[1], 't:' .. id)
  local transfer = text and cjson.decode(text)
  if transfer and transfer.charged == 1 then
    local spans = transfer.spans
    local complete = #spans == 2 and spans[1] == 0 and spans[2] == transfer.size
    if now <= transfer.opened + tonumber(ARGV[1]) then return 1 end
    if transfer.size > 0 and not complete and transfer.acked + transfer.inflight < transfer.size then return 1 end
  end
end
return 0
