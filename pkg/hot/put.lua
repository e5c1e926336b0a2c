-- Stores a value unless one that is newer, or equally new and of the same run of this server, is there.
-- KEYS[1] key; ARGV[1] 8 bytes of sequence, big-endian, 8 bytes that name the run, and the value; ARGV[2] time to live in
-- milliseconds; ARGV[3] 1 to store only over an older one of the same run.
-- Returns 1 when stored, 0 when not.

-- A Lua number is exact up to 2^53 only: a sequence is compared in halves. Not struct.unpack, which not every server has.
local function halves(s)
  local a, b, c, d, e, f, g, h = s:byte(1, 8)
  return ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h
end

local kept = redis.call('GETRANGE', KEYS[1], 0, 15)
if #kept == 16 then -- a shorter one is not ours: overwrite it
  local kept_high, kept_low = halves(kept)
  local high, low = halves(ARGV[1])
  local same_run = kept:sub(9, 16) == ARGV[1]:sub(9, 16)
  if kept_high > high or (kept_high == high and kept_low > low) then
    return 0 -- also of another run: nobody reads it, but what is older must not take its place
  end
  if kept_high == high and kept_low == low and same_run then
    return 0
  end
  if ARGV[3] == '1' and not same_run then
    return 0
  end
elseif ARGV[3] == '1' then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
