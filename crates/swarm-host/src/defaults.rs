//! The graphs and prompts that are part of the program.
//!
//! Each pair is a path beneath `graphs/` or `prompts/` and the text. A directory that the
//! configuration names lies over them, file by file.

/// The shipped graphs.
pub const GRAPHS: &[(&str, &str)] = &[
    ("deliver.yaml", include_str!("../graphs/deliver.yaml")),
    ("dev.yaml", include_str!("../graphs/dev.yaml")),
    ("manager.yaml", include_str!("../graphs/manager.yaml")),
    ("ops.yaml", include_str!("../graphs/ops.yaml")),
    ("policies.yaml", include_str!("../graphs/policies.yaml")),
    ("reviewer.yaml", include_str!("../graphs/reviewer.yaml")),
];

/// The shipped prompts.
pub const PROMPTS: &[(&str, &str)] = &[
    ("dev/implement.md", include_str!("../prompts/dev/implement.md")),
    ("dev/rules.md", include_str!("../prompts/dev/rules.md")),
    ("manager/plan.md", include_str!("../prompts/manager/plan.md")),
    ("manager/rules.md", include_str!("../prompts/manager/rules.md")),
    ("reviewer/review.md", include_str!("../prompts/reviewer/review.md")),
    ("reviewer/rules.md", include_str!("../prompts/reviewer/rules.md")),
];
