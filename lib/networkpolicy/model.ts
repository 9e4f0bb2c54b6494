/** NetworkPolicies and pods as they are evaluated: what is left out in a manifest is filled in as Kubernetes does. */
import type { Cidr } from '../net/address.ts';

export type Labels = Readonly<Record<string, string>>;

/** The protocols that NetworkPolicy speaks of. */
export const policyProtocols = ['TCP', 'UDP', 'SCTP'] as const;
export type PolicyProtocol = (typeof policyProtocols)[number];

export const directions = ['ingress', 'egress'] as const;
export type Direction = (typeof directions)[number];

export const selectorOperators = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;
export type SelectorOperator = (typeof selectorOperators)[number];

export interface Requirement {
  readonly key: string;
  readonly operator: SelectorOperator;
  readonly values: readonly string[];
}

/** All requirements must hold; none selects everything. */
export type Selector = readonly Requirement[];

/** One entry of `from` or `to`. */
export type Peer =
  | {
      readonly kind: 'pods';
      /** Null: the namespace of the policy. */
      readonly namespaces: Selector | null;
      /** Null: every pod. */
      readonly pods: Selector | null;
    }
  | { readonly kind: 'block'; readonly cidr: Cidr; readonly except: readonly Cidr[] };

export type PortRule =
  | { readonly protocol: PolicyProtocol; readonly from: number; readonly to: number }
  | { readonly protocol: PolicyProtocol; readonly name: string };

export interface PolicyRule {
  /** Null: every peer. */
  readonly peers: readonly Peer[] | null;
  /** Null: every port and protocol. */
  readonly ports: readonly PortRule[] | null;
}

export interface NetworkPolicy {
  readonly namespace: string;
  readonly name: string;
  /** The pods of its namespace that it applies to. */
  readonly pods: Selector;
  /** Null: it says nothing of ingress. */
  readonly ingress: readonly PolicyRule[] | null;
  /** Null: it says nothing of egress. */
  readonly egress: readonly PolicyRule[] | null;
}

export interface NamedPort {
  readonly name: string;
  readonly port: number;
  readonly protocol: PolicyProtocol;
}

export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  /** Node it runs on; empty where that is not known. */
  readonly node: string;
  readonly hostNetwork: boolean;
  readonly namedPorts: readonly NamedPort[];
}

/** One end of a connection, as the policies of one cluster see it. */
export type End =
  /** `address` is the one that the connection uses (16 bytes), null where it is not known. */
  | { readonly kind: 'pod'; readonly pod: Pod; readonly address: Uint8Array | null }
  | { readonly kind: 'node'; readonly node: string; readonly address: Uint8Array | null }
  | { readonly kind: 'address'; readonly address: Uint8Array };

/** What the policies of one cluster are evaluated over. */
export interface PolicyCluster {
  readonly namespaces: ReadonlyMap<string, Labels>;
  readonly policies: readonly NetworkPolicy[];
}

/** The label that every namespace has, and its value. */
export const namespaceNameLabel = 'kubernetes.io/metadata.name';

export function namespaceLabels({ namespaces }: PolicyCluster, name: string): Labels {
  return { ...namespaces.get(name), [namespaceNameLabel]: name };
}

function meets({ key, operator, values }: Requirement, labels: Labels): boolean {
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}

export function selectorMeets(selector: Selector, labels: Labels): boolean {
  return selector.every((requirement) => meets(requirement, labels));
}
