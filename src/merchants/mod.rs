//! Merchants and the keys by which they are known.

mod assets;
mod authenticate;
mod key;
mod store;

pub use assets::{Asset, Assets, AssetsError, N_ASSETS_MAX};
pub use authenticate::{Caller, Merchants, Principal};
pub use key::{ApiKey, KeyHash};
pub use store::{
    KeyOwner, MerchantNameTaken, NewKey, create_key, create_merchant, find_merchant, set_assets,
    set_wait_for,
};
