//! What a command may use up, and what happens when it wants more.

use std::time::{Duration, Instant};

use swarm_core::port::sandbox::{Exit, Level, Limits, Resource};

use crate::on_both_levels;
use crate::sandbox::{Bench, processes_with};

on_both_levels! {
    async fn the_wall_time_ends_everything(bench) {
        let mark = format!("71{}", std::process::id());
        let mut command = bench.command(&["sh", "-c", &format!("sleep {mark} & (setsid sleep {mark} &) ; echo started; sleep {mark}")]);
        command.limits.wall_secs = 1;
        let begun = Instant::now();
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!((finished.exit, finished.stdout.text.as_str()), (Exit::TimedOut, "started\n"));
        assert!(begun.elapsed() < Duration::from_secs(15));
        assert!(finished.wall >= Duration::from_secs(1));
        assert_eq!(processes_with(&mark), Vec::<String>::new());
    }

    async fn a_program_that_ignores_signals_is_killed_too(bench) {
        let mut command = bench.command(&["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 0.01; done"]);
        command.limits.wall_secs = 1;
        assert_eq!(bench.sandbox.run(command).await.unwrap().exit, Exit::TimedOut);
    }

    async fn the_code_and_the_signal_of_the_end_are_told_apart(bench) {
        assert_eq!(bench.sh("exit 3").await.exit, Exit::Code(3));
        assert_eq!(bench.sh("kill -SEGV $$").await.exit, Exit::Signal(11));
        assert_eq!(bench.sh("kill -KILL $$").await.exit, Exit::Signal(9));
    }

    async fn a_fork_bomb_is_bounded(bench) {
        // Every process forks, eleven times over: 2048, should nothing stop them, for ten seconds.
        let mark = format!("bomb-{}-{}", std::process::id(), bench.level);
        let script = "import os, time\nfor _ in range(11): os.fork()\ntime.sleep(10)";
        let mut command = bench.command(&["python3", "-c", script, &mark]);
        command.limits.processes = 100;
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.exit, Exit::Exceeded(Resource::Processes), "{finished:?}");
        assert!(finished.wall < Duration::from_secs(8), "{finished:?}");
        assert_eq!(processes_with(&mark), Vec::<String>::new());
    }

    async fn threads_count_as_processes(bench) {
        let mut command = bench.command(&["python3", "-c", "
import threading, time
for _ in range(200): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
time.sleep(60)"]);
        command.limits = Limits { processes: 50, wall_secs: 60, ..Limits::default() };
        let finished = bench.sandbox.run(command).await.unwrap();
        assert!(finished.exit == Exit::Exceeded(Resource::Processes) || finished.stderr.text.contains("thread"), "{finished:?}");
    }

    async fn no_process_can_reserve_more_than_the_memory(bench) {
        let mut command = bench.command(&["python3", "-c", "x = bytearray(512 * 1024 * 1024)"]);
        command.limits.memory_mib = 256;
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.exit, Exit::Code(1), "{finished:?}");
        assert!(finished.stderr.text.contains("MemoryError"), "{finished:?}");
    }

    async fn many_processes_together_use_no_more_than_the_memory(bench) {
        let mut command = bench.command(&["python3", "-c", "
import os, time
for _ in range(8):
    if os.fork() == 0:
        x = bytearray(os.urandom(1024) * 1024 * 100)
        time.sleep(60)
time.sleep(60)"]);
        command.limits = Limits { memory_mib: 300, wall_secs: 60, ..Limits::default() };
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.exit, Exit::Exceeded(Resource::Memory), "{finished:?}");
    }

    async fn files_that_live_in_memory_alone_count_as_memory(bench) {
        // A gigabyte at most, should nothing stop it, for ten seconds.
        let mut command = bench.command(&["python3", "-c", "
import os, time
piece = b'x' * (1 << 20)
files = [os.memfd_create('f%d' % n) for n in range(16)]
for file in files:
    for _ in range(64): os.write(file, piece)
time.sleep(10)"]);
        command.limits.memory_mib = 256;
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.exit, Exit::Exceeded(Resource::Memory), "{finished:?}");
        assert!(finished.wall < Duration::from_secs(8), "{finished:?}");
    }

    async fn a_process_that_always_forks_away_is_caught(bench) {
        // One process at a time, each in a session of its own, for ten seconds should nothing stop it.
        let mark = format!("hare-{}-{}", std::process::id(), bench.level);
        let script = "
import os, time
end = time.time() + 10
while time.time() < end:
    if os.fork(): os._exit(0)
    os.setsid()";
        let mut command = bench.command(&["sh", "-c", "python3 -c \"$0\" \"$1\"; sleep 10", script, &mark]);
        command.limits = Limits { wall_secs: 1, processes: 100, ..Limits::default() };
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.exit, Exit::TimedOut, "{finished:?}");
        assert!(finished.wall < Duration::from_secs(8), "{finished:?}");
        assert_eq!(processes_with(&mark), Vec::<String>::new());
    }

    async fn pages_that_processes_share_count_once(bench) {
        let mut command = bench.command(&["python3", "-c", "
import os, time
x = bytearray(os.urandom(1024) * 1024 * 100)
children = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        time.sleep(1); os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
print('done')"]);
        command.limits = Limits { memory_mib: 350, wall_secs: 60, ..Limits::default() };
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.stdout.text, "done\n", "{finished:?}");
    }

    async fn a_file_cannot_grow_past_its_limit(bench) {
        let mut command = bench.command(&["dd", "if=/dev/zero", "of=big", "bs=1M", "count=64"]);
        command.limits.file_mib = 8;
        let finished = bench.sandbox.run(command).await.unwrap();
        assert!(!finished.succeeded(), "{finished:?}");
        let length = std::fs::metadata(bench.workspace.join("big")).unwrap().len();
        assert!(length <= 8 * 1024 * 1024, "{length}");
    }

    async fn a_gigabyte_of_output_is_read_and_a_little_is_kept(bench) {
        let mut command = bench.command(&["sh", "-c", "echo begin; head -c 1073741824 /dev/zero | tr '\\0' x; echo; echo end; echo aside >&2"]);
        command.limits.output_bytes = 4096;
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.exit, Exit::Code(0), "{finished:?}");
        let text = &finished.stdout.text;
        assert!(text.starts_with("begin\nxxx") && text.ends_with("xxx\nend\n"), "{text}");
        assert_eq!(finished.stdout.dropped_bytes, 6 + 1_073_741_824 + 5 - 4096);
        assert!(text.len() < 4096 + 100);
        assert!(text.contains(&format!("[… {} bytes are missing here …]", finished.stdout.dropped_bytes)));
        assert_eq!(finished.stderr.text, "aside\n");
    }

    async fn core_files_are_not_left(bench) {
        bench.sh("kill -SEGV $$").await;
        assert_eq!(std::fs::read_dir(&bench.workspace).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn without_a_control_group_the_warden_bounds_a_fork_bomb() {
    for level in [Level::Landlock, Level::Bubblewrap] {
        let bench = Bench::with(level, |config| config.control_groups = false);
        // Every process forks, ten times over: 1024, should nothing stop them, for eight seconds.
        let mark = format!("free-bomb-{}-{level}", std::process::id());
        let script = "import os, time\nfor _ in range(10):\n    if os.fork() == 0: os.setsid()\ntime.sleep(8)";
        let mut command = bench.command(&["python3", "-c", script, &mark]);
        command.limits.processes = 100;
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.exit, Exit::Exceeded(Resource::Processes), "{finished:?}");
        assert!(finished.wall < Duration::from_secs(7), "{finished:?}");
        assert_eq!(processes_with(&mark), Vec::<String>::new());
    }
}

#[tokio::test]
async fn the_private_tmp_of_bubblewrap_is_bounded() {
    use swarm_core::port::sandbox::Level;
    let bench = crate::sandbox::Bench::with(Level::Bubblewrap, |config| config.tmp_mib = 4);
    let finished = bench.sh("head -c 16777216 /dev/zero > /tmp/big").await;
    assert!(!finished.succeeded());
    assert!(finished.stderr.text.contains("No space left"), "{finished:?}");
}
