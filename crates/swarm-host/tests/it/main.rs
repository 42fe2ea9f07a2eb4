//! The host through its public interface and its command line.

mod agent;
mod bench;
mod cli;
mod config;
mod graphs;
mod rig;
mod roles;
