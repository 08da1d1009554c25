-- The ledger's only clock: the server's own, in Unix milliseconds and their fractions, so that all workers agree.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
end
