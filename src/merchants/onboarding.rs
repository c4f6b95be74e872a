//! Merchants who come by themselves: whoever proves control of an address becomes a merchant who is paid
//! there, and whoever does so again gets another key of the same merchant.

use alloy::primitives::{Address, Bytes};
use sqlx::{PgConnection, PgPool};

use crate::{
    audit::Actor,
    db::{DbError, During},
    domain::{ChainId, Depth, KeyMode, MerchantId, UnixTime},
};

use super::{
    ApiKey, ApiKeys, Assets, Authority, KeyOwner, KeyRecord, KeysError, Merchant, MerchantStatus,
    MerchantsError, Name, NewKey, NewMerchant, PayeeProof, PayeesError, Proposal, Scopes, SignIn,
    SignInError, SignIns, book, payees, store,
};

/// The name of the keys that are handed out here.
const KEY_NAME: &str = "sign-in";

/// Why somebody who came by itself is not let in.
#[derive(Debug, thiserror::Error)]
pub enum OnboardingError {
    /// The database could not be read or written.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The message was used before.
    #[error("the message was used before; ask for a new one")]
    Used,
    /// The merchant of that address is suspended or closed.
    #[error("the merchant of this address is suspended or closed; its operator can say why")]
    Stopped,
    /// As many came today as the operator takes in a day.
    #[error("as many merchants came today as the operator takes in a day")]
    TooMany,
    /// The merchant could not be made.
    #[error(transparent)]
    Merchant(MerchantsError),
    /// The key could not be made.
    #[error(transparent)]
    Key(KeysError),
    /// The payee could not be added.
    #[error(transparent)]
    Payee(PayeesError),
}

/// Who was let in.
#[derive(Debug)]
pub struct Onboarded {
    /// The merchant.
    pub merchant: Merchant,
    /// Whether it was not there before.
    pub is_new: bool,
    /// Its key, which cannot be shown again.
    pub key: ApiKey,
    /// What is known of the key.
    pub record: KeyRecord,
}

/// The door for merchants who come by themselves.
#[derive(Debug, Clone)]
pub struct Onboarding {
    pool: PgPool,
    keys: ApiKeys,
    sign_ins: SignIns,
    n_merchants_per_day_max: u64,
}

impl Onboarding {
    /// A door into the books of `keys`, for so many new merchants a day.
    pub const fn new(
        pool: PgPool,
        keys: ApiKeys,
        sign_ins: SignIns,
        n_merchants_per_day_max: u64,
    ) -> Self {
        Self { pool, keys, sign_ins, n_merchants_per_day_max }
    }

    /// A message to be signed by whoever wants to come in, or to prove one more address.
    ///
    /// # Errors
    /// When the clock is beyond what the message can tell.
    pub fn propose(
        &self,
        address: Address,
        chain_id: ChainId,
        now: UnixTime,
    ) -> Result<Proposal, SignInError> {
        self.sign_ins.propose(address, chain_id, now)
    }

    /// Reads a message that somebody claims to have signed.
    ///
    /// # Errors
    /// When it cannot be used now, or never could.
    pub fn read(&self, message: &str, now: UnixTime) -> Result<SignIn, SignInError> {
        self.sign_ins.read(message, now)
    }

    /// Lets somebody in whose signature was checked.
    pub async fn let_in(
        &self,
        sign_in: &SignIn,
        signature: &Bytes,
        mode: KeyMode,
        name: Option<Name>,
        origin: &str,
    ) -> Result<Onboarded, OnboardingError> {
        let actor = Actor::payee(&sign_in.address().to_checksum(None), origin);
        let at = (sign_in.chain_id(), sign_in.address());
        let mut db = self.pool.begin().await.during("let a merchant in")?;
        store::hold_newcomers(&mut db).await?;
        if !store::use_message(&mut db, sign_in.nonce()).await? {
            return Err(OnboardingError::Used);
        }
        let former = store::find_by_owner(&mut db, at).await?;
        let merchant_id = match former {
            Some(merchant_id) => merchant_id,
            None => {
                let proof = PayeeProof::SignIn { sign_in, signature };
                self.welcome(&mut db, &actor, at, &proof, name).await?
            }
        };
        let merchant = store::merchant(&mut db, merchant_id).await?;
        let merchant = merchant.ok_or(OnboardingError::Merchant(MerchantsError::Unknown))?;
        if merchant.status != MerchantStatus::Active {
            return Err(OnboardingError::Stopped);
        }
        let new = NewKey {
            owner: KeyOwner::Merchant(merchant_id),
            mode,
            scopes: Scopes::ALL,
            name: Some(KEY_NAME.to_owned()),
            lifetime_seconds: None,
        };
        let made = self.keys.create_in(&mut db, &actor, Authority::Operator, &new).await;
        let (key, record) = made.map_err(|error| match error {
            KeysError::Db(error) => OnboardingError::Db(error),
            other => OnboardingError::Key(other),
        })?;
        db.commit().await.during("let a merchant in")?;
        Ok(Onboarded { merchant, is_new: former.is_none(), key, record })
    }

    /// Makes a merchant of whoever has that address.
    async fn welcome(
        &self,
        conn: &mut PgConnection,
        actor: &Actor,
        at: (ChainId, Address),
        proof: &PayeeProof<'_>,
        name: Option<Name>,
    ) -> Result<MerchantId, OnboardingError> {
        if store::count_newcomers(conn).await? >= self.n_merchants_per_day_max {
            return Err(OnboardingError::TooMany);
        }
        let (chain_id, address) = at;
        let own_name = || Name::parse(&format!("{} on {chain_id}", address.to_checksum(None)));
        let name = name.map_or_else(own_name, Ok).expect("an address on a chain is a name");
        let new = NewMerchant { name, wait_for: Depth::default(), assets: Assets::ANY };
        let merchant = book::create(conn, actor, &new).await.map_err(|error| match error {
            MerchantsError::Db(error) => OnboardingError::Db(error),
            other => OnboardingError::Merchant(other),
        })?;
        store::set_owner(conn, merchant.merchant_id, at).await?;
        match payees::add(conn, actor, merchant.merchant_id, at, proof).await {
            Ok(_) => Ok(merchant.merchant_id),
            Err(PayeesError::Db(error)) => Err(OnboardingError::Db(error)),
            Err(other) => Err(OnboardingError::Payee(other)),
        }
    }
}
