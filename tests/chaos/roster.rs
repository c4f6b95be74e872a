//! Where the replicas are now, for clients; and since when, for what their callers hear.

use std::sync::Mutex;

/// A process, as a client finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) url: String,
    /// Counts the processes of one replica.
    pub(crate) incarnation: u64,
    pub(crate) is_up: bool,
}

#[derive(Debug)]
pub(crate) struct Roster(Mutex<Vec<Place>>);

impl Roster {
    pub(crate) fn new(urls: impl Iterator<Item = String>) -> Self {
        Self(Mutex::new(urls.map(|url| Place { url, incarnation: 1, is_up: true }).collect()))
    }

    pub(crate) fn place(&self, replica: usize) -> Place {
        self.0.lock().unwrap()[replica].clone()
    }

    /// Whether that process was killed, or is about to be.
    pub(crate) fn is_gone(&self, replica: usize, place: &Place) -> bool {
        !place.is_up || self.place(replica) != *place
    }

    /// Said before the process is killed, so that no loss of a connection comes first.
    pub(crate) fn goes_down(&self, replica: usize) {
        self.0.lock().unwrap()[replica].is_up = false;
    }

    pub(crate) fn is_up_at(&self, replica: usize, url: String) {
        let mut places = self.0.lock().unwrap();
        let incarnation = places[replica].incarnation + 1;
        places[replica] = Place { url, incarnation, is_up: true };
    }
}
