/** Teaches kafkajs zstd, with the codec of Node's own zlib. */
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import kafkajs from 'kafkajs';

const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);

/** Largest batch of records after decompression, bytes; more is refused as an attack. */
const maxRecordsBytes = 256 * 1024 * 1024;

/** kafkajs keeps its codecs for the whole process, so the level of the last call counts. */
export function registerZstd(level: number): void {
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  const codec = {
    compress: (encoder: { buffer: Buffer }): Promise<Buffer> => compress(encoder.buffer, { params }),
    decompress: (buffer: Buffer): Promise<Buffer> => decompress(buffer, { maxOutputLength: maxRecordsBytes }),
  };
  kafkajs.CompressionCodecs[kafkajs.CompressionTypes.ZSTD] = () => codec;
}
