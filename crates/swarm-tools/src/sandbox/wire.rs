//! What host, warden and stage tell each other: one JSON document a message, after its length.
//!
//! The messages go over standard input, a Unix socket, so that no descriptor is ever inherited by
//! accident and no argument list shows what is run.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use swarm_core::port::sandbox::{Level, Network, Resource};

/// The argument after the entry that makes a process the warden.
pub(super) const WARDEN: &str = "warden";
/// The argument after the entry that makes a process the stage.
pub(super) const STAGE: &str = "stage";
/// The exit code of a process that could not become what it was started for.
pub(super) const NOT_STARTED: u8 = 125;

/// Longer messages are a mistake, not a command.
const MESSAGE_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// From the host to the warden.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Job {
    pub(super) level: Level,
    /// `bwrap` and its arguments up to the stage; empty at the landlock level.
    pub(super) outer: Vec<String>,
    pub(super) stage: Stage,
    /// Processes and threads, all together.
    pub(super) processes: u64,
    /// Whether a control group is to be tried.
    pub(super) is_caged: bool,
    /// Removed when nothing runs any more.
    pub(super) scratch: Option<PathBuf>,
    /// Held as long as anything runs.
    pub(super) life: Option<PathBuf>,
}

/// From the warden to the stage.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Stage {
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// Absolute, inside the workspace.
    pub(super) dir: PathBuf,
    pub(super) level: Level,
    pub(super) network: Network,
    pub(super) memory_mib: u64,
    pub(super) file_mib: u64,
    /// `RLIMIT_NPROC`, which counts all that the user runs; set by the warden.
    pub(super) tasks: Option<u64>,
    /// What the command must not signal: the host and the warden, as it sees them.
    pub(super) guarded: Vec<i32>,
    /// Openable, at the landlock level.
    pub(super) grants: Grants,
}

/// What Landlock leaves open; everything else is closed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Grants {
    /// To be read and executed.
    pub(super) read: Vec<PathBuf>,
    /// To be read, executed and changed.
    pub(super) write: Vec<PathBuf>,
}

/// From the stage to the warden.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Staged {
    /// It is there and has done nothing yet.
    Waiting,
    /// The walls stand; the next thing is the command.
    Ready,
    /// They do not, and nothing was run.
    Failed(String),
}

/// From the warden to the host, once nothing is left running.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Report {
    /// The walls could not be built; the command did not run. Says why, as far as known.
    Failed(String),
    Code(i32),
    Signal(i32),
    Exceeded(Resource),
    /// The host hung up.
    Killed,
}

/// Writes one message.
pub(super) fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    to.write_all(&encode(message)?)
}

/// One message as it goes over the socket.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= MESSAGE_BYTES_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is too long"))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// Reads one message, and not a byte more.
pub(super) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut body = vec![0; length_of(length)?];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// Closes what was inherited by mistake: descriptors that the host was started with, or that a
/// library of it forgot to keep from its children. For a process that has just begun and holds
/// none of its own.
pub(super) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // One of them was the listing itself, which is closed already.
        let _ = nix::unistd::close(descriptor);
    }
}

/// The length that a message's first four bytes announce.
pub(super) fn length_of(prefix: [u8; 4]) -> io::Result<usize> {
    match u32::from_le_bytes(prefix) {
        length if length <= MESSAGE_BYTES_MAX => Ok(length as usize),
        length => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes is too long"),
        )),
    }
}
