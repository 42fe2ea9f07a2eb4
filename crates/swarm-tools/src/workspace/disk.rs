//! Names in an opened folder: one name at a time, never through a symbolic link.
//!
//! The agent owns everything below the tree's root, so no path of two names is ever handed to the
//! system: what was a folder a moment ago may be a link now.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Error, Result};

/// Names the action and the path in the system's errors.
pub(super) fn failed(
    what: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_string_lossy().into_owned();
    move |source| Error::Disk { what, path, source }
}

/// The same for a path as bytes.
pub(super) fn failed_at(what: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error {
    let path = String::from_utf8_lossy(path).into_owned();
    move |source| Error::Disk { what, path, source: source.into() }
}

/// Opens the root of a tree. It was made by us, and so was the way to it.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failed("opening", path)(error.into()))
}

/// Opens a folder in a folder. One that its owner may not read is made readable first: the agent
/// and the host are the same owner.
pub(super) fn open_dir(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            unlock(&dir, name)?;
            rustix::fs::openat(&dir, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// Gives the owner all rights on a folder or file, unless it is a link.
fn unlock(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    match kind(&stat(&dir, name)?) {
        FileType::Directory => rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty()),
        FileType::RegularFile => {
            rustix::fs::chmodat(dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())
        }
        _ => Err(Errno::ACCESS),
    }
}

/// What a name is, links not followed.
pub(super) fn stat(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The names in a folder, sorted, without `.` and `..`.
pub(super) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a regular file of at most `max` bytes; `None` if it has become larger, or something else.
pub(super) fn read(dir: impl AsFd, name: &[u8], max: u64) -> rustix::io::Result<Option<Vec<u8>>> {
    // A pipe in its place must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            unlock(&dir, name)?;
            rustix::fs::openat(&dir, name, flags, Mode::empty())?
        }
        other => other?,
    };
    let found = rustix::fs::fstat(&file)?;
    if kind(&found) != FileType::RegularFile {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.st_size).unwrap_or(0).min(1 << 20));
    File::from(file)
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok((bytes.len() as u64 <= max).then_some(bytes))
}

/// The target of a link, as bytes.
pub(super) fn read_link(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Makes a file that must not exist yet.
pub(super) fn write_new(
    dir: impl AsFd,
    name: &[u8],
    bytes: &[u8],
    is_executable: bool,
) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(if is_executable { 0o755 } else { 0o644 });
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, mode)?;
    File::from(file)
        .write_all(bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Removes whatever has a name in a folder; a folder with all below it. Nothing there is fine.
///
/// An agent can nest folders deeper than we have file descriptors or stack. So folders that are
/// found deeper down are first moved up, and only ever two are open.
pub(super) fn remove_at(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    let found = match stat(&dir, name) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    if kind(&found) != FileType::Directory {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty());
    }
    let top = open_writable(&dir, name)?;
    let mut moved = 0;
    loop {
        let inner = names(&top)?;
        if inner.is_empty() {
            return rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
        }
        for inner in inner {
            empty_into(&top, &inner, &mut moved)?;
        }
    }
}

/// Removes a name from `top`; the folders in it, if it is one, are moved to `top`.
fn empty_into(top: &OwnedFd, name: &[u8], moved: &mut u64) -> rustix::io::Result<()> {
    if kind(&stat(top, name)?) != FileType::Directory {
        return rustix::fs::unlinkat(top, name, AtFlags::empty());
    }
    let open = open_writable(top, name)?;
    for inner in names(&open)? {
        if kind(&stat(&open, &inner)?) == FileType::Directory {
            // A folder can only be moved by who may write in it.
            drop(open_writable(&open, &inner)?);
            move_up(&open, &inner, top, moved)?;
        } else {
            rustix::fs::unlinkat(&open, &inner, AtFlags::empty())?;
        }
    }
    rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)
}

fn move_up(from: &OwnedFd, name: &[u8], top: &OwnedFd, moved: &mut u64) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        let fresh = format!("removed-{moved}");
        match rustix::fs::renameat(from, name, top, fresh.as_bytes()) {
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
            other => return other,
        }
    }
}

/// Opens a folder in which its owner may read, write and search from now on.
fn open_writable(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let open = open_dir(dir, name)?;
    if rustix::fs::fstat(&open)?.st_mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&open, Mode::RWXU)?;
    }
    Ok(open)
}

/// Removes a folder of ours with all below it. Nothing there is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("removing", path)(error)),
        Ok(_) => {}
    }
    let folder = open_root(folder)?;
    remove_at(folder, name.as_bytes()).map_err(|error| failed("removing", path)(error.into()))
}

/// Writes a file of ours so that it is either the old or the new one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned().into_vec();
    name.extend_from_slice(b".draft");
    let draft = path.with_file_name(std::ffi::OsString::from_vec(name));
    std::fs::write(&draft, bytes).map_err(failed("writing", &draft))?;
    std::fs::rename(&draft, path).map_err(failed("moving", &draft))
}
