//! Pushing a branch: from where we left it, to where it shall be, or not at all.
//!
//! A push may land and its answer be lost. So whatever git says, the origin is asked where the
//! branch is now: at our commit is success, anywhere else is someone else's work.

use std::ffi::{OsStr, OsString};

use swarm_core::port::forge::Sha;

use super::cli::Call;
use super::{Credentials, Error, Git, Mirror, Origin, Result, check_branch, objects};

impl Mirror {
    /// Moves a branch of the origin from where it is expected (`None`: it must not exist) to a
    /// commit of this mirror. It is success if it is there already.
    ///
    /// # Errors
    /// [`Error::ForeignBranch`] if the branch is anywhere else, [`Error::Refused`] if the origin
    /// does not take it, [`Error::InvalidName`], [`Error::NotFound`] for the commit.
    pub async fn push(
        &self,
        branch: &str,
        expected: Option<&Sha>,
        new: &Sha,
        credentials: &Credentials,
    ) -> Result<()> {
        check_branch(branch)?;
        let commit = new.clone();
        self.with(move |repo| objects::commit(repo, &commit).map(|_| ())).await?;
        let found = self.remote_branch(branch, credentials).await?;
        if found.as_ref() == Some(new) {
            return Ok(());
        }
        if found.as_ref() != expected {
            return Err(foreign(branch, expected, found));
        }
        let said = self.git().ask(self.push_call(branch, expected, new, credentials)).await?;
        if said.succeeded {
            return Ok(());
        }
        let found = self.remote_branch(branch, credentials).await?;
        if found.as_ref() == Some(new) {
            return Ok(());
        }
        if found.as_ref() != expected {
            return Err(foreign(branch, expected, found));
        }
        match refusal(&said.stdout) {
            Some(why) => Err(Error::Refused { branch: branch.to_owned(), why }),
            None => Err(said.failure(format!("pushing `{branch}` to `{}`", self.origin()))),
        }
    }

    /// Where a branch of the origin is now, asked and not remembered; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::InvalidName`], or what git says.
    pub async fn remote_branch(
        &self,
        branch: &str,
        credentials: &Credentials,
    ) -> Result<Option<Sha>> {
        check_branch(branch)?;
        let reference = format!("refs/heads/{branch}");
        let args: Vec<OsString> = vec![
            "ls-remote".into(),
            "--quiet".into(),
            "--".into(),
            self.origin().address(),
            (&reference).into(),
        ];
        let output = self
            .git()
            .run(Call {
                what: format!("asking `{}` for `{branch}`", self.origin()),
                git_dir: Some(self.path()),
                protocol: Some(self.origin().protocol()),
                args,
                credentials,
                timeout: self.timeout(),
                holds: None,
            })
            .await?;
        Ok(output
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find(|(_, name)| *name == reference)
            .map(|(sha, _)| Sha(sha.to_owned())))
    }

    fn push_call<'a>(
        &'a self,
        branch: &str,
        expected: Option<&Sha>,
        new: &Sha,
        credentials: &'a Credentials,
    ) -> Call<'a> {
        let expected = expected.map_or("", |sha| &sha.0);
        let mut args: Vec<OsString> = vec![
            "push".into(),
            "--quiet".into(),
            "--porcelain".into(),
            "--no-verify".into(),
            "--no-follow-tags".into(),
            "--no-signed".into(),
            "--recurse-submodules=no".into(),
            format!("--force-with-lease=refs/heads/{branch}:{expected}").into(),
        ];
        if let Origin::Local(_) = self.origin() {
            args.push(receiver(self.git()));
        }
        args.push("--".into());
        args.push(self.origin().address());
        args.push(format!("{new}:refs/heads/{branch}").into());
        Call {
            what: format!("pushing `{branch}` to `{}`", self.origin()),
            git_dir: Some(self.path()),
            protocol: Some(self.origin().protocol()),
            args,
            credentials,
            timeout: self.timeout(),
            holds: None,
        }
    }
}

/// How git shall start the far side of a push to a local path: with our settings, so that no hook
/// of that repository runs.
fn receiver(git: &Git) -> OsString {
    let mut option = OsString::from("--receive-pack=");
    option.push(quote(git.program().as_os_str()));
    for setting in Git::SETTINGS {
        option.push(" -c ");
        option.push(quote(setting.as_ref()));
    }
    option.push(" receive-pack");
    option
}

/// Quotes a word for the shell that git starts the far side with.
fn quote(word: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            other => quoted.push(other),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

fn foreign(branch: &str, expected: Option<&Sha>, found: Option<Sha>) -> Error {
    Error::ForeignBranch { branch: branch.to_owned(), expected: expected.cloned(), found }
}

/// The reason of a refused reference, from `!\t<from>:<to>\t[remote rejected] (why)`.
fn refusal(porcelain: &str) -> Option<String> {
    porcelain.lines().find_map(|line| {
        let said = line.strip_prefix("!\t")?.split('\t').nth(1)?;
        let why = said.rsplit_once('(').map_or(said, |(_, why)| why.trim_end_matches(')'));
        Some(why.to_owned())
    })
}
