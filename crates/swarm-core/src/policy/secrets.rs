//! Secrets in a line: tokens by their known shapes, and passwords by name and randomness.
//!
//! Meant for accidents, not for someone who hides: an encoded secret is not found. What a
//! newcomer gets wrong: a finding never holds the secret, only its first characters.

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

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

static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(SHAPES.iter().map(|(_, shape)| shape)).expect("the shapes are tested")
});
static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    SHAPES.iter().map(|(_, shape)| Regex::new(shape).expect("the shapes are tested")).collect()
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
    by_shape(line).or_else(|| in_url(line)).or_else(|| by_name(line))
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
