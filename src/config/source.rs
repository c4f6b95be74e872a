//! Where settings come from, the later winning: file, environment, files that the environment names.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use alloy::primitives::Address;
use config::{Config, Environment, File};
use serde::{Deserialize, Deserializer};

use crate::domain::{ChainId, ChainIdError};

use super::{ConfigError, Settings};

/// Variables are `QUITTANCE__SECTION__KEY`.
const PREFIX: &str = "QUITTANCE";
const SEPARATOR: &str = "__";
/// `QUITTANCE__SECTION__KEY_FILE` names a file that holds the value, as secret stores mount them.
const FILE_SUFFIX: &str = "_FILE";

/// Reads settings from `file` (TOML or YAML by its ending) and from `variables`.
///
/// # Errors
/// When anything is missing, unreadable, unknown or out of range; the message names the key.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    let mut builder = Config::builder();
    if let Some(file) = file {
        builder = builder.add_source(File::from(file));
    }
    let variables = resolve_files(variables)?;
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .source(Some(variables));
    let settings: Settings = builder.add_source(environment).build()?.try_deserialize()?;
    settings.check()
}

fn resolve_files(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<HashMap<String, String>, ConfigError> {
    let mut resolved = HashMap::new();
    let ours = format!("{PREFIX}{SEPARATOR}");
    for (variable, value) in variables {
        if !variable.starts_with(&ours) {
            continue;
        }
        match variable.strip_suffix(FILE_SUFFIX) {
            Some(target) => {
                let path = PathBuf::from(value);
                let content = std::fs::read_to_string(&path).map_err(|source| {
                    ConfigError::SecretFile { variable: variable.clone(), path, source }
                })?;
                resolved.insert(target.to_owned(), content.trim_end().to_owned());
            }
            None => {
                resolved.entry(variable).or_insert(value);
            }
        }
    }
    Ok(resolved)
}

pub(super) fn chain_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChainId, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| {
        let problem = match error {
            ChainIdError::Malformed => "is not CAIP-2, such as eip155:8453",
            ChainIdError::UnsupportedNamespace => "is not an EVM chain",
        };
        serde::de::Error::custom(format!("{text:?} {problem}"))
    })
}

/// An amount of wei. It can be larger than the integers of files, and variables hold text.
pub(super) fn wei<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    let not_wei = |_| serde::de::Error::custom(format!("{text:?} is not a whole number of wei"));
    text.parse().map_err(not_wei)
}

/// Addresses: a list of them in files, and text with commas, which is what variables hold.
pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Address>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Listed {
        Text(String),
        List(Vec<String>),
    }
    let listed = match Listed::deserialize(deserializer)? {
        Listed::Text(text) if text.trim().is_empty() => Vec::new(),
        Listed::Text(text) => text.split(',').map(str::to_owned).collect(),
        Listed::List(list) => list,
    };
    let parsed = listed.iter().map(|text| parse_address(text));
    parsed.collect::<Result<_, _>>().map(Some).map_err(serde::de::Error::custom)
}

/// One address. An empty text is none, so that a variable can take back what a file says.
pub(super) fn address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Address>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    parse_address(&text).map(Some).map_err(serde::de::Error::custom)
}

fn parse_address(text: &str) -> Result<Address, String> {
    let problem = || format!("{text:?} is not an address, 0x and 40 hex digits");
    let digits = text.trim().strip_prefix("0x").ok_or_else(problem)?;
    digits.parse().map_err(|_| problem())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use secrecy::ExposeSecret;

    use super::load;

    const FILE: &str = r#"
        [database]
        url = "postgres://file"
        [chains.base]
        id = "eip155:8453"
        rpc_url = "http://127.0.0.1:1"
        wallet_private_key = "0x01"
    "#;

    fn file(content: &str) -> std::path::PathBuf {
        let name = format!("quittance-config-{}.toml", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        path
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn amounts_of_wei_are_read_from_files_and_variables() {
        let in_file = file(&format!("{FILE}\nfee_wei_max = 2000000000\n"));
        let fees = |variable: &str| {
            let variables =
                variables(&[("QUITTANCE__CHAINS__BASE__PRIORITY_FEE_WEI_MAX", variable)]);
            load(Some(&in_file), variables).map(|settings| {
                let chain = settings.chains.get("base").unwrap();
                (chain.fee_wei_max, chain.priority_fee_wei_max)
            })
        };
        assert_eq!(fees("30000000").unwrap(), (2_000_000_000, 30_000_000));
        let beyond_integers = "340282366920938463463374607431768211455";
        assert_eq!(fees(beyond_integers).unwrap().1, u128::MAX);
        for wrong in ["-1", "1.5", "1 gwei", ""] {
            let problem = fees(wrong).unwrap_err().to_string();
            assert!(problem.contains("is not a whole number of wei"), "{wrong:?}: {problem}");
        }
    }

    #[test]
    fn factories_are_a_list_or_separated_by_commas_and_can_be_none() {
        let (first, second) =
            ("0x".to_owned() + &"1".repeat(40), "0x".to_owned() + &"aB".repeat(20));
        let in_file = |value: &str| {
            let path = file(&format!("{FILE}\nwallet_factories = {value}\n"));
            load(Some(&path), []).map(|settings| settings.chains["base"].wallet_factories.clone())
        };
        let in_variable = |value: &str| {
            let variables = variables(&[("QUITTANCE__CHAINS__BASE__WALLET_FACTORIES", value)]);
            load(Some(&file(FILE)), variables)
                .map(|settings| settings.chains["base"].wallet_factories.clone())
        };
        let both = Some(vec![first.parse().unwrap(), second.parse().unwrap()]);
        assert_eq!(in_file(&format!("[{first:?}, {second:?}]")).unwrap(), both);
        assert_eq!(in_file(&format!("{:?}", format!("{first}, {second}"))).unwrap(), both);
        assert_eq!(in_variable(&format!(" {first},{second} ")).unwrap(), both);
        for none in [in_file("[]"), in_file("\"\""), in_variable("")] {
            assert_eq!(none.unwrap(), Some(Vec::new()));
        }
        assert_eq!(load(Some(&file(FILE)), []).unwrap().chains["base"].wallet_factories, None);
        for wrong in ["0x1234", &first[2..], &format!("{first},"), &format!("{first} {second}")] {
            for error in
                [in_variable(wrong).unwrap_err(), in_file(&format!("[{wrong:?}]")).unwrap_err()]
            {
                let problem = error.to_string();
                assert!(problem.contains("is not an address"), "{wrong:?}: {problem}");
                assert!(problem.contains("wallet_factories"), "{wrong:?}: {problem}");
            }
        }
    }

    #[test]
    fn the_environment_wins_over_the_file_and_a_named_file_over_both() {
        let path = file(FILE);
        let settings = load(Some(&path), []).unwrap();
        assert_eq!(settings.database.url.expose_secret(), "postgres://file");
        assert_eq!((settings.server.port, settings.operations.port), (None, None));

        let secret = file("postgres://secret\n");
        let secret_path = secret.to_str().unwrap();
        let settings = load(
            Some(&path),
            variables(&[
                ("QUITTANCE__DATABASE__URL", "postgres://environment"),
                ("QUITTANCE__DATABASE__URL_FILE", secret_path),
                ("QUITTANCE__SERVER__PORT", "1"),
                ("QUITTANCE__OPERATIONS__HOST", "0.0.0.0"),
                ("QUITTANCE__CHAINS__BASE__TEST", "true"),
                ("UNRELATED", "x"),
            ]),
        )
        .unwrap();
        assert_eq!(settings.database.url.expose_secret(), "postgres://secret");
        assert_eq!((settings.server.port, settings.server.host.as_str()), (Some(1), "127.0.0.1"));
        assert_eq!(settings.operations.host, "0.0.0.0");
        assert!(settings.chains["base"].test);
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let path = file(FILE);
        for (pairs, named) in [
            (&[("QUITTANCE__SERVER__PROT", "1")][..], "prot"),
            (&[("QUITTANCE__SERVER__PORT", "66000")], "port"),
            (&[("QUITTANCE__REDIS__URL", "http://127.0.0.1:6379")], "redis.url"),
            (&[("QUITTANCE__REDIS__URI", "redis://127.0.0.1:6379")], "uri"),
            (&[("QUITTANCE__CHAINS__BASE__ID", "8453")], "CAIP-2"),
            (&[("QUITTANCE__CHAINS__BASE__ID", "solana:x")], "not an EVM chain"),
            (&[("QUITTANCE__SETTLE__WAIT_MS", "28001")], "settle.wait_ms"),
            (&[("QUITTANCE__CHAINS__BASE__N_IN_FLIGHT_MAX", "0")], "chains.base.n_in_flight_max"),
            (&[("QUITTANCE__CHAINS__BASE__HEAD_AGE_MAX_SECONDS", "4")], "head_age_max_seconds"),
            (&[("QUITTANCE__DATABASE__URL_FILE", "/nowhere/at/all")], "URL_FILE"),
            (&[("QUITTANCE__SANCTIONS__FILE_AGE", "1")], "file_age"),
            (&[("QUITTANCE__SANCTIONS__AGE_MAX_HOURS", "0")], "sanctions.age_max_hours"),
            (&[("QUITTANCE__SANCTIONS__POLL_SECONDS", "0")], "sanctions.poll_seconds"),
            (&[("QUITTANCE__CHAINS__BASE__SANCTIONS_ORACLE", "0x12")], "sanctions_oracle"),
        ] {
            let error = load(Some(&path), variables(pairs)).unwrap_err().to_string();
            assert!(error.contains(named), "{pairs:?} gave: {error}");
        }
        let error = load(None, []).unwrap_err().to_string();
        assert!(error.contains("database"), "{error}");
    }

    fn with_rpc_url(value: &str) -> Result<Vec<String>, String> {
        let path = file(FILE);
        let settings = load(Some(&path), variables(&[("QUITTANCE__CHAINS__BASE__RPC_URL", value)]));
        let chain = settings.map_err(|error| error.to_string())?.chains.remove("base").unwrap();
        Ok(chain.rpc_urls().iter().map(|url| url.expose_secret().to_owned()).collect())
    }

    #[test]
    fn endpoints_are_separated_by_commas_and_never_repeated_in_errors() {
        assert_eq!(with_rpc_url("http://a").unwrap(), ["http://a"]);
        assert_eq!(
            with_rpc_url(" http://a , http://b,http://c ").unwrap().concat(),
            "http://ahttp://bhttp://c"
        );
        let many = |n: usize| (0..n).map(|n| format!("http://{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(with_rpc_url(&many(8)).unwrap().len(), 8);
        for (value, told) in [
            (many(9), "names 9 endpoints; 8 are the most"),
            ("http://a,".to_owned(), "endpoint 2 of 2 is empty"),
            (" ".to_owned(), "endpoint 1 of 1 is empty"),
            ("http://a, http://b, http://a".to_owned(), "endpoint 3 of 3 is named before"),
        ] {
            let error = with_rpc_url(&value).unwrap_err();
            assert_eq!(error, format!("chains.base.rpc_url: {told}"));
        }
    }

    #[test]
    fn blocks_may_be_of_any_age_only_where_money_is_play_money() {
        let path = file(FILE);
        let test = ("QUITTANCE__CHAINS__BASE__TEST", "true");
        let set = ("QUITTANCE__CHAINS__BASE__HEAD_AGE_MAX_SECONDS", "5");
        for (pairs, expected) in
            [(&[][..], Some(60)), (&[test], None), (&[set], Some(5)), (&[test, set], Some(5))]
        {
            let settings = load(Some(&path), variables(pairs)).unwrap();
            let max = settings.chains["base"].head_age_max();
            assert_eq!(max.map(|max| max.as_secs()), expected, "{pairs:?}");
        }
    }
}
