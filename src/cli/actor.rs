//! Who is at the command line.

use crate::audit::Actor;

/// Where Linux tells its host's name; a shell elsewhere may have it in a variable.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The user and the host of this process, as far as they can be known.
pub(super) fn actor() -> Actor {
    let named = |variables: [&str; 2]| {
        variables.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
    };
    let host = std::fs::read_to_string(HOSTNAME).unwrap_or_else(|_| named(["HOSTNAME", "HOST"]));
    Actor::command(&named(["USER", "LOGNAME"]), host.trim())
}
