#!/usr/bin/env node
// Starts the command on Node 24 or newer. Plain JavaScript, because an older Node may be the one that reads it.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const neededMajor = 24;
const forwardedSignals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2'];

/** The Node that came with our dependencies, if it runs on this platform. */
function ownNode() {
  try {
    const name = `node-${process.platform}-${process.arch}`;
    const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`);
    const path = join(dirname(manifest), 'bin', 'node');
    return existsSync(path) ? path : undefined;
  } catch {
    return undefined;
  }
}

/** Runs this file again with another Node, as if that one had been called: same streams, signals and exit code. */
function runWith(node) {
  const args = [fileURLToPath(import.meta.url), ...process.argv.slice(2)];
  const child = spawn(node, args, {
    // The channel tells the child when this process dies in a way that it can't pass on.
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, EASTWEST_PARENT: 'launcher' },
  });
  const forward = (signal) => child.kill(signal);
  for (const signal of forwardedSignals) {
    process.on(signal, forward);
  }
  child.once('error', (error) => {
    process.stderr.write(`eastwest: ${node} cannot be started: ${error.message}\n`);
    process.exit(1);
  });
  child.once('exit', (code, signal) => {
    for (const name of forwardedSignals) {
      process.off(name, forward);
    }
    if (signal === null) {
      process.exit(code ?? 1);
    }
    process.kill(process.pid, signal);
  });
}

if (Number.parseInt(process.versions.node, 10) >= neededMajor) {
  // Several processes load the same code: keep it compiled. Where the folder can't be written this does nothing.
  module.enableCompileCache?.(fileURLToPath(new URL('../node_modules/.cache/eastwest', import.meta.url)));
  const { main } = await import('./main.ts');
  process.exit(await main(process.argv.slice(2)));
} else {
  const node = ownNode();
  if (node === undefined) {
    process.stderr.write(
      `eastwest needs Node ${neededMajor} or newer; this is ${process.version}, and the one of the dependencies is ` +
        `not installed for ${process.platform}-${process.arch}. Install Node ${neededMajor} ` +
        `(https://nodejs.org/en/download), then run this again.\n`,
    );
    process.exit(2);
  }
  runWith(node);
}
