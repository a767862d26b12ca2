-- Add tracking-ids to the index of a client reference; the latest arrivals are kept.
--
-- KEYS[1]  the index of the reference, a sorted set of tracking-ids by time of arrival
-- ARGV[1]  seconds to keep it
-- ARGV[2]  how many tracking-ids to keep
-- ARGV[3…] for each tracking-id the time of arrival in microseconds and the id

for i = 3, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], 'GT', ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[2] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[1])
