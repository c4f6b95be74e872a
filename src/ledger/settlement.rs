//! One row of `settlement`, read into domain types.

use alloy::primitives::{Address, B256, Bytes};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    db::{self, DbError, During},
    domain::{
        Accepted, Authorization, ChainId, IdempotencyKey, InvalidReason, MerchantId, PayerKind,
        Payment, PaymentRequest, Refusal, Requirements, Scheme, SettlementId, SettlementStatus,
        TokenDomain, X402Version,
    },
};

/// A promise to settle one payment, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The id that people and logs use.
    pub settlement_id: SettlementId,
    /// Who claimed it.
    pub merchant_id: MerchantId,
    /// The dialect of the claiming request.
    pub version: X402Version,
    /// The chain.
    pub chain_id: ChainId,
    /// The token.
    pub asset: Address,
    /// What was signed.
    pub authorization: Authorization,
    /// The signature, ERC-6492 wrapper included.
    pub signature: Bytes,
    /// What the payer was when it was verified, and so who judges the signature.
    pub payer_kind: PayerKind,
    /// The gas that the settlement call used then, the deployment of the payer's wallet included.
    pub simulated_gas: u64,
    /// In which domain.
    pub token_domain: TokenDomain,
    /// The EIP-712 digest of it all.
    pub digest: B256,
    /// The height at which it was verified.
    pub verified_block: u64,
    /// Where it stands.
    pub status: SettlementStatus,
    /// Why it failed, when it did.
    pub failure: Option<Refusal>,
    /// How many transactions of ours have carried it.
    pub n_transactions: u32,
    /// The transaction of the evidence, while it stands.
    pub transaction_hash: Option<B256>,
    /// Which request of the resource server it is, in that server's words.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Whether success was handed out.
    pub is_answered: bool,
}

impl Settlement {
    /// Whether code of the payer's runs when it is paid.
    pub fn runs_code(&self) -> bool {
        self.payer_kind != PayerKind::Key
    }

    /// The payment as a question again, so that `verify` can judge it at a later block.
    pub fn request(&self) -> PaymentRequest {
        PaymentRequest {
            version: self.version,
            payment: Payment {
                accepted: Accepted { scheme: Some(Scheme::Exact), chain_id: Some(self.chain_id) },
                authorization: self.authorization,
                signature: self.signature.clone(),
            },
            requirements: Requirements {
                scheme: Scheme::Exact,
                chain_id: self.chain_id,
                asset: self.asset,
                payee: self.authorization.payee,
                amount: self.authorization.amount,
                max_timeout_seconds: 0,
                token_domain: Some(self.token_domain.clone()),
                resource: None,
            },
        }
    }
}

/// The settlement with that id.
pub async fn settlement(
    conn: &mut PgConnection,
    settlement_id: SettlementId,
) -> Result<Settlement, DbError> {
    settlements(conn, &[settlement_id])
        .await?
        .pop()
        .ok_or(sqlx::Error::RowNotFound)
        .during("read a settlement")
}

/// The settlements with those ids, oldest first.
pub async fn settlements(
    conn: &mut PgConnection,
    settlement_ids: &[SettlementId],
) -> Result<Vec<Settlement>, DbError> {
    let ids: Vec<Uuid> = settlement_ids.iter().map(|id| id.as_uuid()).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"
        select settlement_id, merchant_id, x402_version, chain_id, asset, payer, payee,
            amount::text as "amount!", valid_after::text as "valid_after!",
            valid_before::text as "valid_before!", authorization_nonce, signature, payer_kind,
            simulated_gas, token_name,
            token_version, digest, verified_block, status, failure_reason, failure_message,
            n_transactions, transaction_hash, idempotency_key,
            answered_at is not null as "is_answered!"
        from settlement
        where settlement_id = any($1)
        order by settlement_id
        "#,
        &ids,
    )
    .fetch_all(conn)
    .await
    .during("read settlements")?;
    rows.into_iter().map(Settlement::try_from).collect()
}

/// The settlement of that authorization, for the chain and asset of the requirements, if it was ever
/// claimed.
pub async fn find_by_authorization(
    conn: &mut PgConnection,
    requirements: &Requirements,
    authorization: &Authorization,
) -> Result<Option<Settlement>, DbError> {
    let found = sqlx::query_scalar!(
        "
        select settlement_id from settlement
        where chain_id = $1 and asset = $2 and payer = $3 and authorization_nonce = $4
        ",
        requirements.chain_id.to_string(),
        requirements.asset.as_slice(),
        authorization.payer.as_slice(),
        authorization.nonce.as_bytes().as_slice(),
    )
    .fetch_optional(&mut *conn)
    .await
    .during("find a settlement by its authorization")?;
    match found {
        Some(id) => settlement(conn, SettlementId::from_uuid(id)).await.map(Some),
        None => Ok(None),
    }
}

/// The settlement that a merchant claimed under that `Idempotency-Key`.
pub async fn find_by_idempotency_key(
    conn: &mut PgConnection,
    merchant_id: MerchantId,
    key: &IdempotencyKey,
) -> Result<Option<SettlementId>, DbError> {
    let found = sqlx::query_scalar!(
        "select settlement_id from settlement where merchant_id = $1 and idempotency_key = $2",
        merchant_id.as_uuid(),
        key.as_str(),
    )
    .fetch_optional(conn)
    .await
    .during("find a settlement by its idempotency key")?;
    Ok(found.map(SettlementId::from_uuid))
}

struct Row {
    settlement_id: Uuid,
    merchant_id: Uuid,
    x402_version: i16,
    chain_id: String,
    asset: Vec<u8>,
    payer: Vec<u8>,
    payee: Vec<u8>,
    amount: String,
    valid_after: String,
    valid_before: String,
    authorization_nonce: Vec<u8>,
    signature: Vec<u8>,
    payer_kind: String,
    simulated_gas: i64,
    token_name: String,
    token_version: String,
    digest: Vec<u8>,
    verified_block: i64,
    status: String,
    failure_reason: Option<String>,
    failure_message: Option<String>,
    n_transactions: i32,
    transaction_hash: Option<Vec<u8>>,
    idempotency_key: Option<String>,
    is_answered: bool,
}

impl TryFrom<Row> for Settlement {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let unreadable = |what: &str| DbError {
            operation: "read a settlement",
            source: sqlx::Error::Decode(
                format!("unreadable {what} of {}", row.settlement_id).into(),
            ),
        };
        let failure = match row.failure_reason.as_deref() {
            Some(reason) => Some(Refusal::new(
                InvalidReason::parse(reason).ok_or_else(|| unreadable("failure_reason"))?,
                row.failure_message.clone().unwrap_or_default(),
            )),
            None => None,
        };
        Ok(Self {
            settlement_id: SettlementId::from_uuid(row.settlement_id),
            merchant_id: MerchantId::from_uuid(row.merchant_id),
            version: match row.x402_version {
                1 => X402Version::V1,
                2 => X402Version::V2,
                _ => return Err(unreadable("x402_version")),
            },
            chain_id: db::chain_id(&row.chain_id)?,
            asset: db::address(&row.asset)?,
            authorization: Authorization {
                payer: db::address(&row.payer)?,
                payee: db::address(&row.payee)?,
                amount: db::amount(&row.amount)?,
                valid_after: db::u256(&row.valid_after)?,
                valid_before: db::u256(&row.valid_before)?,
                nonce: db::authorization_nonce(&row.authorization_nonce)?,
            },
            payer_kind: PayerKind::parse(&row.payer_kind)
                .ok_or_else(|| unreadable("payer_kind"))?,
            simulated_gas: db::number(row.simulated_gas)?,
            signature: row.signature.into(),
            digest: db::hash(&row.digest)?,
            verified_block: db::number(row.verified_block)?,
            status: SettlementStatus::parse(&row.status).map_err(|_| unreadable("status"))?,
            failure,
            n_transactions: u32::try_from(row.n_transactions)
                .map_err(|_| unreadable("n_transactions"))?,
            transaction_hash: row.transaction_hash.as_deref().map(db::hash).transpose()?,
            idempotency_key: match row.idempotency_key.as_deref() {
                Some(key) => {
                    Some(IdempotencyKey::parse(key).map_err(|_| unreadable("idempotency_key"))?)
                }
                None => None,
            },
            is_answered: row.is_answered,
            token_domain: TokenDomain { name: row.token_name, version: row.token_version },
        })
    }
}
