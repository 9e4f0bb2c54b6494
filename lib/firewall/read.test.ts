/** Static rules are read as they are meant, and what can't be read is named by its line. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { addressTexts, complement, everyAddress, holds, parseAddresses, sizeOf } from './addresses.ts';
import { formatOf, readRules } from './read.ts';
import type { RuleFile } from './rule.ts';
import { serviceTexts } from './services.ts';

function shown(file: RuleFile): string[] {
  assert.deepEqual(file.problems, []);
  return file.rules.map(({ line, action, source, destination, services, comment, conditions }) =>
    [
      line,
      action,
      addressTexts(source).join(';'),
      addressTexts(destination).join(';'),
      serviceTexts(services).join(';'),
      ...(comment === '' ? [] : [comment]),
      ...(conditions.length === 0 ? [] : [`[${conditions.join(', ')}]`]),
    ].join(' '),
  );
}

function reasons(file: RuleFile): string[] {
  return file.ignored.map(({ line, reason }) => `${line}: ${reason}`);
}

const header = 'source,destination,port,action,comment';
const problemsOf = (...lines: string[]): readonly string[] =>
  readRules([header, ...lines].join('\n')).problems;

describe('addresses', () => {
  test('are aggregated exactly, to the fewest CIDRs', () => {
    const set = parseAddresses('10.0.0.0-10.0.0.9;10.0.0.12/30;2001:db8::/126;10.0.0.10');
    assert.ok(typeof set !== 'string');
    assert.deepEqual(addressTexts(set), [
      '10.0.0.0/29',
      '10.0.0.8/31',
      '10.0.0.10',
      '10.0.0.12/30',
      '2001:db8::/126',
    ]);
    assert.equal(sizeOf(set), 19n);
    assert.deepEqual(complement(complement(set)), set);
    assert.ok(holds(everyAddress, set));
  });

  test('of one family alone are not any', () => {
    const texts = (text: string): string[] => {
      const set = parseAddresses(text);
      assert.ok(typeof set !== 'string');
      return addressTexts(set);
    };
    assert.deepEqual(texts('0.0.0.0/0'), ['0.0.0.0/0']);
    assert.deepEqual(texts('::/0'), ['::/0']);
    assert.deepEqual(texts('::/0;0.0.0.0/0'), ['any']);
    assert.deepEqual(texts('ANY'), ['any']);
  });
});

describe('CSV', () => {
  test('is read whatever the order of its columns, and keeps those that it does not know', () => {
    const file = readRules(
      'Owner,Action,Port,Destination,Source,Comment\r\nanna,PERMIT,443;8000-8080/udp;icmp,"10.1.0.0/16;10.2.0.1-10.2.0.3",any,"two, of them"\r\nbert,reject,any,*,2001:db8::7,\r\n',
    );
    assert.deepEqual(shown(file), [
      '2 allow any 10.1.0.0/16;10.2.0.1;10.2.0.2/31 443;8000-8080/udp;icmp two, of them',
      '3 deny 2001:db8::7 any any',
    ]);
    assert.deepEqual(
      file.rules.map(({ columns }) => columns),
      [{ Owner: 'anna' }, { Owner: 'bert' }],
    );
  });

  test('takes the protocol from a column of its own', () => {
    const file = readRules(
      'source,destination,port,protocol,action\nany,10.0.0.1,53,udp,allow\nany,10.0.0.1,any,tcp,allow\nany,10.0.0.1,22,,allow',
    );
    assert.deepEqual(shown(file), [
      '2 allow any 10.0.0.1 53/udp',
      '3 allow any 10.0.0.1 tcp',
      '4 allow any 10.0.0.1 22',
    ]);
  });

  test('with wrong columns is refused, with what is missing', () => {
    assert.deepEqual(readRules('src,dest,ports,action\n1.2.3.4,5.6.7.8,22,allow').problems, [
      'line 1: there is no column source; is src meant? (needed: source, destination, port, action)',
      'line 1: there is no column destination (needed: source, destination, port, action)',
      'line 1: there is no column port; is ports meant? (needed: source, destination, port, action)',
    ]);
    assert.match(
      readRules('source;destination;port;action\n').problems[0] ?? '',
      /separate columns by commas/,
    );
    assert.deepEqual(readRules('').problems, ['line 1: the file is empty; expected a header line']);
    assert.deepEqual(readRules(header).problems, ['line 2: there is no rule below the header']);
    assert.deepEqual(readRules(`${header},source\n`).problems, ['line 1: column source stands there twice']);
  });

  test('is refused by line, all errors at once', () => {
    const forms = 'expected an address, a CIDR, a range such as 10.0.0.4-10.0.0.9, or any';
    const ports = 'expected a port, 443/tcp, a range such as 8000-8080/tcp, a protocol, or any';
    assert.deepEqual(
      problemsOf(
        '10.0.0.300,any,443,allow,',
        'any,10.0.0.9-10.0.0.4,70000,allow,',
        'any,10.0.0.1-2001:db8::1,90-80,permitted,',
        '10.0.0.1/24,,443/tpc,allow,',
        'any,any,443',
        'any,10.0.0.0/33,https,deny,',
        'any,any,,deny,',
        '1.1.1.1,any,443,allow,fine',
      ),
      [
        `line 2: source: "10.0.0.300" is no address; ${forms}`,
        'line 3: destination: the range "10.0.0.9-10.0.0.4" ends before it begins',
        `line 3: port: "70000" is no port; ${ports}`,
        'line 4: destination: the range "10.0.0.1-2001:db8::1" joins IPv4 and IPv6',
        `line 4: port: "90-80" is no port; ${ports}`,
        'line 4: action: "permitted" is no action; expected allow, permit, accept, deny, drop, reject',
        'line 5: source: "10.0.0.1/24" has bits beyond its prefix; expected 10.0.0.0/24',
        `line 5: destination: there is none; ${forms}`,
        'line 5: port: "443/tpc" names no protocol; expected tcp, udp, icmp, icmpv6, sctp or a number behind the slash',
        'line 6: 3 columns, the header has 5',
        `line 7: destination: "10.0.0.0/33" is no address; ${forms}`,
        `line 7: port: "https" is no port; ${ports}`,
        `line 8: port: there is none; ${ports}`,
      ],
    );
  });
});

const iptables = `# Generated by iptables-save v1.8.9
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.1
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:partners - [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[12:960] -A FORWARD -s 10.1.0.0/16 -d 10.2.0.7/32 -p tcp -m tcp --dport 1521 -m comment --comment "NET-7 to oracle" -j ACCEPT
-A FORWARD ! -s 10.0.0.0/8 -p udp -m multiport --dports 53,123,5000:5010 -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -i eth0 -d 10.3.0.0/24 -p tcp -m state --state NEW --dport 443 -j ACCEPT
-A FORWARD -d 198.51.100.0/24 -j partners
-A FORWARD -m set --match-set bad src -j DROP
-A FORWARD -p icmp --icmp-type 8 -j ACCEPT
-A partners -p tcp --dport 22 -j ACCEPT
-A partners -m iprange --src-range 10.9.0.1-10.9.0.2 -j DROP
COMMIT
`;

describe('iptables-save', () => {
  test('is read as forwarded packets meet its rules, jumps followed', () => {
    assert.equal(formatOf(iptables), 'iptables-save');
    assert.deepEqual(shown(readRules(iptables)), [
      '12 allow 10.1.0.0/16 10.2.0.7 1521/tcp NET-7 to oracle',
      '13 deny 0.0.0.0/5;8.0.0.0/7;11.0.0.0/8;12.0.0.0/6;16.0.0.0/4;32.0.0.0/3;64.0.0.0/2;128.0.0.0/1 0.0.0.0/0 53/udp;123/udp;5000-5010/udp',
      '14 allow 0.0.0.0/0 10.3.0.0/24 443/tcp [in-interface eth0]',
      '18 allow 0.0.0.0/0 198.51.100.0/24 22/tcp',
      '19 deny 10.9.0.1;10.9.0.2 198.51.100.0/24 any',
      '17 allow 0.0.0.0/0 0.0.0.0/0 icmp type 8',
      '8 deny 0.0.0.0/0 0.0.0.0/0 any policy of FORWARD',
    ]);
  });

  test('lists what it can not take by line', () => {
    assert.deepEqual(reasons(readRules(iptables)), [
      '4: table nat does not filter',
      '10: chain INPUT is not met by forwarded packets; name it with --chain',
      '11: it is about replies and what belongs to them, which flows count with their connection',
      '16: --match-set is not understood',
    ]);
  });

  test('audits another chain on request, and names those there are', () => {
    assert.deepEqual(shown(readRules(iptables, { chain: 'INPUT' })), [
      '10 allow 0.0.0.0/0 0.0.0.0/0 22/tcp',
      '7 allow 0.0.0.0/0 0.0.0.0/0 any policy of INPUT',
    ]);
    assert.deepEqual(readRules(iptables, { chain: 'BLA' }).problems, [
      'line 1: there is no chain BLA; there are: INPUT (input), FORWARD (forward), partners',
    ]);
  });
});

const nft = `table inet filter {
	set dbs {
		type ipv4_addr
		flags interval
		elements = { 10.2.0.0/24, 10.3.0.1-10.3.0.4,
			     10.4.0.9 }
	}

	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 22 accept
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ip saddr 10.1.0.0/16 ip daddr @dbs tcp dport { 1521, 5432-5433 } counter packets 12 bytes 960 accept comment "NET-7 dbs"
		ip6 daddr 2001:db8::/64 meta l4proto { tcp, udp } th dport 53 accept
		iifname "eth0" ip daddr != 10.0.0.0/8 log prefix "out " level info reject with icmpx admin-prohibited
		ip daddr 198.51.100.0/24 jump partners
		ip saddr . tcp dport vmap { 10.0.0.1 . 22 : accept }
		icmp type echo-request limit rate 5/second accept
	}

	chain partners {
		ip saddr 10.9.0.1 return
		tcp dport 443 accept
	}
}
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		masquerade
	}
}
`;

describe('nftables', () => {
  test('is read as forwarded packets meet its rules, sets and jumps followed', () => {
    assert.equal(formatOf(nft), 'nftables');
    assert.deepEqual(shown(readRules(nft)), [
      '17 allow 10.1.0.0/16 10.2.0.0/24;10.3.0.1;10.3.0.2/31;10.3.0.4;10.4.0.9 1521/tcp;5432-5433/tcp NET-7 dbs',
      '18 allow ::/0 2001:db8::/64 53/tcp;53/udp',
      '19 deny 0.0.0.0/0 0.0.0.0/5;8.0.0.0/7;11.0.0.0/8;12.0.0.0/6;16.0.0.0/4;32.0.0.0/3;64.0.0.0/2;128.0.0.0/1 any [iifname eth0]',
      '27 allow 0.0.0.0/0 198.51.100.0/24 443/tcp [the return on line 26]',
      '22 allow any any icmp type 8 [limit]',
      '14 deny any any any policy of inet filter forward',
    ]);
  });

  test('lists what it can not take by line', () => {
    assert.deepEqual(reasons(readRules(nft)), [
      '11: chain inet filter input is not met by forwarded packets; name it with --chain',
      '16: it is about replies and what belongs to them, which flows count with their connection',
      '21: maps and joined keys are not understood',
      '26: a return is not followed: hits of the rules after it are an upper bound',
      '33: chain ip nat post is not met by forwarded packets; name it with --chain',
    ]);
  });

  test('means the same in JSON', () => {
    const match = (protocol: string, field: string, right: unknown, op = '==') => ({
      match: { op, left: { payload: { protocol, field } }, right },
    });
    const document = {
      nftables: [
        { metainfo: { version: '1.0.9' } },
        { table: { family: 'inet', name: 'filter' } },
        {
          chain: {
            family: 'inet',
            table: 'filter',
            name: 'forward',
            type: 'filter',
            hook: 'forward',
            policy: 'drop',
          },
        },
        { chain: { family: 'inet', table: 'filter', name: 'partners' } },
        {
          set: {
            family: 'inet',
            table: 'filter',
            name: 'dbs',
            elem: [
              { prefix: { addr: '10.2.0.0', len: 24 } },
              { range: ['10.3.0.1', '10.3.0.4'] },
              '10.4.0.9',
            ],
          },
        },
        {
          rule: {
            family: 'inet',
            table: 'filter',
            chain: 'forward',
            comment: 'NET-7 dbs',
            expr: [
              match('ip', 'saddr', { prefix: { addr: '10.1.0.0', len: 16 } }),
              match('ip', 'daddr', '@dbs'),
              match('tcp', 'dport', { set: [1521, { range: [5432, 5433] }] }),
              { counter: { packets: 1, bytes: 2 } },
              { accept: null },
            ],
          },
        },
        {
          rule: {
            family: 'inet',
            table: 'filter',
            chain: 'forward',
            expr: [
              match('ip', 'daddr', { prefix: { addr: '198.51.100.0', len: 24 } }),
              { jump: { target: 'partners' } },
            ],
          },
        },
        { rule: { family: 'inet', table: 'filter', chain: 'forward', expr: [{ vmap: {} }] } },
        {
          rule: {
            family: 'inet',
            table: 'filter',
            chain: 'partners',
            expr: [match('tcp', 'dport', 443), { accept: null }],
          },
        },
      ],
    };
    const file = readRules(JSON.stringify(document));
    assert.deepEqual(shown(file), [
      '6 allow 10.1.0.0/16 10.2.0.0/24;10.3.0.1;10.3.0.2/31;10.3.0.4;10.4.0.9 1521/tcp;5432-5433/tcp NET-7 dbs',
      '9 allow 0.0.0.0/0 198.51.100.0/24 443/tcp',
      '3 deny any any any policy of inet filter forward',
    ]);
    assert.deepEqual(reasons(file), ['8: "vmap" is not understood']);
  });

  test('that is none is refused', () => {
    assert.match(readRules('{"a":1}').problems[0] ?? '', /expected an object with a list "nftables"/);
    assert.match(readRules('{', { format: 'nftables' }).problems[0] ?? '', /it is no JSON/);
    assert.match(
      readRules('chain x {}', { format: 'nftables' }).problems[0] ?? '',
      /"chain" stands where a table is expected/,
    );
    assert.match(
      readRules('table ip a {\n}', { format: 'nftables' }).problems[0] ?? '',
      /no chain of the hook forward; there are: none/,
    );
    assert.match(
      readRules('-A FORWARD -j ACCEPT', { format: 'iptables-save' }).problems[0] ?? '',
      /stands before any table/,
    );
  });
});
