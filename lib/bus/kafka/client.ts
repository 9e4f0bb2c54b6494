/** Makes kafkajs clients from the configuration, and gives access to the protocol layer below its consumer. */
import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import kafkajs, { type Broker, type Cluster, type Kafka, type KafkaConfig, type SASLOptions } from 'kafkajs';
import type { Logger } from 'pino';
import type { BusConfig } from '../config.ts';

const connectionTimeoutMs = 5_000;
const requestTimeoutMs = 30_000;
/** New partitions and moved leaders are noticed after this at the latest, ms. */
export const metadataMaxAgeMs = 5_000;

/** @throws {Error} when a TLS file cannot be read or a login is half configured. */
export function makeKafka(config: BusConfig, clientId: string, log: Logger): Kafka {
  const sasl = saslOf(config);
  const options: KafkaConfig = {
    clientId,
    brokers: config.brokers,
    ssl: sslOf(config),
    ...(sasl === undefined ? {} : { sasl }),
    connectionTimeout: connectionTimeoutMs,
    requestTimeout: requestTimeoutMs,
    // Whoever calls tries again with a back-off of its own; kafkajs only bridges a moment.
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 2 },
    logLevel: kafkajs.logLevel.WARN,
    logCreator:
      () =>
      ({ namespace, level, log: { message, error } }) => {
        const text = `kafkajs ${namespace}: ${message}`;
        // What matters reaches us as errors too, and is told from there; this is the detail.
        if (level <= kafkajs.logLevel.ERROR) log.debug({ kafkajs: error }, text);
        else log.trace(text);
      },
  };
  return new kafkajs.Kafka(options);
}

function sslOf({ ssl }: BusConfig): ConnectionOptions | boolean {
  if (!ssl.enabled) return false;
  const read = (name: 'ca' | 'cert' | 'key', path: string): ConnectionOptions =>
    path === '' ? {} : { [name]: readFileSync(path) };
  return { ...read('ca', ssl.caFile), ...read('cert', ssl.certFile), ...read('key', ssl.keyFile) };
}

function saslOf({ sasl }: BusConfig): SASLOptions | undefined {
  const { mechanism, username, password } = sasl;
  if (mechanism === 'none') return undefined;
  if (username === '' || password === '') {
    throw new Error(
      `bus.sasl.mechanism is ${mechanism}, so bus.sasl.username and bus.sasl.password must be set`,
    );
  }
  return { mechanism, username, password };
}

/**
 * Connections of one owner to the cluster. kafkajs hands its protocol layer to partition assigners, which is the
 * door taken here: its own consumer drops commits without a word while it restarts, commits for whatever generation
 * it is in by then, and lets one slow partition hold up all others.
 */
export async function openCluster(kafka: Kafka, topics: readonly string[]): Promise<Cluster> {
  let found: Cluster | undefined;
  kafka.consumer({
    groupId: 'protocol-layer',
    allowAutoTopicCreation: false,
    metadataMaxAge: metadataMaxAgeMs,
    partitionAssigners: [
      (parts) => {
        found = parts.cluster;
        return kafkajs.PartitionAssigners.roundRobin(parts);
      },
    ],
  });
  if (found === undefined) throw new Error('this version of kafkajs gives no access to its cluster');
  try {
    await found.connect();
    await found.addMultipleTargetTopics([...topics]);
    return found;
  } catch (error) {
    await closeCluster(found);
    throw error;
  }
}

/** Closes the connections; one that is broken already is no failure. */
export async function closeCluster(cluster: Cluster): Promise<void> {
  try {
    await cluster.disconnect();
  } catch {
    // Nothing can be done, and nothing depends on it.
  }
}

export interface JoinedGroup {
  readonly generationId: number;
  readonly leaderId: string;
  readonly memberId: string;
  readonly members: readonly { memberId: string; memberMetadata: Buffer }[];
}

/** The group calls that kafkajs's brokers have and its type declarations leave out. */
export interface Coordinator extends Broker {
  joinGroup(request: {
    groupId: string;
    sessionTimeout: number;
    rebalanceTimeout: number;
    memberId: string;
    groupProtocols: { name: string; metadata: Buffer }[];
  }): Promise<JoinedGroup>;
  syncGroup(request: {
    groupId: string;
    generationId: number;
    memberId: string;
    groupAssignment: { memberId: string; memberAssignment: Buffer }[];
  }): Promise<{ memberAssignment: Buffer }>;
  heartbeat(request: { groupId: string; groupGenerationId: number; memberId: string }): Promise<unknown>;
  leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown>;
}

function isCoordinator(broker: Broker): broker is Coordinator {
  return ['joinGroup', 'syncGroup', 'heartbeat', 'leaveGroup'].every((name) => name in broker);
}

export async function findCoordinator(cluster: Cluster, group: string): Promise<Coordinator> {
  const broker = await cluster.findGroupCoordinator({ groupId: group });
  if (!isCoordinator(broker))
    throw new Error('this version of kafkajs gives no access to the group protocol');
  return broker;
}
