//! Faults that tests switch on: crashes and panics at named points, a clock that is wrong, and defects
//! known from other engines.
//!
//! Without the feature `fault-injection`, which no release has, every answer here is a constant no, and
//! what hangs on it is never reached.

/// A defect that another engine has. The tests must notice each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// After a send that failed, the account nonce is used for another payment.
    ResetNonce,
    /// The same, only after a send that was not answered.
    RecycleNonce,
    /// A send that was not answered fails the payment.
    FailOnTimeout,
    /// Reorganizations are found by height alone.
    ReorgByHeight,
    /// A batch gets the gas that `eth_estimateGas` names.
    EstimateGas,
    /// A used authorization counts as paid.
    UsedIsPaid,
    /// Every caller with the same payment is told success.
    EveryoneIsTold,
}

#[cfg(feature = "fault-injection")]
mod switched {
    use std::{
        env, process,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use alloy::hex;

    use super::Defect;

    /// `label:n` aborts the process when it comes to that label for the nth time.
    static CRASH_AT: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = env::var("QUITTANCE_CRASH_AT").ok()?;
        let (label, n) = text.split_once(':')?;
        Some((label.to_owned(), n.parse().ok()?))
    });
    static N_HITS: AtomicU64 = AtomicU64::new(0);
    static DEFECT: LazyLock<Option<String>> = LazyLock::new(|| env::var("QUITTANCE_DEFECT").ok());
    /// The nonce of an authorization, in hex with 0x.
    static PANIC_ON: LazyLock<Option<String>> =
        LazyLock::new(|| env::var("QUITTANCE_PANIC_ON").ok());
    static CLOCK_OFFSET_SECONDS: LazyLock<i64> = LazyLock::new(|| {
        let text = env::var("QUITTANCE_CLOCK_OFFSET_SECONDS").ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    });

    /// Aborts here, if a test said so.
    pub fn crash_point(label: &str) {
        let Some((at, n)) = &*CRASH_AT else { return };
        if at == label && N_HITS.fetch_add(1, Ordering::SeqCst) + 1 == *n {
            process::abort();
        }
    }

    /// Panics here, if a test named this authorization.
    pub fn panic_point(authorization_nonce: &[u8; 32]) {
        if let Some(named) = &*PANIC_ON {
            assert!(*named != hex::encode_prefixed(authorization_nonce), "a test asked for this");
        }
    }

    /// What a wall clock shows that is as wrong as a test wants it.
    pub fn shown_by_clock(seconds: u64) -> u64 {
        seconds.saturating_add_signed(*CLOCK_OFFSET_SECONDS)
    }

    /// Whether a test switched that defect on.
    pub fn has_defect(defect: Defect) -> bool {
        DEFECT.as_ref().is_some_and(|name| *name == format!("{defect:?}"))
    }
}

#[cfg(not(feature = "fault-injection"))]
mod switched {
    use super::Defect;

    /// Nothing; a test's build aborts here when it is told to.
    pub const fn crash_point(_label: &str) {}

    /// Nothing; a test's build panics here when it is told to.
    pub const fn panic_point(_authorization_nonce: &[u8; 32]) {}

    /// The truth.
    pub const fn shown_by_clock(seconds: u64) -> u64 {
        seconds
    }

    /// No.
    pub const fn has_defect(_defect: Defect) -> bool {
        false
    }
}

pub use switched::{crash_point, has_defect, panic_point, shown_by_clock};
