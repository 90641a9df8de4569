// Node's http2: it echoes a request's body, and says how often each came. Its paths ask for what servers do at times.
'use strict';
const fs = require('fs');
const http2 = require('http2');

const [, , descriptor, certificate, streams] = process.argv;
const settings = { maxConcurrentStreams: Number(streams) };
const pem = certificate === '-' ? null : fs.readFileSync(certificate);
const server = pem ? http2.createSecureServer({ key: pem, cert: pem, settings }) : http2.createServer({ settings });
const came = new Map();
let count = 0;

server.on('stream', (stream, headers) => {
  const pieces = [];
  stream.on('error', () => {});
  stream.on('data', (piece) => pieces.push(piece));
  stream.on('end', () => {
    const body = Buffer.concat(pieces);
    if (stream.destroyed) return;
    switch (headers[':path']) {
      case '/most':
        stream.respond({ ':status': 200 });
        stream.end(String(Math.max(0, ...came.values())));
        return;
      case '/reset':
        stream.close(Number(body));
        return;
      case '/hints':
        stream.additionalHeaders({ ':status': 103, link: '</x>' });
        stream.respond({ ':status': 200 }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '1' }));
        stream.end(body);
        return;
      case '/goodbye': // now and then, gracefully
        if (++count % 20 === 0) stream.session.close();
        break;
      case '/hard': // now and then, at once
        if (++count % 20 === 0) {
          stream.session.destroy();
          return;
        }
        break;
      case '/many':
        stream.respond({ ':status': 200 });
        stream.end(Buffer.alloc(Number(body), 'x'));
        return;
    }
    if (body.length < 10) came.set(body.toString(), (came.get(body.toString()) || 0) + 1);
    stream.respond({ ':status': 200, 'content-length': body.length });
    stream.end(body);
  });
});
server.on('sessionError', () => {});
server.on('session', (session) => session.on('error', () => {}));
server.listen({ fd: Number(descriptor) });
