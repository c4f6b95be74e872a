//! Merchants and keys as people see them: at the command line, in the API, and in the audit.

use serde_json::{Value, json};

use crate::domain::{ApiKeyId, Depth, KeyMode, MerchantId};

use super::{Asset, Assets, Scopes};

/// Whether a merchant's payments are taken. What was claimed before is settled whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MerchantStatus {
    /// They are.
    Active,
    /// Not for now. The merchant may read.
    Suspended,
    /// Never again.
    Closed,
}

impl MerchantStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Active, Self::Suspended, Self::Closed];

    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Closed => "closed",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// A merchant. Times are RFC 3339, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merchant {
    /// Who.
    pub merchant_id: MerchantId,
    /// Under which name.
    pub name: String,
    /// Whether its payments are taken.
    pub status: MerchantStatus,
    /// Why it was last suspended, resumed or closed.
    pub status_reason: Option<String>,
    /// How deep its payments must stand before it is told success.
    pub wait_for: Depth,
    /// What it may be paid in.
    pub assets: Assets,
    /// Since when.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

impl Merchant {
    /// The JSON of the API.
    pub fn shown(&self) -> Value {
        json!({
            "merchantId": self.merchant_id.as_uuid(),
            "name": self.name,
            "status": self.status.as_str(),
            "statusReason": self.status_reason,
            "waitFor": self.wait_for.as_str(),
            "assets": self.assets.shown(),
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        })
    }
}

impl Assets {
    /// The JSON of the API: `"any"`, or a list.
    pub fn shown(&self) -> Value {
        match self.listed() {
            [] => json!(self.to_string()),
            assets => assets.iter().map(Asset::to_string).collect(),
        }
    }
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOwner {
    /// A merchant's.
    Merchant(MerchantId),
    /// An operator's.
    Operator,
}

impl KeyOwner {
    /// The merchant, if it is one's.
    pub const fn merchant_id(self) -> Option<MerchantId> {
        match self {
            Self::Merchant(merchant_id) => Some(merchant_id),
            Self::Operator => None,
        }
    }

    /// The word in the database and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merchant(_) => "merchant",
            Self::Operator => "operator",
        }
    }
}

/// What is known of a key. Neither the key nor its hash. Times are RFC 3339, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Which.
    pub api_key_id: ApiKeyId,
    /// Whose.
    pub owner: KeyOwner,
    /// For which chains.
    pub mode: KeyMode,
    /// For what.
    pub scopes: Scopes,
    /// What its owner calls it.
    pub name: Option<String>,
    /// Its beginning.
    pub label: String,
    /// Since when.
    pub created_at: String,
    /// Until when, if it ends.
    pub expires_at: Option<String>,
    /// When it was last used, as far as was written.
    pub last_used_at: Option<String>,
    /// Since when it is void.
    pub revoked_at: Option<String>,
    /// The key that took its place.
    pub replaced_by: Option<ApiKeyId>,
    /// Whether it works now.
    pub is_valid: bool,
    /// How long it was made to live.
    pub lifetime_seconds: Option<i64>,
}

impl KeyRecord {
    /// The JSON of the API.
    pub fn shown(&self) -> Value {
        json!({
            "keyId": self.api_key_id.as_uuid(),
            "role": self.owner.as_str(),
            "merchantId": self.owner.merchant_id().map(MerchantId::as_uuid),
            "mode": self.mode.as_str(),
            "scopes": self.scopes.words(),
            "name": self.name,
            "label": self.label,
            "isValid": self.is_valid,
            "createdAt": self.created_at,
            "expiresAt": self.expires_at,
            "lastUsedAt": self.last_used_at,
            "revokedAt": self.revoked_at,
            "replacedBy": self.replaced_by.map(ApiKeyId::as_uuid),
        })
    }

    /// The same as the audit keeps it: when it was used is no change of anybody's.
    pub(super) fn recorded(&self) -> Value {
        let mut shown = self.shown();
        if let Some(members) = shown.as_object_mut() {
            members.remove("lastUsedAt");
        }
        shown
    }

    pub(super) fn subject(&self) -> String {
        self.api_key_id.as_uuid().to_string()
    }
}
