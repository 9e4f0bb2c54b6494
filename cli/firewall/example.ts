/** `eastwest firewall example`: static rules for the demo estate, to audit while it runs. */
import { DemoConfig } from '../../estate/config.ts';
import { firewallCsv, makeFirewallRules } from '../../estate/firewall.ts';
import { worldOf } from '../../estate/index.ts';
import { loadConfig } from '../../lib/runtime/config.ts';
import type { CliDependencies } from '../dependencies.ts';

export function example(dependencies: Pick<CliDependencies, 'inputs' | 'sections'>): void {
  const { values } = loadConfig({ demo: DemoConfig }, dependencies.inputs(), dependencies.sections);
  process.stdout.write(firewallCsv(makeFirewallRules(worldOf(values.demo))));
}
