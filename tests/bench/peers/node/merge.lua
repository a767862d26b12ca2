-- Merge postbacks into one record: a grow-only set, so order and repetition do not matter.
--
-- KEYS[1]  the record, a hash. Each postback is one field. Its name is one character for the track,
--          then the rank, which sorts. Its value begins with the time of arrival as 16 digits. The
--          field `dropped` says that postbacks were dropped, because there were more than are kept.
-- ARGV[1]  seconds to keep the record after a change
-- ARGV[2]  how many postbacks to keep
-- ARGV[3]  notify: for each postback one digit, which says when its event is due if it decides its
--          track: 0 never, 1 unless it is a duplicate, 2 always (its batch was redelivered)
-- ARGV[4…] for each postback its field and its value
--
-- Returns the verdicts and the record.
--
-- The verdicts are a string with one character for each postback:
--   n  new
--   s  same arrival: the record has this postback with this time of arrival. A rebuild or a batch
--      that was published twice merged it, perhaps without an event.
--   d  duplicate: the record has this postback from another arrival.
--
-- The record is an empty list when no event is due. A record may have 64 postbacks of 64 KiB, and a
-- window may have hundreds of due events. So of a record that is larger than LARGEST only the tracks
-- with a due event are returned: first the postbacks that decide them, then their other postbacks
-- from the highest rank down, while they fit.
--
-- Release 0.1.0 ranked some postbacks as deliveries that are none. A postback below such a name may
-- decide its track. So the record is returned then too, and the caller reads what the postbacks say.

local LARGEST = 32768 -- bytes
local DELIVERED = '4' -- the phase of a rank

local key, keep = KEYS[1], tonumber(ARGV[2])
local held, top, count = {}, {}, 0

local function hold(name)
  local track = string.sub(name, 1, 1)
  held[name] = true
  count = count + 1
  if not top[track] or name > top[track] then top[track] = name end
end

-- Over the limit the lowest rank is dropped, but never a postback that decides its track. So the
-- postbacks that are kept stay a function of the set.
local function drop_lowest()
  local lowest
  for name in pairs(held) do
    local decides = top[string.sub(name, 1, 1)] == name
    if not decides and (not lowest or string.sub(name, 2) < string.sub(lowest, 2)) then
      lowest = name
    end
  end
  held[lowest] = nil
  count = count - 1
  redis.call('HDEL', key, lowest)
  return redis.call('HSETNX', key, 'dropped', 1) == 1
end

for _, name in ipairs(redis.call('HKEYS', key)) do
  if name ~= 'dropped' then hold(name) end
end

local verdicts, changed = {}, false
for i = 4, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if held[name] then
    local arrived = string.sub(value, 1, 16)
    local known = string.sub(redis.call('HGET', key, name), 1, 16)
    verdicts[#verdicts + 1] = arrived == known and 's' or 'd'
    if arrived < known then redis.call('HSET', key, name, value) end
  else
    redis.call('HSET', key, name, value)
    hold(name)
    local first = count > keep and drop_lowest()
    -- If this postback is dropped at once, and others were dropped before, it was most likely
    -- merged and dropped before.
    local new = held[name] or first
    verdicts[#verdicts + 1] = new and 'n' or 'd'
    changed = changed or new
  end
end
if changed then redis.call('EXPIRE', key, ARGV[1]) end

local function size()
  local bytes = 0
  for name in pairs(held) do bytes = bytes + redis.call('HSTRLEN', key, name) end
  return bytes
end

local function highest_of(tracks)
  local names = {}
  for name in pairs(held) do
    if tracks[string.sub(name, 1, 1)] then names[#names + 1] = name end
  end
  table.sort(names, function(one, other)
    local decides = top[string.sub(one, 1, 1)] == one
    if decides ~= (top[string.sub(other, 1, 1)] == other) then return decides end
    return string.sub(one, 2) > string.sub(other, 2)
  end)
  local found, bytes = {}, 0
  for _, name in ipairs(names) do
    local value = redis.call('HGET', key, name)
    bytes = bytes + #value
    if bytes > LARGEST and top[string.sub(name, 1, 1)] ~= name then break end
    found[#found + 1] = name
    found[#found + 1] = value
  end
  return found
end

local due = {} -- tracks
for i = 1, #verdicts do
  local name = ARGV[2 * i + 2]
  local track = string.sub(name, 1, 1)
  local notify = string.sub(ARGV[3], i, i)
  if notify == '2' or (notify == '1' and verdicts[i] ~= 'd') then
    if top[track] == name or string.sub(top[track], 2, 2) == DELIVERED then due[track] = true end
  end
end

local record = {}
if next(due) then
  record = size() <= LARGEST and redis.call('HGETALL', key) or highest_of(due)
end
return {table.concat(verdicts), record}
