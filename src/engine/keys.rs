//! The keys of hot wallets: from the settings, from a mnemonic, from keystore files. Never from the
//! database, which knows addresses only.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use alloy::{
    primitives::Address,
    signers::local::{MnemonicBuilder, PrivateKeySigner},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::wallet::{InvalidWalletKey, Wallet};

/// How many accounts of a mnemonic are ours: `m/44'/60'/0'/0/0` and those that follow.
pub const N_MNEMONIC_ACCOUNTS: u32 = 64;
/// How many files of a keystore folder are looked at.
const N_KEYSTORE_FILES_MAX: usize = 1_000;
/// For how long a keystore file that could not be opened is left alone: trying takes a second of
/// computing, and wallets are looked through every second.
const UNUSABLE_FOR: Duration = Duration::from_secs(30);
/// The longest keystore file.
const KEYSTORE_BYTES_MAX: u64 = 64 * 1024;

/// Where keys come from.
#[derive(Debug, Clone, Default)]
pub struct KeySources {
    /// A private key in hex. Its wallet is registered by itself.
    pub private_key: Option<SecretString>,
    /// A BIP-39 phrase.
    pub mnemonic: Option<SecretString>,
    /// A folder of Web3 Secret Storage files. Each names its address inside, as `geth account new`
    /// writes it, or at the end of its own name: those of `cast wallet new` have to be renamed.
    pub keystore_dir: Option<PathBuf>,
    /// What opens them, all of them.
    pub keystore_password: Option<SecretString>,
}

/// A source of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The private key is none.
    #[error(transparent)]
    PrivateKey(#[from] InvalidWalletKey),
    /// The phrase is none. It is not repeated.
    #[error("the wallet mnemonic is not a BIP-39 phrase of English words")]
    Mnemonic,
    /// The folder or a file of it cannot be read.
    #[error("read the keystore {}", path.display())]
    Keystore {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be opened with the password.
    #[error("open the keystore file {}: the password does not fit, or it is damaged", path.display())]
    Password {
        /// Which.
        path: PathBuf,
    },
    /// There are keystore files and nothing to open them with.
    #[error("a keystore folder is set, and no password for it")]
    NoPassword,
}

/// Every key that this process can sign with, by address.
pub struct Keys {
    sources: KeySources,
    known: Mutex<HashMap<Address, Wallet>>,
    /// How many accounts of the mnemonic are among them.
    n_derived: Mutex<u32>,
    /// The keystore files that could not be opened, and when that was tried.
    unusable: Mutex<HashMap<PathBuf, Instant>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Opens the sources that are set. Keystore files are opened when a wallet needs them.
    ///
    /// # Errors
    /// When one of them makes no sense.
    pub fn open(sources: KeySources) -> Result<Self, KeyError> {
        let mut known = HashMap::new();
        if let Some(key) = &sources.private_key {
            let wallet = Wallet::from_private_key(key)?;
            known.insert(wallet.address(), wallet);
        }
        if let Some(phrase) = &sources.mnemonic {
            mnemonic_account(phrase, 0).ok_or(KeyError::Mnemonic)?;
        }
        if sources.keystore_dir.is_some() && sources.keystore_password.is_none() {
            return Err(KeyError::NoPassword);
        }
        Ok(Self {
            sources,
            known: Mutex::new(known),
            n_derived: Mutex::new(0),
            unusable: Mutex::default(),
        })
    }

    /// The wallet that the settings name by its private key.
    pub fn configured(&self) -> Option<Address> {
        let key = self.sources.private_key.as_ref()?;
        Wallet::from_private_key(key).ok().map(|wallet| wallet.address())
    }

    /// The account of the mnemonic with that index.
    pub fn mnemonic_address(&self, index: u32) -> Option<Address> {
        let phrase = self.sources.mnemonic.as_ref().filter(|_| index < N_MNEMONIC_ACCOUNTS)?;
        mnemonic_account(phrase, index).map(|signer| signer.address())
    }

    /// The wallet of `address`, if a source has its key. Opening a keystore file takes a second of
    /// computing: not for a thread that serves others.
    pub fn find(&self, address: Address) -> Result<Option<Wallet>, KeyError> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wallet) = known().get(&address) {
            return Ok(Some(wallet.clone()));
        }
        if let Some(wallet) = self.of_mnemonic(address) {
            return Ok(Some(wallet));
        }
        let (Some(folder), Some(password)) =
            (&self.sources.keystore_dir, &self.sources.keystore_password)
        else {
            return Ok(None);
        };
        let Some(path) = keystore_file(folder, address)? else { return Ok(None) };
        let unusable = || self.unusable.lock().unwrap_or_else(PoisonError::into_inner);
        if unusable().get(&path).is_some_and(|tried_at| tried_at.elapsed() < UNUSABLE_FOR) {
            return Err(KeyError::Password { path });
        }
        let opened = PrivateKeySigner::decrypt_keystore(&path, password.expose_secret());
        let signer = opened.map_err(|_| {
            unusable().insert(path.clone(), Instant::now());
            KeyError::Password { path }
        })?;
        if signer.address() != address {
            return Ok(None);
        }
        let wallet = Wallet::new(signer);
        known().insert(address, wallet.clone());
        Ok(Some(wallet))
    }
}

impl Keys {
    /// The account of the mnemonic with that address. Each account is derived when it is first passed
    /// on the way to the one that is sought: it takes two thousand hashes.
    fn of_mnemonic(&self, address: Address) -> Option<Wallet> {
        let phrase = self.sources.mnemonic.as_ref()?;
        let mut n_derived = self.n_derived.lock().unwrap_or_else(PoisonError::into_inner);
        while *n_derived < N_MNEMONIC_ACCOUNTS {
            let signer = mnemonic_account(phrase, *n_derived)?;
            *n_derived = n_derived.saturating_add(1);
            let wallet = Wallet::new(signer);
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.insert(wallet.address(), wallet.clone());
            if wallet.address() == address {
                return Some(wallet);
            }
        }
        None
    }
}

fn mnemonic_account(phrase: &SecretString, index: u32) -> Option<PrivateKeySigner> {
    MnemonicBuilder::english().phrase(phrase.expose_secret().trim()).index(index).ok()?.build().ok()
}

/// The file that names `address`: in its `address` field, or at the end of its own name.
fn keystore_file(folder: &Path, address: Address) -> Result<Option<PathBuf>, KeyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| KeyError::Keystore { path, source }
    };
    let wanted = format!("{address:x}");
    let wanted = wanted.trim_start_matches("0x");
    for entry in std::fs::read_dir(folder).map_err(failed(folder))?.take(N_KEYSTORE_FILES_MAX) {
        let entry = entry.map_err(failed(folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(failed(&path))?;
        if !metadata.is_file() || metadata.len() > KEYSTORE_BYTES_MAX {
            continue;
        }
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if name.trim_end_matches(".json").ends_with(wanted) {
            return Ok(Some(path));
        }
        let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
        let named = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|json| json.get("address")?.as_str().map(str::to_lowercase));
        if named.is_some_and(|named| named.trim_start_matches("0x") == wanted) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
