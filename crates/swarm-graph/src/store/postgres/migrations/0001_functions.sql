-- What the store does in one round trip each. A function is called outside of a transaction, so
-- that its end is the commit. Refusals have SQLSTATEs of their own: SW001 no such run (its id),
-- SW002 a checkpoint of a newer format (the format), SW003 the claim is over (the epoch there
-- is), SW004 no such parent (its id).
--
-- Whoever holds several runs locks them in the order of `seq`, and so never waits in a circle: a
-- parent is always older than its child.

-- A run (0) and those above it (1, 2, ...).
CREATE FUNCTION lineage(p_run bigint) RETURNS TABLE (seq bigint, depth integer)
LANGUAGE sql STABLE ROWS 2 AS $$
    WITH RECURSIVE up (seq, depth) AS (
        SELECT p_run, 0
        UNION ALL
        SELECT r.parent, up.depth + 1 FROM up JOIN runs r ON r.seq = up.seq
        WHERE r.parent IS NOT NULL)
    SELECT up.seq, up.depth FROM up
$$;

-- A run and those below it.
CREATE FUNCTION tree(p_run bigint) RETURNS TABLE (seq bigint)
LANGUAGE sql STABLE ROWS 10 AS $$
    WITH RECURSIVE down (seq) AS (
        SELECT p_run
        UNION ALL
        SELECT r.seq FROM down JOIN runs r ON r.parent = down.seq)
    SELECT down.seq FROM down
$$;

CREATE FUNCTION lock_lineage(p_run bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM r.seq FROM runs r WHERE r.seq IN (SELECT l.seq FROM lineage(p_run) l)
    ORDER BY r.seq FOR NO KEY UPDATE;
END $$;

-- The rows that a state is made of: hops from channel to channel by the primary key, then takes
-- each channel's rows from its base on.
CREATE FUNCTION state_rows(p_run bigint, p_seq bigint)
RETURNS TABLE (channel text, seq bigint, change text, value text)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE channels (channel) AS (
        (SELECT d.channel FROM channel_deltas d WHERE d.run = p_run ORDER BY d.channel LIMIT 1)
        UNION ALL
        SELECT (SELECT d.channel FROM channel_deltas d
                WHERE d.run = p_run AND d.channel > channels.channel
                ORDER BY d.channel LIMIT 1)
        FROM channels WHERE channels.channel IS NOT NULL)
    SELECT d.channel, d.seq, d.change, d.value
    FROM channels
    CROSS JOIN LATERAL (
        SELECT h.base FROM channel_deltas h
        WHERE h.run = p_run AND h.channel = channels.channel AND h.seq <= p_seq
        ORDER BY h.seq DESC LIMIT 1) head
    JOIN channel_deltas d ON d.run = p_run AND d.channel = channels.channel
        AND d.seq >= head.base AND d.seq <= p_seq
    WHERE channels.channel IS NOT NULL
    ORDER BY d.channel, d.seq
$$;

-- One checkpoint with its state.
CREATE FUNCTION read_checkpoint(p_run bigint, p_seq bigint)
RETURNS TABLE (format integer, cursor text, channels text[], changes text[], "values" text[])
LANGUAGE sql STABLE AS $$
    SELECT c.format, c.cursor, s.channels, s.changes, s.vals
    FROM checkpoints c CROSS JOIN LATERAL (
        SELECT array_agg(x.channel ORDER BY x.channel, x.seq) AS channels,
            array_agg(x.change ORDER BY x.channel, x.seq) AS changes,
            array_agg(x.value ORDER BY x.channel, x.seq) AS vals
        FROM state_rows(c.run, c.seq) x) s
    WHERE c.run = p_run AND c.seq = p_seq
$$;

-- What a claim brings back: the run, its last checkpoint, and the steps that ended since.
CREATE VIEW claimed_runs AS
SELECT w.*, k.format, k.cursor, k.channels, k.changes, k."values",
    s.steps, s.nodes, s.seqs, s.attempts, s.endings, s.started, s.ended
FROM whole_runs w
LEFT JOIN LATERAL read_checkpoint(w.seq, w.checkpoint_seq) k ON true
CROSS JOIN LATERAL (
    SELECT array_agg(x.step ORDER BY x.n) AS steps, array_agg(x.node ORDER BY x.n) AS nodes,
        array_agg(x.seq ORDER BY x.n) AS seqs, array_agg(x.attempt ORDER BY x.n) AS attempts,
        array_agg(x.ending ORDER BY x.n) AS endings,
        array_agg(x.started_at ORDER BY x.n) AS started,
        array_agg(x.ended_at ORDER BY x.n) AS ended
    FROM steps x
    WHERE x.run = w.seq AND x.covered_by >= coalesce(w.checkpoint_seq + 1, 0)) s;

CREATE FUNCTION take(p_run bigint, p_worker text, p_now bigint, p_until bigint)
RETURNS SETOF claimed_runs LANGUAGE plpgsql AS $$
BEGIN
    UPDATE runs SET status = 'running', epoch = epoch + 1, lease_owner = p_worker,
        lease_until = p_until, reserved_by = NULL, wake_at = NULL, updated_at = p_now
    WHERE runs.seq = p_run;
    RETURN QUERY SELECT c.* FROM claimed_runs c WHERE c.seq = p_run;
END $$;

-- Claims the most urgent claimable run of these queues. Each kind of claimable run is found by
-- its own index; whoever another claimer is about to take is passed over.
CREATE FUNCTION claim_next(
    p_worker text, p_queues text[], p_now bigint, p_until bigint, p_format integer)
RETURNS SETOF claimed_runs LANGUAGE plpgsql AS $$
DECLARE
    tried bigint[] := '{}';
    candidate bigint;
BEGIN
    LOOP
        SELECT f.seq INTO candidate FROM (
            SELECT n.seq, n.priority FROM unnest(p_queues) AS wanted (queue) CROSS JOIN LATERAL (
                SELECT r.seq, r.priority FROM runs r
                WHERE r.status = 'ready' AND r.queue = wanted.queue
                    AND r.checkpoint_format <= p_format AND r.seq <> ALL (tried)
                ORDER BY r.priority DESC, r.seq LIMIT 1) n
            UNION ALL
            SELECT r.seq, r.priority FROM runs r
            WHERE r.status = 'running' AND r.lease_until <= p_now
                AND r.checkpoint_format <= p_format AND r.queue = ANY (p_queues)
                AND r.seq <> ALL (tried)
            UNION ALL
            SELECT r.seq, r.priority FROM runs r
            WHERE r.status = 'waiting' AND r.wake_at IS NOT NULL AND r.wake_at <= p_now
                AND r.checkpoint_format <= p_format AND r.queue = ANY (p_queues)
                AND r.seq <> ALL (tried)) f
        ORDER BY f.priority DESC, f.seq LIMIT 1;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        PERFORM r.seq FROM runs r WHERE r.seq = candidate
            AND (r.status = 'ready'
                OR (r.status = 'running' AND r.lease_until <= p_now)
                OR (r.status = 'waiting' AND r.wake_at <= p_now))
        FOR NO KEY UPDATE SKIP LOCKED;
        IF FOUND THEN
            RETURN QUERY SELECT * FROM take(candidate, p_worker, p_now, p_until);
            RETURN;
        END IF;
        tried := tried || candidate;
    END LOOP;
END $$;

-- Claims this run if it is claimable; with `p_idle`, also while it waits for something.
CREATE FUNCTION claim_one(
    p_run text, p_worker text, p_now bigint, p_until bigint, p_format integer, p_idle boolean)
RETURNS SETOF claimed_runs LANGUAGE plpgsql AS $$
DECLARE
    found_run runs;
BEGIN
    SELECT * INTO found_run FROM runs r WHERE r.id = p_run FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SW001', MESSAGE = p_run;
    END IF;
    IF found_run.status = 'ready'
        OR (found_run.status = 'running' AND coalesce(found_run.lease_until <= p_now, true))
        OR (found_run.status = 'waiting' AND (p_idle OR coalesce(found_run.wake_at <= p_now, false)))
    THEN
        IF found_run.checkpoint_format > p_format THEN
            RAISE EXCEPTION USING ERRCODE = 'SW002', MESSAGE = found_run.checkpoint_format::text;
        END IF;
        RETURN QUERY SELECT * FROM take(found_run.seq, p_worker, p_now, p_until);
    END IF;
END $$;

-- The fence: locks a run and refuses a writer whose claim is over.
CREATE FUNCTION hold(p_run text, p_epoch bigint) RETURNS runs LANGUAGE plpgsql AS $$
DECLARE
    held runs;
BEGIN
    SELECT * INTO held FROM runs r WHERE r.id = p_run FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SW001', MESSAGE = p_run;
    END IF;
    IF held.epoch <> p_epoch OR held.status <> 'running' THEN
        RAISE EXCEPTION USING ERRCODE = 'SW003', MESSAGE = held.epoch::text;
    END IF;
    RETURN held;
END $$;

CREATE FUNCTION renew_lease(p_run text, p_epoch bigint, p_until bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    held runs := hold(p_run, p_epoch);
BEGIN
    UPDATE runs SET lease_until = p_until WHERE seq = held.seq;
END $$;

-- Starts a run; false if one of this id is there. Tried again after a lost answer, it knows the
-- run that it has made itself.
CREATE FUNCTION create_run(
    p_id text, p_graph text, p_hash text, p_queue text, p_priority integer, p_labels text[],
    p_parent text, p_parent_step text, p_parent_awaits boolean, p_limit_usd bigint,
    p_limit_tokens bigint, p_input text, p_at bigint, p_again boolean)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    there runs;
    parent_seq bigint;
    new_seq bigint;
BEGIN
    SELECT * INTO there FROM runs r WHERE r.id = p_id;
    IF FOUND THEN
        RETURN p_again AND there.created_at = p_at AND there.epoch = 0;
    END IF;
    IF p_parent IS NOT NULL THEN
        SELECT r.seq INTO parent_seq FROM runs r WHERE r.id = p_parent;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'SW004', MESSAGE = p_parent;
        END IF;
    END IF;
    INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, parent, parent_step,
        parent_awaits, limit_usd, limit_tokens, created_at, updated_at)
    VALUES (p_id, p_graph, p_hash, p_queue, p_priority, p_labels, parent_seq, p_parent_step,
        p_parent_awaits, p_limit_usd, p_limit_tokens, p_at, p_at)
    ON CONFLICT (id) DO NOTHING RETURNING seq INTO new_seq;
    IF new_seq IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO run_data (run, input) VALUES (new_seq, p_input);
    RETURN true;
END $$;

-- Starts a run and claims it; nothing if one of this id is there.
CREATE FUNCTION create_claimed(
    p_id text, p_graph text, p_hash text, p_queue text, p_priority integer, p_labels text[],
    p_parent text, p_parent_step text, p_parent_awaits boolean, p_limit_usd bigint,
    p_limit_tokens bigint, p_input text, p_at bigint, p_again boolean, p_worker text,
    p_until bigint)
RETURNS SETOF claimed_runs LANGUAGE plpgsql AS $$
BEGIN
    IF create_run(p_id, p_graph, p_hash, p_queue, p_priority, p_labels, p_parent,
        p_parent_step, p_parent_awaits, p_limit_usd, p_limit_tokens, p_input, p_at, false)
    THEN
        RETURN QUERY SELECT t.* FROM runs r
        CROSS JOIN LATERAL take(r.seq, p_worker, p_at, p_until) t WHERE r.id = p_id;
    ELSIF p_again THEN
        RETURN QUERY SELECT c.* FROM claimed_runs c
        WHERE c.id = p_id AND c.epoch = 1 AND c.status = 'running'
            AND c.lease_owner = p_worker AND c.created_at = p_at;
    END IF;
END $$;

-- Frees a reservation and books what was spent, up the tree, whose rows are locked already.
CREATE FUNCTION book(
    p_run bigint, p_free_usd bigint, p_free_tokens bigint, p_usd bigint, p_tokens bigint)
RETURNS void LANGUAGE sql AS $$
    UPDATE runs SET reserved_usd = greatest(reserved_usd - p_free_usd, 0),
        reserved_tokens = greatest(reserved_tokens - p_free_tokens, 0),
        spent_usd = least(spent_usd + p_usd, 1::bigint << 61),
        spent_tokens = least(spent_tokens + p_tokens, 1::bigint << 61)
    WHERE seq IN (SELECT l.seq FROM lineage(p_run) l)
$$;

CREATE FUNCTION put_events(
    p_run bigint, p_last bigint, p_at bigint, e_kind text[], e_step text[], e_data text[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO events (run, seq, at, kind, step, data)
    SELECT p_run, p_last + e.no, p_at, e.kind, e.step, e.data
    FROM unnest(e_kind, e_step, e_data) WITH ORDINALITY AS e (kind, step, data, no);
    UPDATE runs SET event_seq = p_last + cardinality(e_kind) WHERE seq = p_run;
$$;

-- Writes an intent. `what`: 0 it is new; 1 it was there, as `text` (intent), `usd` and `tokens`
-- (reserved), and `result`; 2 the limit `usd`, `tokens` of run `text` does not allow it, with
-- `used_usd` and `used_tokens` used already.
CREATE FUNCTION begin_entry(
    p_run text, p_epoch bigint, p_step text, p_key text, p_intent text, p_usd bigint,
    p_tokens bigint, p_at bigint, p_again boolean)
RETURNS TABLE (what integer, text text, usd bigint, tokens bigint, result text,
    used_usd bigint, used_tokens bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    held runs;
    there effects;
    wants boolean := p_usd <> 0 OR p_tokens <> 0;
    is_new bigint;
BEGIN
    IF wants THEN
        PERFORM lock_lineage(r.seq) FROM runs r WHERE r.id = p_run;
    END IF;
    held := hold(p_run, p_epoch);
    IF wants THEN
        PERFORM 1 FROM effects e
        WHERE e.run = held.seq AND e.step = p_step AND e.key = p_key;
        IF NOT FOUND THEN
            RETURN QUERY
            SELECT 2, r.id::text, r.limit_usd, r.limit_tokens, NULL::text,
                r.spent_usd + r.reserved_usd, r.spent_tokens + r.reserved_tokens
            FROM lineage(held.seq) l JOIN runs r ON r.seq = l.seq
            WHERE r.spent_usd + r.reserved_usd + p_usd > r.limit_usd
                OR r.spent_tokens + r.reserved_tokens + p_tokens > r.limit_tokens
            ORDER BY l.depth LIMIT 1;
            IF FOUND THEN
                RETURN;
            END IF;
            UPDATE runs SET reserved_usd = least(reserved_usd + p_usd, 1::bigint << 61),
                reserved_tokens = least(reserved_tokens + p_tokens, 1::bigint << 61)
            WHERE seq IN (SELECT l.seq FROM lineage(held.seq) l);
        END IF;
    END IF;
    INSERT INTO effects (run, step, key, intent, reserved_usd, reserved_tokens, begun_at,
        begun_after)
    VALUES (held.seq, p_step, p_key, p_intent, p_usd, p_tokens, p_at,
        coalesce(held.checkpoint_seq, -1))
    ON CONFLICT (run, step, key) DO NOTHING RETURNING run INTO is_new;
    IF is_new IS NOT NULL THEN
        RETURN QUERY SELECT 0, NULL::text, 0::bigint, 0::bigint, NULL::text, 0::bigint, 0::bigint;
        RETURN;
    END IF;
    SELECT * INTO there FROM effects e
    WHERE e.run = held.seq AND e.step = p_step AND e.key = p_key;
    RETURN QUERY SELECT
        CASE WHEN p_again AND there.result IS NULL AND there.begun_at = p_at THEN 0 ELSE 1 END,
        there.intent, there.reserved_usd, there.reserved_tokens, there.result,
        0::bigint, 0::bigint;
END $$;

-- Writes a result; returns the number of the last event before its own, or -1 if a result was
-- there.
CREATE FUNCTION finish_entry(
    p_run text, p_epoch bigint, p_step text, p_key text, p_result text, p_usd bigint,
    p_tokens bigint, p_at bigint, e_kind text[], e_step text[], e_data text[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    held runs;
    put effects;
BEGIN
    IF p_usd <> 0 OR p_tokens <> 0 OR EXISTS (
        SELECT 1 FROM runs r JOIN effects e ON e.run = r.seq
        WHERE r.id = p_run AND e.step = p_step AND e.key = p_key
            AND (e.reserved_usd <> 0 OR e.reserved_tokens <> 0))
    THEN
        PERFORM lock_lineage(r.seq) FROM runs r WHERE r.id = p_run;
    END IF;
    held := hold(p_run, p_epoch);
    INSERT INTO effects (run, step, key, intent, reserved_usd, reserved_tokens, begun_at,
        finished_at, result, spent_usd, spent_tokens, begun_after, finished_after)
    VALUES (held.seq, p_step, p_key, 'null', 0, 0, p_at, p_at, p_result, p_usd, p_tokens,
        coalesce(held.checkpoint_seq, -1), coalesce(held.checkpoint_seq, -1))
    ON CONFLICT (run, step, key) DO UPDATE SET finished_at = excluded.finished_at,
        result = excluded.result, spent_usd = excluded.spent_usd,
        spent_tokens = excluded.spent_tokens, finished_after = excluded.finished_after
    WHERE effects.result IS NULL
    RETURNING * INTO put;
    IF put.run IS NULL THEN
        RETURN -1;
    END IF;
    IF put.reserved_usd <> 0 OR put.reserved_tokens <> 0 OR p_usd <> 0 OR p_tokens <> 0 THEN
        PERFORM book(held.seq, put.reserved_usd, put.reserved_tokens, p_usd, p_tokens);
    END IF;
    IF cardinality(e_kind) > 0 THEN
        PERFORM put_events(held.seq, held.event_seq, p_at, e_kind, e_step, e_data);
    END IF;
    RETURN held.event_seq;
END $$;

CREATE FUNCTION note_events(
    p_run text, p_epoch bigint, p_at bigint, e_kind text[], e_step text[], e_data text[])
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    held runs := hold(p_run, p_epoch);
BEGIN
    IF cardinality(e_kind) > 0 THEN
        PERFORM put_events(held.seq, held.event_seq, p_at, e_kind, e_step, e_data);
    END IF;
    RETURN held.event_seq;
END $$;

-- Sends a signal from outside: 0 it was sent before or the run has ended, 1 sent, 2 sent and the
-- run is ready now.
CREATE FUNCTION send_signal(p_run text, p_key text, p_kind text, p_at bigint)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    found_run runs;
BEGIN
    SELECT * INTO found_run FROM runs r WHERE r.id = p_run FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SW001', MESSAGE = p_run;
    END IF;
    -- Not by `ON CONFLICT`: a signal that is not sent shall use up no number.
    IF found_run.status NOT IN ('ready', 'running', 'waiting') OR EXISTS (
        SELECT 1 FROM signals s WHERE s.run = found_run.seq AND s.key = p_key)
    THEN
        RETURN 0;
    END IF;
    INSERT INTO signals (run, key, at, kind) VALUES (found_run.seq, p_key, p_at, p_kind);
    IF found_run.status <> 'waiting' THEN
        RETURN 1;
    END IF;
    UPDATE runs SET status = 'ready', wake_at = NULL, updated_at = p_at
    WHERE seq = found_run.seq;
    RETURN 2;
END $$;

-- Answers an open block: its run hears `p_answered`, those above it `p_heard`. `false`: it is
-- not open any more.
CREATE FUNCTION answer_block(
    p_block text, p_value text, p_by text, p_at bigint, p_answered text, p_heard text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    asked bigint;
BEGIN
    SELECT b.run INTO asked FROM blocks b WHERE b.id = p_block;
    PERFORM lock_lineage(asked);
    UPDATE blocks SET status = 'answered', answer = p_value, answered_by = p_by,
        answered_at = p_at
    WHERE id = p_block AND status = 'open';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    WITH told AS (
        INSERT INTO signals (run, at, kind)
        SELECT r.seq, p_at, CASE WHEN l.depth = 0 THEN p_answered ELSE p_heard END
        FROM lineage(asked) l JOIN runs r ON r.seq = l.seq
        WHERE r.status IN ('ready', 'running', 'waiting') ORDER BY l.depth
        RETURNING signals.run)
    UPDATE runs SET status = 'ready', wake_at = NULL, updated_at = p_at
    WHERE seq IN (SELECT told.run FROM told) AND status = 'waiting';
    RETURN true;
END $$;

-- Writes a document whose version is `p_expected`; returns the version found, 0 for none.
CREATE FUNCTION put_record(p_namespace text, p_key text, p_expected bigint, p_value text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_version bigint;
BEGIN
    IF p_expected = 0 THEN
        INSERT INTO records (namespace, key, version, value)
        VALUES (p_namespace, p_key, 1, p_value) ON CONFLICT (namespace, key) DO NOTHING;
    ELSE
        UPDATE records SET version = version + 1, value = p_value
        WHERE namespace = p_namespace AND key = p_key AND version = p_expected;
    END IF;
    IF FOUND THEN
        RETURN p_expected;
    END IF;
    SELECT version INTO found_version FROM records
    WHERE namespace = p_namespace AND key = p_key;
    RETURN coalesce(found_version, 0);
END $$;

-- Writes the commits of several runs, each of them whole or not at all, in one transaction. Each
-- part of a commit is a set of parallel lists whose `ix` names the commit, from 1. `d_base` is -2
-- where a change builds on what is stored; else `d_base`, `d_merges`, `d_held` say what it builds
-- on, with -1 for nothing.
--
-- Answers rows (ix, what, num, text): 0 written, after event `num`; 1 refused, the epoch is
-- `num`; 2 refused, the next checkpoint is `num`; 3 refused, the `num`th change does not fit a
-- channel that holds `text`; 4 refused, block `text` is another run's; 5 refused, no parent
-- `text`; 6 refused, no recipient `text`; 7 run `text` is claimable now; 8 merges of channel
-- `text` shall be folded at checkpoint `num`; 9 written before, after event `num`: the mark
-- `c_token` is on the run, so this is the second try after a lost answer. A run of which nothing
-- is said is not there.
CREATE FUNCTION write_commits(
    p_format integer, p_merges_max integer,
    c_run text[], c_epoch bigint[], c_token bigint[], c_at bigint[], c_first text[],
    c_seq bigint[], c_cursor text[], c_events integer[], c_graph text[], c_limit boolean[],
    c_limit_usd bigint[], c_limit_tokens bigint[], c_asks boolean[], c_above boolean[],
    c_below boolean[], c_release integer[], c_status text[], c_wake bigint[], c_seen bigint[],
    c_output text[], c_failure text[],
    d_ix integer[], d_seq bigint[], d_channel text[], d_change text[], d_shape text[],
    d_base bigint[], d_merges integer[], d_held text[], d_value text[],
    s_ix integer[], s_step text[], s_attempt bigint[], s_node text[], s_seq bigint[],
    s_started bigint[], s_ended bigint[], s_ending text[],
    b_ix integer[], b_id text[], b_step text[], b_ask text[], b_asked bigint[],
    b_remind bigint[],
    w_ix integer[], w_id text[],
    t_ix integer[], t_id bigint[],
    k_ix integer[], k_id text[], k_graph text[], k_hash text[], k_queue text[],
    k_priority integer[], k_labels text[], k_parent text[], k_parent_step text[],
    k_awaits boolean[], k_limit_usd bigint[], k_limit_tokens bigint[], k_input text[],
    o_ix integer[], o_to integer[], o_run text[], o_if text[], o_kind text[],
    e_ix integer[], e_no integer[], e_kind text[], e_step text[], e_data text[])
RETURNS TABLE (ix integer, what integer, num bigint, txt text)
LANGUAGE plpgsql AS $body$
#variable_conflict use_column
DECLARE
    own bigint[] := array_fill(0::bigint, ARRAY[cardinality(c_run)]);
    events_before bigint[] := own;
    next_seq bigint[] := own;
    head_base bigint[];
    head_merges integer[];
    head_shape text[];
    misfits boolean;
    asked text[] := '{}';
    item record;
    new_run bigint;
BEGIN
    -- The locks, all at once where others than the runs themselves are touched.
    IF true = ANY (c_above) OR true = ANY (c_below) OR cardinality(o_ix) > 0 THEN
        PERFORM r.seq FROM runs r WHERE r.seq IN (
            SELECT r.seq FROM unnest(c_run) AS c (id) JOIN runs r ON r.id = c.id
            UNION
            SELECT r.seq FROM unnest(o_run) AS o (id) JOIN runs r ON r.id = o.id
            UNION
            SELECT l.seq FROM unnest(c_run, c_above) AS c (id, above)
            JOIN runs r ON r.id = c.id CROSS JOIN LATERAL lineage(r.seq) l WHERE c.above
            UNION
            SELECT k.seq FROM unnest(c_run, c_below) AS c (id, below)
            JOIN runs r ON r.id = c.id JOIN runs k ON k.parent = r.seq WHERE c.below)
        ORDER BY r.seq FOR NO KEY UPDATE;
    END IF;
    FOR item IN
        SELECT c.ix::integer AS ix, r.seq, r.status, r.epoch, r.event_seq, r.last_commit,
            coalesce(r.checkpoint_seq + 1, 0) AS next
        FROM unnest(c_run) WITH ORDINALITY AS c (id, ix) JOIN runs r ON r.id = c.id
        ORDER BY r.seq FOR NO KEY UPDATE OF r
    LOOP
        ix := item.ix;
        txt := NULL;
        IF item.last_commit = c_token[ix] THEN
            what := 9;
            num := item.event_seq - c_events[ix];
            RETURN NEXT;
        ELSIF item.epoch <> c_epoch[ix] OR item.status <> 'running' THEN
            what := 1;
            num := item.epoch;
            RETURN NEXT;
        ELSE
            next_seq[ix] := item.next;
            IF c_first[ix] IS NOT NULL THEN
                next_seq[ix] := item.next + 1;
            END IF;
            IF c_seq[ix] >= 0 AND c_seq[ix] <> next_seq[ix]
                OR c_first[ix] IS NOT NULL AND item.next <> 0
            THEN
                what := 2;
                num := next_seq[ix];
                RETURN NEXT;
            ELSE
                own[ix] := item.seq;
                events_before[ix] := item.event_seq;
            END IF;
        END IF;
    END LOOP;

    -- What else may be refused, before anything is written.
    IF cardinality(d_ix) > 0 THEN
        SELECT array_agg(coalesce(h.base, d.base) ORDER BY d.n),
            array_agg(coalesce(h.merges, d.merges) ORDER BY d.n),
            array_agg(coalesce(h.shape, d.held) ORDER BY d.n),
            bool_or((d.change = 'append'
                    AND (d.shape <> 'list' OR coalesce(h.shape, d.held) NOT IN ('null', 'list')))
                OR (d.change = 'merge'
                    AND (d.shape <> 'object'
                        OR coalesce(h.shape, d.held) NOT IN ('null', 'object'))))
        INTO head_base, head_merges, head_shape, misfits
        FROM unnest(d_ix, d_channel, d_change, d_shape, d_base, d_merges, d_held)
            WITH ORDINALITY AS d (ix, channel, change, shape, base, merges, held, n)
        LEFT JOIN LATERAL (
            SELECT x.base, x.merges, x.shape FROM channel_deltas x
            WHERE x.run = own[d.ix] AND x.channel = d.channel AND d.change <> 'full'
                AND d.base = -2
            ORDER BY x.seq DESC LIMIT 1) h ON true;
        IF misfits THEN
            FOR item IN
                SELECT DISTINCT ON (d.ix) d.ix, d.n, d.held
                FROM unnest(d_ix, d_change, d_shape, head_shape) WITH ORDINALITY
                    AS d (ix, change, shape, held, n)
                WHERE own[d.ix] <> 0 AND (
                    (d.change = 'append'
                        AND (d.shape <> 'list' OR d.held NOT IN ('null', 'list')))
                    OR (d.change = 'merge'
                        AND (d.shape <> 'object' OR d.held NOT IN ('null', 'object'))))
                ORDER BY d.ix, d.n
            LOOP
                ix := item.ix;
                what := 3;
                num := item.n;
                txt := item.held;
                own[ix] := 0;
                RETURN NEXT;
            END LOOP;
        END IF;
    END IF;
    IF cardinality(b_ix) > 0 THEN
        FOR item IN
            SELECT DISTINCT ON (b.ix) b.ix, b.id
            FROM unnest(b_ix, b_id) WITH ORDINALITY AS b (ix, id, n)
            JOIN blocks x ON x.id = b.id
            WHERE own[b.ix] <> 0 AND x.run <> own[b.ix] ORDER BY b.ix, b.n
        LOOP
            ix := item.ix;
            what := 4;
            num := 0;
            txt := item.id;
            own[ix] := 0;
            RETURN NEXT;
        END LOOP;
    END IF;
    IF cardinality(k_ix) > 0 THEN
        FOR item IN
            SELECT DISTINCT ON (k.ix) k.ix, k.parent
            FROM unnest(k_ix, k_id, k_parent) WITH ORDINALITY AS k (ix, id, parent, n)
            WHERE own[k.ix] <> 0 AND k.parent IS NOT NULL
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = k.id)
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = k.parent)
                AND NOT EXISTS (
                    SELECT 1 FROM unnest(k_ix, k_id) WITH ORDINALITY AS b (ix, id, n)
                    WHERE b.ix = k.ix AND b.id = k.parent AND b.n < k.n)
            ORDER BY k.ix, k.n
        LOOP
            ix := item.ix;
            what := 5;
            num := 0;
            txt := item.parent;
            own[ix] := 0;
            RETURN NEXT;
        END LOOP;
    END IF;
    IF cardinality(o_ix) > 0 THEN
        FOR item IN
            SELECT DISTINCT ON (o.ix) o.ix, o.run
            FROM unnest(o_ix, o_to, o_run) WITH ORDINALITY AS o (ix, "to", run, n)
            WHERE own[o.ix] <> 0 AND o."to" = 0
                AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = o.run)
                AND NOT EXISTS (
                    SELECT 1 FROM unnest(k_ix, k_id) AS k (ix, id)
                    WHERE k.ix = o.ix AND k.id = o.run)
            ORDER BY o.ix, o.n
        LOOP
            ix := item.ix;
            what := 6;
            num := 0;
            txt := item.run;
            own[ix] := 0;
            RETURN NEXT;
        END LOOP;
    END IF;

    INSERT INTO checkpoints (run, seq, format, at, cursor)
    SELECT own[c.ix], p.seq, p_format, c.at, p.cursor
    FROM unnest(c_first, c_seq, c_at, c_cursor) WITH ORDINALITY
        AS c (first, seq, at, cursor, ix)
    CROSS JOIN LATERAL (VALUES (0, c.first), (c.seq, c.cursor)) AS p (seq, cursor)
    WHERE p.cursor IS NOT NULL AND own[c.ix] <> 0;
    IF cardinality(d_ix) > 0 THEN
        RETURN QUERY
        WITH put AS (
            INSERT INTO channel_deltas (run, channel, seq, base, merges, shape, change, value)
            SELECT own[d.ix], d.channel, d.seq,
                CASE WHEN d.change = 'full' OR d.base < 0 THEN d.seq ELSE d.base END,
                CASE d.change WHEN 'full' THEN 0 WHEN 'merge' THEN d.merges + 1
                    ELSE d.merges END,
                d.shape, d.change, d.value
            FROM unnest(d_ix, d_seq, d_channel, d_change, d_shape, d_value, head_base,
                head_merges) AS d (ix, seq, channel, change, shape, value, base, merges)
            WHERE own[d.ix] <> 0
            RETURNING run, channel, seq, merges)
        SELECT array_position(own, put.run), 8, put.seq, put.channel::text
        FROM put WHERE put.merges > p_merges_max;
    END IF;
    IF cardinality(s_ix) > 0 THEN
        INSERT INTO steps (run, step, attempt, node, seq, covered_by, started_at, ended_at, ending)
        SELECT own[s.ix], s.step, s.attempt, s.node, s.seq, next_seq[s.ix], s.started, s.ended,
            s.ending
        FROM unnest(s_ix, s_step, s_attempt, s_node, s_seq, s_started, s_ended, s_ending)
            WITH ORDINALITY AS s (ix, step, attempt, node, seq, started, ended, ending, n)
        WHERE own[s.ix] <> 0 ORDER BY s.n
        ON CONFLICT (run, step, attempt) DO NOTHING;
    END IF;
    IF cardinality(b_ix) > 0 THEN
        WITH put AS (
            INSERT INTO blocks (id, run, step, status, ask, asked_at, remind_at)
            SELECT b.id, own[b.ix], b.step, 'open', b.ask, b.asked, b.remind
            FROM unnest(b_ix, b_id, b_step, b_ask, b_asked, b_remind) WITH ORDINALITY
                AS b (ix, id, step, ask, asked, remind, n)
            WHERE own[b.ix] <> 0 ORDER BY b.n
            ON CONFLICT (id) DO NOTHING RETURNING id)
        SELECT coalesce(array_agg(put.id), '{}') INTO asked FROM put;
    END IF;
    IF cardinality(w_ix) > 0 THEN
        UPDATE blocks b SET status = 'withdrawn' FROM unnest(w_ix, w_id) AS w (ix, id)
        WHERE b.id = w.id AND b.run = own[w.ix] AND b.status = 'open';
    END IF;
    IF cardinality(t_ix) > 0 THEN
        UPDATE signals s SET taken_at = c_at[t.ix] FROM unnest(t_ix, t_id) AS t (ix, id)
        WHERE s.id = t.id AND s.run = own[t.ix] AND s.taken_at IS NULL;
    END IF;
    IF cardinality(k_ix) > 0 THEN
        FOR item IN
            SELECT * FROM unnest(k_ix, k_id, k_graph, k_hash, k_queue, k_priority, k_labels,
                    k_parent, k_parent_step, k_awaits, k_limit_usd, k_limit_tokens, k_input)
                WITH ORDINALITY AS k (ix, id, graph, hash, queue, priority, labels, parent,
                    parent_step, awaits, limit_usd, limit_tokens, input, n)
            WHERE own[k.ix] <> 0 ORDER BY k.n
        LOOP
            INSERT INTO runs (id, graph, graph_hash, queue, priority, labels, parent,
                parent_step, parent_awaits, limit_usd, limit_tokens, created_at, updated_at)
            SELECT item.id, item.graph, item.hash, item.queue, item.priority,
                ARRAY(SELECT json_array_elements_text(item.labels::json)),
                (SELECT r.seq FROM runs r WHERE r.id = item.parent), item.parent_step,
                item.awaits, item.limit_usd, item.limit_tokens, c_at[item.ix], c_at[item.ix]
            WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = item.id)
            ON CONFLICT (id) DO NOTHING RETURNING seq INTO new_run;
            IF FOUND THEN
                INSERT INTO run_data (run, input) VALUES (new_run, item.input);
                ix := item.ix;
                what := 7;
                num := 0;
                txt := item.id;
                RETURN NEXT;
            END IF;
        END LOOP;
    END IF;
    -- Signals, in the order of their sending; the runs that wait for one are ready then.
    IF cardinality(o_ix) > 0 THEN
        RETURN QUERY
        WITH sent AS (
            INSERT INTO signals (run, at, kind)
            SELECT r.seq, c_at[o.ix], o.kind
            FROM unnest(o_ix, o_to, o_run, o_if, o_kind) WITH ORDINALITY
                AS o (ix, "to", run, only_if, kind, n)
            CROSS JOIN LATERAL (
                SELECT x.seq, 0::bigint AS place FROM runs x WHERE o."to" = 0 AND x.id = o.run
                UNION ALL
                SELECT l.seq, l.depth FROM lineage(own[o.ix]) l
                WHERE (o."to" = 1 AND l.depth > 0) OR (o."to" = 3 AND l.depth = 1)
                UNION ALL
                SELECT x.seq, x.seq FROM runs x WHERE o."to" = 2 AND x.parent = own[o.ix]) t
            JOIN runs r ON r.seq = t.seq AND r.status IN ('ready', 'running', 'waiting')
            WHERE own[o.ix] <> 0 AND (o.only_if IS NULL OR o.only_if = ANY (asked))
            ORDER BY o.n, t.place
            RETURNING signals.run, signals.at),
        woken AS (
            UPDATE runs r SET status = 'ready', wake_at = NULL, updated_at = s.at
            FROM (SELECT sent.run, max(sent.at) AS at FROM sent GROUP BY sent.run) s
            WHERE r.seq = s.run AND r.status = 'waiting' RETURNING r.id)
        SELECT o_ix[1], 7, 0::bigint, woken.id::text FROM woken;
    END IF;
    IF cardinality(e_ix) > 0 THEN
        INSERT INTO events (run, seq, at, kind, step, data)
        SELECT own[e.ix], events_before[e.ix] + e.no, c_at[e.ix], e.kind, e.step, e.data
        FROM unnest(e_ix, e_no, e_kind, e_step, e_data) AS e (ix, no, kind, step, data)
        WHERE own[e.ix] <> 0;
    END IF;
    RETURN QUERY
    WITH done AS (
        UPDATE runs r SET updated_at = c.at, event_seq = r.event_seq + c.events,
            last_commit = c.token,
            checkpoint_seq = CASE WHEN c.seq >= 0 THEN c.seq WHEN c.first THEN 0
                ELSE r.checkpoint_seq END,
            checkpoint_format = CASE WHEN c.seq >= 0 OR c.first THEN p_format
                ELSE r.checkpoint_format END,
            limit_usd = CASE WHEN c.has_limit THEN c.limit_usd ELSE r.limit_usd END,
            limit_tokens = CASE WHEN c.has_limit THEN c.limit_tokens ELSE r.limit_tokens END,
            graph_hash = coalesce(c.graph, r.graph_hash),
            reserved_by = CASE
                WHEN c.release = 3 THEN NULL
                WHEN NOT c.asks AND c.release = 0 THEN r.reserved_by
                WHEN EXISTS (SELECT 1 FROM blocks b WHERE b.run = r.seq AND b.status = 'open')
                    THEN r.lease_owner END,
            status = CASE c.release WHEN 0 THEN r.status WHEN 1 THEN 'ready'
                WHEN 2 THEN CASE WHEN u.unseen THEN 'ready' ELSE 'waiting' END
                ELSE c.status END,
            wake_at = CASE WHEN c.release = 2 AND NOT u.unseen THEN c.wake END,
            lease_owner = CASE WHEN c.release = 0 THEN r.lease_owner END,
            lease_until = CASE WHEN c.release = 0 THEN r.lease_until END,
            ended_at = CASE WHEN c.release = 3 THEN c.at END
        FROM (
            SELECT x.*, c_first[x.ix] IS NOT NULL AS first
            FROM unnest(c_token, c_at, c_seq, c_events, c_graph, c_limit, c_limit_usd,
                    c_limit_tokens, c_asks, c_release, c_status, c_wake, c_seen) WITH ORDINALITY
                AS x (token, at, seq, events, graph, has_limit, limit_usd, limit_tokens, asks,
                    release, status, wake, seen, ix)) c
        CROSS JOIN LATERAL (
            SELECT c.release = 2 AND EXISTS (
                SELECT 1 FROM signals s
                WHERE s.run = own[c.ix] AND s.taken_at IS NULL AND s.id > c.seen) AS unseen) u
        WHERE own[c.ix] <> 0 AND r.seq = own[c.ix]
        RETURNING c.ix::integer AS ix, r.id, r.status)
    SELECT done.ix, 0, events_before[done.ix], NULL::text FROM done
    UNION ALL
    SELECT done.ix, 7, 0::bigint, done.id::text FROM done WHERE done.status = 'ready';
    IF 3 = ANY (c_release) THEN
        UPDATE run_data d SET output = c.output, failure = c.failure
        FROM unnest(c_release, c_output, c_failure) WITH ORDINALITY
            AS c (release, output, failure, ix)
        WHERE c.release = 3 AND own[c.ix] <> 0 AND d.run = own[c.ix];
        UPDATE blocks b SET status = 'withdrawn'
        FROM unnest(c_release) WITH ORDINALITY AS c (release, ix)
        WHERE c.release = 3 AND own[c.ix] <> 0 AND b.run = own[c.ix] AND b.status = 'open';
        FOR item IN
            SELECT e.run, sum(e.reserved_usd)::bigint AS usd,
                sum(e.reserved_tokens)::bigint AS tokens
            FROM unnest(c_release) WITH ORDINALITY AS c (release, ix)
            JOIN effects e ON e.run = own[c.ix] AND e.result IS NULL
                AND (e.reserved_usd <> 0 OR e.reserved_tokens <> 0)
            WHERE c.release = 3 AND own[c.ix] <> 0 GROUP BY e.run
        LOOP
            PERFORM book(item.run, item.usd, item.tokens, 0, 0);
        END LOOP;
    END IF;
END $body$;
