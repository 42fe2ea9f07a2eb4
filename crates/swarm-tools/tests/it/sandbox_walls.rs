//! What a command cannot see, change, or reach.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use swarm_core::port::sandbox::{Cover, Exit, Level, Mask, Network};

use crate::on_both_levels;
use crate::sandbox::{Bench, SECRET};

on_both_levels! {
    async fn it_runs_in_the_workspace_and_says_at_which_level(bench) {
        bench.write("greeting", "hello");
        let finished = bench.run(&["cat", "greeting"]).await;
        assert_eq!((finished.exit, finished.level), (Exit::Code(0), bench.level));
        assert_eq!((finished.stdout.text.as_str(), finished.stderr.text.as_str()), ("hello", ""));
    }

    async fn what_it_writes_in_the_workspace_stays(bench) {
        let finished = bench.sh("mkdir -p a/b && echo new > a/b/c && mv a/b/c a/d && rm -r a/b").await;
        assert!(finished.succeeded(), "{finished:?}");
        assert_eq!(fs::read_to_string(bench.workspace.join("a/d")).unwrap(), "new\n");
    }

    async fn the_environment_holds_what_is_named_and_nothing_else(bench) {
        let mut command = bench.command(&["env"]);
        command.env.insert("ASKED".to_owned(), "for".to_owned());
        let finished = bench.sandbox.run(command).await.unwrap();
        let mut names: Vec<&str> =
            finished.stdout.text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        names.sort_unstable();
        let toolchains = ["RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "PYENV_ROOT", "PYENV_VERSION", "NVM_DIR"];
        names.retain(|name| !toolchains.contains(name));
        insta::allow_duplicates! {
            insta::assert_snapshot!(names.join(" "), @"ASKED CARGO_HOME GIT_CONFIG_NOSYSTEM GIT_TERMINAL_PROMPT GOCACHE GOMODCACHE GRADLE_USER_HOME HOME LANG PATH PIP_CACHE_DIR TMPDIR USER UV_CACHE_DIR XDG_CACHE_HOME YARN_CACHE_FOLDER npm_config_cache npm_config_store_dir");
        }
        assert!(finished.stdout.text.contains("ASKED=for\n"));
        assert!(finished.stdout.text.contains(&format!("PATH={}\n", std::env::var("PATH").unwrap())));
    }

    async fn a_variable_cannot_act_before_the_walls_stand(bench) {
        // Were it given to bwrap or to the stage, the loader would complain from outside.
        let mut command = bench.command(&["sh", "-c", "echo ran"]);
        command.env.insert("LD_PRELOAD".to_owned(), bench.workspace.join("evil.so").display().to_string());
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.stdout.text, "ran\n");
        let complaints = finished.stderr.text.matches("evil.so").count();
        assert_eq!(complaints, 1, "{}", finished.stderr.text);
    }

    async fn the_data_directory_around_the_workspace_is_closed(bench) {
        let data = bench.data();
        for path in [data.join("secret"), bench.workspace.join("../../secret")] {
            let finished = bench.run(&["cat", path.to_str().unwrap()]).await;
            assert_eq!(finished.exit, Exit::Code(1), "{finished:?}");
            assert!(!finished.stdout.text.contains(SECRET));
        }
        let listed = bench.run(&["ls", "-A", data.to_str().unwrap()]).await;
        assert!(!listed.stdout.text.contains("secret"), "{listed:?}");
    }

    async fn a_link_that_points_out_gives_nothing(bench) {
        symlink(bench.data().join("secret"), bench.workspace.join("link")).unwrap();
        symlink("/etc", bench.workspace.join("etc")).unwrap();
        let finished = bench.sh("cat link etc/shadow etc/gshadow; echo changed > link").await;
        assert_eq!(finished.stdout.text, "");
        assert_eq!(fs::read_to_string(bench.data().join("secret")).unwrap(), SECRET);
    }

    async fn accounts_and_homes_are_closed(bench) {
        let home = std::env::var("HOME").unwrap();
        let paths = ["/etc/shadow", "/root/.ssh", "/root/.npmrc", "/var/log", "/run", "/sys/kernel/debug"];
        for path in paths.map(str::to_owned).into_iter().chain([format!("{home}/.bashrc"), home.clone()]) {
            let finished = bench.sh(&format!("cat {path} || ls -A {path}/")).await;
            let seen: Vec<&str> = finished.stdout.text.lines().collect();
            // Of a home only what leads to a toolchain is there at all.
            let known = [".cargo", ".rustup", ".pyenv", ".nvm", ".local"];
            assert!(seen.iter().all(|name| known.contains(name) || *name == ".sandbox-exec"), "{path}: {seen:?}");
        }
    }

    async fn nothing_outside_can_be_written(bench) {
        let home = std::env::var("HOME").unwrap();
        for place in ["/", "/usr", "/usr/bin", "/etc", "/var/tmp", "/home", &home, &format!("{home}/.cargo/bin"), "/proc/sys/kernel", bench.data().to_str().unwrap()] {
            let finished = bench.sh(&format!("echo x > {place}/sandbox-test-file")).await;
            // What lies in the host's `/tmp` lies in the private one inside.
            let private = bench.level == Level::Bubblewrap && place.starts_with("/tmp/");
            assert!(private || !finished.succeeded(), "{place}: {finished:?}");
            let file = PathBuf::from(place).join("sandbox-test-file");
            assert!(!file.exists(), "{}", file.display());
        }
    }

    async fn a_file_outside_keeps_its_contents_and_its_place(bench) {
        let secret = bench.data().join("secret");
        let before = fs::metadata(&secret).unwrap();
        let script = format!(
            "import os\nfor act in (lambda p: os.truncate(p, 0), os.unlink, lambda p: os.link(p, 'stolen'), lambda p: os.rename(p, 'stolen')):\n    try: act({secret:?}); print('did')\n    except OSError: pass\n",
        );
        let finished = bench.python(&script).await;
        assert_eq!((finished.exit, finished.stdout.text.as_str()), (Exit::Code(0), ""), "{finished:?}");
        let after = fs::metadata(&secret).unwrap();
        assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
    }

    async fn home_and_tmp_are_private_and_fresh(bench) {
        let first = bench.sh("echo left > $HOME/file && echo left > $TMPDIR/file && ls -A $HOME $TMPDIR").await;
        assert!(first.succeeded(), "{first:?}");
        let second = bench.sh("cat $HOME/file $TMPDIR/file").await;
        assert!(!second.succeeded());
        let left = fs::read_dir(bench.data().join("scratch")).unwrap().filter_map(Result::ok);
        let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "etc").collect();
        assert!(left.is_empty(), "{left:?}");
    }

    async fn a_directory_without_permissions_is_still_cleaned_up(bench) {
        bench.sh("mkdir -p $TMPDIR/a/b && echo x > $TMPDIR/a/b/c && chmod 000 $TMPDIR/a/b $TMPDIR/a").await;
        let entries = fs::read_dir(bench.data().join("scratch")).unwrap().count();
        assert_eq!(entries, 1, "only `etc` stays");
    }

    async fn the_hosts_processes_tell_nothing(bench) {
        let own = std::process::id();
        let script = format!("cat /proc/{own}/environ /proc/{own}/cmdline /proc/1/environ /proc/{own}/root/etc/shadow; ls /proc/{own}/fd /proc/{own}/cwd/; readlink /proc/{own}/exe /proc/{own}/cwd; true");
        let finished = bench.sh(&script).await;
        // Inside, other processes may bear these numbers; the host's environment shows nowhere.
        assert!(!finished.stdout.text.contains("CARGO_MANIFEST_DIR"), "{finished:?}");
        assert!(!finished.stdout.text.contains("swarm_tools"), "{finished:?}");
    }

    async fn its_own_environment_in_proc_holds_no_secret(bench) {
        let finished = bench.sh("cat /proc/self/environ /proc/1/environ | tr '\\0' '\\n'; true").await;
        assert!(!finished.stdout.text.contains("CARGO_MANIFEST_DIR"), "{finished:?}");
    }

    async fn no_process_can_be_traced_or_read(bench) {
        let finished = bench.python("
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print('ptrace', libc.ptrace(16, os.getppid(), 0, 0), ctypes.get_errno())
print('read', libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0), ctypes.get_errno())
").await;
        assert_eq!(finished.stdout.text, "ptrace -1 1\nread -1 1\n", "{finished:?}");
    }

    async fn the_host_cannot_be_signalled(bench) {
        let own = std::process::id();
        let finished = bench.sh(&format!("kill -0 {own} && echo reached; kill -9 -1; echo alive")).await;
        assert!(!finished.stdout.text.contains("reached"), "{finished:?}");
    }

    async fn the_host_can_be_slowed_down_by_no_call(bench) {
        let own = std::process::id();
        let finished = bench.python(&format!("
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
info = ctypes.create_string_buffer(128)
ctypes.cast(info, ctypes.POINTER(ctypes.c_int))[2] = -1
print('queue', libc.syscall(129, {own}, int(signal.SIGURG), info))
def tried(name, act):
    try: act(); print(name, 0)
    except OSError: print(name, -1)
tried('user', lambda: os.setpriority(os.PRIO_USER, 0, 19))
tried('nice', lambda: os.setpriority(os.PRIO_PROCESS, {own}, 19))
tried('cpus', lambda: os.sched_setaffinity({own}, [0]))
tried('idle', lambda: os.sched_setscheduler({own}, os.SCHED_IDLE, os.sched_param(0)))
os.setpriority(os.PRIO_PROCESS, 0, 19)
os.sched_setaffinity(0, [0])
")).await;
        // Inside, the user is one of its own, and the host's number nobody's.
        let words = finished.stdout.text.replace("user 0\n", "user -1\n");
        let is_own = bench.level == Level::Bubblewrap;
        let said = if is_own { &words } else { &finished.stdout.text };
        assert_eq!(said, "queue -1\nuser -1\nnice -1\ncpus -1\nidle -1\n", "{finished:?}");
        assert_eq!(finished.exit, Exit::Code(0), "its own it may: {finished:?}");
        let nice = fs::read_to_string("/proc/self/stat").unwrap();
        let nice = nice[nice.rfind(')').unwrap() + 1..].split_whitespace().nth(16).unwrap().to_owned();
        assert_ne!(nice, "19");
    }

    async fn there_is_no_network_not_even_the_hosts_loopback(bench) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let finished = bench.python(&format!("
import socket
for family, kind, address in ((socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', {port})), (socket.AF_INET6, socket.SOCK_STREAM, ('::1', {port})), (socket.AF_INET, socket.SOCK_STREAM, ('1.1.1.1', 53)), (socket.AF_INET, socket.SOCK_DGRAM, ('1.1.1.1', 53))):
    try:
        s = socket.socket(family, kind); s.settimeout(2); s.connect(address); s.send(b'x'); print('reached', address)
    except OSError: pass
for family in (socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG):
    try: socket.socket(family, socket.SOCK_RAW, 0); print('made', family)
    except PermissionError: pass
")).await;
        assert_eq!((finished.exit, finished.stdout.text.as_str()), (Exit::Code(0), ""), "{finished:?}");
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "somebody came through");
    }

    async fn io_uring_is_no_way_around(bench) {
        let finished = bench.python("
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(425, 8, ctypes.create_string_buffer(120)), ctypes.get_errno())
").await;
        assert_eq!(finished.stdout.text, "-1 38\n", "{finished:?}");
    }

    async fn sockets_of_the_host_cannot_be_reached(bench) {
        // As X11 and D-Bus have them: an abstract name, and a path.
        let name = format!("swarm-test-{}-{}", std::process::id(), bench.level);
        let abstracted = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let path = bench.data().join("bus");
        let named = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let finished = bench.python(&format!("
import socket
for address in ('\\0{name}', {path:?}):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try: s = socket.socket(socket.AF_UNIX, kind); s.connect(address); print('reached', address)
        except OSError: pass
        try: s, _ = socket.socketpair(socket.AF_UNIX, kind); s.connect(address); print('reached', address)
        except OSError: pass
")).await;
        assert_eq!((finished.exit, finished.stdout.text.as_str()), (Exit::Code(0), ""), "{finished:?}");
        for listener in [abstracted, named] {
            listener.set_nonblocking(true).unwrap();
            assert!(listener.accept().is_err(), "somebody came through");
        }
    }

    async fn pairs_of_sockets_between_its_own_processes_work(bench) {
        let finished = bench.python("import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))").await;
        assert_eq!(finished.stdout.text, "b'x'\n", "{finished:?}");
    }

    async fn the_hosts_network_is_for_who_the_configuration_allows(bench) {
        let mut command = bench.command(&["true"]);
        command.network = Network::Host;
        let refusal = bench.refused(command).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(refusal, @"cannot run: the command wants the host's network, which the configuration does not allow");
        }
    }

    async fn with_the_hosts_network_sockets_of_the_host_are_still_closed(bench) {
        let bench = Bench::with(bench.level, |config| config.host_network = true);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = format!("swarm-test-host-{}-{}", std::process::id(), bench.level);
        let _abstracted = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let script = format!("
import socket
s = socket.socket(); s.connect(('127.0.0.1', {port})); print('loopback')
try: s = socket.socket(socket.AF_UNIX); s.connect('\\0{name}'); print('abstract')
except OSError: pass
try: s = socket.socket(socket.AF_VSOCK); print('vsock')
except OSError: pass
");
        let mut command = bench.command(&["python3", "-c", &script]);
        command.network = Network::Host;
        let finished = bench.sandbox.run(command).await.unwrap();
        assert_eq!(finished.stdout.text, "loopback\n", "{finished:?}");
    }

    async fn it_has_no_capabilities_and_gains_none(bench) {
        let finished = bench.sh("cat /proc/self/status 2>/dev/null || true").await;
        if bench.level == Level::Bubblewrap {
            for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert!(finished.stdout.text.contains(&format!("{line}:\t0000000000000000")), "{}", finished.stdout.text);
            }
            assert!(finished.stdout.text.contains("NoNewPrivs:\t1"));
        }
        // prctl(PR_GET_NO_NEW_PRIVS), and what capget(2) says is effective and permitted.
        let finished = bench.python("
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
head = (ctypes.c_uint32 * 2)(0x20080522, 0); data = (ctypes.c_uint32 * 6)()
print(libc.prctl(39, 0, 0, 0, 0), libc.capget(head, data), list(data))
").await;
        assert_eq!(finished.stdout.text, "1 0 [0, 0, 0, 0, 0, 0]\n", "{finished:?}");
    }

    async fn programs_that_change_the_user_give_nothing(bench) {
        let finished = bench.sh("for p in /usr/bin/su /usr/bin/passwd /usr/bin/mount; do test -u $p && echo found; done; mount -t tmpfs none . ; chroot / true; unshare -U true; unshare -n true; chown 12345 .").await;
        assert!(finished.stdout.text.contains("found"), "the machine has setuid programs: {finished:?}");
        assert!(!finished.succeeded());
        for denied in ["mount:", "chroot:", "unshare:", "chown:"] {
            assert!(finished.stderr.text.contains(denied), "{denied} {}", finished.stderr.text);
        }
    }

    async fn it_has_a_session_of_its_own_and_no_terminal(bench) {
        let finished = bench.python("
import os, fcntl, ctypes, sys
print(os.getsid(0) == os.getpid() or os.getsid(0) != os.getsid(0))
try: os.open('/dev/tty', os.O_RDWR); print('tty')
except OSError: print('no tty')
m = None
libc = ctypes.CDLL(None, use_errno=True)
for call in (0x5412, 0x541C, 0x5412 | (1 << 32)):
    print(libc.ioctl(0, ctypes.c_ulong(call), b'x'), ctypes.get_errno())
print(os.read(0, 1), os.readlink('/proc/self/fd/0'))
").await;
        let lines: Vec<&str> = finished.stdout.text.lines().skip(1).collect();
        assert_eq!(lines, ["no tty", "-1 1", "-1 1", "-1 1", "b'' /dev/null"], "{finished:?}");
    }

    async fn only_three_descriptors_are_open(bench) {
        let finished = bench.python("
import os
def is_open(n):
    try: os.fstat(n); return True
    except OSError: return False
print([n for n in range(256) if is_open(n)])
").await;
        assert_eq!(finished.stdout.text, "[0, 1, 2]\n", "{finished:?}");
    }

    async fn the_directory_must_lie_in_the_workspace(bench) {
        bench.write("sub/file", "");
        symlink(bench.data(), bench.workspace.join("out")).unwrap();
        symlink("sub", bench.workspace.join("in")).unwrap();
        let mut command = bench.command(&["pwd"]);
        command.dir = PathBuf::from("in");
        let finished = bench.sandbox.run(command.clone()).await.unwrap();
        assert_eq!(finished.stdout.text, format!("{}\n", bench.workspace.join("sub").display()));
        for (dir, words) in [("out", "outside"), ("..", "outside"), ("/etc", "outside"), ("none", "cannot be used"), ("sub/file", "no directory")] {
            command.dir = PathBuf::from(dir);
            let refusal = bench.refused(command.clone()).await;
            assert!(refusal.contains(words), "{dir}: {refusal}");
        }
    }

    async fn the_workspace_must_not_hold_what_is_hidden(bench) {
        for workspace in [bench.data(), bench.data().join("caches"), PathBuf::from("/"), PathBuf::from("/proc/self"), PathBuf::from("relative"), bench.data().join("none")] {
            let mut command = bench.command(&["true"]);
            command.workspace = workspace;
            bench.refused(command).await;
        }
    }

    async fn what_cannot_be_meant_is_refused(bench) {
        for argv in [&[][..], &[""][..], &["a\0b"][..]] {
            bench.refused(bench.command(argv)).await;
        }
        let mut command = bench.command(&["true"]);
        command.env.insert("A=B".to_owned(), String::new());
        bench.refused(command).await;
    }

    async fn a_program_that_is_not_there_ends_as_in_a_shell(bench) {
        let finished = bench.run(&["no-such-program"]).await;
        assert_eq!(finished.exit, Exit::Code(127));
        insta::allow_duplicates! {
            insta::assert_snapshot!(finished.stderr.text, @"sandbox: `no-such-program`: no such program in the sandbox's PATH (No such file or directory (os error 2))");
        }
        bench.write("text", "not a program");
        assert_eq!(bench.run(&["./text"]).await.exit, Exit::Code(126));
    }

    async fn caches_are_shared_by_name(bench) {
        let with = |cache: &str, script: &str| {
            let mut command = bench.command(&["sh", "-c", script]);
            command.cache = cache.to_owned();
            bench.sandbox.run(command)
        };
        assert!(with("a/b", "echo kept > $CARGO_HOME/mark").await.unwrap().succeeded());
        assert_eq!(with("a/b", "cat $CARGO_HOME/mark").await.unwrap().stdout.text, "kept\n");
        assert!(!with("a-b", "cat $CARGO_HOME/mark").await.unwrap().succeeded());
        // Nor can it be reached from there.
        let listed = with("a-b", "ls $CARGO_HOME/../..").await.unwrap();
        assert!(!listed.stdout.text.contains("a-b-") || listed.stdout.text.lines().count() <= 1, "{listed:?}");
        assert!(!with("../../x", "cat $CARGO_HOME/mark").await.unwrap().succeeded());
    }

    async fn links_in_the_caches_do_not_lead_the_host_out_of_them(bench) {
        let outside = bench.data().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("config.toml"), "ours").unwrap();
        let script = format!(
            "cd $CARGO_HOME/..; rm -rf go cargo; ln -s {0} go; ln -s {0} cargo", outside.display()
        );
        assert!(bench.sh(&script).await.succeeded());
        assert!(bench.sh("echo x > $GOCACHE/x && echo x > $CARGO_HOME/x").await.succeeded());
        let found: Vec<_> = fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(found, ["config.toml"], "the host made or removed something there");
    }

    async fn one_command_leaves_the_next_no_settings_of_package_managers(bench) {
        let left = "mkdir -p $CARGO_HOME/config $GRADLE_USER_HOME/init.d && \
            echo '[build]' > $CARGO_HOME/config.toml && echo x > $GRADLE_USER_HOME/init.d/x.gradle";
        assert!(bench.sh(left).await.succeeded());
        let found = bench.sh("ls $CARGO_HOME $GRADLE_USER_HOME").await.stdout.text;
        assert!(!found.contains("config") && !found.contains("init"), "{found}");
    }

    async fn hidden_places_inside_visible_ones_stay_hidden(bench) {
        let tools = tempfile::tempdir().unwrap();
        let root = tools.path().canonicalize().unwrap();
        for (path, text) in [("bin/tool", "#!/bin/sh\ncat ../lib/part\n"), ("lib/part", "part"), ("data/secret", SECRET), ("lib/token", SECRET)] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        let bench = Bench::with(bench.level, |config| {
            config.path = format!("{}:{}", root.join("bin").display(), config.path);
            config.hidden.extend([root.join("data"), root.join("lib/token")]);
        });
        let root = root.display();
        let finished = bench.sh(&format!("cat {root}/lib/part && test -x {root}/bin/tool && cat {root}/data/secret {root}/lib/token")).await;
        assert_eq!(finished.stdout.text, "part", "{finished:?}");
    }

    async fn a_toolchain_of_a_home_is_visible_and_its_secrets_are_not(bench) {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for path in [".cargo/bin/tool", ".cargo/credentials.toml", ".cargo/registry/index", ".ssh/id", ".npmrc", ".pyenv/shims/snake", ".rustup/settings.toml", "notes"] {
            fs::create_dir_all(home.join(path).parent().unwrap()).unwrap();
            fs::write(home.join(path), path).unwrap();
        }
        let bench = Bench::with(bench.level, |config| {
            config.path = format!("{}:{}:/usr/bin:/bin", home.join(".cargo/bin").display(), home.join(".pyenv/shims").display());
            config.home = Some(home.clone());
            config.toolchain_env.clear();
        });
        let h = home.display();
        let finished = bench.sh(&format!("cd {h} 2>/dev/null; for f in .cargo/bin/tool .cargo/credentials.toml .cargo/registry/index .ssh/id .npmrc .pyenv/shims/snake .rustup/settings.toml notes; do cat {h}/$f 2>/dev/null && echo; done; echo RUSTUP_HOME=$RUSTUP_HOME")).await;
        assert_eq!(finished.stdout.text, format!(".cargo/bin/tool\n.pyenv/shims/snake\n.rustup/settings.toml\nRUSTUP_HOME={h}/.rustup\n"), "{finished:?}");
    }
}

#[tokio::test]
async fn bubblewrap_keeps_the_modes_and_times_of_what_is_outside() {
    let bench = Bench::new(Level::Bubblewrap);
    let secret = bench.data().join("secret");
    let before = fs::metadata(&secret).unwrap();
    let script = format!(
        "import os\nfor place in ({secret:?}, '/usr/bin/env', '/usr'):\n    for act in (lambda p: os.chmod(p, 0o777), lambda p: os.utime(p, (1, 1)), lambda p: os.chown(p, 1, 1), lambda p: os.setxattr(p, 'user.x', b'x')):\n        try: act(place); print('did', place)\n        except OSError: pass\n",
    );
    let finished = bench.python(&script).await;
    assert_eq!((finished.exit, finished.stdout.text.as_str()), (Exit::Code(0), ""), "{finished:?}");
    let after = fs::metadata(&secret).unwrap();
    assert_eq!(before.permissions(), after.permissions());
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
}

#[tokio::test]
async fn masked_places_cannot_be_changed_or_seen() {
    let bench = Bench::new(Level::Bubblewrap);
    bench.write(".git/config", "[core]");
    bench.write("secrets/key", SECRET);
    bench.write(".env", SECRET);
    let mut command = bench.command(&["sh", "-c", "
        cat .git/config; echo x >> .git/config || echo kept; touch .git/new || echo kept; rm -rf .git; mv .git away
        ls -A secrets; cat .env; echo y > secrets/new || echo kept; echo y > .env; echo free > other && cat other"]);
    command.masked = vec![
        Mask { path: PathBuf::from(".git"), cover: Cover::ReadOnly },
        Mask { path: PathBuf::from("secrets"), cover: Cover::Absent },
        Mask { path: PathBuf::from(".env"), cover: Cover::Absent },
        Mask { path: PathBuf::from("none"), cover: Cover::Absent },
    ];
    let finished = bench.sandbox.run(command).await.unwrap();
    assert_eq!(finished.stdout.text, "[core]kept\nkept\nkept\nfree\n", "{finished:?}");
    assert_eq!(fs::read_to_string(bench.workspace.join(".git/config")).unwrap(), "[core]");
    assert_eq!(fs::read_to_string(bench.workspace.join(".env")).unwrap(), SECRET);
    assert!(!bench.workspace.join("secrets/new").exists());
}

#[tokio::test]
async fn a_mask_that_leads_elsewhere_is_refused() {
    let bench = Bench::new(Level::Bubblewrap);
    bench.write("real/file", "");
    symlink("real", bench.workspace.join("link")).unwrap();
    for path in ["link", "link/file", "../secret", "/etc", "", "."] {
        let mut command = bench.command(&["true"]);
        command.masked = vec![Mask { path: PathBuf::from(path), cover: Cover::Absent }];
        bench.refused(command).await;
    }
}

#[tokio::test]
async fn landlock_refuses_a_mask_rather_than_ignore_it() {
    let bench = Bench::new(Level::Landlock);
    let mut command = bench.command(&["true"]);
    command.masked = vec![Mask { path: PathBuf::from(".git"), cover: Cover::ReadOnly }];
    assert!(
        bench.sandbox.run(command.clone()).await.unwrap().succeeded(),
        "there is nothing to mask"
    );
    bench.write(".git/config", "");
    let refusal = bench.refused(command).await;
    assert!(refusal.contains("bubblewrap: only it can keep a command from"), "{refusal}");
}

#[tokio::test]
async fn bubblewrap_gives_a_user_and_processes_of_its_own() {
    let bench = Bench::new(Level::Bubblewrap);
    let finished = bench.sh("id -u; id -un; hostname; echo x > /tmp/file && echo tmp").await;
    assert_eq!(finished.stdout.text, "1000\nagent\nsandbox\ntmp\n", "{finished:?}");
    let processes = bench.sh("ls /proc | grep -c '^[0-9]'").await.stdout.text;
    assert!(processes.trim().parse::<u32>().unwrap() < 10, "{processes}");
    let root = bench.run(&["ls", "-A", "/"]).await.stdout.text;
    for hidden in ["var", "run", "sys", "boot", "srv", "media"] {
        assert!(!root.lines().any(|name| name == hidden), "{hidden}: {root}");
    }
}

#[tokio::test]
async fn bubblewrap_gives_a_loopback_of_its_own() {
    let bench = Bench::new(Level::Bubblewrap);
    let finished = bench
        .python(
            "
import socket
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
c = socket.create_connection(s.getsockname()); c.send(b'x'); print(s.accept()[0].recv(1))
",
        )
        .await;
    assert_eq!(finished.stdout.text, "b'x'\n", "{finished:?}");
}

#[tokio::test]
async fn landlock_closes_the_shared_tmp_and_shared_memory() {
    let bench = Bench::new(Level::Landlock);
    let finished =
        bench.sh("echo x > /tmp/sandbox-test-file; ls /tmp /dev/shm; ipcmk -M 100").await;
    assert!(!finished.succeeded());
    assert_eq!(finished.stdout.text, "");
    assert!(!PathBuf::from("/tmp/sandbox-test-file").exists());
}
