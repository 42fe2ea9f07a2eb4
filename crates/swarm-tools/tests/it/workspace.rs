//! Workspaces against real repositories, honest agents and hostile ones.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use swarm_core::port::forge::Sha;
use swarm_tools::git::{Mirror, TreeId};
use swarm_tools::workspace::{Error, Limits, TreeSnapshot, Workspace, Workspaces};

use crate::repo::{Bench, NOW, git, make_executable, write};

/// A workspace of the origin's `main`.
struct Desk {
    bench: Bench,
    mirror: Mirror,
    workspace: Workspace,
}

impl Desk {
    async fn new(files: &[(&str, &str)]) -> Self {
        Self::of(Bench::new(files)).await
    }

    async fn of(bench: Bench) -> Self {
        let mirror = bench.mirror().await;
        let workspace = Workspaces::new(bench.path("data/workspaces")).at("run.deliver#1/0.dev#1");
        let main = mirror.branch("main").await.expect("nothing stands in the way");
        workspace.checkout(&mirror, &main, NOW).await.expect("nothing stands in the way");
        Self { bench, mirror, workspace }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.workspace.tree().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        write(&self.path(name), text);
    }

    async fn capture(&self) -> TreeSnapshot {
        self.workspace.capture(&self.mirror).await.expect("nothing stands in the way")
    }

    /// Mode and path of all entries of a tree, as git sees them.
    fn list(&self, tree: &TreeId) -> String {
        let list =
            git(self.mirror.path(), ["ls-tree", "-r", "--format=%(objectmode) %(path)", &tree.0]);
        git(self.mirror.path(), ["fsck", "--strict", &tree.0]);
        list
    }

    fn show(&self, tree: &TreeId, path: &str) -> String {
        git(self.mirror.path(), ["cat-file", "blob", &format!("{tree}:{path}")])
    }
}

/// Everything in a folder as lines, links not followed.
fn listing(root: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, lines: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).expect("it can be read").flatten() {
            let path = entry.path();
            let name =
                path.strip_prefix(root).expect("it can be read").to_string_lossy().into_owned();
            let kind = entry.file_type().expect("it can be read");
            if kind.is_symlink() {
                lines.push(format!(
                    "{name} -> {}",
                    std::fs::read_link(&path).expect("it can be read").display()
                ));
            } else if kind.is_dir() {
                lines.push(format!("{name}/"));
                walk(&path, root, lines);
            } else if kind.is_file() {
                use std::os::unix::fs::PermissionsExt as _;
                let mode = entry.metadata().expect("it can be read").permissions().mode();
                let star = if mode & 0o100 == 0 { "" } else { "*" };
                let text = std::fs::read(&path).expect("it can be read");
                lines.push(format!("{name}{star} {:?}", String::from_utf8_lossy(&text)));
            } else {
                lines.push(format!("{name} special"));
            }
        }
    }
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines.sort();
    lines
}

#[tokio::test]
async fn a_checkout_is_what_the_commit_holds_byte_for_byte_and_no_repository() {
    let bench = Bench::new(&[
        ("a.txt", "crlf\r\nlf\n"),
        (".gitattributes", "* text eol=crlf ident\n*.txt filter=evil\n"),
        ("id.c", "$Id$\n"),
        ("dir/-x", "dash\n"),
        ("dir/ü \"q\"\nline", "odd\n"),
        ("run.sh", "#!/bin/sh\n"),
    ]);
    make_executable(&bench.origin.join("run.sh"));
    symlink("/etc/passwd", bench.origin.join("out")).unwrap();
    symlink("dir", bench.origin.join("in")).unwrap();
    std::fs::write(bench.origin.join(OsStr::from_bytes(b"raw\xff")), "raw\n").unwrap();
    git(&bench.origin, ["-c", "core.autocrlf=false", "add", "--all"]);
    let other = bench.sha("HEAD");
    git(
        &bench.origin,
        ["update-index", "--add", "--cacheinfo", &format!("160000,{other},vendor/sub")],
    );
    // Only what is in the index: `commit` of the bench would add all again.
    git(&bench.origin, ["commit", "--quiet", "-m", "odd things"]);
    let mark = bench.path("filtered");
    let program = format!("touch {}; cat", mark.display());
    for key in ["filter.evil.clean", "filter.evil.smudge"] {
        git(&bench.origin, ["config", key, &program]);
    }
    let desk = Desk::of(bench).await;
    insta::assert_snapshot!(listing(&desk.workspace.tree()).join("\n"), @r##"
    .gitattributes "* text eol=crlf ident\n*.txt filter=evil\n"
    a.txt "crlf\nlf\n"
    dir/
    dir/-x "dash\n"
    dir/ü "q"
    line "odd\n"
    id.c "$Id$\n"
    in -> dir
    out -> /etc/passwd
    raw� "raw\n"
    run.sh* "#!/bin/sh\n"
    vendor/
    vendor/sub/
    "##);
    assert!(!mark.exists());
    // Taking it out again gives the very same tree.
    let base = desk.workspace.base().unwrap().unwrap();
    assert_eq!(desk.capture().await.tree, desk.mirror.tree_of(&base).await.unwrap());
}

#[tokio::test]
async fn a_repository_with_a_name_that_git_would_not_write_is_refused_whole() {
    let bench = Bench::new(&[("a.txt", "a\n")]);
    let mirror = bench.mirror().await;
    let repo = git2::Repository::open_bare(mirror.path()).unwrap();
    let blob = repo.blob(b"[core]\n\tfsmonitor = evil\n").unwrap();
    let link = repo.blob(b"/tmp").unwrap();
    let tree = |entries: &[(&str, &[u8], git2::Oid)]| {
        let mut bytes = Vec::new();
        for (mode, name, oid) in entries {
            bytes.extend_from_slice(mode.as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(oid.as_bytes());
        }
        repo.odb().unwrap().write(git2::ObjectType::Tree, &bytes).unwrap()
    };
    let inner = tree(&[("100644", b"config", blob)]);
    let cases: Vec<(&str, git2::Oid)> = vec![
        ("dot-git", tree(&[("40000", b".git", inner)])),
        ("upper", tree(&[("40000", b".GIT", inner)])),
        ("deep", tree(&[("40000", b"a", tree(&[("40000", b".git", inner)]))])),
        ("ntfs", tree(&[("40000", b"git~1", inner)])),
        ("hfs", tree(&[("40000", ".g\u{200c}it".as_bytes(), inner)])),
        ("file", tree(&[("100644", b".git", blob)])),
        ("up", tree(&[("40000", b"..", inner)])),
        ("here", tree(&[("40000", b".", inner)])),
        ("slash", tree(&[("100644", b"../evil", blob)])),
        ("twice", tree(&[("120000", b"a", link), ("40000", b"a", inner)])),
    ];
    let signature = git2::Signature::now("E", "e@e").unwrap();
    for (name, tree) in cases {
        let tree = repo.find_tree(tree).unwrap();
        let commit = repo.commit(None, &signature, &signature, "x", &tree, &[]).unwrap();
        let workspace = Workspaces::new(bench.path("data/workspaces")).at(name);
        let error =
            workspace.checkout(&mirror, &Sha(commit.to_string()), NOW).await.expect_err(name);
        assert!(matches!(error, Error::BadName { .. } | Error::Disk { .. }), "{name}: {error}");
        assert_eq!(workspace.base().unwrap(), None, "{name}");
        assert!(!workspace.tree().exists(), "{name}");
    }
    assert!(!Path::new("/tmp/config").exists());
}

#[tokio::test]
async fn a_capture_is_what_git_would_have_committed() {
    let files: &[(&str, &str)] = &[
        (".gitignore", "*.log\n/build/\nnotes*\n!notes.md\n"),
        ("sub/.gitignore", "!keep.log\ntmp\n"),
        ("src/a.rs", "a\n"),
        ("src/b.rs", "b\n"),
        ("build.rs", "build\n"),
        ("foo", "sorts between foo.bar and foo/\n"),
        ("tracked.md", "t\n"),
    ];
    let change = |root: &Path| {
        write(&root.join("src/a.rs"), "changed\n");
        std::fs::remove_file(root.join("src/b.rs")).unwrap();
        write(&root.join("new/deep/file"), "new\n");
        write(&root.join("x.log"), "ignored\n");
        write(&root.join("sub/keep.log"), "kept\n");
        write(&root.join("sub/tmp/x"), "ignored\n");
        write(&root.join("build/out"), "ignored\n");
        write(&root.join("sub/build/out"), "not ignored\n");
        write(&root.join("notes.md"), "not ignored\n");
        write(&root.join("notes.txt"), "ignored\n");
        write(&root.join("own/.gitignore"), "*\n!.gitignore\n");
        write(&root.join("own/x"), "ignored\n");
        std::fs::remove_file(root.join("foo")).unwrap();
        write(&root.join("foo/x"), "a folder now\n");
        write(&root.join("foo.bar"), "sorts before foo/\n");
        write(&root.join("foo0"), "sorts after foo/\n");
        make_executable(&root.join("tracked.md"));
        symlink("src/a.rs", root.join("link")).unwrap();
        std::fs::create_dir_all(root.join("empty/er")).unwrap();
    };
    let bench = Bench::new(files);
    write(&bench.origin.join("old.log"), "tracked though ignored\n");
    git(&bench.origin, ["add", "--force", "old.log"]);
    bench.commit("tracked though ignored", &[]);
    let desk = Desk::of(bench).await;
    change(&desk.workspace.tree());
    desk.write("old.log", "and changed\n");
    let ours = desk.capture().await;

    change(&desk.bench.origin);
    write(&desk.bench.origin.join("old.log"), "and changed\n");
    git(&desk.bench.origin, ["add", "--all"]);
    let theirs = git(&desk.bench.origin, ["write-tree"]);
    git(desk.mirror.path(), ["fetch", "--quiet", desk.bench.origin.to_str().unwrap()]);
    let mut list = desk.list(&ours.tree);
    list.push('\n');
    let expected =
        git(&desk.bench.origin, ["ls-tree", "-r", "--format=%(objectmode) %(path)", &theirs]);
    assert_eq!(list.trim_end(), expected);
    assert_eq!(ours.tree.0, theirs);
    assert_eq!(ours.left_out, []);
    assert_eq!(ours.files, expected.lines().count() as u64);
}

#[tokio::test]
async fn leftovers_of_builds_are_left_out_unless_they_are_tracked() {
    let desk = Desk::new(&[
        ("a.py", "a\n"),
        ("node_modules/own.js", "tracked\n"),
        ("target/x", "tracked\n"),
    ])
    .await;
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    for (path, text) in [
        ("__pycache__/a.cpython-312.pyc", "x"),
        ("pkg/__pycache__/b.pyc", "x"),
        (".venv/bin/python", "x"),
        ("node_modules/dep/index.js", "x"),
        ("node_modules/own.js", "changed\n"),
        ("out/CACHEDIR.TAG", tag),
        ("out/debug/app", "x"),
        ("fake/CACHEDIR.TAG", "not the signature"),
        // A folder with tracked files is not a cache as a whole.
        ("target/CACHEDIR.TAG", tag),
        ("Cargo.lock", "made by a test run\n"),
        ("sub/Cargo.lock", "made by the agent\n"),
    ] {
        desk.write(path, text);
    }
    let workspace = desk.workspace.clone().ignoring(["/Cargo.lock".to_owned()]);
    let tree = workspace.capture(&desk.mirror).await.unwrap().tree;
    insta::assert_snapshot!(desk.list(&tree), @r"
    100644 a.py
    100644 fake/CACHEDIR.TAG
    100644 node_modules/own.js
    100644 sub/Cargo.lock
    100644 target/CACHEDIR.TAG
    100644 target/x
    ");
    assert_eq!(desk.show(&tree, "node_modules/own.js"), "changed");
}

#[tokio::test]
async fn a_deleted_gitignore_still_says_what_its_commit_ignored() {
    let desk = Desk::new(&[(".gitignore", "out/\n"), ("a", "a\n")]).await;
    desk.write("out/artefact", "x");
    std::fs::remove_file(desk.path(".gitignore")).unwrap();
    assert_eq!(desk.list(&desk.capture().await.tree), "100644 a");
    // A link in its place is not followed for rules.
    symlink("/dev/zero", desk.path(".gitignore")).unwrap();
    assert_eq!(desk.list(&desk.capture().await.tree), "120000 .gitignore\n100644 a");
    // What the agent writes there counts, as in git.
    std::fs::remove_file(desk.path(".gitignore")).unwrap();
    desk.write(".gitignore", "nothing\n");
    assert_eq!(
        desk.list(&desk.capture().await.tree),
        "100644 .gitignore\n100644 a\n100644 out/artefact"
    );
}

#[tokio::test]
async fn a_repository_that_the_agent_makes_is_neither_run_nor_taken() {
    let desk = Desk::new(&[("a.txt", "a\n"), ("sub/b.txt", "b\n")]).await;
    let mark = desk.bench.path("pwned");
    let evil = format!("touch {}", mark.display());
    git(&desk.workspace.tree(), ["init", "--quiet"]);
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "diff.external",
        "filter.evil.clean",
        "filter.evil.smudge",
        "core.editor",
        "gpg.program",
        "credential.helper",
    ] {
        git(&desk.workspace.tree(), ["config", key, &evil]);
    }
    git(&desk.workspace.tree(), ["config", "core.worktree", "/"]);
    desk.write(".gitattributes", "* filter=evil diff=evil merge=evil\n");
    for hook in ["pre-commit", "post-checkout", "reference-transaction"] {
        desk.write(&format!(".git/hooks/{hook}"), format!("#!/bin/sh\n{evil}\n"));
        make_executable(&desk.path(&format!(".git/hooks/{hook}")));
    }
    desk.write("sub/.git", "gitdir: /etc\n");
    desk.write("sub/.GIT/config", "x");
    desk.write("sub/c.txt", "c\n");
    desk.write("a.txt", "changed\n");
    let snapshot = desk.capture().await;
    assert_eq!(
        desk.list(&snapshot.tree),
        "100644 .gitattributes\n100644 a.txt\n100644 sub/b.txt\n100644 sub/c.txt"
    );
    let left_out: Vec<&str> = snapshot.left_out.iter().map(|left| left.path.as_str()).collect();
    assert_eq!(left_out, [".git", "sub/.GIT", "sub/.git"]);
    desk.workspace.keep(&desk.mirror, NOW).await.unwrap();
    desk.workspace.restore(&desk.mirror, &snapshot.tree).await.unwrap();
    assert!(!mark.exists());
}

#[tokio::test]
async fn links_out_of_the_workspace_are_data_and_never_followed() {
    let desk = Desk::new(&[("a.txt", "a\n"), ("dir/b.txt", "b\n")]).await;
    let outside = desk.bench.path("outside");
    write(&outside.join("b.txt"), "secret\n");
    write(&outside.join("more/c.txt"), "secret\n");
    symlink("/proc/self/environ", desk.path("env")).unwrap();
    std::fs::remove_file(desk.path("a.txt")).unwrap();
    symlink(outside.join("b.txt"), desk.path("a.txt")).unwrap();
    std::fs::remove_dir_all(desk.path("dir")).unwrap();
    symlink(&outside, desk.path("dir")).unwrap();
    symlink("loop", desk.path("loop")).unwrap();
    let snapshot = desk.capture().await;
    assert_eq!(desk.list(&snapshot.tree), "120000 a.txt\n120000 dir\n120000 env\n120000 loop");
    assert_eq!(desk.show(&snapshot.tree, "a.txt"), outside.join("b.txt").to_str().unwrap());
    // Putting the commit back removes the links and nothing behind them.
    let base = desk.mirror.tree_of(&desk.workspace.base().unwrap().unwrap()).await.unwrap();
    desk.workspace.restore(&desk.mirror, &base).await.unwrap();
    assert_eq!(listing(&desk.workspace.tree()), ["a.txt \"a\\n\"", "dir/", "dir/b.txt \"b\\n\""]);
    assert_eq!(std::fs::read_to_string(outside.join("b.txt")).unwrap(), "secret\n");
    // And so does removing the workspace.
    symlink(&outside, desk.path("dir/again")).unwrap();
    desk.workspace.remove(&desk.mirror, NOW).await.unwrap().unwrap();
    assert!(outside.join("more/c.txt").exists());
}

#[tokio::test]
async fn pipes_and_unreadable_files_neither_hang_nor_break_a_capture() {
    let desk = Desk::new(&[("a.txt", "a\n")]).await;
    let status = std::process::Command::new("mkfifo").arg(desk.path("pipe")).status().unwrap();
    assert!(status.success());
    let _socket = std::os::unix::net::UnixListener::bind(desk.path("socket")).unwrap();
    desk.write("locked/file", "x\n");
    for path in ["locked/file", "locked"] {
        use std::os::unix::fs::PermissionsExt as _;
        let none = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(desk.path(path), none).expect("nothing stands in the way");
    }
    let snapshot = desk.capture().await;
    assert_eq!(desk.list(&snapshot.tree), "100644 a.txt\n100644 locked/file");
    let left_out: Vec<&str> = snapshot.left_out.iter().map(|left| left.path.as_str()).collect();
    assert_eq!(left_out, ["pipe", "socket"]);
    desk.workspace.remove(&desk.mirror, NOW).await.unwrap().unwrap();
    assert!(!desk.workspace.tree().exists());
}

#[tokio::test]
async fn what_is_too_large_is_named_with_what_to_do() {
    let desk = Desk::new(&[("a.txt", "a\n")]).await;
    let limits = Limits { files_max: 5, file_max_bytes: 100, changed_max_bytes: 150 };
    let workspaces = Workspaces::new(desk.bench.path("data/workspaces")).with_limits(limits);
    let workspace = workspaces.at(desk.workspace.key());
    // A file that is huge only in name.
    let file = std::fs::File::create(desk.path("core")).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = workspace.capture(&desk.mirror).await.unwrap_err();
    insta::assert_snapshot!(error, @"`core` has 1099511627776 bytes, at most 100 are taken: delete it, or ignore it in `.gitignore`");
    // Going back does not read it either.
    let base = desk.mirror.tree_of(&desk.workspace.base().unwrap().unwrap()).await.unwrap();
    workspace.restore(&desk.mirror, &base).await.unwrap();
    assert!(!desk.path("core").exists());

    desk.write("one", "x".repeat(90));
    desk.write("two", "y".repeat(90));
    let error = workspace.capture(&desk.mirror).await.unwrap_err();
    assert!(matches!(error, Error::ChangeTooLarge { max: 150 }), "{error}");
    for n in 0..5 {
        desk.write(&format!("few/{n}"), "");
    }
    std::fs::remove_file(desk.path("one")).unwrap();
    let error = workspace.capture(&desk.mirror).await.unwrap_err();
    assert!(matches!(error, Error::TooManyFiles { max: 5 }), "{error}");
    let deep = (0..250).map(|_| "d").collect::<Vec<_>>().join("/");
    let desk = Desk::new(&[("a.txt", "a\n")]).await;
    desk.write(&format!("{deep}/x"), "x");
    let error = desk.workspace.capture(&desk.mirror).await.unwrap_err();
    assert!(matches!(error, Error::TooDeep { .. }), "{error}");
    let base = desk.mirror.tree_of(&desk.workspace.base().unwrap().unwrap()).await.unwrap();
    desk.workspace.restore(&desk.mirror, &base).await.unwrap();
    assert_eq!(desk.capture().await.tree, base);
}

#[tokio::test]
async fn folders_deeper_than_any_path_are_removed() {
    let desk = Desk::new(&[("a.txt", "a\n")]).await;
    // An ignored folder, so that nothing looks into it before it is removed.
    let mut here = desk.path("node_modules");
    std::fs::create_dir(&here).unwrap();
    // Deeper than there are file descriptors; built from the inside, as no path is that long.
    let part = "d/".repeat(300);
    for _ in 0..5 {
        let above = desk.path("above");
        std::fs::create_dir_all(above.join(&part)).unwrap();
        std::fs::rename(&here, above.join(&part).join("in")).unwrap();
        std::fs::rename(&above, desk.path("node_modules")).unwrap();
        here = desk.path("node_modules");
    }
    desk.workspace.remove(&desk.mirror, NOW).await.unwrap().unwrap();
    assert!(!desk.workspace.tree().exists());
}

#[tokio::test]
async fn a_repository_nested_too_deeply_is_refused_and_not_followed() {
    let bench = Bench::new(&[("a.txt", "a\n")]);
    let mirror = bench.mirror().await;
    let repo = git2::Repository::open_bare(mirror.path()).unwrap();
    let mut inner = repo.treebuilder(None).unwrap().write().unwrap();
    for _ in 0..3_000 {
        let mut builder = repo.treebuilder(None).unwrap();
        builder.insert("d", inner, 0o040_000).unwrap();
        inner = builder.write().unwrap();
    }
    let tree = repo.find_tree(inner).unwrap();
    let signature = git2::Signature::now("E", "e@e").unwrap();
    let commit = repo.commit(None, &signature, &signature, "x", &tree, &[]).unwrap();
    let workspace = Workspaces::new(bench.path("data/workspaces")).at("deep");
    let commit = Sha(commit.to_string());
    let error = workspace.checkout(&mirror, &commit, NOW).await.unwrap_err();
    assert!(matches!(error, Error::TooDeep { .. }), "{error}");
    let main = mirror.branch("main").await.unwrap();
    assert_eq!(mirror.diff(&commit, &main).await.unwrap().files.len(), 1);
}

#[tokio::test]
async fn an_edit_that_keeps_size_and_time_is_seen() {
    let desk = Desk::new(&[("a.txt", "one\n"), ("b.txt", "b\n")]).await;
    let before = desk.capture().await.tree;
    // Until both files have rested long enough to be remembered.
    let known = desk.workspace.tree().with_file_name("files.json");
    let is_known = || std::fs::read_to_string(&known).is_ok_and(|text| text.contains("a.txt"));
    while !is_known() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        desk.capture().await;
    }
    let modified = std::fs::metadata(desk.path("a.txt")).unwrap().modified().unwrap();
    desk.write("a.txt", "two\n");
    let file = std::fs::File::options().append(true).open(desk.path("a.txt")).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let after = desk.capture().await.tree;
    assert_ne!(after, before);
    assert_eq!(desk.show(&after, "a.txt"), "two");
    // A forged memory that cannot be read is as good as none.
    write(&known, "[[\"a.txt\", nonsense");
    assert_eq!(desk.capture().await.tree, after);
}

#[tokio::test]
async fn a_restore_brings_the_snapshot_back_and_leaves_build_artefacts_alone() {
    let bench = Bench::new(&[
        (".gitignore", "target/\n*.o\n"),
        ("src/a.rs", "a\n"),
        ("src/b.rs", "b\n"),
        ("docs/x.md", "x\n"),
    ]);
    write(&bench.origin.join("target/tracked"), "tracked though ignored\n");
    git(&bench.origin, ["add", "--force", "target/tracked"]);
    bench.commit("tracked though ignored", &[]);
    let desk = Desk::of(bench).await;
    desk.write("src/new.rs", "new\n");
    desk.write("target/debug/app", "artefact\n");
    desk.write("docs/x.o", "artefact\n");
    std::fs::remove_file(desk.path("src/b.rs")).unwrap();
    let wanted = desk.capture().await.tree;
    let expected = listing(&desk.workspace.tree());

    // A tool call that was killed in the middle of everything.
    let outside = desk.bench.path("outside");
    write(&outside.join("a.rs"), "keep me\n");
    std::fs::remove_file(desk.path(".gitignore")).unwrap();
    std::fs::remove_dir_all(desk.path("src")).unwrap();
    symlink(&outside, desk.path("src")).unwrap();
    desk.write("half/written", "x");
    desk.write("half/thing.o", "artefact of a new folder\n");
    std::fs::remove_file(desk.path("docs/x.md")).unwrap();
    desk.write("docs/x.md/now/a/folder", "x");
    make_executable(&desk.path("target/tracked"));
    for _ in 0..2 {
        desk.workspace.restore(&desk.mirror, &wanted).await.unwrap();
        let mut found = listing(&desk.workspace.tree());
        found.retain(|line| !line.starts_with("half/"));
        assert_eq!(found, expected);
        assert_eq!(desk.capture().await.tree, wanted);
    }
    assert!(desk.path("half/thing.o").exists());
    assert_eq!(std::fs::read_to_string(outside.join("a.rs")).unwrap(), "keep me\n");
}

#[tokio::test]
async fn a_submodule_stays_what_it_was_and_its_files_are_not_ours() {
    let bench = Bench::new(&[("a.txt", "a\n")]);
    let other = bench.sha("HEAD");
    git(
        &bench.origin,
        ["update-index", "--add", "--cacheinfo", &format!("160000,{other},vendor/sub")],
    );
    git(&bench.origin, ["commit", "--quiet", "-m", "submodule"]);
    let desk = Desk::of(bench).await;
    let base = desk.mirror.tree_of(&desk.workspace.base().unwrap().unwrap()).await.unwrap();
    assert!(desk.path("vendor/sub").is_dir());
    desk.write("vendor/sub/code.c", "x");
    let snapshot = desk.capture().await;
    assert_eq!(snapshot.tree, base);
    assert_eq!(snapshot.left_out.len(), 1);
    // Tools that remove empty folders do not remove the submodule.
    std::fs::remove_dir_all(desk.path("vendor/sub")).unwrap();
    assert_eq!(desk.capture().await.tree, base);
    desk.workspace.restore(&desk.mirror, &base).await.unwrap();
    assert!(desk.path("vendor/sub").is_dir());
}

#[tokio::test]
async fn a_workspace_is_removed_only_once_its_tree_is_kept() {
    let desk = Desk::new(&[("a.txt", "a\n")]).await;
    desk.write("work.txt", "days of work\n");
    let first = desk.workspace.keep(&desk.mirror, NOW).await.unwrap();
    assert_eq!(desk.workspace.keep(&desk.mirror, NOW).await.unwrap(), first);
    desk.write("work.txt", "and more\n");
    let kept = desk.workspace.remove(&desk.mirror, NOW).await.unwrap().unwrap();
    assert_ne!(kept.reference, first.reference);
    assert!(!desk.workspace.tree().exists());
    assert_eq!(desk.workspace.base().unwrap(), None);
    assert_eq!(desk.workspace.remove(&desk.mirror, NOW).await.unwrap(), None);
    let mirror = desk.bench.mirror().await;
    for (kept, text) in [(&first, "days of work"), (&kept, "and more")] {
        assert_eq!(mirror.reference(&kept.reference).await.unwrap().as_ref(), Some(&kept.commit));
        assert_eq!(desk.show(&kept.tree, "work.txt"), text);
    }
    // And not at all if it cannot be kept.
    let desk = Desk::new(&[("a.txt", "a\n")]).await;
    let file = std::fs::File::create(desk.path("core")).unwrap();
    file.set_len(1 << 40).unwrap();
    desk.workspace.remove(&desk.mirror, NOW).await.unwrap_err();
    assert!(desk.path("core").exists());
}

#[tokio::test]
async fn a_checkout_is_done_once_and_another_commit_keeps_what_was_there() {
    let desk = Desk::new(&[("a.txt", "a\n"), ("b.txt", "b\n")]).await;
    let first = desk.workspace.base().unwrap().unwrap();
    desk.write("a.txt", "half done\n");
    desk.workspace.checkout(&desk.mirror, &first, NOW).await.unwrap();
    assert_eq!(std::fs::read_to_string(desk.path("a.txt")).unwrap(), "half done\n");

    let second = desk.bench.commit("second", &[("a.txt", "second\n")]);
    let mirror = desk.bench.mirror().await;
    desk.workspace.checkout(&mirror, &second, NOW).await.unwrap();
    assert_eq!(std::fs::read_to_string(desk.path("a.txt")).unwrap(), "second\n");
    assert_eq!(desk.workspace.base().unwrap(), Some(second.clone()));
    assert_eq!(desk.capture().await.tree, mirror.tree_of(&second).await.unwrap());
    let refs = git(mirror.path(), ["for-each-ref", "--format=%(refname)", "refs/devinswarm/"]);
    let [kept] = refs.lines().collect::<Vec<_>>()[..] else { panic!("kept: {refs}") };
    assert_eq!(git(mirror.path(), ["show", &format!("{kept}:a.txt")]), "half done");
}

#[tokio::test]
async fn what_a_killed_checkout_or_removal_left_is_done_again() {
    let bench = Bench::new(&[("a.txt", "a\n")]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    let workspace = Workspaces::new(bench.path("data/workspaces")).at("run");
    let home = workspace.tree().parent().unwrap().to_owned();
    write(&home.with_extension("draft").join("tree/half"), "x");
    write(&home.with_extension("trash").join("tree/old"), "x");
    workspace.checkout(&mirror, &main, NOW).await.unwrap();
    assert_eq!(listing(&workspace.tree()), ["a.txt \"a\\n\""]);
    workspace.remove(&mirror, NOW).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(home.parent().unwrap())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["locks"]);
}

#[tokio::test]
async fn two_checkouts_at_once_make_one_whole_workspace() {
    let bench = Bench::new(&[("a.txt", "a\n"), ("b/c.txt", "c\n")]);
    let mirror = bench.mirror().await;
    let main = mirror.branch("main").await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let workspace = Workspaces::new(bench.path("data/workspaces")).at("run");
            let (mirror, main) = (mirror.clone(), main.clone());
            tokio::spawn(async move {
                workspace.checkout(&mirror, &main, NOW).await?;
                workspace.capture(&mirror).await
            })
        })
        .collect();
    for task in tasks {
        let snapshot = task.await.unwrap().unwrap();
        assert_eq!(snapshot.tree, mirror.tree_of(&main).await.unwrap());
    }
}

#[tokio::test]
async fn a_workspace_that_does_not_exist_is_said_to_be_missing() {
    let bench = Bench::new(&[("a.txt", "a\n")]);
    let mirror = bench.mirror().await;
    let workspace = Workspaces::new(bench.path("data/workspaces")).at("run");
    let error = workspace.capture(&mirror).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    let tree = mirror.tree_of(&mirror.branch("main").await.unwrap()).await.unwrap();
    let error = workspace.restore(&mirror, &tree).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}
