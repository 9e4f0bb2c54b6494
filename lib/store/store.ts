/** What services see of ClickHouse: queries, inserts that count once, and two kinds of failure. */
import type { StoreConfig } from './config.ts';
import type { NativeBlock } from './native.ts';

export interface QueryOptions {
  /** ClickHouse settings of this query alone. */
  readonly settings?: Readonly<Record<string, string | number>>;
  /** Cancels the query, on the server too. */
  readonly signal?: AbortSignal;
}

/** Every method throws `StoreUnavailableError` or `StoreRefusedError`; an aborted query throws its signal's reason. */
export interface Store {
  /** The section that this store was opened with. */
  readonly config: StoreConfig;
  /**
   * Rows as objects (JSONEachRow); 64-bit integers arrive as strings. `{name:Type}` placeholders are bound from `params`.
   */
  query<T>(sql: string, params?: Readonly<Record<string, unknown>>, options?: QueryOptions): Promise<T[]>;
  /** One statement without a result, in the configured database unless told; resolves when the server has done it. */
  command(sql: string, options?: { readonly database?: string }): Promise<void>;
  /** One Native block; durable when it resolves; the same token inserts once, through dependent views too. */
  insertBlock(table: string, block: NativeBlock, token: string): Promise<void>;
  /** Rows as objects; for small things. With a token, the same token inserts once. */
  insertRows(
    table: string,
    rows: readonly Readonly<Record<string, unknown>>[],
    token?: string,
  ): Promise<void>;
  /**
   * Inserts what `select` (`SELECT * FROM ... WHERE`, at most a million rows) gives, all of it as one block, within the
   * server; the same token inserts once. Columns go by position.
   */
  insertSelect(
    table: string,
    select: string,
    params: Readonly<Record<string, string | number>>,
    token: string,
  ): Promise<void>;
  /** Whether the server answers; never throws. */
  ping(): Promise<boolean>;
  close(): Promise<void>;
}

/** The server can't do it now: away, too slow, short of memory, too many parts. The same call may succeed later. */
export class StoreUnavailableError extends Error {
  override readonly name = 'StoreUnavailableError';
  /** ClickHouse's name of the error (`MEMORY_LIMIT_EXCEEDED`), or the socket's (`ECONNREFUSED`). */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The server won't do it: bad data, an unknown table or column, no right. The same call will fail again. */
export class StoreRefusedError extends Error {
  override readonly name = 'StoreRefusedError';
  /** ClickHouse's name of the error (`UNKNOWN_TABLE`). */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
