//! Dumps: a whole store as lines of JSON, to be read by a store of any kind.
//!
//! ```text
//! {"swarm_dump":1}
//! {"table":"graphs","columns":["hash","name","version","text","unneeded_since"]}
//! ["3f…","manager","1.0.0","…",null]
//! …
//! {"end":1042}
//! ```
//!
//! All of it is of one moment, and the last line says how many rows there were: a dump that was
//! cut off is refused. Numbers of rows stay what they are, so runs go on in the other store where
//! they were in this one, with their questions, signals and journals. Nobody may work on the old
//! store any more: its workers would repeat what the new one's do.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::port::store::{Error, Result};
use swarm_core::time::Timestamp;
use tokio::sync::mpsc;

use super::rules;

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

/// A store that can be dumped and filled.
#[async_trait]
pub trait Dump: Send + Sync {
    /// Runs that somebody works on at this moment: they must rest before a dump that shall
    /// replace the store.
    ///
    /// # Errors
    /// The store's failure.
    async fn at_work(&self, now: Timestamp) -> Result<u64>;

    /// Sends every line of a dump, without line ends; returns how many rows there were.
    ///
    /// # Errors
    /// The store's failure. Whoever receives the lines has then seen no last one.
    async fn export(&self, lines: mpsc::Sender<String>) -> Result<u64>;

    /// Fills an empty store with a dump; returns how many rows there were. This is one
    /// transaction: after an error nothing is there.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the store is not empty, or the dump is not whole and right.
    async fn import(&self, lines: mpsc::Receiver<String>) -> Result<u64>;
}

/// What a column holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Int,
    Text,
    Flag,
    /// An object of texts.
    Labels,
}

/// A table as it is dumped: what every store keeps.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// By which columns its rows are ordered.
    pub(super) order: &'static str,
    /// The column that numbers its rows, if there is one.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "SQLite counts on by itself")
    )]
    pub(super) number: Option<&'static str>,
}

use self::Kind::{Flag, Int, Labels, Text};

/// In an order in which each row finds what it refers to.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "graphs",
        columns: &[
            ("hash", Text),
            ("name", Text),
            ("version", Text),
            ("text", Text),
            ("unneeded_since", Int),
        ],
        order: "hash",
        number: None,
    },
    Table {
        name: "runs",
        columns: &[
            ("seq", Int),
            ("id", Text),
            ("graph", Text),
            ("graph_hash", Text),
            ("queue", Text),
            ("priority", Int),
            ("labels", Labels),
            ("parent", Int),
            ("parent_step", Text),
            ("parent_awaits", Flag),
            ("status", Text),
            ("epoch", Int),
            ("lease_owner", Text),
            ("lease_until", Int),
            ("reserved_by", Text),
            ("wake_at", Int),
            ("limit_usd", Int),
            ("limit_tokens", Int),
            ("spent_usd", Int),
            ("spent_tokens", Int),
            ("reserved_usd", Int),
            ("reserved_tokens", Int),
            ("checkpoint_seq", Int),
            ("checkpoint_format", Int),
            ("event_seq", Int),
            ("created_at", Int),
            ("updated_at", Int),
            ("ended_at", Int),
            ("forked_from", Text),
            ("forked_seq", Int),
        ],
        order: "seq",
        number: Some("seq"),
    },
    Table {
        name: "run_data",
        columns: &[("run", Int), ("input", Text), ("output", Text), ("failure", Text)],
        order: "run",
        number: None,
    },
    Table {
        name: "checkpoints",
        columns: &[
            ("run", Int),
            ("seq", Int),
            ("format", Int),
            ("at", Int),
            ("edited_by", Text),
            ("cursor", Text),
        ],
        order: "run, seq",
        number: None,
    },
    Table {
        name: "channel_deltas",
        columns: &[
            ("run", Int),
            ("channel", Text),
            ("seq", Int),
            ("base", Int),
            ("merges", Int),
            ("shape", Text),
            ("change", Text),
            ("value", Text),
        ],
        order: "run, channel, seq",
        number: None,
    },
    Table {
        name: "steps",
        columns: &[
            ("n", Int),
            ("run", Int),
            ("step", Text),
            ("attempt", Int),
            ("node", Text),
            ("seq", Int),
            ("covered_by", Int),
            ("started_at", Int),
            ("ended_at", Int),
            ("ending", Text),
        ],
        order: "n",
        number: Some("n"),
    },
    Table {
        name: "effects",
        columns: &[
            ("n", Int),
            ("run", Int),
            ("step", Text),
            ("key", Text),
            ("reserved_usd", Int),
            ("reserved_tokens", Int),
            ("spent_usd", Int),
            ("spent_tokens", Int),
            ("begun_at", Int),
            ("finished_at", Int),
            ("begun_after", Int),
            ("finished_after", Int),
            ("intent", Text),
            ("result", Text),
        ],
        order: "n",
        number: Some("n"),
    },
    Table {
        name: "blocks",
        columns: &[
            ("n", Int),
            ("id", Text),
            ("run", Int),
            ("step", Text),
            ("status", Text),
            ("ask", Text),
            ("asked_at", Int),
            ("remind_at", Int),
            ("answer", Text),
            ("answered_by", Text),
            ("answered_at", Int),
        ],
        order: "n",
        number: Some("n"),
    },
    Table {
        name: "signals",
        columns: &[
            ("id", Int),
            ("run", Int),
            ("key", Text),
            ("at", Int),
            ("taken_at", Int),
            ("kind", Text),
        ],
        order: "id",
        number: Some("id"),
    },
    Table {
        name: "events",
        columns: &[
            ("run", Int),
            ("seq", Int),
            ("at", Int),
            ("kind", Text),
            ("step", Text),
            ("data", Text),
        ],
        order: "run, seq",
        number: None,
    },
    Table {
        name: "records",
        columns: &[("namespace", Text), ("key", Text), ("version", Int), ("value", Text)],
        order: "namespace, key",
        number: None,
    },
];

impl Table {
    /// Its columns, separated by commas.
    pub(super) fn column_list(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }
}

/// A line that is no row.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    swarm_dump: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
}

const NO_MARK: Mark = Mark { swarm_dump: None, table: None, columns: None, end: None };

fn line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Backend(Box::new(error)))
}

/// The first line.
pub(super) fn head() -> Result<String> {
    line(&Mark { swarm_dump: Some(FORMAT), ..NO_MARK })
}

/// The line before the rows of a table.
pub(super) fn begins(table: &Table) -> Result<String> {
    let columns = table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    line(&Mark { table: Some(table.name.to_owned()), columns: Some(columns), ..NO_MARK })
}

/// The line of a row.
pub(super) fn row(cells: &[Value]) -> Result<String> {
    line(&cells)
}

/// The last line.
pub(super) fn end(rows: u64) -> Result<String> {
    line(&Mark { end: Some(rows), ..NO_MARK })
}

/// Nobody takes the lines any more.
pub(super) fn nobody_reads() -> Error {
    Error::Backend("the dump is not read to its end".into())
}

/// Refuses to fill a store that holds something.
pub(super) fn not_empty(table: &str) -> Error {
    rules::invalid("import", "store", format!("table `{table}` is not empty: use a new store"))
}

/// What a reader has to do next.
pub(super) enum Next {
    /// Nothing with this line.
    Nothing,
    /// A row of this table, its cells in the order of [`TABLES`].
    Row(&'static Table, Vec<Value>),
}

/// Reads a dump line by line.
#[derive(Default)]
pub(super) struct Reader {
    line: u64,
    rows: u64,
    has_head: bool,
    table: Option<(&'static Table, Vec<usize>)>,
    is_over: bool,
}

impl Reader {
    fn wrong(&self, why: impl Into<String>) -> Error {
        rules::invalid("dump", &format!("line {}", self.line), why)
    }

    pub(super) fn read(&mut self, text: &str) -> Result<Next> {
        self.line += 1;
        if self.is_over {
            return Err(self.wrong("there is more after the last line"));
        }
        if text.starts_with('[') {
            return self.read_row(text);
        }
        let mark: Mark = serde_json::from_str(text)
            .map_err(|error| self.wrong(format!("it is no line of a dump: {error}")))?;
        match mark {
            Mark { swarm_dump: Some(format), table: None, columns: None, end: None }
                if !self.has_head =>
            {
                if format > FORMAT {
                    let why = format!(
                        "the dump is of format {format}, and this program reads up to {FORMAT}"
                    );
                    return Err(self.wrong(why));
                }
                self.has_head = true;
            }
            Mark { table: Some(name), columns: Some(columns), swarm_dump: None, end: None }
                if self.has_head =>
            {
                self.table = Some(self.find(&name, &columns)?);
            }
            Mark { end: Some(rows), swarm_dump: None, table: None, columns: None }
                if self.has_head =>
            {
                if rows != self.rows {
                    let why = format!("the dump has {} rows and says {rows}", self.rows);
                    return Err(self.wrong(why));
                }
                self.is_over = true;
            }
            _ => return Err(self.wrong("it is no line of a dump, or not in its place")),
        }
        Ok(Next::Nothing)
    }

    /// A table, and where in its lines each of its columns stands.
    fn find(&self, name: &str, columns: &[String]) -> Result<(&'static Table, Vec<usize>)> {
        let table = TABLES.iter().find(|table| table.name == name);
        let table = table.ok_or_else(|| self.wrong(format!("there is no table `{name}`")))?;
        let places = table.columns.iter().map(|(column, _)| {
            let place = columns.iter().position(|name| name == column);
            place.ok_or_else(|| self.wrong(format!("`{name}` has no column `{column}`")))
        });
        let places = places.collect::<Result<Vec<_>>>()?;
        if columns.len() != places.len() {
            return Err(self.wrong(format!("`{name}` has columns that this program does not know")));
        }
        Ok((table, places))
    }

    fn read_row(&mut self, text: &str) -> Result<Next> {
        let Some((table, places)) = &self.table else {
            return Err(self.wrong("a row of no table"));
        };
        let mut cells: Vec<Value> = serde_json::from_str(text)
            .map_err(|error| self.wrong(format!("it is no row: {error}")))?;
        if cells.len() != places.len() {
            return Err(self.wrong(format!("{} cells for {} columns", cells.len(), places.len())));
        }
        let cells: Vec<Value> = places.iter().map(|place| cells[*place].take()).collect();
        for ((column, kind), cell) in table.columns.iter().zip(&cells) {
            let fits = match kind {
                Int => cell.is_null() || cell.is_i64(),
                Text => cell.is_null() || cell.is_string(),
                Flag => cell.is_null() || cell.is_boolean(),
                Labels => cell.as_object().is_some_and(|all| all.values().all(Value::is_string)),
            };
            if !fits {
                return Err(self.wrong(format!("column `{column}` holds something else")));
            }
        }
        self.rows += 1;
        Ok(Next::Row(table, cells))
    }

    /// How many rows there were, if that was all.
    pub(super) fn finish(self) -> Result<u64> {
        if self.is_over {
            return Ok(self.rows);
        }
        Err(self.wrong("the dump ends before its last line: it was cut off"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &[&str]) -> Result<u64> {
        let mut reader = Reader::default();
        for line in lines {
            reader.read(line)?;
        }
        reader.finish()
    }

    #[test]
    fn a_dump_that_is_not_whole_is_refused() {
        let records = r#"{"table":"records","columns":["namespace","key","version","value"]}"#;
        let row = r#"["n","k",1,"{}"]"#;
        assert_eq!(all(&[r#"{"swarm_dump":1}"#, records, row, r#"{"end":1}"#]).unwrap(), 1);
        let refusals = [
            all(&[r#"{"swarm_dump":1}"#, records, row]),
            all(&[r#"{"swarm_dump":1}"#, records, row, r#"{"end":2}"#]),
            all(&[r#"{"swarm_dump":2}"#]),
            all(&[records]),
            all(&[r#"{"swarm_dump":1}"#, row]),
            all(&[r#"{"swarm_dump":1}"#, records, r#"["n","k","1","{}"]"#]),
            all(&[r#"{"swarm_dump":1}"#, r#"{"table":"secrets","columns":[]}"#]),
        ]
        .map(|refused| refused.unwrap_err().to_string());
        insta::assert_snapshot!(refusals.join("\n"), @r"
        dump of `line 3` is not valid: the dump ends before its last line: it was cut off
        dump of `line 4` is not valid: the dump has 1 rows and says 2
        dump of `line 1` is not valid: the dump is of format 2, and this program reads up to 1
        dump of `line 1` is not valid: it is no line of a dump, or not in its place
        dump of `line 2` is not valid: a row of no table
        dump of `line 3` is not valid: column `version` holds something else
        dump of `line 2` is not valid: there is no table `secrets`
        ");
    }
}
