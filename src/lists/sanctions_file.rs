//! The format of the sanctions file (docs/lists.md): a header with a checksum, and an address a line.

use std::collections::HashSet;

use alloy::{hex, primitives::Address};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::domain::UnixTime;

/// The first line.
const MAGIC: &str = "quittance-sanctions 1";
/// How many addresses a file may hold; 40 bytes each in every process. OFAC names a few hundred.
const N_ADDRESSES_MAX: usize = 1_000_000;
/// The longest file.
pub(super) const N_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The longest value of a header line.
const VALUE_CHARS_MAX: usize = 150;

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanctionsHeader {
    /// Who made the list.
    pub source: String,
    /// What its maker calls this version.
    pub version: String,
    /// As of when it stands.
    pub date: UnixTime,
    /// The SHA-256 of everything below the header, in hex.
    pub sha256: String,
}

/// A sanctions file that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanctionsFile {
    header: SanctionsHeader,
    addresses: HashSet<Address>,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SanctionsFileError {
    /// It is too long.
    #[error("it is longer than {N_BYTES_MAX} bytes")]
    TooLong,
    /// It is not text.
    #[error("it is not UTF-8")]
    NotText,
    /// It begins otherwise.
    #[error("its first line is not `{MAGIC}`")]
    NotOfUs,
    /// The header does not end.
    #[error("no empty line ends its header")]
    Endless,
    /// A line of the header cannot be read.
    #[error("line {line} is none of the header: {text:?}")]
    OddHeader {
        /// Which.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// The header lacks a line, or has it twice, or its value makes no sense.
    #[error("its header needs `{0}`, once, and with a value that can be read")]
    Header(&'static str),
    /// Something is missing, or was changed.
    #[error("its header names the checksum {named}, and what follows has {found}: it is not whole")]
    Checksum {
        /// By the header.
        named: String,
        /// By what follows.
        found: String,
    },
    /// A line is no address.
    #[error("line {line} is not an address: {text:?}")]
    NotAnAddress {
        /// Which.
        line: usize,
        /// Its beginning.
        text: String,
    },
    /// There are too many.
    #[error("it names more than {N_ADDRESSES_MAX} addresses")]
    TooMany,
}

impl SanctionsFile {
    /// Reads a file; all of it, or nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, SanctionsFileError> {
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > N_BYTES_MAX {
            return Err(SanctionsFileError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| SanctionsFileError::NotText)?;
        let rest = text.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix('\n'));
        let rest = rest.ok_or(SanctionsFileError::NotOfUs)?;
        let (head, body) = rest.split_once("\n\n").ok_or(SanctionsFileError::Endless)?;
        let header = header(head)?;
        let found = checksum(body);
        if found != header.sha256 {
            return Err(SanctionsFileError::Checksum { named: header.sha256, found });
        }
        // The first line of the body comes after the first line, the header and the empty line.
        let first_line = head.lines().count().saturating_add(3);
        Ok(Self { header, addresses: addresses(body, first_line, N_ADDRESSES_MAX)? })
    }

    /// What the file says of itself.
    pub const fn header(&self) -> &SanctionsHeader {
        &self.header
    }

    /// Whether it names that address.
    pub fn names(&self, address: Address) -> bool {
        self.addresses.contains(&address)
    }

    /// How many addresses it names.
    pub fn n_addresses(&self) -> usize {
        self.addresses.len()
    }

    /// What it is, for people and for the record.
    pub fn told(&self) -> Value {
        json!({
            "source": self.header.source,
            "version": self.header.version,
            "date": self.header.date.to_rfc3339(),
            "sha256": self.header.sha256,
            "addresses": self.n_addresses(),
        })
    }
}

/// A file with that header and with what follows it: an address a line. Its checksum is made here.
pub fn seal(
    source: &str,
    version: &str,
    date: UnixTime,
    body: &str,
) -> Result<String, SanctionsFileError> {
    let (date, sha256) = (date.to_rfc3339(), checksum(body));
    let file = format!(
        "{MAGIC}\nsource: {source}\nversion: {version}\ndate: {date}\nsha256: {sha256}\n\n{body}"
    );
    SanctionsFile::parse(file.as_bytes()).map(|_| file)
}

fn checksum(body: &str) -> String {
    hex::encode(Sha256::digest(body.as_bytes()))
}

fn header(head: &str) -> Result<SanctionsHeader, SanctionsFileError> {
    const NAMES: [&str; 4] = ["source", "version", "date", "sha256"];
    let mut values: [Option<&str>; 4] = [None; 4];
    for (line, text) in (2_usize..).zip(head.lines()) {
        let odd = || SanctionsFileError::OddHeader { line, text: beginning(text) };
        let (name, value) = text.split_once(':').ok_or_else(odd)?;
        let known = NAMES.iter().zip(&mut values).find(|(known, _)| **known == name);
        let (name, kept) = known.ok_or_else(odd)?;
        if kept.replace(value.trim()).is_some() {
            return Err(SanctionsFileError::Header(name));
        }
    }
    let [source, version, date, sha256] = values;
    let text = |name: &'static str, value: Option<&str>| {
        let is_one = |value: &&str| {
            (1..=VALUE_CHARS_MAX).contains(&value.chars().count())
                && !value.chars().any(char::is_control)
        };
        value.filter(is_one).map(str::to_owned).ok_or(SanctionsFileError::Header(name))
    };
    let date = text("date", date)?;
    let sha256 = text("sha256", sha256)?.to_ascii_lowercase();
    if sha256.len() != 64 || hex::decode(&sha256).is_err() {
        return Err(SanctionsFileError::Header("sha256"));
    }
    Ok(SanctionsHeader {
        source: text("source", source)?,
        version: text("version", version)?,
        date: UnixTime::parse_rfc3339(&date).map_err(|_| SanctionsFileError::Header("date"))?,
        sha256,
    })
}

fn addresses(
    body: &str,
    first_line: usize,
    n_max: usize,
) -> Result<HashSet<Address>, SanctionsFileError> {
    let mut addresses = HashSet::new();
    for (line, text) in (first_line..).zip(body.lines()) {
        let address = text.split('#').next().unwrap_or_default().trim();
        if address.is_empty() {
            continue;
        }
        let read = address.strip_prefix("0x").and_then(|digits| digits.parse().ok());
        let odd = || SanctionsFileError::NotAnAddress { line, text: beginning(text) };
        addresses.insert(read.ok_or_else(odd)?);
        if addresses.len() > n_max {
            return Err(SanctionsFileError::TooMany);
        }
    }
    Ok(addresses)
}

fn beginning(text: &str) -> String {
    const TOLD_CHARS_MAX: usize = 60;
    text.chars().take(TOLD_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::{SanctionsFile, SanctionsFileError, addresses, checksum, seal};
    use crate::domain::UnixTime;

    const ADDRESS: &str = "0x7f367cc41522ce07553e823bf3be79a889debe1b";

    fn sealed(body: &str) -> Result<String, SanctionsFileError> {
        seal("somebody", "7", UnixTime::from_seconds(1_782_907_200), body)
    }

    #[test]
    fn a_sealed_file_is_read_again() {
        let body =
            format!("# a comment\n{ADDRESS} # whose\n\n  0x{}\n{ADDRESS}\n", "aB".repeat(20));
        let file = sealed(&body).unwrap();
        let read = SanctionsFile::parse(file.as_bytes()).unwrap();
        assert_eq!((read.n_addresses(), read.header().version.as_str()), (2, "7"));
        assert!(read.names(ADDRESS.parse().unwrap()));
        assert!(!read.names("0x7f367cc41522ce07553e823bf3be79a889debe1c".parse().unwrap()));
        let told = read.told();
        assert_eq!(told["date"], "2026-07-01T12:00:00Z");
        assert_eq!(told["sha256"], checksum(&body));
        // The documented recipe may write the checksum in capitals, and the lines in any order.
        let by_hand = format!(
            "quittance-sanctions 1\nsha256: {}\ndate: 2026-07-01T14:00:00+02:00\nversion: 7\n\
             source: somebody\n\n{body}",
            checksum(&body).to_uppercase()
        );
        assert_eq!(SanctionsFile::parse(by_hand.as_bytes()).unwrap(), read);
        assert_eq!(SanctionsFile::parse(sealed("").unwrap().as_bytes()).unwrap().n_addresses(), 0);
    }

    #[test]
    fn what_is_broken_anywhere_is_refused_whole() {
        let file = sealed(&format!("{ADDRESS}\n{ADDRESS}\n")).unwrap();
        let refused = |text: &str| SanctionsFile::parse(text.as_bytes()).unwrap_err();
        // Cut anywhere.
        for n in 0..file.len() {
            refused(&file[..n]);
        }
        for (from, to, told) in [
            ("quittance-sanctions 1", "quittance-sanctions 2", "first line"),
            ("quittance-sanctions 1", "\u{feff}quittance-sanctions 1", "first line"),
            ("source: somebody\n", "", "`source`"),
            ("source: somebody", "source: ", "`source`"),
            ("source: somebody", "source: a\nsource: b", "`source`"),
            ("source: somebody", "sauce: somebody", "line 2"),
            ("source: somebody", "somebody", "line 2"),
            ("version: 7", &format!("version: {}", "7".repeat(151)), "`version`"),
            ("2026-07-01T12:00:00Z", "2026-07-01", "`date`"),
            ("sha256: ", "sha256: 0", "`sha256`"),
            ("0x7f", "0x7e", "checksum"),
            ("\n\n", "\n", "ends its header"),
            ("\n", "\r\n", "first line"),
        ] {
            let error = refused(&file.replace(from, to)).to_string();
            assert!(error.contains(told), "{from:?} -> {to:?}: {error}");
        }
        assert_eq!(SanctionsFile::parse(&[0xff]), Err(SanctionsFileError::NotText));
        for (body, line) in [("0x12\n", 7), (&format!("\n#\n{}\n", &ADDRESS[2..]), 9)] {
            let error = sealed(body).unwrap_err();
            let is_it =
                matches!(error, SanctionsFileError::NotAnAddress { line: at, .. } if at == line);
            assert!(is_it, "{error}");
        }
    }

    #[test]
    fn a_file_has_a_limit() {
        let many = |n: usize| (0..n).map(|n| format!("0x{n:040x}\n")).collect::<String>();
        // With fewer than the limit of files, which takes long to reach.
        assert_eq!(addresses(&many(100), 1, 100).unwrap().len(), 100);
        assert_eq!(addresses(&many(101), 1, 100), Err(SanctionsFileError::TooMany));
        let same = many(1).repeat(101);
        assert_eq!(addresses(&same, 1, 100).unwrap().len(), 1);
        let n_bytes = usize::try_from(super::N_BYTES_MAX).unwrap();
        assert_eq!(
            SanctionsFile::parse(&vec![b'#'; n_bytes + 1]),
            Err(SanctionsFileError::TooLong)
        );
    }
}
