-- What the ledger scripts share; loaded after clock.lua and shard.lua, before each of them.
--
-- One script run speaks of one request for one file of one token. Its keys carry one hash tag, so they
-- live in one slot of a Redis Cluster:
--   FILE     hash   used        downloads charged
--                   look        the transfer that is the file's one look (see charges.lua)
--                   t:<id>      one transfer, as JSON (see new_transfer)
--                   c:<cookie> n:<network> a:<user agent>   ids of the transfers that this device opened, newest first
--   TOKEN    hash   refunds     charges given back
--                   charged     transfers that hold their charge, of all files
--                   first       when the first of them was charged (ms); not there while none holds its charge
--                   n:<set>     how many slots of a set ("networks", "devices") are taken
--                   s:<set>:<slot>   one slot, as JSON: refs (charged transfers that hold it), names (what it is known by),
--                                    at (when it was last paid for), about (of devices: their User-Agent)
--                   freed:<set> when people freed slots of a set, as JSON (ms, see free_device.lua)
--                   v:<set>:<name>   the slot that is known by this name
--                   slots       slots ever taken, which numbers them
--                   paced       until when the token's shared rate is given away (ms, see pace.lua)
--   OPEN     zset   transfer id -> when it takes no more joins (ms)
--   LIVE     zset   transfer id -> until when it is held to be live (ms); all files
--   STREAMS  zset   request id -> when its last turn of the rate begins (ms); all files
--   REQUEST  hash   one reservation: state ask asked transfer granted acked counted began opening keys paced
--   LEASES   zset   request id -> when its worker is taken for dead (ms)
--   EVENTS   stream
-- Byte counts are body bytes; times are Unix milliseconds.

local FILE, TOKEN, OPEN, LIVE, STREAMS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local REQUEST, LEASES, EVENTS = KEYS[6], KEYS[7], KEYS[8]  -- and META, see shard.lua
local REQUESTS_PER_TRANSFER = 32   -- a browser or download manager opens 16 at most
local TRANSFERS_PER_IDENTITY = 32  -- how far back a device finds its own transfers
local SMALLEST_WINDOW = 65536      -- what is left of a budget below this is not worth a join
local SPANS_PER_TRANSFER = 64      -- more holes than that and completeness is no longer tracked
local now = math.floor(clock())

local function new_transfer(ask)
  return {
    size = ask.size, etag = ask.etag, opened = now, last = now,
    acked = 0,      -- bytes acknowledged by its clients, overlaps counted twice
    inflight = 0,   -- bytes granted and not yet acknowledged
    live = 0,       -- requests that have not been settled
    repeats = 0,    -- full repeats that joined, each worth one more size
    charged = 0,    -- 1 while it holds what it paid, 0 after a refund
    look = 0,       -- 1 once it was a scanner's look, until somebody pays for it
    lookers = nil,  -- the cookies of the devices that were in this look
    paid = {},      -- used: 1 for a download of its file; slots: the set's name -> the slot it holds
    spans = {},     -- acknowledged bytes as sorted, disjoint [from, to) pairs, flat
    cookie = ask.cookie, network = ask.network, agent = ask.agent,
  }
end

local function load_transfer(id)
  local text = redis.call('HGET', FILE, 't:' .. id)
  return text and cjson.decode(text)
end

local function save_transfer(id, transfer, ask)
  write('HSET', FILE, 't:' .. id, cjson.encode(transfer))
  write('ZADD', OPEN, ask.elsewhere and transfer.opened + ask.repeat_ms or transfer.last + ask.resume_ms, id)
end

-- The index fields under which a transfer's device finds it again.
local function identity_fields(device)
  local fields = {}
  if device.cookie then fields[#fields + 1] = 'c:' .. device.cookie end
  fields[#fields + 1] = 'n:' .. device.network
  if device.agent then fields[#fields + 1] = 'a:' .. device.agent end
  return fields
end

local function ids_under(field)
  local ids = {}
  for id in string.gmatch(redis.call('HGET', FILE, field) or '', '[^,]+') do ids[#ids + 1] = id end
  return ids
end

-- A device's transfers, newest first.
local function file_transfer(id, device)
  for _, field in ipairs(identity_fields(device)) do
    local ids = ids_under(field)
    table.insert(ids, 1, id)
    ids[TRANSFERS_PER_IDENTITY + 1] = nil
    write('HSET', FILE, field, table.concat(ids, ','))
  end
end

local function unfile_transfer(id, device)
  for _, field in ipairs(identity_fields(device)) do
    local kept = {}
    for _, other in ipairs(ids_under(field)) do
      if other ~= id then kept[#kept + 1] = other end
    end
    if #kept > 0 then write('HSET', FILE, field, table.concat(kept, ','))
    else write('HDEL', FILE, field) end
  end
end

local function forget_transfer(id)
  local transfer = load_transfer(id)
  if transfer then
    unfile_transfer(id, transfer)
    write('HDEL', FILE, 't:' .. id)
  end
  write('ZREM', OPEN, id)
end

-- Transfers past their resume window go, a few at each opening, so a popular link's hash stays small.
local function prune()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', OPEN, '-inf', now - 1, 'LIMIT', 0, 8)) do
    local transfer = load_transfer(id)
    if not transfer or transfer.live == 0 then forget_transfer(id) end
  end
end

local function is_complete(transfer)
  return #transfer.spans == 2 and transfer.spans[1] == 0 and transfer.spans[2] == transfer.size
end

local function budget_of(transfer, ask)
  return ask.budget + transfer.repeats * transfer.size
end

-- How much of `want` more bytes the budget (and `extra`) still allows; nil where that is too little to go on with.
-- A resume takes what is left of it: a download manager that asks to the end of the file mostly stops long before.
local function room(transfer, ask, want, extra)
  local left = budget_of(transfer, ask) + extra - transfer.acked - transfer.inflight
  if want <= left then return want end
  if ask.start > 0 and left >= SMALLEST_WINDOW then return left end
  return nil
end

-- Whether this request may join: the window it gets and the repeats it uses up (0 or 1); nil where it may not.
local function joins(transfer, ask)
  if transfer.size ~= ask.size or transfer.etag ~= ask.etag then return nil end
  if ask.elsewhere then
    -- Where the client was sent we see nothing of it: what comes soon is the same download, whatever it was.
    if now <= transfer.opened + ask.repeat_ms then return 0, 0 end
    return nil
  end
  if transfer.live >= REQUESTS_PER_TRANSFER then return nil end
  if transfer.live == 0 and now > transfer.last + ask.resume_ms then return nil end
  local early = now <= transfer.opened + ask.repeat_ms
  if not early and is_complete(transfer) then return nil end
  local repeats = 0
  if ask.full and early and transfer.acked + transfer.inflight > 0 and transfer.repeats < ask.repeats_max then
    repeats = 1
  end
  return room(transfer, ask, ask.window, repeats * transfer.size), repeats
end

local function look_of_file() return redis.call('HGET', FILE, 'look') end

-- `apart`: who seems to be a scanner and who does not keep out of each other's budget, also within one office, unless
-- the cookie says that they are one device.
local function search(ask, apart)
  local seen, spare = {}, nil
  for _, field in ipairs(identity_fields(ask)) do
    -- A shared User-Agent is weak evidence: it only lets a resume find its beginning.
    if string.sub(field, 1, 2) ~= 'a:' or ask.start > 0 then
      for _, id in ipairs(ids_under(field)) do
        if not seen[id] then
          seen[id] = true
          local transfer = load_transfer(id)
          local window, repeats
          local met = transfer and (not apart or string.sub(field, 1, 2) == 'c:' or (transfer.look == 1) == (ask.look == true))
          if met then window, repeats = joins(transfer, ask) end
          if window and transfer.charged == 1 then return id, transfer, window, repeats end
          if window and not spare then spare = {id, transfer, window, repeats} end
        end
      end
    end
  end
  if spare then return unpack(spare) end
  return nil
end

-- The open transfer this request may join: id, transfer, window, repeats. One that holds its charge is preferred; by
-- a scanner its look, and where that is spent it joins like anyone.
local function find_transfer(ask)
  local found = {search(ask, true)}
  if not found[1] and ask.look and look_of_file() then found = {search(ask, false)} end
  return unpack(found)
end

local function open_transfer(id, ask)
  prune()
  file_transfer(id, ask)
  return new_transfer(ask)
end

-- Another device than the one that opened it has it from now on. What the opener fetched is not the other's, so it has one
-- more size; nobody who is in it is cut for that.
local function hand_over(id, transfer, ask)
  unfile_transfer(id, transfer)
  file_transfer(id, ask)
  transfer.cookie, transfer.network, transfer.agent = ask.cookie, ask.network, ask.agent
  transfer.opened, transfer.last, transfer.spans = now, now, {}
  transfer.repeats = transfer.repeats + 1
end

-- Adds [from, to) to the sorted, disjoint spans.
local function cover(transfer, from, to)
  local spans, merged = transfer.spans, {}
  local placed = false
  for i = 1, #spans, 2 do
    local a, b = spans[i], spans[i + 1]
    if b < from then
      merged[#merged + 1] = a; merged[#merged + 1] = b
    elseif a > to then
      if not placed then merged[#merged + 1] = from; merged[#merged + 1] = to; placed = true end
      merged[#merged + 1] = a; merged[#merged + 1] = b
    else
      from = math.min(from, a); to = math.max(to, b)
    end
  end
  if not placed then merged[#merged + 1] = from; merged[#merged + 1] = to end
  if #merged <= 2 * SPANS_PER_TRANSFER then transfer.spans = merged end
end

-- Credits what the client acknowledged since the last report (`acked` is absolute for the request).
local function acknowledge(request, transfer, ask, acked)
  acked = math.min(acked, request.granted)
  local fresh = acked - request.acked
  if fresh <= 0 then return end
  if ask.start >= 0 then cover(transfer, ask.start + request.acked, ask.start + acked) end
  transfer.acked = transfer.acked + fresh
  transfer.inflight = transfer.inflight - fresh
  transfer.last = now
  request.acked = acked
end

local function load_request()
  local row = redis.call('HMGET', REQUEST, 'state', 'ask', 'transfer', 'granted', 'acked', 'counted', 'began', 'opening')
  if row[1] ~= 'open' then return nil, row[1] end
  return {ask = cjson.decode(row[2]), transfer = row[3], granted = tonumber(row[4]), acked = tonumber(row[5]),
          counted = tonumber(row[6]), began = tonumber(row[7]), opening = tonumber(row[8])}, 'open'
end

local function number(value) return string.format('%.0f', value) end

local function save_request(request)
  write('HSET', REQUEST, 'transfer', request.transfer, 'granted', number(request.granted),
    'acked', number(request.acked), 'counted', request.counted)
end

-- Each argument is a flat list of names and values; no name may stand in two of them.
local function write_event(...)
  local row = {}
  for _, fields in ipairs({...}) do
    for _, text in ipairs(fields) do row[#row + 1] = tostring(text) end
  end
  add_event(EVENTS, unpack(row))
end

-- Counters outlive their token, so that a link extended later is not given its downloads again.
local function keep(ask)
  local at = math.max(ask.keep_until, now) + ask.keep_ms
  for _, key in ipairs({FILE, TOKEN, OPEN, LIVE}) do
    local left = redis.call('PTTL', key)
    -- Never shortened: another of its requests may have known of a later end.
    if left == -1 or (left >= 0 and now + left < at) then write('PEXPIREAT', key, number(at)) end
  end
end
