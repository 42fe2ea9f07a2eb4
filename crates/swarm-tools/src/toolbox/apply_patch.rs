//! `apply_patch`: a unified diff over one or several files, all of it or nothing.
//!
//! Models count lines badly, so wrong or missing numbers in a hunk's head are forgiven. Wrong
//! context never is: a hunk is applied where its old lines are, exactly, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use swarm_core::failure::Failure;
use swarm_core::port::tool::{Tool, ToolResult, ToolSpec};

use super::text::Text;
use super::tree::Tree;
use super::write::{NEW_MODE, check_content};
use super::{Limits, Trouble};

mod hunk;
mod parse;

use parse::{FilePatch, parse};

/// The arguments of `apply_patch`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPatch {
    /// A unified diff as `git diff` writes it: `--- a/PATH`, `+++ b/PATH`, `@@` hunks with lines
    /// that begin with a space, `-` or `+`. `/dev/null` stands for a file that is made or
    /// deleted; `rename from` and `rename to` rename one.
    pub patch: String,
}

/// The tool `apply_patch`.
#[derive(Debug)]
pub struct ApplyPatchTool {
    tree: Arc<Tree>,
    limits: Arc<Limits>,
}

impl ApplyPatchTool {
    pub(super) fn new(tree: &Arc<Tree>, limits: &Arc<Limits>) -> Self {
        Self { tree: Arc::clone(tree), limits: Arc::clone(limits) }
    }
}

#[async_trait]
impl Tool for ApplyPatchTool {
    fn spec(&self) -> ToolSpec {
        super::spec::<ApplyPatch>(
            "apply_patch",
            "Applies a unified diff over one or several files; it may make, delete and rename \
             files. All of it is applied or nothing. Context lines must be exactly as in the file.",
        )
    }

    fn mutates(&self) -> bool {
        true
    }

    async fn call(&self, arguments: Value) -> Result<ToolResult, Failure> {
        let (tree, limits) = (Arc::clone(&self.tree), Arc::clone(&self.limits));
        super::blocking(arguments, move |arguments: ApplyPatch| {
            apply(&tree, &limits, &arguments.patch)
        })
        .await
    }
}

/// A file's content and permission bits.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
}

/// What the patch makes of the files that it touches, before anything is written.
struct Draft<'a> {
    tree: &'a Tree,
    limits: &'a Limits,
    /// By real path: as it was and as it shall be; `None` is a file that is not there.
    files: BTreeMap<String, (Option<Content>, Option<Content>)>,
    told: Vec<String>,
}

fn apply(tree: &Tree, limits: &Limits, patch: &str) -> Result<String, Trouble> {
    check_content(patch, limits)?;
    let patches = parse(patch)?;
    let mut draft = Draft { tree, limits, files: BTreeMap::new(), told: Vec::new() };
    for patch in &patches {
        draft.take(patch).map_err(|trouble| match trouble {
            Trouble::Refused(words) => Trouble::Refused(format!("nothing was applied: {words}")),
            failed @ Trouble::Failed(_) => failed,
        })?;
    }
    draft.write()?;
    Ok(draft.told.join("\n"))
}

impl Draft<'_> {
    /// The file as the patch so far has left it, with its real path.
    fn look(&mut self, given: &str) -> Result<(String, Option<Content>), Trouble> {
        let place = self.tree.place(given)?;
        if let Some((_, now)) = self.files.get(&place.path) {
            return Ok((place.path, now.clone()));
        }
        let was = place
            .read(self.limits.file_bytes)?
            .map(|file| Content { bytes: file.bytes, mode: file.mode });
        self.files.insert(place.path.clone(), (was.clone(), was.clone()));
        Ok((place.path, was))
    }

    fn set(&mut self, path: &str, content: Option<Content>) {
        if let Some((_, now)) = self.files.get_mut(path) {
            *now = content;
        }
    }

    fn take(&mut self, patch: &FilePatch) -> Result<(), Trouble> {
        match (&patch.old, &patch.new) {
            (None, None) => Err(Trouble::Refused("a part of the patch names no file".to_owned())),
            (None, Some(new)) => self.make(patch, new),
            (Some(old), None) => self.delete(patch, old),
            (Some(old), Some(new)) => self.change(patch, old, new),
        }
    }

    fn make(&mut self, patch: &FilePatch, given: &str) -> Result<(), Trouble> {
        let (path, there) = self.look(given)?;
        if there.is_some() {
            return Err(Trouble::Refused(format!(
                "`{path}` is to be made but is there already; give its context instead of `/dev/null`"
            )));
        }
        let text = hunk::apply(&path, &Text::new(String::new()), &patch.hunks)?;
        let mode = patch.mode.unwrap_or(NEW_MODE);
        self.set(&path, Some(Content { bytes: text.into_bytes(), mode }));
        self.told.push(format!("made {path}"));
        Ok(())
    }

    fn delete(&mut self, patch: &FilePatch, given: &str) -> Result<(), Trouble> {
        let (path, there) = self.look(given)?;
        let content = self.required(given, &path, there)?;
        // Without hunks, as for an empty file, its name alone says what is meant.
        if !patch.hunks.is_empty() {
            let text = Text::decode(&path, content.bytes)?;
            let rest = hunk::apply(&path, &text, &patch.hunks)?;
            if !rest.is_empty() {
                return Err(Trouble::Refused(format!(
                    "`{path}` is to be deleted but the patch leaves {} lines of it",
                    rest.lines().count()
                )));
            }
        }
        self.set(&path, None);
        self.told.push(format!("deleted {path}"));
        Ok(())
    }

    fn change(&mut self, patch: &FilePatch, old: &str, new: &str) -> Result<(), Trouble> {
        let (old_path, there) = self.look(old)?;
        let content = self.required(old, &old_path, there)?;
        let mode = patch.mode.unwrap_or(content.mode);
        let bytes = if patch.hunks.is_empty() {
            content.bytes.clone()
        } else {
            let text = Text::decode(&old_path, content.bytes.clone())?;
            hunk::apply(&old_path, &text, &patch.hunks)?.into_bytes()
        };
        if bytes.len() as u64 > self.limits.file_bytes {
            return Err(Trouble::Refused(format!("`{old_path}` would become too large")));
        }
        let changed = Content { bytes, mode };
        if old == new {
            if changed == content {
                return Err(Trouble::Refused(format!("the patch changes nothing in `{old_path}`")));
            }
            self.set(&old_path, Some(changed));
            self.told.push(format!("changed {old_path} ({} hunks)", patch.hunks.len()));
            return Ok(());
        }
        let (new_path, taken) = self.look(new)?;
        if taken.is_some() {
            return Err(Trouble::Refused(format!(
                "`{old_path}` cannot be renamed to `{new_path}`: that is there already"
            )));
        }
        self.set(&old_path, None);
        self.set(&new_path, Some(changed));
        self.told.push(format!("renamed {old_path} to {new_path}"));
        Ok(())
    }

    fn required(
        &self,
        given: &str,
        path: &str,
        there: Option<Content>,
    ) -> Result<Content, Trouble> {
        if let Some(content) = there {
            return Ok(content);
        }
        // Either an earlier part of the patch took it away, or it never was there.
        self.tree.read(given, self.limits.file_bytes)?;
        Err(Trouble::Refused(format!("`{path}` was deleted or renamed earlier in the patch")))
    }

    /// Writes all files, or puts back those that were written when one cannot be. Files that go
    /// away go first, so that one may become a directory.
    fn write(&self) -> Result<(), Trouble> {
        let mut todo: Vec<_> = self.files.iter().filter(|(_, (was, now))| was != now).collect();
        todo.sort_by_key(|(_, (_, now))| now.is_some());
        for (at, (path, (_, now))) in todo.iter().enumerate() {
            let Err(trouble) = self.put(path, now.as_ref()) else { continue };
            for (path, (was, _)) in todo[..at].iter().rev() {
                self.put(path, was.as_ref())?;
            }
            return Err(trouble);
        }
        Ok(())
    }

    fn put(&self, path: &str, content: Option<&Content>) -> Result<(), Trouble> {
        let place = self.tree.place(path)?;
        match content {
            Some(content) => place.write(&content.bytes, content.mode),
            None => place.remove(),
        }
    }
}
