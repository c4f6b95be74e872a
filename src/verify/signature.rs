//! Signature forms, and who made one.

use std::collections::BTreeSet;

use alloy::{
    consensus::crypto::secp256k1::recover_signer_unchecked,
    primitives::{Address, B256, Bytes, Signature, U256, address, b256},
    sol_types::SolValue,
};

use crate::domain::PayerKind;

/// The 32 bytes that end an ERC-6492 signature of a wallet that is not deployed yet.
const ERC6492_MAGIC: B256 =
    b256!("6492649264926492649264926492649264926492649264926492649264926492");

/// Half the order of secp256k1, rounded down: EIP-2 calls an `s` above it malleable.
const HALF_ORDER: U256 =
    U256::from_limbs([0xdfe9_2f46_681b_20a0, 0x5d57_6e73_57a4_501d, u64::MAX, u64::MAX >> 1]);

/// The call that deploys the payer's wallet (ERC-6492).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Deployment {
    /// The contract that deploys it.
    pub factory: Address,
    /// What the factory is asked.
    pub calldata: Bytes,
}

/// A signature out of its wrapper, if it had one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unwrapped {
    /// What the token is shown.
    pub signature: Bytes,
    /// How the wallet that judges it comes to be, if it is not there yet.
    pub deployment: Option<Deployment>,
}

impl Unwrapped {
    /// Takes the ERC-6492 wrapper off: `abi.encode(factory, calldata, signature)` and 32 magic bytes. A
    /// deployment counts only if it names a factory and asks something of it, as in npm `@x402/evm`
    /// 2.27.0 (`src/shared/verifySignature.ts`). What only ends like a wrapper is a signature as it is.
    pub fn of(bytes: &Bytes) -> Self {
        let wrapped = bytes.strip_suffix(ERC6492_MAGIC.as_slice());
        let decoded =
            wrapped.and_then(|wrapped| <(Address, Bytes, Bytes)>::abi_decode_params(wrapped).ok());
        match decoded {
            None => Self { signature: bytes.clone(), deployment: None },
            Some((factory, calldata, signature)) => {
                let is_one = !factory.is_zero() && !calldata.is_empty();
                let deployment = is_one.then_some(Deployment { factory, calldata });
                Self { signature, deployment }
            }
        }
    }
}

/// The factories whose wallets are served before they are deployed: we call them, and pay for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factories(BTreeSet<Address>);

impl Factories {
    /// Coinbase Smart Wallet 1 and 1.1 (npm viem `toCoinbaseSmartAccount`), and Safe's proxy factories
    /// 1.3.0, its EIP-155 deployment, and 1.4.1 (npm `@safe-global/safe-deployments`).
    pub const DEFAULT: [Address; 5] = [
        address!("0ba5ed0c6aa8c49038f819e587e2633c4a9f428a"),
        address!("ba5ed110efdba3d005bfc882d75358acbbb85842"),
        address!("a6b71e26c5e0845f74c812102ca7114b6a896ab2"),
        address!("c22834581ebc8527d974f8a1c97e1bea4ef910bc"),
        address!("4e1dcf7ad4e460cfd30791ccc4f9c8a4f820ec67"),
    ];

    /// Those and no others.
    pub fn of(addresses: impl IntoIterator<Item = Address>) -> Self {
        Self(addresses.into_iter().collect())
    }

    /// Whether it may be called.
    pub fn allow(&self, factory: Address) -> bool {
        self.0.contains(&factory)
    }
}

impl Default for Factories {
    fn default() -> Self {
        Self::of(Self::DEFAULT)
    }
}

/// By what the token learns that the payer agreed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Consent {
    /// The payer's own key signed: the token recovers it.
    Key(EcdsaSignature),
    /// The code at the payer's address says so (ERC-1271), once it is there.
    Contract(Unwrapped),
}

impl Consent {
    /// What the token is shown for a payer of that kind, from the signature as it was sent.
    pub fn shown(payer_kind: PayerKind, wire_signature: &Bytes) -> Self {
        let mut unwrapped = Unwrapped::of(wire_signature);
        match payer_kind {
            PayerKind::Key => {
                if let Some(signature) = EcdsaSignature::parse(wire_signature) {
                    return Self::Key(signature);
                }
            }
            PayerKind::Contract => unwrapped.deployment = None,
            PayerKind::Counterfactual => (),
        }
        Self::Contract(unwrapped)
    }

    /// The signature that the token is shown.
    pub fn signature(&self) -> Bytes {
        match self {
            Self::Key(signature) => signature.to_bytes().into(),
            Self::Contract(unwrapped) => unwrapped.signature.clone(),
        }
    }

    /// The call that comes before the payment's, if one does.
    pub const fn deployment(&self) -> Option<&Deployment> {
        match self {
            Self::Key(_) => None,
            Self::Contract(unwrapped) => unwrapped.deployment.as_ref(),
        }
    }
}

/// A 65-byte signature whose last byte is 27 or 28, as USDC wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EcdsaSignature {
    r: U256,
    s: U256,
    y_is_odd: bool,
}

impl EcdsaSignature {
    /// Reads `r ‖ s ‖ v` with `v` 0, 1, 27 or 28. EIP-2098's 64 bytes are not accepted: USDC's v, r, s
    /// overload could take them, but no x402 client sends them and the official facilitator refuses.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 65] = bytes.try_into().ok()?;
        let (r, rest) = bytes.split_first_chunk::<32>()?;
        let (s, v) = rest.split_first_chunk::<32>()?;
        let y_is_odd = match v {
            [0 | 27] => false,
            [1 | 28] => true,
            _ => return None,
        };
        Some(Self { r: U256::from_be_bytes(*r), s: U256::from_be_bytes(*s), y_is_odd })
    }

    /// Who signed `digest`, or `None` if the numbers are no point of the curve.
    ///
    /// The high-`s` twin of a signature recovers to the same address; see [`Self::has_high_s`].
    pub fn signer(&self, digest: B256) -> Option<Address> {
        let signature = Signature::new(self.r, self.s, self.y_is_odd);
        recover_signer_unchecked(&signature, digest).ok()
    }

    /// Whether the token will refuse it as malleable (EIP-2, USDC `ECRecover.sol`).
    pub fn has_high_s(&self) -> bool {
        self.s > HALF_ORDER
    }

    /// `r`, for calldata.
    pub fn r(&self) -> B256 {
        self.r.into()
    }

    /// `s`, for calldata.
    pub fn s(&self) -> B256 {
        self.s.into()
    }

    /// 27 or 28, for calldata.
    pub const fn v(&self) -> u8 {
        if self.y_is_odd { 28 } else { 27 }
    }

    /// `r ‖ s ‖ v`, with `v` 27 or 28.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(65);
        bytes.extend_from_slice(self.r().as_slice());
        bytes.extend_from_slice(self.s().as_slice());
        bytes.push(self.v());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use alloy::{
        primitives::{Address, Bytes, U256, uint},
        sol_types::SolValue,
    };

    use super::{Deployment, EcdsaSignature, HALF_ORDER, Unwrapped};

    const ORDER: U256 =
        uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);

    fn signature(s: U256, v: u8) -> Vec<u8> {
        let mut bytes = vec![1_u8; 32];
        bytes.extend_from_slice(&s.to_be_bytes::<32>());
        bytes.push(v);
        bytes
    }

    #[test]
    fn only_four_values_of_v_are_a_signature() {
        for v in 0..=u8::MAX {
            let parsed = EcdsaSignature::parse(&signature(U256::from(1), v));
            let expected = match v {
                0 | 27 => Some(27),
                1 | 28 => Some(28),
                _ => None,
            };
            assert_eq!(parsed.map(|s| s.v()), expected, "v = {v}");
        }
    }

    #[test]
    fn s_is_high_from_one_above_half_the_order() {
        assert_eq!(HALF_ORDER, ORDER >> 1);
        let is_high = |s| EcdsaSignature::parse(&signature(s, 27)).unwrap().has_high_s();
        assert!(!is_high(HALF_ORDER));
        assert!(is_high(HALF_ORDER + U256::from(1)));
    }

    #[test]
    fn a_wrapper_is_taken_off_and_what_only_looks_like_one_is_left() {
        let inner = Bytes::from(signature(U256::from(1), 27));
        let factory = Address::repeat_byte(7);
        let wrap = |factory: Address, calldata: Bytes| {
            let mut bytes = (factory, calldata, inner.clone()).abi_encode_params();
            bytes.extend([0x64, 0x92].repeat(16));
            Bytes::from(bytes)
        };
        let calldata = Bytes::from_static(&[1, 2, 3]);
        let deployment = Deployment { factory, calldata: calldata.clone() };
        for (bytes, deployment) in [
            (wrap(factory, calldata.clone()), Some(deployment)),
            (wrap(factory, Bytes::new()), None),
            (wrap(Address::ZERO, calldata), None),
            (inner.clone(), None),
        ] {
            let expected = Unwrapped { signature: inner.clone(), deployment };
            assert_eq!(Unwrapped::of(&bytes), expected, "{bytes}");
        }
        let lookalike = Bytes::from([0x64, 0x92].repeat(16));
        assert_eq!(Unwrapped::of(&lookalike).signature, lookalike);
    }

    #[test]
    fn a_parsed_signature_is_written_with_27_or_28() {
        let (given, written) = (signature(U256::from(1), 1), signature(U256::from(1), 28));
        assert_eq!(EcdsaSignature::parse(&given).unwrap().to_bytes(), written);
        for n_bytes in [0, 64, 66] {
            assert_eq!(EcdsaSignature::parse(&vec![0; n_bytes]), None, "{n_bytes} bytes");
        }
    }
}
