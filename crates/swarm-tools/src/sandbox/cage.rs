//! A cage: a control group for one command, where the host may make one.
//!
//! Only a second wall, and often not to be had: what is promised (a command that uses too much is
//! killed) the warden does by looking. But looking is slower than forking, and for root the kernel
//! has no other bound.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::process::Member;

const MOUNT: &str = "/sys/fs/cgroup";
/// A group's name begins with this and ends with its warden's process id.
const PREFIX: &str = "devinswarm-";

/// A control group; removed when dropped, which works once nothing runs in it.
#[derive(Debug)]
pub(super) struct Cage {
    directory: PathBuf,
}

impl Cage {
    /// A group below this process's own that holds at most `tasks_max` processes and threads and,
    /// where the same group can say so, a bit more memory than is allowed. `None` where the host
    /// may not make one.
    pub(super) fn build(tasks_max: u64, memory_mib: u64) -> Option<Self> {
        let parent = parent(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
        sweep(&parent);
        let directory = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&directory).ok()?;
        let cage = Self { directory };
        // Without this file it counts nothing, and dropping it takes it away again.
        cage.set("pids.max", tasks_max).ok()?;
        let memory = memory_mib.saturating_mul(1024 * 1024);
        let _ = cage.set("memory.max", memory.saturating_add(memory / 4));
        Some(cage)
    }

    /// Moves a process in; what it starts from now on is in it too.
    pub(super) fn admit(&self, member: Member) -> io::Result<()> {
        fs::write(self.directory.join("cgroup.procs"), member.pid.to_string()).or_else(|error| {
            // Gone already.
            if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
        })
    }

    fn set(&self, file: &str, value: u64) -> io::Result<()> {
        let path = self.directory.join(file);
        // Never made: a missing file means that the controller is off.
        fs::OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| io::Write::write_all(&mut file, value.to_string().as_bytes()))
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Removes the groups of wardens that were killed before they could. One in use stays: the kernel
/// removes none that holds a process.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let warden = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if warden.is_some_and(|warden| !Path::new("/proc").join(warden).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// The group of this process that counts processes: of the first version's controller, or of the
/// second version. `own` is `/proc/self/cgroup`.
fn parent(own: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let below = |mount: &Path| mount.join(path.trim_start_matches('/'));
        if controllers.split(',').any(|controller| controller == "pids") {
            return Some(below(&Path::new(MOUNT).join("pids")));
        }
        if controllers.is_empty() {
            unified = Some(below(Path::new(MOUNT)));
        }
    }
    unified
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_counts_processes_is_found_in_both_versions() {
        let first = "9:name=systemd:/\n8:cpu,pids:/service/a\n0::/";
        assert_eq!(parent(first), Some(PathBuf::from("/sys/fs/cgroup/pids/service/a")));
        let second = "0::/user.slice/host.service\n";
        assert_eq!(parent(second), Some(PathBuf::from("/sys/fs/cgroup/user.slice/host.service")));
        assert_eq!(parent(""), None);
    }
}
