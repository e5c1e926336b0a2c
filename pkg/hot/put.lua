-- Stores a value unless a newer or equally new one is there.
-- KEYS[1] key; ARGV[1] 8 bytes of sequence, big-endian, and the value; ARGV[2] time to live in milliseconds.
-- Returns 1 when stored, 0 when not.

-- A Lua number is exact up to 2^53 only: a sequence is compared in halves. Not struct.unpack, which not every server has.
local function halves(s)
  local a, b, c, d, e, f, g, h = s:byte(1, 8)
  return ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h
end

local kept = redis.call('GETRANGE', KEYS[1], 0, 7)
if #kept == 8 then -- a shorter one is not ours: overwrite it
  local kept_high, kept_low = halves(kept)
  local high, low = halves(ARGV[1])
  if kept_high > high or (kept_high == high and kept_low >= low) then
    return 0
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
