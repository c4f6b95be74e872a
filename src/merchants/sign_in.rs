//! Sign-In with Ethereum (EIP-4361): a message by which somebody proves control of an address.
//!
//! We remember nothing of the messages that we propose: the nonce says when it was made and for whom,
//! under a code that only we can make. That a message is used once is the database's business, and who
//! signed it that of whoever can ask the chain.

use std::time::Duration;

use alloy::{
    hex,
    primitives::{Address, B64, B256, eip191_hash_message},
};
use signinwithethereum::{Message, TimeStamp, Version};
use time::OffsetDateTime;

use crate::domain::{ChainId, UnixTime};

use super::Pepper;

/// How long a proposed message can be used. Long enough to fetch a hardware wallet.
pub const SIGN_IN_LIFE: Duration = Duration::from_secs(10 * 60);
/// The longest message that is read; ours have about 350 bytes, and wallets may add resources.
const MAX_MESSAGE_BYTES: usize = 4_096;
/// What a person reads who signs ours.
const STATEMENT: &str = "I want payments to this address to be settled by this facilitator.";
/// Sets our codes apart from others under the same pepper.
const PURPOSE: &[u8] = b"sign-in nonce";
/// How many hex digits of a nonce are its time.
const N_TIME_DIGITS: usize = 10;
/// How many are its time, and chance after it.
const N_SAID_DIGITS: usize = N_TIME_DIGITS + 16;
/// How many after those prove that it is ours.
const N_CODE_DIGITS: usize = 32;

/// Who is signed in to: the domain that messages name.
#[derive(Debug, Clone)]
pub struct SignIns {
    domain: String,
    pepper: Pepper,
}

/// A message to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The whole text, as EIP-4361 writes it.
    pub message: String,
    /// Its nonce, for wallets that write a message of their own.
    pub nonce: String,
    /// Until when it can be used.
    pub expires_at: UnixTime,
}

/// A message that is ours, whole and in time. Nobody has looked at its signature yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    address: Address,
    chain_id: ChainId,
    nonce: String,
    digest: B256,
    text: String,
}

/// Why a message cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// Not of the form of EIP-4361.
    #[error("the message is not of the form of EIP-4361: {0}")]
    NotEip4361(String),
    /// It is for somebody else.
    #[error("the message signs in to {found:?}, not to {expected:?}")]
    WrongDomain {
        /// What it names.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// We did not propose it, for that address and chain.
    #[error("the nonce was not proposed here for this address and chain")]
    WrongNonce,
    /// Proposed too long ago, or not to be used now by its own words.
    #[error("the message is not valid now; ask for a new one")]
    NotNow,
}

impl SignIns {
    /// `domain` as in a URL: a host, and a port where it is not the usual one.
    ///
    /// # Errors
    /// When EIP-4361 could not write it.
    pub fn new(domain: &str, pepper: Pepper) -> Result<Self, SignInError> {
        let sign_ins = Self { domain: domain.to_owned(), pepper };
        let example = ChainId::from_eip155(1).expect("1 is the id of a chain");
        sign_ins.write(Address::ZERO, example, UnixTime::from_seconds(0))?;
        Ok(sign_ins)
    }

    /// A message by which the holder of `address` proves it.
    ///
    /// # Errors
    /// When the clock is beyond what the message can tell.
    pub fn propose(
        &self,
        address: Address,
        chain_id: ChainId,
        now: UnixTime,
    ) -> Result<Proposal, SignInError> {
        self.write(address, chain_id, now)
    }

    /// Reads a message that somebody claims to have signed.
    ///
    /// # Errors
    /// When it cannot be used now, or never could.
    pub fn read(&self, text: &str, now: UnixTime) -> Result<SignIn, SignInError> {
        if text.len() > MAX_MESSAGE_BYTES {
            let problem = format!("it is longer than {MAX_MESSAGE_BYTES} bytes");
            return Err(SignInError::NotEip4361(problem));
        }
        let message: Message =
            text.parse().map_err(|error| SignInError::NotEip4361(format!("{error}")))?;
        let is_ours = message.domain.as_str() == self.domain
            && message.uri.authority_str() == Some(self.domain.as_str());
        if !is_ours {
            let found = format!("{} for {}", message.domain, message.uri);
            return Err(SignInError::WrongDomain { found, expected: self.domain.clone() });
        }
        let address = Address::from(message.address);
        let chain_id = ChainId::from_eip155(message.chain_id).ok_or(SignInError::WrongNonce)?;
        let proposed = self.time_of(&message.nonce, address, chain_id)?;
        if now < proposed || now >= proposed.saturating_add(SIGN_IN_LIFE) {
            return Err(SignInError::NotNow);
        }
        let now = moment(now)?;
        let is_early = message.not_before.is_some_and(|from| now < *from.as_ref());
        let is_late = message.expiration_time.is_some_and(|until| now >= *until.as_ref());
        if is_early || is_late {
            return Err(SignInError::NotNow);
        }
        let digest = eip191_hash_message(text);
        Ok(SignIn { address, chain_id, nonce: message.nonce, digest, text: text.to_owned() })
    }

    fn write(
        &self,
        address: Address,
        chain_id: ChainId,
        now: UnixTime,
    ) -> Result<Proposal, SignInError> {
        let wrong = |problem: &dyn std::fmt::Display| SignInError::NotEip4361(problem.to_string());
        let (nonce, expires_at) =
            (self.nonce(address, chain_id, now), now.saturating_add(SIGN_IN_LIFE));
        let message = Message {
            scheme: None,
            domain: self.domain.parse().map_err(|error| wrong(&error))?,
            address: address.into_array(),
            address_raw: None,
            statement: Some(STATEMENT.to_owned()),
            uri: format!("https://{}", self.domain).parse().map_err(|error| wrong(&error))?,
            version: Version::V1,
            chain_id: chain_id.eip155(),
            nonce: nonce.clone(),
            issued_at: TimeStamp::from(moment(now)?),
            expiration_time: Some(TimeStamp::from(moment(expires_at)?)),
            not_before: None,
            request_id: None,
            resources: Vec::new(),
            warnings: Vec::new(),
        };
        Ok(Proposal { message: message.to_string(), nonce, expires_at })
    }

    /// Chance sets two nonces of the same second apart.
    fn nonce(&self, address: Address, chain_id: ChainId, now: UnixTime) -> String {
        let chance = hex::encode(B64::random());
        let said = format!("{:0N_TIME_DIGITS$x}{chance}", now.seconds());
        let code = self.code(&said, address, chain_id);
        format!("{said}{code}")
    }

    fn code(&self, said: &str, address: Address, chain_id: ChainId) -> String {
        let chain_id = chain_id.eip155().to_be_bytes();
        let code = self.pepper.code(&[PURPOSE, said.as_bytes(), address.as_slice(), &chain_id]);
        hex::encode(code).chars().take(N_CODE_DIGITS).collect()
    }

    /// When a nonce was made, if it is one of ours for that address.
    fn time_of(
        &self,
        nonce: &str,
        address: Address,
        chain_id: ChainId,
    ) -> Result<UnixTime, SignInError> {
        let (said, code) = nonce.split_at_checked(N_SAID_DIGITS).ok_or(SignInError::WrongNonce)?;
        if !is_equal(code, &self.code(said, address, chain_id)) {
            return Err(SignInError::WrongNonce);
        }
        let time: String = said.chars().take(N_TIME_DIGITS).collect();
        let seconds = u64::from_str_radix(&time, 16).map_err(|_| SignInError::WrongNonce)?;
        Ok(UnixTime::from_seconds(seconds))
    }
}

impl SignIn {
    /// Whose control is claimed.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// The chain on which a contract at that address is asked.
    pub const fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    /// What makes the message usable once.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What was signed (EIP-191).
    pub const fn digest(&self) -> B256 {
        self.digest
    }

    /// The whole message.
    pub fn text(&self) -> &str {
        &self.text
    }
}

fn moment(time: UnixTime) -> Result<OffsetDateTime, SignInError> {
    let seconds = i64::try_from(time.seconds()).map_err(|_| SignInError::NotNow)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| SignInError::NotNow)
}

/// In a time that does not tell where they differ.
fn is_equal(one: &str, other: &str) -> bool {
    use subtle::ConstantTimeEq as _;
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::{SIGN_IN_LIFE, SignInError, SignIns};
    use crate::{
        domain::{ChainId, UnixTime},
        merchants::Pepper,
    };

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn sign_ins(domain: &str) -> SignIns {
        SignIns::new(domain, Pepper::new(&"p".into())).unwrap()
    }

    fn base() -> ChainId {
        ChainId::from_eip155(8453).unwrap()
    }

    #[test]
    fn what_is_proposed_can_be_read_for_ten_minutes() {
        let sign_ins = sign_ins("pay.example.com:8443");
        let address = Address::repeat_byte(0xab);
        let proposal = sign_ins.propose(address, base(), NOW).unwrap();
        let expected = format!(
            "pay.example.com:8443 wants you to sign in with your Ethereum account:\n{address}\n\n\
             I want payments to this address to be settled by this facilitator.\n\n\
             URI: https://pay.example.com:8443\nVersion: 1\nChain ID: 8453\nNonce: {}\n\
             Issued At: 2027-01-15T08:00:00Z\nExpiration Time: 2027-01-15T08:10:00Z",
            proposal.nonce
        );
        assert_eq!(proposal.message, expected);
        let another = sign_ins.propose(address, base(), NOW).unwrap();
        assert_ne!(another.nonce, proposal.nonce, "of the same second");
        let end = NOW.saturating_add(SIGN_IN_LIFE);
        assert_eq!(proposal.expires_at, end);
        let last = UnixTime::from_seconds(end.seconds() - 1);
        for now in [NOW, last] {
            let read = sign_ins.read(&proposal.message, now).unwrap();
            assert_eq!((read.address(), read.chain_id()), (address, base()));
            assert_eq!(read.nonce(), proposal.nonce);
        }
        let early = UnixTime::from_seconds(NOW.seconds() - 1);
        for now in [early, end] {
            assert_eq!(sign_ins.read(&proposal.message, now), Err(SignInError::NotNow));
        }
    }

    #[test]
    fn a_wallet_may_write_its_own_message_around_the_nonce() {
        let sign_ins = sign_ins("pay.example.com");
        let address = Address::repeat_byte(0xab);
        let nonce = sign_ins.propose(address, base(), NOW).unwrap().nonce;
        let own = |domain: &str, address: Address, chain: u64, nonce: &str, until: &str| {
            format!(
                "{domain} wants you to sign in with your Ethereum account:\n{address}\n\n\n\
                 URI: https://{domain}/signup\nVersion: 1\nChain ID: {chain}\nNonce: {nonce}\n\
                 Issued At: 2020-01-01T00:00:00Z{until}"
            )
        };
        let read = |text: &str| sign_ins.read(text, NOW).map(|read| read.address());
        let good = own("pay.example.com", address, 8453, &nonce, "");
        assert_eq!(read(&good), Ok(address));
        let elsewhere = read(&own("evil.example.com", address, 8453, &nonce, ""));
        assert!(matches!(elsewhere, Err(SignInError::WrongDomain { .. })), "{elsewhere:?}");
        let disguised = read(&good.replace("https://pay.", "https://evil."));
        assert!(matches!(disguised, Err(SignInError::WrongDomain { .. })), "{disguised:?}");
        let other = Address::repeat_byte(0xac);
        let mut altered = nonce.clone();
        altered.replace_range(0..1, "1");
        for wrong in [
            own("pay.example.com", other, 8453, &nonce, ""),
            own("pay.example.com", address, 1, &nonce, ""),
            own("pay.example.com", address, 8453, &altered, ""),
            own("pay.example.com", address, 8453, &nonce[..nonce.len() - 1], ""),
            own("pay.example.com", address, 8453, "12345678", ""),
        ] {
            assert_eq!(read(&wrong), Err(SignInError::WrongNonce), "{wrong}");
        }
        for late in
            ["\nExpiration Time: 2027-01-15T08:00:00Z", "\nNot Before: 2027-01-15T08:00:01Z"]
        {
            let text = own("pay.example.com", address, 8453, &nonce, late);
            assert_eq!(read(&text), Err(SignInError::NotNow), "{late}");
        }
        let many = "x".repeat(super::MAX_MESSAGE_BYTES + 1);
        for wrong in ["", "hello", many.as_str(), good.trim_end_matches('Z')] {
            let found = read(wrong);
            assert!(matches!(found, Err(SignInError::NotEip4361(_))), "{found:?}");
        }
    }

    #[test]
    fn a_domain_is_a_host_and_perhaps_a_port() {
        for domain in ["pay.example.com", "localhost", "127.0.0.1:8402", "[::1]:8402"] {
            sign_ins(domain);
        }
        for domain in ["", "https://pay.example.com", "pay example", "pay.example.com/path"] {
            let made = SignIns::new(domain, Pepper::new(&"p".into()));
            assert!(made.is_err(), "{domain:?}");
        }
    }
}
