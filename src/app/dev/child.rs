//! Child processes that must not outlive us.

use std::{path::Path, process::Stdio};

use tokio::process::Command;

/// The user and group that Postgres runs as when we are root, which it refuses to be: `nobody`.
const NOBODY: u32 = 65_534;

/// Whether this process is root.
pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

/// `program` as an ordinary user, ended by the kernel when we die.
///
/// As root it becomes `nobody` and keeps the one capability to reach files below folders that are
/// closed to others, such as root's home.
pub(super) fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if is_root() {
        command
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
            .args(["--clear-groups", "--inh-caps=-all,+dac_override"])
            .args(["--ambient-caps=-all,+dac_override", "--bounding-set=-all,+dac_override"]);
    }
    command.arg("--").arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Ctrl-C is for us; we stop our children in order.
    command.process_group(0).kill_on_drop(true);
    command
}

/// Gives a folder to the user that [`unprivileged`] programs run as.
pub(super) fn give_away(folder: &Path) -> std::io::Result<()> {
    if is_root() {
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}
