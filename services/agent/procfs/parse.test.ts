import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEndpoints, parseSocketTable, parseTcpActivity } from './parse.ts';

// Captured on Linux 6.18 (x86-64).
const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     
   0: 0100007F:46CB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12295 1 00000000d1e67262 100 0 0 10 0                     
   1: 02014D0A:BE52 02034D0A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 22835 2 00000000ae4c8383 20 4 30 11 -1                    
   2: 0100007F:D83C 0100007F:487B 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000                                      
`;
const tcp6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:C6EB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 166290 1 0000000080a7dbbe 100 0 0 10 0
   1: 00000000000000000000000001000000:C6EB 00000000000000000000000001000000:A4F2 01 00000000:00000000 00:00000000 00000000     0        0 166294 1 00000000225f68f7 20 0 0 10 -1
   2: 0000000000000000FFFF00000100007F:C6EB 0000000000000000FFFF00000100007F:C32E 01 00000000:00000000 00:00000000 00000000     0        0 166293 1 0000000097715ecf 20 0 0 10 -1
`;

function rowsOf(text: string) {
  const rows: { endpoints: string; state: number; inode: number }[] = [];
  // A buffer that is reused holds the rest of an older, longer table behind the length.
  const bytes = Buffer.concat([Buffer.from(text), Buffer.from(tcp)]);
  parseSocketTable(bytes, Buffer.byteLength(text), (endpoints, state, inode) => {
    rows.push({ endpoints, state, inode });
  });
  return rows;
}

test('each socket has its endpoints, state and inode', () => {
  assert.deepEqual(rowsOf(tcp), [
    { endpoints: '0100007F:46CB 00000000:0000', state: 10, inode: 12295 },
    { endpoints: '02014D0A:BE52 02034D0A:1F90', state: 1, inode: 22835 },
    { endpoints: '0100007F:D83C 0100007F:487B', state: 6, inode: 0 },
  ]);
  assert.deepEqual(
    rowsOf(tcp6).map(({ inode }) => inode),
    [166290, 166294, 166293],
  );
});

test('addresses of both families are read, and IPv4 inside IPv6 becomes IPv4', () => {
  const [, v4] = rowsOf(tcp);
  assert.deepEqual(parseEndpoints(v4?.endpoints ?? ''), {
    local: { address: '10.77.1.2', port: 48722 },
    remote: { address: '10.77.3.2', port: 8080 },
  });
  const [, v6, mapped] = rowsOf(tcp6);
  assert.deepEqual(parseEndpoints(v6?.endpoints ?? ''), {
    local: { address: '::1', port: 50923 },
    remote: { address: '::1', port: 42226 },
  });
  assert.deepEqual(parseEndpoints(mapped?.endpoints ?? ''), {
    local: { address: '127.0.0.1', port: 50923 },
    remote: { address: '127.0.0.1', port: 49966 },
  });
  assert.equal(parseEndpoints('000077FD000000000000000002000000:1F90 0:0').local.address, 'fd77::2');
});

test('a table that is empty, cut or no table has no rows', () => {
  for (const text of ['', 'nonsense', tcp.slice(0, 150), tcp.slice(0, tcp.indexOf('\n') + 60)]) {
    assert.deepEqual(rowsOf(text), []);
  }
});

test('the kernel counts the connections it opened and took, and what changed is seen without the tables', () => {
  const snmp = `Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs
Tcp: 1 200 120000 -1 174 79 22 0 5 14788
`;
  const activity = parseTcpActivity(snmp);
  assert.equal(activity?.openCount, 253);
  assert.equal(parseTcpActivity(snmp.replace('14788', '99999'))?.fingerprint, activity.fingerprint);
  assert.notEqual(parseTcpActivity(snmp.replace(' 5 ', ' 4 '))?.fingerprint, activity.fingerprint);
  assert.equal(parseTcpActivity('Ip: 1\n'), null);
});
