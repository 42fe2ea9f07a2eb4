//! Follows one run live until it ends, waits for a person, or the person at the terminal leaves.
//!
//! At a terminal the questions of the run are asked right there. Elsewhere the run is left
//! waiting, with the commands that answer it.

use std::time::Duration;

use anyhow::{Result, bail};
use swarm_core::escalation::Block;
use swarm_core::id::RunId;
use swarm_graph::engine::{AnswerRefused, Engine};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use super::{answer, blocks, people};
use crate::config::Settings;
use crate::progress::{Board, Final, Follower, Rest, Screen, final_of};

/// How often to look for what other processes do.
const LOOK: Duration = Duration::from_millis(250);

/// How questions are answered while a run is followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asking {
    /// At the terminal, if there is one.
    AtTerminal,
    /// Approvals are given by the owner; everything else as at the terminal.
    ApproveAll,
}

/// Follows `root` and shows it on `screen`. When `left` fires, the run goes on without us.
///
/// # Errors
/// When the run is unknown or the store fails.
pub async fn follow(
    engine: &Engine,
    settings: &Settings,
    screen: &mut Screen,
    root: &RunId,
    asking: Asking,
    left: &CancellationToken,
) -> Result<Final> {
    let store = engine.store();
    let Some(record) = store.run(root).await? else { bail!("run `{root}` is gone") };
    let mut board = Board::new(root, record.start.graph.as_str());
    let mut follower = Follower::new(store.clone(), root.clone());
    let mut hints = engine.subscribe();
    loop {
        // Looked at before reading, so that what ended a run is shown before it counts as ended.
        let rest = follower.rest(engine.clock().now()).await?;
        let events = follower.read().await?;
        for event in &events {
            let line = board.tell(event);
            screen.event(event, line.as_ref());
        }
        screen.refresh(&board, engine.clock().now());
        match rest {
            Rest::Ended(_) if events.is_empty() => break,
            Rest::Asks(open) if events.is_empty() => {
                screen.rest();
                if !ask(engine, settings, screen, &open, asking, left).await? {
                    break;
                }
                continue;
            }
            Rest::Ended(_) | Rest::Asks(_) | Rest::Moving => {}
        }
        if left.is_cancelled() {
            break;
        }
        tokio::select! {
            // A reader that lags has missed nothing: the store is what is read.
            _ = hints.recv() => {}
            () = tokio::time::sleep(LOOK) => {}
            () = left.cancelled() => {}
        }
    }
    screen.rest();
    let below: Vec<RunId> = follower.runs().cloned().collect();
    let Some(record) = store.run(root).await? else { bail!("run `{root}` is gone") };
    let open = match follower.rest(engine.clock().now()).await? {
        Rest::Asks(open) => open,
        Rest::Moving | Rest::Ended(_) => Vec::new(),
    };
    Ok(final_of(store.as_ref(), &record, &below, &open).await?)
}

/// Answers what can be answered here; `false` when a person elsewhere must.
async fn ask(
    engine: &Engine,
    settings: &Settings,
    screen: &mut Screen,
    open: &[Block],
    asking: Asking,
    left: &CancellationToken,
) -> Result<bool> {
    let mut answered = false;
    for block in open {
        let subject = blocks::subject(engine.store().as_ref(), block).await?;
        screen.say(&format!("\n{}\n", blocks::show(block, &subject, settings)));
        let is_approval = block.ask.reason == swarm_core::escalation::Reason::Approval;
        let value = if asking == Asking::ApproveAll && is_approval {
            screen.say("Approved by --yes.");
            answer::choose(block, "approve", None)?
        } else if screen.is_interactive() {
            match at_terminal(screen, block, left).await? {
                Some(value) => value,
                None => return Ok(answered),
            }
        } else {
            continue;
        };
        let by = people::answerer(settings, None)?;
        match engine.answer(&block.id, value, by).await {
            Ok(_) => answered = true,
            Err(AnswerRefused::Misfit(why)) => screen.say(&format!("That does not fit: {why}")),
            // Someone else was faster, or it is no longer asked: look again.
            Err(AnswerRefused::Block(swarm_core::port::store::AnswerError::Store(error))) => {
                return Err(error.into());
            }
            Err(AnswerRefused::Block(error)) => {
                screen.say(&error.to_string());
                answered = true;
            }
        }
    }
    Ok(answered)
}

/// Asks at the terminal; `None` when the input ends or the person leaves.
async fn at_terminal(
    screen: &mut Screen,
    block: &Block,
    left: &CancellationToken,
) -> Result<Option<serde_json::Value>> {
    let choices = answer::choices(block);
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    loop {
        if choices.is_empty() {
            screen.say("Your answer, in one line (an empty one leaves the run waiting):");
        } else {
            let listed: Vec<String> = choices
                .iter()
                .enumerate()
                .map(|(index, choice)| format!("{}) {choice}", index + 1))
                .collect();
            screen.say(&format!(
                "{}   Your choice, with a remark behind it if you like (an empty line leaves the \
                 run waiting):",
                listed.join("  ")
            ));
        }
        let line = tokio::select! {
            line = input.next_line() => line?,
            () = left.cancelled() => None,
        };
        let Some(line) = line.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
        else {
            return Ok(None);
        };
        match read(block, &choices, &line) {
            Ok(value) => return Ok(Some(value)),
            Err(error) => screen.say(&error.to_string()),
        }
    }
}

/// What was typed as an answer: a choice by number or word and perhaps a remark, or free text.
fn read(block: &Block, choices: &[String], line: &str) -> Result<serde_json::Value> {
    if choices.is_empty() {
        return match serde_json::from_str::<serde_json::Value>(line) {
            Ok(value) if value.is_object() => Ok(value),
            Ok(_) | Err(_) => answer::write(block, line),
        };
    }
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let numbered = first.trim_end_matches([')', '.']).parse::<usize>().ok();
    let choice = numbered
        .and_then(|number| choices.get(number.checked_sub(1)?))
        .map_or(first, String::as_str);
    answer::choose(block, choice, Some(rest.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use swarm_core::escalation::{Ask, Reason};
    use swarm_core::id::{BlockId, StepId};
    use swarm_core::time::Timestamp;

    use super::*;

    fn block(ask: Ask) -> Block {
        Block::open(
            BlockId::new("r.n#1:q").unwrap(),
            RunId::new("r").unwrap(),
            StepId::new("n#1").unwrap(),
            ask,
            Timestamp(0),
        )
    }

    fn typed(ask: Ask, line: &str) -> Result<serde_json::Value> {
        let block = block(ask);
        read(&block, &answer::choices(&block), line)
    }

    #[test]
    fn a_choice_is_typed_by_number_or_word_with_a_remark_behind_it() {
        let ask = || Ask::choice(Reason::Decision, "Go on?", &["retry", "stop"]);
        assert_eq!(typed(ask(), "2").unwrap(), json!({"choice": "stop"}));
        assert_eq!(
            typed(ask(), "retry with care").unwrap(),
            json!({"choice": "retry", "comment": "with care"})
        );
        let error = typed(ask(), "retri").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no choice `retri`, perhaps `retry`; choose one of retry, stop"
        );
    }

    #[test]
    fn free_text_goes_into_the_only_text_that_is_wanted() {
        let ask = Ask {
            reason: Reason::AmbiguousSpec,
            question: "Which?".into(),
            requested_input: Vec::new(),
            answer_schema: json!({
                "type": "object", "properties": {"comment": {"type": "string"}},
                "required": ["comment"]
            }),
            context: serde_json::Value::Null,
        };
        assert_eq!(typed(ask, "the first").unwrap(), json!({"comment": "the first"}));
    }
}
