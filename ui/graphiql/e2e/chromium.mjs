// Which Chromium to drive: CHROMIUM_PATH, else one on PATH, else the one that comes with @sparticuz/chromium.
import { accessSync, constants, existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
const UNPACKED = fileURLToPath(new URL('../node_modules/.chromium', import.meta.url));

/** The options for playwright-core's launch: no root and no download is needed. */
export async function chromiumOptions() {
  const executablePath = process.env.CHROMIUM_PATH || findOnPath();
  if (executablePath) return { executablePath };
  if (!existsSync(UNPACKED)) await unpack();
  // The package's own arguments are left out: they turn the browser's web security off, which is to be tried here.
  return {
    executablePath: join(UNPACKED, 'chromium'),
    env: {
      ...process.env,
      FONTCONFIG_PATH: join(UNPACKED, 'fonts'),
      LD_LIBRARY_PATH: [process.env.LD_LIBRARY_PATH, join(UNPACKED, 'al2023/lib')].filter(Boolean).join(delimiter),
    },
  };
}

/** Once, beside the packages, and seen by others only when it is whole. */
async function unpack() {
  const { default: packed } = await import('@sparticuz/chromium');
  const fresh = mkdtempSync(`${UNPACKED}-`);
  // It unpacks to the temporary directory; with this environment also the libraries that a bare system lacks.
  await withEnvironment({ TMPDIR: fresh, AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs20.x' }, () => packed.executablePath());
  try {
    renameSync(fresh, UNPACKED);
  } catch (error) {
    rmSync(fresh, { recursive: true });
    if (!existsSync(UNPACKED)) throw error;
  }
}

async function withEnvironment(changes, act) {
  const before = Object.keys(changes).map((name) => [name, process.env[name]]);
  Object.assign(process.env, changes);
  await act();
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
}

function findOnPath() {
  const folders = (process.env.PATH ?? '').split(delimiter);
  return folders.flatMap((folder) => NAMES.map((name) => join(folder, name))).find(isExecutable);
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
