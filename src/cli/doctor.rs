//! `quittance doctor`.

use std::process::ExitCode;

use clap::Args;

use crate::{app::doctor, config::Settings};

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    arguments: DoctorArguments,
    settings: &Settings,
) -> anyhow::Result<ExitCode> {
    let findings = doctor::examine(settings).await;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let mark = if finding.ok { "ok  " } else { "FAIL" };
            println!("{mark}  {}: {}", finding.subject, finding.detail);
        }
    }
    let is_well = findings.iter().all(|finding| finding.ok);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
