-- Notes a sign of life of a session and returns the one before, in milliseconds; where there was none, this one.
-- A session that was idle for too long stays so: nothing is noted then.
-- KEYS: 1 the session's last sign of life. ARGV: 1 now, 2 how long it may be idle, 3 how long to keep it, all in milliseconds.
local now = tonumber(ARGV[1])
local last = tonumber(redis.call('GET', KEYS[1]) or now)
if now - last < tonumber(ARGV[2]) then
	-- A sign of life that comes late does not turn the clock back.
	redis.call('SET', KEYS[1], string.format('%.0f', math.max(now, last)), 'PX', ARGV[3])
end
return last
