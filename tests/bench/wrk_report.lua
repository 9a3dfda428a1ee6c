-- SPDX-License-Identifier: Apache-2.0
-- Has wrk print one line of JSON, because its own text rounds the latencies, and pause before each request when it is told to:
--     wrk -s wrk_report.lua URL -- MILLISECONDS
function init(arguments)
    local pause = tonumber(arguments[1] or "0")
    if pause > 0 then
        -- Never in step with each other.
        delay = function() return math.random(0, 2 * pause) end
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format('\nREPORT {"requests": %d, "seconds": %.6f, "p50_us": %d, "p99_us": %d, "max_us": %d, "errors": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
