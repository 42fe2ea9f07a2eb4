//! The host through its public interface and its command line.

mod agent;
mod attacks;
mod bench;
mod cli;
mod cli_run;
mod config;
mod db;
mod demo;
mod explain;
mod golden;
mod graphs;
mod kills;
mod pages;
mod rig;
mod roles;
mod siege;
