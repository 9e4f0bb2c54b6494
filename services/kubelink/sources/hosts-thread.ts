/** The thread that reads one long hosts file and hands back what it says. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { readHostsFile } from './hosts.ts';

if (!isMainThread) parentPort?.postMessage(readHostsFile(workerData.text, workerData.path));
