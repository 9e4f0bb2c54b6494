/** The rules of the layout as tables: who may import whom, what may be large, what every room has. */

/** Lib rooms and the other lib rooms they use. Every room but these two may also use `net` and `runtime`. */
export const libRelations: Readonly<Record<string, readonly string[]>> = {
  net: [],
  runtime: [],
  wire: [],
  inventory: [],
  bus: [],
  store: [],
  policy: ['bus', 'inventory'],
  networkpolicy: [],
  enforce: ['inventory', 'networkpolicy', 'policy'],
  draft: ['inventory', 'policy'],
  suggest: ['draft', 'inventory', 'policy'],
  relabel: ['bus', 'inventory', 'policy', 'store'],
  firewall: [],
};
export const libFoundations: readonly string[] = ['net', 'runtime'];

/** Top folders and what they may import from, beside themselves. `lib` and `services` are split into rooms. */
export const folderRelations: Readonly<Record<string, readonly string[]>> = {
  schemas: [],
  lib: ['schemas'],
  services: ['lib', 'schemas'],
  estate: ['lib', 'schemas'],
  cli: ['services', 'lib', 'schemas'],
  deploy: ['lib', 'schemas'],
  web: ['schemas'],
  bench: ['cli', 'services', 'lib', 'schemas', 'estate', 'test'],
  test: ['cli', 'services', 'lib', 'schemas', 'estate', 'deploy', 'bench', 'tools'],
  tools: ['lib'],
};

/** Files that may import what their folder may not, and why they may. */
export const importExceptions: Readonly<Record<string, readonly string[]>> = {
  // Its version.
  'cli/main.ts': ['package.json'],
  // The demo is a process of the command, its settings are configuration.
  'cli/processes.ts': ['estate'],
  'cli/sections.ts': ['estate'],
  'cli/sections.test.ts': ['estate'],
  // Static rules of the demo, for who tries the audit on it.
  'cli/firewall/example.ts': ['estate'],
};

/** What stands in the root; anything else is scratch. */
export const rootFiles: readonly string[] = [
  '.dockerignore',
  '.gitignore',
  'biome.json',
  'CONTRIBUTING.md',
  'docker-compose.yml',
  'eastwest.example.yaml',
  'LICENSE',
  'package-lock.json',
  'package.json',
  'README.md',
  'SECURITY.md',
  'tsconfig.json',
];
export const rootFolders: readonly string[] = [...Object.keys(folderRelations), 'docs', '.ci', '.github'];

/** Files that every service has. */
export const serviceFiles: readonly string[] = ['config.ts', 'main.ts', 'metrics.ts'];

/** Files of code that read the environment; everything else gets its settings as arguments. */
export const environmentReaders: readonly string[] = [
  'lib/runtime/config.ts',
  'lib/runtime/failpoint.ts',
  'lib/runtime/parent.ts',
  'lib/runtime/supervisor.ts',
  'cli/eastwest.mjs',
  // NO_COLOR is the terminal's, no setting of ours.
  'cli/ask/style.ts',
];

/** Lines after which a file of code is more than one file. */
export const maxFileLines = 600;
/** The same for tests, which are lists of promises. */
export const maxTestFileLines = 1_200;
/** Longer files, each with the lines it may have and a reason beside it. */
export const fileLineExceptions: Readonly<Record<string, number>> = {
  // One list: every pattern of communication of the generated bank.
  'estate/patterns.ts': 800,
};
