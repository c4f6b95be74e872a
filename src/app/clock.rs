//! The wall clock.

use std::time::UNIX_EPOCH;

use crate::{domain::UnixTime, faults::shown_by_clock};

/// Now, in Unix seconds.
#[allow(clippy::disallowed_methods, reason = "this is where the clock lives")]
pub(super) fn now() -> UnixTime {
    let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since_epoch.expect("the clock is after 1970").as_secs();
    UnixTime::from_seconds(shown_by_clock(seconds))
}
