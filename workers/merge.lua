-- Merge postbacks into one record: a grow-only set, so order and repetition do not matter.
--
-- KEYS[1]  the record, a hash; shared/postback/stored.py describes its fields
-- ARGV[1]  seconds to keep the record after a change
-- ARGV[2]  how many postbacks to keep, at most 78
-- ARGV[3]  notify: for each postback one digit, which says when its event is due if it decides its
--          track: 0 never, 1 unless it is a duplicate, 2 always (its batch was redelivered)
-- ARGV[4…] for each postback its name, its value, and in format 2 the value of the common field
--
-- A postback has a name of 46 characters in format 1, and of 21 or 24 in format 2. There the last
-- byte is 80 times the number of the track, plus the number of the common field, which is 0 in ARGV.
-- The name of a common field is one character. The field `dropped` says that postbacks were dropped,
-- because there were more than are kept.
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
local COMPARED = 4 -- common fields that are compared with a new postback's
local DELIVERED = 4 -- the phase of a rank
local byte, char, sub = string.byte, string.char, string.sub

local key, keep = KEYS[1], tonumber(ARGV[2])
local held = {} -- names by id
local top = {} -- the id that decides a track, by track
local used = {} -- how many postbacks have a common field, by its number
local count = 0

local function from_hex(digits)
  return (string.gsub(digits, '%x%x', function(two) return char(tonumber(two, 16)) end))
end

local TRACKS = {m = 0, d = 1, t = 2}

-- A postback's id is equal in both formats: 23 bytes for the rank, then the track.
local function id_of(name)
  if #name == 46 then
    return from_hex('0' .. sub(name, 2)) .. char(TRACKS[sub(name, 1, 1)] or 3)
  end
  local fraction = #name == 24 and sub(name, 9, 11) or '\0\0\0'
  return sub(name, 1, 8) .. fraction .. sub(name, -13, -2) .. char(math.floor(byte(name, -1) / 80))
end

local function track_of(id) return byte(id, 24) end

-- Lua compares strings in the order of the server's language, so the bytes are compared here.
local function above(one, other)
  for at = 1, #one do
    local a, b = byte(one, at), byte(other, at) or 0
    if a ~= b then return a > b end
  end
  return false
end

local function number_of(name)
  return #name ~= 46 and byte(name, -1) % 80 or nil
end

local function common_name(number) return char(48 + number) end

local function hold(id, name)
  local track, number = track_of(id), number_of(name)
  held[id] = name
  count = count + 1
  if number then used[number] = (used[number] or 0) + 1 end
  if not top[track] or above(id, top[track]) then top[track] = id end
end

-- Over the limit the lowest rank is dropped, but never a postback that decides its track. So the
-- postbacks that are kept stay a function of the set.
local function drop_lowest()
  local lowest
  for id in pairs(held) do
    if top[track_of(id)] ~= id and (not lowest or above(lowest, id)) then lowest = id end
  end
  local name = held[lowest]
  local number = number_of(name)
  held[lowest] = nil
  count = count - 1
  redis.call('HDEL', key, name)
  if number then
    used[number] = used[number] - 1
    if used[number] == 0 then
      used[number] = nil
      redis.call('HDEL', key, common_name(number))
    end
  end
  return redis.call('HSETNX', key, 'dropped', 1) == 1
end

-- Write a new postback; in format 2 with a common field that has the same value, or with a new one.
local function write(name, value, common)
  if not common then
    redis.call('HSET', key, name, value)
    return name
  end
  for number = 0, COMPARED - 1 do
    if used[number] and redis.call('HGET', key, common_name(number)) == common then
      name = sub(name, 1, -2) .. char(byte(name, -1) + number)
      redis.call('HSET', key, name, value)
      return name
    end
  end
  local number = 0
  while used[number] do number = number + 1 end
  name = sub(name, 1, -2) .. char(byte(name, -1) + number)
  redis.call('HSET', key, name, value, common_name(number), common)
  return name
end

-- The time of arrival in 7 bytes, which sort.
local function arrival_of(name, value)
  return #name == 46 and struct.pack('>I7', tonumber(sub(value, 1, 16))) or sub(value, 1, 7)
end

local function set_arrival(name, value, arrival)
  if #name == 46 then
    value = string.format('%016.0f', (struct.unpack('>I7', arrival))) .. sub(value, 17)
  else
    value = arrival .. sub(value, 8)
  end
  redis.call('HSET', key, name, value)
end

-- A worker of release 0.2.0 does not see format 2, and may have added a postback again in format 1.
local function remove_twin(id, name)
  local kept, twin = held[id], name
  if #twin ~= 46 then
    kept, twin = twin, kept
    held[id] = kept
    used[number_of(kept)] = (used[number_of(kept)] or 0) + 1
  end
  local arrival = arrival_of(twin, redis.call('HGET', key, twin))
  local value = redis.call('HGET', key, kept)
  if above(arrival_of(kept, value), arrival) then set_arrival(kept, value, arrival) end
  redis.call('HDEL', key, twin)
end

for _, name in ipairs(redis.call('HKEYS', key)) do
  if #name == 21 or #name == 24 or #name == 46 then
    local id = id_of(name)
    if held[id] then remove_twin(id, name) else hold(id, name) end
  end
end

local step = #ARGV[4] == 46 and 2 or 3
local ids, verdicts, changed = {}, {}, false
for i = 4, #ARGV, step do
  local name, value = ARGV[i], ARGV[i + 1]
  local id = id_of(name)
  ids[#ids + 1] = id
  if held[id] then
    local arrived = arrival_of(name, value)
    local present = redis.call('HGET', key, held[id])
    local known = arrival_of(held[id], present)
    verdicts[#verdicts + 1] = arrived == known and 's' or 'd'
    if above(known, arrived) then set_arrival(held[id], present, arrived) end
  else
    hold(id, write(name, value, step == 3 and ARGV[i + 2]))
    local first = count > keep and drop_lowest()
    -- If this postback is dropped at once, and others were dropped before, it was most likely
    -- merged and dropped before.
    local new = held[id] or first
    verdicts[#verdicts + 1] = new and 'n' or 'd'
    changed = changed or new
  end
end
if changed then redis.call('EXPIRE', key, ARGV[1]) end

local function size()
  local bytes = 0
  for _, name in pairs(held) do bytes = bytes + redis.call('HSTRLEN', key, name) end
  for number in pairs(used) do bytes = bytes + redis.call('HSTRLEN', key, common_name(number)) end
  return bytes
end

local function highest_of(tracks)
  local sorted = {}
  for id in pairs(held) do
    if tracks[track_of(id)] then sorted[#sorted + 1] = id end
  end
  table.sort(sorted, function(one, other)
    local decides = top[track_of(one)] == one
    if decides ~= (top[track_of(other)] == other) then return decides end
    return above(one, other)
  end)
  local found, with, bytes = {}, {}, 0
  for _, id in ipairs(sorted) do
    local name, number = held[id], number_of(held[id])
    local fields = {name, redis.call('HGET', key, name)}
    bytes = bytes + #fields[2]
    if number and not with[number] then
      fields[3], fields[4] = common_name(number), redis.call('HGET', key, common_name(number))
      bytes = bytes + #fields[4]
      with[number] = true
    end
    if bytes > LARGEST and top[track_of(id)] ~= id then break end
    for _, field in ipairs(fields) do found[#found + 1] = field end
  end
  return found
end

local due = {} -- tracks
for i, id in ipairs(ids) do
  local track = track_of(id)
  local notify = sub(ARGV[3], i, i)
  if notify == '2' or (notify == '1' and verdicts[i] ~= 'd') then
    if top[track] == id or byte(top[track]) == DELIVERED then due[track] = true end
  end
end

local record = {}
if next(due) then
  record = size() <= LARGEST and redis.call('HGETALL', key) or highest_of(due)
end
return {table.concat(verdicts), record}
