// The same subscription on Node.js: graphql-ws over ws, as their documentation shows it.
// Environment: PORT, VALKEY_PORT.
import { EventEmitter, on } from 'node:events';
import net from 'node:net';
import { buildSchema } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';

const CHANNEL = 'model-manager:changes';
const changes = new EventEmitter();
changes.setMaxListeners(0);

const schema = buildSchema(`
  type Query { version: String }
  type Progress { bytesDone: Float! bytesTotal: Float fraction: Float bytesPerSecond: Float lastByteAt: String }
  type Job { state: String! stage: String message: String attempt: Int! progress: Progress! }
  type Subscription { jobProgress(jobId: ID!): Job! }
`);

function jobOf({ stage, message, progress }) {
  return {
    state: 'RUNNING',
    stage,
    message,
    attempt: 0,
    progress: {
      bytesDone: progress.bytes_done,
      bytesTotal: progress.bytes_total,
      fraction: progress.bytes_done / progress.bytes_total,
      bytesPerSecond: progress.bytes_per_second,
      lastByteAt: progress.last_byte_at,
    },
  };
}

const roots = {
  subscription: {
    async *jobProgress({ jobId }) {
      for await (const [data] of on(changes, `job:${jobId.replace('Job:', '')}`)) yield { jobProgress: jobOf(data) };
    },
  },
};

// A subscriber in the Redis protocol: three-part messages, each part with its length in front.
function listen(port) {
  let rest = Buffer.alloc(0);
  const socket = net.connect(port, '127.0.0.1', () => socket.write(`SUBSCRIBE ${CHANNEL}\r\n`));
  socket.on('data', (data) => {
    rest = rest.length ? Buffer.concat([rest, data]) : data;
    for (let read = readMessage(rest); read !== null; read = readMessage(rest)) {
      rest = rest.subarray(read.end);
      if (read.parts[0] !== 'message') continue;
      const { topic, data: change } = JSON.parse(read.parts[2]);
      changes.emit(topic, change);
    }
  });
}

function readMessage(buffer) {
  if (!buffer.length) return null;
  let end = buffer.indexOf('\r\n') + 2;
  const parts = [];
  for (let left = Number(buffer.toString('latin1', 1, end - 2)); left > 0; left -= 1) {
    const line = buffer.indexOf('\r\n', end);
    if (line < 0) return null;
    const value = Number(buffer.toString('latin1', end + 1, line));
    const isText = buffer[end] === 36;
    end = line + 2 + (isText ? value + 2 : 0);
    if (end > buffer.length) return null;
    parts.push(isText ? buffer.toString('utf8', line + 2, end - 2) : value);
  }
  return { parts, end };
}

listen(Number(process.env.VALKEY_PORT));
useServer({ schema, roots }, new WebSocketServer({ host: '127.0.0.1', port: Number(process.env.PORT), path: '/graphql' }));
