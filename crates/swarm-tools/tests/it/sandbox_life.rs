//! How a command's processes end: with it, with the future, with the host.

use std::io::{BufRead as _, BufReader};
use std::process::{Command as StdCommand, Stdio};
use std::time::Duration;

use swarm_core::port::sandbox::{Exit, Level};
use swarm_tools::sandbox::{detect, report};

use crate::on_both_levels;
use crate::sandbox::{Bench, config, eventually, processes_with};

/// A number of seconds that no other test sleeps.
fn mark(test: u32, bench: &Bench) -> String {
    let level = if bench.level == Level::Bubblewrap { 1 } else { 2 };
    format!("8{test}{level}{}", std::process::id())
}

/// The child of this process that descends to the one that sleeps.
fn warden_of(mark: &str) -> i32 {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
    let mut pid = std::fs::read_dir("/proc")
        .expect("a Linux")
        .filter_map(|entry| number(entry.expect("an entry")))
        .find(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line == format!("sleep\0{mark}\0")
        })
        .expect("it sleeps");
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
        let parent = stat[stat.rfind(')').expect("a name") + 1..]
            .split_whitespace()
            .nth(1)
            .expect("a parent");
        match parent.parse().expect("a number") {
            parent if u32::try_from(parent) == Ok(std::process::id()) => return pid,
            parent => pid = parent,
        }
    }
}

on_both_levels! {
    async fn a_daemon_that_forked_twice_does_not_survive(bench) {
        let mark = mark(1, &bench);
        let finished = bench.python(&format!("
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 3)
        os.execvp('sleep', ['sleep', '{mark}'])
    os._exit(0)
os.wait()
print('left')
")).await;
        assert_eq!((finished.exit, finished.stdout.text.as_str()), (Exit::Code(0), "left\n"));
        assert_eq!(processes_with(&mark), Vec::<String>::new());
    }

    async fn a_daemon_that_keeps_the_output_open_does_not_hold_the_end_up(bench) {
        let mark = mark(2, &bench);
        let finished = bench.sh(&format!("(setsid sleep {mark} &); echo done")).await;
        assert_eq!(finished.stdout.text, "done\n");
        assert!(finished.wall < Duration::from_secs(20));
        assert_eq!(processes_with(&mark), Vec::<String>::new());
    }

    async fn dropping_the_future_kills_everything(bench) {
        let mark = mark(3, &bench);
        let command = bench.command(&["sh", "-c", &format!("(setsid sleep {mark} &); sleep {mark}")]);
        let mut run = bench.sandbox.run(command);
        let started = tokio::select! {
            finished = &mut run => panic!("{finished:?}"),
            () = eventually("it sleeps twice", || processes_with(&mark).iter().filter(|line| line.starts_with("sleep")).count() == 2) => true,
        };
        assert!(started);
        drop(run);
        eventually("nothing is left", || processes_with(&mark).is_empty()).await;
    }

    async fn killing_the_host_kills_everything(bench) {
        let mark = mark(4, &bench);
        // A host of its own: this test binary's example program, told to run one command.
        let mut host = StdCommand::new(env!("CARGO_BIN_EXE_swarm-sandbox-probe"))
            .args(["run", &bench.level.to_string()])
            .arg(bench.data())
            .arg(&bench.workspace)
            .args(["sh", "-c", &format!("(setsid sleep {mark} &); sleep {mark}")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "running\n");
        eventually("it sleeps twice", || processes_with(&mark).iter().filter(|line| line.starts_with("sleep")).count() == 2).await;
        host.kill().unwrap();
        host.wait().unwrap();
        eventually("nothing is left", || processes_with(&mark).is_empty()).await;
    }

    async fn a_killed_warden_takes_the_command_with_it(bench) {
        let mark = mark(5, &bench);
        let command = bench.command(&["sleep", &mark]);
        let mut run = bench.sandbox.run(command);
        tokio::select! {
            finished = &mut run => panic!("{finished:?}"),
            () = eventually("it sleeps", || processes_with(&mark).iter().any(|line| line.starts_with("sleep"))) => {}
        }
        let warden = rustix::process::Pid::from_raw(warden_of(&mark)).unwrap();
        rustix::process::kill_process(warden, rustix::process::Signal::KILL).unwrap();
        let error = run.await.unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the warden died before it could report");
        eventually("nothing is left", || processes_with(&mark).is_empty()).await;
    }

    async fn commands_run_side_by_side(bench) {
        let runs = (0..6).map(|n| {
            let command = bench.command(&["sh", "-c", &format!("echo {n} > {n}; cat {n}")]);
            bench.sandbox.run(command)
        });
        let all = futures::future::join_all(runs).await;
        let texts: Vec<String> = all.into_iter().map(|one| one.unwrap().stdout.text).collect();
        assert_eq!(texts, ["0\n", "1\n", "2\n", "3\n", "4\n", "5\n"]);
    }
}

#[tokio::test]
async fn a_life_is_held_while_anything_of_it_runs_and_nothing_begins_after_it() {
    for level in [Level::Bubblewrap, Level::Landlock] {
        let lives = tempfile::tempdir().unwrap();
        let path = lives.path().join("host");
        let life = std::fs::File::create(&path).unwrap();
        life.lock_shared().unwrap();
        let bench = Bench::with(level, |config| config.life = Some(path.clone()));
        let mark = mark(6, &bench);
        let command = bench.command(&["sleep", &mark]);
        let mut run = bench.sandbox.run(command);
        tokio::select! {
            finished = &mut run => panic!("{finished:?}"),
            () = eventually("it sleeps", || processes_with(&mark).iter().any(|line| line.starts_with("sleep"))) => {}
        }
        // As if the host were killed: its lock is gone, its warden's is not.
        drop(life);
        let other = std::fs::File::open(&path).unwrap();
        assert!(other.try_lock().is_err(), "the command still runs");
        drop(run);
        eventually("nothing is left", || other.try_lock().is_ok()).await;
        assert_eq!(processes_with(&mark), Vec::<String>::new());
        // Whoever holds it alone has taken over.
        let error = bench.sandbox.run(bench.command(&["true"])).await.unwrap_err();
        assert!(matches!(error, swarm_core::port::sandbox::Error::Io(_)), "{error}");
    }
}

#[test]
fn every_level_is_reported_as_found() {
    let data = tempfile::tempdir().unwrap();
    let findings = report(&config(data.path(), Level::Bubblewrap));
    assert_eq!(findings.len(), 2);
    for finding in findings {
        let words = finding.verdict.unwrap();
        assert!(words.starts_with("works: "), "{words}");
    }
}

#[tokio::test]
async fn a_missing_bwrap_is_named_and_nothing_weaker_is_taken_unasked() {
    let bin = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path(), Level::Bubblewrap);
    config.bwrap = Some(bin.path().join("bwrap"));
    config.only = None;
    config.minimum = Level::Bubblewrap;
    let sandbox = detect(config.clone());
    let words = sandbox.level().unwrap_err().to_string();
    assert!(words.contains("install the package `bubblewrap`"), "{words}");
    assert!(
        words.contains("landlock works here but is weaker than bubblewrap: allow it"),
        "{words}"
    );
    let command = swarm_core::port::sandbox::Command::new(data.path(), ["true"]);
    assert!(sandbox.run(command).await.is_err());

    config.minimum = Level::Landlock;
    assert_eq!(detect(config).level().unwrap(), Level::Landlock);
}

#[test]
fn a_bwrap_that_does_not_work_is_not_used() {
    let bin = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path(), Level::Bubblewrap);
    // It would run the command without any walls; the trial sees what is outside.
    let fake = bin.path().join("bwrap");
    std::fs::write(
        &fake,
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n",
    )
    .unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    config.bwrap = Some(fake);
    let words = detect(config).level().unwrap_err().to_string();
    assert!(words.contains("No permissions to create new namespace"), "{words}");
    assert!(words.contains("user namespaces"), "{words}");
}

#[test]
fn walls_that_hide_nothing_are_not_walls() {
    let bin = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path(), Level::Bubblewrap);
    // It drops its own options and runs the stage on the host.
    let fake = bin.path().join("bwrap");
    let entry = config.entry.display();
    std::fs::write(&fake, format!("#!/bin/sh\nexec {entry} __sandbox-exec stage\n")).unwrap();
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    config.bwrap = Some(fake);
    let words = detect(config).level().unwrap_err().to_string();
    assert!(words.contains("saw what it must not"), "{words}");
}

#[test]
fn a_program_without_the_entry_is_found_out() {
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path(), Level::Landlock);
    config.entry = "/bin/true".into();
    let words = detect(config).level().unwrap_err().to_string();
    assert!(words.contains("does not build walls when started with `__sandbox-exec`"), "{words}");
}
