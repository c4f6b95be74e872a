//! `quittance serve`.

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::{self, Application},
    config::Settings,
};

pub(super) async fn run(settings: &Settings) -> anyhow::Result<()> {
    app::init_logs(&settings.log);
    Application::build(settings).await?.run_until(stop_signal()?).await
}

/// Resolves at SIGINT or SIGTERM.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
    })
}
