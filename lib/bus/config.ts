/** The configuration section `bus`. */
import Type, { type Static } from 'typebox';
import { Default, Parse } from 'typebox/value';

const secondMs = 1000;
const hourMs = 3600 * secondMs;
const dayMs = 24 * hourMs;

/** Most partitions one embedded bus can hold over all topics (the row id has room for no more). */
export const embeddedPartitionLimit = 8191;

export const BusConfig = Type.Object(
  {
    kind: Type.Union([Type.Literal('embedded'), Type.Literal('kafka')], {
      default: 'embedded',
      description:
        'embedded: a log in one file of the data folder, for one machine. kafka: an Apache Kafka cluster.',
    }),
    brokers: Type.Array(Type.String({ minLength: 1 }), {
      default: ['127.0.0.1:9092'],
      minItems: 1,
      description: 'Kafka bootstrap brokers, host:port.',
    }),
    ssl: Type.Object(
      {
        enabled: Type.Boolean({ default: false, description: 'Speak TLS to the brokers.' }),
        caFile: Type.String({
          default: '',
          description:
            'PEM file with the certificate authority of the brokers; empty: those the system trusts.',
        }),
        certFile: Type.String({
          default: '',
          description: 'PEM file with the client certificate, if one is asked for.',
        }),
        keyFile: Type.String({
          default: '',
          description: 'PEM file with the key of the client certificate.',
        }),
      },
      { default: {}, additionalProperties: false, description: 'TLS towards Kafka.' },
    ),
    sasl: Type.Object(
      {
        mechanism: Type.Union(
          [
            Type.Literal('none'),
            Type.Literal('plain'),
            Type.Literal('scram-sha-256'),
            Type.Literal('scram-sha-512'),
          ],
          { default: 'none', description: 'How to log in to Kafka.' },
        ),
        username: Type.String({ default: '', description: 'User name for SASL.' }),
        password: Type.String({ default: '', description: 'Password for SASL.', secret: true }),
      },
      { default: {}, additionalProperties: false, description: 'Login at Kafka.' },
    ),
    partitionCount: Type.Integer({
      default: 4,
      minimum: 1,
      maximum: 4096,
      description:
        'Partitions of the topic `flows`, which is the most enrichers that can share the work. May be raised later.',
    }),
    replicationFactor: Type.Integer({
      default: 1,
      minimum: 1,
      maximum: 16,
      description:
        'Copies that Kafka keeps of each partition (topics that exist already are left as they are).',
    }),
    flowsRetentionMs: Type.Integer({
      default: dayMs,
      minimum: secondMs,
      description: 'How long flow batches are kept, ms.',
    }),
    deadRetentionMs: Type.Integer({
      default: 7 * dayMs,
      minimum: secondMs,
      description: 'How long batches that could not be read are kept, ms.',
    }),
    tombstoneRetentionMs: Type.Integer({
      default: dayMs,
      minimum: secondMs,
      description: 'How long the deletion of a key stays readable on a compacted topic, ms.',
    }),
    compressionLevel: Type.Integer({
      default: 3,
      minimum: 1,
      maximum: 19,
      description: 'zstd level of messages sent to Kafka.',
    }),
    maxAppendBytes: Type.Integer({
      default: 4 * 1024 * 1024,
      minimum: 64 * 1024,
      maximum: 64 * 1024 * 1024,
      description:
        'Most bytes written in one transaction or sent in one request; a larger single message still goes.',
    }),
    maxPendingAppendBytes: Type.Integer({
      default: 256 * 1024 * 1024,
      minimum: 1024 * 1024,
      description: 'Most bytes that may wait to be written; beyond it an append is refused.',
    }),
    appendTimeoutMs: Type.Integer({
      default: 30 * secondMs,
      minimum: secondMs,
      description: 'How long an append waits for the log or the brokers before it is refused, ms.',
    }),
    maxFileBytes: Type.Integer({
      default: 20 * 1024 ** 3,
      minimum: 1024 * 1024,
      description: 'Largest size of the embedded log, bytes; appends are refused beyond it.',
    }),
    sessionTimeoutMs: Type.Integer({
      default: 6 * secondMs,
      minimum: 500,
      maximum: 5 * 60 * secondMs,
      description:
        'A group member that is silent this long loses its partitions, ms (Kafka brokers ask for 6000 or more).',
    }),
    heartbeatIntervalMs: Type.Integer({
      default: secondMs,
      minimum: 50,
      maximum: 60 * secondMs,
      description: 'How often a group member says that it lives, ms.',
    }),
    pollBusyMs: Type.Integer({
      default: 20,
      minimum: 1,
      maximum: 1000,
      description: 'How often the embedded log is looked at for news while there is some, ms.',
    }),
    pollIdleMs: Type.Integer({
      default: 50,
      minimum: 1,
      maximum: 5000,
      description: 'How often the embedded log is looked at when nothing happens, ms.',
    }),
    upkeepIntervalMs: Type.Integer({
      default: 30 * secondMs,
      minimum: 100,
      description: 'How often expired messages of the embedded log are removed, ms.',
    }),
    fetchWaitMs: Type.Integer({
      default: 500,
      minimum: 5,
      maximum: 5000,
      description: 'How long a Kafka broker may hold an empty fetch open, ms.',
    }),
  },
  { default: {}, additionalProperties: false, description: 'The bus between the services.' },
);
export type BusConfig = Static<typeof BusConfig>;

/** A whole section from some of its settings, the others by default. @throws {Error} on a wrong one. */
export function busConfig(settings: Readonly<Partial<BusConfig>>): BusConfig {
  return Parse(BusConfig, Default(BusConfig, { ...settings }));
}
