//! The toolchains of this machine run inside: what nobody can build or test in is of no use.

use swarm_core::port::sandbox::{Exit, Finished};

use crate::on_both_levels;

fn succeeded(finished: &Finished) {
    assert_eq!(finished.exit, Exit::Code(0), "{}\n{}", finished.stdout.text, finished.stderr.text);
}

on_both_levels! {
    async fn cargo_tests_a_crate_offline(bench) {
        bench.write("Cargo.toml", "[package]\nname = \"small\"\nedition = \"2024\"\n[lib]\ndoctest = false\n");
        bench.write("src/lib.rs", "#[test] fn holds() { assert_eq!(1 + 1, 2); }\n");
        succeeded(&bench.run(&["cargo", "--version"]).await);
        let finished = bench.run(&["cargo", "test", "--offline"]).await;
        succeeded(&finished);
        assert!(finished.stdout.text.contains("test holds ... ok"), "{finished:?}");
        assert!(bench.workspace.join("target").is_dir());
    }

    async fn python_runs_unittest(bench) {
        bench.write("test_small.py", "import unittest, tempfile\nclass Small(unittest.TestCase):\n    def test_holds(self):\n        with tempfile.TemporaryFile() as f: f.write(b'x')\n");
        let finished = bench.run(&["python3", "-m", "unittest", "-v"]).await;
        succeeded(&finished);
        assert!(finished.stderr.text.contains("test_holds"), "{finished:?}");
    }

    async fn node_runs_its_tests(bench) {
        bench.write("small.test.js", "const test = require('node:test'); const fs = require('fs');\ntest('holds', () => { fs.mkdtempSync(require('os').tmpdir() + '/x'); });\n");
        let finished = bench.run(&["node", "--test"]).await;
        succeeded(&finished);
        assert!(finished.stdout.text.contains("pass 1"), "{finished:?}");
        succeeded(&bench.run(&["npm", "--version"]).await);
    }

    async fn git_keeps_a_history(bench) {
        succeeded(&bench.run(&["git", "--version"]).await);
        bench.write("file", "text");
        succeeded(&bench.sh("git init -q . && git add . && git -c user.name=a -c user.email=a@b commit -qm first && git log --oneline && git status --porcelain").await);
    }

    async fn a_c_compiler_builds_a_program_that_runs(bench) {
        bench.write("main.c", "#include <stdio.h>\nint main(void) { puts(\"built\"); return 0; }\n");
        let finished = bench.sh("cc -O1 -o main main.c && ./main").await;
        succeeded(&finished);
        assert_eq!(finished.stdout.text, "built\n");
    }

    async fn shells_pipe_and_substitute(bench) {
        let finished = bench.run(&["bash", "-c", "diff <(printf 'a\\nb\\n') <(printf 'a\\nb\\n') && cat <<< here | tr a-z A-Z"]).await;
        succeeded(&finished);
        assert_eq!(finished.stdout.text, "HERE\n");
    }

    async fn make_runs_in_parallel(bench) {
        bench.write("Makefile", "all: a b c\na b c:\n\t@sleep 0.01; echo $@ > $@\n");
        succeeded(&bench.run(&["make", "-j4"]).await);
        assert!(bench.workspace.join("c").exists());
    }
}
