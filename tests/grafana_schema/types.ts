// A dashboard's JSON as Grafana's own types (@grafana/schema) describe it, strict where those leave a hole: options, field
// options and queries are each plugin's, and a name that it does not know is an error.
import type { Dashboard, FieldConfig, FieldConfigSource, Panel } from '@grafana/schema';
import type * as barchart from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as statetimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type * as xychart from '@grafana/schema/dist/esm/raw/composable/xychart/panelcfg/x/XYChartPanelCfg_types.gen';

// As JSON has it: an enum's member is its value.
export type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${T}` extends `${infer N extends number}`
      ? N
      : number
    : T extends (infer U)[]
      ? Plain<U>[]
      : T extends object
        ? { [K in keyof T]: Plain<T[K]> }
        : T;

export interface Query {
  refId: string;
  datasource: { type: 'grafana-clickhouse-datasource'; uid: string };
  editorType: 'sql';
  rawSql: string;
  format: 0 | 1 | 2 | 3;
  pluginVersion: string;
}

type Typed<Type extends string, Options, Custom> = Plain<
  Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
    type: Type;
    options: Partial<Options>;
    fieldConfig: Omit<FieldConfigSource, 'defaults'> & {
      defaults: Omit<FieldConfig, 'custom'> & { custom?: Partial<Custom> };
    };
  }
> & { targets: Query[] };

export type AnyPanel =
  | Typed<'barchart', barchart.Options, barchart.FieldConfig>
  | Typed<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Typed<'stat', stat.Options, Record<string, never>>
  | Typed<'state-timeline', statetimeline.Options, statetimeline.FieldConfig>
  | Typed<'table', table.Options, table.FieldConfig>
  | Typed<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Typed<'xychart', xychart.Options, xychart.FieldConfig>;

export type AnyDashboard = Plain<Omit<Dashboard, 'panels' | 'annotations'>> & {
  panels: AnyPanel[];
  annotations: { list: (Plain<Omit<NonNullable<NonNullable<Dashboard['annotations']>['list']>[number], 'target'>> & { target: Query })[] };
};
