//! What the crate does, through its public interface. One module per theme.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod archive;
mod cached;
mod corpus;
mod crash;
mod defects;
mod drawing;
mod durability;
mod engine;
mod error_pages;
mod expressions;
mod hostile;
mod information;
mod inline;
mod linking;
mod loading;
mod migrate;
mod pages;
mod patience;
mod pg;
mod race;
mod replay;
mod rig;
mod shop;
mod signals;
mod sim;
mod store;
mod store_history;
mod store_postgres;
mod store_sqlite;
mod store_upgrade;
mod stream;
mod turns;
