//! Sandboxes: bubblewrap, else Landlock and seccomp, else a refusal.
