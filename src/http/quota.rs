//! What callers are told of their limits: `RateLimit` and `RateLimit-Policy`
//! (draft-ietf-httpapi-ratelimit-headers-11, May 2026).
//!
//! `RateLimit-Policy` names a quota `q` and its window `w` in seconds. We hold to a rate, not to windows:
//! `q` is what may be asked at once after a rest, and `w` the time in which that is whole again, rounded
//! up. `qu="concurrent-requests"` is how many may be under way. `RateLimit` says how many are left, `r`,
//! and for how many seconds no more than that may be asked, `t`: until there is room for one more, rounded
//! up. On a 429, `Retry-After` is the same number, as section 6 of the draft wants it.

use actix_web::{
    HttpMessage as _,
    dev::ServiceResponse,
    http::header::{HeaderName, HeaderValue},
};

use crate::limits::Allowance;

use super::error::whole_seconds;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Tells the merchant what it may ask, if it was asked who it is and what it wants was counted.
pub(super) fn tell<B>(response: &mut ServiceResponse<B>) {
    let Some(allowance) = response.request().extensions_mut().remove::<Allowance>() else { return };
    let headers = response.headers_mut();
    headers.insert(RATE_LIMIT_POLICY, header(&policy(&allowance)));
    headers.insert(RATE_LIMIT, header(&limit(&allowance)));
}

fn policy(allowance: &Allowance) -> String {
    let Allowance { class, rate, n_at_once_max, .. } = allowance;
    let (class, q, w) = (class.as_str(), rate.burst(), rate.window_seconds());
    format!(
        r#""{class}";q={q};w={w}, "{class}-under-way";q={n_at_once_max};qu="concurrent-requests""#
    )
}

fn limit(allowance: &Allowance) -> String {
    let (class, r) = (allowance.class.as_str(), allowance.n_left);
    format!(r#""{class}";r={r};t={}"#, whole_seconds(allowance.more_in))
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("names of classes and numbers are visible ASCII")
}
