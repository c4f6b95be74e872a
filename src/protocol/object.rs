//! A JSON object inside a request, which knows where it stands and whose fault it is.
//!
//! A field that cannot be read is refused with its path and with the kind of what was found, never
//! with the value itself: it may be a signature, or a megabyte.

use serde_json::{Map, Value};

use crate::domain::{InvalidReason, Refusal};

use super::values::Expected;

static NULL: Value = Value::Null;

/// An object and its place in the request.
#[derive(Debug, Clone)]
pub(super) struct Object<'a> {
    path: String,
    reason: InvalidReason,
    members: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The request itself, whose unreadable fields are refused with `reason`.
    pub(super) fn root(members: &'a Map<String, Value>, reason: InvalidReason) -> Self {
        Self { path: String::new(), reason, members }
    }

    /// What stands at `key`; null if nothing does.
    pub(super) fn value(&self, key: &str) -> &'a Value {
        self.members.get(key).unwrap_or(&NULL)
    }

    /// The object at `key`.
    pub(super) fn object(&self, key: &str) -> Result<Self, Refusal> {
        let members = self.read(key, |value| value.as_object().ok_or("an object"))?;
        Ok(Self { path: self.path_of(key), reason: self.reason, members })
    }

    /// What `parse` makes of the value at `key`.
    pub(super) fn read<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&'a Value) -> Result<T, Expected>,
    ) -> Result<T, Refusal> {
        let value = self.value(key);
        parse(value).map_err(|expected| {
            let complaint = format!("expected {expected}, found {}", kind_of(value));
            self.refusal(self.reason, key, &complaint)
        })
    }

    /// A refusal that names the field at `key`.
    pub(super) fn refusal(&self, reason: InvalidReason, key: &str, complaint: &str) -> Refusal {
        Refusal::new(reason, format!("{}: {complaint}", self.path_of(key)))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) => "a boolean".to_owned(),
        Value::Number(number) if number.is_u64() => "a number".to_owned(),
        Value::Number(_) => "a number that is negative, fractional or above 2^64 - 1".to_owned(),
        Value::String(text) => format!("a string of {} bytes", text.len()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
