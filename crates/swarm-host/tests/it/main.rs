//! The host through its public interface and its command line.

mod bench;
mod cli;
mod config;
