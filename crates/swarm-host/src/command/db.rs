//! `db`: the store's schema, and moving a swarm from one store to another.
//!
//! A dump holds everything, waiting runs with their questions included. Whoever moves a swarm stops
//! its workers first and starts them on the new store: two stores that both go on would do the same
//! work twice.

use std::io::{BufRead as _, BufReader, BufWriter, Read, Write};

use anyhow::{Context as _, Result, bail};
use secrecy::ExposeSecret as _;
use serde_json::json;
use swarm_core::port::clock::Clock as _;
use swarm_graph::store::postgres::PostgresStore;
use swarm_graph::system::SystemClock;
use tokio::sync::mpsc;

use super::{Usage, out::Out};
use crate::cli;
use crate::config::Settings;
use crate::wire::{Home, postgres_options, store_file};

/// How many lines may be on their way between the store and the file.
const LINES_MAX: usize = 1024;

/// Runs the command.
///
/// # Errors
/// [`Usage`] for a file that cannot be had or a store that is at work; the store's failure.
pub async fn run(settings: &Settings, out: Out, what: &cli::Db) -> Result<()> {
    match what {
        cli::Db::Status => status(settings, out).await,
        cli::Db::Migrate => migrate(settings, out).await,
        cli::Db::Export { file, force } => export(settings, out, file, *force).await,
        cli::Db::Import { file } => import(settings, out, file).await,
    }
}

async fn status(settings: &Settings, out: Out) -> Result<()> {
    let Some((url, from)) = settings.database()? else {
        let path = store_file(settings);
        let is_there = path.exists();
        return out.print(&json!({ "store": "sqlite", "file": path, "exists": is_there }), || {
            let state = if is_there { "" } else { ", which is made by the first command" };
            format!("Runs are kept in {}{state}.", path.display())
        });
    };
    let options = postgres_options(settings);
    let schema = &options.schema;
    let (found, known) = PostgresStore::versions(url.expose_secret(), &options)
        .await
        .with_context(|| format!("cannot look at the store that {from} names"))?;
    let said = json!({
        "store": "postgres", "from": from, "schema": schema, "version": found, "known": known,
    });
    out.print(&said, || {
        let state = match found {
            0 => format!("empty; `db migrate` makes version {known}"),
            found if found < known => format!("version {found}; `db migrate` makes it {known}"),
            found => format!("version {found}, up to date"),
        };
        format!("Runs are kept in PostgreSQL, as {from} says; schema `{schema}`: {state}.")
    })
}

async fn migrate(settings: &Settings, out: Out) -> Result<()> {
    let Some((url, from)) = settings.database()? else {
        let path = store_file(settings);
        Home::open(settings).await?;
        return out.print(&json!({ "store": "sqlite", "file": path }), || {
            format!("{} is up to date.", path.display())
        });
    };
    let options = postgres_options(settings);
    let cannot = || format!("cannot migrate the store that {from} names");
    let url = url.expose_secret();
    let (before, _) = PostgresStore::versions(url, &options).await.with_context(cannot)?;
    let now = swarm_graph::store::postgres::Options { migrate: true, ..options.clone() };
    PostgresStore::open(url, now).await.with_context(cannot)?.close().await;
    let (after, _) = PostgresStore::versions(url, &options).await.with_context(cannot)?;
    let said = json!({
        "store": "postgres", "schema": options.schema, "before": before, "version": after,
    });
    out.print(&said, || {
        let schema = &options.schema;
        if before == after {
            format!("Schema `{schema}` has version {after} already.")
        } else {
            format!("Schema `{schema}` has version {after} now; it had {before}.")
        }
    })
}

async fn export(settings: &Settings, out: Out, file: &str, force: bool) -> Result<()> {
    let home = Home::open(settings).await?;
    let at_work = home.dump().at_work(SystemClock.now()).await?;
    if at_work > 0 && !force {
        bail!(Usage(format!(
            "{at_work} runs are being worked on: stop the workers and wait for their leases to \
             end, or use --force and lose what is done since"
        )));
    }
    let is_stdout = file == "-";
    let target: Box<dyn Write + Send> = if is_stdout {
        Box::new(std::io::stdout())
    } else {
        // Never over another file: that may be the only dump there is.
        let made = std::fs::File::create_new(file);
        Box::new(made.with_context(|| Usage(format!("cannot make the file {file}")))?)
    };
    let (lines, mut taken) = mpsc::channel::<String>(LINES_MAX);
    let writes = tokio::task::spawn_blocking(move || {
        let mut target = BufWriter::new(target);
        while let Some(line) = taken.blocking_recv() {
            target.write_all(line.as_bytes())?;
            target.write_all(b"\n")?;
        }
        target.flush()
    });
    let (rows, written) = tokio::join!(home.dump().export(lines), writes);
    written?.with_context(|| format!("cannot write {file}"))?;
    let rows = rows?;
    if is_stdout {
        return Ok(());
    }
    out.print(&json!({ "file": file, "rows": rows }), || {
        format!("{file} holds {rows} rows. Fill another store with `swarm-host db import {file}`.")
    })
}

async fn import(settings: &Settings, out: Out, file: &str) -> Result<()> {
    let source: Box<dyn Read + Send> = if file == "-" {
        Box::new(std::io::stdin())
    } else {
        let opened = std::fs::File::open(file);
        Box::new(opened.with_context(|| Usage(format!("cannot read the file {file}")))?)
    };
    let home = Home::open(settings).await?;
    let (lines, taken) = mpsc::channel::<String>(LINES_MAX);
    let reads = tokio::task::spawn_blocking(move || {
        for line in BufReader::new(source).lines() {
            // Who no longer takes them says why.
            if lines.blocking_send(line?).is_err() {
                break;
            }
        }
        Ok::<_, std::io::Error>(())
    });
    let (rows, read) = tokio::join!(home.dump().import(taken), reads);
    let rows = rows.with_context(|| format!("cannot import {file}; nothing was changed"))?;
    read?.with_context(|| format!("cannot read {file} to its end"))?;
    out.print(&json!({ "file": file, "rows": rows }), || format!("The store holds {rows} rows."))
}
