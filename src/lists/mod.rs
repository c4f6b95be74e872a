//! Who may not pay or be paid, in what, and by whose factories: the lists of the whole service and of
//! merchants, the sanctions file, and the record of what they forbade.
//!
//! Says what is denied, and by which list. Does not know what a caller is told of it.

#![cfg_attr(
    not(test),
    deny(
        clippy::as_conversions,
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::float_arithmetic
    )
)]

mod book;
mod copies;
mod denial;
mod entry;
mod refusals;
mod sanctions;
mod sanctions_file;
mod store;

pub use book::N_ENTRIES_MAX;
pub use copies::Lists;
pub use denial::{Denial, Denier, Parties};
pub use entry::{Entry, Filter, Kind, NewEntry, NotAnEntry, Owner, Verb};
pub use refusals::{RefusalFilter, RefusalRecord, Refusals, RefusedPayment, Stage, refusals};
pub use sanctions::{Sanctions, SanctionsError, SanctionsOptions};
pub use sanctions_file::{SanctionsFile, SanctionsFileError, SanctionsHeader, seal};
pub use store::{Changed, ListFull, add, denies, entries, find, remove};
