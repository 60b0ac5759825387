-- Sends the requests of a file in turn. Ten @ become a number that no other request has.
-- Arguments: the file, the first number, and "statuses" if answers are to be counted by status.

local MARK = "@@@@@@@@@@"
local requests, position, number, numbered = {}, 0, 0, false
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for text in file:read("*a"):gmatch("[^%z]+") do
    table.insert(requests, text)
  end
  file:close()
  number = tonumber(args[2])
  numbered = requests[1]:find(MARK, 1, true) ~= nil
  if args[3] == "statuses" then
    statuses = {} -- Global, so that done() can ask for it.
    function response(status, headers)
      local retry = headers["Retry-After"] and " with Retry-After" or ""
      statuses[status .. retry] = (statuses[status .. retry] or 0) + 1
    end
  end
end

function request()
  position = position % #requests + 1
  if not numbered then
    return requests[position]
  end
  number = number + 1
  return (requests[position]:gsub(MARK, string.format("%010d", number)))
end

function done(summary, latency)
  local counted = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses") or {}) do
      table.insert(counted, string.format('"%s": %d', status, count))
    end
  end
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "refused": %d, "broken": %d, "statuses": {%s}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, table.concat(counted, ", ")))
end
