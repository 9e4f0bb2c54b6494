/** Flows to the pods of a real cluster that changes all the time: none ever has another's name or labels. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { workloadId } from '../lib/inventory/ids.ts';
import { clusterName, type LiveCluster, labelDelays, startLiveCluster } from './support/live-cluster.ts';
import { until } from './support/until.ts';

const namespace = 'shop';
const podCount = 24;
const stepCount = 200;
/** Changes between which kubelink is dead. */
const killedAt = 60;
const startedAt = 90;

interface Pod {
  name: string;
  uid: string;
  ip: string;
  version: string;
}

interface Expected {
  readonly uid: string;
  readonly version: string;
  /** The change that was made last when it was sent. */
  readonly atStep: number;
}

describe('while a real cluster changes', () => {
  let live: LiveCluster | { skip: string };
  before(async () => {
    live = await startLiveCluster();
  });
  after(async () => {
    if (!('skip' in live)) await live.close();
  });

  test('no flow is called exactly what it was not, before and after repairs, though servers die', async (context) => {
    if ('skip' in live) {
      context.skip(live.skip);
      return;
    }
    const { client, store, kube } = live;
    const cluster = live;
    const expected = new Map<number, Expected>();
    const wrong = new Map<string, string>();
    const checkRows = async (): Promise<{ certainty: string; n: number }[]> => {
      const rows = await store.query<{
        port: number;
        ip: string;
        at: string;
        workload: string;
        app: string;
        certainty: string;
      }>(
        `SELECT src_port AS port, substring(toString(dst_ip), 8) AS ip, toString(time) AS at, toString(dst_workload) AS workload, app, dst_certainty AS certainty
         FROM flows_all JOIN identities FINAL ON identities.id = dst_identity`,
      );
      const counts = new Map<string, number>();
      for (const { port, ip, at, workload, app, certainty } of rows) {
        counts.set(certainty, (counts.get(certainty) ?? 0) + 1);
        const truth = expected.get(port);
        if (certainty !== 'exact' || truth === undefined) continue;
        const right = String(workloadId(clusterName, 'pod', truth.uid));
        if (workload !== right || app !== truth.version)
          wrong.set(
            `flow ${port} to ${ip} at ${at}, change ${truth.atStep}, is ${workload} ${app}, must be ${right} ${truth.version}`,
            ip,
          );
      }
      return [...counts].map(([certainty, n]) => ({ certainty, n }));
    };

    await client.createNamespace(namespace);
    const pods: Pod[] = [];
    let versions = 0;
    let steps = 0;
    const create = async (name: string, ip: string): Promise<Pod> => {
      const version = `v${++versions}`;
      const created = await client.createPod(namespace, name, { ip, labels: { version } });
      return { name, uid: created.metadata.uid ?? '', ip, version };
    };
    for (let i = 0; i < podCount; i++) pods.push(await create(`pod-${i}`, `10.1.1.${i + 1}`));

    // Pods that are being changed get no flows; of all others it is known what they are.
    const changing = new Set<Pod>();
    let isOver = false;
    const sending = (async () => {
      while (!isOver) {
        const steady = pods.filter((pod) => !changing.has(pod));
        const truths = steady.map(({ uid, version }) => ({ uid, version, atStep: steps }));
        const sent = await cluster.send(steady.map(({ ip }) => ip));
        sent.forEach(({ sourcePort }, i) => {
          const truth = truths[i];
          if (truth !== undefined) expected.set(sourcePort, truth);
        });
        await new Promise((resolve) => setTimeout(resolve, 150));
      }
    })();
    const insist = async (work: () => Promise<unknown>): Promise<void> => {
      await until('the API server takes a change', 60_000, async () => {
        try {
          await work();
          return true;
        } catch {
          return false;
        }
      });
    };
    const change = async (step: number): Promise<void> => {
      const pod = pods[(step * 7) % pods.length];
      const other = pods[(step * 7 + 5) % pods.length];
      if (pod === undefined || other === undefined || pod === other) return;
      changing.add(pod).add(other);
      const version = `v${++versions}`;
      if (step % 4 === 0) {
        await insist(() => client.relabelPod(namespace, pod.name, { version }));
        pod.version = version;
      } else if (step % 4 === 1 && (step < killedAt - 8 || step > startedAt + 8)) {
        // Two pods change addresses; not while nobody looks, as what is undone until somebody does can't be known.
        const mine = pod.ip;
        await insist(() => client.readdressPod(namespace, pod.name, '10.1.9.9'));
        await insist(() => client.readdressPod(namespace, other.name, mine));
        await insist(() => client.readdressPod(namespace, pod.name, other.ip));
        pod.ip = other.ip;
        other.ip = mine;
      } else {
        // One goes, and another one has its address at once.
        await insist(() => client.deletePod(namespace, pod.name));
        let made: Pod | undefined;
        await insist(async () => {
          made = await create(`pod-${podCount + step}-${++versions}`, pod.ip);
        });
        if (made !== undefined) pods[pods.indexOf(pod)] = made;
      }
      changing.delete(pod);
      changing.delete(other);
    };
    try {
      for (let step = 0; step < stepCount; step++) {
        steps = step;
        await change(step);
        if (step === killedAt) await cluster.killKubelink();
        if (step === startedAt) await cluster.startKubelink();
        if (step === 130) {
          await kube.kill();
          await kube.start();
        }
        if (step === 170) {
          // Forgotten revisions: kubelink has to list everything anew.
          await kube.compact();
          await kube.kill();
          await kube.start();
        }
        if (step % 20 === 0) await checkRows();
        await new Promise((resolve) => setTimeout(resolve, 120));
      }
    } finally {
      isOver = true;
      await sending;
    }
    let counts: { certainty: string; n: number }[] = [];
    await until(
      'all flows are there and settled',
      60_000,
      async () => {
        counts = await checkRows();
        const [row] = await store.query<{ n: string; pending: string }>(
          'SELECT count() AS n, countIf(pending = 1) AS pending FROM flows_all',
        );
        return Number(row?.n) === expected.size && row?.pending === '0';
      },
      () => `${expected.size} ${JSON.stringify(counts)}\n${cluster.output()}`,
    );
    context.diagnostic(`${expected.size} flows, ${JSON.stringify(counts)}`);
    const [firstWrong] = wrong.values();
    assert.deepEqual(
      [...wrong.keys()].slice(0, 20),
      [],
      firstWrong === undefined
        ? ''
        : `${[...wrong.keys()].slice(0, 20).join('\n')}\n${cluster.history(firstWrong)}`,
    );
    const exact = counts.find(({ certainty }) => certainty === 'exact')?.n ?? 0;
    assert.ok(exact > expected.size / 4, `only ${exact} of ${expected.size} flows are exact`);
  });

  test('a changed label is on the flows that come', async (context) => {
    if ('skip' in live) {
      context.skip(live.skip);
      return;
    }
    const delays = await labelDelays(live, 12);
    context.diagnostic(`from the API server's answer to a query that shows it: ${delays.join(', ')} ms`);
    assert.equal(delays.length, 12);
  });
});
