//! Caps, gas budgets and floors: how much is taken of whom.
//!
//! `judge` decides, purely, from what `standing` read. A claim reads in its own database transaction;
//! `forecast` tells `/verify` what was so up to a second ago. `earlier` counts what a new cap has missed.

mod book;
mod cap;
mod earlier;
mod floor;
mod forecast;
mod gas;
mod judge;
mod standing;
mod store;

pub use book::CapBook;
pub use cap::{Cap, CapId, CapPeriod, CapTerms, InvalidCap, Measure, Setter, Subject};
pub use earlier::count_earlier;
pub use floor::{Floor, floors, remove_floor, set_floor};
pub use forecast::Forecast;
pub use gas::{gas_used, hold_gas};
pub use judge::{Ask, judge};

pub use standing::{Place, Standing, Visit, standing};
pub use store::{CapError, Usage, Viewer, cap, caps, key_merchant, remove_cap, set_cap, usage};
