-- wrk: POST the file in BODY with the headers in HEADERS ("name: value" lines), print one machine-readable line.
wrk.method = "POST"
for line in (os.getenv("HEADERS") or ""):gmatch("[^\n]+") do
  local name, value = line:match("^([^:]+): (.*)$")
  wrk.headers[name] = value
end
local file = io.open(os.getenv("BODY"), "rb"); wrk.body = file:read("*a"); file:close()
function done(summary, latency, requests)
  io.write(string.format('RESULT {"rate": %.1f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n',
    summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
