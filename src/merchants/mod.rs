//! Merchants and the keys by which they, and operators, are known.

mod assets;
mod attempts;
mod book;
mod gate;
mod key;
mod keys;
mod onboarding;
mod payees;
mod rates;
mod record;
mod scope;
mod sign_in;
mod store;
mod text;
mod uses;

pub use assets::{Asset, Assets, AssetsError, N_ASSETS_MAX};
pub use book::{Merchants, MerchantsError, NewMerchant, Wishes};
pub use gate::{Caller, Denied, Gate, GateOptions, Operator, Principal};
pub use key::{ApiKey, KeyHash, NotAKey, Pepper, PresentedKey};
pub use keys::{ApiKeys, Authority, KeysError, N_KEYS_MAX, NewKey};
pub use onboarding::{Onboarded, Onboarding, OnboardingError};
pub use payees::{N_PAYEES_MAX, Payee, PayeeBook, PayeeProof, Payees, PayeesError};
pub use record::{KeyOwner, KeyRecord, Merchant, MerchantStatus};
pub use scope::{Scope, Scopes, ScopesError};
pub use sign_in::{Proposal, SIGN_IN_LIFE, SignIn, SignInError, SignIns};
pub use store::{Standing, find_merchant, standing};
pub use text::{BadText, Name, Why};
