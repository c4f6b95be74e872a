//! Spending policies: their registration by owners, what they say of a payment, and what is left.

use alloy::primitives::{Address, Bytes};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    audit::{self, Actor, Change},
    chain::Chain,
    db::During,
    domain::{Amount, ChainId, Refusal, UnixTime},
    ledger,
    limits::{self, Budget, Period},
    policies::{
        self, Document, InForce, Kind, NewDocument, PolicyReport, Purse, SignedDocument,
        SignedReadRequest, Span, Spending, Subject,
    },
    verify::{Unwrapped, Verified},
};

use super::{Facilitator, FacilitatorError};

/// How old a signed question may be, and how far a clock may be ahead of ours, in seconds.
const QUESTION_AGE_MAX_SECONDS: u64 = 300;
/// How many signatures of owners are judged at a time: each costs a call of the chain, and nobody pays us.
pub(super) const N_JUDGED_MAX: usize = 16;

/// Why an owner's wish is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRejection {
    /// It is about a chain that is not served.
    #[error("{0}")]
    NotServed(String),
    /// Somebody else signed it, or too long ago.
    #[error("{0}")]
    NotSigned(String),
    /// It cannot be done as things stand.
    #[error("{0}")]
    Conflict(String),
    /// Nothing was ever registered.
    #[error("no spending policy was ever registered for that account and asset")]
    Unknown,
}

type Wish<T> = Result<Result<T, PolicyRejection>, FacilitatorError>;

impl Facilitator {
    /// Registers what an owner signed. From then on it counts for every claim, on every replica.
    ///
    /// # Errors
    /// Trouble of ours or of the chain; why the owner's wish is not carried out is the inner `Err`.
    pub async fn register_policy(&self, signed: &SignedDocument, origin: &str) -> Wish<Uuid> {
        let document = &signed.document;
        let subject = document.subject();
        let chain = match self.served_chain(subject.chain_id) {
            Ok(chain) => chain,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let mut conn = self.pool.acquire().await.during("register a spending policy")?;
        let former = policies::in_force(&mut conn, subject).await?;
        drop(conn);
        let signer = former.as_ref().map_or(subject.account, |former| former.owner);
        let (digest, signature) = (document.digest(), &signed.signature);
        if !self.has_signed(chain, signer, digest, signature).await? {
            return Ok(Err(not_signed(subject.account, signature)));
        }
        // Told to those who may sign only, like everything about a policy.
        if let Err(rejection) = follows(document, former.as_ref()) {
            return Ok(Err(rejection));
        }
        let mut db = self.pool.begin().await.during("register a spending policy")?;
        // Claims hold the account too: none is made by the former policy once this one stands.
        ledger::hold_account(&mut db, subject.chain_id, subject.asset, subject.account).await?;
        let newest = policies::in_force(&mut db, subject).await?;
        let id = |in_force: &Option<InForce>| in_force.as_ref().map(|in_force| in_force.policy_id);
        if id(&newest) != id(&former) {
            let problem = "another document of the same account and asset came first";
            return Ok(Err(PolicyRejection::Conflict(problem.to_owned())));
        }
        policies::hold_registration(&mut db).await?;
        let new = NewDocument {
            policy_id: Uuid::now_v7(),
            account_id: former.as_ref().map_or_else(Uuid::now_v7, |former| former.account_id),
            document,
            owner: document.next_owner(signer),
            signer,
            signature: &signed.signature,
        };
        policies::insert(&mut db, &new).await?;
        record(&mut db, &new, former.as_ref(), origin).await?;
        db.commit().await.during("register a spending policy")?;
        let (kind, account) = (document.kind().as_str(), subject.account);
        tracing::info!(
            policy.id = %new.policy_id, policy.kind = kind, account = %account, chain.id = %subject.chain_id,
            "registered a spending policy"
        );
        Ok(Ok(new.policy_id))
    }

    /// The policy in force and what is left, for whoever signed the question: its owner, or the account.
    ///
    /// # Errors
    /// Trouble of ours or of the chain; why the question is not answered is the inner `Err`.
    pub async fn read_policy(
        &self,
        signed: &SignedReadRequest,
        now: UnixTime,
    ) -> Wish<PolicyReport> {
        let (request, subject) = (&signed.request, signed.request.subject);
        let chain = match self.served_chain(subject.chain_id) {
            Ok(chain) => chain,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let age = now.as_u256().abs_diff(request.issued_at);
        if age > UnixTime::from_seconds(QUESTION_AGE_MAX_SECONDS).as_u256() {
            let problem = format!(
                "issuedAt is {}, more than {QUESTION_AGE_MAX_SECONDS} seconds from {now}",
                request.issued_at
            );
            return Ok(Err(PolicyRejection::NotSigned(problem)));
        }
        let report = self.policy_of(subject).await?;
        let owner = report.as_ref().map_or(subject.account, |report| report.in_force.owner);
        let mut readers = vec![owner, subject.account];
        readers.dedup();
        for reader in readers {
            if self.has_signed(chain, reader, request.digest(), &signed.signature).await? {
                return Ok(report.ok_or(PolicyRejection::Unknown));
            }
        }
        Ok(Err(not_signed(subject.account, &signed.signature)))
    }

    /// The policy in force and what is left, for whoever may see everything.
    pub async fn policy_of(
        &self,
        subject: Subject,
    ) -> Result<Option<PolicyReport>, FacilitatorError> {
        let mut conn = self.pool.acquire().await.during("read a spending policy")?;
        report_policy(&mut conn, subject).await
    }

    /// Whether the payer's policy would allow the payment, as far as is known. Changes nothing.
    pub(super) async fn would_spend(
        &self,
        verified: &Verified,
    ) -> Result<Result<(), Refusal>, FacilitatorError> {
        if !self.policies.may_have(subject_of(verified)).await? {
            return Ok(Ok(()));
        }
        let mut conn = self.pool.acquire().await.during("ask a spending policy")?;
        Ok(spend(&mut conn, verified).await?.map(drop))
    }

    fn served_chain(&self, chain_id: ChainId) -> Result<&Chain, PolicyRejection> {
        let served = self.served(chain_id);
        served
            .map(|served| served.engine.chain())
            .map_err(|refusal| PolicyRejection::NotServed(refusal.message))
    }
}

/// Says the same whoever should have signed: that an account has a policy, and whose it is, is not for
/// everybody.
fn not_signed(account: Address, signature: &Bytes) -> PolicyRejection {
    let hint = match Unwrapped::of(signature).deployment {
        Some(_) => "; a wallet that is not deployed yet cannot sign, so deploy it first",
        None => "",
    };
    PolicyRejection::NotSigned(format!(
        "the signature is not by who may sign for {account}: the owner that its newest policy names, or \
         itself if there is none{hint}"
    ))
}

/// The newest document and what is used of its budgets.
pub async fn report_policy(
    conn: &mut PgConnection,
    subject: Subject,
) -> Result<Option<PolicyReport>, FacilitatorError> {
    let Some(in_force) = policies::in_force(conn, subject).await? else { return Ok(None) };
    let purses = in_force.purses();
    let budgets: Vec<Budget> = purses.iter().map(budget).collect();
    let used = limits::used(conn, &budgets).await?.into_iter().map(|used| used.amount);
    let purses = purses.into_iter().zip(used).collect();
    Ok(Some(PolicyReport { subject, in_force, purses }))
}

/// The budgets that the payment has to be counted in, or why its payer's policy does not allow it. Where the
/// payer is held, nothing changes what was found until the database transaction ends.
pub(super) async fn spend(
    conn: &mut PgConnection,
    verified: &Verified,
) -> Result<Result<Vec<Budget>, Refusal>, FacilitatorError> {
    let Some(in_force) = policies::in_force(conn, subject_of(verified)).await? else {
        return Ok(Ok(Vec::new()));
    };
    let has_sessions =
        matches!(&in_force.document, Document::Policy(policy) if !policy.sessions.is_empty());
    let signers = if has_sessions { policies::signers(verified) } else { Vec::new() };
    let authorization = verified.terms().authorization();
    let spending = Spending {
        payee: authorization.payee,
        amount: authorization.amount,
        signers: &signers,
        at: verified.block_time(),
    };
    let plan = match in_force.plan(&spending) {
        Ok(Some(plan)) => plan,
        Ok(None) => return Ok(Ok(Vec::new())),
        Err(refusal) => return Ok(Err(refusal)),
    };
    let budgets: Vec<Budget> = plan.purses().map(budget).collect();
    let used = limits::used(conn, &budgets).await?;
    let used: Vec<Amount> = used.into_iter().map(|used| used.amount).collect();
    Ok(plan.choose(&used).map(|purses| purses.iter().map(budget).collect()))
}

fn subject_of(verified: &Verified) -> Subject {
    let terms = verified.terms();
    let requirements = terms.requirements();
    Subject {
        chain_id: requirements.chain_id,
        account: terms.authorization().payer,
        asset: requirements.asset,
    }
}

fn budget(purse: &Purse) -> Budget {
    let period = match purse.span {
        Span::Day => Period::Day,
        Span::Total => Period::Total,
    };
    Budget { rule_id: purse.rule_id, subject: purse.subject.clone(), period }
}

/// Whether a document may come after the one in force.
fn follows(document: &Document, former: Option<&InForce>) -> Result<(), PolicyRejection> {
    let conflict = |problem: String| Err(PolicyRejection::Conflict(problem));
    if let Some(former) = former
        && document.nonce() <= former.document.nonce()
    {
        return conflict(format!(
            "the nonce is {}, and has to be above {}",
            document.nonce(),
            former.document.nonce()
        ));
    }
    let standing = former.map(|former| former.document.kind());
    match (document.kind(), standing) {
        (Kind::Policy, _)
        | (Kind::Revocation, Some(Kind::Policy))
        | (Kind::Release, Some(Kind::Policy | Kind::Revocation)) => Ok(()),
        (Kind::Revocation, Some(Kind::Revocation)) => {
            conflict("the policy is revoked already".to_owned())
        }
        (Kind::Revocation | Kind::Release, None | Some(Kind::Release)) => {
            conflict("there is no policy in force".to_owned())
        }
    }
}

async fn record(
    conn: &mut PgConnection,
    new: &NewDocument<'_>,
    former: Option<&InForce>,
    origin: &str,
) -> Result<(), FacilitatorError> {
    let subject = new.document.subject();
    let told = |policy_id: Uuid, document: &Document| -> Value {
        json!({
            "policyId": policy_id,
            "kind": document.kind().as_str(),
            "document": document.to_json(),
        })
    };
    let action = match new.document.kind() {
        Kind::Policy => "policy.register",
        Kind::Revocation => "policy.revoke",
        Kind::Release => "policy.release",
    };
    let change = Change {
        action,
        subject: &format!("{}/{}/{}", subject.chain_id, subject.account, subject.asset),
        merchant_id: None,
        before: former.map(|former| told(former.policy_id, &former.document)),
        after: Some(told(new.policy_id, new.document)),
    };
    let actor = Actor::payer(&new.signer.to_string(), origin);
    Ok(audit::record(conn, &actor, &change).await?)
}
