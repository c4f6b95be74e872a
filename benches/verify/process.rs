//! What Linux tells of the processor time and memory of processes and threads.

use std::{collections::BTreeMap, time::Duration};

use crate::support::Service;

/// Linux counts in hundredths of a second on every machine this runs on.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of a process so far.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    TICK * (fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap())
}

/// A thread of this process, for others to ask about.
#[derive(Clone)]
pub struct Thread(String);

impl Thread {
    /// The calling one.
    pub fn current() -> Self {
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        Self(format!("/proc/{}/schedstat", link.display()))
    }

    /// User and system time so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(&self.0).unwrap();
        Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
    }
}

/// What all processors of the machine were busy so far.
pub fn cpu_of_machine() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    // Without the fourth and fifth, idle and waiting; those after the eighth are counted before.
    let busy: u64 = ticks[..3].iter().sum::<u64>() + ticks[5..8].iter().sum::<u64>();
    TICK * u32::try_from(busy).unwrap()
}

/// Resident memory now and at its highest, in MiB.
pub fn memory_of(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Calls of a service to its endpoints so far, by method.
pub async fn rpc_calls(service: &Service) -> BTreeMap<String, u64> {
    let text = service.operations("/metrics").await.body;
    let mut calls = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("quittance_rpc_calls_total{")) {
        let (labels, value) = line.rsplit_once(' ').unwrap();
        let method = labels.split("method=\"").nth(1).unwrap().split('"').next().unwrap();
        *calls.entry(method.to_owned()).or_default() += value.parse::<u64>().unwrap();
    }
    calls
}
