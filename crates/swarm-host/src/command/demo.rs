//! `demo`: an issue of a small repository becomes a merged change, without any account.

pub mod repository;
