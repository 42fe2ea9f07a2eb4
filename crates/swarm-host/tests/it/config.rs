//! Configuration: what is refused and how it is said, and what wins over what.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use swarm_host::config::{Environment, Error, Overrides, Role, Settings, load};
use tempfile::TempDir;

/// A directory with a `swarm.yaml`, as home and as current directory.
struct Home(TempDir);

impl Home {
    fn with(yaml: &str) -> Self {
        let home = Self(TempDir::new().expect("a temporary directory"));
        std::fs::write(home.path().join("swarm.yaml"), yaml).expect("it is writable");
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self, variables: &[(&str, &str)], overrides: &Overrides) -> Result<Settings, Error> {
        let home = self.path().to_str().expect("UTF-8");
        let variables = [&[("HOME", home)], variables].concat();
        load(&Environment::of(self.path(), variables), overrides)
    }

    /// The message of a refused file, with the directory cut off.
    fn refusal(&self) -> String {
        let error = self.load(&[], &Overrides::default()).expect_err("it is wrong");
        error.to_string().replace(&format!("{}/", self.path().display()), "")
    }
}

fn settings(yaml: &str, variables: &[(&str, &str)]) -> Settings {
    Home::with(yaml).load(variables, &Overrides::default()).expect("it is right")
}

#[test]
fn a_file_with_many_mistakes_is_refused_once_with_all_of_them() {
    let home = Home::with(
        "\
modles: {}
models:
  default: { provider: opneai, name: m, price: { input: -1 } }
  roles:
    dve: { name: x }
budget: { usd: lots }
sandbox:
  minimum: bubblwrap
worker:
  slots: 0
  lease: 10
  poll: 1x
  slots: 3
people: [me]
",
    );
    insta::assert_snapshot!(home.refusal(), @r#"
swarm.yaml has 12 defects

modles: unknown key `modles`
 --> swarm.yaml:1:1
  |
1 | modles: {}
  | ^^^^^^
  = help: perhaps `models`; known: budget, graphs, models, people, policy, prompts, repositories, retention, sandbox, store, worker

models.default.provider: unknown value `opneai`
 --> swarm.yaml:3:24
  |
3 |   default: { provider: opneai, name: m, price: { input: -1 } }
  |                        ^^^^^^
  = help: perhaps `openai`; known: anthropic, openai

models.default.price: `output` is missing
 --> swarm.yaml:3:48
  |
3 |   default: { provider: opneai, name: m, price: { input: -1 } }
  |                                                ^

models.default.price.input: -1 is too small, the least is 0
 --> swarm.yaml:3:57
  |
3 |   default: { provider: opneai, name: m, price: { input: -1 } }
  |                                                         ^^

models.roles.dve: unknown key `dve`
 --> swarm.yaml:5:5
  |
5 |     dve: { name: x }
  |     ^^^
  = help: perhaps `dev`; known: dev, manager, reviewer

budget.usd: "lots", where a number is wanted
 --> swarm.yaml:6:16
  |
6 | budget: { usd: lots }
  |                ^^^^

sandbox.minimum: unknown value `bubblwrap`
 --> swarm.yaml:8:12
  |
8 |   minimum: bubblwrap
  |            ^^^^^^^^^
  = help: perhaps `bubblewrap`; known: bubblewrap, landlock

worker.slots: 0 is too small, the least is 1
  --> swarm.yaml:10:10
   |
10 |   slots: 0
   |          ^

worker.lease: 10, where a length of time such as `30s` is wanted
  --> swarm.yaml:11:10
   |
11 |   lease: 10
   |          ^^

worker.poll: `1x` is no length of time; write `30s`, `5m` or `1h 30m`
  --> swarm.yaml:12:9
   |
12 |   poll: 1x
   |         ^^

worker.slots: written a second time, first on line 10
  --> swarm.yaml:13:3
   |
13 |   slots: 3
   |   ^^^^^

people: a list, where a map of keys and values is wanted
  --> swarm.yaml:14:9
   |
14 | people: [me]
   |         ^
"#);
}

#[test]
fn values_that_do_not_go_together_are_named_at_their_place() {
    let home = Home::with(
        "\
models:
  default: { provider: openai, key_env: A_KEY, key_file: ./key }
  roles:
    dev: { provider: anthropic }
graphs: ./nowhere
repositories:
  - path: /
  - path: /
policy: { change: { protected_paths: ['[x'] } }
worker: { lease: 1s }
people: { owner: 'a b' }
",
    );
    insta::assert_snapshot!(home.refusal(), @r"
swarm.yaml has 8 defects

models.default: `name` is missing: which of the provider's models?
 --> swarm.yaml:2:12
  |
2 |   default: { provider: openai, key_env: A_KEY, key_file: ./key }
  |            ^

models.default.key_file: beside `key_env`; keep one of the two
 --> swarm.yaml:2:58
  |
2 |   default: { provider: openai, key_env: A_KEY, key_file: ./key }
  |                                                          ^^^^^

models.roles.dev: `name` is missing: which of the provider's models?
 --> swarm.yaml:4:10
  |
4 |     dev: { provider: anthropic }
  |          ^

graphs: there is no directory ./nowhere
 --> swarm.yaml:5:9
  |
5 | graphs: ./nowhere
  |         ^^^^^^^^^

repositories.1.path: named a second time
 --> swarm.yaml:8:11
  |
8 |   - path: /
  |           ^

policy.change: `[x` is not a path pattern: unclosed character class; missing ']'
 --> swarm.yaml:9:39
  |
9 | policy: { change: { protected_paths: ['[x'] } }
  |                                       ^^^^

worker.lease: too short to be renewed in time, the least is 3s
  --> swarm.yaml:10:18
   |
10 | worker: { lease: 1s }
   |                  ^^

people.owner: no login; write letters, digits, `-`, `_` or `.`, at most 39
  --> swarm.yaml:11:18
   |
11 | people: { owner: 'a b' }
   |                  ^^^^^
");
}

#[test]
fn a_text_that_is_no_yaml_says_where_it_stops_being_one() {
    insta::assert_snapshot!(Home::with("worker: [1\nbudget: 2\n").refusal(), @r"
swarm.yaml has 1 defect

illegal placement of ':' indicator
 --> swarm.yaml:2:7
  |
2 | budget: 2
  |       ^
");
}

#[test]
fn a_key_in_the_place_of_its_name_is_refused_without_being_repeated() {
    let home = Home::with("models: { default: { key_env: sk-verysecret } }\n");
    let error = home.load(&[], &Overrides::default()).unwrap_err();
    assert!(!error.to_string().contains("verysecret"), "{error}");
}

#[test]
fn without_a_file_everything_has_a_value_and_says_that_it_is_built_in() {
    let home = TempDir::new().unwrap();
    let environment = Environment::of(home.path(), [("HOME", "/home/me"), ("USER", "me")]);
    let settings = load(&environment, &Overrides::default()).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("/home/me/.local/state/devinswarm"));
    assert_eq!(settings.owner(), "me");
    assert!(settings.model(Role::Dev).is_none());
    let slots = settings.show().into_iter().find(|shown| shown.key == "worker.slots").unwrap();
    assert_eq!((slots.value.as_str(), slots.source.as_str()), ("4", "built in"));
}

#[test]
fn the_environment_wins_over_the_file_and_flags_over_both() {
    let home = Home::with(
        "worker: { slots: 2 }\nmodels: { default: { provider: openai, name: in-file, base_url: http://file/v1 } }\n",
    );
    let variables = [
        ("SWARM_DATA_DIR", "/from/env"),
        ("SWARM_MODEL", "openai:from-env"),
        ("OPENAI_BASE_URL", "http://env/v1"),
        ("OPENAI_API_KEY", "k"),
    ];
    let settings = home.load(&variables, &Overrides::default()).unwrap();
    let model = settings.model(Role::Manager).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("/from/env"));
    assert_eq!(model.id(), "openai:from-env");
    assert_eq!(model.base_url.unwrap().as_str(), "http://env/v1");

    let overrides = Overrides {
        model: Some("anthropic:from:flag".to_owned()),
        data_dir: Some("rel".into()),
        slots: Some(7),
        ..Overrides::default()
    };
    let settings = home.load(&variables, &overrides).unwrap();
    let model = settings.model(Role::Reviewer).unwrap();
    assert_eq!(settings.data_dir, home.path().join("rel"));
    assert_eq!(model.id(), "anthropic:from:flag");
    assert_eq!(model.base_url, None, "an address of another provider is not kept");
    assert_eq!(settings.values.worker.slots, 7);
}

#[test]
fn a_role_takes_from_the_default_what_it_leaves_out_of_the_same_provider() {
    let settings = settings(
        "\
models:
  default:
    { provider: openai, name: big, base_url: http://a/v1, price: { input: 1, output: 2 } }
  roles:
    dev: { name: small }
    reviewer: { provider: anthropic, name: other }
",
        &[("OPENAI_API_KEY", "o"), ("ANTHROPIC_API_KEY", "a")],
    );
    let dev = settings.model(Role::Dev).unwrap();
    assert_eq!(dev.id(), "openai:small");
    assert_eq!(dev.base_url.unwrap().as_str(), "http://a/v1");
    assert_eq!(dev.price, None, "another model has another price");
    let reviewer = settings.model(Role::Reviewer).unwrap();
    assert_eq!(reviewer.base_url, None);
    assert_eq!(reviewer.key.unwrap().expose_secret(), "a");
    let manager = settings.model(Role::Manager).unwrap();
    assert_eq!(manager.price.map(|price| price.output), Some(2.0));
}

#[test]
fn the_conventional_key_is_never_sent_to_a_server_with_a_key_of_its_own() {
    let settings = settings(
        "models: { default: { provider: openai, name: m, base_url: http://other/v1, key_env: OTHER_KEY } }\n",
        &[("OPENAI_API_KEY", "secret"), ("OPENAI_BASE_URL", "http://env/v1")],
    );
    let model = settings.model(Role::Dev).unwrap();
    assert!(model.key.is_none());
    assert_eq!(model.key_from, "variable OTHER_KEY");
    assert_eq!(model.base_url.unwrap().as_str(), "http://other/v1");
}

#[test]
fn a_key_is_read_from_its_file_and_shown_nowhere() {
    let home = Home::with("models: { default: { provider: openai, name: m, key_file: ./key } }\n");
    std::fs::write(home.path().join("key"), "sk-verysecret\n").unwrap();
    let settings = home.load(&[], &Overrides::default()).unwrap();
    assert_eq!(settings.model(Role::Dev).unwrap().key.unwrap().expose_secret(), "sk-verysecret");
    assert!(!format!("{settings:?} {:?}", settings.model(Role::Dev)).contains("verysecret"));
    assert!(!format!("{:?}", settings.show()).contains("verysecret"));
}

#[test]
fn each_shown_value_says_which_line_set_it() {
    let home = Home::with("# mine\nworker:\n  slots: 2\n");
    let settings = home.load(&[], &Overrides::default()).unwrap();
    let slots = settings.show().into_iter().find(|shown| shown.key == "worker.slots").unwrap();
    assert_eq!(slots.source, format!("{}:3", home.path().join("swarm.yaml").display()));
}

#[test]
fn a_file_inside_the_repository_that_is_worked_on_is_not_read_unless_named() {
    let home = Home::with("worker: { slots: 2 }\n");
    let mut overrides = Overrides { repo: Some(home.path().to_owned()), ..Overrides::default() };
    let settings = home.load(&[], &overrides).unwrap();
    assert_eq!(settings.file, None);
    assert!(settings.passed_over.unwrap().contains("--config"));
    overrides.config = Some("swarm.yaml".into());
    assert_eq!(home.load(&[], &overrides).unwrap().values.worker.slots, 2);
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_that_says_who_named_it() {
    let overrides = Overrides { config: Some("other.yaml".into()), ..Overrides::default() };
    let error = Home::with("").load(&[], &overrides).unwrap_err();
    assert!(error.to_string().ends_with("other.yaml, named by --config"), "{error}");
}

#[test]
fn a_model_without_a_provider_says_how_to_write_it() {
    let overrides = Overrides { model: Some("antropic:x".into()), ..Overrides::default() };
    let error = Home::with("").load(&[], &overrides).unwrap_err();
    insta::assert_snapshot!(error, @"--model: no provider named `antropic`, perhaps `anthropic`; known: anthropic, openai (any server that speaks OpenAI's format, by OPENAI_BASE_URL or models.default.base_url)");
}

/// The root of the repository, where the example and the schema are shipped.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is there")
}

#[test]
fn the_shipped_example_is_right_and_holds_every_section() {
    let overrides =
        Overrides { config: Some(root().join("swarm.example.yaml")), ..Overrides::default() };
    let home = TempDir::new().unwrap();
    let home = home.path().to_str().unwrap();
    let settings = load(&Environment::of(home, [("HOME", home)]), &overrides).unwrap();
    let text = std::fs::read_to_string(root().join("swarm.example.yaml")).unwrap();
    for section in swarm_host::config::schema()["properties"].as_object().unwrap().keys() {
        assert!(text.contains(&format!("\n{section}:")), "`{section}` is not in the example");
    }
    assert_eq!(settings.model(Role::Manager).unwrap().id(), "openai:STRONGER");
    assert_eq!(settings.model(Role::Dev).unwrap().fallbacks.len(), 1);
}

#[test]
fn the_shipped_schema_is_the_one_that_files_are_checked_against() {
    let path = root().join("graphs/swarm.v1.schema.json");
    let schema = serde_json::to_string_pretty(&swarm_host::config::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap();
    assert!(shipped == schema, "run the tests with UPDATE_SCHEMAS=1 and commit {}", path.display());
}

#[test]
fn every_variable_of_the_example_environment_is_in_the_help_of_run() {
    let text = std::fs::read_to_string(root().join(".env.example")).unwrap();
    let variables = text
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'));
    let help = swarm_host::cli::RUN_HELP;
    let mut count = 0;
    for name in variables {
        assert!(help.contains(name), "{name}");
        count += 1;
    }
    assert_eq!(count, 9);
}
