-- Forks, edits, copies, deletion and pruning.

-- Where a fork began. Not a reference: the run may be gone.
ALTER TABLE runs ADD COLUMN forked_from TEXT;
ALTER TABLE runs ADD COLUMN forked_seq INTEGER;

CREATE INDEX runs_ended ON runs (ended_at) WHERE parent IS NULL AND ended_at IS NOT NULL;
CREATE INDEX runs_of_graph ON runs (graph_hash);

ALTER TABLE checkpoints ADD COLUMN edited_by TEXT;

-- When an entry was written, told by the number of the checkpoint before; -1 is none. Of older
-- entries only the moments are known.
ALTER TABLE effects ADD COLUMN begun_after INTEGER NOT NULL DEFAULT -1;
ALTER TABLE effects ADD COLUMN finished_after INTEGER;

UPDATE effects SET
    begun_after = coalesce((SELECT max(c.seq) FROM checkpoints c
        WHERE c.run = effects.run AND c.at <= effects.begun_at), -1),
    finished_after = CASE WHEN result IS NULL THEN NULL ELSE
        coalesce((SELECT max(c.seq) FROM checkpoints c
            WHERE c.run = effects.run AND c.at <= effects.finished_at), -1) END;

-- Since when a prune knows that no run needs the text.
ALTER TABLE graphs ADD COLUMN unneeded_since INTEGER;

-- So that deleting a run does not look at the signals of all others.
CREATE INDEX signals_of_run ON signals (run);
