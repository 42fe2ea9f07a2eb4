-- Everything about runs. Values, cursors and signals are JSON text; moments are milliseconds
-- since 1970-01-01 UTC; money is in millionths of a dollar.
--
-- There is no table of timers: the only timer of a parked run is `runs.wake_at`, and what it
-- waits for is in its cursor. There is no outbox: a run that became claimable says so in its row.

CREATE TABLE graphs (
    hash    TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    text    TEXT NOT NULL
) STRICT;

-- Kept small, for each commit rewrites its row: what may be large is in `run_data`.
CREATE TABLE runs (
    seq               INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of creation
    id                TEXT NOT NULL UNIQUE,
    graph             TEXT NOT NULL,
    graph_hash        TEXT NOT NULL,
    queue             TEXT NOT NULL,
    priority          INTEGER NOT NULL,
    labels            TEXT NOT NULL,
    parent            INTEGER REFERENCES runs (seq),
    parent_step       TEXT,
    parent_awaits     INTEGER,
    status            TEXT NOT NULL DEFAULT 'ready'
        CHECK (status IN ('ready', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    epoch             INTEGER NOT NULL DEFAULT 0, -- one more with each claim
    lease_owner       TEXT,
    lease_until       INTEGER,
    reserved_by       TEXT,
    wake_at           INTEGER,
    limit_usd         INTEGER,
    limit_tokens      INTEGER,
    spent_usd         INTEGER NOT NULL DEFAULT 0,
    spent_tokens      INTEGER NOT NULL DEFAULT 0,
    reserved_usd      INTEGER NOT NULL DEFAULT 0,
    reserved_tokens   INTEGER NOT NULL DEFAULT 0,
    checkpoint_seq    INTEGER, -- the last one
    checkpoint_format INTEGER NOT NULL DEFAULT 0,
    event_seq         INTEGER NOT NULL DEFAULT 0, -- the last one
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    ended_at          INTEGER
) STRICT;

CREATE INDEX runs_ready ON runs (queue, priority DESC, seq) WHERE status = 'ready';
CREATE INDEX runs_leased ON runs (lease_until) WHERE status = 'running';
CREATE INDEX runs_timed ON runs (wake_at) WHERE status = 'waiting' AND wake_at IS NOT NULL;
CREATE INDEX runs_children ON runs (parent) WHERE parent IS NOT NULL;

CREATE TABLE run_data (
    run     INTEGER PRIMARY KEY REFERENCES runs (seq),
    input   TEXT NOT NULL,
    output  TEXT,
    failure TEXT
) STRICT;

CREATE TABLE checkpoints (
    run    INTEGER NOT NULL REFERENCES runs (seq),
    seq    INTEGER NOT NULL,
    format INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    cursor TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

-- What a checkpoint changed of the state. A channel's value is the sum of its rows from `base`,
-- its last full value, on. The value comes last, so that the rest is read without it.
CREATE TABLE channel_deltas (
    run     INTEGER NOT NULL REFERENCES runs (seq),
    channel TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    base    INTEGER NOT NULL,
    merges  INTEGER NOT NULL, -- since `base`
    shape   TEXT NOT NULL CHECK (shape IN ('null', 'list', 'object', 'scalar')),
    change  TEXT NOT NULL CHECK (change IN ('full', 'append', 'merge')),
    value   TEXT NOT NULL,
    PRIMARY KEY (run, channel, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE steps (
    n          INTEGER PRIMARY KEY, -- the order of writing
    run        INTEGER NOT NULL REFERENCES runs (seq),
    step       TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    node       TEXT NOT NULL,
    seq        INTEGER NOT NULL, -- the checkpoint it began from
    covered_by INTEGER NOT NULL, -- the checkpoint that holds its outcome, perhaps not there yet
    started_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL,
    ending     TEXT NOT NULL,
    UNIQUE (run, step, attempt)
) STRICT;

CREATE TABLE effects (
    n               INTEGER PRIMARY KEY, -- the order of writing
    run             INTEGER NOT NULL REFERENCES runs (seq),
    step            TEXT NOT NULL,
    key             TEXT NOT NULL,
    reserved_usd    INTEGER NOT NULL,
    reserved_tokens INTEGER NOT NULL,
    spent_usd       INTEGER NOT NULL DEFAULT 0,
    spent_tokens    INTEGER NOT NULL DEFAULT 0,
    begun_at        INTEGER NOT NULL,
    finished_at     INTEGER,
    intent          TEXT NOT NULL,
    result          TEXT,
    UNIQUE (run, step, key)
) STRICT;

CREATE TABLE blocks (
    n           INTEGER PRIMARY KEY, -- the order of asking
    id          TEXT NOT NULL UNIQUE,
    run         INTEGER NOT NULL REFERENCES runs (seq),
    step        TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('open', 'answered', 'withdrawn')),
    ask         TEXT NOT NULL,
    asked_at    INTEGER NOT NULL,
    remind_at   INTEGER,
    answer      TEXT,
    answered_by TEXT,
    answered_at INTEGER
) STRICT;

CREATE INDEX blocks_of_run ON blocks (run);
CREATE INDEX blocks_open ON blocks (n) WHERE status = 'open';

CREATE TABLE signals (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      INTEGER NOT NULL REFERENCES runs (seq),
    key      TEXT, -- the sender's, against doubles; kept after the signal was taken
    at       INTEGER NOT NULL,
    taken_at INTEGER,
    kind     TEXT NOT NULL
) STRICT;

CREATE INDEX signals_untaken ON signals (run, id) WHERE taken_at IS NULL;
CREATE UNIQUE INDEX signals_keyed ON signals (run, key) WHERE key IS NOT NULL;

CREATE TABLE events (
    run  INTEGER NOT NULL REFERENCES runs (seq),
    seq  INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    kind TEXT NOT NULL,
    step TEXT,
    data TEXT NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    namespace TEXT NOT NULL,
    key       TEXT NOT NULL,
    version   INTEGER NOT NULL,
    value     TEXT NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
