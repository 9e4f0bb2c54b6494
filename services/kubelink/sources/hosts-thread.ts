/** The thread that reads one long hosts file, and hands over what it says piece by piece, as it is asked to. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import type { FileContents, FileEntity } from './file-source.ts';
import { readHostsFile } from './hosts.ts';

/** Entities of one piece: few enough that taking it over is a matter of milliseconds. */
const maxPieceCount = 1000;

export interface Piece {
  readonly entities: readonly (readonly [string, FileEntity])[];
  /** Comes with the last piece. */
  readonly malformed: FileContents['malformed'] | null;
}

function* piecesOf(contents: FileContents): Generator<Piece> {
  const entities = [...contents.entities];
  for (let from = 0; from === 0 || from < entities.length; from += maxPieceCount) {
    const isLast = from + maxPieceCount >= entities.length;
    yield {
      entities: entities.slice(from, from + maxPieceCount),
      malformed: isLast ? contents.malformed : null,
    };
  }
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const pieces = piecesOf(readHostsFile(workerData.text, workerData.path));
  port.on('message', () => port.postMessage(pieces.next().value));
}
