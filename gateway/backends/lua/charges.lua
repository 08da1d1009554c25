-- What a transfer pays when it opens and gives back when it came to nothing, and its place among the live ones.
--
-- A charge has a kind (see policy/model.py, Charge) and may have a limit; without one it is counted only. Everything
-- is checked before anything is applied. A transfer remembers what it paid, so exactly that is given back.

local NAMES_PER_SLOT = 32          -- a device that never keeps its cookie is offered a new one with each download

local function holds_place(id)
  local till = redis.call('ZSCORE', LIVE, id)
  return till and tonumber(till) > now
end

-- Two leases: a reaper frees what a dead worker left after one, and where there is none the place lapses by itself.
local function hold_place(id, lease_ms)
  redis.call('ZREMRANGEBYSCORE', LIVE, '-inf', now)
  write('ZADD', LIVE, 'GT', now + 2 * lease_ms, id)
end

-- What its worker says again and again anyway need not be kept.
local function keep_place(id, lease_ms) redis.call('ZADD', LIVE, 'XX', 'GT', now + 2 * lease_ms, id) end

local function leave_place(id) write('ZREM', LIVE, id) end

local function slot_known_by(set, name) return redis.call('HGET', TOKEN, 'v:' .. set .. ':' .. name) end

-- Whether one charge is more than its limit allows. `joined` is the open transfer that the request joins: only a new
-- transfer, or one that gave its charge back, pays; only a new one is too late; only one at rest takes a place.
-- `leaving` places become free in the same step.
local EXCEEDED = {
  count = function(charge, joined)
    if joined and joined.charged == 1 then return false end
    return tonumber(redis.call('HGET', FILE, 'used') or '0') >= charge.limit
  end,
  distinct = function(charge, joined)
    if joined and joined.charged == 1 or slot_known_by(charge.name, charge.value) then return false end
    return tonumber(redis.call('HGET', TOKEN, 'n:' .. charge.name) or '0') >= charge.limit
  end,
  since_first = function(charge, joined)
    local first = not joined and redis.call('HGET', TOKEN, 'first')
    return first and now > tonumber(first) + charge.limit
  end,
  concurrent = function(charge, joined, id, leaving)
    if joined and holds_place(id) then return false end
    return redis.call('ZCOUNT', LIVE, '(' .. number(now), '+inf') - leaving >= charge.limit
  end,
}

-- The reason of the first charge that cannot be applied, or nil. Applies nothing.
local function refused(ask, id, joined, leaving)
  for _, charge in ipairs(ask.charges) do
    local exceeded = EXCEEDED[charge.kind]
    if not exceeded then error('unknown kind of charge: ' .. tostring(charge.kind)) end
    if charge.limit and exceeded(charge, joined, id, leaving) then return charge.reason end
  end
  return nil
end

-- Lets a slot be known by this name too, as the one that was used last. A name stays with the slot that had it first.
local function name_slot(set, slot, held, name)
  local known = slot_known_by(set, name)
  if known and known ~= slot then return end
  local names = {name}
  for _, other in ipairs(held.names) do
    if other ~= name then names[#names + 1] = other end
  end
  if #names > NAMES_PER_SLOT then write('HDEL', TOKEN, 'v:' .. set .. ':' .. table.remove(names)) end
  held.names = names
  write('HSET', TOKEN, 'v:' .. set .. ':' .. name, slot)
end

local function take_slot(charge)
  local set, held = charge.name, {refs = 0, names = {}}
  local slot = slot_known_by(set, charge.value)
  if slot then
    held = cjson.decode(redis.call('HGET', TOKEN, 's:' .. set .. ':' .. slot))
  else
    slot = number(increase(TOKEN, 'slots', 1))
    increase(TOKEN, 'n:' .. set, 1)
  end
  held.refs = held.refs + 1
  held.at, held.about = now, charge.about
  name_slot(set, slot, held, charge.value)
  if charge.alias then name_slot(set, slot, held, charge.alias) end
  write('HSET', TOKEN, 's:' .. set .. ':' .. slot, cjson.encode(held))
  return slot
end

-- The slot is free, and its number is never given again: who still holds it gives nothing back any more.
local function drop_slot(set, slot, held)
  write('HDEL', TOKEN, 's:' .. set .. ':' .. slot)
  for _, name in ipairs(held.names) do write('HDEL', TOKEN, 'v:' .. set .. ':' .. name) end
  increase(TOKEN, 'n:' .. set, -1)
end

local function free_slot(set, slot)
  local field = 's:' .. set .. ':' .. slot
  local text = redis.call('HGET', TOKEN, field)
  if not text then return end  -- Redis had lost it, and nobody was left to put it back
  local held = cjson.decode(text)
  held.refs = held.refs - 1
  if held.refs > 0 then
    write('HSET', TOKEN, field, cjson.encode(held))
    return
  end
  drop_slot(set, slot, held)
end

-- Applies every charge to a transfer that holds none. Call it only after `refused` has said nil.
local function pay(transfer, ask)
  transfer.charged, transfer.look, transfer.lookers, transfer.paid = 1, 0, nil, {slots = {}}
  for _, charge in ipairs(ask.charges) do
    if charge.kind == 'count' then
      increase(FILE, 'used', 1)
      transfer.paid.used = 1
    elseif charge.kind == 'distinct' then
      transfer.paid.slots[charge.name] = take_slot(charge)
    end
  end
  increase(TOKEN, 'charged', 1)
  if redis.call('HEXISTS', TOKEN, 'first') == 0 then write('HSET', TOKEN, 'first', number(now)) end
end

local function give_back(transfer)
  local paid = transfer.paid or {used = 1, slots = {}}  -- of before there was anything but downloads
  transfer.charged, transfer.paid = 0, {}
  if paid.used then increase(FILE, 'used', -1) end
  for set, slot in pairs(paid.slots) do free_slot(set, slot) end
  if increase(TOKEN, 'charged', -1) == 0 then write('HDEL', TOKEN, 'first') end
end

-- A look is a transfer for which nothing is paid, and which no limit refuses: a token has one for each file. Whether
-- this one is, or may be, it: the request seems to be a scanner's, and the look is not spent elsewhere.
local function is_look(ask, id, transfer)
  if not ask.look or transfer and transfer.charged == 1 then return false end
  -- Where each device after the first needs a code, a look is no way round that.
  for _, charge in ipairs(ask.charges) do
    if charge.reason == 'device.code' and EXCEEDED.distinct(charge, transfer) then return false end
  end
  local spent = look_of_file()
  return not spent or spent == id
end

local LOOKERS = 32

local function is_looker(transfer, cookie)
  for _, other in ipairs(transfer.lookers or {}) do
    if other == cookie then return true end
  end
  return false
end

local function begin_look(ask, id, transfer)
  transfer.look = 1
  local lookers = transfer.lookers or {}
  if ask.cookie and #lookers < LOOKERS and not is_looker(transfer, ask.cookie) then lookers[#lookers + 1] = ask.cookie end
  transfer.lookers = lookers
  if look_of_file() ~= id then write('HSET', FILE, 'look', id) end
end

-- Lets the request into a transfer that holds no charge: whether that was counted.
local function enter(ask, id, transfer, look)
  if look then
    begin_look(ask, id, transfer)
    return 0
  end
  pay(transfer, ask)
  return 1
end
