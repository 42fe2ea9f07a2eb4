//! What the crate does, through its public interface. One module per theme.

mod store;
mod store_history;
mod store_sqlite;
