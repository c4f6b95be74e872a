//! Signature forms, and who made one.

use alloy::{
    consensus::crypto::secp256k1::recover_signer_unchecked,
    primitives::{Address, B256, Signature, U256, b256},
};

/// The 32 bytes that end an ERC-6492 signature of a wallet that is not deployed yet.
const ERC6492_MAGIC: B256 =
    b256!("6492649264926492649264926492649264926492649264926492649264926492");

/// Half the order of secp256k1, rounded down: EIP-2 calls an `s` above it malleable.
const HALF_ORDER: U256 =
    U256::from_limbs([0xdfe9_2f46_681b_20a0, 0x5d57_6e73_57a4_501d, u64::MAX, u64::MAX >> 1]);

/// What the bytes of a signature look like, before anything is checked with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureForm {
    /// `r ‖ s ‖ v`, the form an externally owned account makes.
    Ecdsa(EcdsaSignature),
    /// Wrapped for a wallet that a factory has yet to deploy.
    Erc6492,
    /// Anything else. A contract might accept it; no externally owned account made it.
    Other,
}

impl SignatureForm {
    /// Tells the form from the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.ends_with(ERC6492_MAGIC.as_slice()) {
            return Self::Erc6492;
        }
        EcdsaSignature::parse(bytes).map_or(Self::Other, Self::Ecdsa)
    }
}

/// A 65-byte signature whose last byte is 27 or 28, as USDC wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    use alloy::primitives::{U256, uint};

    use super::{EcdsaSignature, HALF_ORDER, SignatureForm};

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
    fn forms_are_told_apart() {
        let mut wrapped = signature(U256::from(1), 27);
        wrapped.extend([0x64, 0x92].repeat(16));
        assert_eq!(SignatureForm::of(&wrapped), SignatureForm::Erc6492);
        for bytes in [&[][..], &[0; 64], &[0; 66]] {
            assert_eq!(SignatureForm::of(bytes), SignatureForm::Other, "{} bytes", bytes.len());
        }
        let plain = signature(U256::from(1), 28);
        assert!(matches!(SignatureForm::of(&plain), SignatureForm::Ecdsa(_)));
        assert_eq!(EcdsaSignature::parse(&plain).unwrap().to_bytes(), plain);
    }
}
