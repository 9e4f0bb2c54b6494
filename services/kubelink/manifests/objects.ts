/** The parts of Kubernetes objects that kubelink reads; other fields may be there and are not looked at. */
import Type, { type Static, type TSchema } from 'typebox';

/** The API writes null for what is not set as well as leaving it out. */
const optional = <S extends TSchema>(schema: S) => Type.Optional(Type.Union([schema, Type.Null()]));
const text = Type.String();
const labels = optional(Type.Record(text, text));

export const Metadata = Type.Object({
  name: Type.String({ minLength: 1 }),
  namespace: optional(text),
  uid: optional(text),
  labels,
  annotations: labels,
  creationTimestamp: optional(text),
  deletionTimestamp: optional(text),
});

const ContainerStatus = Type.Object({
  state: optional(
    Type.Object({
      terminated: optional(Type.Object({ finishedAt: optional(text) })),
    }),
  ),
});

const containers = optional(
  Type.Array(
    Type.Object({
      restartPolicy: optional(text),
      ports: optional(
        Type.Array(
          Type.Object({
            name: optional(text),
            containerPort: Type.Integer({ minimum: 1, maximum: 65535 }),
            protocol: optional(text),
          }),
        ),
      ),
    }),
  ),
);

export const PodObject = Type.Object({
  metadata: Metadata,
  spec: optional(
    Type.Object({
      nodeName: optional(text),
      hostNetwork: optional(Type.Boolean()),
      containers,
      initContainers: containers,
    }),
  ),
  status: optional(
    Type.Object({
      phase: optional(text),
      podIP: optional(text),
      podIPs: optional(Type.Array(Type.Object({ ip: text }))),
      startTime: optional(text),
      conditions: optional(
        Type.Array(Type.Object({ type: text, status: text, lastTransitionTime: optional(text) })),
      ),
      containerStatuses: optional(Type.Array(ContainerStatus)),
      initContainerStatuses: optional(Type.Array(ContainerStatus)),
    }),
  ),
});

export const NodeObject = Type.Object({
  metadata: Metadata,
  spec: optional(Type.Object({ podCIDR: optional(text), podCIDRs: optional(Type.Array(text)) })),
  status: optional(
    Type.Object({ addresses: optional(Type.Array(Type.Object({ type: text, address: text }))) }),
  ),
});

export const NamespaceObject = Type.Object({ metadata: Metadata });

const port = Type.Integer({ minimum: 1, maximum: 65535 });

export const ServiceObject = Type.Object({
  metadata: Metadata,
  spec: optional(
    Type.Object({
      type: optional(text),
      externalName: optional(text),
      clusterIP: optional(text),
      clusterIPs: optional(Type.Array(text)),
      externalIPs: optional(Type.Array(text)),
      selector: labels,
      ports: optional(
        Type.Array(
          Type.Object({
            port,
            protocol: optional(text),
            name: optional(text),
            nodePort: optional(Type.Integer({ minimum: 0, maximum: 65535 })),
            targetPort: optional(Type.Union([Type.Integer({ minimum: 0, maximum: 65535 }), text])),
          }),
        ),
      ),
    }),
  ),
  status: optional(
    Type.Object({
      loadBalancer: optional(
        Type.Object({ ingress: optional(Type.Array(Type.Object({ ip: optional(text) }))) }),
      ),
    }),
  ),
});

export const EndpointSliceObject = Type.Object({
  metadata: Metadata,
  addressType: text,
  endpoints: optional(
    Type.Array(
      Type.Object({
        addresses: optional(Type.Array(text)),
        targetRef: optional(Type.Object({ kind: optional(text) })),
      }),
    ),
  ),
});

export const NetworkPolicyObject = Type.Object({
  metadata: Metadata,
  spec: optional(Type.Object({})),
});

export type Metadata = Static<typeof Metadata>;
export type PodObject = Static<typeof PodObject>;
export type NodeObject = Static<typeof NodeObject>;
export type NamespaceObject = Static<typeof NamespaceObject>;
export type ServiceObject = Static<typeof ServiceObject>;
export type EndpointSliceObject = Static<typeof EndpointSliceObject>;
export type NetworkPolicyObject = Static<typeof NetworkPolicyObject>;
