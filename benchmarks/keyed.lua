-- wrk: POST BODY with %s in it replaced by a key drawn from c0 .. c(KEYS-1), with the headers in HEADERS.
local headers = { }
for line in (os.getenv("HEADERS") or ""):gmatch("[^\n]+") do
  local name, value = line:match("^([^:]+): (.*)$")
  headers[name] = value
end
local file = io.open(os.getenv("BODY"), "rb"); local body = file:read("*a"); file:close()
local before, after = body:match("^(.-)%%s(.*)$")
local keys = tonumber(os.getenv("KEYS"))
function init(args)
  math.randomseed(7)
end
function request()
  return wrk.format("POST", nil, headers, before .. "c" .. math.random(0, keys - 1) .. after)
end
function done(summary, latency, requests)
  io.write(string.format('RESULT {"rate": %.1f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
