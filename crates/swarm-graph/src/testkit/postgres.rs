//! A PostgreSQL server for tests: real, on a Unix socket of its own, gone when the tests are.
//!
//! Debian's package `postgresql` brings the programs; no cluster of the system is touched. All
//! processes of a test run share one server ([`Server::shared`]); whoever restarts, stops or
//! breaks one takes his own ([`Server::private`]). Neither outlives its users, however they end:
//! a small shell waits for their locks or their pipe, and stops the server. Run by root, it runs
//! as the user `postgres` or `nobody`, for PostgreSQL refuses root.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use thiserror::Error;

/// Why there is no server.
#[derive(Debug, Error)]
pub enum Missing {
    /// The programs are not installed.
    #[error("PostgreSQL's server is not installed; on Debian: apt-get install postgresql")]
    Programs,
    /// A step failed.
    #[error("PostgreSQL: cannot {what}: {why}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What was seen.
        why: String,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Missing {
    move |error| Missing::Failed { what, why: error.to_string() }
}

/// What of an acknowledged commit survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// The crash of the server: all that most tests need.
    Crash,
    /// The loss of power: each commit is synced to disk.
    Power,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    programs: Programs,
    dir: PathBuf,
    durability: Durability,
    /// While this lock is held, the shared server runs.
    _lock: Option<File>,
    /// While this process's end of the pipe is open, the private server may run.
    guard: Option<Child>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Waits until nobody uses the server of directory $1, and then stops it. $2 runs a program of
/// PostgreSQL's.
const SHARED_GUARD: &str = r#"
while :; do
    flock -x "$1/users.lock" true
    sleep 2
    exec 9>"$1/start.lock"
    flock -x 9
    if flock -n -x "$1/users.lock" true; then
        $2/pg_ctl -D "$1/data" -m immediate -w stop
        rm -rf "$1/data"
        exit
    fi
    exec 9>&-
done"#;

/// Waits for the end of its input, and then stops the server.
const PRIVATE_GUARD: &str = r#"
read -r _
$2/pg_ctl -D "$1/data" -m immediate -w stop
rm -rf "$1""#;

impl Server {
    /// The server of this test run; the first to ask starts it.
    ///
    /// # Errors
    /// [`Missing`] when there is none.
    pub fn shared() -> Result<Self, Missing> {
        let programs = Programs::find()?;
        // One for each checkout: its tests may be of another version.
        let mut name = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(env!("CARGO_MANIFEST_DIR"), &mut name);
        let name = std::hash::Hasher::finish(&name);
        let dir = std::env::temp_dir().join(format!("swarm-pg-{}-{name:016x}", programs.user()));
        programs.make_dir(&dir)?;
        let lock = |name| {
            let options = File::options().create(true).truncate(false).write(true).clone();
            options.open(dir.join(name)).map_err(failed("open a lock"))
        };
        let users = lock("users.lock")?;
        users.lock_shared().map_err(failed("take a lock"))?;
        let starting = lock("start.lock")?;
        starting.lock().map_err(failed("take a lock"))?;
        let durability = Durability::Crash;
        let server = Self { programs, dir, durability, _lock: Some(users), guard: None };
        if !server.runs() {
            server.remove_data()?;
            server.init()?;
            server.start()?;
            server.guard_with(SHARED_GUARD)?;
        }
        Ok(server)
    }

    /// A server of this process's own.
    ///
    /// # Errors
    /// [`Missing`] when there is none.
    pub fn private(durability: Durability) -> Result<Self, Missing> {
        let programs = Programs::find()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("swarm-pg-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        programs.make_dir(&dir)?;
        let mut server = Self { programs, dir, durability, _lock: None, guard: None };
        server.remove_data()?;
        server.init()?;
        server.guard = Some(server.guard_with(PRIVATE_GUARD)?);
        server.start()?;
        Ok(server)
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let host = self.dir.display().to_string().replace('/', "%2F");
        format!("postgres://swarm@{host}/{database}")
    }

    /// The Unix socket that it listens on.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join(".s.PGSQL.5432")
    }

    /// Makes a database that nobody else knows; returns its URL.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn database(&self) -> Result<String, sqlx::Error> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let mut connection = self.connect("postgres").await?;
        let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}"));
        sqlx::query(drop).execute(&mut connection).await?;
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut connection).await?;
        connection.close().await?;
        Ok(self.url(&name))
    }

    /// A connection to a database.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        self.url(database).parse::<PgConnectOptions>()?.connect().await
    }

    /// Stops it as a crash does: connections break, what was not committed is gone.
    ///
    /// # Errors
    /// [`Missing`] with what `pg_ctl` says.
    pub fn stop(&self) -> Result<(), Missing> {
        let mut stop = self.programs.command("pg_ctl", &self.dir);
        stop.args(["-m", "immediate", "-w", "stop", "-D"]).arg(self.data());
        run(stop, "stop the server")
    }

    /// Starts it again.
    ///
    /// # Errors
    /// [`Missing`] with what `pg_ctl` says.
    pub fn start(&self) -> Result<(), Missing> {
        let sync = match self.durability {
            Durability::Crash => "-c fsync=off -c full_page_writes=off",
            Durability::Power => "-c fsync=on",
        };
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c port=5432 \
             -c max_connections=200 -c log_min_messages=panic {sync}",
            self.dir.display()
        );
        let mut start = self.programs.command("pg_ctl", &self.dir);
        start.args(["-w", "-t", "60", "start", "-D"]).arg(self.data());
        start.arg("-l").arg(self.dir.join("log")).args(["-o", &options]);
        run(start, "start the server")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn runs(&self) -> bool {
        let mut status = self.programs.command("pg_ctl", &self.dir);
        status.arg("status").arg("-D").arg(self.data());
        status.status().is_ok_and(|status| status.success())
    }

    fn remove_data(&self) -> Result<(), Missing> {
        match std::fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove old data")(error))
            }
            _ => Ok(()),
        }
    }

    fn init(&self) -> Result<(), Missing> {
        let mut init = self.programs.command("initdb", &self.dir);
        init.args(["-A", "trust", "-U", "swarm", "-E", "UTF8", "--locale=C", "--no-sync", "-D"]);
        run(
            {
                init.arg(self.data());
                init
            },
            "make a cluster",
        )
    }

    fn guard_with(&self, script: &str) -> Result<Child, Missing> {
        let mut guard = Command::new("sh");
        guard.args(["-c", script, "sh"]).arg(&self.dir).arg(self.programs.prefix());
        guard.current_dir(&self.dir).stdin(Stdio::piped());
        guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        guard.spawn().map_err(failed("start the guard"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // It has been waited for; how it ended does not matter.
            let _ = guard.wait();
        }
    }
}

/// Where PostgreSQL's programs are, and as whom they run.
#[derive(Clone, Debug)]
struct Programs {
    bin: PathBuf,
    /// The user and group to become, when this process is root.
    become_user: Option<(u32, u32)>,
}

impl Programs {
    fn find() -> Result<Self, Missing> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut bins: Vec<PathBuf> = std::env::split_paths(&path).collect();
        // Debian keeps them apart, by version; the newest first.
        let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .map(|found| found.flatten().map(|entry| entry.path().join("bin")).collect())
            .unwrap_or_default();
        let version = |bin: &PathBuf| {
            let name = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            name.and_then(|name| name.parse::<u32>().ok()).unwrap_or(0)
        };
        debian.sort_by_key(|bin| std::cmp::Reverse(version(bin)));
        bins.extend(debian);
        let has_all = |bin: &PathBuf| {
            ["initdb", "pg_ctl", "postgres"].iter().all(|program| bin.join(program).is_file())
        };
        let bin = bins.into_iter().find(has_all).ok_or(Missing::Programs)?;
        let own = std::fs::metadata("/proc/self").map_err(failed("find its user"))?;
        let become_user = if own.uid() == 0 { Some(other_user()?) } else { None };
        Ok(Self { bin, become_user })
    }

    fn user(&self) -> u32 {
        self.become_user.map_or(0, |(user, _)| user)
    }

    /// What stands before the name of a program.
    fn prefix(&self) -> String {
        let bin = self.bin.display();
        match self.become_user {
            None => bin.to_string(),
            Some((user, group)) => {
                format!("setpriv --reuid={user} --regid={group} --clear-groups {bin}")
            }
        }
    }

    fn command(&self, program: &str, dir: &Path) -> Command {
        let prefix = self.prefix();
        let mut words = prefix.split(' ').map(str::to_owned).collect::<Vec<_>>();
        if let Some(last) = words.last_mut() {
            *last = format!("{last}/{program}");
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(dir).env_remove("PGDATA").env_remove("PGHOST");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Makes a directory that the server's user owns.
    fn make_dir(&self, dir: &Path) -> Result<(), Missing> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(failed("make its directory"))?;
        match self.become_user {
            None => Ok(()),
            Some((user, group)) => {
                chown(dir, Some(user), Some(group)).map_err(failed("give its directory away"))
            }
        }
    }
}

/// The user that Debian makes for PostgreSQL, or nobody.
fn other_user() -> Result<(u32, u32), Missing> {
    let users = std::fs::read_to_string("/etc/passwd").map_err(failed("read the users"))?;
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).ok_or_else(|| Missing::Failed {
        what: "find a user",
        why: "it refuses to run as root, and there is neither `postgres` nor `nobody`".to_owned(),
    })
}

fn run(mut command: Command, what: &'static str) -> Result<(), Missing> {
    // What it starts must not hold this process's pipes: a file takes what it says.
    let said = std::env::temp_dir().join(format!("swarm-pg-said-{}", std::process::id()));
    let file = File::create(&said).map_err(failed(what))?;
    let status = command.stderr(file).status().map_err(failed(what))?;
    let why = std::fs::read_to_string(&said).unwrap_or_default();
    // A file left behind is only litter.
    let _ = std::fs::remove_file(&said);
    if status.success() {
        return Ok(());
    }
    Err(Missing::Failed { what, why: format!("{status}: {why}") })
}
