//! The command line: what it prints, and the status it ends with.

use std::process::Output;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    callers::{quittance, quittance_with, stderr, stdout},
    support::World,
};

/// `EX_USAGE`: arguments or settings that cannot be used.
const USAGE: i32 = 64;
/// An account of nobody's.
const ADDRESS: &str = "0x1111111111111111111111111111111111111111";

fn assert_ended(output: &Output, status: i32, what: &str) {
    let said = format!("{}\n{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(status), "{what}: {said}");
    if status != 0 {
        assert!(!said.trim().is_empty(), "{what}: a failure says why");
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
}

/// Settings that are complete, of a database and a chain that are nowhere.
fn nowhere() -> Vec<(&'static str, String)> {
    [
        ("QUITTANCE__DATABASE__URL", "postgres://nobody@127.0.0.1:1/nothing"),
        ("QUITTANCE__KEYS__PEPPER", "0123456789abcdef0123456789abcdef"),
        ("QUITTANCE__CHAINS__LOCAL__ID", "eip155:8453"),
        ("QUITTANCE__CHAINS__LOCAL__RPC_URL", "http://127.0.0.1:1"),
        (
            "QUITTANCE__CHAINS__LOCAL__WALLET_PRIVATE_KEY",
            "0x1111111111111111111111111111111111111111111111111111111111111111",
        ),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_version_succeed_and_wrong_arguments_are_64() {
    let help = quittance_with(&[], &["--help"]).await;
    assert_ended(&help, 0, "--help");
    for command in [
        "dev",
        "serve",
        "migrate",
        "doctor",
        "merchant",
        "wallet",
        "key",
        "audit",
        "list",
        "sanctions",
    ] {
        assert!(stdout(&help).contains(command), "{}", stdout(&help));
        assert_ended(&quittance_with(&[], &[command, "--help"]).await, 0, command);
    }
    let version = quittance_with(&[], &["--version"]).await;
    assert_ended(&version, 0, "--version");
    assert_eq!(stdout(&version), concat!("quittance ", env!("CARGO_PKG_VERSION")));
    for wrong in [
        &[][..],
        &["nonsense"],
        &["--nonsense"],
        &["serve", "now"],
        &["serve", "--port", "1"],
        &["merchant"],
        &["merchant", "create"],
        &["merchant", "create", "x", "--wait-for", "deep"],
        &["merchant", "set", "x"],
        &["wallet"],
        &["wallet", "add"],
        &["wallet", "add", "--chain", "local"],
        &["wallet", "add", "--address", ADDRESS],
        &["wallet", "add", "--chain", "local", "--address", "0x12"],
        &["wallet", "add", "--chain", "local", "--mnemonic-index", "64"],
        &["wallet", "add", "--chain", "local", "--mnemonic-index", "0", "--address", ADDRESS],
        &["wallet", "add", "--chain", "nowhere", "--address", ADDRESS],
        &["wallet", "list", "--chain", "nowhere"],
        &["wallet", "pause"],
        &["wallet", "pause", "0x12"],
        &["wallet", "resume", "the first"],
        &["wallet", "drain", "1", "2"],
        &["key", "create"],
        &["key", "create", "--operator", "--merchant", "x"],
        &["list"],
        &["list", "add", ADDRESS],
        &["list", "add", "--kind", "payer", "--verb", "deny"],
        &["list", "add", "--kind", "buyer", "--verb", "deny", ADDRESS],
        &["list", "add", "--kind", "payer", "--verb", "forbid", ADDRESS],
        &["list", "add", "--kind", "payer", "--verb", "deny", "--chain", "base", ADDRESS],
        &["list", "refusals", "--limit", "1001"],
        &["sanctions", "check"],
        &["sanctions", "seal", "--source", "x"],
        &["sanctions", "seal", "--source", "x", "--list-version", "1", "--date", "today"],
        &["doctor", "--json", "--json"],
        &["dev", "--port", "65536"],
        &["--config"],
    ] {
        assert_ended(&quittance_with(&nowhere(), wrong).await, USAGE, &format!("{wrong:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_settings_are_64_and_named() {
    const COMMANDS: [&[&str]; 6] = [
        &["serve"],
        &["migrate"],
        &["doctor"],
        &["merchant", "create", "x"],
        &["merchant", "set", "x", "--wait-for", "safe"],
        &["key", "create", "--operator"],
    ];
    let without = |key: &str| {
        let mut settings = nowhere();
        settings.retain(|(name, _)| *name != key);
        settings
    };
    let and = |key, value: &str| [nowhere(), vec![(key, value.to_owned())]].concat();
    for (settings, named) in [
        (Vec::new(), "database"),
        (without("QUITTANCE__DATABASE__URL"), "database"),
        (without("QUITTANCE__CHAINS__LOCAL__RPC_URL"), "rpc_url"),
        (without("QUITTANCE__CHAINS__LOCAL__ID"), "id"),
        (and("QUITTANCE__DATABSE__URL", "x"), "databse"),
        (and("QUITTANCE__CHAINS__LOCAL__RPC_URI", "x"), "rpc_uri"),
        (and("QUITTANCE__SERVER__PORT", "x"), "server.port"),
        (and("QUITTANCE__SERVER__N_TRUSTED_PROXIES", "17"), "server.n_trusted_proxies"),
        (and("QUITTANCE__KEYS__PEPPER", "0123456789abcdef0123456789abcde"), "keys.pepper"),
        (and("QUITTANCE__LIMITS__FAILED_ATTEMPTS_BURST", "0"), "limits.failed_attempts_burst"),
        (and("QUITTANCE__SETTLE__WAIT_MS", "99"), "settle.wait_ms"),
        (and("QUITTANCE__SETTLE__WAIT_MS", "28001"), "settle.wait_ms"),
        (and("QUITTANCE__LIMITS__VERIFY_PER_SECOND", "0"), "limits.verify_per_second"),
        (and("QUITTANCE__LIMITS__SETTLE_PER_SECOND", "100001"), "limits.settle_per_second"),
        (and("QUITTANCE__LIMITS__READ_BURST", "60001"), "limits.read_burst"),
        (and("QUITTANCE__LIMITS__ADDRESS_BURST", "0"), "limits.address_burst"),
        (and("QUITTANCE__LIMITS__READ_UNDER_WAY_MAX", "10001"), "limits.read_under_way_max"),
        (and("QUITTANCE__SERVER__N_TRUSTED_PROXIES", "17"), "server.n_trusted_proxies"),
        (and("QUITTANCE__CHAINS__TWIN__ID", "eip155:8453"), "twin"),
        (and("QUITTANCE__DATABASE__URL_FILE", "/nowhere"), "QUITTANCE__DATABASE__URL_FILE"),
    ] {
        for command in COMMANDS {
            let output = quittance_with(&settings, command).await;
            assert_ended(&output, USAGE, named);
            let said = stderr(&output);
            assert!(said.contains(named), "{command:?} does not name {named}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    // What signs nothing needs no key.
    let keyless = without("QUITTANCE__CHAINS__LOCAL__WALLET_PRIVATE_KEY");
    for command in COMMANDS.into_iter().chain([&["wallet", "list"][..]]) {
        let needs_none = ["migrate", "wallet"].contains(&command[0]);
        let output = quittance_with(&keyless, command).await;
        assert_ended(&output, if needs_none { 1 } else { USAGE }, "no hot wallet");
        let named = if needs_none { "database" } else { "wallet_private_key" };
        assert!(stderr(&output).contains(named), "{command:?}: {}", stderr(&output));
    }
    let output = quittance_with(&nowhere(), &["--config", "/nowhere.toml", "serve"]).await;
    assert_ended(&output, USAGE, "no settings file");
    assert!(stderr(&output).contains("/nowhere.toml"), "{}", stderr(&output));
    // Usable settings of things that are not there are no usage error.
    let settings = nowhere();
    let asked = COMMANDS.map(|command| quittance_with(&settings, command));
    for (command, output) in COMMANDS.into_iter().zip(join_all(asked).await) {
        assert_ended(&output, 1, &format!("{command:?} without a database"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_key_that_is_none_is_said_without_repeating_it() {
    let world = World::automine().await;
    for (what, wrong) in [("too short", "0x12345678"), ("zero", &*format!("0x{}", "0".repeat(64)))]
    {
        let mut settings = world.environment();
        settings.retain(|(name, _)| *name != "QUITTANCE__CHAINS__LOCAL__WALLET_PRIVATE_KEY");
        settings.push(("QUITTANCE__CHAINS__LOCAL__WALLET_PRIVATE_KEY", wrong.to_owned()));
        for command in ["serve", "doctor"] {
            let output = quittance_with(&settings, &[command]).await;
            assert!(!output.status.success(), "{what}");
            let said = format!("{}{}", stdout(&output), stderr(&output));
            assert!(said.contains("wallet"), "{said}");
            assert!(!said.contains(wrong), "{said}");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_well_and_what_is_not() {
    let world = World::automine().await;
    let well = quittance(&world, &["doctor"]).await;
    assert_ended(&well, 0, "doctor");
    assert_eq!(stdout(&well).lines().count(), 4, "{}", stdout(&well));
    assert!(stdout(&well).lines().all(|line| line.starts_with("ok")), "{}", stdout(&well));
    let well = quittance(&world, &["doctor", "--json"]).await;
    assert_ended(&well, 0, "doctor --json");
    let findings: Value = serde_json::from_str(stdout(&well)).unwrap();
    let subjects: Vec<_> = findings.as_array().unwrap().iter().map(|f| &f["subject"]).collect();
    assert_eq!(subjects, ["database", "keys", "chains.local", "chains.local.wallet"]);

    let empty = world.services.postgres.fresh_database("empty").await.unwrap();
    let poor = format!("0x{}", "42".repeat(32));
    let ills = [
        ("QUITTANCE__DATABASE__URL", empty.as_str(), "database"),
        ("QUITTANCE__DATABASE__URL", "postgres://nobody@127.0.0.1:1/nothing", "database"),
        ("QUITTANCE__CHAINS__LOCAL__RPC_URL", "http://127.0.0.1:1", "chains.local"),
        ("QUITTANCE__CHAINS__LOCAL__RPC_URL", "nonsense", "chains.local"),
        ("QUITTANCE__CHAINS__LOCAL__ID", "eip155:84532", "chains.local"),
        ("QUITTANCE__CHAINS__LOCAL__WALLET_PRIVATE_KEY", &poor, "chains.local.wallet"),
    ];
    join_all(ills.map(async |(key, value, subject)| {
        let mut settings = world.environment();
        settings.retain(|(name, _)| *name != key);
        settings.push((key, value.to_owned()));
        let (ill, told) = tokio::join!(
            quittance_with(&settings, &["doctor", "--json"]),
            quittance_with(&settings, &["doctor"]),
        );
        assert_ended(&ill, 1, value);
        let findings: Value = serde_json::from_str(stdout(&ill)).unwrap();
        let finding = findings.as_array().unwrap().iter().find(|f| f["subject"] == subject);
        let finding = finding.unwrap_or_else(|| panic!("{findings}"));
        assert_eq!(finding["ok"], json!(false), "{key} = {value}: {findings}");
        assert!(finding["detail"].as_str().is_some_and(|text| !text.is_empty()));
        assert_ended(&told, 1, value);
        assert!(stdout(&told).contains(&format!("FAIL  {subject}:")), "{}", stdout(&told));
    }))
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_migrated_once_and_serve_insists_on_it() {
    let world = World::automine().await;
    let empty = world.services.postgres.fresh_database("empty").await.unwrap();
    let mut settings = world.environment();
    settings.retain(|(name, _)| *name != "QUITTANCE__DATABASE__URL");
    settings.push(("QUITTANCE__DATABASE__URL", empty));
    let serve = quittance_with(&settings, &["serve"]).await;
    assert_ended(&serve, 1, "serve without migrations");
    assert!(stderr(&serve).contains("quittance migrate"), "{}", stderr(&serve));
    for _ in 0..2 {
        assert_ended(&quittance_with(&settings, &["migrate"]).await, 0, "migrate");
    }
    assert_ended(&quittance_with(&settings, &["doctor"]).await, 0, "doctor after migrate");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchants_name_is_taken_once_and_has_1_to_200_characters() {
    let world = World::automine().await;
    let created = quittance(&world, &["merchant", "create", "shop"]).await;
    assert_ended(&created, 0, "create");
    assert!(stdout(&created).contains("quittance key create"), "{}", stdout(&created));
    let again = quittance(&world, &["merchant", "create", "shop"]).await;
    assert_ended(&again, 1, "create again");
    assert!(stderr(&again).contains("exists"), "{}", stderr(&again));
    let (longest, too_long) = ("ü".repeat(200), "ü".repeat(201));
    let created = quittance(&world, &["merchant", "create", &longest, "--json"]).await;
    assert_ended(&created, 0, "the longest name");
    let created: Value = serde_json::from_str(stdout(&created)).unwrap();
    assert_eq!(created["name"], json!(longest));
    for name in ["", &too_long] {
        assert_ended(&quittance(&world, &["merchant", "create", name]).await, 1, name);
    }
    let id = created["merchantId"].as_str().unwrap();
    let key = quittance(&world, &["key", "create", "--merchant", id]).await;
    assert_ended(&key, 0, "a key by the merchant's id");
    let n_merchants = "select count(*) from merchant";
    assert_eq!(world.count(n_merchants).await, 3, "these two and the harness's");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_and_alone_on_standard_output() {
    let world = World::automine().await;
    let mut keys = Vec::new();
    for (arguments, prefix) in [
        (&["key", "create", "--merchant", "dev merchant"][..], "qk_live_"),
        (&["key", "create", "--merchant", "dev merchant", "--test"], "qk_test_"),
        (&["key", "create", "--operator"], "qk_live_"),
    ] {
        let created = quittance(&world, arguments).await;
        assert_ended(&created, 0, "key create");
        let key = stdout(&created).to_owned();
        assert!(key.starts_with(prefix), "{key}");
        assert_eq!(key.len(), prefix.len() + 72, "{key}");
        assert!(stderr(&created).contains("only time"), "{}", stderr(&created));
        assert!(!stderr(&created).contains(&key));
        keys.push(key);

        let created = quittance(&world, &[arguments, &["--json"]].concat()).await;
        let shown: Value = serde_json::from_str(stdout(&created)).unwrap();
        assert!(shown["key"].as_str().unwrap().starts_with(prefix), "{shown}");
        keys.push(shown["key"].as_str().unwrap().to_owned());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 6, "every key is another");
    let unknown = quittance(&world, &["key", "create", "--merchant", "nobody"]).await;
    assert_ended(&unknown, 1, "a key for nobody");
    assert!(stderr(&unknown).contains("nobody"), "{}", stderr(&unknown));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_says_how_deep_its_payments_must_stand() {
    let world = World::automine().await;
    let deep = "select count(*) from merchant where name = 'deep' and wait_for = 'finalized'";
    let create = ["merchant", "create", "deep", "--wait-for", "finalized", "--json"];
    let created = quittance(&world, &create).await;
    assert_ended(&created, 0, "create --wait-for");
    let created: Value = serde_json::from_str(stdout(&created)).unwrap();
    assert_eq!(created["waitFor"], "finalized", "{created}");
    assert_eq!(world.count(deep).await, 1);
    let set = quittance(&world, &["merchant", "set", "deep", "--wait-for", "included"]).await;
    assert_ended(&set, 0, "set");
    assert!(stdout(&set).contains("included"), "{}", stdout(&set));
    assert_eq!(world.count(deep).await, 0);
    let id = created["merchantId"].as_str().unwrap();
    let set =
        quittance(&world, &["merchant", "set", id, "--wait-for", "finalized", "--json"]).await;
    assert_ended(&set, 0, "set by id");
    assert_eq!(world.count(deep).await, 1);
    let unknown = quittance(&world, &["merchant", "set", "nobody", "--wait-for", "safe"]).await;
    assert_ended(&unknown, 1, "set of nobody");
    assert!(stderr(&unknown).contains("nobody"), "{}", stderr(&unknown));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchants_assets_are_set_replaced_and_told() {
    const USDC: &str = "eip155:8453/0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
    const EURC: &str = "eip155:8453/0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42";
    let world = World::automine().await;
    let n_listed = "select count(*) from merchant_asset join merchant using (merchant_id)
        where name = 'choosy'";
    let create = ["merchant", "create", "choosy", "--assets", USDC, "--json"];
    let created = quittance(&world, &create).await;
    assert_ended(&created, 0, "create --assets");
    let created: Value = serde_json::from_str(stdout(&created)).unwrap();
    assert_eq!(created["assets"], json!([USDC]), "{created}");
    assert_eq!(world.count(n_listed).await, 1);

    let both = format!("{EURC},{}", USDC.to_lowercase());
    for (assets, n, answer) in [
        (&*both, 2, json!([EURC, USDC])),
        (EURC, 1, json!([EURC])),
        (EURC, 1, json!([EURC])),
        ("any", 0, json!("any")),
    ] {
        let set = ["merchant", "set", "choosy", "--assets", assets];
        let told = quittance(&world, &set).await;
        assert_ended(&told, 0, assets);
        assert!(stdout(&told).contains("may be paid in: "), "{}", stdout(&told));
        let told = quittance(&world, &[&set[..], &["--wait-for", "safe", "--json"]].concat()).await;
        let told: Value = serde_json::from_str(stdout(&told)).unwrap();
        assert_eq!((&told["assets"], &told["waitFor"]), (&answer, &json!("safe")), "{assets}");
        assert_eq!(world.count(n_listed).await, n, "{assets}");
    }
    for (wrong, told) in [
        (&["--assets", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"][..], "is not an asset"),
        (&["--assets", ""], "is not an asset"),
        (&[], "--assets"),
    ] {
        let set = quittance(&world, &[&["merchant", "set", "choosy"], wrong].concat()).await;
        assert_ended(&set, 64, "set of what is no list");
        assert!(stderr(&set).contains(told), "{}", stderr(&set));
    }
    let unknown = quittance(&world, &["merchant", "set", "nobody", "--assets", "any"]).await;
    assert_ended(&unknown, 1, "set of nobody");
    assert!(stderr(&unknown).contains("nobody"), "{}", stderr(&unknown));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_are_named_listed_and_changed_without_showing_a_key() {
    const PHRASE: &str = "test test test test test test test test test test test junk";
    let world = World::automine().await;
    let mut said = Vec::new();
    let empty = quittance(&world, &["wallet", "list"]).await;
    assert_ended(&empty, 0, "list of nothing");
    assert!(stdout(&empty).contains("quittance wallet add"), "{}", stdout(&empty));
    assert_eq!(stdout(&quittance(&world, &["wallet", "list", "--json"]).await), "[]");

    let address = world.services.chain.wallet.address.to_string();
    for (arguments, status, told) in [
        (&["add", "--chain", "local", "--mnemonic-index", "0"][..], 1, "wallet_mnemonic"),
        (&["add", "--chain", "local", "--address", ADDRESS], 1, "wallet_keystore_dir"),
        (&["pause", "1"], 1, "no wallet 1"),
        (&["add", "--chain", "local", "--address", &address], 0, "send gas money to"),
        (&["add", "--chain", "local", "--address", &address], 0, "already active"),
        (&["pause", ADDRESS], 1, "no wallet 0x1111"),
        (&["resume", "1"], 0, "never stopped"),
        (&["pause", &address, "--reason", "a reason", "--chain", "local"], 0, "paused (a reason)"),
        (&["pause", "1"], 0, "is paused: it signs nothing new"),
        (&["add", "--chain", "local", "--address", &address], 1, "wallet resume"),
        (&["resume", "1"], 0, "is active"),
        (&["drain", "1"], 0, "is retired (drained)"),
        (&["pause", "1"], 1, "retired"),
        (&["resume", "1"], 1, "wallet add"),
        (&["add", "--chain", "local", "--address", &address], 0, "is active on local"),
    ] {
        let output = quittance(&world, &[&["wallet"], arguments].concat()).await;
        assert_ended(&output, status, &format!("{arguments:?}"));
        let text = format!("{}{}", stdout(&output), stderr(&output));
        assert!(text.contains(told), "{arguments:?} does not tell {told:?}: {text}");
        said.push(text);
    }
    let mut settings = world.environment();
    settings.push(("QUITTANCE__CHAINS__LOCAL__WALLET_MNEMONIC", PHRASE.to_owned()));
    let add = ["wallet", "add", "--chain", "local", "--mnemonic-index", "3", "--json"];
    let added = quittance_with(&settings, &add).await;
    assert_ended(&added, 0, "add of the phrase");
    said.push(stdout(&added).to_owned());

    // A chain that does not answer is no reason to say nothing.
    settings.retain(|(name, _)| *name != "QUITTANCE__CHAINS__LOCAL__RPC_URL");
    settings.push(("QUITTANCE__CHAINS__LOCAL__RPC_URL", "http://127.0.0.1:1".to_owned()));
    for arguments in [&["wallet", "list"][..], &["wallet", "list", "--json"]] {
        let listed = quittance_with(&settings, arguments).await;
        assert_ended(&listed, 0, "list without the chain");
        said.push(stdout(&listed).to_owned());
    }
    let listed: Value = serde_json::from_str(said.last().unwrap()).unwrap();
    for wallet in listed.as_array().unwrap() {
        assert_eq!((&wallet["chain"], &wallet["hasKey"]), (&json!("local"), &json!(true)));
        assert_eq!((&wallet["balance"], &wallet["status"]), (&json!(null), &json!("active")));
        assert!(wallet["balanceTrouble"].as_str().unwrap().contains("balance"), "{wallet}");
    }
    // And a key that is nowhere is no reason either.
    settings.retain(|(name, _)| !name.contains("WALLET"));
    let listed = quittance_with(&settings, &["wallet", "list"]).await;
    assert_ended(&listed, 0, "list without keys");
    assert!(stdout(&listed).contains("not in these settings"), "{}", stdout(&listed));
    let key = world.services.chain.wallet.private_key.trim_start_matches("0x");
    for text in said {
        assert!(!text.contains(key) && !text.contains("test junk"), "{text}");
    }
    world.stop().await;
}
