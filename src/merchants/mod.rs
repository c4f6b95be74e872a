//! Merchants and the keys by which they are known.

mod authenticate;
mod key;
mod store;

pub use authenticate::{Caller, Merchants, Principal};
pub use key::{ApiKey, KeyHash};
pub use store::{
    KeyOwner, MerchantNameTaken, NewKey, create_key, create_merchant, find_merchant, set_wait_for,
};
