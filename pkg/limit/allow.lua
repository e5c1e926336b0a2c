-- Decides several limits at once by GCRA: all are spent, or none is.
-- KEYS: one a limit. ARGV[1]: now in microseconds since 1970, '' = this server's clock. Then three a limit, in
-- microseconds: the interval between two events, the window (burst times interval), the longest wait.
-- Returns: index of the refusing limit (0 = none), its retry time, the wait, the least remaining (times in microseconds).
-- The same rule stands in gcra.go; a test holds them together.

local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
end

local held = redis.call('MGET', unpack(KEYS)) -- one call: each costs more than all that is calculated here
local after = {}
local refused, retry, wait = 0, 0, 0
local left_spent, left_kept
for i = 1, #KEYS do
  local interval, window, longest = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local tat = tonumber(held[i] or '') or now
  -- Never further ahead than this limit can lead: a clock that fell back or a limit that was lowered locks nobody out.
  tat = math.min(math.max(tat, now), now + window + longest)
  after[i] = tat + interval

  local early = math.max(after[i] - window - now, 0)
  if early - longest > retry then
    refused, retry = i, early - longest
  end
  wait = math.max(wait, early)
  local spent = math.max(math.floor((window - (after[i] - now)) / interval), 0)
  local kept = math.max(math.floor((window - (tat - now)) / interval), 0)
  left_spent, left_kept = math.min(left_spent or spent, spent), math.min(left_kept or kept, kept)
end

if refused > 0 then
  return { refused, retry, 0, left_kept }
end
for i, key in ipairs(KEYS) do
  -- The time to live only cleans up. The minute more is for callers that bring a clock of their own.
  local ttl = math.ceil((after[i] - now) / 1000) + 60000
  redis.call('SET', key, string.format('%.0f', after[i]), 'PX', string.format('%.0f', ttl))
end
return { 0, 0, wait, left_spent }
