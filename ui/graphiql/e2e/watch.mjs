// What the page did besides what it showed: hosts it asked, complaints in the console, frames on its sockets.

export async function watch(page, { baseUrl, token }) {
  const { host } = new URL(baseUrl);
  const counts = { requests: 0, authorized: 0, workers: 0 };
  const seen = { ...counts, foreign: [], leaks: [], complaints: [], sent: [], received: [] };

  function note(url) {
    const { protocol, host: asked } = new URL(url);
    if (protocol === 'data:' || protocol === 'blob:') return;
    seen.requests += 1;
    if (asked !== host) seen.foreign.push(url);
    if (url.includes(token)) seen.leaks.push(url);
  }

  page.context().on('request', (request) => {
    note(request.url());
    if (request.headers().authorization === `Bearer ${token}`) seen.authorized += 1;
  });
  page.on('websocket', (socket) => {
    note(socket.url());
    socket.on('framesent', ({ payload }) => seen.sent.push(JSON.parse(payload)));
    socket.on('framereceived', ({ payload }) => seen.received.push(JSON.parse(payload)));
  });
  page.on('worker', () => (seen.workers += 1));
  page.on('pageerror', (error) => seen.complaints.push(String(error)));
  page.on('console', (message) => {
    // Monaco only warns when it has to do without its workers; the page must not come to that.
    const isComplaint = message.type() === 'error' || /web worker/i.test(message.text());
    if (isComplaint) seen.complaints.push(message.text());
  });
  await page.exposeFunction('noteViolation', (violation) => seen.complaints.push(violation));
  await page.addInitScript(() =>
    document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) =>
      window.noteViolation(`The policy's ${violatedDirective} refused ${blockedURI}`),
    ),
  );
  return seen;
}
