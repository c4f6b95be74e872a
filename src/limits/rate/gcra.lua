-- One step of GCRA: takes a unit of KEYS[1] if there is one.
--
-- ARGV[1]: units a second. ARGV[2]: units at once. ARGV[3], which only tests give: the time.
-- Answers whether it took one, how many are left, and in how many microseconds there is one if not.
--
-- Times are microseconds since 2025, so that a double holds hundredths of them. What is stored is the
-- moment at which all units are there again.
local now = tonumber(ARGV[3])
if not now then
    local time = redis.call('time')
    now = (time[1] - 1735689600) * 1000000 + time[2]
end
local interval = 1000000 / ARGV[1]
local window = interval * ARGV[2]
-- A second longer than it counts: Redis ends it by its millisecond.
local function keep(whole)
    local text = string.format('%.3f', whole)
    redis.call('set', KEYS[1], text, 'px', math.ceil((whole - now) / 1000) + 1000)
end
local whole = math.max(tonumber(redis.call('get', KEYS[1])) or now, now)
if whole > now + window then
    -- It cannot be later than a window from now, so the clock was set back. Kept even if nothing is taken,
    -- or nobody would come in until the clock is where it was.
    whole = now + window
    keep(whole)
end
-- Rounded in favour of who asks, by a hundredth of a unit.
local left = math.floor((now + window - whole) / interval + 0.01)
if left < 1 then
    return {0, 0, math.ceil(whole + interval - window - now)}
end
keep(whole + interval)
return {1, left - 1, 0}
