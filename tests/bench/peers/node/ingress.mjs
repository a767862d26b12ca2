// Fastify and amqplib: one publish and one confirm for each request.
//
// As their documentation shows: one process, no log, a parser that leaves the body as a buffer, one
// confirm channel with a callback for each message, persistent messages, `mandatory`, to a quorum
// queue. Requests are concurrent, so the channel waits for many confirms at once, and amqplib
// writes all messages of one turn of the event loop together. Without RabbitMQ the answer is 503.
// There is no time limit for a confirm: it would cost a timer for each request.

import Fastify from 'fastify'
import { parseArgs } from 'node:util'
import { QUEUE, confirming, open } from './rabbitmq.mjs'

const { port } = parseArgs({ options: { port: { type: 'string' } } }).values
const OPTIONS = { contentType: 'application/json' }

let channel = null
let blocked = false

await open(async (model) => {
  const opened = await confirming(model)
  opened.on('close', () => { channel = null })
  model.on('blocked', () => { blocked = true })
  model.on('unblocked', () => { blocked = false })
  channel = opened
  blocked = false
})

const app = Fastify({ logger: false, bodyLimit: 64 * 1024 })
app.removeAllContentTypeParsers()
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))

app.post('/postbacks', (request, reply) => {
  if (channel === null || blocked) {
    unavailable(reply)
    return
  }
  channel.send('', QUEUE, request.body, OPTIONS, (error) => {
    if (error) unavailable(reply)
    else reply.send()
  })
})

function unavailable (reply) {
  reply.code(503).header('retry-after', '5').send()
}

await app.listen({ host: '127.0.0.1', port: Number(port), backlog: 1024 })
