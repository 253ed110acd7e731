-- Requests from a file, a line each, built once before the run and sent in its order.
-- Arguments: the file, the method, the path of a POST (whose bodies the lines are), the key.

local built, at = {}, 0

function init(args)
  local file, method, path, key = args[1], args[2], args[3], args[4]
  local headers = { ["X-API-Key"] = key, ["Host"] = wrk.host }
  if method == "POST" then headers["Content-Type"] = "application/json" end
  for line in io.lines(file) do
    if method == "POST" then
      built[#built + 1] = wrk.format(method, path, headers, line)
    else
      built[#built + 1] = wrk.format(method, line, headers)
    end
  end
end

function request()
  at = at % #built + 1
  return built[at]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,'
    .. '"refused":%d,"broken":%d,"timeouts":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write, errors.timeout))
end
