//! Reads, a few at a time, each in a transaction of its own: what it sees is of one moment.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use swarm_core::port::store::{Error, Result};
use tokio::sync::Semaphore;

use super::schema::Place;
use super::tx::Tx;
use super::{Done, closed};

/// Connections that never write, opened when they are needed.
#[derive(Debug)]
pub(super) struct Readers {
    place: Place,
    /// A permit for each read that may be under way.
    places: Arc<Semaphore>,
    count: u32,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(place: Place, count: u32) -> Self {
        let places = Arc::new(Semaphore::new(count as usize));
        Self { place, places, count, idle: Arc::default() }
    }

    /// Runs `work` on a thread that may wait for the disk.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Done<T> + Send + 'static,
    {
        let permit = self.places.clone().acquire_owned().await.map_err(|_| closed())?;
        let (idle, place) = (self.idle.clone(), self.place.clone());
        let read = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().expect("nothing panics while it holds the list").pop();
            let connection = kept.map_or_else(|| place.connect_to_read(), Ok);
            let connection = connection.map_err(|error| Error::Backend(Box::new(error)))?;
            let done = in_transaction(&connection, work);
            if connection.is_autocommit() {
                idle.lock().expect("nothing panics while it holds the list").push(connection);
            }
            drop(permit);
            Ok(done?)
        });
        read.await.unwrap_or_else(|error| Err(Error::Backend(Box::new(error))))
    }

    /// Waits for the reads that are under way; later ones fail.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.places.acquire_many(self.count).await {
            self.places.close();
            drop(all);
        }
        self.idle.lock().expect("nothing panics while it holds the list").clear();
    }
}

fn in_transaction<T>(connection: &Connection, work: impl FnOnce(&Tx<'_>) -> Done<T>) -> Done<T> {
    let tx = Tx::new(connection);
    tx.execute("BEGIN", [])?;
    let done = work(&tx);
    tx.execute("ROLLBACK", [])?;
    done
}
