-- For wrk: the paths of a file in turn; with a second argument, each connection pauses so that it sends about that
-- many requests a second, at random moments (exponential pauses, wrk's are whole milliseconds).
local prepared, turn = {}, 0

function init(args)
  for path in io.lines(args[1]) do prepared[#prepared + 1] = wrk.format("GET", path) end
  local rate = tonumber(args[2])
  if rate > 0 then
    local mean = math.max(0, 1000 / rate)
    math.randomseed(1)
    function delay() return math.floor(0.5 - mean * math.log(1 - math.random())) end
  end
end

function request()
  turn = turn % #prepared + 1
  return prepared[turn]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "us": %d, "errors": %d, "p50": %d, "p99": %d}\n', summary.requests,
    summary.duration, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
