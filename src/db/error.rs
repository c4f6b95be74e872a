//! SQL trouble.

/// A database operation that failed. Our trouble, never a verdict on a payment.
///
/// After a failed commit the outcome is unknown; whoever cares rereads before acting.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct DbError {
    /// What was tried, in words.
    pub operation: &'static str,
    /// What the driver or the server said.
    #[source]
    pub source: sqlx::Error,
}

/// Names the operation that an SQL error interrupted.
pub trait During<T> {
    /// Wraps the error, if there is one.
    fn during(self, operation: &'static str) -> Result<T, DbError>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: &'static str) -> Result<T, DbError> {
        self.map_err(|source| DbError { operation, source })
    }
}
