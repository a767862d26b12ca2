// The connection to RabbitMQ, as amqplib's documentation shows: one connection, which amqplib opens
// again after a loss, and channels that `setup` opens after each connect.

import { connect } from 'amqplib'

export const QUEUE = 'bench.node'
const ARGUMENTS = { 'x-queue-type': 'quorum', 'x-delivery-limit': 20 }

const AMQP_URL = process.env.MMS_AMQP_URL ?? 'amqp://guest:guest@127.0.0.1:5672/'

/**
 * Connect, and call `setup(connection)` after each connect.
 *
 * A heartbeat of 5 s finds a server that does not answer within 10 s; then amqplib closes the
 * channels and calls the callback of each unconfirmed message with an error.
 */
export async function open (setup) {
  const connection = await connect(AMQP_URL, {
    heartbeat: 5,
    noDelay: true,
    recovery: {
      setup: async (model) => {
        const channel = await model.createChannel()
        await channel.assertQueue(QUEUE, { durable: true, arguments: ARGUMENTS })
        await channel.close()
        await setup(model)
      }
    }
  })
  connection.on('error', (error) => console.error(`RabbitMQ: ${error.message}`))
}

/**
 * A channel with publisher confirms. Its `send` publishes a persistent and mandatory message, and
 * calls `done(error)` when RabbitMQ has confirmed it in all queues, returned it or rejected it.
 */
export async function confirming (model) {
  const channel = await model.createConfirmChannel()
  const returned = new Set()
  let published = 0
  channel.on('error', (error) => console.error(`RabbitMQ: ${error.message}`))
  // RabbitMQ returns an unroutable message before it confirms it.
  channel.on('return', (message) => returned.add(message.properties.correlationId))
  channel.send = (exchange, routingKey, content, options, done) => {
    const id = String(++published)
    const properties = { ...options, persistent: true, mandatory: true, correlationId: id }
    channel.publish(exchange, routingKey, content, properties, (error) => {
      done(error ?? (returned.size > 0 && returned.delete(id) ? new Error('unroutable') : null))
    })
  }
  return channel
}
