/**
 * Finds the pod of a process in its /proc/<pid>/cgroup. The kubelet makes a folder for each pod below `kubepods`
 * (kubernetes, pkg/kubelet/cm/cgroup_manager_linux.go): `kubepods/burstable/pod<uid>` with the driver cgroupfs,
 * `kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice` with systemd, where dashes of the uid are underscores.
 */

const podFolder =
  /(?:^|[/-])pod([0-9a-f]{8})([-_])([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{4})\2([0-9a-f]{12})(?=\.slice(?:[/:]|$)|\/|$)/g;

/**
 * Uid of the pod that a process belongs to, or an empty text. Of pods within a pod (a cluster in a container) it is the
 * innermost. A static pod is known to its node by a hash that the API server never tells: it counts as none.
 */
export function podUidOf(cgroup: string): string {
  for (const line of cgroup.split('\n')) {
    // `hierarchy:controllers:path`; seen from another cgroup namespace a path may begin with /../..
    const path = line.slice(line.indexOf(':', line.indexOf(':') + 1) + 1);
    const innermost = [...path.matchAll(podFolder)].at(-1);
    if (innermost === undefined) continue;
    const [, first, , second, third, fourth, fifth] = innermost;
    return [first, second, third, fourth, fifth].join('-');
  }
  return '';
}
