-- A shard's writes: refused where some of them may be missing, numbered, and told to the caller, who keeps them.
--
-- KEYS[#KEYS] is META, a hash of the shard's own (see meet.lua for the rest of it):
--   state   'open', or 'closed' while the gateways put back what Redis has lost
--   run     the run_id of the server it is open on: after a restart or a failover it is another one
--   epoch   how often it was opened     seq   numbers the writes of this epoch
-- ARGV[#ARGV - 1]: the epoch that the caller takes part in   ARGV[#ARGV]: 'tell', or '' where nobody keeps a journal.
-- A script that is refused returns {'closed'}; any other ends with `done`.

local META = KEYS[#KEYS]

local function server_run() return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or '' end

do
  local meta = redis.call('HMGET', META, 'state', 'run', 'epoch')
  if meta[1] ~= 'open' or meta[2] ~= server_run() or meta[3] ~= ARGV[#ARGV - 1] then return {'closed'} end
end

local telling = ARGV[#ARGV] == 'tell'
local written, place = {}, {}
for i, key in ipairs(KEYS) do place[key] = i end

-- Every effect is absolute, so that what is put back in the order of `seq` ends where it was, also where one is missing.
local function tell(command, key, ...)
  if not telling then return end
  local effect = {command, place[key]}
  for i, value in ipairs({...}) do
    effect[i + 2] = type(value) == 'number' and string.format('%.17g', value) or value
  end
  written[#written + 1] = effect
end

local function write(command, key, ...)
  tell(command, key, ...)
  return redis.call(command, key, ...)
end

local function increase(key, field, by)
  local value = redis.call('HINCRBY', key, field, by)
  tell('HSET', key, field, value)
  return value
end

local function add_event(key, ...)
  local id = redis.call('XADD', key, '*', ...)
  tell('XADD', key, id, ...)
end

-- Its last element is what was written: '<seq> <effects, as JSON>', or ''.
local function done(reply)
  local told = ''
  if #written > 0 then
    local seq = redis.call('HINCRBY', META, 'seq', 1)
    told = string.format('%.0f ', seq) .. cjson.encode(written)
  end
  reply[#reply + 1] = told
  return reply
end
