-- wrk's report as JSON: requests a second, failures, and the milliseconds within which a share of the requests was answered. With WRK_DELAY,
-- milliseconds, each connection pauses about that long between two requests.
local pause = tonumber(os.getenv("WRK_DELAY") or "0")

if pause > 0 then
   function delay()
      return math.floor(2 * pause * math.random() + 0.5)
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '\nREPORT {"rate": %.1f, "failed": %d, "p50": %.3f, "p99": %.3f, "p999": %.3f}\n',
      summary.requests / summary.duration * 1e6,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000))
end
