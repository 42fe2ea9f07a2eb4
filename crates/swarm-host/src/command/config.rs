//! `config`: checks the configuration, prints its schema, shows what is in force.

use anyhow::Result;
use serde_json::json;

use super::{out, out::Out};
use crate::cli;
use crate::config::{self, Settings};
use crate::progress::clip;

/// Runs the command; a wrong file has been refused before.
///
/// # Errors
/// When standard output is closed.
pub fn run(settings: &Settings, out: Out, what: &cli::Config) -> Result<()> {
    match what {
        cli::Config::Check => {
            let file = settings.file.as_ref().map(|file| file.display().to_string());
            out.print(&json!({ "file": file, "defects": [] }), || match &file {
                Some(file) => format!("{file} is right."),
                None => "There is no swarm.yaml; everything has its built-in value.".to_owned(),
            })
        }
        cli::Config::Schema => out::line(&serde_json::to_string_pretty(&config::schema())?),
        cli::Config::Show => show(settings, out),
    }
}

fn show(settings: &Settings, out: Out) -> Result<()> {
    let shown = settings.show();
    let values: Vec<_> = shown
        .iter()
        .map(|one| json!({ "key": one.key, "value": one.value, "source": one.source }))
        .collect();
    out.print(&values, || {
        let rows = shown
            .iter()
            .map(|one| vec![one.key.clone(), one.source.clone(), clip(&one.value, 200)]);
        out::table(&["KEY", "FROM", "VALUE"], rows)
    })
}
