-- Add tracking-ids to the index of a client reference; the latest arrivals are kept.
--
-- KEYS[1]  the index of the reference. While it has one tracking-id it is a string: the time of
--          arrival in 7 bytes, then the id. With more it is a sorted set of tracking-ids by time of
--          arrival. So the usual index takes half the memory.
-- ARGV[1]  seconds to keep it
-- ARGV[2]  how many tracking-ids to keep
-- ARGV[3]  1: always a sorted set, as 0.2.0 and earlier releases need it; 2: as above
-- ARGV[4…] for each tracking-id the time of arrival in microseconds and the id

local key, ttl = KEYS[1], ARGV[1]
local kind = redis.call('TYPE', key).ok
local held, arrived -- the tracking-id in the string, and its time of arrival

if kind == 'string' then
  local value = redis.call('GET', key)
  arrived, held = struct.unpack('>I7', value), string.sub(value, 8)
end

local one = ARGV[3] == '2' and kind ~= 'zset' -- whether there is one tracking-id after this
local id, latest = held, arrived or 0
for i = 4, #ARGV, 2 do
  id = id or ARGV[i + 1]
  one = one and ARGV[i + 1] == id
  latest = math.max(latest, tonumber(ARGV[i]))
end

if one then
  redis.call('SET', key, struct.pack('>I7', latest) .. id, 'EX', ttl)
  return
end

if held then
  redis.call('DEL', key)
  redis.call('ZADD', key, string.format('%.0f', arrived), held)
end
for i = 4, #ARGV, 2 do
  redis.call('ZADD', key, 'GT', ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYRANK', key, 0, -ARGV[2] - 1)
redis.call('EXPIRE', key, ttl)
