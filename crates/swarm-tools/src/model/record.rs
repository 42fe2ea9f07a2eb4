//! A model whose turns are written down as they come.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use swarm_core::port::model::{ChatModel, ChatRequest, ChatTurn, Error, TurnListener};
use swarm_core::spend::Spend;

use super::recording::RecordedTurn;

/// A model whose turns are appended to a recording. A turn is one write to a file that is only
/// appended to, so that several models, tasks and processes may share it.
pub struct RecordingModel {
    inner: Arc<dyn ChatModel>,
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl fmt::Debug for RecordingModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingModel").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RecordingModel {
    /// Records what `inner` says at the end of the file, which is made if it is missing.
    ///
    /// # Errors
    /// When the file cannot be made or written to.
    pub fn open(inner: Arc<dyn ChatModel>, path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        Ok(Self { inner, path, file: Arc::new(Mutex::new(file)) })
    }

    async fn append(&self, document: String) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        let write = tokio::task::spawn_blocking(move || {
            file.lock().unwrap_or_else(PoisonError::into_inner).write_all(document.as_bytes())
        });
        write.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

#[async_trait]
impl ChatModel for RecordingModel {
    fn estimate(&self, request: &ChatRequest) -> Spend {
        self.inner.estimate(request)
    }

    /// The inner model's turn. It is paid for, so it is given back even if it cannot be written
    /// down; that is logged as an error.
    async fn chat(
        &self,
        request: &ChatRequest,
        listener: &dyn TurnListener,
    ) -> Result<ChatTurn, Error> {
        let turn = self.inner.chat(request, listener).await?;
        let written = match RecordedTurn::of(request, &turn).to_document() {
            Ok(document) => self.append(document).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = written {
            tracing::error!(path = %self.path.display(), %error, "A turn could not be recorded.");
        }
        Ok(turn)
    }
}
