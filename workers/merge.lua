-- Merge postbacks into one record: a grow-only set, so order and repetition do not matter.
--
-- KEYS[1]  the record, a hash. A field is a postback: the track's letter and the rank, which sorts.
--          Its value begins with the time of arrival as 16 digits. One more field, `dropped`,
--          counts what was not kept.
-- ARGV[1]  seconds to keep the record after a change
-- ARGV[2]  how many postbacks to keep
-- ARGV[3]  for each postback one digit: 0 tell nobody, 1 tell when it is new and decides its track,
--          2 tell also when it is known already and decides its track (it was redelivered)
-- ARGV[4…] for each postback its field and its value
--
-- Returns a string with one letter for each postback: n new, d duplicate; N and D when it decides
-- its track now. Then, if somebody is to be told, the whole record; else an empty list.

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
  redis.call('HINCRBY', key, 'dropped', 1)
end

for _, name in ipairs(redis.call('HKEYS', key)) do
  if name ~= 'dropped' then hold(name) end
end

local letters, changed = {}, false
for i = 4, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if held[name] then
    letters[#letters + 1] = 'd'
    local known = redis.call('HGET', key, name)
    if string.sub(value, 1, 16) < string.sub(known, 1, 16) then
      redis.call('HSET', key, name, value)
    end
  else
    letters[#letters + 1] = 'n'
    redis.call('HSET', key, name, value)
    changed = true
    hold(name)
    if count > keep then drop_lowest() end
  end
end
if changed then redis.call('EXPIRE', key, ARGV[1]) end

local tell = false
for i = 1, #letters do
  local name = ARGV[2 * i + 2]
  if top[string.sub(name, 1, 1)] == name then
    letters[i] = string.upper(letters[i])
    local wish = string.sub(ARGV[3], i, i)
    tell = tell or wish == '2' or (wish == '1' and letters[i] == 'N')
  end
end
return {table.concat(letters), tell and redis.call('HGETALL', key) or {}}
