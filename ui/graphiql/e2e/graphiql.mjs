// Drives the GraphiQL page of a running server in a real browser.
//
//   BASE_URL=http://127.0.0.1:8000 TOKEN=... node e2e/graphiql.mjs
//
// Prints one line of JSON and exits 0, or says in one sentence what was wrong and exits 1.
// SCREENSHOT=path.png keeps a picture of the last state; COLOR_SCHEME=dark takes it in the dark.
import { chromium } from 'playwright-core';
import { chromiumOptions } from './chromium.mjs';
import { watch } from './watch.mjs';

const { BASE_URL: baseUrl, TOKEN: token, SCREENSHOT: screenshot, COLOR_SCHEME: colorScheme = 'light' } = process.env;
const WAIT_MILLISECONDS = 20_000;
const QUERY = 'query Version { server { version } }';
const SUBSCRIPTION = 'subscription Live { jobs { job { id state } } }';

async function main() {
  check(baseUrl && token, 'BASE_URL and TOKEN must be set.');
  const browser = await chromium.launch(await chromiumOptions());
  try {
    const page = await browser.newPage({ colorScheme, viewport: { width: 1280, height: 800 } });
    page.setDefaultTimeout(WAIT_MILLISECONDS);
    const seen = await watch(page, { baseUrl, token });
    const outcome = await visit(page, seen).finally(() => screenshot && page.screenshot({ path: screenshot }));
    await checkManners(page, seen);
    return { ...outcome, requests: seen.requests, workers: seen.workers };
  } finally {
    await browser.close();
  }
}

async function visit(page, seen) {
  const response = await page.goto(new URL('/graphiql/', baseUrl).href);
  check(response.status() === 200, `/graphiql/ answered ${response.status()}.`);
  check((await page.title()) === 'Model Manager API', 'Another page is at /graphiql/.');
  await enterToken(page);

  await page.getByRole('button', { name: 'New tab' }).click();
  await write(page, QUERY);
  await page.getByRole('button', { name: /execute query/i }).click();
  const version = await readVersion(page);

  await write(page, SUBSCRIPTION);
  await page.getByRole('button', { name: /execute query/i }).click();
  const subscription = await readSubscription(page, seen);
  return { ok: true, version, subscription };
}

async function enterToken(page) {
  await page.getByText('Paste a token: every operation needs one.').waitFor();
  await page.getByLabel('Token').fill(token);
  await page.getByLabel('Token').press('Enter');
  const state = page.locator('#token-state:is([data-kind="accepted"], [data-kind="refused"])');
  await state.waitFor();
  check((await state.getAttribute('data-kind')) === 'accepted', await state.textContent());
}

async function write(page, operation) {
  await page.locator('.graphiql-query-editor .view-lines').click();
  await page.keyboard.press('ControlOrMeta+A');
  await page.keyboard.insertText(operation);
  const isThere = async () => (await squeezedText(page, '.graphiql-query-editor')) === squeeze(operation);
  await until(isThere, 'The editor did not take the operation.');
}

async function readVersion(page) {
  const read = async () => /"version":"([^"]+)"/.exec(await squeezedText(page, '.graphiql-response'))?.[1];
  await until(read, 'The answer to the query did not appear.');
  return read();
}

/** "received" when a job came; "running" when the server has accepted it and there is no job to tell of. */
async function readSubscription(page, seen) {
  await page.getByRole('button', { name: /stop query/i }).waitFor();
  const sent = (type) => seen.sent.filter((frame) => frame.type === type);
  const received = (type) => seen.received.filter((frame) => frame.type === type);
  const isAccepted = () => received('connection_ack').length > 0 && sent('subscribe').length > 0;
  await until(isAccepted, 'The socket was not acknowledged.');
  const { authorization } = sent('connection_init')[0].payload;
  check(authorization === `Bearer ${token}`, 'The socket was opened without the token.');

  await page.waitForTimeout(1_500);
  const [ending] = [...received('error'), ...received('complete')];
  check(!ending, `The subscription ended at once: ${JSON.stringify(ending)}`);
  check(await page.getByRole('button', { name: /stop query/i }).isVisible(), 'The subscription is no longer running.');
  if (received('next').length === 0) return 'running';
  const isShown = async () => (await squeezedText(page, '.graphiql-response')).includes('"job":{"id":');
  await until(isShown, 'The job that came is not shown.');
  return 'received';
}

async function checkManners(page, seen) {
  const stored = await page.evaluate(() => JSON.stringify(localStorage));
  check(seen.foreign.length === 0, `Requests went to another host: ${shorten(seen.foreign)}`);
  check(seen.complaints.length === 0, `The browser complained: ${shorten(seen.complaints)}`);
  check(seen.leaks.length === 0 && !page.url().includes(token), 'The token is in an address.');
  check(!stored.includes(token), 'The token is in localStorage.');
  check(seen.authorized >= 3, 'The token was not sent with every request.');
  check(seen.workers > 0, 'The editor runs without its workers.');
}

function check(isRight, complaint) {
  if (!isRight) throw new Error(complaint);
}

async function until(isDone, complaint) {
  const end = Date.now() + WAIT_MILLISECONDS;
  while (!(await isDone())) {
    check(Date.now() < end, complaint);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Without blanks: the editor shows others than those that were written. */
async function squeezedText(page, area) {
  return squeeze((await page.locator(`${area} .view-lines`).allInnerTexts()).join(''));
}

const squeeze = (text) => text.replace(/\s/g, '');
const shorten = (texts) => texts.slice(0, 3).map((text) => text.slice(0, 200)).join(' | ');

try {
  console.log(JSON.stringify(await main()));
} catch (error) {
  console.error(`GraphiQL does not work: ${error.message.split('\n')[0]}`);
  process.exitCode = 1;
}
