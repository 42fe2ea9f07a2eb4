//! The wall-time budget: when it is used up, what is due waits for a person.
//!
//! It is looked at between supersteps only: a step at work has a timeout of its own.

use std::time::Duration;

use serde_json::Value;
use swarm_core::checkpoint::{Activation, Phase, StepEnding};
use swarm_core::escalation::{Ask, Block, Reason};
use swarm_core::failure::Failure;
use swarm_core::id::{BlockId, StepId};
use swarm_core::port::store;

use super::Session;
use crate::plan;

impl Session<'_> {
    /// Parks what is due behind a question when the wall-time budget is used up.
    pub(super) async fn check_wall(&mut self) -> store::Result<()> {
        let Some(budget) = self.graph.budget.as_ref() else { return Ok(()) };
        let Some(wall) = budget.wall else { return Ok(()) };
        let now = self.engine.clock().now();
        let granted = Duration::from_secs(self.checkpoint.cursor.wall.granted_secs);
        if now.since(self.run.created_at) <= wall + granted
            || self.checkpoint.cursor.wall.block.is_some()
        {
            return Ok(());
        }
        let due: Vec<StepId> = self
            .checkpoint
            .cursor
            .active
            .iter()
            .filter(|activation| matches!(activation.phase, Phase::Due | Phase::Backoff { .. }))
            .map(|activation| activation.step.clone())
            .collect();
        let Some(step) = due.first().cloned() else { return Ok(()) };
        let asked = self.checkpoint.cursor.wall.asked + 1;
        let Ok(id) = BlockId::new(format!("{}.$wall#{asked}", self.run.start.id)) else {
            return Ok(());
        };
        let question = format!(
            "Run `{}` has used up its wall-time budget of {}. `grant` gives it as much again; `stop` ends it.",
            self.run.start.id,
            humantime::format_duration(wall)
        );
        let ask = Ask::choice(Reason::Budget, question, &["grant", "stop"]);
        let block = Block::open(id.clone(), self.run.start.id.clone(), step, ask, now);
        self.ask(vec![block]).await?;
        self.checkpoint.cursor.wall.asked = asked;
        self.checkpoint.cursor.wall.block = Some(id.clone());
        for step in due {
            self.park(&step, &Phase::Answer { blocks: vec![id.clone()] });
        }
        Ok(())
    }

    pub(super) fn answer_wall(&mut self, answer: &Value) {
        let wall = self.graph.budget.as_ref().and_then(|budget| budget.wall).unwrap_or_default();
        if answer.get("choice").and_then(Value::as_str) == Some("grant") {
            self.checkpoint.cursor.wall.granted_secs += wall.as_secs().max(1);
            return;
        }
        let failure =
            Failure::fatal("budget", "stopped by a person: the wall-time budget is used up");
        let due: Vec<Activation> = self
            .checkpoint
            .cursor
            .active
            .iter()
            .filter(|activation| activation.phase == Phase::Due)
            .cloned()
            .collect();
        for activation in due {
            let ending = StepEnding::Failed(failure.clone());
            // It may have gone with the loop that another one broke off.
            let cursor = &mut self.checkpoint.cursor;
            if cursor.active.iter().all(|other| other.step != activation.step) {
                continue;
            }
            let ending = plan::end_step(&self.graph, cursor, &activation, ending);
            if let Some(ending) = ending {
                if ending.breaks_off(&activation.step) {
                    self.lose(ending.activation.step.clone());
                }
                self.pending.endings.push(ending);
            }
        }
    }
}
