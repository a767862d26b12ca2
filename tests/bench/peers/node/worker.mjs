// amqplib and ioredis: a worker that does the work for one postback at a time, many at once.
//
// As their documentation shows: a prefetch, so that many postbacks are in work at the same time;
// ioredis with automatic pipelining, so that all script calls of one turn of the event loop are one
// pipeline; `defineCommand`, which calls scripts by their digest; events with confirms on a channel
// of their own. A postback is done when its event is confirmed. Then all that are done, up to the
// first one that is not, are acknowledged together.

import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'
import { confirming, open, QUEUE } from './rabbitmq.mjs'
import { decode, dueEvent, entryName, entryValue, notifyDigit } from './postback.mjs'

const PREFETCH = 500
const EVENTS = 'mms.events'
const TTL = 7 * 86400
const MAX_POSTBACKS = 64
const MAX_TRACKING_IDS = 64

const redis = new Redis(process.env.MMS_REDIS_URL ?? 'redis://127.0.0.1:6379/0', {
  enableAutoPipelining: true,
  maxRetriesPerRequest: null // wait for Redis as long as it is away
})
// Copies of the worker's scripts of release 0.2.0: the fields of a record are theirs.
for (const name of ['merge', 'index']) {
  const lua = readFileSync(new URL(`${name}.lua`, import.meta.url), 'utf8')
  redis.defineCommand(name, { numberOfKeys: 1, lua })
}

await open(async (model) => {
  const publishing = await confirming(model)
  const consuming = await model.createChannel()
  consuming.on('error', (error) => console.error(`RabbitMQ: ${error.message}`))
  await consuming.prefetch(PREFETCH)
  const settled = acknowledger(consuming)
  await consuming.consume(QUEUE, async (message) => {
    const tag = message.fields.deliveryTag
    try {
      await take(message, publishing)
      settled(tag, true)
    } catch (error) {
      console.error(error.message)
      settled(tag, false)
    }
  })
})
console.log('ready')

/** Decode, merge, and publish the event that is due; done when RabbitMQ has confirmed it. */
async function take (message, publishing) {
  const receivedAt = Date.now() * 1000
  const postback = decode('default', message.content)
  const merging = redis.merge(
    postback.key, TTL, MAX_POSTBACKS, notifyDigit(postback, message.fields.redelivered),
    entryName(postback), entryValue(receivedAt, postback)
  )
  const reference = postback.clientReference
  const [[verdicts, record]] = await Promise.all([
    merging,
    reference === undefined
      ? null
      : redis.index(`mms:ref:{default/${reference}}`, TTL, MAX_TRACKING_IDS, receivedAt, postback.id)
  ])
  const event = dueEvent(postback, verdicts, record, message.fields.redelivered)
  if (event !== null) await publish(publishing, event)
}

function publish (publishing, { routingKey, body, id, type }) {
  const options = { contentType: 'application/cloudevents+json', messageId: id, type }
  return new Promise((resolve, reject) => {
    publishing.send(EVENTS, routingKey, Buffer.from(body), options, (error) => {
      if (error) reject(error)
      else resolve()
    })
  })
}

/**
 * Acknowledges deliveries together: all that are done, up to the first one in work.
 *
 * `settled(tag, ok)` notes that a delivery is done. With `ok` false it is requeued; the queue's
 * delivery limit ends the retries. RabbitMQ requeues all of a channel that is closed.
 */
function acknowledger (channel) {
  const later = new Map()
  let upTo = 0
  let scheduled = false
  let closed = false
  channel.on('close', () => { closed = true })
  function flush () {
    scheduled = false
    if (closed) return
    let last = 0
    for (let ok; (ok = later.get(upTo + 1)) !== undefined; later.delete(upTo)) {
      upTo++
      if (ok) last = upTo
    }
    if (last > 0) channel.ack({ fields: { deliveryTag: last } }, true)
  }
  return (tag, ok) => {
    if (closed) return
    if (!ok) channel.nack({ fields: { deliveryTag: tag } })
    later.set(tag, ok)
    if (!scheduled) {
      scheduled = true
      setImmediate(flush)
    }
  }
}
