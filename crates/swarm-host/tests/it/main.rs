//! The host through its public interface and its command line.

mod agent;
mod bench;
mod cli;
mod cli_run;
mod config;
mod demo;
mod graphs;
mod rig;
mod roles;
