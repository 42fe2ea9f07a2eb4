//! A model that says what was recorded. It keeps nothing between requests; see
//! [`recording`](super::recording) for how a turn is found.

use std::path::Path;

use async_trait::async_trait;
use swarm_core::port::model::{ChatModel, ChatRequest, ChatTurn, Error, ErrorClass, TurnListener};
use swarm_core::spend::Spend;

use super::recording::{Key, RecordedTurn, Recording, Unreadable, digest};

/// A model that says what was recorded, at the recorded cost.
#[derive(Debug)]
pub struct ReplayModel {
    name: String,
    recording: Recording,
    is_strict: bool,
}

impl ReplayModel {
    /// Replays a file.
    ///
    /// # Errors
    /// [`Unreadable`] when the file cannot be read or is no recording.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Unreadable> {
        let name = path.as_ref().display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_text(name, &text),
            Err(error) => Err(Unreadable { name, message: error.to_string() }),
        }
    }

    /// Replays a text; `name` is for errors.
    ///
    /// # Errors
    /// [`Unreadable`] when it is no recording.
    pub fn from_text(name: impl Into<String>, text: &str) -> Result<Self, Unreadable> {
        let name = name.into();
        let recording = Recording::read(&name, text)?;
        Ok(Self { name, recording, is_strict: false })
    }

    /// Answers only requests whose every word is as recorded.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.is_strict = true;
        self
    }

    fn find(&self, request: &ChatRequest) -> Result<&RecordedTurn, String> {
        let key = Key::of(request);
        let turns = self.recording.turns(&key);
        let asked = digest(request);
        let exact = turns.iter().rev().find(|turn| turn.digest.as_deref() == Some(&asked));
        match (exact, turns.last()) {
            (Some(turn), _) => Ok(turn),
            (None, Some(turn)) if !self.is_strict => Ok(turn),
            (None, Some(turn)) => Err(format!(
                "{key} was recorded for another request: digest {}, now {asked}",
                turn.digest.as_deref().unwrap_or("unknown")
            )),
            (None, None) => {
                let nearest = self.recording.nearest(&key);
                Err(format!("`{}` holds no {key}; nearest: {nearest}", self.name))
            }
        }
    }
}

#[async_trait]
impl ChatModel for ReplayModel {
    /// What the recorded turn cost.
    fn estimate(&self, request: &ChatRequest) -> Spend {
        self.find(request).map(|turn| turn.turn().spend()).unwrap_or_default()
    }

    async fn chat(
        &self,
        request: &ChatRequest,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error> {
        let turn = self.find(request).map_err(|message| Error {
            class: ErrorClass::NotRecorded,
            model: "replay".to_owned(),
            message,
            retry_after: None,
        })?;
        if !turn.text.is_empty() {
            listener.text(&turn.text);
        }
        Ok(turn.turn())
    }
}
