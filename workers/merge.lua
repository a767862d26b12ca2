-- Merge postbacks into one record: a grow-only set, so order and repetition do not matter.
--
-- KEYS[1]  the record, a hash. A field is a postback: the track's letter and the rank, which sorts.
--          Its value begins with the time of arrival as 16 digits. One more field, `dropped`,
--          says that there were more than are kept.
-- ARGV[1]  seconds to keep the record after a change
-- ARGV[2]  how many postbacks to keep
-- ARGV[3]  for each postback one digit, when to tell of it if it decides its track: 0 never, 1 when
--          it is new or the same arrival, 2 also when it is a duplicate (it was redelivered)
-- ARGV[4…] for each postback its field and its value
--
-- Returns a string with one letter for each postback: n new, s known by this very arrival (a rebuild
-- or a batch published twice brought it in, and maybe told nobody), d a duplicate, which came at
-- another time; in capitals when it decides its track now. Then, if somebody is to be told, the
-- record; else an empty list. A record may have 64 postbacks of 64 KiB, and a window may be due to
-- tell of hundreds. So of one that is larger than LARGEST only the tracks to be told of come, what
-- decides them first, then their other postbacks from the highest rank down while they fit.
--
-- Release 0.1.0 named some postbacks as deliveries that are none. What such a name is above may
-- decide its track, so the record is returned for whoever can read what the postbacks say.

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

-- Over the limit the lowest rank goes, but never what decides a track: what is kept stays a
-- function of the set.
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

local letters, changed = {}, false
for i = 4, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if held[name] then
    local arrived = string.sub(value, 1, 16)
    local known = string.sub(redis.call('HGET', key, name), 1, 16)
    letters[#letters + 1] = arrived == known and 's' or 'd'
    if arrived < known then redis.call('HSET', key, name, value) end
  else
    redis.call('HSET', key, name, value)
    hold(name)
    local first = count > keep and drop_lowest()
    -- What goes at once, like others before it, has most likely been here and gone before.
    local new = held[name] or first
    letters[#letters + 1] = new and 'n' or 'd'
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

local tell = {} -- tracks
for i = 1, #letters do
  local name = ARGV[2 * i + 2]
  local track = string.sub(name, 1, 1)
  local wish = string.sub(ARGV[3], i, i)
  local due = wish == '2' or (wish == '1' and letters[i] ~= 'd')
  if due and (top[track] == name or string.sub(top[track], 2, 2) == DELIVERED) then
    tell[track] = true
  end
  if top[track] == name then letters[i] = string.upper(letters[i]) end
end

local told = {}
if next(tell) then
  told = size() <= LARGEST and redis.call('HGETALL', key) or highest_of(tell)
end
return {table.concat(letters), told}
