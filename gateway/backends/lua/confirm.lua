-- A device that looked like a scanner turns out to be a person's: the look that it was in is paid for, as far as limits
-- allow. No place is asked for: what runs already is not refused.
--
-- ARGV 1: the ask, as JSON (see redis_ledger.py); its device is the person's.
-- Returns {1}, or {0} where there is nothing to pay for or a limit is in the way.

local ask = cjson.decode(ARGV[1])
local id = look_of_file()
local transfer = id and load_transfer(id)
if not transfer or not is_looker(transfer, ask.cookie) then return done({0}) end
if refused(ask, id, transfer, math.huge) then return done({0}) end

-- A look that a scanner of his office opened: what he pays for is enough for him too, and is found from elsewhere.
if transfer.cookie ~= ask.cookie then hand_over(id, transfer, ask) end
pay(transfer, ask)
if transfer.live > 0 then hold_place(id, ask.lease_ms) end
save_transfer(id, transfer, ask)
keep(ask)
write_event(ask.stamp, ask.event, {'type', 'download.confirmed', 'counted', 1, 'transfer.id', id})
return done({1})
