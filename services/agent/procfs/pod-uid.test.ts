import assert from 'node:assert/strict';
import { test } from 'node:test';
import { podUidOf } from './pod-uid.ts';

const uid = '8f3c1b52-0c7e-4d1a-9a57-2f6f0b9d4e11';
const systemdUid = uid.replaceAll('-', '_');
const container = '4f8b1c0e2d6a7b93c5d8e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6';

const inPod: Readonly<Record<string, string>> = {
  'cgroup v2, systemd, containerd': `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${systemdUid}.slice/cri-containerd-${container}.scope\n`,
  'cgroup v2, systemd, guaranteed, CRI-O': `0::/kubepods.slice/kubepods-pod${systemdUid}.slice/crio-${container}.scope/container\n`,
  'cgroup v2, cgroupfs': `0::/kubepods/besteffort/pod${uid}/${container}\n`,
  'cgroup v2, the pod itself': `0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${systemdUid}.slice\n`,
  'cgroup v2, seen from another pod': `0::/../../kubepods-burstable-pod${systemdUid}.slice/cri-containerd-${container}.scope\n`,
  'cgroup v1, cgroupfs': `12:pids:/kubepods/burstable/pod${uid}/${container}\n11:memory:/kubepods/burstable/pod${uid}/${container}\n1:name=systemd:/kubepods/burstable/pod${uid}/${container}\n`,
  'cgroup v1, systemd': `11:perf_event:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${systemdUid}.slice/docker-${container}.scope\n`,
  'cgroup v1, some controllers only': `9:name=systemd:/\n8:pids:/kubepods/pod${uid}/${container}\n0::/\n`,
  'containerd with the cgroup in its argument': `0::/system.slice/containerd.service/kubepods-burstable-pod${systemdUid}.slice:cri-containerd:${container}\n`,
  'kind: a node that is a container': `0::/docker/${container}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${systemdUid}.slice/cri-containerd-${container}.scope\n`,
  'a pod within a pod': `0::/kubepods/burstable/pod11111111-2222-3333-4444-555555555555/${container}/kubepods/burstable/pod${uid}/${container}\n`,
};

for (const [what, cgroup] of Object.entries(inPod)) {
  test(`the pod of a process is found: ${what}`, () => assert.equal(podUidOf(cgroup), uid));
}

test('a process that is in no pod has none', () => {
  const others = [
    '',
    '0::/\n',
    '0::/system.slice/sshd.service\n',
    '0::/user.slice/user-1000.slice/user@1000.service/app.slice/podman.service\n',
    `0::/machine.slice/libpod-${container}.scope\n`,
    // A static pod: the hash of its manifest.
    '0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0123456789abcdef0123456789abcdef.slice/x.scope\n',
    // A mixture that no kubelet writes.
    '0::/kubepods/burstable/pod8f3c1b52-0c7e_4d1a-9a57-2f6f0b9d4e11/x\n',
    `0::/kubepods/burstable/pod${uid}0/x\n`,
    'no cgroup file at all',
  ];
  for (const cgroup of others) assert.equal(podUidOf(cgroup), '', cgroup);
});
