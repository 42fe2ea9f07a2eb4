//! Processes as `/proc` shows them: who descends from the warden, and what they use.
//!
//! A process id may be another's a moment later, so signals go through a descriptor that is
//! checked after it was opened.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::{
    Pid, PidfdFlags, Signal, getpgid, getpgrp, getuid, kill_process_group, pidfd_open,
    pidfd_send_signal,
};

/// A process that descends from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) pid: i32,
    parent: i32,
    /// Its threads.
    pub(super) tasks: u64,
}

/// All that descend from `root`, parents first. A process that comes or goes meanwhile may be
/// missed: whoever must have all asks again until none is left.
pub(super) fn descendants(root: i32) -> Vec<Member> {
    let mut found = Vec::new();
    visit(root, |member| {
        found.push(member);
        ControlFlow::Continue(())
    });
    found
}

/// Shows each descendant of `root` to `each`, a parent before its children are looked up: what
/// is stopped there has no further ones.
pub(super) fn visit(root: i32, each: impl FnMut(Member) -> ControlFlow<()>) {
    if Path::new(&format!("/proc/{root}/task/{root}/children")).exists() {
        by_children(root, each);
    } else {
        by_parents(root, each);
    }
}

fn by_children(root: i32, mut each: impl FnMut(Member) -> ControlFlow<()>) {
    let mut next = vec![(root, 0)];
    while let Some((pid, parent)) = next.pop() {
        let tasks = numbers_in(&format!("/proc/{pid}/task"));
        let member = Member { pid, parent, tasks: tasks.len() as u64 };
        if pid != root && !tasks.is_empty() && each(member).is_break() {
            return;
        }
        for task in tasks {
            let path = format!("/proc/{pid}/task/{task}/children");
            let children = fs::read_to_string(path).unwrap_or_default();
            next.extend(children.split_whitespace().filter_map(|id| Some((id.parse().ok()?, pid))));
        }
    }
}

/// For kernels that do not list children: every process of the machine is asked for its parent.
fn by_parents(root: i32, mut each: impl FnMut(Member) -> ControlFlow<()>) {
    let all: Vec<Member> = numbers_in("/proc")
        .into_iter()
        .filter_map(|pid| {
            let stat = stat(pid)?;
            Some(Member { pid, parent: stat.parent, tasks: stat.tasks })
        })
        .collect();
    let mut next = vec![root];
    while let Some(parent) = next.pop() {
        for member in all.iter().filter(|member| member.parent == parent) {
            if each(*member).is_break() {
                return;
            }
            next.push(member.pid);
        }
    }
}

/// Sends `signal` if the process is still the one that was found.
pub(super) fn signal(member: Member, signal: Signal) {
    let Some(pid) = Pid::from_raw(member.pid) else { return };
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // It may have been adopted since (by the warden, or by an init inside); it may not have
    // become someone else's.
    let warden = rustix::process::getpid().as_raw_pid();
    let still =
        stat(member.pid).is_some_and(|stat| stat.parent == member.parent || stat.parent == warden);
    if still {
        // Gone is what was wanted.
        let _ = pidfd_send_signal(&descriptor, signal);
    }
}

/// The process group of `member`; `None` when it is gone.
pub(super) fn group(member: Member) -> Option<Pid> {
    getpgid(Pid::from_raw(member.pid)).ok()
}

/// Sends `signal` to all of the group that `member` is in, at once: the kernel makes a process
/// that is just forking take the signal first. A group never leaves its session, and the session
/// is the command's or one that it made. For a `member` found this very moment.
pub(super) fn signal_group(member: Member, signal: Signal) {
    match group(member) {
        Some(group) if group != getpgrp() => {
            // Gone is what was wanted.
            let _ = kill_process_group(group, signal);
        }
        Some(_) => self::signal(member, signal),
        None => {}
    }
}

/// Bytes in use by `members` together; what they share counts once, if that is needed to tell
/// whether it is more than `limit`.
pub(super) fn memory_bytes(members: &[Member], limit: u64) -> u64 {
    let files = memory_files(members);
    let resident: u64 = members.iter().map(|member| resident_bytes(member.pid)).sum();
    if resident.saturating_add(files) <= limit {
        return resident + files;
    }
    // What is mapped of such a file is resident as well, and might be the same bytes.
    if files > limit {
        return files;
    }
    // Dear to ask, and exact: pages shared by n processes count 1/n for each.
    let exact = |member: &Member| {
        bytes_in("smaps_rollup", "Pss:", member.pid).unwrap_or_else(|| resident_bytes(member.pid))
    };
    members.iter().map(exact).sum()
}

/// Bytes of the files that exist in memory alone and that `members` have open (`memfd_create`):
/// nobody has them mapped, so they are resident nowhere.
fn memory_files(members: &[Member]) -> u64 {
    let mut bytes = HashMap::new();
    for member in members {
        let Ok(open) = fs::read_dir(format!("/proc/{}/fd", member.pid)) else { continue };
        for descriptor in open.filter_map(Result::ok) {
            let path = descriptor.path();
            let is_in_memory = fs::read_link(&path)
                .is_ok_and(|name| name.as_os_str().as_bytes().starts_with(b"/memfd:"));
            if let (true, Ok(file)) = (is_in_memory, fs::metadata(&path)) {
                bytes.insert((file.dev(), file.ino()), file.blocks().saturating_mul(512));
            }
        }
    }
    bytes.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
}

fn resident_bytes(pid: i32) -> u64 {
    bytes_in("status", "VmRSS:", pid).unwrap_or(0)
}

fn bytes_in(file: &str, field: &str, pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Processes and threads that this user runs now; `None` for root, whom the kernel does not count.
pub(super) fn tasks_of_this_user() -> Option<u64> {
    let user = getuid().as_raw();
    (user != 0).then(|| {
        numbers_in("/proc")
            .into_iter()
            .filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok_and(|data| data.uid() == user))
            .filter_map(|pid| Some(stat(pid)?.tasks))
            .sum()
    })
}

struct Stat {
    parent: i32,
    tasks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, further parentheses too.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, tasks: fields.get(17)?.parse().ok()? })
}

fn numbers_in(directory: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_ask_find_the_same_child() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = rustix::process::getpid().as_raw_pid();
        let id = i32::try_from(child.id()).unwrap();
        let [mut one, mut other] = [false; 2];
        let is_it = |member: Member| member.pid == id && member.parent == own && member.tasks == 1;
        by_children(own, |member| {
            one |= is_it(member);
            ControlFlow::Continue(())
        });
        by_parents(own, |member| {
            other |= is_it(member);
            ControlFlow::Continue(())
        });
        assert!(one && other, "{one} {other}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_has_another_parent_is_not_signalled() {
        let script = "sleep 60 & echo $!; read line; kill $!";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(shell.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();

        // As if its id had been another process's when the list was made.
        signal(Member { pid: grandchild, parent: 1, tasks: 1 }, Signal::KILL);
        let state = fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap();
        assert!(!state.contains(") Z "), "{state}");

        drop(shell.stdin.take());
        shell.wait().unwrap();
    }
}
