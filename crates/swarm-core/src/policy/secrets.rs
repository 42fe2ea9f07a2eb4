//! Secrets in a line: tokens by their known shapes, and passwords by name and randomness.
//!
//! Meant for accidents, not for someone who hides: an encoded secret is not found. What a
//! newcomer gets wrong: a finding never holds the secret, only its first characters.

use std::sync::LazyLock;

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// How sure a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certainty {
    /// A shape that only this kind of secret has.
    Shape,
    /// A random-looking value under a telling name.
    Guess,
}

/// A secret that was found, without the secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Secret {
    /// What kind, with its article: `a GitHub token`.
    pub what: &'static str,
    /// How sure.
    pub certainty: Certainty,
    /// Its first four characters and its length.
    pub redacted: String,
}

/// Kind and shape. The shape must be so particular that a hit is a secret or made to look like it.
const SHAPES: &[(&str, &str)] = &[
    ("a private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"),
    ("an age secret key", r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
    ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b"),
    ("a GitLab token", r"\bgl(?:pat|ptt|dt|rt|cbt|ft|soat)-[A-Za-z0-9_-]{20,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    ("an Anthropic key", r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{40,}"),
    ("an OpenAI key", r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}"),
    ("an OpenAI key", r"\bsk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}\b"),
    ("an OpenRouter key", r"\bsk-or-v1-[0-9a-f]{64}\b"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}\b"),
    ("a Google OAuth secret", r"\bGOCSPX-[A-Za-z0-9_-]{28}\b"),
    ("a Slack token", r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}"),
    ("a Slack app token", r"\bxapp-\d-[A-Z0-9]+-\d+-[a-f0-9]{32,}"),
    (
        "a Slack webhook",
        r"https://hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}",
    ),
    (
        "a Discord webhook",
        r"https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d{17,}/[\w-]{60,}",
    ),
    ("a Stripe key", r"\b[sr]k_live_[A-Za-z0-9]{20,}"),
    ("a Stripe webhook secret", r"\bwhsec_[A-Za-z0-9]{32,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a PyPI token", r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    ("a crates.io token", r"\bcio[A-Za-z0-9]{32}\b"),
    ("a Docker Hub token", r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{27,}"),
    ("a Hugging Face token", r"\bhf_[A-Za-z]{34}\b"),
    ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b"),
    ("a Twilio key", r"\bSK[0-9a-f]{32}\b"),
    ("a Telegram bot token", r"\b\d{8,10}:AA[A-Za-z0-9_-]{33}\b"),
    ("a DigitalOcean token", r"\bdo[opr]_v1_[a-f0-9]{64}\b"),
    ("a Shopify token", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b"),
    ("a Databricks token", r"\bdapi[a-f0-9]{32}\b"),
    ("a Vault token", r"\bhv[sbr]\.[A-Za-z0-9_-]{24,}"),
    ("a Terraform Cloud token", r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,}"),
    ("a Linear key", r"\blin_api_[A-Za-z0-9]{40}\b"),
    ("a Tailscale key", r"\btskey-[a-z]+-[A-Za-z0-9]+-[A-Za-z0-9]{20,}"),
    ("a Grafana token", r"\bglsa_[A-Za-z0-9]{32}_[a-f0-9]{8}\b"),
    ("an Azure storage key", r"\bAccountKey=[A-Za-z0-9+/]{86}=="),
    ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
];

// Without Unicode: its word boundaries would make the search many times slower.
static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSetBuilder::new(SHAPES.iter().map(|(_, shape)| shape))
        .unicode(false)
        .build()
        .expect("the shapes are tested")
});
static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let compile = |shape| RegexBuilder::new(shape).unicode(false).build();
    SHAPES.iter().map(|(_, shape)| compile(shape).expect("the shapes are tested")).collect()
});
/// A value under a telling name: quoted, or bare as in an `.env` file or YAML.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?ix)
        (?: passw(?:or)?d | passphrase | secret | token | api_?-?key | access_?-?key
          | private_?-?key | auth | credential )
        [a-z0-9_-]{0,20} ["']? \s* (?: = | : | => | := ) \s*
        (?: "(?<double>[^"\s]{16,200})" | '(?<single>[^'\s]{16,200})'
          | (?<bare>[a-z0-9+/_=.~-]{16,200}) \s* (?:$|[\#,;}]) )
        "#,
    )
    .expect("the pattern is tested")
});
/// A password in a URL.
static IN_URL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,64}:(?<password>[^\s:/@]{8,128})@[^\s/@]",
    )
    .expect("the pattern is tested")
});

/// The longest line in which a guess is worth its time; longer ones are minified or generated.
const GUESS_MAX_BYTES: usize = 2000;

/// Words of values that are made to be seen.
const PLACEHOLDERS: &[&str] = &[
    "example",
    "sample",
    "dummy",
    "placeholder",
    "changeme",
    "change-me",
    "change_me",
    "your",
    "xxxx",
    "****",
    "....",
    "<",
    "${",
    "{{",
    "redacted",
    "fake",
    "1234567890",
    "abcdef123456",
    "password",
    "notasecret",
    "insert",
    "todo",
];

/// The first secret in a line, if there is one.
#[must_use]
pub fn find(line: &str) -> Option<Secret> {
    by_shape(line).or_else(|| {
        let is_written_by_people = line.len() <= GUESS_MAX_BYTES;
        is_written_by_people.then(|| in_url(line).or_else(|| by_name(line))).flatten()
    })
}

fn by_shape(line: &str) -> Option<Secret> {
    SET.matches(line).into_iter().find_map(|index| {
        let text = EACH[index].find(line)?.as_str();
        let is_real = text.starts_with("-----") || !is_placeholder(text);
        is_real.then(|| Secret {
            what: SHAPES[index].0,
            certainty: Certainty::Shape,
            redacted: redact(text),
        })
    })
}

fn in_url(line: &str) -> Option<Secret> {
    let password = IN_URL.captures(line)?.name("password")?.as_str();
    let is_real = !is_placeholder(password)
        && !password.starts_with(['$', '%', '{'])
        && entropy_bits(password) >= 2.75;
    is_real.then(|| Secret {
        what: "a password in a URL",
        certainty: Certainty::Guess,
        redacted: redact(password),
    })
}

fn by_name(line: &str) -> Option<Secret> {
    NAMED.captures_iter(line).find_map(|found| {
        let value = found.name("double").or(found.name("single")).or(found.name("bare"))?.as_str();
        looks_random(value).then(|| Secret {
            what: "a password or key",
            certainty: Certainty::Guess,
            redacted: redact(value),
        })
    })
}

/// Letters and digits mixed without a pattern, as no word, path, name or version is.
fn looks_random(value: &str) -> bool {
    let has_digit = value.bytes().any(|byte| byte.is_ascii_digit());
    let has_letter = value.bytes().any(|byte| byte.is_ascii_alphabetic());
    let is_code = value.contains(['(', ')', '[', ']', '$', ' ', '\\'])
        || value.contains("::")
        || value.contains("->")
        || value.contains("://");
    let is_path = value.matches(['/', '.']).count() > 2 && value.len() < 60;
    let hex = value.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits_min = if hex { 3.0 } else { 3.6 };
    has_digit
        && has_letter
        && !is_code
        && !is_path
        && !is_placeholder(value)
        && !is_identifier(value)
        && entropy_bits(value) >= bits_min
}

/// Words joined by `_`, `-` or `.`, perhaps with a number: `secrets.GITHUB_TOKEN_V2`.
fn is_identifier(value: &str) -> bool {
    value.split(['_', '-', '.']).all(|part| {
        let word = part.trim_end_matches(|c: char| c.is_ascii_digit());
        part.len() - word.len() <= 3
            && word.len() <= 16
            && word.bytes().all(|byte| byte.is_ascii_alphabetic())
    })
}

fn is_placeholder(text: &str) -> bool {
    let lower = text.to_lowercase();
    PLACEHOLDERS.iter().any(|word| lower.contains(word))
        || lower.bytes().collect::<std::collections::BTreeSet<_>>().len() < 6
}

/// Shannon entropy per character, in bits.
fn entropy_bits(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let total = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / total;
            -share * share.log2()
        })
        .sum()
}

fn redact(secret: &str) -> String {
    let shown: String = secret.chars().take(4).collect();
    format!("{shown}… ({} characters)", secret.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put together at run time, so that no scanner takes this file for a leak.
    fn join(parts: &[&str]) -> String {
        parts.concat()
    }

    fn random(length: usize) -> String {
        "q7Zr2LmX9vB4kTy8WnP3cJd6HsF5gAe1".chars().cycle().take(length).collect()
    }

    fn hex(length: usize) -> String {
        "9f3b7c1e5a8d2046".chars().cycle().take(length).collect()
    }

    #[test]
    fn every_known_shape_is_found_in_the_middle_of_a_line() {
        let upper: String = "Q7ZR2LMX5VB4KTY6".to_owned();
        let cases: Vec<(&str, String)> = vec![
            ("a private key", join(&["-----BEGIN RSA ", "PRIVATE KEY-----"])),
            ("a private key", join(&["-----BEGIN OPENSSH ", "PRIVATE KEY-----"])),
            ("a private key", join(&["-----BEGIN PGP ", "PRIVATE KEY BLOCK-----"])),
            ("a GitHub token", join(&["gh", "s_", &random(36)])),
            ("a GitHub token", join(&["github_", "pat_", &random(22), "_", &random(59)])),
            ("a GitLab token", join(&["glp", "at-", &random(20)])),
            ("an AWS access key", join(&["AK", "IA", &upper])),
            ("an Anthropic key", join(&["sk-", "ant-api03-", &random(90)])),
            ("an OpenAI key", join(&["sk-", "proj-", &random(60)])),
            ("an OpenAI key", join(&["sk-", &random(20), "T3Blbk", "FJ", &random(20)])),
            ("a Google API key", join(&["AI", "za", &random(35)])),
            ("a Slack token", join(&["xo", "xb-", &random(24)])),
            ("a Stripe key", join(&["sk_", "live_", &random(24)])),
            ("an npm token", join(&["np", "m_", &random(36)])),
            ("a crates.io token", join(&["ci", "o", &random(32)])),
            ("a SendGrid key", join(&["S", "G.", &random(22), ".", &random(43)])),
            ("a DigitalOcean token", join(&["dop_", "v1_", &hex(64)])),
            (
                "a JSON web token",
                join(&["ey", "J", &random(20), ".ey", "J", &random(30), ".", &random(43)]),
            ),
        ];
        for (what, secret) in cases {
            let found = find(&format!("  key: '{secret}', // see wiki")).unwrap_or_else(|| {
                panic!("{what} was not found in a line with {secret}");
            });
            assert_eq!((found.what, found.certainty), (what, Certainty::Shape), "{secret}");
            assert!(!found.redacted.contains(&secret[4..12]), "{}", found.redacted);
        }
    }

    #[test]
    fn a_random_value_under_a_telling_name_is_a_guess() {
        for line in [
            format!("password = \"{}\"", random(20)),
            format!("DB_PASSWORD={}", random(24)),
            format!("  api_key: {}", hex(32)),
            format!("'client_secret' => '{}',", random(32)),
            format!("postgres://app:{}@db.internal/app", random(16)),
        ] {
            let found = find(&line).unwrap_or_else(|| panic!("nothing found in {line}"));
            assert_eq!(found.certainty, Certainty::Guess, "{line}");
        }
    }

    #[test]
    fn code_and_examples_that_only_look_like_secrets_are_let_through() {
        for line in [
            "AKIAIOSFODNN7EXAMPLE",
            "GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}",
            "token = os.environ[\"SERVICE_TOKEN_2\"]",
            "let token = tokens.next_token_after_2();",
            "const PASSWORD_FIELD = \"user_password_confirmation\"",
            "password: \"changeme-please-1234\"",
            "api_key = \"<your-api-key-goes-here-123>\"",
            "secret: \"xxxxxxxxxxxxxxxxxxxxxxxx\"",
            "auth_url = \"https://login.corp.net/oauth2/v2.0/token\"",
            "postgres://user:password@localhost/db",
            "postgres://user:${PASSWORD}@localhost/db",
            "tokenizer = AutoTokenizer.from_pretrained('bert-base-uncased-v2')",
            "checksum = \"9f3b7c1e5a8d20469f3b7c1e5a8d20469f3b7c1e5a8d20469f3b7c1e5a8d2046\"",
            "integrity: \"sha512-q7Zr2LmX9vB4kTy8WnP3cJd6HsF5gAe1q7Zr2LmX9vB4kTy8WnP3cJd6Hs==\"",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----",
            "token_endpoint = \"/api/v2/auth/token/refresh\"",
            "secrets.token_hex(nbytes=16)",
            "password_hasher = Argon2PasswordHasherV2",
        ] {
            assert_eq!(find(line), None, "{line}");
        }
    }

    #[test]
    fn a_long_line_is_searched_in_reasonable_time() {
        let line = "password=".repeat(100_000);
        assert_eq!(find(&line), None);
    }
}
