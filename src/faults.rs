//! Faults that tests switch on: crashes at named points, and defects known from other engines.
//!
//! Without the feature `fault-injection`, which no release has, nothing of it is compiled.

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

    use super::Defect;

    /// `label:n` aborts the process when it comes to that label for the nth time.
    static CRASH_AT: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = env::var("QUITTANCE_CRASH_AT").ok()?;
        let (label, n) = text.split_once(':')?;
        Some((label.to_owned(), n.parse().ok()?))
    });
    static N_HITS: AtomicU64 = AtomicU64::new(0);
    static DEFECT: LazyLock<Option<String>> = LazyLock::new(|| env::var("QUITTANCE_DEFECT").ok());

    /// Aborts here, if a test said so.
    pub fn crash_point(label: &str) {
        let Some((at, n)) = &*CRASH_AT else { return };
        if at == label && N_HITS.fetch_add(1, Ordering::SeqCst) + 1 == *n {
            process::abort();
        }
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

    /// No.
    pub const fn has_defect(_defect: Defect) -> bool {
        false
    }
}

pub use switched::{crash_point, has_defect};
