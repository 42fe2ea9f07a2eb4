//! Prompts: templates in files, rendered with strict, sandboxed minijinja.
