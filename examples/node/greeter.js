'use strict'
// greeter is a child of an agent, in Node. docs/children.md goes through it, and
// README.md beside it tells what it serves and how it is started.

const fs = require('node:fs')
const http = require('node:http')
const path = require('node:path')
const { setTimeout: sleep } = require('node:timers/promises')
const grpc = require('@grpc/grpc-js')
const loader = require('@grpc/proto-loader')

// What the agent says in our environment. In a developer's shell there is
// nothing, and the greeter serves a free port.
const agent = process.env.MACHINEAGENT_ADDRESS
const instance = process.env.MACHINEAGENT_INSTANCE ?? 'nobody'
const port = Number(process.env.HTTP_PORT ?? 0)
const spawn = JSON.parse(process.env.ALLEX_SPAWN ?? '{}')
const properties = { greeting: 'hello', friend: '', ...spawn.propertyhash }

// The API, from its .proto files.
const api = grpc.loadPackageDefinition(loader.loadSync(
  ['process_service', 'directory_service', 'child_service'].map(file => `machineagent/v1/${file}.proto`),
  { includeDirs: [path.join(__dirname, 'proto')] }
)).machineagent.v1
const connect = Service => agent && new Service(agent, grpc.credentials.createInsecure(), {
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 1000
})
const processes = connect(api.ProcessService)
const directory = connect(api.DirectoryService)

// call makes a promise of a call.
function call (client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, { deadline: Date.now() + 10_000 },
      (error, answer) => error ? reject(error) : resolve(answer))
  })
}

let services = new Map() // those of the LAN, by instance
let watch // the stream that tells of them
let down = false // we have said so
let stopping = false

// stayRegistered says that we are up, to whichever agent there is. A watch that
// ends is how we hear that the agent has gone.
async function stayRegistered () {
  while (!stopping && !down) {
    try {
      await call(processes, 'registerProcess', {
        instance, ports: { http: web.address().port }, statusText: 'greets in Node'
      })
      await watchServices()
    } catch (error) {
      if (!stopping) console.log(`the agent: ${error.details ?? error.message}`)
    }
    await sleep(200, undefined, { ref: false })
  }
}

// watchServices keeps the table of services until the watch ends.
function watchServices () {
  return new Promise((resolve, reject) => {
    const table = new Map()
    watch = directory.watchServices({})
    watch.on('data', ({ service, gone, initialEnd }) => {
      if (service) table.set(service.instance, service)
      if (gone) table.delete(gone)
      if (initialEnd) services = table // until then the old one is better
    })
    watch.on('error', reject)
    watch.on('end', resolve)
  })
}

const address = service => `${service.ipAddress}:${service.ports.http}`

// pages are what we serve.
const pages = {
  '/': () => `${properties.greeting} from ${instance}, pid ${process.pid}\n`,
  '/services': () => [...services.values()].map(s => `${s.instance} ${address(s)}\n`).sort().join(''),
  '/friend': async () => {
    const friend = services.get(properties.friend)
    if (!friend) throw new Error(`no service "${properties.friend}"`)
    return (await fetch(`http://${address(friend)}/`)).text()
  },
  '/down': async () => {
    down = true
    await call(processes, 'reportDown', { instance, reason: 'somebody asked for it' })
    return 'goodbye\n'
  }
}

const web = http.createServer(async (request, response) => {
  const page = pages[request.url]
  try {
    if (!page) response.statusCode = 404
    response.end(page ? await page() : 'no such page\n')
  } catch (error) {
    response.statusCode = 503
    response.end(`${error.message}\n`)
  }
})

// Our own socket, on which the agent asks us to end. Nobody else may.
const own = new grpc.Server()
own.addService(api.ChildService.service, {
  stop ({ request }, answer) {
    answer(null, {})
    stop(request.reason)
  }
})

function serveOwnSocket () {
  const file = `/tmp/allexprocess.${process.pid}`
  fs.rmSync(file, { force: true }) // of an earlier process of our pid
  const mask = process.umask(0o077)
  own.bindAsync(`unix:${file}`, grpc.ServerCredentials.createInsecure(), error => {
    process.umask(mask)
    if (error) console.log(`only signals can stop us: ${error.message}`)
  })
}

// stop closes everything that keeps Node alive, so that it ends with 0 when the
// answers that are under way have been given.
function stop (reason) {
  if (stopping) return
  stopping = true
  console.log(`ended: ${reason}`)
  own.tryShutdown(() => {})
  web.close(() => {
    watch?.cancel()
    processes?.close()
    directory?.close()
  })
  web.closeIdleConnections()
}

process.on('SIGTERM', stop)
process.on('SIGINT', stop)
serveOwnSocket()
web.listen(port, () => {
  console.log(`${instance} serves port ${web.address().port}`)
  if (agent) stayRegistered()
})
