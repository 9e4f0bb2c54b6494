/** One command for each process, for those who run them one by one. */
import type { Command } from 'commander';
import type { CliDependencies } from '../dependencies.ts';

const descriptions: Readonly<Record<string, string>> = {
  agent: 'report the connections of this host (conntrack or procfs) to ingest or the bus',
  ingest: 'take flows from agents over HTTP and append them to the bus',
  kubelink: 'publish the inventory of clusters, VMs and hosts to the bus',
  enrich: 'label flows as of their own time, decide verdicts, write them to ClickHouse',
  query: 'serve the API, the SQL endpoint and the page',
  alert: 'send a signed webhook for what is new and unexplained',
  store: 'run the embedded ClickHouse alone',
  demo: 'stream the generated bank through the same doors as real agents',
  migrate: 'create or update the tables in ClickHouse',
};

export function register(program: Command, dependencies: CliDependencies): void {
  for (const [name, description] of Object.entries(descriptions)) {
    program
      .command(name)
      .description(description)
      .action(async () => {
        // Loaded only here: the asking commands shall not wait for what a service needs.
        const { runProcess } = await import('../processes.ts');
        const options = { inputs: dependencies.inputs(), known: dependencies.sections };
        dependencies.exit(await runProcess(name, options));
      });
  }
}
