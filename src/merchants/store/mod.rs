//! The rows of merchants and keys.

mod claim;
mod key;
mod merchant;
mod payee;
mod principal;
mod rate;

pub use claim::{Standing, standing};
pub use merchant::find_merchant;

pub(super) use key::{
    count_valid_keys, end_key, find_key, hold_key, insert_key, keys_after, revoke_key, write_uses,
};
pub(super) use merchant::{
    hold_merchant, insert_merchant, merchant, merchants_after, rename_merchant, set_assets,
    set_status, set_wait_for,
};
pub(super) use payee::{
    count_newcomers, delete_payee, find_by_owner, hold_newcomers, insert_payee, payees, set_owner,
    use_message,
};
pub(super) use principal::{Known, find_principal};
pub(super) use rate::{rates, set_rates};

use crate::db::{DbError, During as _};

use rate::parse_rates;

/// A column that the schema does not let be what it is.
fn unreadable<T, E: std::error::Error + Send + Sync + 'static>(
    parsed: Result<T, E>,
    operation: &'static str,
) -> Result<T, DbError> {
    parsed.map_err(|error| sqlx::Error::Decode(error.into())).during(operation)
}
