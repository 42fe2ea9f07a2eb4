//! What people see of runs while they go on.
//!
//! [`Board`] and [`Line`] are pure: events in, lines out. Text in events may come from an issue,
//! a repository or a model, so every line passes [`clean`] before it reaches a terminal.

mod board;
mod clean;
mod follow;
mod outcome;
mod screen;
mod words;

pub use board::{Board, Line, Tone};
pub use clean::{clean, clean_lines, clip};
pub use follow::{Follower, Rest};
pub use outcome::{Cost, Final, Outcome, final_of};
pub use screen::Screen;
pub use words::took;
